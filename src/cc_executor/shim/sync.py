"""Group commit: what was written reaches the disk a moment later, off the drain's way. Knows descriptors and offsets; knows no run.

The second thread of the shim lives here. It may do nothing but fdatasync, because a child's death signal is tied to the thread that forked it, and
because the drain must never wait for a disk: the Claude Code CLI loses its last output when nobody reads for 0.3 s with a full pipe.
"""

from __future__ import annotations

import _thread  # `threading` costs 2 ms of the shim's start, and one thread needs nothing of it
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

WINDOW: Final = 0.035  # seconds; the loop is awake then anyway, when a stream that trickles is looked at again
# Where a sync takes long, for the disk or the cores are busy, the window grows: at most one part in so many of the time is spent in them.
SHARE: Final = 50
LONGEST_WINDOW: Final = 1.0
WINDOW_BYTES: Final = 8 * 2**20
_flush = os.fdatasync if hasattr(os, "fdatasync") else os.fsync  # macOS has no fdatasync


class File:
    """An append-only file: `written` bytes were taken by the kernel, `durable` of them have reached the disk."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd
        self.written = 0
        self.durable = 0
        self.sync_error: OSError | None = None
        self.refused = -1  # what `written` was when a sync failed; it is not tried again before more was written


class Syncer:
    """The thread that syncs, when it is told to. `start` it after the last fork."""

    def __init__(self, files: tuple[File, ...]) -> None:
        self._files = files
        self._reading, self._writing = os.pipe()
        self._due = float("inf")
        self._window = WINDOW
        self._is_busy = False
        self._closing = False
        self._done = _thread.allocate_lock()
        self._done.acquire()

    def start(self) -> None:
        """Begin."""
        _thread.start_new_thread(self._run, ())

    def touch(self) -> None:
        """Something was written. Never waits."""
        now = time.monotonic()
        self._due = min(self._due, now + self._window)
        if sum(file.written - file.durable for file in self._files) >= WINDOW_BYTES:
            self._due = now

    def step(self, now: float) -> float:
        """Let it sync, if that is due; returns when to be called again."""
        if self._is_busy or now < self._due:
            return max(self._due, now + WINDOW) if self._is_busy else self._due
        self._due = float("inf")
        self._ring()
        return self._due

    def close(self, patience: float) -> bool:
        """Sync all that is left and end; False when the disk did not answer within `patience` seconds."""
        self._closing = True
        self._ring()
        return self._done.acquire(timeout=patience)

    def _ring(self) -> None:
        self._is_busy = True
        os.write(self._writing, b"\n")  # at most two are on their way

    def _run(self) -> None:
        while not self._closing:
            os.read(self._reading, 1)
            began = time.monotonic()
            self._sync()
            self._window = min(LONGEST_WINDOW, max(WINDOW, SHARE * (time.monotonic() - began)))
            self._is_busy = False
        self._sync()
        self._done.release()

    def _sync(self) -> None:
        for file in self._files:
            mark = file.written
            if mark > file.durable and mark != file.refused:
                try:
                    _flush(file.fd)
                except OSError as problem:
                    file.sync_error = problem
                    file.refused = mark
                else:
                    file.durable = mark
