"""A notebook from somebody else, given to the command line and to the kernel: it is read, judged in sentences, and nothing in it is obeyed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from cc_executor.model.receipt import RECEIPT_MIME, Receipt
from support.environments import CHECKOUT
from support.receipts import code_cell, final_output, live_output, notebook, receipt, run_id

pytestmark = pytest.mark.timeout(240)

Json = dict[str, Any]
ROW = pytest.mark.row("threats", "forged notebook or receipt", "lift and verify say what is wrong, start no process and open no connection")

# The interpreter tells of whatever starts or reaches out, before it happens.
WATCHED: Final = """
import sys
FORBIDDEN = {"subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.system", "os.startfile", "pty.spawn", "os.kill", "socket.connect",
             "socket.bind", "socket.sendto", "ctypes.dlopen", "pickle.find_class", "code.__new__"}
def watch(event, values):
    if event in FORBIDDEN:
        print("FORBIDDEN", event, values, file=sys.stderr, flush=True)
from cc_executor.cli import main
import cc_executor.runtime.evidence, cc_executor.store.notebook, cc_executor.cli.receipts
sys.addaudithook(watch)
main()
"""


def cli(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *map(str, arguments)], env={**os.environ, "PYTHONPATH": str(CHECKOUT / "src")},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "FORBIDDEN" not in done.stderr, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


def evil(canary: Path, **changes: Any) -> Receipt:
    """A receipt, well sealed, that names commands wherever a receipt can."""
    command = f"touch {canary}"
    fields: Json = {
        "argv": ("/bin/sh", "-c", command), "agent_path": "/bin/sh", "cwd": f"$({command})", "session_id": f"../../{command}", "agent": "shell",
        "text": f"`{command}`", "transcript": "/etc/passwd",
    }  # fmt: skip
    return receipt(1, **(fields | changes))


def as_sealed(canary: Path) -> Json:
    return notebook(code_cell("a", final_output(evil(canary))))


def with_a_false_digest(canary: Path) -> Json:
    return notebook(code_cell("a", final_output(evil(canary).model_copy(update={"text": "changed"}))))


def with_paths_for_ids(canary: Path) -> Json:
    outputs = [final_output(evil(canary, run_id=name)) for name in ("../../etc", "/etc/passwd", "..", f"$(touch {canary})", "0" * 27)]
    return notebook(*(code_cell(str(number), output) for number, output in enumerate(outputs)))


def with_wrong_types(canary: Path) -> Json:
    raw = evil(canary).model_dump(mode="json")
    outputs = [{"output_type": "display_data", "data": {RECEIPT_MIME: {**raw, name: [{"a": None}]}}, "metadata": {}} for name in raw]
    made = notebook(*(code_cell(str(number), output) for number, output in enumerate(outputs)))
    made["metadata"]["cc_executor"] = {"receipts": {run_id(1): {"run_id": 3, "digest": [], "cost": {}}, "..": 1, run_id(2): None}}
    return made


def of_deep_brackets(canary: Path) -> Json:
    value: Any = str(canary)
    for _ in range(180):
        value = [value]
    output = final_output(evil(canary))
    output["data"][RECEIPT_MIME]["data"] = value
    return notebook(code_cell("a", output))


def of_a_live_view(_: Path) -> Json:
    made = notebook(code_cell("a", live_output(1)))
    made["metadata"]["cc_executor"] = {"resume": [run_id(1)], "autorun": True, "receipts": {run_id(1): {"run_id": run_id(1)}}}
    return made


def of_terminal_control(canary: Path) -> Json:
    words = f"\x1b]0;title\x07\x1b[2J\x1b]52;c;ZXZpbA==\x07\u202e{canary}"
    output = final_output(evil(canary, text=words, model=words))
    output["metadata"]["cc_executor"]["status"] = words
    return notebook(code_cell("a", output))


FORGERIES: list[Callable[[Path], Json]] = [
    as_sealed, with_a_false_digest, with_paths_for_ids, with_wrong_types, of_deep_brackets, of_a_live_view, of_terminal_control,
]  # fmt: skip


@ROW
@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_notebook_is_judged_and_not_obeyed(forgery: Callable[[Path], Json], tmp_path: Path, state_folder: Path) -> None:
    canary = tmp_path / "canary"
    file = tmp_path / "forged.ipynb"
    file.write_text(json.dumps(forgery(canary)))
    for arguments in (("verify", file), ("lift", file), ("verify", file, "--json")):
        done = cli(*arguments)
        assert done.returncode in {0, 1, 3}, done.stderr
        assert not {"\x1b", "\x07"} & set(done.stdout + done.stderr)
        if arguments[0] == "verify":
            assert done.returncode != 0, "what nobody ran was verified"
            assert "contradicted" in done.stdout or "unverifiable" in done.stdout
    assert not canary.exists()
    assert not (state_folder / "runs").exists()


@ROW
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[" * 100_000, b'{"run_id": "..", "argv": ["/bin/sh"]}', b"1" * 10_000, b'{"nbformat": 4, "cells": 3}']
)
def test_what_is_no_receipt_is_refused_in_a_sentence(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "forged.json"
    file.write_bytes(content)
    done = cli("verify", file)
    assert done.returncode in {1, 2}
    assert 1 <= len((done.stderr + done.stdout).splitlines()) <= 3


@pytest.mark.row(
    "threats", "%load_ext", "starts no process, opens no port, resumes nothing, whatever the notebook or the state folder says"
)
def test_loading_the_extension_starts_nothing(tmp_path: Path, state_folder: Path) -> None:
    state_folder.mkdir(mode=0o700)
    (state_folder / "resume.json").write_text(json.dumps([run_id(1)]))
    script = (
        "import sys\nfrom IPython.core.interactiveshell import InteractiveShell\nshell = InteractiveShell.instance()\n"
        "seen = []\nsys.addaudithook(lambda event, values: seen.append(event) if event.startswith(('subprocess.', 'os.exec', 'os.posix_spawn', 'os.fork', "
        "'socket.connect', 'socket.bind', 'os.system')) else None)\n"
        "shell.run_line_magic('load_ext', 'cc_executor')\nshell.run_line_magic('cc', 'list')\nprint('seen', seen)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / "src")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "seen []", done.stdout
    assert not (state_folder / "runs").exists()
