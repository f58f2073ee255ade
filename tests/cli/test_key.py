"""The key, and what somebody else can verify with its public half."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from cc_executor.api import cc_execute_sync
from cli.test_cli import SHELL, cli
from support.commands import command

BASH: Final[dict[str, Any]] = {"agent": "shell", "shell": "bash"}


def test_somebody_else_verifies_a_signed_receipt_with_the_public_key_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receipt = cc_execute_sync("echo hello", **BASH, cwd=tmp_path).receipt
    path, old, new, every = (tmp_path / name for name in ("receipt.json", "old.pem", "new.pem", "all.pub"))
    path.write_text(receipt.model_dump_json(), "utf-8")
    old.write_text(command("key", "export").out, "ascii")
    assert command("key", "show").out.strip() == receipt.signed_by
    assert command("key", "rotate").code == 0
    new.write_text(command("key", "export").out, "ascii")
    every.write_text(command("key", "export", "--all").out, "ascii")
    assert json.loads(command("key", "show", "--json").out)["former"] == [receipt.signed_by]
    assert f"{receipt.signed_by} (before" in command("key", "show").out
    assert command("verify", path).code == 0

    monkeypatch.setenv("CC_EXECUTOR_STATE", str(tmp_path / "elsewhere"))
    for arguments, code, verdict, signature in (
        (("--key", old), 0, "verified", "valid"),
        (("--key", every), 0, "verified", "valid"),
        (("--key", new, "--key", old), 0, "verified", "valid"),
        (("--key", new), 1, "contradicted", "contradicted"),
        ((), 3, "unverifiable", "unknown key"),
    ):
        done = command("verify", path, "--json", *arguments)
        [said] = json.loads(done.out)
        assert (done.code, said["verdict"], said["signature"], said["signed_by"]) == (code, verdict, signature, receipt.signed_by), (
            arguments
        )


@pytest.mark.parametrize("what", ["signing-key", "nowhere.pem"])
def test_what_is_no_public_key_is_refused_with_its_cure(what: str, state_folder: Path, tmp_path: Path) -> None:
    receipt = cc_execute_sync("true", **BASH, cwd=tmp_path).receipt
    done = command("verify", receipt.run_id, "--key", state_folder / what)
    assert done.code == 2
    assert "key export" in done.err
    assert (state_folder / "signing-key").read_text().strip() not in done.err


def test_a_damaged_key_costs_the_signature_and_not_the_run_and_the_cure_is_said(state_folder: Path, tmp_path: Path) -> None:
    cli("key", "show")
    (state_folder / "signing-key").write_text("no key")
    done = cli("run", "echo hello", *SHELL, "--cwd", tmp_path)
    assert (done.returncode, done.stdout) == (0, "hello\n")
    assert "receipts are not signed: The signing key" in done.stderr
    assert "is damaged. `cc-executor key rotate` makes a new one." in done.stderr
