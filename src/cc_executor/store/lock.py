"""One process at a time, by a lock on a file of ours, with a bound on how long it is waited for. Plain files; knows nothing of what is done meanwhile."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from cc_executor.errors import StateUnusable
from cc_executor.store.held import held_here, taken_within

PATIENCE: Final = 5.0  # seconds; what is done takes some milliseconds, and a run that has ended must not wait for whoever holds a file


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Be the only one, of all processes and threads, in blocks with this file. The kernel ends the turn of a process that dies.

    Raises
    ------
    StateUnusable
        The file cannot be made or locked, or somebody has held it for `PATIENCE` seconds.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateUnusable(f"{path} cannot be written: {error.strerror}. Make room, or mend the folder.") from error
    with held_here(descriptor):
        try:
            is_ours = taken_within(descriptor, PATIENCE)
        except OSError as error:
            raise StateUnusable(f"{path} cannot be locked: {error.strerror}. Choose a state folder on a file system with locks.") from error
        if not is_ours:
            raise StateUnusable(f"Another process has held {path} for {PATIENCE:.0f} s: end it, and try again.")
        yield


@contextmanager
def taken(path: Path) -> Generator[bool]:
    """Whether one is the only one, of all processes and threads, in a block with this file; nobody is waited for. The file goes with the end of the block.

    Raises
    ------
    OSError
        The file cannot be made or locked.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with held_here(descriptor):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # One that was removed between the opening and the locking is nobody's any more, and the next comer locks another.
            is_ours = os.path.samestat(os.fstat(descriptor), os.lstat(path))
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        try:
            yield is_ours
        finally:
            if is_ours:
                with suppress(OSError):  # then it stays, and nobody holds it
                    os.unlink(path)
