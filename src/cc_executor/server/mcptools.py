"""Tools over runs, for agents: start, follow, command, read. Knows the service and the shape of a tool; what carries them is `cc_executor.server.mcp`'s.

Every tool answers soon: a run takes as long as it takes, and clients give up on tools. `execute` gives an id, `results`, `status` and `monitor` wait a while.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import mcp_types as types
import msgspec

from cc_executor.errors import ControlFailed, InvalidRequest
from cc_executor.model.event import AgentFailed, ApiRetried, Degraded, Event, LimitReached, RateLimited, Repeated
from cc_executor.policy.ask import Place
from cc_executor.runtime.hookevents import plain, tells
from cc_executor.runtime.reader import JournalReader
from cc_executor.server.lists import OPS
from cc_executor.server.lookup import check_journal
from cc_executor.server.mcpasks import Context, Elicitor, can_ask
from cc_executor.server.openapi import execute_schema
from cc_executor.server.pieces import LOOK, shown
from cc_executor.server.service import Service
from cc_executor.server.statuses import STATUSES
from cc_executor.store.journal import RunFolder, RunStanding
from cc_executor.store.tasklists import LIST_ID

if TYPE_CHECKING:
    from cc_executor.server.mcp import Caller

WAIT_LIMIT: Final = 50.0  # seconds; clients give up on a tool that is silent for a minute
TEXT_LIMIT: Final = 20_000  # bytes; Claude Code puts a longer result into a file of its own
DATA_LIMIT: Final = 200_000  # characters of structured data; clients of the official SDK take messages of 1 MiB
EVENTS: Final = 200  # in one answer
TRAILS: Final = 64  # places in journals that are remembered
PROGRESS: Final = 1.0  # seconds

Say = Callable[[types.LoggingLevel, dict[str, Any]], Awaitable[None]]


class Call(msgspec.Struct, frozen=True):
    """One call of a tool.

    Attributes
    ----------
    given : dict
        The arguments, of which none is unknown.
    said : mapping
        What the client's user has answered, by the id of the question; from protocol 2026-07-28 on.
    say : callable
        Sends a log message to the client, if it wants that level.
    """

    service: Service
    caller: Caller
    given: dict[str, Any]
    ctx: Context
    elicitor: Elicitor
    trails: Trails
    say: Say
    said: Mapping[str, Any] = {}

    @property
    def who(self) -> str:
        """Whose runs."""
        return self.caller.who

    def is_due(self, until: float) -> bool:
        """Whether to answer with what there is: it is that time, by the monotonic clock, or nobody waits any more."""
        return time.monotonic() >= until or self.caller.gone.is_set()

    async def rest(self, seconds: float) -> None:
        """Let so much time pass before the next look; less if nobody waits any more."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.caller.gone.wait(), seconds)

    def text(self, name: str, default: str = "") -> str:
        """A text among the arguments. Raises `InvalidRequest`."""
        value = self.given.get(name, default)
        if not isinstance(value, str):
            raise InvalidRequest(f"{name} must be a text.")
        return value

    def id(self, name: str = "id") -> str:
        """An id, which has to be there. Raises `InvalidRequest`."""
        if not (value := self.text(name)):
            raise InvalidRequest(f"{name} is missing: give the id that execute has answered.")
        return value

    def run_id(self) -> str:
        """The id of a run, which has to be there. Raises `InvalidRequest`."""
        run_id = self.id()
        if LIST_ID.match(run_id):
            raise InvalidRequest("This is the id of a task list: ask list_status or list_results, which name the runs of its tasks.")
        return run_id

    def op(self, known: Iterable[str]) -> str:
        """A command, which has to be there. Raises `InvalidRequest`."""
        if not (op := self.text("op")):
            raise InvalidRequest(f"op is missing. Choose one of {', '.join(known)}.")
        return op

    def number(self, name: str, default: float, *, most: float = 10**15) -> float:
        """A number from 0 on. Raises `InvalidRequest`."""
        value: Any = self.given.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10**15:
            raise InvalidRequest(f"{name} must be a number from 0 on (given: {json.dumps(value)[:40]}).")
        return min(value, most)


