"""What runs did to the folders in which they worked, as far as their looks say: each run by itself, or several that worked there at the same time as one."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cc_executor.errors import UndoRefused
from cc_executor.model.tree import Change, Tree, changes, is_folder
from cc_executor.policy.undo import Unit
from cc_executor.runtime.undowords import of_error
from cc_executor.store.journal import RunFolder
from cc_executor.store.snapshot import After, SnapshotStore


@dataclass(frozen=True, slots=True)
class RunChanges:
    """A run with both its looks."""

    folder: RunFolder
    before: Tree
    after: Tree
    record: After

    @property
    def run_id(self) -> str:
        """The run's."""
        return self.folder.run_id


def changes_of(store: SnapshotStore, folder: RunFolder) -> RunChanges:
    """What a run did. Raises `UndoRefused` for one that goes on, or of which that is not known."""
    run_id = folder.run_id
    try:
        goes_on = folder.is_at_work()
    except OSError as error:
        raise UndoRefused(f"Whether run {run_id} has ended cannot be seen: {of_error(error)}. Remove what stands there.") from error
    if goes_on:
        raise UndoRefused(f"Run {run_id} goes on: wait for its end, or end it with `cc-executor cancel {run_id}`.")
    before, after = store.before(folder), store.after(folder)
    if before is None:
        raise UndoRefused(
            f"Nobody has looked at the folder before run {run_id}, or what was seen is not kept any more: it cannot be undone. "
            "Agents' runs are looked at unless undo is off; commands with `--undo`."
        )
    if before.tree is None:
        raise UndoRefused(f"Run {run_id} cannot be undone: {before.reason}")
    if after is None or after.tree is None:
        why = after.reason if after is not None else "nobody has looked at what it left"
        raise UndoRefused(f"Run {run_id} cannot be undone: {why}.")
    return RunChanges(folder, before.tree, after.tree, after)


def units_of(store: SnapshotStore, seen: Sequence[RunChanges]) -> list[Unit]:
    """Each run by itself, newest first; those that worked in one folder at the same time as one."""
    units: list[Unit] = []
    rest: list[RunChanges] = list(seen)
    while rest:
        together = [rest.pop(0)]
        grown = True
        while grown:
            met = {run_id for each in together for run_id in each.record.shared}
            more: list[RunChanges] = [each for each in rest if each.run_id in met and each.before.root == together[0].before.root]
            rest = [each for each in rest if all(each is not other for other in more)]
            together += more
            grown = bool(more)
        first = min(together, key=lambda each: each.before.taken)
        last = max(together, key=lambda each: each.after.taken)
        found = tuple(_absolute(first.before, changes(first.before, last.after)))
        late = frozenset(os.path.join(last.after.root, path) for path in last.record.late)
        foreign, doubtful = _others(store, together, found)
        units.append(Unit(found, late, foreign, doubtful))
    return units


def _absolute(tree: Tree, found: Iterable[Change]) -> Iterable[Change]:
    for change in found:
        yield Change(os.path.join(tree.root, change.path), change.before, change.after)


def _others(store: SnapshotStore, mine: Sequence[RunChanges], found: Sequence[Change]) -> tuple[frozenset[bytes], dict[bytes, set[str]]]:
    """Paths that other runs changed at the same time: those that are theirs by their agents' words, and those of which nobody knows, with the runs."""
    own = {each.run_id for each in mine}
    claimed = {os.path.join(each.before.root, path) for each in mine for path in each.record.claimed}
    foreign: set[bytes] = set()
    doubtful: defaultdict[bytes, set[str]] = defaultdict(set)
    for run_id in {run_id for each in mine for run_id in each.record.shared} - own:
        folder = store.home.folder(run_id)
        act = store.act(folder)
        if not folder.path.is_dir() or (act is not None and act.is_done and act.is_undone):
            continue
        before, after = store.before(folder), store.after(folder)
        if before is None or after is None or before.tree is None or after.tree is None:
            for change in found:
                if change.path not in claimed:
                    doubtful[change.path].add(run_id)
            continue
        theirs = {change.path for change in _absolute(before.tree, changes(before.tree, after.tree))}
        said = {os.path.join(before.tree.root, path) for path in after.claimed}
        for change in found:
            if change.path in theirs and not is_folder(change):
                if change.path in said and change.path not in claimed:
                    foreign.add(change.path)
                elif change.path not in claimed or change.path in said:
                    doubtful[change.path].add(run_id)
    return frozenset(foreign), {path: runs for path, runs in doubtful.items() if path not in foreign}
