"""Sessions of MCP clients, and what each has not read yet, kept so that a stream which broke can be taken up again. Knows the SDK's interface; all is bounded.

What a run has written is not kept here: the journal is its buffer, and a tool's answer names the offset to go on from. This keeps answers alone.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from typing import Any, Final

from mcp.server.auth.middleware.bearer_auth import AuthorizationContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http import EventCallback, EventId, EventMessage, EventStore, StreamableHTTPServerTransport, StreamId
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import JSONRPCMessage

from cc_executor.server.policy import SOON
from cc_executor.server.refusal import Refused

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
    """The SDK's manager (mcp 2.3), with a store of its own for each session and a share of the sessions for each person.

    One store for all would hand one session's answers to another: streams are named after request ids, which every client counts from 0.

    Parameters
    ----------
    app : Server
    share : int
        Sessions of one person. One more takes the place of that person's session that has been idle for longest; where none is, it is refused.
    most : int
        Sessions of all.
    body_limit : int
        Bytes of a request.
    """

    def __init__(self, app: Server[Any], *, share: int, most: int, body_limit: int) -> None:
        super().__init__(app, max_request_body_size=body_limit, max_sessions=most)
        self._share = share

    @property
    def event_store(self) -> EventStore | None:
        """A new store; asked for once for each session."""
        return SessionEvents()

    @event_store.setter
    def event_store(self, value: Any) -> None:
        del value

    def _admit_session(self, requestor: AuthorizationContext | None) -> StreamableHTTPServerTransport | None:
        """A new session's transport; the SDK's, asked between two awaits, so that those who come at once are counted. Raises `Refused`."""
        own = [name for name, owner in self._session_owners.items() if owner == requestor]
        if len(own) >= self._share:
            # Without a request in flight, an open stream included: then the SDK has set a deadline, half an hour after the last one.
            idle = [
                (scope.deadline, name) for name in own if (scope := self._server_instances[name].idle_scope) and scope.deadline < math.inf
            ]
            if not idle:
                said = f"You have {len(own)} sessions open and in use, and one person may have {self._share} here. End a client, or one of its sessions."
                raise Refused(429, "TooManySessions", said, retry_after=SOON)
            self._end(min(idle)[1])
        transport = super()._admit_session(requestor)
        if transport is None:
            said = (
                f"All {self.max_sessions} sessions of this server are open. Try again: one that nobody uses is closed after half an hour."
            )
            raise Refused(503, "TooManySessions", said, retry_after=SOON)
        return transport

    def _end(self, name: str) -> None:
        self._session_owners.pop(name, None)
        scope = self._server_instances.pop(name).idle_scope
        if scope is not None:
            scope.cancel()  # as when its time is over: its task ends it and lets go of it