Answer = dict[str, Any] | types.InputRequiredResult


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool. `needs`: the right that it takes; `gives`: the properties of its answer, those in `always` always."""

    title: str
    about: str
    takes: Mapping[str, Any]
    gives: Mapping[str, Any]
    call: Callable[[Call], Awaitable[Answer]]
    needs: str = "read"
    required: tuple[str, ...] = ()
    always: tuple[str, ...] = ()
    is_final: bool = False  # what it does cannot be taken back
    is_repeatable: bool = True  # a second call with the same arguments changes nothing
    is_open: bool = False  # an agent works, who may reach anything

    def as_tool(self, name: str) -> types.Tool:
        """The tool as the protocol lists it."""
        hints = types.ToolAnnotations(
            title=self.title,
            read_only_hint=self.needs == "read",
            destructive_hint=self.is_final,
            idempotent_hint=self.is_repeatable,
            open_world_hint=self.is_open,
        )
        return types.Tool(
            name=name,
            title=self.title,
            description=self.about,
            input_schema=thing(self.takes, *self.required) | {"additionalProperties": False},
            output_schema=thing(self.gives, *self.always),
            annotations=hints,
        )


def thing(properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    """A JSON Schema of an object."""
    return {"type": "object", "properties": dict(properties), "required": list(required)}


def several(item: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON Schema of an array."""
    return {"type": "array", "items": dict(item)}


TEXT: Final = {"type": "string"}
NUMBER: Final = {"type": "number"}
WHOLE: Final = {"type": "integer"}
YES: Final = {"type": "boolean"}
MAYBE: Final = {"type": ["number", "null"]}
OBJECT: Final = {"type": "object"}
ID: Final = {"id": {"type": "string", "description": "what execute has answered"}}
KEY: Final = {"type": "string", "description": "two calls with the same key are one"}
_FROM: Final = {"type": "integer", "minimum": 0}
_WAIT: Final = {"type": "number", "minimum": 0, "maximum": WAIT_LIMIT, "description": "seconds to wait for news"}
_RUN: Final = {
    "id": TEXT, "status": TEXT, "started": NUMBER, "agent": TEXT, "model": TEXT, "elapsed": MAYBE, "cost": MAYBE, "label": TEXT, "prompt": TEXT,
    "rehearsed": {"type": ["string", "null"]},
}  # fmt: skip
_PIECE: Final = thing(
    {"offset": WHOLE, "next_offset": WHOLE, "last": YES, "encoding": {"enum": ["utf-8", "base64"]}, "data": TEXT},
    "offset",
    "next_offset",
    "data",
)


# --- starting and commanding -------------------------------------------------------------------------------------------


async def _execute(call: Call) -> Answer:
    key = call.text("idempotency_key")
    body = {name: value for name, value in call.given.items() if name != "idempotency_key"}
    asks = Place.CALLBACK if can_ask(call.ctx) else Place.CLIENT
    run_id, is_new = await call.service.execute(body, who=call.who, key=key, asks=asks)
    return {"id": run_id, "new": is_new, "receipt": f"cc-executor://runs/{run_id}/receipt", **await call.service.place(run_id)}


async def _control(call: Call) -> Answer:
    run_id, op = call.id(), call.op(OPS)
    try:
        return await call.service.control(run_id, op, who=call.who)
    except ControlFailed:
        if not LIST_ID.match(run_id) and (told := await call.service.lookup.status(run_id, who=call.who))["done"]:
            raise ControlFailed(f"The run has ended ({told['status']}): `results` says how.") from None
        raise


# --- following ---------------------------------------------------------------------------------------------------------


async def _status(call: Call) -> Answer:
    run_id, offset = call.run_id(), int(call.number("offset", 0))
    begun = told_at = time.monotonic()
    until = begun + call.number("wait", 0, most=WAIT_LIMIT)
    while True:
        told = await call.service.lookup.status(run_id, who=call.who)  # before the output: what is done has written everything
        if (asked := await _settled(call, run_id)) is not None:
            return asked
        piece = await asyncio.to_thread(call.service.lookup.piece, run_id, who=call.who, stream="stdout", offset=offset, limit=TEXT_LIMIT)
        if piece.data or told["done"] or call.is_due(until):
            return {**told, "asks": len(call.service.lookup.asks(run_id)), "output": shown(piece)}
        told_at = await _progress(call, told, begun, told_at)
        await call.rest(LOOK)


