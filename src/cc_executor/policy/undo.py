"""What an undo does, and what it must not touch: decided from the looks before and after each run and from what stands there now.

A file that is not as the run left it is the user's by now, and no undo writes over it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from cc_executor.model.tree import Change, Entry, Kind, parents, same, same_content

NOT_KEPT: Final = "its content before the run was not kept"
LATE: Final = "it was changed after the run had ended, and before anybody saw that end"
CHANGED: Final = "it was changed since"
REMOVED: Final = "it was removed since"
AGAIN: Final = "something stands there again"
BOTH: Final = "another run worked on it at the same time"
CROWDED: Final = "the folder that stands there by now holds other things"
NO_FOLDER: Final = "its folder cannot be brought back"
FOLDER_GONE: Final = "its folder is not there any more"


class Unit(msgspec.Struct, frozen=True):
    """What one run did, or several that worked in one folder at the same time.

    Attributes
    ----------
    changes : sequence of Change
        Absolute paths.
    late : collection of bytes
        Paths that somebody changed after the end.
    foreign : collection of bytes
        Paths that another run has changed, as that one's agent says, and this one's does not.
    doubtful : mapping of bytes to collection of str
        Paths that this run or another may have changed, with the ids of those others.
    """

    changes: Sequence[Change]
    late: Collection[bytes] = ()
    foreign: Collection[bytes] = ()
    doubtful: Mapping[bytes, Collection[str]] = {}


class Conflict(msgspec.Struct, frozen=True):
    """A path that is left as it is, and why."""

    path: bytes
    why: str


class Plan(msgspec.Struct):
    """What is to be done.

    Attributes
    ----------
    changes : dict of bytes to Change
        By path; `before` is what is brought back, `after` what stands there now.
    conflicts : list of Conflict
    already : int
        Paths that are as they were before.
    """

    changes: dict[bytes, Change] = {}
    conflicts: list[Conflict] = []
    already: int = 0


def plan(
    units: Iterable[Unit],
    now: Mapping[bytes, Entry | None],
    listings: Mapping[bytes, Collection[bytes]],
    hidden: Mapping[bytes, str] = {},
) -> Plan:
    """Decide.

    Parameters
    ----------
    units : iterable of Unit
        Newest first.
    now : mapping
        What stands at each path that a unit has changed.
    listings : mapping
        What is in each folder that stands where a file or link is to be; full paths.
    hidden : mapping
        The paths that are not in `now`, for nobody can say what stands there, and why.
    """
    made = Plan()
    stands = dict(now)
    left: dict[bytes, str] = {}
    for unit in units:
        for change in unit.changes:
            path = change.path
            if path in unit.foreign or path in left:
                continue
            if path in hidden:
                left[path] = hidden[path]
                continue
            current = stands[path]
            if _is_done(change, current):
                made.already += 1
                continue
            why = _conflict(change, current, unit)
            if why:
                left[path] = why
                made.changes.pop(path, None)  # what a newer run did there stays, too: it is one file
                continue
            stands[path] = change.before
            made.changes[path] = Change(path, change.before, now[path])
    for path, change in list(made.changes.items()):
        if change.before is not None and change.before.kind is not Kind.FOLDER and change.after is not None:
            going = {other for other, step in made.changes.items() if step.before is None}
            if change.after.kind is Kind.FOLDER and not set(listings.get(path, ())) <= going:
                left[path] = CROWDED
                del made.changes[path]
    _drop_below(made, left, hidden)
    made.conflicts = [Conflict(path, why) for path, why in sorted(left.items())]
    return made


def _is_done(change: Change, current: Entry | None) -> bool:
    if current is not None and current.kind is Kind.FOLDER and change.before is not None and change.before.kind is Kind.FOLDER:
        return change.after is None or current.mode == change.before.mode  # who has made the folder again has chosen its mode
    return same(current, change.before)


def _conflict(change: Change, current: Entry | None, unit: Unit) -> str:
    before, after = change.before, change.after
    if change.path in unit.doubtful:
        return f"{BOTH}: {', '.join(sorted(unit.doubtful[change.path]))}"
    is_new_folder = before is None and after is not None and after.kind is Kind.FOLDER
    if is_new_folder and current is not None and current.kind is Kind.FOLDER:
        return ""  # removed if nothing is in it
    if change.path in unit.late:
        return LATE
    if not same(current, after):
        return AGAIN if after is None else REMOVED if current is None else CHANGED
    if before is not None and not before.is_read and not (current is not None and same_content(before, current)):
        return NOT_KEPT
    return ""


def _drop_below(made: Plan, left: dict[bytes, str], hidden: Collection[bytes]) -> None:
    """Nothing can be put below a path that stays something else than a folder."""
    for path in sorted(made.changes):
        change = made.changes[path]
        if change.before is not None and any(above in left and above not in made.changes for above in parents(path)):
            blocked = [above for above in parents(path) if above in left]
            if change.after is None and any(
                above in hidden or left[above].startswith((AGAIN, CHANGED, CROWDED, LATE, BOTH)) for above in blocked
            ):
                left[path] = NO_FOLDER
                del made.changes[path]
