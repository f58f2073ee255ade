"""A Messages API on loopback that plays a script. Knows HTTP and time; what is answered is decided by `answer` and `conversation`.

It runs on asyncio (its sockets are asyncio's, because only they can be reset at will) with anyio's tasks and timeouts. It holds no secret and writes
nothing; a log of what was asked, without texts and keys, is kept in `RehearsalServer.requests`.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast

import anyio
import h11
import msgspec
from anyio.abc import TaskGroup
from anyio.from_thread import BlockingPortal, start_blocking_portal

from cc_executor.rehearsal import answer, conversation
from cc_executor.rehearsal.conversation import Asked, Conversations, Kind, Place
from cc_executor.rehearsal.example import instance
from cc_executor.rehearsal.loopback import API_KEY, CONNECTIONS_LIMIT, open_listener, url_of
from cc_executor.rehearsal.scripts import Block, Fault, Script, Turn, load

BODY_LIMIT: Final = 64 * 2**20  # bytes; the CLI takes prompts of 10 MB and sends tool results of a few more
READ_SIZE: Final = 256 * 1024
REQUESTS_KEPT: Final = 10_000  # entries of the log; later ones are counted only
BODIES_KEPT: Final = 32  # newest request bodies, for tests
PING_INTERVAL: Final = 1.0  # seconds; a stall "with pings" shows itself to be alive this often

END: Final = Turn(blocks=(Block(text="(The rehearsal script has ended.)"),))
SUMMARY: Final = Turn(blocks=(Block(text="<analysis>A rehearsal.</analysis>\n<summary>Nothing of it has to be kept.</summary>"),))
HARMLESS: Final = Turn(blocks=(Block(text="Done."),))


class LoggedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request, without texts and without keys.

    Attributes
    ----------
    at : float
        Seconds since the server started.
    key : str
        ``rehearsal`` (the key of rehearsed runs), ``other`` (some other credential) or ``none``.
    turn, attempt : int or None
        For the main conversation: the turn (from 0) and the attempt at it (from 1).
    answer : str
        What is about to be answered: a status, or ``200 reset``, ``stall`` and the like.
    """

    number: int
    at: float
    method: str
    path: str
    kind: str
    answer: str
    size: int = 0
    key: str = "none"
    session: str = ""
    model: str = ""
    stream: bool = False
    max_tokens: int = 0
    messages: int = 0
    answers: int = 0
    tools: tuple[str, ...] = ()
    turn: int | None = None
    attempt: int | None = None


