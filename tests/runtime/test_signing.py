"""Signatures of real runs: who has the public key finds out every change, and who has not learns that it takes one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cc_executor.api import cc_execute
from cc_executor.model.receipt import Receipt
from cc_executor.runtime.verification import SignatureStanding, Verdict, Verification, verify
from cc_executor.store import keys
from cc_executor.store.home import StateHome
from cc_executor.store.keys import Keys, rotate, signing_key
from support import receipts

BASH: Mapping[str, Any] = {"agent": "shell", "shell": "bash"}


@pytest.fixture
async def signed(home: StateHome, tmp_path: Path) -> Receipt:
    return (await cc_execute("echo hello", **BASH, cwd=tmp_path)).receipt


def looked_at(receipt: Receipt, home: StateHome, given: Keys | None = None) -> Verification:
    return verify(receipt, home=home, transcript_roots=(), keys=given)


def public(home: StateHome) -> Keys:
    key = signing_key(home)
    return {key.fingerprint: key.public}


async def test_a_run_is_signed_and_its_key_known(signed: Receipt, home: StateHome) -> None:
    found = looked_at(signed, home)
    assert (found.verdict, found.signature, found.signed_by) == (Verdict.VERIFIED, SignatureStanding.VALID, signing_key(home).fingerprint)
    assert any(f"signature of key {found.signed_by} is valid" in reason for reason in found.reasons)


@pytest.mark.row("threats", "forged notebook or receipt", "lift and verify say what is wrong, start no process and open no connection")
async def test_one_changed_byte_of_receipt_signature_or_key_contradicts_elsewhere(signed: Receipt, home: StateHome, tmp_path: Path) -> None:
    elsewhere, given = StateHome(tmp_path / "elsewhere"), public(home)
    assert looked_at(signed, elsewhere, given).verdict is Verdict.VERIFIED
    written = signed.model_dump_json().encode()
    counted = 0
    for place in range(len(written)):
        changed = bytearray(written)
        changed[place] ^= 1
        try:
            forged = Receipt.model_validate_json(bytes(changed))
        except ValueError:
            continue  # no receipt any more: `verify` says so, see test_verification.py
        assert forged != signed
        assert looked_at(forged, elsewhere, given).verdict is Verdict.CONTRADICTED, changed
        counted += 1
    assert counted > 800


Forge = Callable[[Receipt, StateHome], Receipt]


@pytest.mark.parametrize(
    ("forge", "signature"),
    [
        # Without the key: the content changed and the digest made anew; the signature of another receipt; none at all.
        (lambda receipt, _: receipt.model_copy(update={"digest": receipt.model_copy(update={"text": "x"}).expected_digest(), "text": "x"}), "contradicted"),
        (lambda receipt, _: receipt.model_copy(update={"signature": "00" * 64}), "contradicted"),
        (lambda receipt, _: receipt.model_copy(update={"signature": receipt.signature.upper()}), "contradicted"),
        (lambda receipt, _: receipt.model_copy(update={"signature": ""}), "contradicted"),
        (lambda receipt, _: receipt.model_copy(update={"signed_by": ""}), "contradicted"),
        (lambda receipt, home: receipt.sealed(rotate(home)), "contradicted"),
    ],
)  # fmt: skip
async def test_a_forger_without_the_key_is_found_out(
    signed: Receipt, home: StateHome, tmp_path: Path, forge: Forge, signature: str
) -> None:
    elsewhere, given = StateHome(tmp_path / "elsewhere"), public(home)
    found = looked_at(forge(signed, StateHome(tmp_path / "forger")), elsewhere, given)
    assert (found.verdict, found.signature) == (Verdict.CONTRADICTED, signature)


async def test_where_a_signature_is_demanded_none_is_not_enough(signed: Receipt, home: StateHome, tmp_path: Path) -> None:
    stripped = signed.sealed()
    assert looked_at(stripped, home).verdict is Verdict.CONTRADICTED, "the run's folder has another"
    found = looked_at(stripped, StateHome(tmp_path / "elsewhere"), public(home))
    assert (found.verdict, found.signature) == (Verdict.UNVERIFIABLE, SignatureStanding.UNSIGNED)


async def test_a_key_that_nobody_knows_here_is_named(signed: Receipt, tmp_path: Path) -> None:
    found = looked_at(signed, StateHome(tmp_path / "elsewhere"))
    assert (found.verdict, found.signature) == (Verdict.UNVERIFIABLE, SignatureStanding.UNKNOWN)
    assert signing_key(StateHome(tmp_path / "elsewhere")).fingerprint != signed.signed_by
    assert signed.signed_by in found.reasons[0]
    assert "--key" in found.reasons[0]


async def test_after_a_new_key_old_receipts_still_verify(signed: Receipt, home: StateHome, tmp_path: Path) -> None:
    rotate(home)
    later = (await cc_execute("echo later", **BASH, cwd=tmp_path)).receipt
    assert later.signed_by != signed.signed_by
    assert [looked_at(each, home).signature for each in (signed, later)] == [SignatureStanding.VALID] * 2


async def test_without_the_library_runs_are_sealed_as_before(home: StateHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signed = (await cc_execute("echo hello", **BASH, cwd=tmp_path)).receipt
    monkeypatch.setattr(keys, "is_available", lambda: False)
    monkeypatch.setattr("cc_executor.runtime.verification.is_available", lambda: False)
    unsigned = (await cc_execute("echo again", **BASH, cwd=tmp_path)).receipt
    found = looked_at(unsigned, home)
    assert (found.verdict, found.signature) == (Verdict.VERIFIED, SignatureStanding.UNSIGNED)
    found = looked_at(signed, home)
    assert (found.verdict, found.signature) == (Verdict.UNVERIFIABLE, SignatureStanding.UNKNOWN)
    assert "cc-executor[signing]" in found.reasons[0]


async def test_an_unsafe_state_folder_has_no_known_key_and_is_no_error(signed: Receipt, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    found = looked_at(signed, StateHome(tmp_path / "open"))
    assert (found.verdict, found.signature) == (Verdict.UNVERIFIABLE, SignatureStanding.UNKNOWN)


def test_a_receipt_from_before_signatures_reads_and_is_intact() -> None:
    old = receipts.receipt(1).model_dump(mode="json")
    del old["signed_by"], old["signature"]
    assert Receipt.model_validate(old).is_intact
