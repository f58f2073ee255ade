"""A run's journal as events in the order in which they happened, from the start or as it grows. Reads files; waits for nothing.

Two streams and the control records are merged by time: before a record of time `t` comes everything that the agent had written by `t`,
so that a replay tells the same story as the live run did.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cc_executor.agents import agent_named
from cc_executor.agents.framing import StderrDecoder
from cc_executor.model.event import ControlRecord, Event, Exited, Started
from cc_executor.policy.loopguard import LoopGuard
from cc_executor.shim import records
from cc_executor.store.journal import RunFolder

# What is read at a time, decoded, folded and shown before the loop looks at anything else: some 0.3 ms of work (with many tool calls 1 ms). 256 KiB were 4-8 ms.
PIECE: Final = 64 * 1024

# What is read from a file at a time, where somebody is so far behind: four pieces for the calls of one.
AHEAD: Final = 4 * PIECE


class JournalReader:
    """A cursor over one run.

    Parameters
    ----------
    folder : RunFolder
    agent : str
        Whose dialect stdout is written in.
    guards : bool
        Whether to say when the agent goes round in a circle.
    """

    def __init__(self, folder: RunFolder, *, agent: str, guards: bool = True) -> None:
        self._folder = folder
        self._decoder = agent_named(agent).decoder()
        self._stderr = StderrDecoder()
        self._loops = LoopGuard() if guards else None
        self._offset: dict[str, int] = dict.fromkeys(records.STREAMS, 0)
        self._ahead: dict[str, tuple[bytes, int]] = dict.fromkeys(records.STREAMS, (b"", 0))  # read already, and from which offset on
        self._control_offset = 0
        self._pending: list[ControlRecord] = []
        self.exited: Exited | None = None

    def read(self) -> list[Event] | None:
        """What the next piece of each stream, or the next control record, says; None when the cursor has caught up.

        An empty list means that bytes were read which complete no event yet.
        """
        if self.exited is not None:
            return None
        if not self._pending:
            ends = {stream: start + len(data) for stream, (data, start) in self._ahead.items()}
            if ends != self._offset:
                return self._read_streams(ends)
            sizes = self._sizes()  # before the look for records: what is there by now was written before any record that is not
            if self._folder.size(records.CONTROL) > self._control_offset:
                self._pending, self._control_offset = self._folder.control_records(self._control_offset)
            if not self._pending:
                return self._read_streams(sizes)
        record = self._pending[0]
        limits = (
            self._sizes() if isinstance(record, Exited) else {stream: self._written_before(record, stream) for stream in records.STREAMS}
        )
        events = self._read_streams(limits)
        if events is not None:
            return events
        self._pending.pop(0)
        if isinstance(record, Exited):
            self.exited = record
            return [*self.close(), record]
        return [record]

    def copy(self) -> JournalReader:
        """An independent cursor at the same place."""
        twin = JournalReader.__new__(JournalReader)
        twin._folder = self._folder
        twin._decoder = self._decoder.copy()
        twin._stderr = self._stderr.copy()
        twin._loops = self._loops.copy() if self._loops is not None else None
        twin._offset = dict(self._offset)
        twin._ahead = {stream: (b"", offset) for stream, offset in self._offset.items()}  # views keep many positions, and few are read from
        twin._control_offset = self._control_offset
        twin._pending = list(self._pending)
        twin.exited = self.exited
        return twin

    def close(self) -> list[Event]:
        """What the decoders still hold, when nothing more will come."""
        return [*self._decoder.close(), *self._stderr.close()]

    def _read_streams(self, limits: dict[str, int]) -> list[Event] | None:
        events: list[Event] = []
        progress = False
        for stream in records.STREAMS:
            if data := self._piece(stream, limits[stream]):
                progress = True
                self._offset[stream] += len(data)
                events += self._decoder.feed(data) if stream == records.STDOUT else self._stderr.feed(data)
        if self._loops is not None:
            events += self._loops.feed(events)
        return events if progress else None

    def _piece(self, stream: str, limit: int) -> bytes:
        """The next bytes of a stream, at most those before offset `limit`."""
        offset = self._offset[stream]
        data, start = self._ahead[stream]
        if offset == start + len(data) and offset < limit:
            data, start = self._folder.read(stream, offset, min(AHEAD, limit - offset)), offset
        end = offset + PIECE
        # Not kept once it is used up: in a crowd that would add up.
        self._ahead[stream] = (data, start) if end < start + len(data) else (b"", start + len(data))
        return data[offset - start : end - start]

    def _sizes(self) -> dict[str, int]:
        return {stream: self._folder.size(stream) for stream in records.STREAMS}

    def _written_before(self, record: ControlRecord, stream: str) -> int:
        """The size of `stream` when `record` was written, as exactly as the sparse index knows it."""
        if isinstance(record, Started):
            return 0  # of which the index of a disk that became full may know nothing
        size = self._folder.size(stream)
        if size == self._offset[stream]:
            return size
        wanted = records.STREAMS.index(stream)
        low, high = 0, self._folder.size(records.INDEX_FILE) // records.INDEX.size
        while low < high:  # the first entry later than the record
            middle = (low + high) // 2
            _, entry_t, _, _ = records.INDEX.unpack(self._index_bytes(middle, 1))
            low, high = (low, middle) if entry_t > record.t else (middle + 1, high)
        while block := self._index_bytes(low, 4096):  # the first of them that is this stream's
            for offset, _, _, number in records.INDEX.iter_unpack(block):
                if number == wanted:
                    return offset
            low += 4096
        return size

    def _index_bytes(self, entry: int, count: int) -> bytes:
        data = self._folder.read(records.INDEX_FILE, entry * records.INDEX.size, count * records.INDEX.size)
        return data[: len(data) - len(data) % records.INDEX.size]


def events_from(position: JournalReader) -> Iterator[Event]:
    """Every event from a position on, which stays as it is. Blocking: not for an event loop."""
    reader = position.copy()
    while (events := reader.read()) is not None:
        yield from events
    yield from reader.close()


def replay(folder: RunFolder, *, agent: str) -> Iterator[list[Event]]:
    """Every event of a run that has ended (or of what there is of one that was lost), in batches. Blocking: not for an event loop."""
    reader = JournalReader(folder, agent=agent)
    while (events := reader.read()) is not None:
        yield events
    yield reader.close()
