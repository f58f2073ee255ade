"""What is kept of undos: of one run, of several together, of those that were begun and never ended."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cc_executor.model.tree import Entry, Kind, Tree
from cc_executor.store import begunundos
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder
from cc_executor.store.snapshot import ACT, AGAIN, BEFORE, Act, Before, SnapshotStore
from support.receipts import run_id

NOW = 1_800_000_000.0


@pytest.fixture
def store(state_folder: Path) -> SnapshotStore:
    home = StateHome(state_folder)
    home.prepare()
    store = SnapshotStore(home)
    store.prepare()
    store.prepare()
    return store


def kept(store: SnapshotStore, number: int) -> RunFolder:
    path = store.home.runs_path / run_id(number)
    path.mkdir(parents=True)
    return RunFolder(path)


def act(*runs: RunFolder, root: bytes = b"/project", is_done: bool = True) -> Act:
    return Act(tuple(run.run_id for run in runs), (), (root,), 1.0, is_done=is_done)


def test_an_undo_of_several_runs_is_known_from_each_until_one_is_undone_by_itself(store: SnapshotStore) -> None:
    one, two = kept(store, 1), kept(store, 2)
    together, alone = act(one, two), act(one)
    assert (store.act(one), store.act(two)) == (None, None)
    store.keep_act(together)
    assert (store.act(one), store.act(two)) == (together, together)
    store.keep_act(alone)
    assert (store.act(one), store.act(two)) == (alone, None)


def test_where_the_first_of_several_runs_was_removed_nothing_is_known_of_their_undo(store: SnapshotStore) -> None:
    one, two = kept(store, 1), kept(store, 2)
    store.keep_act(act(one, two))
    shutil.rmtree(one.path)
    assert store.act(two) is None
    assert not store.is_cut_short(two)


def test_an_undo_is_cut_short_until_it_is_done_and_where_nobody_can_tell(store: SnapshotStore) -> None:
    one, two = kept(store, 1), kept(store, 2)
    begun, done = act(one, is_done=False), act(one)
    store.keep_act(begun)
    assert store.is_cut_short(one)
    for root in (b"/", b"/project", b"/project/below"):
        assert store.cut_short(root) == [begun]
    assert store.cut_short(b"/elsewhere") == []
    store.keep_act(done)
    assert not store.is_cut_short(one)
    assert list(begunundos.noted(store.path)) == [], "and no later look has to read of it"
    (two.path / ACT).mkdir()
    assert store.is_cut_short(two)
    assert store.act(two) is None


def test_what_somebody_carries_out_at_this_moment_is_not_cut_short(store: SnapshotStore) -> None:
    begun = act(kept(store, 1), is_done=False)
    store.keep_act(begun)
    with store.claims.undoing([b"/project/below"]):
        assert store.cut_short(b"/project") == []
    assert store.cut_short(b"/project") == [begun]


def test_an_undo_whose_run_was_removed_is_forgotten(store: SnapshotStore) -> None:
    one = kept(store, 1)
    store.keep_act(act(one, is_done=False))
    shutil.rmtree(one.path)
    assert store.cut_short(b"/project") == []
    assert list(begunundos.noted(store.path)) == []


def test_a_folder_that_is_too_large_is_looked_at_again_after_a_while(store: SnapshotStore) -> None:
    assert store.over(b"/project", 0.0) == ""
    store.keep_over(b"/project", "too many files")
    (path,) = (store.path / "folders").iterdir()
    at = path.stat().st_mtime
    assert [store.over(b"/project", at + later) for later in (0, AGAIN - 1, AGAIN + 1, -60)] == ["too many files", "too many files", "", ""]
    assert store.over(b"/other", at) == ""


@pytest.mark.parametrize("newest", [1, 2])
def test_where_there_is_no_space_for_all_looks_the_newest_stay(store: SnapshotStore, newest: int) -> None:
    runs = [kept(store, 1), kept(store, 2)]
    for number, run in enumerate(runs, start=1):
        tree = Tree(b"/project", 0, {b"a": Entry(Kind.FILE, 0o644, 100, bytes([number]) * 32)})
        store.keep(run, BEFORE, Before(tree))
        at = NOW if number == newest else NOW - 60
        os.utime(run.path / BEFORE, (at, at))
    store.sweep(NOW, space=200)
    assert [store.before(run) is not None for run in runs] == [True, True], "there is space for both"
    store.sweep(NOW, space=199)
    assert [store.before(run) is not None for run in runs] == [newest == 1, newest == 2]
    store.sweep(NOW, space=0)
    assert any(store.before(run) for run in runs), "the newest is kept, whatever its size"
