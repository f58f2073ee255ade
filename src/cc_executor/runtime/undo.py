"""Undoing runs: what their looks say is compared with what stands there now, and put back whole or not at all. Itself undone by `redo`.

What is to be done is written down before anything is changed, with every content that it takes away: whoever is killed in the midst of it loses nothing,
and the next undo completes it.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from cc_executor.errors import RunNotFound, TaskListNotFound, UndoIncomplete, UndoRefused
from cc_executor.model.listrecord import Begun
from cc_executor.model.tree import Change, Entry, Kind, reversed_changes, same, same_content
from cc_executor.model.undone import Undone
from cc_executor.policy.undo import BOTH, FOLDER_GONE, NOT_KEPT, Conflict, Plan, Unit, plan
from cc_executor.runtime import undowords
from cc_executor.runtime.runchanges import RunChanges, changes_of, units_of
from cc_executor.runtime.snapshot import PATIENCE
from cc_executor.store import begunundos
from cc_executor.store.claims import UNDO, overlap
from cc_executor.store.home import StateHome
from cc_executor.store.restore import Ground, HalfDone
from cc_executor.store.snapshot import ACT, Act, SnapshotStore
from cc_executor.store.tasklists import ListFolder

logger = logging.getLogger(__name__)


def undo(home: StateHome, run_ids: Sequence[str], *, dry_run: bool = False, keep_mine: bool = False) -> Undone:
    """Bring back what was in the folders of these runs before them, all of it or nothing.

    Parameters
    ----------
    home : StateHome
    run_ids : sequence of str
        Runs that have ended. Several are undone as one, newest first.
    dry_run : bool
        Say what would be done; change nothing.
    keep_mine : bool
        Leave files alone that are not as the runs left them, or that were not kept, and restore the others.

    Raises
    ------
    UndoRefused
        Nothing was changed; the message names the files and the cure.
    UndoIncomplete
        Neither the whole could be done nor taken back. Another `undo` completes it.
    RunNotFound, StateUnusable
    """
    store = SnapshotStore(home)
    folders = [home.find(run_id) for run_id in dict.fromkeys(run_ids)]
    if not folders:
        raise RunNotFound("There is no run to undo.")
    seen: list[RunChanges] = []
    unseen: list[tuple[str, str]] = []
    for folder in folders:
        act = store.act(folder)
        if act is not None and not act.is_done:
            completed = _complete(store, act, dry_run=dry_run)
            if act.is_undone and set(act.runs) >= {each.run_id for each in folders}:
                return completed
            act = store.act(folder)
        if act is not None and act.is_undone:
            if len(folders) == 1:
                raise UndoRefused(f"Run {folder.run_id} is undone already. `cc-executor undo --redo {folder.run_id}` takes that back.")
            continue
        try:
            seen.append(changes_of(store, folder))
        except UndoRefused as error:
            if len(folders) == 1:
                raise
            if not keep_mine:
                raise UndoRefused(f"{error} `--keep-mine` (`keep_mine=True`) leaves that run alone and undoes the others.") from error
            unseen.append((f"run {folder.run_id}", str(error)))
    if not seen:
        raise UndoRefused("There is nothing to undo: these runs are undone already, or were not looked at.")
    seen.sort(key=lambda each: each.before.taken, reverse=True)
    roots = tuple(dict.fromkeys(each.before.root for each in seen))
    runs = tuple(each.run_id for each in seen)
    with _alone(store, roots, runs):
        if any((act := store.act(each.folder)) is not None and (act.is_undone or not act.is_done) for each in seen):
            raise UndoRefused("Somebody else has undone these runs at this very moment.")
        done = _carry_out(store, units_of(store, seen), roots, runs, dry_run=dry_run, keep_mine=keep_mine, is_redo=False)
        return replace(done, left=(*unseen, *done.left))


def last_undone(home: StateHome, run_ids: Sequence[str]) -> str:
    """The run among these whose undo is the newest: undos are taken back in the opposite order.

    Raises
    ------
    UndoRefused
        None of them is undone.
    """
    store = SnapshotStore(home)
    acts = {run_id: act for run_id in run_ids if (act := store.act(home.folder(run_id))) is not None and act.is_undone}
    if not acts:
        raise UndoRefused("None of these runs is undone: there is nothing to take back.")
    return max(acts, key=lambda run_id: acts[run_id].at)


def runs_of_list(home: StateHome, folder: ListFolder, *, since: str = "") -> list[str]:
    """The runs of a list, newest first, those of attempts that failed, too.

    Parameters
    ----------
    home : StateHome
    folder : ListFolder
    since : str
        A task's id: only what was begun with it and after it.

    Raises
    ------
    TaskListNotFound
        There is no such task in the list, or it has not begun.
    UndoRefused
        The list is being run.
    """
    if folder.is_run():
        raise UndoRefused(f"The list {folder.list_id} is being run: stop it first, with `cc-executor tasks stop {folder.list_id}`.")
    begun = [record for record in folder.records() if isinstance(record, Begun)]
    first = next((number for number, record in enumerate(begun) if record.task == since), None) if since else 0
    if first is None:
        raise TaskListNotFound(f"In the list {folder.list_id} no task {since!r} was begun.")
    runs = [record.run_id for record in reversed(begun[first:]) if record.run_id and home.folder(record.run_id).path.is_dir()]
    if not runs:
        raise UndoRefused(f"Nothing was run of the list {folder.list_id}: there is nothing to undo.")
    return runs


def redo(home: StateHome, run_id: str, *others: str, dry_run: bool = False, keep_mine: bool = False) -> Undone:
    """Undo the undo of a run, and of those that were undone together with it, as all of `others` must have been. Takes and raises the same as `undo`."""
    store = SnapshotStore(home)
    folder = home.find(run_id)
    act = store.act(folder)
    if any(act is None or home.find(other).run_id not in act.runs for other in others):
        raise UndoRefused("These runs were not undone together: take back one undo after the other, the newest first.")
    if act is not None and not act.is_done:
        completed = _complete(store, act, dry_run=dry_run)
        if not act.is_undone or dry_run:
            return completed
        act = store.act(folder)
    if act is None or not act.is_undone:
        raise UndoRefused(f"Run {folder.run_id} is not undone: there is nothing to take back.")
    with _alone(store, act.roots, act.runs):
        if store.act(folder) != act:
            raise UndoRefused("Somebody else has taken this back at this very moment.")
        unit = Unit(reversed_changes(act.changes))
        return _carry_out(store, [unit], act.roots, act.runs, dry_run=dry_run, keep_mine=keep_mine, is_redo=True)


def _alone(store: SnapshotStore, roots: Iterable[bytes], runs: Iterable[str]) -> ExitStack:
    """Nobody else undoes anything in these folders, no run works there, and nothing is swept up meanwhile."""
    stack = ExitStack()
    try:
        store.prepare()
        stack.enter_context(store.in_use(patience=PATIENCE))
        roots = sorted(roots)
        if (other := stack.enter_context(store.claims.undoing(roots))) is not None:
            what, where = "undoes something" if other[0] == UNDO else "starts a run", os.fsdecode(other[1])
            raise UndoRefused(f"Somebody else {what} in {where} at this moment. Wait for it.")
        for root in roots:
            if not Path(os.fsdecode(root)).is_dir():
                raise UndoRefused(
                    f"The folder {os.fsdecode(root)} is not there any more. If it was moved, move it back; "
                    "if the run removed it, make it, empty, and undo again: what was in it is kept."
                )
        for run_id, root in store.claims.working():
            at_work = any(overlap(root, mine) for mine in roots)
            if run_id not in set(runs) and at_work and store.home.folder(run_id).is_supervised():
                raise UndoRefused(
                    f"Run {run_id} works in {os.fsdecode(root)} now: wait for its end, or end it with `cc-executor cancel {run_id}`."
                )
    except OSError as error:
        stack.close()
        raise undowords.unchanged(error, store.path) from error
    except BaseException:
        stack.close()
        raise
    return stack


# --- doing it ---------------------------------------------------------------------------------------------------------


def _carry_out(
    store: SnapshotStore,
    units: Sequence[Unit],
    roots: tuple[bytes, ...],
    runs: tuple[str, ...],
    *,
    dry_run: bool,
    keep_mine: bool,
    is_redo: bool,
) -> Undone:
    stage = secrets.token_hex(6)
    ground = Ground(roots, store.blobs, stage=stage)
    try:
        made = _planned(store, ground, units)
    except OSError as error:
        raise undowords.unchanged(error, os.fsdecode(roots[0])) from error
    left = tuple((os.fsdecode(conflict.path), conflict.why) for conflict in made.conflicts)
    if left and not keep_mine and not dry_run:
        raise UndoRefused(undowords.refusal(left, roots, _together(store, units, made.conflicts, runs, roots), is_redo=is_redo), left)
    todo = tuple(made.changes[path] for path in sorted(made.changes))
    done = Undone(runs=runs, steps=undowords.steps(todo), left=left, is_dry=dry_run, is_redo=is_redo)
    if dry_run:
        return done
    earlier = store.act(store.home.folder(runs[0]))
    try:
        todo = tuple(_saved(ground, change) for change in todo)
        store.blobs.sync(
            entry.content for change in todo for entry in (change.before, change.after) if entry is not None and entry.kind is Kind.FILE
        )
    except OSError as error:
        raise undowords.unchanged(error, store.path) from error
    act = Act(runs, todo, roots, time.time(), is_undone=not is_redo, stage=stage)
    try:
        store.keep_act(act)
    except OSError as error:
        _forget(store, act, earlier)
        raise undowords.unchanged(error, store.home.runs_path) from error
    try:
        staying = ground.carry_out(todo)
    except HalfDone as error:
        raise UndoIncomplete(undowords.half_done(error, act)) from error
    except OSError as error:
        _forget(store, act, earlier)
        raise undowords.unchanged(error, os.fsdecode(roots[0])) from error
    _finish(store, act)
    return Undone(runs=runs, steps=done.steps, left=left, folders=tuple(map(os.fsdecode, staying)), is_dry=False, is_redo=is_redo)


def _saved(ground: Ground, change: Change) -> Change:
    """The change with everything kept that it takes away."""
    before, after = change.before, change.after
    if after is None or (before is not None and before.kind is after.kind is Kind.FILE and same_content(before, after)):
        return change  # a mode takes nothing away, however large the file is
    return Change(change.path, before, ground.save(change.path, after))


def _planned(store: SnapshotStore, ground: Ground, units: Sequence[Unit]) -> Plan:
    paths = {change.path for unit in units for change in unit.changes}
    now: dict[bytes, Entry | None] = {}
    hidden: dict[bytes, str] = {}
    for path in paths:
        try:
            now[path] = ground.now(path)
        except OSError as error:
            hidden[path] = f"it cannot be looked at ({error.strerror})"
    listings = {
        change.path: ground.listing(change.path)
        for unit in units
        for change in unit.changes
        if change.before is not None and change.before.kind is not Kind.FOLDER and _stands_as_folder(now.get(change.path))
    }
    made = plan(units, now, listings, hidden)
    for path, change in sorted(made.changes.items()):  # a folder before what is in it
        wanted = change.before
        above = made.changes.get(path.rpartition(b"/")[0])
        if wanted is not None and change.after is None and not (above and _stands_as_folder(above.before)) and not ground.has_folder(path):
            made.conflicts.append(Conflict(path, FOLDER_GONE))
            del made.changes[path]
            continue
        if wanted is None or wanted.kind is not Kind.FILE or not wanted.content or store.blobs.has(wanted.content):
            continue
        if change.after is None or not same_content(wanted, change.after):
            made.conflicts.append(Conflict(path, f"{NOT_KEPT} until now"))
            del made.changes[path]
    return made


def _stands_as_folder(entry: Entry | None) -> bool:
    return entry is not None and entry.kind is Kind.FOLDER


def _complete(store: SnapshotStore, act: Act, *, dry_run: bool) -> Undone:
    """Finish what was cut short. What somebody has changed meanwhile is left as it is."""
    with _alone(store, act.roots, act.runs):
        if store.act(store.home.folder(act.runs[0])) != act:
            raise UndoRefused("Somebody else has completed this undo at this very moment.")
        Ground(act.roots, store.blobs, stage=act.stage).clear()
        ground = Ground(act.roots, store.blobs, stage=secrets.token_hex(6))
        try:
            todo, left = _still_to_do(ground, act)
            done = Undone(
                runs=act.runs,
                steps=undowords.steps(act.changes),
                left=left,
                is_dry=dry_run,
                is_redo=not act.is_undone,
                was_completed=not dry_run,
            )
            if dry_run:
                return done
            staying = ground.carry_out(todo, again=True)
        except HalfDone as error:
            raise UndoIncomplete(undowords.half_done(error, act)) from error
        except OSError as error:
            raise UndoIncomplete(f"An undo was cut short before, and cannot be completed now: {undowords.of_error(error)}.") from error
        _finish(store, act)
        return Undone(
            runs=act.runs,
            steps=done.steps,
            left=left,
            folders=tuple(map(os.fsdecode, staying)),
            is_redo=not act.is_undone,
            was_completed=True,
        )


def _still_to_do(ground: Ground, act: Act) -> tuple[tuple[Change, ...], tuple[tuple[str, str], ...]]:
    todo: list[Change] = []
    left: list[tuple[str, str]] = []
    for change in act.changes:
        now = ground.now(change.path)
        if now is None or now.kind is Kind.FOLDER or same(now, change.after) or same(now, change.before):
            todo.append(change)
        else:
            left.append((os.fsdecode(change.path), "it was changed since the undo was cut short"))
    return tuple(todo), tuple(left)


def _finish(store: SnapshotStore, act: Act) -> None:
    try:
        store.keep_act(Act(act.runs, act.changes, act.roots, act.at, act.is_undone, is_done=True))
    except OSError as error:  # it is done; the next undo finds that there is nothing left to do
        logger.warning("the undo of run %s could not be marked as done: %s", act.runs[0], undowords.of_error(error))


def _forget(store: SnapshotStore, act: Act, earlier: Act | None) -> None:
    begunundos.forget(store.path, act.runs[0])
    if earlier is not None:
        with suppress(OSError):
            store.keep_act(earlier)
        return
    for run_id in act.runs:
        with suppress(OSError):
            (store.home.folder(run_id).path / ACT).unlink()


def _together(
    store: SnapshotStore, units: Sequence[Unit], conflicts: Sequence[Conflict], runs: Sequence[str], roots: Sequence[bytes]
) -> list[str]:
    """The runs that would have to be undone as one; none where that is done already, or cannot be."""
    shared = [conflict.path for conflict in conflicts if conflict.why.startswith(BOTH)]
    others = {run_id for unit in units for path in shared for run_id in unit.doubtful.get(path, ())}
    try:
        can_be = all(run_id not in runs and changes_of(store, store.home.folder(run_id)).before.root in roots for run_id in others)
    except UndoRefused:
        return []
    return [*runs, *sorted(others)] if others and can_be else []