async def _monitor(call: Call) -> Answer:
    run_id, after = call.run_id(), int(call.number("after", 0))
    limit = max(1, int(call.number("limit", 50, most=EVENTS)))
    begun = told_at = time.monotonic()
    until = begun + call.number("wait", 0, most=WAIT_LIMIT)
    while True:
        told = await call.service.lookup.status(run_id, who=call.who)
        if (asked := await _settled(call, run_id)) is not None:
            return asked
        events = await asyncio.to_thread(_events, call, run_id, after, limit)
        if events or told["done"] or call.is_due(until):
            break
        told_at = await _progress(call, told, begun, told_at)
        await call.rest(LOOK)
    for event in events:
        await call.say(_level(event), {"run": run_id, **plain(event, call.service.mask)})
    return {
        "id": run_id,
        "status": told["status"],
        "done": told["done"] and not events,
        "asks": len(call.service.lookup.asks(run_id)),
        "events": [plain(event, call.service.mask) for event in events],
        "next": after + len(events),
    }


def _events(call: Call, run_id: str, after: int, limit: int) -> list[Event]:
    """As `Trails.events`; none of a run that waits for its turn, or that was never started. Blocking."""
    if call.service.lookup.waiting(run_id, who=call.who) is not None:
        return []
    folder = call.service.lookup.find(run_id, who=call.who)
    check_journal(folder)
    if folder.standing(time.time()) is RunStanding.STARTING:  # what it was asked may not be written down yet
        return []
    return call.trails.events(folder, after, limit, call.service.mask)


async def _settled(call: Call, run_id: str) -> types.InputRequiredResult | None:
    """Put what the agent asks to the client's user, who has to be one that may do more than look: an answer is leave."""
    if not call.service.lookup.asks(run_id) or not await call.caller.may("execute"):
        return None
    return await call.elicitor.settle(call.ctx, run_id, who=call.who, said=call.said)


async def _progress(call: Call, told: Mapping[str, Any], begun: float, told_at: float) -> float:
    """Say that the run goes on, to who has asked to be told so, once a second."""
    now = time.monotonic()
    if now - told_at < PROGRESS:
        return told_at
    doing = told.get("tool") or told.get("phase") or ""
    await call.ctx.session.report_progress(round(now - begun, 1), message=f"{told['status']}{f': {doing}' if doing else ''}")
    return now


def _level(event: Event) -> types.LoggingLevel:
    if isinstance(event, AgentFailed):
        return "error"
    return "warning" if isinstance(event, ApiRetried | RateLimited | Degraded | LimitReached | Repeated) else "info"


