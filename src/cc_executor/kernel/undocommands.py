"""`%cc undo [RUN] [--dry-run] [--redo] [--keep-mine]`: bring back what was in the folder before a run."""

from __future__ import annotations

from typing import Any, Final

from cc_executor.errors import InvalidRequest
from cc_executor.kernel.cell import home_of, sealed
from cc_executor.kernel.options import words_of
from cc_executor.runtime.undo import redo, undo

FLAGS: Final = ("--dry-run", "--redo", "--keep-mine")


def undo_verb(shell: Any, line: str) -> None:
    """Do what `%cc undo line` says, and print what was done.

    Raises
    ------
    InvalidRequest, RunNotFound, UndoRefused, UndoIncomplete
    """
    words = words_of(line)
    flags = {word for word in words if word.startswith("--")}
    if unknown := flags - set(FLAGS):
        raise InvalidRequest(f"%cc undo has no option {min(unknown)}; it knows {', '.join(FLAGS)}.")
    home = home_of(shell)
    names = [word for word in words if word not in flags] or [home.pick("").run_id]
    for folder in map(home.find, names):
        if folder.receipt() is None and not folder.is_at_work():
            sealed(home, folder.run_id)  # what a run left is looked at when it is sealed
    dry_run, keep_mine = "--dry-run" in flags, "--keep-mine" in flags
    if "--redo" in flags:
        print(repr(redo(home, *names, dry_run=dry_run, keep_mine=keep_mine)))  # noqa: T201 - the command's answer
    else:
        print(repr(undo(home, names, dry_run=dry_run, keep_mine=keep_mine)))  # noqa: T201 - as above
