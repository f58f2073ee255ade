"""What the shim itself has to say: the control records and the exit facts. Knows the two files and the room set aside for them; decides nothing."""

from __future__ import annotations

import errno
import json
import os
import time

from cc_executor.shim import native
from cc_executor.shim.records import EXIT, EXIT_PART, STREAMS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from cc_executor.shim.clock import Clock
    from cc_executor.shim.sync import File

ROOM: Final = 64 * 1024  # bytes set aside at the start, and always ahead: some hundred records, or the longest `left_behind`
# Bytes set aside for the exit facts. Most of it is free again before the last record is written, and that is room for the receipt: its text alone may take
# 32,000 characters of six bytes.
EXIT_ROOM: Final = 256 * 1024
# And for the ends of the streams: an agent's closing statement decides how the run is judged, and says what it has cost.
END_ROOM: Final = 96 * 1024
BLOCKS: Final = 8 * 1024
LOW: Final = 32 * 1024  # bytes left of it before more is set aside
PENDING_LIMIT: Final = 2**20  # bytes of records that wait for room; a run writes some dozen records of 150 bytes
DIGITS: Final = 6  # microseconds


class Ledger:
    """The control records, numbered from 0 without a gap, and the exit facts.

    Parameters
    ----------
    file : File
        control.jsonl, open for appending.
    exit_fd : int
        `EXIT_PART`, open for writing; its blocks are there already.
    clock : Clock
        Says how long ago the shim started.
    written : Callable[[], None]
        Told when something was written.
    """

    def __init__(self, file: File, exit_fd: int, clock: Clock, written: Callable[[], None]) -> None:
        self._file = file
        self._exit_fd = exit_fd
        self._clock = clock
        self._written = written
        self._room = 0
        self._end_room = END_ROOM
        self._pending = b""
        self.next_seq = 0
        self._reserve()

    def write(self, kind: str, **fields: Any) -> None:
        """Append one record. On a full disk it waits in memory, and goes before any later one."""
        now = time.monotonic()
        head = {"seq": self.next_seq, "t": round(self._clock.elapsed(now), DIGITS), "at": round(time.time(), DIGITS), "kind": kind}
        line = json.dumps(head | fields).encode() + b"\n"
        if len(self._pending) + len(line) > PENDING_LIMIT:
            return
        self.next_seq += 1
        self._pending += line
        self.flush()

    def flush(self) -> None:
        """Try again with what waits."""
        if not self._pending:
            return
        try:
            done = os.write(self._file.fd, self._pending)
        except OSError:  # full or failing disk: the stream that noticed it says so, and this is tried again
            return
        self._pending = self._pending[done:]
        self._file.written += done
        self._written()
        if self._room - self._file.written < LOW:
            try:
                self._reserve()
            except OSError:  # the disk is full now; what was set aside before is still there
                return

    def make_room(self, size: int) -> None:
        """Free `size` bytes, and a little for their last blocks, of what was set aside for the ends of the streams; the others keep their part."""
        self._end_room = max(0, self._end_room - size - BLOCKS)
        try:
            os.ftruncate(self._exit_fd, EXIT_ROOM + self._end_room)
        except OSError:
            return

    def write_exit(self, facts: dict[str, Any]) -> None:
        """Write the exit facts and rename them into place.

        Raises
        ------
        OSError
            The disk fails.
        """
        data = json.dumps(facts).encode() + b"\n"
        done = 0
        while done < len(data):
            done += os.pwrite(self._exit_fd, data[done:], done)
        os.ftruncate(self._exit_fd, len(data))
        os.fsync(self._exit_fd)  # else a power cut may leave the name with no content
        os.rename(EXIT_PART, EXIT)

    def give_back(self) -> None:
        """Free the blocks that were set aside and not used."""
        try:
            os.ftruncate(self._file.fd, self._file.written)
        except OSError:
            return

    def _reserve(self) -> None:
        self._room = self._file.written + ROOM
        native.reserve(self._file.fd, self._room)


def open_exit_part() -> int:
    """Make the file for the exit facts, with its blocks.

    Raises
    ------
    OSError
        There is no room.
    """
    fd = os.open(EXIT_PART, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, EXIT_ROOM + END_ROOM)
        else:  # macOS; zeros make the blocks as well
            os.write(fd, bytes(EXIT_ROOM + END_ROOM))
    except OSError as problem:
        if problem.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            os.close(fd)
            raise
        os.write(fd, bytes(EXIT_ROOM + END_ROOM))  # a file system that cannot set blocks aside
    return fd


def by_stream(values: tuple[int, ...]) -> dict[str, int]:
    """One figure for each stream, by its name."""
    return dict(zip(STREAMS, values, strict=True))