class Trails:
    """Where callers have got to in journals, so that who comes back does not have them read from the beginning. The oldest are forgotten."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, int], _Trail] = OrderedDict()

    def events(self, folder: RunFolder, after: int, limit: int, mask: Callable[[str], str]) -> list[Event]:
        """At most so many events that say something, from a number on, and at most `TEXT_LIMIT` bytes of them as they are told, under `mask`. Blocking."""
        trail = self._known.pop((folder.run_id, after), None)
        if trail is None:
            trail = _Trail(JournalReader(folder, agent=folder.request().agent))
            for _ in range(after):
                if trail.next() is None:
                    break
        found: list[Event] = []
        size = 0
        while len(found) < limit and (event := trail.next()) is not None:
            size += len(json.dumps(plain(event, mask)))
            if found and size > TEXT_LIMIT:
                trail.waiting.appendleft(event)
                break
            found.append(event)
        self._known[folder.run_id, after + len(found)] = trail
        while len(self._known) > TRAILS:
            self._known.popitem(last=False)
        return found


class _Trail(msgspec.Struct):
    reader: JournalReader
    waiting: deque[Event] = msgspec.field(default_factory=deque[Event])

    def next(self) -> Event | None:
        while not self.waiting:
            events = self.reader.read()
            if events is None:
                return None
            self.waiting.extend(event for event in events if tells(event))
        return self.waiting.popleft()


# --- reading -----------------------------------------------------------------------------------------------------------


async def _results(call: Call) -> Answer:
    run_id = call.run_id()
    begun = told_at = time.monotonic()
    until = begun + call.number("wait", 0, most=WAIT_LIMIT)
    while not (told := await call.service.lookup.results(run_id, who=call.who))["done"]:
        if (asked := await _settled(call, run_id)) is not None:
            return asked
        if call.is_due(until):
            now = await call.service.lookup.status(run_id, who=call.who)
            return {**told, "status": now["status"], "asks": len(call.service.lookup.asks(run_id))}
        if time.monotonic() - told_at >= PROGRESS:
            told_at = await _progress(call, await call.service.lookup.status(run_id, who=call.who), begun, told_at)
        await call.rest(LOOK)
    text, whole = told["text"], f"cc-executor://runs/{told['id']}/receipt"
    cut: dict[str, Any] = {"receipt": whole}
    if len(text) > TEXT_LIMIT:
        cut |= {"text": text[:TEXT_LIMIT], "text_left_out": len(text) - TEXT_LIMIT}
    if told["data"] is not None and len(json.dumps(told["data"])) > DATA_LIMIT:
        cut |= {"data": None, "data_left_out": True}
    return told | cut


async def _executions(call: Call) -> Answer:
    limit = max(1, int(call.number("limit", 20, most=100)))
    look = partial(call.service.lookup.executions, who=call.who, limit=limit, before=call.text("before"), status=call.text("status"))
    rows, following = await asyncio.to_thread(look)
    return {"executions": [row.as_dict() for row in rows], "next": following}


def run_tools() -> dict[str, Tool]:
    """The tools over single runs."""
    request = execute_schema()
    return {
        "execute": Tool(
            title="Start a run",
            about="Start an agent on a prompt, in a fresh process. Answers at once with the run's id.",
            takes={**request["properties"], "idempotency_key": KEY},
            required=("prompt",),
            gives={"id": TEXT, "new": YES, "receipt": TEXT},
            always=("id", "new"),
            call=_execute,
            needs="execute",
            is_repeatable=False,
            is_open=True,
        ),
        "status": Tool(
            title="Follow a run's output",
            about="What a run is doing, and the raw output of its agent from a byte offset on, of which there may be much. With wait, answers when there is "
            "news, or after so many seconds.",
            takes={**ID, "offset": _FROM, "wait": _WAIT},
            required=("id",),
            gives={**_RUN, "done": YES, "asks": WHOLE, "output": _PIECE},
            always=("id", "status", "done", "output"),
            call=_status,
        ),
        "monitor": Tool(
            title="Follow a run's events",
            about="What has happened in a run, as events: texts, tool calls and their results, retries, its end. Give next of the last answer as after; "
            "there is nothing more when done is true.",
            takes={**ID, "after": _FROM, "limit": {"type": "integer", "minimum": 1, "maximum": EVENTS}, "wait": _WAIT},
            required=("id",),
            gives={
                "id": TEXT, "status": TEXT, "done": YES, "asks": WHOLE, "next": WHOLE, "events": several(thing({"kind": TEXT}, "kind")),
            },
            always=("id", "status", "done", "events", "next"),
            call=_monitor,
        ),
        "results": Tool(
            title="Results of a run",
            about="What a run has made: outcome, text, data, files, cost. done is false before its end; with wait, answers when it has ended, or after so "
            "many seconds.",
            takes={**ID, "wait": {**_WAIT, "description": "seconds to wait for the end"}},
            required=("id",),
            gives={
                "id": TEXT, "done": YES, "asks": WHOLE, "status": TEXT, "summary": TEXT, "cure": TEXT, "text": TEXT, "text_left_out": WHOLE, "data": {},
                "data_left_out": YES, "files": several(OBJECT), "cost": MAYBE, "usage": OBJECT, "standing": TEXT, "digest": TEXT, "receipt": TEXT,
            },
            always=("id", "done"),
            call=_results,
        ),
        "control": Tool(
            title="Command a run",
            about="Pause, resume, cancel (with time to clean up) or kill a run.",
            takes={**ID, "op": {"type": "string", "enum": list(OPS)}},
            required=("id", "op"),
            gives={"id": TEXT, "op": TEXT, "status": TEXT, "processes": {"type": ["integer", "null"]}},
            always=("id", "op", "status"),
            call=_control,
            needs="execute",
            is_final=True,
        ),
        "executions": Tool(
            title="Runs",
            about="Runs, newest first, those that go on among them.",
            takes={"limit": {"type": "integer", "minimum": 1, "maximum": 100}, "before": TEXT, "status": {"enum": ["", *STATUSES]}},
            gives={"executions": several(thing(_RUN, "id", "status")), "next": TEXT},
            always=("executions", "next"),
            call=_executions,
        ),
    }  # fmt: skip
