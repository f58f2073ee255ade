"""Group commit: what was written reaches the disk a moment later, off the drain's way. Knows descriptors and offsets; knows no run.

The second thread of the shim lives here. It may do nothing but fdatasync, because a child's death signal is tied to the thread that forked it, and
because the drain must never wait for a disk: the Claude Code CLI loses its last output when nobody reads for 0.3 s with a full pipe.
"""

from __future__ import annotations

import _thread  # `threading` costs 2 ms of the shim's start, and one thread needs nothing of it
import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

WINDOW: Final = 0.025  # seconds; group commit at 25 ms / 8 MiB reached 0.87 of the disk's own speed
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
    """The thread that syncs. `start` it after the last fork."""

    def __init__(self, files: tuple[File, ...]) -> None:
        self._files = files
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._asleep = False
        self._closing = False
        self._hurried = False
        self._done = _thread.allocate_lock()
        self._done.acquire()

    def start(self) -> None:
        """Begin."""
        _thread.start_new_thread(self._run, ())

    def touch(self) -> None:
        """Something was written. Called by the drain; never waits."""
        if self._asleep:
            self._asleep = False
            self._ring()
        elif not self._hurried and sum(file.written - file.durable for file in self._files) >= WINDOW_BYTES:
            self._hurried = True
            self._ring()

    def close(self, patience: float) -> bool:
        """Sync all that is left and end; False when the disk did not answer within `patience` seconds."""
        self._closing = True
        self._ring()
        return self._done.acquire(timeout=patience)

    def _ring(self) -> None:
        try:
            os.write(self._writing, b"\n")
        except BlockingIOError:
            return  # the pipe is full of rings

    def _dirty(self) -> bool:
        return any(file.written > file.durable and file.written != file.refused for file in self._files)

    def _run(self) -> None:
        bell = select.poll()
        bell.register(self._reading, select.POLLIN)
        while not self._closing:
            self._asleep = True
            if not self._dirty():  # looked at after `_asleep` was set, so that no ring is lost
                os.read(self._reading, 4096)
            self._asleep = False
            if not self._closing:
                bell.poll(WINDOW * 1000)
            self._hurried = False
            self._sync()
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
