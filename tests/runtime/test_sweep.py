"""The sweep of the snapshots: what it cannot read it does not take for nothing, and one that is frozen holds up no run."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cc_executor.api import cc_execute_sync
from cc_executor.errors import StateUnusable, UndoRefused
from cc_executor.runtime import snapshot
from cc_executor.runtime import undo as undo_module
from cc_executor.runtime.undo import redo, undo
from cc_executor.store.home import StateHome
from cc_executor.store.snapshot import ACT, AFTER, BEFORE, FOLDER, KNOWN, SnapshotStore
from support.locks import held_by_a_stopped_process
from support.runs import BASH
from support.trees import begun, ended, walk, worked


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir()
    (path / "edited.txt").write_text("one")
    (path / "gone.txt").write_text("precious")
    return path


def work(root: Path) -> None:
    (root / "edited.txt").write_text("two")
    (root / "gone.txt").unlink()


def contents(home: StateHome) -> set[bytes]:
    return {place.read_bytes() for place in (home.root / FOLDER / "contents").glob("*/*")}


@contextmanager
def only(path: Path, others: list[Path], folder: Path) -> Generator[None]:
    """Have `path` alone name contents for as long as the block lasts; the others are in `folder` meanwhile."""
    away = [(other, other.rename(folder / other.name)) for other in others if other != path]
    yield
    for other, aside in away:
        aside.rename(other)


@contextmanager
def unreadable(path: Path, how: str, aside: Path) -> Generator[None]:
    """Have something else stand at `path` for as long as the block lasts."""
    path.rename(aside)
    if how == "torn":
        path.write_bytes(aside.read_bytes()[:-3])
    else:
        path.symlink_to(aside)  # as good as one that no descriptor is left for: it is there, and cannot be opened
    yield
    aside.replace(path)


@pytest.mark.row("faults", "a look is damaged or cannot be opened while the snapshots are swept", "what it may need stays")
@pytest.mark.parametrize("how", ["torn", "not to be opened"])
@pytest.mark.parametrize("name", [BEFORE, AFTER, ACT, KNOWN])
def test_what_a_look_may_need_stays_while_it_cannot_be_read(name: str, how: str, home: StateHome, root: Path, tmp_path: Path) -> None:
    run_id = worked(home, root, lambda: work(root))
    end = walk(root)
    undo(home, [run_id])
    (known,) = (home.root / FOLDER / KNOWN).iterdir()
    looks = [home.folder(run_id).path / look for look in (BEFORE, AFTER, ACT)]
    path = known if name == KNOWN else home.folder(run_id).path / name
    store = SnapshotStore(home)
    with only(path, [*looks, known], tmp_path):
        store.sweep(time.time())
        kept = contents(home)
        assert kept
        with unreadable(path, how, tmp_path / "aside"), suppress(OSError):
            store.sweep(time.time())
        if (name, how) != (KNOWN, "torn"):  # nobody goes by that: the folder is read anew
            assert contents(home) == kept
    if name == ACT:
        redo(home, run_id)
        assert walk(root) == end


def test_a_torn_look_gives_way_when_it_is_old_or_space_is_short(home: StateHome, root: Path) -> None:
    store = SnapshotStore(home)
    for sweep in (lambda: store.sweep(time.time(), space=1), lambda: store.sweep(time.time() + 31 * 86400)):
        (root / "gone.txt").write_text("precious")
        path = home.folder(worked(home, root, lambda: work(root))).path / BEFORE
        path.write_bytes(path.read_bytes()[:-3])
        store.sweep(time.time())
        assert b"precious" in contents(home)
        sweep()
        assert not path.exists()
        assert b"precious" not in contents(home)


# --- frozen -----------------------------------------------------------------------------------------------------------


@pytest.mark.row("faults", "a sweep of the snapshots is frozen in another process", "runs start and end, without undo and with the reason")
def test_a_frozen_sweep_costs_the_undo_and_not_the_run(home: StateHome, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((snapshot, "PATIENCE"), (snapshot, "PATIENCE_AFTER"), (undo_module, "PATIENCE")):
        monkeypatch.setattr(module, name, 0.1)
    first = worked(home, root, lambda: (root / "edited.txt").write_text("first"))
    folder, request = begun(home, root)
    with held_by_a_stopped_process(home.root / FOLDER / "lock"):  # in the midst of a sweep
        receipt = cc_execute_sync("echo made > made", **BASH, cwd=root, undo=True).receipt
        assert receipt.outcome.ok
        assert receipt.undo is not None
        assert not receipt.undo.ready
        assert receipt.undo.note.endswith(
            f"Another process clears up {home.root / FOLDER}, and does not come to an end: let it go on, or end it."
        )
        ended(folder, request)
        with pytest.raises(StateUnusable, match="does not come to an end"):
            undo(home, [first])
    with pytest.raises(UndoRefused, match="does not come to an end"):
        undo(home, [folder.run_id])
    again = cc_execute_sync("echo again > made", **BASH, cwd=root, undo=True).receipt
    undo(home, [again.run_id])
    assert (root / "made").read_text() == "made\n"


def test_a_run_waits_for_a_sweep_that_comes_to_its_end(home: StateHome, root: Path) -> None:
    worked(home, root, lambda: None)
    store = SnapshotStore(home)
    with held_by_a_stopped_process(store.path / "lock") as release:
        is_asked: list[bool] = []

        def asked() -> bool:
            is_asked.append(True)
            release()
            return False

        with store.in_use(patience=60, is_over=asked):
            assert is_asked == [True]
