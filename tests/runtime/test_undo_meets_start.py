"""An undo and a run that begins in the same folder, of two processes: one waits for the other, or is refused; neither takes the other's work for its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cc_executor.api import cc_execute_sync, make_request
from cc_executor.errors import LaunchFailed, UndoRefused
from cc_executor.runtime import snapshot
from cc_executor.runtime.undo import undo
from cc_executor.store.home import StateHome
from support.runs import BASH
from support.trees import walk, worked

# Stands still (SIGSTOP) when it has put the first file in its place.
UNDO = """
import os, signal, sys
from pathlib import Path
from cc_executor.runtime.undo import undo
from cc_executor.store.home import StateHome
def stop(event, arguments):
    if event == "os.rename" and os.path.basename(os.fsdecode(arguments[1])) == "f5":
        os.kill(os.getpid(), signal.SIGSTOP)
sys.addaudithook(stop)
undo(StateHome(Path(sys.argv[1])), [sys.argv[2]])
"""
BEGIN = """
import sys
from pathlib import Path
from cc_executor.api import make_request
from cc_executor.runtime.snapshot import beginning
from cc_executor.store.home import StateHome
request = make_request("true", agent="shell", cwd=sys.argv[2], undo=True)
with beginning(request, home=StateHome(Path(sys.argv[1])), is_over=lambda: False):
    print("begins", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    (path / "below").mkdir(parents=True)
    for number in range(10):
        (path / f"f{number}").write_text(f"original {number}")
    return path


def change(root: Path) -> None:
    for path in root.glob("f*"):
        path.write_text("changed")


@contextmanager
def undo_stopped_midway(home: StateHome, root: Path) -> Generator[Callable[[], None]]:
    """Have another process stand still in the midst of an undo, to the end of the block or until what this gives is called."""
    run_id = worked(home, root, lambda: change(root))
    with subprocess.Popen([sys.executable, "-c", UNDO, str(home.root), run_id]) as process:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert len({path.read_text() == "changed" for path in root.glob("f*")}) == 2, "half of it is done"

        def goes_on() -> None:
            process.send_signal(signal.SIGCONT)
            assert process.wait(60) == 0

        try:
            yield goes_on
        finally:
            if process.returncode is None:
                process.kill()


@pytest.mark.row(
    "faults", "a run begins in a folder while an undo is carried out there", "it waits, and what is undone is not taken for its work"
)
@pytest.mark.parametrize("where", [".", "below", ".."])
def test_a_run_that_begins_in_the_midst_of_an_undo_waits_for_its_end(home: StateHome, root: Path, where: str) -> None:
    before = walk(root)
    request = make_request("true", agent="shell", cwd=root / where, undo=True)
    with undo_stopped_midway(home, root) as goes_on:
        is_asked: list[bool] = []

        def asked() -> bool:
            is_asked.append(True)
            goes_on()
            return False

        with snapshot.beginning(request, home=home, is_over=asked):
            assert is_asked == [True]
            assert walk(root) == before


def test_a_run_says_why_it_does_not_begin_where_an_undo_stands_still(home: StateHome, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "PATIENCE", 0.1)
    elsewhere = root.with_name("elsewhere")
    elsewhere.mkdir()
    with undo_stopped_midway(home, root) as goes_on:
        with pytest.raises(LaunchFailed, match=f"Somebody undoes something in {root}, and has not come to an end"):
            cc_execute_sync("echo made > made", **BASH, cwd=root, undo=True)
        assert cc_execute_sync("echo made > made", **BASH, cwd=elsewhere, undo=True).receipt.outcome.ok, (
            "another folder is none of its business"
        )
        goes_on()
    receipt = cc_execute_sync("echo made > made", **BASH, cwd=root, undo=True).receipt
    assert [Path(file.path).name for file in receipt.files] == ["made"]
    undo(home, [receipt.run_id])
    assert not (root / "made").exists()
    assert (root / "f0").read_text() == "original 0"


def test_an_undo_is_refused_while_a_run_begins_and_nobody_s_word_outlives_him(home: StateHome, root: Path) -> None:
    run_id = worked(home, root, lambda: change(root))
    command = [sys.executable, "-c", BEGIN, str(home.root), str(root / "below")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begins\n"
        with pytest.raises(UndoRefused, match=f"starts a run in {root / 'below'} at this moment"):
            undo(home, [run_id])
        process.kill()
    undo(home, [run_id])
    assert (root / "f0").read_text() == "original 0"
    assert sorted(path.name for path in (home.root / "undo" / "locks").iterdir()) == ["door"], "what the dead one said went with this undo"
