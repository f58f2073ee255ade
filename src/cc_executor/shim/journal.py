"""The agent's output, from its pipes into append-only files, byte for byte. Knows pipes, files and the sparse index; knows no line and no event."""

from __future__ import annotations

import errno
import os

from cc_executor.shim.mask import Masker
from cc_executor.shim.records import INDEX, INDEX_EVERY_BYTES, INDEX_EVERY_SECONDS
from cc_executor.shim.sync import File
from cc_executor.shim.tail import Tail, end_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from cc_executor.shim.asks import Asks
    from cc_executor.shim.linger import LastWord
    from cc_executor.shim.quiet import Quiet

BLOCK: Final = 64 * 1024  # what a pipe holds by default; larger buffers were slower
# Bytes of a stream's end that are held while the disk is full; most closing statements have less. Room for each is set aside (`Ledger.make_room`).
HELD: Final = (64 * 1024, 16 * 1024)
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
ROUND: Final = 16  # blocks of one stream before the loop looks at everything else: 1 MiB, which an agent may make of its pipe


class Index:
    """The sparse side index of both streams. Losing an entry costs a reader some searching, nothing else; so it never fails."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._entries = 0
        self._wanted = 0  # a bit for each stream

    def want(self) -> None:
        """A control record was written: an entry for the next block of each stream, so that a reader knows which came first."""
        self._wanted = ~0

    def wants(self, stream: int) -> bool:
        """Whether the next block of `stream` needs an entry."""
        return bool(self._wanted >> stream & 1)

    def add(self, offset: int, t: float, stream: int) -> None:
        """Note that the block at `offset` of `stream` came at `t`."""
        self._wanted &= ~(1 << stream)
        entry = INDEX.pack(offset, t, self._entries, stream)
        try:
            done = os.write(self._fd, entry)
            if done == len(entry):
                self._entries += 1
            else:
                os.ftruncate(self._fd, self._entries * INDEX.size)  # the disk is full; a torn entry would shift all later ones
        except OSError:  # the same; the output itself is accounted for by its stream
            return


class Stream:
    """One output stream.

    Parameters
    ----------
    number : int
        0 for stdout, 1 for stderr.
    pipe : int
        The reading end, non-blocking.
    file : File
        Where the bytes go.
    index : Index
        The index of both streams.
    forms : tuple of bytes
        What to mask.
    limit : int | None
        Bytes that are kept at most; beyond them only the end of the stream is. None: as many as come.
    """

    def __init__(self, number: int, pipe: int, file: File, index: Index, forms: tuple[bytes, ...], *, limit: int | None = None) -> None:
        self.pipe = pipe
        self.file = file
        self.ended = False
        self.dropped = 0
        self.degraded = False
        self.last_word: LastWord | None = None
        self.asks: Asks | None = None
        self.quiet: Quiet | None = None
        self._number = number
        self._index = index
        self._masker = Masker(forms) if forms else None
        self._limit = limit
        self._head = float("inf") if limit is None else limit - end_of(limit)  # bytes that are kept from the beginning
        self._tail: Tail | None = None
        self._held: Tail | None = None  # what a full disk did not take
        self._indexed_offset = -INDEX_EVERY_BYTES
        self._indexed_t = float("-inf")

    @property
    def masked(self) -> int:
        """How many secrets were replaced."""
        return self._masker.count if self._masker else 0

    def write(self, data: bytes | memoryview, t: float) -> OSError | None:
        """Append what can be appended, and return the reason if that is not everything.

        Of what a full disk does not take the end is held, for the next attempt, and the rest counted as dropped; whatever else cannot be written is dropped.
        """
        data = self._with_held(data)
        size = len(data)
        if not size:
            return None
        offset = self.file.written
        if self._tail is not None or offset + size > self._head:
            return self._beyond(data)
        if (
            offset - self._indexed_offset >= INDEX_EVERY_BYTES
            or t - self._indexed_t >= INDEX_EVERY_SECONDS
            or self._index.wants(self._number)
        ):
            # Before the bytes: who sees them finds their time.
            self._indexed_offset, self._indexed_t = offset, t
            self._index.add(offset, t, self._number)
        problem: OSError | None = None
        done = 0
        try:
            done = os.write(self.file.fd, data)
            while done < size:  # a disk that has just become full takes a part, and says why at the next attempt
                done += os.write(self.file.fd, data[done:])
        except OSError as error:
            problem = error
            if error.errno in _FULL:
                self._held = Tail(HELD[self._number])
                self.dropped += self._held.take(data[done:])
            else:
                self.dropped += size - done
        self.file.written = offset + done
        return problem

    def filtered(self, data: memoryview) -> bytes | memoryview:
        """What of `data` is ready to be written: everything, unless there are secrets."""
        return self._masker.feed(bytes(data)) if self._masker else data

    def rest(self) -> bytes:
        """What the mask held back, when the stream has ended."""
        return self._masker.close() if self._masker else b""

    def end(self, t: float, make_room: Callable[[int], None]) -> OSError | None:
        """Append what was held of the stream's end, after everything else of it; as `write`. `make_room`: called with how many bytes, if the disk is full."""
        problem: OSError | None = None
        if self._tail is not None:
            data, lost = self._tail.rest()
            self._head, self._tail = float("inf"), None
            problem = self._lost(lost)
            problem = self.write(data, t) or problem
        if self._held is not None:
            make_room(HELD[self._number])
            problem = self.write(self._with_held(b""), t) or problem
            self.dropped += len(self._with_held(b""))
        return problem

    def _with_held(self, data: bytes | memoryview) -> bytes | memoryview:
        if self._held is None:
            return data
        self.dropped += self._held.take(data)
        held, lost = self._held.rest()
        self._held = None
        self.dropped += lost
        return held

    def _beyond(self, data: bytes | memoryview) -> OSError | None:
        if self._tail is None:
            self._tail = Tail(end_of(self._limit or 0))
        return self._lost(self._tail.take(data))

    def _lost(self, size: int) -> OSError | None:
        if not size:
            return None
        self.dropped += size
        return OSError(errno.EFBIG, f"the limit of its journal, {self._limit:,} bytes, is reached; its end will be kept")


