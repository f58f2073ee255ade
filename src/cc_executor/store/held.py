"""Locks of files that are this process's alone. Standard library only.

A process that somebody forks here (`multiprocessing`) inherits every descriptor, and with it a lock of `flock(2)`: it would hold a run's seal, a list or the
history for as long as it lives.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Final

LOOK: Final = 0.002  # seconds; what is done with a lock takes some microseconds to milliseconds

_held: Final[set[int]] = set()


def _let_go() -> None:
    while _held:
        with suppress(OSError):
            os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def held_here(descriptor: int) -> Generator[None]:
    """Keep a descriptor, and the lock that is taken with it, to this process until the end of the block; then give both back."""
    _held.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _held:  # else this is a forked process, which has let go of it
            with suppress(OSError):  # closed alone, it would leave the lock to who was forked before it was in the set
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            _held.discard(descriptor)
            os.close(descriptor)


def taken_within(descriptor: int, seconds: float, *, kind: int = fcntl.LOCK_EX, is_over: Callable[[], bool] = lambda: False) -> bool:
    """Take the lock of an open file as soon as nobody else has it. Blocking.

    Parameters
    ----------
    descriptor : int
    seconds : float
        How long somebody else is waited for: a process that was stopped would hold it for ever.
    kind : int
        As `fcntl.flock` has it.
    is_over : callable
        Whether it is not wanted any more.

    Returns
    -------
    bool
        False when somebody else has it still.

    Raises
    ------
    OSError
        The file system has no locks.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until or is_over():
                return False
            time.sleep(LOOK)  # flock(2) itself waits without a bound
        else:
            return True
