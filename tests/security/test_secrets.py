"""Values that must not be seen, seeded wherever an environment has them; then every byte that a run leaves is looked through."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import nbformat
import psutil
import pytest
from nbclient import NotebookClient

from cc_executor.shim import records
from cc_executor.store.home import StateHome
from cc_executor.store.keys import PRIVATE, private_values, signing_key
from support.environments import CHECKOUT, IPYKERNEL7
from support.lab import notebook_of
from support.leaks import marked_processes
from support.runs import run_folders, wait_for

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("claude_cli")]

# name → value. The shapes are those of nobody, so only the names and the values give them away.
WITHHELD: Final = {
    "JUPYTERHUB_API_TOKEN": "canary-hub-4f1d9a7e",
    "JPY_API_TOKEN": "canary-jpy-91b3c0de",
    "JUPYTER_TOKEN": "canary-server-77aa12ef",
    "AWS_SECRET_ACCESS_KEY": "canary/aws+5b8e2f60",
    "DATABASE_URL": "postgres://me:canary-db-3c9d81@db/x",
    "UNRELATED_PASSWORD": 'canary "quoted" \\ é 0d2',
}
GIVEN: Final = {"ANTHROPIC_API_KEY": "canary-anthropic-6e0f9b", "MY_SECRET": "canary-mine-2d7c4a"}
CANARIES: Final = tuple({value for value in (*WITHHELD.values(), *GIVEN.values()) if "://" not in value} | {"canary-db-3c9d81"})

# Says all that it knows and all that it can find, on both streams, in JSON, in pieces, in its arguments, and in the names of files.
TALKER: Final = r"""
import json, os, sys, time
from pathlib import Path
known = {**dict(os.environ), "DB": "canary-db-3c9d81", "KEY": Path(signing_key).read_text()}
for pid in [os.getpid(), os.getppid()]:
    found = Path(f"/proc/{pid}/environ").read_bytes()
    os.write(1, found.replace(b"\0", b"\n")); os.write(2, found)
for name, value in known.items():
    print(name, value); print(json.dumps(json.dumps({name: value}))); print(value, file=sys.stderr)
sys.stdout.flush()
for value in [os.environ["MY_SECRET"], os.environ["ANTHROPIC_API_KEY"]]:
    for letter in value:
        os.write(1, letter.encode()); os.write(2, letter.encode()); time.sleep(0.002)
    print(value, flush=True)
    Path(value).touch()
left = os.fork()
if left == 0:
    os.setsid()
    os.execv("/bin/sh", ["sh", "-c", "sleep 100; : " + os.environ["MY_SECRET"]])
while b"sleep 100" not in Path(f"/proc/{left}/cmdline").read_bytes():
    time.sleep(0.01)
with open("gate") as gate:
    gate.read()
sys.exit(3)
"""


def everywhere(*folders: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of every file."""
    for folder in folders:
        for path in folder.rglob("*"):
            yield str(path), b""
            if path.is_file():
                yield str(path), path.read_bytes()


def found_in(name: str, content: bytes) -> list[str]:
    forms = {canary: (canary, json.dumps(canary)[1:-1], json.dumps(canary, ensure_ascii=False)[1:-1]) for canary in CANARIES}
    text = name + content.decode(errors="replace")
    return [canary for canary, ways in forms.items() if any(way in text for way in ways)]


@pytest.fixture
def seeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state_folder: Path) -> Path:
    """The folder in which the agent works; the canaries are in the environment, and the key that signs is where it always is."""
    for name, value in {**WITHHELD, **GIVEN}.items():
        monkeypatch.setenv(name, value)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    signing_key(StateHome(state_folder))
    (workspace / "talk.py").write_text(f"signing_key = {str(state_folder / PRIVATE)!r}\n{TALKER}")
    os.mkfifo(workspace / "gate")
    return workspace


ROW = pytest.mark.row(
    "threats", "secrets in what a run leaves", "0 canaries in journal, receipt, notebook, logs, tracebacks and command lines"
)
DRIVER: Final = """
import logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
from cc_executor import cc_execute_sync
result = cc_execute_sync(f"'{sys.executable}' talk.py", agent="shell", shell="bash", cwd=sys.argv[1], env_names=["MY_SECRET", "ANTHROPIC_API_KEY"],
                         expect=["made"], verify="echo checked $MY_SECRET; env; exit 1")
print(result, repr(result), result.receipt, result.text)
result.raise_for_outcome()
"""


