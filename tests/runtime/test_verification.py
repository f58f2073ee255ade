"""Receipts of real runs through the real shim, and every way in which they could be made to lie."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from cc_executor.api import cc_execute, make_request
from cc_executor.errors import NotebookUnreadable
from cc_executor.model.receipt import RECEIPT_MIME, Receipt
from cc_executor.runtime.evidence import verify_file
from cc_executor.runtime.run import Run
from cc_executor.runtime.verification import Verdict, Verification, transcript_roots, verify
from cc_executor.shim import records
from cc_executor.store.home import StateHome
from cc_executor.store.notebook import lift, stored_bundles, stored_receipts
from support import receipts
from support.runs import to_end

Json = dict[str, Any]
BASH: Json = {"agent": "shell", "shell": "bash"}
SCRIPT = "echo one; echo two >&2; printf 'three without a newline'"


@pytest.fixture
async def sealed(home: StateHome, tmp_path: Path) -> Receipt:
    """The receipt of a command that has run."""
    result = await cc_execute(SCRIPT, **BASH, cwd=tmp_path, verify="true")
    assert result.ok
    return result.receipt


def verified(receipt: Receipt, home: StateHome) -> Verification:
    return verify(receipt, home=home, transcript_roots=())


def folder_of(receipt: Receipt, home: StateHome) -> Path:
    return home.runs_path / receipt.run_id


# --- an honest receipt --------------------------------------------------------------------------------------------


async def test_the_receipt_of_a_run_is_verified(sealed: Receipt, home: StateHome) -> None:
    found = verified(sealed, home)
    assert found.verdict is Verdict.VERIFIED, found.reasons
    assert all(reason.endswith(".") for reason in found.reasons)
    assert any("journal is the one that was sealed" in reason for reason in found.reasons)


async def test_a_failed_and_a_cancelled_run_are_verified_too(home: StateHome, tmp_path: Path) -> None:
    failed = await cc_execute("exit 3", **BASH, cwd=tmp_path)
    assert failed.status == "failed"
    assert verified(failed.receipt, home).verdict is Verdict.VERIFIED, verified(failed.receipt, home).reasons

    run = await Run.start(make_request("echo started; sleep 600", **BASH, cwd=tmp_path), home=home, environ=os.environ)
    async for batch in run.follow():
        if "started" in batch.state.text and batch.state.stop is None:
            await run.cancel(by="test")
    cancelled = await run.finish()
    assert cancelled.outcome.kind.value == "cancelled"
    assert verified(cancelled, home).verdict is Verdict.VERIFIED, verified(cancelled, home).reasons


async def test_a_masked_secret_is_no_contradiction(home: StateHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_TOKEN", "canary-5f1c0d9e8b")
    result = await cc_execute('echo "it is $MY_API_TOKEN."', **BASH, cwd=tmp_path, env_names=("MY_API_TOKEN",))
    assert "canary" not in result.text
    assert verified(result.receipt, home).verdict is Verdict.VERIFIED, verified(result.receipt, home).reasons


# --- one changed byte ---------------------------------------------------------------------------------------------


def flip_first(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def flip_middle(data: bytes) -> bytes:
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def flip_last(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def append(data: bytes) -> bytes:
    return data + b"x"


def cut(data: bytes) -> bytes:
    return data[:-1]


@pytest.mark.parametrize("change", [flip_first, flip_middle, flip_last, append, cut])
@pytest.mark.parametrize("name", [records.STDOUT, records.STDERR, records.CONTROL])
async def test_one_changed_byte_of_the_journal_contradicts(
    sealed: Receipt, home: StateHome, name: str, change: Callable[[bytes], bytes]
) -> None:
    path = folder_of(sealed, home) / name
    path.write_bytes(change(path.read_bytes()))
    found = verified(sealed, home)
    assert found.verdict is Verdict.CONTRADICTED
    assert name in found.reasons[0]


@pytest.mark.row("threats", "forged notebook or receipt", "lift and verify say what is wrong, start no process and open no connection")
async def test_one_changed_byte_of_a_receipt_never_passes(sealed: Receipt, home: StateHome, tmp_path: Path) -> None:
    original = sealed.model_dump_json(indent=1).encode()
    path = tmp_path / "receipt.json"
    counted = 0
    for place in range(0, len(original), 3):
        changed = bytearray(original)
        changed[place] ^= 1
        path.write_bytes(changed)
        try:
            if Receipt.model_validate_json(bytes(changed)) == sealed:
                continue  # a blank between two values became another blank
        except ValueError:
            pass
        try:
            [found] = verify_file(path, home=home, transcript_roots=())
        except NotebookUnreadable:
            continue  # no longer JSON, or no longer a receipt at all
        assert found.verdict is Verdict.CONTRADICTED, (place, bytes(changed[place - 20 : place + 20]))
        counted += 1
    assert counted > len(original) // 6


@pytest.mark.parametrize("change", [flip_first, flip_middle, flip_last, cut])
async def test_a_damaged_sealed_receipt_in_the_store_contradicts(
    sealed: Receipt, home: StateHome, change: Callable[[bytes], bytes]
) -> None:
    path = folder_of(sealed, home) / records.RECEIPT
    path.write_bytes(change(path.read_bytes()))
    assert verified(sealed, home).verdict is Verdict.CONTRADICTED


# --- a forger who seals anew --------------------------------------------------------------------------------------


def forged(receipt: Receipt, **changes: Any) -> Receipt:
    return Receipt.model_validate(receipt.model_dump(mode="json") | changes).sealed()


async def test_a_receipt_that_was_sealed_anew_is_not_the_one_in_the_store(sealed: Receipt, home: StateHome) -> None:
    found = verified(forged(sealed, text="All tests pass."), home)
    assert found.verdict is Verdict.CONTRADICTED
    assert "another receipt" in found.reasons[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"text": "All tests pass."},
        {"cost": 0.5},
        {"turns": 7},
        {"session_id": "another"},
        {"model": "claude-opus-9"},
        {"outcome": {"kind": "failed", "summary": "It failed."}},
        {"exit": {"code": 1}},
        {"argv": ["/bin/true"]},
        {"request_digest": "0" * 64},
        {"standing": "claimed"},
        {"data": {"answer": 42}},
        {"usage": {"input_tokens": 5}},
        {"denials": ["Bash"]},
        {"journal": {}},
    ],
)
async def test_a_receipt_forged_in_the_store_as_well_is_contradicted_by_the_journal(
    sealed: Receipt, home: StateHome, changes: Json
) -> None:
    lie = forged(sealed, **changes)
    (folder_of(sealed, home) / records.RECEIPT).write_text(lie.model_dump_json(), "utf-8")
    found = verified(lie, home)
    assert found.verdict is Verdict.CONTRADICTED, found.reasons


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (records.REQUEST, "echo one", "echo 1"),
        (records.REQUEST, "{", ""),
        ("plan.json", "printf", "PRINTF"),
        ("plan.json", "{", ""),
        (records.EXIT, '"code": 0', '"code": 1'),
        (records.EXIT, "{", ""),
    ],
)
async def test_a_changed_file_beside_the_journal_contradicts(sealed: Receipt, home: StateHome, name: str, old: str, new: str) -> None:
    path = folder_of(sealed, home) / name
    text = path.read_text("utf-8").replace('"code":0', '"code": 0')
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    found = verified(sealed, home)
    assert found.verdict is Verdict.CONTRADICTED, found.reasons


async def test_another_version_s_reading_is_no_contradiction(sealed: Receipt, home: StateHome) -> None:
    older = forged(sealed, cc_executor_version="0.0.1", text="As 0.0.1 read it.")
    (folder_of(sealed, home) / records.RECEIPT).write_text(older.model_dump_json(), "utf-8")
    found = verified(older, home)
    assert found.verdict is Verdict.UNVERIFIABLE
    assert "0.0.1" in found.reasons[0]


# --- what is missing ----------------------------------------------------------------------------------------------


async def test_without_the_journal_only_the_digest_is_said_to_hold(sealed: Receipt, home: StateHome) -> None:
    shutil.rmtree(folder_of(sealed, home))
    found = verified(sealed, home)
    assert found.verdict is Verdict.UNVERIFIABLE
    assert "not on this machine" in found.reasons[0]
    assert "as it was sealed" in found.reasons[1]
    assert verified(sealed.model_copy(update={"text": "x"}), home).verdict is Verdict.CONTRADICTED


@pytest.mark.parametrize("name", [records.STDOUT, records.CONTROL, records.RECEIPT, records.REQUEST, "plan.json", records.EXIT])
async def test_a_file_that_is_gone_makes_it_unverifiable(sealed: Receipt, home: StateHome, name: str) -> None:
    (folder_of(sealed, home) / name).unlink()
    found = verified(sealed, home)
    assert found.verdict is Verdict.UNVERIFIABLE, found.reasons
    assert "no longer" in found.reasons[0]


@pytest.mark.row("threats", "path as a run id", "an id is 26 hex digits or a part of one; nothing else names a run")
def test_a_run_id_that_is_a_path_is_not_followed(home: StateHome) -> None:
    home.prepare()
    found = verified(receipts.receipt(1, run_id="../../../etc"), home)
    assert found.verdict is Verdict.UNVERIFIABLE


def test_a_later_form_of_receipt_is_not_judged(home: StateHome, tmp_path: Path) -> None:
    assert verified(receipts.receipt(1, schema_version=99), home).verdict is Verdict.UNVERIFIABLE
    path = tmp_path / "receipt.json"
    path.write_text(json.dumps({"schema_version": 99, "run_id": receipts.run_id(1), "digest": "0", "something": "new"}), "utf-8")
    assert [item.verdict for item in verify_file(path, home=home, transcript_roots=())] == [Verdict.UNVERIFIABLE]


# --- notebooks ----------------------------------------------------------------------------------------------------


def notebook_of(receipt: Receipt, home: StateHome) -> Json:
    notebook = receipts.notebook(receipts.code_cell("a", source="1 + 1"), receipts.code_cell("b", receipts.final_output(receipt)))
    lift(notebook, previous=None, receipt_of=stored_receipts(home), bundle_of=stored_bundles(home))
    return notebook


def verify_notebook(notebook: Json, home: StateHome, folder: Path) -> list[Verification]:
    path = folder / "work.ipynb"
    path.write_text(json.dumps(notebook), "utf-8")
    return verify_file(path, home=home, transcript_roots=())


async def test_the_receipts_of_a_notebook_are_verified_and_their_cells_named(sealed: Receipt, home: StateHome, tmp_path: Path) -> None:
    [found] = verify_notebook(notebook_of(sealed, home), home, tmp_path)
    assert (found.verdict, found.where) == (Verdict.VERIFIED, "cell 2"), found.reasons


async def test_a_record_that_disagrees_with_its_receipt_contradicts(sealed: Receipt, home: StateHome, tmp_path: Path) -> None:
    for name, value in {"status": "failed", "cost": 9.0, "digest": "0" * 64, "model": "x", "standing": "claimed", "elapsed": 1e6}.items():
        notebook = notebook_of(sealed, home)
        notebook["metadata"]["cc_executor"]["receipts"][sealed.run_id][name] = value
        [found] = verify_notebook(notebook, home, tmp_path)
        assert found.verdict is Verdict.CONTRADICTED, name
        assert name in found.reasons[0]


@pytest.mark.parametrize("name", ["digest", "status", "run_id"])
async def test_an_output_whose_mark_disagrees_contradicts(sealed: Receipt, home: StateHome, tmp_path: Path, name: str) -> None:
    notebook = notebook_of(sealed, home)
    notebook["cells"][1]["outputs"][0]["metadata"]["cc_executor"][name] = "another"
    [found] = verify_notebook(notebook, home, tmp_path)
    assert found.verdict is Verdict.CONTRADICTED


async def test_after_clear_outputs_the_record_is_verified_by_the_store(sealed: Receipt, home: StateHome, tmp_path: Path) -> None:
    notebook = notebook_of(sealed, home)
    notebook["cells"][1]["outputs"] = []
    [found] = verify_notebook(notebook, home, tmp_path)
    assert (found.verdict, found.where) == (Verdict.VERIFIED, "notebook metadata"), found.reasons
    notebook["metadata"]["cc_executor"]["receipts"][sealed.run_id]["cost"] = 1.0
    [found] = verify_notebook(notebook, home, tmp_path)
    assert found.verdict is Verdict.CONTRADICTED
    shutil.rmtree(folder_of(sealed, home))
    [found] = verify_notebook(notebook, home, tmp_path)
    assert found.verdict is Verdict.UNVERIFIABLE


async def test_a_receipt_that_a_browser_has_rewritten_is_verified(sealed: Receipt, home: StateHome, tmp_path: Path) -> None:
    notebook = json.loads(
        json.dumps(notebook_of(sealed, home)), parse_float=lambda text: int(float(text)) if float(text).is_integer() else float(text)
    )
    [found] = verify_notebook(notebook, home, tmp_path)
    assert found.verdict is Verdict.VERIFIED, found.reasons


async def test_a_mangled_receipt_in_an_output_contradicts(sealed: Receipt, home: StateHome, tmp_path: Path) -> None:
    for mangle in ({"outcome": "ok"}, {"extra": 1}, {"times": None}):
        notebook = notebook_of(sealed, home)
        notebook["cells"][1]["outputs"][0]["data"][RECEIPT_MIME] |= mangle
        [found] = verify_notebook(notebook, home, tmp_path)
        assert found.verdict is Verdict.CONTRADICTED


async def test_a_receipt_that_was_too_big_for_the_notebook_is_examined_in_the_store(
    sealed: Receipt, home: StateHome, tmp_path: Path
) -> None:
    notebook = notebook_of(sealed, home)
    stub = {"schema_version": 1, "run_id": sealed.run_id, "digest": sealed.digest, "left_out": "It has 9 MB."}
    notebook["cells"][1]["outputs"][0]["data"][RECEIPT_MIME] = stub
    [found] = verify_notebook(notebook, home, tmp_path)
    assert (found.verdict, found.where) == (Verdict.VERIFIED, "cell 2"), found.reasons
    stub["digest"] = "0" * 64
    [found] = verify_notebook(notebook, home, tmp_path)
    assert found.verdict is Verdict.CONTRADICTED


async def test_a_run_that_nobody_has_followed_to_its_end_is_told_with_what_seals_it(home: StateHome, tmp_path: Path) -> None:
    run = await Run.start(make_request(SCRIPT, **BASH, cwd=tmp_path), home=home, environ=os.environ)
    await to_end(run)
    live = receipts.live_output()
    live["metadata"]["cc_executor"]["run_id"] = run.run_id
    notebook = receipts.notebook(receipts.code_cell("a", live))
    [found] = verify_notebook(notebook, home, tmp_path)
    assert found.verdict is Verdict.UNVERIFIABLE
    _, command, *_ = found.reasons[0].split("`")
    await anyio.run_process([sys.executable, "-m", "cc_executor.cli", *command.split()[1:]])
    [found] = verify_notebook(notebook, home, tmp_path)
    assert found.verdict is Verdict.VERIFIED, found.reasons


def test_a_notebook_without_runs_has_nothing_to_verify(home: StateHome, tmp_path: Path) -> None:
    assert verify_notebook(receipts.notebook(receipts.code_cell("a")), home, tmp_path) == []


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"[]", b"{}", b'"text"', b"\xff", b'{"nbformat": 3}', b'{"digest": 1}', b"[" * 50_000]
)
def test_what_is_neither_notebook_nor_receipt_is_refused_in_a_sentence(home: StateHome, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "work.ipynb"
    path.write_bytes(content)
    with pytest.raises(NotebookUnreadable, match=r"\.$"):
        verify_file(path, home=home, transcript_roots=())


# --- the agent's own transcript -----------------------------------------------------------------------------------


@pytest.fixture
async def rehearsed(home: StateHome, tmp_path: Path, claude_cli: Path) -> Receipt:
    """A run of the real CLI with a scripted model: text, a tool, text."""
    result = await cc_execute("Write the file.", cwd=tmp_path, rehearse="write-file")
    assert result.ok, result.receipt.outcome
    return result.receipt


def transcript_of(receipt: Receipt, home: StateHome) -> Path:
    [path] = (folder_of(receipt, home) / "agent" / "projects").glob(f"*/{receipt.session_id}.jsonl")
    return path


async def test_the_cli_s_own_transcript_confirms_every_message(rehearsed: Receipt, home: StateHome) -> None:
    found = verified(rehearsed, home)
    assert found.verdict is Verdict.VERIFIED, found.reasons
    assert "tells 3 of 3 messages alike" in found.reasons[-1]


async def test_a_transcript_that_tells_it_otherwise_contradicts(rehearsed: Receipt, home: StateHome) -> None:
    path = transcript_of(rehearsed, home)
    lines = path.read_text("utf-8").splitlines(keepends=True)
    for place, line in enumerate(lines):
        told = json.loads(line)
        if told.get("type") == "assistant" and told["message"]["content"][0]["type"] == "text":
            told["message"]["content"][0]["text"] += " "
            lines[place] = json.dumps(told) + "\n"
    path.write_text("".join(lines), "utf-8")
    found = verified(rehearsed, home)
    assert found.verdict is Verdict.CONTRADICTED
    assert "(content)" in found.reasons[0]


async def test_a_message_that_the_transcript_lacks_contradicts(rehearsed: Receipt, home: StateHome) -> None:
    path = transcript_of(rehearsed, home)
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if json.loads(line).get("type") != "user"), "utf-8")
    found = verified(rehearsed, home)
    assert found.verdict is Verdict.CONTRADICTED
    assert "lacks 1 message" in found.reasons[0]


async def test_a_missing_transcript_is_said_and_the_rest_stays_verified(rehearsed: Receipt, home: StateHome) -> None:
    shutil.rmtree(folder_of(rehearsed, home) / "agent")
    found = verified(rehearsed, home)
    assert found.verdict is Verdict.VERIFIED
    assert any("transcript was not found" in reason for reason in found.reasons)
    assert any("rehearsal" in reason for reason in found.reasons)


async def test_of_a_rehearsal_that_never_spoke_nothing_is_said_to_be_gone(home: StateHome, tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    silent.write_text('#!/bin/sh\ncase "$*" in *--version*) echo "2.1.330 (Claude Code)"; exit 0;; esac\nexit 1\n', "utf-8")
    silent.chmod(0o755)
    ended = await cc_execute("Write.", cwd=tmp_path, rehearse="hello", cli=str(silent))
    found = verified(ended.receipt, home)
    assert found.verdict is Verdict.VERIFIED
    assert "no transcript of its own" in found.reasons[-1]


def test_transcripts_are_looked_for_where_the_cli_keeps_them() -> None:
    assert transcript_roots({"HOME": "/home/me"}) == (Path("/home/me/.claude"),)
    assert transcript_roots({"HOME": "/home/me", "CLAUDE_CONFIG_DIR": "/elsewhere"}) == (Path("/elsewhere"),)
