"""An undo that is killed at any moment: nothing is lost, and the next one completes it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cc_executor.errors import UndoRefused
from cc_executor.runtime.undo import redo, undo
from cc_executor.store.home import StateHome
from cc_executor.store.snapshot import SnapshotStore
from support.trees import walk, worked

FILES = 100
ROUNDS = max(5, int(os.environ.get("CC_EXECUTOR_TEST_SEEDS", "0")) // 20)

# Kills itself at that one of its calls that concern files, or says how many there were. No clock: a moment by time is before or after all
# of it on a machine that is busy.
UNDO = """
import os, signal, sys
from pathlib import Path
from cc_executor.runtime.undo import redo, undo
from cc_executor.store.home import StateHome
what, home, run_id, last = sys.argv[1], StateHome(Path(sys.argv[2])), sys.argv[3], int(sys.argv[4])
calls = 0
def count(event, _):
    global calls
    if event == "open" or event.startswith("os."):
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
undo(home, [run_id]) if what == "undo" else redo(home, run_id)
print(calls)
"""


def in_another_process(what: str, home: StateHome, run_id: str, last: int = 0) -> subprocess.CompletedProcess[str]:
    """Undo or redo, killed just before its call number `last`, where it makes so many."""
    command = [sys.executable, "-c", UNDO, what, str(home.root), run_id, str(last)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=False)


def was_killed(what: str, home: StateHome, run_id: str, last: int) -> bool:
    return in_another_process(what, home, run_id, last).returncode == -signal.SIGKILL


def change_much(root: Path) -> None:
    for number in range(FILES):
        path = root / f"f{number}"
        match number % 5:
            case 0:
                path.write_text("changed")
            case 1:
                path.unlink()
            case 2:
                path.chmod(0o600)
            case 3:
                path.unlink()
                path.mkdir()
                (path / "below").write_text("x")
            case _:
                (root / f"new{number}").write_text("new")
    (root / "folder" / "inside").unlink()
    (root / "folder").rmdir()
    (root / "folder").symlink_to("f0")


@pytest.mark.row("faults", "undo killed at a random moment", "the next undo completes it; no content is lost")
def test_an_undo_that_is_killed_is_completed_by_the_next(memory: Path, saw: object) -> None:
    home, root = StateHome(memory / "state"), memory / "work"
    (root / "folder").mkdir(parents=True)
    (root / "folder" / "inside").write_text("inside")
    for number in range(FILES):
        (root / f"f{number}").write_text(f"original {number}")
    before = walk(root)
    run_id = worked(home, root, lambda: change_much(root))
    after = walk(root)
    calls = {what: int(in_another_process(what, home, run_id).stdout) for what in ("undo", "redo")}
    assert walk(root) == after

    lot = random.Random(7)  # noqa: S311 - no secret
    store, folder = SnapshotStore(home), home.folder(run_id)
    midway = 0
    for _ in range(ROUNDS):
        killed = was_killed("undo", home, run_id, lot.randint(1, calls["undo"]))
        act = store.act(folder)
        if killed and act is not None and not act.is_done:
            midway += 1
            done = undo(home, [run_id])  # completes it
            assert done.was_completed
        elif act is None or not act.is_undone:
            undo(home, [run_id])  # it had not begun
        assert walk(root) == before
        killed = was_killed("redo", home, run_id, lot.randint(1, calls["redo"]))
        act = store.act(folder)
        if killed and act is not None and not act.is_done:
            midway += 1
            if lot.random() < 0.5:
                assert redo(home, run_id).was_completed
                assert walk(root) == after
            else:  # completed, and then undone as it was asked for
                undo(home, [run_id])
                assert walk(root) == before
                redo(home, run_id)
        elif act is not None and act.is_undone:
            redo(home, run_id)
        assert walk(root) == after
    assert midway >= ROUNDS // 2, f"only {midway} of {2 * ROUNDS} were killed in the midst of it"
    saw(f"{midway} of {2 * ROUNDS} killed midway, all completed")  # pyright: ignore[reportCallIssue] - a fixture
    assert not [name for name in walk(root) if name.startswith(b".cc-undo")]


def test_what_the_user_changed_between_the_kill_and_the_completion_is_kept(memory: Path) -> None:
    home, root = StateHome(memory / "state"), memory / "work"
    root.mkdir()
    for number in range(FILES):
        (root / f"f{number}").write_text("original")
    before = walk(root)
    run_id = worked(home, root, lambda: [(root / f"f{number}").write_text("changed") for number in range(FILES)])
    calls = {what: int(in_another_process(what, home, run_id).stdout) for what in ("undo", "redo")}
    store, lot = SnapshotStore(home), random.Random(3)  # noqa: S311 - as above
    for _ in range(200):
        was_killed("undo", home, run_id, lot.randint(1, calls["undo"]))
        act = store.act(home.folder(run_id))
        if act is not None and not act.is_done:
            break
        if act is not None and act.is_undone:
            redo(home, run_id)
    (root / "f7").write_text("mine")
    done = undo(home, [run_id])
    assert [path for path, _ in done.left] == [str(root / "f7")]
    assert (root / "f7").read_text() == "mine"
    assert walk(root) == before | {b"f7": walk(root)[b"f7"]}
    with pytest.raises(UndoRefused, match="undone already"):
        undo(home, [run_id])