@ROW
def test_no_secret_is_left_by_a_run_that_tells_all(seeded: Path, state_folder: Path, saw: Callable[[str], None]) -> None:
    environ = {**os.environ, "PYTHONPATH": str(CHECKOUT / "src")}
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(seeded)], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    try:
        wait_for((seeded / GIVEN["ANTHROPIC_API_KEY"]).exists)
        (run,) = run_folders(state_folder)
        shims = [process for process in marked_processes([state_folder]) if process.run_id == "(shim)"]
        assert len(shims) == 1
        lines = {pid: b"\0".join(map(os.fsencode, psutil.Process(pid).cmdline())) for pid in [driver.pid, *(shim.pid for shim in shims)]}
        # Before the end, too: what is written is masked, not mended.
        seen = list(everywhere(run))
    finally:
        (seeded / "gate").write_text("go\n")
        out, err = driver.communicate(timeout=60)
    assert driver.returncode == 1
    assert b"CCExecutionError" in err
    seen += [*everywhere(state_folder), ("what the caller printed", out), ("its log and traceback", err)]
    seen += [(f"the command line of {pid}", line) for pid, line in lines.items()]
    leaks = [(name, found) for name, content in seen if (found := found_in(name, content))]
    assert leaks == []
    [key] = private_values(state_folder)
    assert {name for name, content in seen if key in content.decode(errors="replace")} == {str(state_folder / PRIVATE)}
    stdout, stderr = (run / records.STDOUT).read_bytes(), (run / records.STDERR).read_bytes()
    assert stdout.count(b"[masked]") > 10
    assert stderr.count(b"[masked]") > 5
    receipt = json.loads((run / records.RECEIPT).read_text())
    assert [check["passed"] for check in receipt["checks"]] == [False, False]
    assert "[masked]" in json.dumps(receipt["exit"]["left_behind"])
    saw(f"{len(seen)} files and texts, 0 of {len(CANARIES)} canaries")


@ROW
@pytest.mark.usefixtures("kernelspecs")
def test_no_secret_is_in_the_notebook(seeded: Path, state_folder: Path) -> None:
    (seeded / "gate").unlink()
    (seeded / "gate").write_text("go\n")
    notebook = notebook_of(
        "%load_ext cc_executor",
        "%%cc_execute --agent shell --shell bash --env MY_SECRET --env ANTHROPIC_API_KEY --expect made --no-raise-error -o result\n"
        f"'{sys.executable}' talk.py",
        "result",
        "print(result.text, result.receipt)",
        "%cc list",
        "%cc receipt",
        "%%cc_execute --rehearse write-file --env MY_SECRET\nWrite hello.txt.",
        "%%cc_execute --agent shell --shell bash --env MY_SECRET\necho $MY_SECRET >&2; exit 4",
        kernel=IPYKERNEL7.name,
    )
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(seeded)}}, allow_errors=True).execute()
    text = nbformat.writes(notebook)
    assert found_in("", text.encode()) == []
    assert not any(value in text for value in private_values(state_folder))
    assert "[masked]" in text
    assert notebook.cells[-1].outputs[-1].ename == "CCExecutionError"
    assert notebook.cells[-2].outputs[-1].output_type == "display_data"
    # Looks for undo are copies of the folder with all that is in it, names of files included: docs/security.md says so.
    kept = [(name, content) for name, content in everywhere(state_folder) if "/undo/" not in name and "/tree-" not in name]
    assert [(name, found) for name, content in kept if (found := found_in(name, content))] == []


@pytest.mark.row(
    "threats", "environment of the agent", "an allow-list: no token of the hub or the server, no cloud key, nothing that was not named"
)
def test_the_agent_gets_what_was_named_and_nothing_else(seeded: Path) -> None:
    script = "import os, sys; sys.stdout.write(chr(10).join(sorted(os.environ)))"
    driver = "import sys; from cc_executor import cc_execute_sync; print(cc_execute_sync(sys.argv[2], agent='shell', cwd=sys.argv[1], env_names='MY_SECRET').text)"
    done = subprocess.run(
        [sys.executable, "-c", driver, str(seeded), f"'{sys.executable}' -I -c '{script}'"],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / "src")}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    names = set(done.stdout.split())
    assert {*GIVEN, "PATH", records.RUN_MARK} <= names
    assert not names & WITHHELD.keys()
