"""Which request of the CLI is which, and which turn it asks for: pure. Knows the CLI's habits; knows no script, no socket.

The habits are those of Claude Code 2.1.197 and 2.1.329, seen on the wire and read in its code. Everything that is not recognised as something
else is the main conversation, so that a new version plays a script too early rather than never.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, cast

SESSIONS_KEPT: Final = 256  # a server of one run sees one; the oldest is forgotten

# Opens the CLI's own instruction for a summary (`/compact`, or a context that is nearly full); 2.1.329, on the wire.
_COMPACTION: Final = "CRITICAL: Respond with TEXT ONLY. Do NOT call any tools."

_RUN: Final = re.compile(r'"id": ?"([0-9a-f]{26})"')


class Kind(StrEnum):
    """What a request is for."""

    MAIN = "main"  # the conversation that the script plays
    SUBAGENT = "subagent"
    COMPACTION = "compaction"
    AUXILIARY = "auxiliary"  # titles, classifiers, summaries of web pages, hooks that ask a model
    COUNT_TOKENS = "count_tokens"
    PROBE = "probe"  # HEAD /
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request for a message, as far as it matters here.

    Attributes
    ----------
    answers : int
        Messages of the assistant that it already holds.
    tools : dict of str to JSON
        Input schemas by tool name.
    forced_tool : str or None
        The tool that must be called.
    output_schema : dict or None
        The schema that the text itself must meet (the API's structured outputs, not `--json-schema`, which is a tool).
    run : str
        The newest id of a run that a tool has answered (26 hexadecimal digits, as cc_executor's own tools do), for agents that start runs.
    opening, shape
        By these a conversation is known again.
    """

    kind: Kind
    session: str
    model: str
    stream: bool
    max_tokens: int
    messages: int
    answers: int
    tools: Mapping[str, Any]
    forced_tool: str | None = None
    output_schema: Mapping[str, Any] | None = None
    run: str = ""
    opening: str = ""
    shape: tuple[bool, bool, str] = (False, False, "")


def read(body: Mapping[str, Any], headers: Mapping[str, str]) -> Asked:
    """`body` and (lower-case) `headers` of a ``POST /v1/messages``, understood leniently: what is missing or odd has a default."""
    messages = [_dict(item) for item in _list(body.get("messages"))]
    tools = {str(tool.get("name")): tool.get("input_schema") for tool in map(_dict, _list(body.get("tools")))}
    choice = _dict(body.get("tool_choice"))
    schema = _dict(_dict(body.get("output_config")).get("format") or body.get("output_format")).get("schema")
    max_tokens = body.get("max_tokens")
    forced = str(choice.get("name")) if choice.get("type") == "tool" else None
    return Asked(
        kind=_kind(body, headers, messages, forced, schema),
        session=headers.get("x-claude-code-session-id", "")[:100],
        model=str(body.get("model", ""))[:100],
        stream=body.get("stream") is True,
        max_tokens=max_tokens if isinstance(max_tokens, int) else 0,
        messages=len(messages),
        answers=sum(message.get("role") == "assistant" for message in messages),
        tools=tools,
        forced_tool=forced,
        output_schema=_dict(schema) or None,
        run=_run(messages),
        opening=_opening(messages),
        shape=_shape(body),
    )


def _kind(body: Mapping[str, Any], headers: Mapping[str, str], messages: list[dict[str, Any]], forced: str | None, schema: Any) -> Kind:
    # 2.1.329 can say it itself; it does so behind some gateways only.
    match headers.get("x-claude-code-request-class"):
        case "main":
            return Kind.MAIN
        case "subagent" | "workflow":
            return Kind.SUBAGENT
        case "compaction":
            return Kind.COMPACTION
        case None:
            pass
        case _:
            return Kind.AUXILIARY
    if "x-claude-code-agent-id" in headers:
        return Kind.SUBAGENT
    if forced is not None or schema is not None or body.get("stop_sequences"):
        return Kind.AUXILIARY
    return Kind.COMPACTION if messages and _text(messages[-1]).lstrip().startswith(_COMPACTION) else Kind.MAIN


def _opening(messages: list[dict[str, Any]]) -> str:
    """What the conversation began with: the last text of the first message, after the CLI's own reminders."""
    return _text(messages[0])[:2000] if messages else ""


def _run(messages: list[dict[str, Any]]) -> str:
    results = [item for message in messages for item in map(_dict, _list(message.get("content"))) if item.get("type") == "tool_result"]
    told = (str(_dict(item).get("text", "")) for result in reversed(results) for item in _content(result))
    return next((found[1] for text in told if (found := _RUN.search(text)) is not None), "")


def _content(result: dict[str, Any]) -> list[Any]:
    content = result.get("content")
    return [{"text": content}] if isinstance(content, str) else _list(content)


def _shape(body: Mapping[str, Any]) -> tuple[bool, bool, str]:
    """What stays the same in a conversation and is different in the CLI's helpers: whether it thinks, has tools, and how its instructions begin."""
    system = body.get("system")
    last = system if isinstance(system, str) else _text({"content": system})
    return _dict(body.get("thinking")).get("type") in {"adaptive", "enabled"}, bool(body.get("tools")), last[:80]


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "".join(str(_dict(item).get("text", "")) for item in _list(content)[-1:])


def _list(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request belongs. `turn` counts from 0 and `attempt` from 1; both None outside the main conversation."""

    kind: Kind
    turn: int | None = None
    attempt: int | None = None


@dataclass(slots=True)
class _Session:
    first: int  # answers that its first request held: those of an earlier run that is resumed
    opening: str
    shape: tuple[bool, bool, str]
    attempts: Counter[int] = field(default_factory=Counter[int])


class Conversations:
    """The place of every session in the script. A turn is known by the answers that the request already holds, so a repeated request is the same turn."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}

    def place(self, asked: Asked) -> Place:
        """Where `asked` belongs, and one attempt more at its turn."""
        if asked.kind is not Kind.MAIN:
            return Place(asked.kind)
        session = self._sessions.get(asked.session)
        if session is None:
            while len(self._sessions) >= SESSIONS_KEPT:
                del self._sessions[next(iter(self._sessions))]
            session = self._sessions[asked.session] = _Session(first=asked.answers, opening=asked.opening, shape=asked.shape)
        # A web search and an agent hook (2.1.329) look like a conversation; but they begin otherwise and are made otherwise. Only both together
        # count: after a compaction the conversation begins otherwise, too.
        if asked.opening != session.opening and asked.shape != session.shape:
            return Place(Kind.AUXILIARY)
        turn = max(0, asked.answers - session.first)
        session.attempts[turn] += 1
        return Place(Kind.MAIN, turn, session.attempts[turn])