class RehearsalServer:
    """The scripted model: ``async with RehearsalServer("hello") as server: …server.url…``.

    Parameters
    ----------
    script : Script or str
        A script, or what `scripts.load` takes.
    cwd : str or None
        What ``{cwd}`` stands for; None: the current folder.
    pace : float
        Factor for every delay of the script; 0 plays without delays. Stalls keep their length.
    log : callable or None
        Called with every `LoggedRequest`, in the server's loop.
    listener : socket or None
        A socket that already listens on loopback; None: an ephemeral port is opened. The server closes it.

    Raises
    ------
    InvalidRequest
        The script is unknown or not valid.
    """

    def __init__(
        self,
        script: Script | str,
        *,
        cwd: str | None = None,
        pace: float = 1.0,
        log: Callable[[LoggedRequest], None] | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        self.script = script if isinstance(script, Script) else load(script)
        self.requests_total = 0
        self._cwd = str(Path.cwd()) if cwd is None else cwd
        self._pace = pace
        self._log = log
        self._listener = listener
        self._requests: list[LoggedRequest] = []
        self._bodies: dict[int, Mapping[str, Any]] = {}
        self._conversations = Conversations()
        # Unlike those of every other server: a resumed session may hold answers of an earlier one, and the CLI tells messages by their ids.
        self._mark = os.urandom(4).hex()
        self._request_ids = (f"req_rehearsal_{self._mark}{number:06d}" for number in count(1))
        self._started = time.monotonic()
        self._open = 0
        self._group: TaskGroup | None = None

    @property
    def url(self) -> str:
        """For ``ANTHROPIC_BASE_URL``. There is one between the start and the end of the ``async with``."""
        assert self._listener is not None, "the server is not started"
        return url_of(self._listener)

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        assert self._listener is not None, "the server is not started"
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def requests(self) -> tuple[LoggedRequest, ...]:
        """What was asked so far, oldest first."""
        return tuple(self._requests)

    def body(self, number: int) -> Mapping[str, Any] | None:
        """The JSON of request `number`, while it is among the newest `BODIES_KEPT`."""
        return self._bodies.get(number)

    async def wait_for_requests(self, count: int, *, kind: str | None = "main", within: float = 10.0) -> tuple[LoggedRequest, ...]:
        """Return as soon as `count` requests of `kind` (None: any) have come, or raise `TimeoutError` after `within` seconds."""
        with anyio.fail_after(within):
            while len(found := [entry for entry in self._requests if kind in (None, entry.kind)]) < count:
                await self._arrived.wait()
        return tuple(found)

    async def __aenter__(self) -> Self:
        self._listener = listener = self._listener or open_listener()
        listener.setblocking(False)
        self._arrived = anyio.Event()
        self._group = await anyio.create_task_group().__aenter__()
        self._group.start_soon(self._accept, listener, self._group)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        group, self._group = self._group, None
        assert group is not None
        group.cancel_scope.cancel()
        try:
            # Not with the body's exception: the group would wrap it, and a failed test or run should look as it would without this server.
            await group.__aexit__(None, None, None)
        finally:
            if self._listener is not None:
                self._listener.close()

    async def _accept(self, listener: socket.socket, group: TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            peer, _ = await loop.sock_accept(listener)
            if self._open >= CONNECTIONS_LIMIT:
                peer.close()
                continue
            peer.setblocking(False)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open += 1
            group.start_soon(self._serve, peer)

    async def _serve(self, peer: socket.socket) -> None:
        wire = _Wire(peer, self._request_ids)
        try:
            while (request := await wire.request()) is not None:
                await self._reply(wire, request)
        except (OSError, h11.ProtocolError, _Cut):
            pass  # the client went away or spoke nonsense, or the script says that the connection ends here: all that is left is to close it
        finally:
            self._open -= 1
            wire.close()

    async def _reply(self, wire: _Wire, request: _Request) -> None:
        path = request.target.partition("?")[0]
        if request.method == "POST" and path == "/v1/messages":
            try:
                parsed: Any = json.loads(request.body)
            except (ValueError, RecursionError):
                parsed = None
            if isinstance(parsed, dict):
                await self._message(wire, request, cast("dict[str, Any]", parsed))
                return
            self._note(request, Place(Kind.OTHER), "400")
            await wire.json(400, _problem("invalid_request_error", "not a JSON object"))
        elif request.method == "POST" and path == "/v1/messages/count_tokens":
            self._note(request, Place(Kind.COUNT_TOKENS), "200")
            await wire.json(200, {"input_tokens": len(request.body) // 4})
        elif request.method == "HEAD":
            self._note(request, Place(Kind.PROBE), "200")
            await wire.headers(200, {"content-length": "0"})
            await wire.end()
        else:
            self._note(request, Place(Kind.OTHER), "404")
            await wire.json(404, _problem("not_found_error", "not part of this rehearsal"))

    async def _message(self, wire: _Wire, request: _Request, parsed: Mapping[str, Any]) -> None:
        asked = conversation.read(parsed, request.headers)
        place = self._conversations.place(asked)
        turn = self._turn(asked, place)
        fault = turn.fault
        if fault is not None and fault.times is not None and (place.attempt or 0) > fault.times:
            fault = None
        self._note(request, place, _plan(fault), asked=asked, parsed=parsed)
        places = {
            "cwd": self._cwd,
            "python": sys.executable,
            "session": asked.session,
            "turn": str((place.turn or 0) + 1),
            "run": asked.run,
        }
        scene = answer.Scene(mark=f"{self._mark}{self.requests_total:06d}", model=asked.model, places=places, tool_schemas=asked.tools)
        await anyio.sleep(turn.wait * self._pace)
        if fault is not None and fault.status is not None:
            extra = {} if fault.retry_after is None else {"retry-after": str(fault.retry_after)}
            await wire.json(fault.status, answer.error(fault), {**turn.headers, **extra})
        elif fault is not None and fault.at == "headers":
            await self._break(wire, fault)
        elif asked.stream:
            await self._stream(wire, turn, fault, scene)
        elif fault is not None:
            # The CLI's second way, a request without `stream`: cut after the headers, which is midway enough.
            await wire.headers(200, {"content-type": "application/json", **turn.headers})
            await self._break(wire, fault)
        else:
            await wire.json(200, answer.whole(turn, scene), turn.headers)

    def _turn(self, asked: Asked, place: Place) -> Turn:
        """What is played for a request."""
        if place.turn is not None:
            return self.script.turn(place.turn) or END
        if asked.output_schema is not None:
            return Turn(blocks=(Block(text=json.dumps(instance(dict(asked.output_schema)))),))
        tool = asked.forced_tool or ("StructuredOutput" if place.kind is Kind.AUXILIARY and "StructuredOutput" in asked.tools else None)
        if tool is not None:
            return Turn(blocks=(Block(tool=tool, input_from_schema=True),))
        return SUMMARY if place.kind is Kind.COMPACTION else HARMLESS

    async def _stream(self, wire: _Wire, turn: Turn, fault: Fault | None, scene: answer.Scene) -> None:
        await wire.headers(200, {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", **turn.headers})
        deltas = 0
        for step in answer.steps(turn, scene):
            if step.delay and self._pace:
                await anyio.sleep(step.delay * self._pace)
            # Midway is after `after` deltas; in an answer that is shorter, before its end.
            if fault is not None and (deltas >= fault.after if step.is_delta else step.event["type"] == "message_delta"):
                if fault.kind == "error_event":
                    await wire.data(answer.sse(answer.error(fault)))
                    await wire.end()
                    return
                await self._break(wire, fault, pings=fault.pings)
            deltas += step.is_delta
            await wire.data(answer.sse(step.event))
        await wire.end()

    async def _break(self, wire: _Wire, fault: Fault, *, pings: bool = False) -> None:
        """End the connection as the script says. `pings`: a stream has begun, and a stall in it shows life."""
        if fault.kind == "stall":
            with anyio.move_on_after(fault.seconds):
                while not await wire.gone(PING_INTERVAL if pings else None):
                    await wire.data(answer.sse({"type": "ping"}))
        if fault.kind != "eof":
            wire.reset_on_close()
        raise _Cut

    def _note(
        self,
        request: _Request,
        place: Place,
        plan: str,
        *,
        asked: Asked | None = None,
        parsed: Mapping[str, Any] | None = None,
    ) -> None:
        self.requests_total += 1
        entry = LoggedRequest(
            number=self.requests_total,
            at=round(time.monotonic() - self._started, 4),
            method=request.method[:16],
            path=request.target[:200],
            kind=place.kind.value,
            answer=plan,
            size=len(request.body),
            key=_key(request.headers),
            turn=place.turn,
            attempt=place.attempt,
        )
        if asked is not None:
            entry = msgspec.structs.replace(
                entry,
                session=asked.session,
                model=asked.model,
                stream=asked.stream,
                max_tokens=asked.max_tokens,
                messages=asked.messages,
                answers=asked.answers,
                tools=tuple(asked.tools)[:200],
            )
        if parsed is not None:
            self._bodies[entry.number] = parsed
            while len(self._bodies) > BODIES_KEPT:
                del self._bodies[next(iter(self._bodies))]
        if len(self._requests) < REQUESTS_KEPT:
            self._requests.append(entry)
        if self._log is not None:
            self._log(entry)
        self._arrived.set()
        self._arrived = anyio.Event()


class ServedRehearsal:
    """A rehearsal server on a thread of its own, seen from synchronous code; see `serving`."""

    def __init__(self, server: RehearsalServer, portal: BlockingPortal) -> None:
        self.server = server
        self.url = server.url
        self.port = server.port
        self._portal = portal

    @property
    def requests(self) -> tuple[LoggedRequest, ...]:
        """What was asked so far, oldest first."""
        return self.server.requests

    def wait_for_requests(self, count: int, *, kind: str | None = "main", within: float = 10.0) -> tuple[LoggedRequest, ...]:
        """As `RehearsalServer.wait_for_requests`."""
        return self._portal.call(lambda: self.server.wait_for_requests(count, kind=kind, within=within))


@contextmanager
def serving(script: Script | str, *, cwd: str | None = None, pace: float = 1.0) -> Generator[ServedRehearsal]:
    """For synchronous code: ``with serving("hello") as served: …served.url…``. Parameters as `RehearsalServer`."""
    server = RehearsalServer(script, cwd=cwd, pace=pace)
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(server):
        yield ServedRehearsal(server, portal)


class _Cut(Exception):
    """The script says that the connection ends here."""


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    target: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes


class _Wire:
    """One connection: whole requests in, answers out, and the ways to break it."""

    def __init__(self, peer: socket.socket, request_ids: Iterator[str]) -> None:
        self._peer = peer
        self._request_ids = request_ids
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.SERVER)

    async def request(self) -> _Request | None:
        """The next request with its body; None at the end of the connection."""
        if self._http.states[h11.SERVER] is h11.DONE and self._http.states[h11.CLIENT] is h11.DONE:
            self._http.start_next_cycle()
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._loop.sock_recv(self._peer, READ_SIZE))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > BODY_LIMIT:
                    await self.json(413, _problem("request_too_large", "larger than a rehearsal takes"))
                    raise _Cut
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
                return _Request(head.method.decode("ascii"), head.target.decode("latin-1"), headers, bytes(body))
            else:
                return None

    async def headers(self, status: int, headers: Mapping[str, str]) -> None:
        """Begin an answer."""
        fields = [("request-id", next(self._request_ids)), *headers.items()]
        await self._send(h11.Response(status_code=status, headers=fields))

    async def data(self, data: bytes) -> None:
        """Go on with it."""
        await self._send(h11.Data(data=data))

    async def end(self) -> None:
        """Complete it."""
        await self._send(h11.EndOfMessage())

    async def json(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        """A whole answer."""
        data = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
        await self.headers(status, {"content-type": "application/json", "content-length": str(len(data)), **(headers or {})})
        await self.data(data)
        await self.end()

    async def gone(self, within: float | None) -> bool:
        """Whether the client closes the connection within so many seconds (None: wait until it does)."""
        with anyio.move_on_after(within):
            while data := await self._loop.sock_recv(self._peer, READ_SIZE):
                self._http.receive_data(data)
            return True
        return False

    def reset_on_close(self) -> None:
        """Make the close a reset (RST), not an end of stream."""
        self._peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        self._peer.close()

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            await self._loop.sock_sendall(self._peer, data)


def _plan(fault: Fault | None) -> str:
    if fault is None:
        return "200"
    if fault.status is not None:
        return str(fault.status)
    return fault.kind if fault.at == "headers" else f"200 {fault.kind}"


def _problem(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


def _key(headers: Mapping[str, str]) -> str:
    shown = {headers.get("x-api-key", ""), headers.get("authorization", "").removeprefix("Bearer ")} - {""}
    if not shown:
        return "none"
    return "rehearsal" if shown == {API_KEY} else "other"
