"""What an undo says of itself: what it does to each path, and why it does not. Knows words and paths; undoes nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from cc_executor.errors import UndoRefused
from cc_executor.model.ansi import clean
from cc_executor.model.tree import Change, Kind, is_folder, same_content
from cc_executor.model.undone import SHOWN, Step
from cc_executor.store.restore import HalfDone
from cc_executor.store.snapshot import Act


def steps(todo: Iterable[Change]) -> tuple[Step, ...]:
    """What becomes of each path; folders only where it is their mode."""
    return tuple(Step(os.fsdecode(change.path), _what(change)) for change in todo if not is_folder(change) or _is_mode(change))


def _is_mode(change: Change) -> bool:
    return change.before is not None and change.after is not None


def _what(change: Change) -> str:
    if change.before is None:
        return "removed"
    if change.after is None:
        return "brought back"
    if change.before.kind is change.after.kind and (
        change.before.kind is Kind.FOLDER or (change.before.kind is Kind.FILE and same_content(change.before, change.after))
    ):
        return "mode"
    return "restored"


def refusal(left: Sequence[tuple[str, str]], roots: Sequence[bytes], together: Sequence[str], *, is_redo: bool) -> str:
    """Why nothing was undone, or taken back. `left`: paths and what is the matter with each; `together`: the runs that would have to be undone as one."""
    base = os.fsdecode(roots[0])
    shown = [clean(f"  {os.path.relpath(path, base) if len(roots) == 1 else path}: {why}") for path, why in left[:SHOWN]]
    if len(left) > SHOWN:
        shown.append(f"  and {len(left) - SHOWN:,} more")
    count = f"{len(left)} file{' is' if len(left) == 1 else 's are'}"
    return "\n".join(
        (
            f"{count} not as the {'undo' if is_redo else 'run'} left {'it' if len(left) == 1 else 'them'}, or cannot be brought back; nothing was changed.",
            *shown,
            *(
                [f"What several worked on is brought back when they are undone as one: `cc-executor undo {' '.join(together)}`."]
                if together
                else ()
            ),
            "`--keep-mine` (`keep_mine=True`) leaves these alone and restores the others.",
        )
    )


def half_done(error: HalfDone, act: Act) -> str:
    """What is to be done about an undo that broke off."""
    return f"The undo was cut short at {of_error(error)}. Nothing is lost: when the cause is gone, `{act.completing}` completes it."


def unchanged(error: OSError, where: str | Path) -> UndoRefused:
    """Why nothing was done; `where`: the folder that it is about, if the error does not say."""
    cure = " Make room there, and undo again." if error.errno in {errno.ENOSPC, errno.EDQUOT} else ""
    return UndoRefused(f"Nothing was changed: {'' if error.filename else f'{where}: '}{of_error(error)}.{cure}")


def of_error(error: OSError) -> str:
    """What the system says, and of which path."""
    place = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    return clean(f"{place}{error.strerror or error}")
