"""Locks of files that are this process's alone. Standard library only.

A process that somebody forks here (`multiprocessing`) inherits every descriptor, and with it a lock of `flock(2)`: it would hold a run's seal, a list or the
history for as long as it lives.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final

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
