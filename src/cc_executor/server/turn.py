"""One at a time, among all threads and all servers of a state folder. Knows a locked file, and nothing of what is done meanwhile."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cc_executor.errors import StateUnusable

PATIENCE: Final = 10.0  # seconds; a turn takes some milliseconds, but whoever has it may be frozen
LOOK: Final = 0.002  # seconds


@contextmanager
def alone(path: Path) -> Generator[None]:
    """A block that nobody else is in for this file. The kernel ends the turn of a process that dies. Blocking.

    Raises
    ------
    StateUnusable
        The file cannot be made or locked, or somebody has had their turn for `PATIENCE` seconds.
    """
    until = time.monotonic() + PATIENCE
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateUnusable(f"{path} cannot be written: {error.strerror}. Nothing was started; make room, or mend the folder.") from error
    try:
        while not _is_ours(descriptor, path):
            if time.monotonic() > until:
                raise StateUnusable(
                    f"Another server of this state folder does not let go of {path}. End it, or let it go on, and ask again."
                )
            time.sleep(LOOK)
        yield
    finally:
        os.close(descriptor)


def _is_ours(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StateUnusable(f"{path} cannot be locked: {error.strerror}. Choose a state folder on a file system with locks.") from error
    return True