class Journal:
    """Both streams.

    Parameters
    ----------
    streams : tuple of Stream
        stdout and stderr.
    time : Callable[[], float]
        Seconds since the shim started.
    degraded : Callable[[str, OSError], None]
        Told once for each stream, when output could not be kept.
    make_room : Callable[[int], None]
        Frees so many bytes of what was set aside on the disk for the ends of the streams.
    forms : tuple of bytes
        What is masked in the streams, for whoever else writes what the agent wrote.
    """

    def __init__(
        self,
        streams: tuple[Stream, ...],
        time: Callable[[], float],
        degraded: Callable[[str, OSError], None],
        make_room: Callable[[int], None],
        forms: tuple[bytes, ...] = (),
    ) -> None:
        self.streams = streams
        self.forms = forms
        self._time = time
        self._degraded = degraded
        self._make_room = make_room
        self._buffer = bytearray(BLOCK)
        self._view = memoryview(self._buffer)

    @property
    def ended(self) -> bool:
        """Whether both streams are at their end."""
        return all(stream.ended for stream in self.streams)

    def drain(self, stream: Stream) -> int:
        """Move what the pipe holds, at most `ROUND` blocks; returns how many bytes came. Sets `ended` at end of file."""
        total = 0
        for _ in range(ROUND):
            try:
                size = os.readv(stream.pipe, [self._buffer])
            except BlockingIOError:
                break
            except OSError:  # a pipe cannot fail otherwise; if it does, it is at its end
                size = 0
            if not size:
                self.close(stream)
                break
            total += size
            if stream.last_word is not None:
                stream.last_word.look(self._buffer, size)
            if stream.asks is not None:
                stream.asks.look(self._buffer, size)
            if stream.quiet is not None:
                stream.quiet.look(self._buffer, size)
            self._keep(stream, stream.filtered(self._view[:size]))
            if size < BLOCK:
                break
        return total

    def close(self, stream: Stream) -> None:
        """Write what was held back and take nothing more of this stream."""
        if not stream.ended:
            stream.ended = True
            os.close(stream.pipe)
            self._keep(stream, stream.rest())
            self._tell_loss(stream, stream.end(self._time(), self._make_room))

    def look_at_sync(self) -> None:
        """Tell of syncs that failed."""
        for stream in self.streams:
            if stream.file.sync_error is not None:
                self._tell(stream, stream.file.sync_error)

    def _keep(self, stream: Stream, data: bytes | memoryview) -> None:
        self._tell_loss(stream, stream.write(data, self._time()))

    def _tell_loss(self, stream: Stream, problem: OSError | None) -> None:
        if problem is not None and stream.dropped:  # what is held may still find room
            self._tell(stream, problem)

    def _tell(self, stream: Stream, problem: OSError) -> None:
        if not stream.degraded:
            stream.degraded = True
            self._degraded(stream.file.name, problem)
