"""Giving the disk back: journals of old runs go, receipts stay unless somebody wants whole runs gone. Blocking.

What would go is shown first, with sizes. A run whose journal was removed says so by itself: `verify` reads the note that stays in its place. A run that a
notebook or a task list is known to point to keeps its receipt in any case, and so does one whose cost counts for a day's bound.
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import sqlite3
import stat
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cc_executor.agents.claude.census import count_tool_calls
from cc_executor.errors import InvalidRequest, StateUnusable
from cc_executor.model.size import size_words
from cc_executor.policy.redact import Redactor, secret_values
from cc_executor.runtime.history import ask, facts_of, output_of, size_of
from cc_executor.runtime.plan import PLAN, PRUNED
from cc_executor.shim import records
from cc_executor.store import history as store
from cc_executor.store.bundle import BUNDLE
from cc_executor.store.history import Unusable
from cc_executor.store.historyrow import Filters, HistoryRow
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder
from cc_executor.store.snapshot import ACT, SnapshotStore
from cc_executor.store.spend import LONGEST_DAY, DaySpend

# What a notebook shows, what says that the run has ended, and that it is undone. Together some 20 KB.
KEPT: Final = frozenset({records.RECEIPT, records.REQUEST, records.EXIT, records.LOCK, PLAN, BUNDLE, PRUNED, ACT, "sealing"})
GOING: Final = ".going"  # ends the name of a run's folder that is being removed


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A run of which something is to go. `size`: bytes that it has, `freed`: bytes that go; `because`: why its receipt stays though whole runs are to go."""

    row: HistoryRow
    size: int
    freed: int
    is_whole: bool
    because: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """What is to go.

    Attributes
    ----------
    candidates : tuple of Candidate
        Oldest first.
    total : int
        Bytes of all runs that are kept now.
    unsealed : int
        Runs that have not ended, or whose receipts cannot be read; they are never touched.
    """

    candidates: tuple[Candidate, ...]
    total: int
    unsealed: int
    notes: tuple[str, ...] = ()

    @property
    def freed(self) -> int:
        """Bytes that go."""
        return sum(candidate.freed for candidate in self.candidates)

    def words(self) -> list[str]:
        """What it comes to, in sentences."""
        whole = sum(candidate.is_whole for candidate in self.candidates)
        journals = len(self.candidates) - whole
        count = len(self.candidates)
        said = [f"{size_words(self.freed)} of {size_words(self.total)} in {count} {'run' if count == 1 else 'runs'}."]
        if journals:
            what = "loses its journal" if journals == 1 else "lose their journal"
            keeps, them = ("keeps its", "it") if journals == 1 else ("keep their", "them")
            said.append(
                f"{journals} {what} (output, transcript) and {keeps} receipt: `verify` can then no longer compare the two, nor `undo` undo {them}."
            )
        if whole:
            goes = "goes whole, with its receipt" if whole == 1 else "go whole, with their receipts"
            said.append(f"{whole} {goes}: a notebook that shows one of them keeps its own copy, and nothing here confirms it.")
        if kept := sum(bool(candidate.because) for candidate in self.candidates):
            keeps = "keeps its" if kept == 1 else "keep their"
            said.append(f"{kept} {keeps} receipt all the same, for a notebook, a task list or the bound of the day needs it.")
        if self.unsealed:
            goes = "goes on, or has no readable receipt, is" if self.unsealed == 1 else "go on, or have no readable receipt, are"
            said.append(f"{self.unsealed} that {goes} left alone.")
        return said


def plan_pruning(
    home: StateHome, *, environ: Mapping[str, str], now: float, before: float | None = None, keep: int | None = None, whole: bool = False
) -> Pruning:
    """What would go. Removes nothing.

    Parameters
    ----------
    home : StateHome
    environ : mapping of str to str
        Its secrets are masked.
    now : float
        Seconds since the epoch: receipts of what was spent today stay.
    before : float, optional
        Only runs that started before this moment (seconds since the epoch).
    keep : int, optional
        Not the newest so many.
    whole : bool
        Whole runs, not just their journals.

    Raises
    ------
    InvalidRequest
        Neither `before` nor `keep` is given.
    StateUnusable
    """
    if before is None and keep is None:
        raise InvalidRequest("Which runs are to go? Say --older-than 30d, or --keep 100, or both.")
    if keep is not None and keep < 0:
        raise InvalidRequest(f"--keep must be 0 or more (given: {keep}).")

    def work(connection: sqlite3.Connection) -> list[HistoryRow]:
        return store.query(connection, Filters())

    try:
        rows, said = ask(home, work, environ=environ)
    except Unusable as error:
        raise StateUnusable(f"The history cannot be read ({error}).") from error
    chosen = [row for row in rows[keep or 0 :] if before is None or row.started < before]
    spent = {run.run_id for run in DaySpend(home).since(now - LONGEST_DAY) if run.cost or run.tokens} if whole else set[str]()
    candidates = [found for row in reversed(chosen) if (found := _candidate(home, row, spent, whole=whole)) is not None]
    known = {row.run_id for row in rows}
    folders = list(home.runs())
    return Pruning(
        candidates=tuple(candidates),
        total=sum(size_of(folder.path) for folder in folders),
        unsealed=sum(folder.run_id not in known for folder in folders),
        notes=tuple(said),
    )


