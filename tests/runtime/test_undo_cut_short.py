"""Who begins a run in a folder where an undo was killed halfway hears of it, and how it is completed; and no more of it then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cc_executor.api import cc_execute_sync
from cc_executor.runtime.undo import redo, undo
from cc_executor.runtime.workspace import remark
from cc_executor.store.home import StateHome
from support.disks import on_small_disk
from support.environments import CHECKOUT
from support.runs import BASH
from support.trees import worked

# Killed, or stands still, when it has put one of the files in its place.
PROGRAM = """
import os, sys
from pathlib import Path
from cc_executor.runtime.undo import redo, undo
from cc_executor.store.home import StateHome
def end(event, arguments):
    if event == "os.rename" and os.path.basename(os.fsdecode(arguments[1])) == "f5":
        os.kill(os.getpid(), int(sys.argv[4]))
sys.addaudithook(end)
(undo if sys.argv[1] == "undo" else redo)(StateHome(Path(sys.argv[2])), *([[sys.argv[3]]] if sys.argv[1] == "undo" else [sys.argv[3]]))
"""

# On a disk of its own, which can be written no more from one of the files on, so that what was done cannot be taken back either; and can again.
READ_ONLY = """
import os, subprocess, sys
from pathlib import Path
tests, what, state, root = sys.argv[1:]
sys.path.insert(0, tests)
from cc_executor.errors import UndoIncomplete
from cc_executor.runtime.undo import redo, undo
from cc_executor.store.home import StateHome
from support.trees import worked
home, files = StateHome(Path(state)), [Path(root, f"f{number}") for number in range(10)]
for file in files:
    file.write_text("original")
run_id = worked(home, Path(root), lambda: [file.write_text("changed") for file in files])
act = {"undo": lambda: undo(home, [run_id]), "redo": lambda: redo(home, run_id)}
if what == "redo":
    act["undo"]()
remount = lambda how: subprocess.run(["mount", "-o", f"remount,{how}", root], check=True)
faults = ["ro"]
def fault(event, arguments):
    if event == "os.rename" and os.path.basename(os.fsdecode(arguments[1])) == "f5" and faults:
        remount(faults.pop())
sys.addaudithook(fault)
try:
    act[what]()
except UndoIncomplete as error:
    print(str(error).replace(run_id, "RUN"))
print(len({file.read_text() for file in files}))
remount("rw")
print(act[what]().was_completed, {file.read_text() for file in files})
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir()
    for number in range(10):
        (path / f"f{number}").write_text(f"original {number}")
    return path


def changed(home: StateHome, root: Path) -> str:
    return worked(home, root, lambda: [path.write_text("changed") for path in root.glob("f*")])


def command(what: str, home: StateHome, run_id: str, number: signal.Signals) -> list[str]:
    return [sys.executable, "-c", PROGRAM, what, str(home.root), run_id, str(int(number))]


def killed(what: str, home: StateHome, run_id: str) -> None:
    assert subprocess.run(command(what, home, run_id, signal.SIGKILL), timeout=60, check=False).returncode == -signal.SIGKILL


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_run_in_a_half_undone_folder_says_how_the_undo_is_completed(home: StateHome, root: Path, *, is_kept: bool) -> None:
    run_id = changed(home, root)
    killed("undo", home, run_id)
    assert len({path.read_text() == "changed" for path in root.glob("f*")}) == 2, "half of it is done"
    (root / "below").mkdir()
    receipt = cc_execute_sync("true", **BASH, cwd=root / "below", undo=is_kept).receipt
    cure = f"An undo of run {run_id} was cut short in {root}"
    assert cure in remark(home.find(receipt.run_id))
    assert f"`cc-executor undo {run_id}` completes it" in remark(home.find(receipt.run_id))
    assert is_kept == (receipt.undo is not None and cure in receipt.undo.note)
    elsewhere = root.with_name("elsewhere")
    elsewhere.mkdir()
    other = cc_execute_sync("true", **BASH, cwd=elsewhere, undo=is_kept).receipt
    assert remark(home.find(other.run_id)) == ""
    assert undo(home, [run_id]).was_completed
    assert {path.read_text() for path in root.glob("f*")} == {f"original {number}" for number in range(10)}
    assert remark(home.find(receipt.run_id)) == ""


def test_an_undo_that_is_taken_back_by_half_is_told_with_its_own_cure(home: StateHome, root: Path) -> None:
    run_id = changed(home, root)
    undo(home, [run_id])
    killed("redo", home, run_id)
    receipt = cc_execute_sync("true", **BASH, cwd=root, undo=False).receipt
    assert f"`cc-executor undo --redo {run_id}` completes it" in remark(home.find(receipt.run_id))
    assert redo(home, run_id).was_completed
    assert {path.read_text() for path in root.glob("f*")} == {"changed"}
    assert remark(home.find(receipt.run_id)) == ""


def test_an_undo_that_is_being_carried_out_was_not_cut_short(home: StateHome, root: Path) -> None:
    run_id = changed(home, root)
    with subprocess.Popen(command("undo", home, run_id, signal.SIGSTOP)) as process:
        try:
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            receipt = cc_execute_sync("true", **BASH, cwd=root, undo=False).receipt
            assert remark(home.find(receipt.run_id)) == ""
        finally:
            process.kill()
    assert run_id in remark(home.find(receipt.run_id))


@pytest.mark.parametrize(("what", "option", "outcome"), [("undo", "", "original"), ("redo", "--redo ", "changed")])
def test_an_undo_that_can_go_neither_on_nor_back_says_how_it_is_completed(
    home: StateHome, tmp_path: Path, what: str, option: str, outcome: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    program = (sys.executable, "-c", READ_ONLY, str(CHECKOUT / "tests"), what, str(home.root), str(disk))
    ended = subprocess.run([*on_small_disk(disk, "2m"), *program], capture_output=True, text=True, timeout=60, check=False)
    told, standing, done = ended.stdout.splitlines() or [ended.stderr, "", ""]
    assert told.endswith(f"Nothing is lost: when the cause is gone, `cc-executor undo {option}RUN` completes it."), told
    assert "Read-only file system" in told
    assert standing == "2", "half of it is done"
    assert done == f"True {{'{outcome}'}}"
