"""What an MCP client has not read yet, kept so that a stream which broke can be taken up again. Knows the SDK's interface; bounded in number and in bytes.

What a run has written is not kept here: the journal is its buffer, and a tool's answer names the offset to go on from. This keeps answers alone.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import Any, Final

from mcp.server.streamable_http import EventCallback, EventId, EventMessage, EventStore, StreamId
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import JSONRPCMessage

EVENTS: Final = 256  # of one session
BYTES: Final = 2**20  # of one session: fifty answers of the longest kind


class SessionEvents(EventStore):
    """The newest events of one session, the oldest of which go first."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._kept: deque[tuple[int, StreamId, JSONRPCMessage | None, int]] = deque()
        self._bytes = 0

    async def store_event(self, stream_id: StreamId, message: JSONRPCMessage | None) -> EventId:
        """Keep an event; the SDK's."""
        size = len(message.model_dump_json(by_alias=True, exclude_unset=True)) if message is not None else 0
        number = next(self._numbers)
        self._kept.append((number, stream_id, message, size))
        self._bytes += size
        while len(self._kept) > EVENTS or (self._bytes > BYTES and len(self._kept) > 1):
            self._bytes -= self._kept.popleft()[3]
        return str(number)

    async def replay_events_after(self, last_event_id: EventId, send_callback: EventCallback) -> StreamId | None:
        """Send what came after an event on its stream; the SDK's. None: it is not known any more, and the client asks anew."""
        kept = list(self._kept)
        stream = next((stream for number, stream, _, _ in kept if str(number) == last_event_id), None)
        for number, of, message, _ in kept:
            if stream is not None and of == stream and number > int(last_event_id) and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


class Sessions(StreamableHTTPSessionManager):
    """The SDK's manager, with a store of its own for each session.

    One store for all would hand one session's answers to another: streams are named after request ids, which every client counts from 0 (mcp 2.3).
    """

    @property
    def event_store(self) -> EventStore | None:
        """A new store; asked for once for each session."""
        return SessionEvents()

    @event_store.setter
    def event_store(self, value: Any) -> None:
        del value