def _candidate(home: StateHome, row: HistoryRow, spent: Container[str], *, whole: bool) -> Candidate | None:
    folder = home.folder(row.run_id)
    if _is_needed(folder, home):
        return None
    size = size_of(folder.path)
    because = ""
    if whole and (row.notebook or row.list_id):
        because = f"the notebook {Path(row.notebook).name} shows it" if row.notebook else f"the task list {row.list_id} needs it"
    elif whole and row.run_id in spent:
        because = "what it has cost counts for the bound of its day"
    is_whole = whole and not because
    freed = size if is_whole else sum(_size(path) for path in _journal(folder))
    return Candidate(row=row, size=size, freed=freed, is_whole=is_whole, because=because) if freed or is_whole else None


def _is_needed(folder: RunFolder, home: StateHome) -> bool:
    """Whether somebody may need the journal still, for all that can be read."""
    try:
        return folder.is_at_work() or SnapshotStore(home).is_cut_short(folder)
    except OSError:
        return True


def _journal(folder: RunFolder) -> list[Path]:
    """What of a run can go while its receipt stays. Not what somebody is writing at this moment: it has a name with a dot until it is whole."""
    try:
        return [path for path in folder.path.iterdir() if path.name not in KEPT and not path.name.startswith(".")]
    except OSError:
        return []


def _size(path: Path) -> int:
    try:
        status = path.lstat()
    except OSError:
        return 0
    return size_of(path) if stat.S_ISDIR(status.st_mode) else status.st_size


def prune(home: StateHome, pruning: Pruning, *, environ: Mapping[str, str], now: float) -> int:
    """Remove what was planned; returns the bytes that were freed.

    Raises
    ------
    StateUnusable
        The folder cannot be written. What was removed by then is removed; the history knows it.
    """
    home.check()
    freed = 0
    redactor = Redactor(secret_values(environ))
    rows: list[HistoryRow] = []
    gone: list[str] = []
    try:
        for left in home.runs_path.glob(f".*{GOING}"):  # by somebody who was killed here
            shutil.rmtree(left, ignore_errors=True)  # or by somebody who is at it now
        for candidate in pruning.candidates:
            folder = home.folder(candidate.row.run_id)
            if folder.path.is_symlink() or _is_needed(folder, home) or not folder.has_receipt:
                continue  # it has changed since it was looked at
            # The journal first, with the note: whatever happens in between, the receipt never claims a journal that silently went.
            try:
                freed += _remove_journal(folder, now)
            except StateUnusable:
                if folder.path.exists():
                    raise
                continue  # another pruning was faster
            if candidate.is_whole:
                freed += size_of(folder.path)
                # First under a name that is no run's: one that lost its receipt, and not its other files, would be sealed anew by whoever looks at it.
                with contextlib.suppress(FileNotFoundError):  # another pruning was faster
                    _remove_folder(folder.path.rename(folder.path.with_name(f".{folder.run_id}{GOING}")))
                gone.append(folder.run_id)
            elif (row := facts_of(folder, redactor)) is not None:
                rows.append(row)
    except OSError as error:
        raise StateUnusable(f"{error.filename or home.runs_path} cannot be removed: {error.strerror}.") from error
    finally:
        _tell(home, rows, gone, environ)
    return freed


def _remove_journal(folder: RunFolder, now: float) -> int:
    journal = _journal(folder)
    if not journal:
        return 0
    freed = sum(_size(path) for path in journal)
    if not (folder.path / PRUNED).exists():
        note = {"at": now, "by": "history prune", "bytes": freed, "tools": count_tool_calls(output_of(folder))}
        folder.replace(PRUNED, json.dumps(note).encode())
    for path in journal:
        if path.is_dir() and not path.is_symlink():
            _remove_folder(path)
        else:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
    return freed


def _remove_folder(path: Path) -> None:
    """A network disk keeps what somebody still has open, under a hidden name, and its folder with it: that goes with the next pruning."""
    try:
        shutil.rmtree(path)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EBUSY, errno.ENOENT}:  # the last where another pruning is at it, too
            raise
        shutil.rmtree(path, ignore_errors=True)


def _tell(home: StateHome, rows: Sequence[HistoryRow], gone: Sequence[str], environ: Mapping[str, str]) -> None:
    def work(connection: sqlite3.Connection) -> None:
        with store.transaction(connection):
            store.put(connection, rows)
            store.remove(connection, gone)

    with contextlib.suppress(Unusable, StateUnusable):  # whoever reads next finds out
        ask(home, work, environ=environ)
