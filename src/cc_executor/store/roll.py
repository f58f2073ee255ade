"""The roll: one small file for each run whose end nobody has seen yet, so that lost ones are found without a look at every run that is kept.

A run is entered before its folder is made, and struck off when its receipt is sealed or its supervisor has written its last words. What is missing at roll
call has neither, nor a supervisor: nobody owns what is left of it. The supervisor's lock decides that, and no process number, which a restarted machine
or container may have given to anybody. A file holds the name of the host, for another host's locks and processes cannot be seen from here.

Standard library only: a kernel calls the roll before anything heavy is loaded. Plain files; ends nothing, seals nothing.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from cc_executor.shim import records
from cc_executor.store.place import RUN_ID, RUNS, claimed_at
from cc_executor.store.plain import open_plain

FOLDER: Final = "roll"
STARTING_GRACE: Final = 25.0  # seconds; a supervisor that has not answered after 20 is ended by its launcher, and the folder removed
# Seconds by which a file server's clock may go before ours; a time that is later still was written before a clock was set back.
CLOCK_SKEW: Final = 3600.0
_NAME_LIMIT: Final = 1024  # bytes of a host's name; Linux allows 64


def own_host() -> bytes:
    """The host, as its runs' files name it."""
    return os.fsencode(os.uname().nodename)


def enter(root: Path, run_id: str) -> None:
    """Put a run on the roll.

    Raises
    ------
    OSError
        There is no room, or no right to.
    """
    folder = root / FOLDER
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    descriptor = os.open(folder / run_id, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, own_host())
    except OSError:
        strike(root, run_id)
        raise
    finally:
        os.close(descriptor)


def strike(root: Path, run_id: str) -> None:
    """Take a run off the roll."""
    with suppress(OSError):  # it is off already, or nothing can be written here: then it is looked at again, and nothing else
        os.unlink(root / FOLDER / run_id)


def entered_at(root: Path, run_id: str) -> float:
    """Seconds since the epoch when the run was put on the roll, or its id was made, if that was later: an id may have waited for its turn.

    What is not on the roll any more counts from its id.
    """
    made = claimed_at(run_id)
    try:
        return max(made, os.lstat(root / FOLDER / run_id).st_mtime)
    except OSError:
        return made


def may_start(root: Path, run_id: str, *, now: float, grace: float) -> bool:
    """Whether a run that has no supervisor yet was put on the roll so lately that one may still come."""
    return -CLOCK_SKEW < now - entered_at(root, run_id) < grace


def missing(root: Path, *, now: float) -> list[str]:
    """The runs of this host that have neither a supervisor nor last words nor a receipt, oldest first. Strikes off those that have ended.

    Costs a few system calls for each run that goes on, whatever else is kept.
    """
    return [name for name in _entered(root) if _is_missing(root, name, now)]


def going(root: Path) -> list[str]:
    """The runs of this host that have a supervisor, oldest first. Costs as much as `missing`.

    One whose lock cannot be asked, because something else was put in its place, has none, and hides no other.
    """
    found: list[str] = []
    for name in _entered(root):
        with suppress(OSError):
            if _is_own(root, name) and is_held(root / RUNS / name / records.LOCK):
                found.append(name)
    return found


def _entered(root: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(root / FOLDER) if RUN_ID.match(name))
    except OSError:  # nothing was ever run here
        return []


def _is_missing(root: Path, run_id: str, now: float) -> bool:
    folder = root / RUNS / run_id
    try:
        if _has_ended(folder):
            strike(root, run_id)
            return False
        if not _is_own(root, run_id) or is_held(folder / records.LOCK):
            return False
        if _has_ended(folder):  # between the two looks
            strike(root, run_id)
            return False
        return (folder / records.CONTROL).exists() or not may_start(root, run_id, now=now, grace=STARTING_GRACE)
    except OSError:  # a file system without locks, a folder that is closed to us: what cannot be known is left alone
        return False


def _has_ended(folder: Path) -> bool:
    return (folder / records.EXIT).exists() or (folder / records.RECEIPT).exists()


def _is_own(root: Path, run_id: str) -> bool:
    """Whether a run is of this host; an empty name was torn while it was written, before anything was started."""
    return _host_of(root, run_id) in {own_host(), b""}


def _host_of(root: Path, run_id: str) -> bytes | None:
    try:
        descriptor = open_plain(root / FOLDER / run_id)
    except OSError:
        return None
    try:
        return os.read(descriptor, _NAME_LIMIT)
    finally:
        os.close(descriptor)


def is_held(lock: Path) -> bool:
    """Whether a supervisor holds this lock; False when there is no such file.

    Raises
    ------
    OSError
        Something else than a plain file stands there, or the file system has no locks.
    """
    try:
        descriptor = open_plain(lock)  # for reading, so that it can be asked where nothing can be written
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)
