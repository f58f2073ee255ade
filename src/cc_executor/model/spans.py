"""What a run was, as spans: a pure fold of its receipt and its timed events, in the words of OpenTelemetry's GenAI conventions.

Knows names and times; knows no OpenTelemetry, no file and no clock. The names are those of github.com/open-telemetry/semantic-conventions-genai
(docs/gen-ai/gen-ai-agent-spans.md and gen-ai-spans.md), read in November 2026; all of them are in development there. What begins with ``cc_executor.`` is ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from cc_executor.model.event import (
    AgentFailed,
    ApiRetried,
    Event,
    Finished,
    MessageStarted,
    SessionOpened,
    StatusChanged,
    TextWritten,
    ThinkingWritten,
    ToolCalled,
    ToolReturned,
    UsageCounted,
)
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import RunRequest

Value = str | int | float | bool | tuple[str, ...]

CHILDREN: Final = 1_000  # spans of one run: the SDK's own queue holds 2,048 and drops what is beyond. How many were left out is said
CONTENT_CHARS: Final = 32_000  # of one text, where content is recorded
ERROR: Final = "error.type"
LEFT_OUT: Final = "cc_executor.spans_left_out"
TOOL_FAILED: Final = "tool_error"
DENIED: Final = "denied"
_OPERATION: Final = "gen_ai.operation.name"
_RESPONSE: Final = "gen_ai.response.id"
_COUNTS: Final = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens")


@dataclass(slots=True)
class Span:
    """One span. Times are seconds since the epoch; `parent` None: the run's own span, or it is that one. `error`: the class of what went wrong."""

    name: str
    start: float
    end: float
    attributes: dict[str, Value] = field(default_factory=dict[str, Value])
    parent: Span | None = None
    is_client: bool = False
    error: str = ""


def run_spans(
    receipt: Receipt,
    request: RunRequest,
    timed: Iterable[tuple[float, Sequence[Event]]],
    *,
    provider: str,
    mask: Callable[[str], str],
    has_content: bool = False,
) -> list[Span]:
    """The spans of a run that has ended: its own, then those of its model's turns and of its tool calls. A parent stands before its children.

    Parameters
    ----------
    receipt : Receipt
        Sealed.
    request : RunRequest
    timed : iterable of (float, sequence of Event)
        Every event in order, with the seconds since the start at which it was written.
    provider : str
        By the conventions' list of providers; empty: no model is at work, as in a shell command.
    mask : callable
        Makes a text one without secrets.
    has_content : bool
        Whether prompt, texts, and what tools take and give are recorded.
    """
    run = _own(receipt, request, provider)
    fold = _Fold(run, receipt, request, provider=provider, mask=mask, has_content=has_content)
    for t, events in timed:
        for event in events:
            fold.take(t, event)
    fold.close()
    return [run, *fold.children]


def _own(receipt: Receipt, request: RunRequest, provider: str) -> Span:
    outcome, usage = receipt.outcome, receipt.usage
    attributes: dict[str, Value] = {
        "cc_executor.run.id": receipt.run_id,
        "cc_executor.outcome": outcome.kind.value,
        "cc_executor.standing": receipt.standing.value,
        "cc_executor.receipt.digest": receipt.digest,
        "cc_executor.rehearsed": receipt.rehearsed is not None,
    }
    if receipt.cost is not None:
        attributes["cc_executor.cost_usd"] = receipt.cost
    error = "" if outcome.ok else outcome.kind.value
    start, end = receipt.times.started.timestamp(), receipt.times.ended.timestamp()
    if end < start:  # the clock was set back in the midst of the run
        end = start + receipt.times.elapsed
    if not provider:
        return Span(f"run {receipt.agent}", start, end, attributes, error=error)
    attributes |= {
        _OPERATION: "invoke_agent",
        "gen_ai.provider.name": provider,
        "gen_ai.agent.name": receipt.agent,
        **_tokens(usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_creation_tokens),
    }
    said = {
        "gen_ai.agent.version": receipt.agent_version,
        "gen_ai.request.model": request.model or receipt.model,
        "gen_ai.response.model": receipt.model,
        "gen_ai.conversation.id": receipt.session_id,
        "gen_ai.output.type": "json" if request.output_schema is not None else "",
    }
    attributes |= {name: value for name, value in said.items() if value}
    return Span(f"invoke_agent {receipt.agent}", start, end, attributes, error=error)


class _Fold:
    """What is open while the events are gone through. A parent is the tool call that a subagent works for; None: the agent itself."""

    def __init__(
        self, run: Span, receipt: Receipt, request: RunRequest, *, provider: str, mask: Callable[[str], str], has_content: bool
    ) -> None:
        self.children: list[Span] = []
        self._run = run
        self._mask = mask
        self._has_content = has_content
        self._model = request.model or ""
        self._shared: dict[str, Value] = {"gen_ai.provider.name": provider} if provider else {}
        if receipt.session_id:
            self._shared["gen_ai.conversation.id"] = receipt.session_id
        self._base = run.start  # the moment of t = 0
        self._now = run.start
        self._ready: dict[str | None, float] = {}  # since when a model could be at it
        self._turns: dict[str | None, _Turn] = {}
        self._messages: dict[str, _Turn] = {}
        self._tools: dict[str, Span] = {}
        self._open: set[str] = set()
        self._is_asked = False  # the main agent's model was asked and has not answered yet
        self._trouble = ""  # what the API has answered last
        self._left_out = 0
        if has_content:
            run.attributes["gen_ai.input.messages"] = _messages("user", [_text(self._content(request.prompt))])
            run.attributes["gen_ai.output.messages"] = _messages("assistant", [_text(self._content(receipt.text))])

    def take(self, t: float, event: Event) -> None:
        at, since = float(getattr(event, "at", 0.0)), float(getattr(event, "t", 0.0))
        if at and since:  # a record of ours has both: the wall clock moves on while the machine sleeps, the other does not
            self._base = at - since
        self._now = min(max(self._now, self._base + t), self._run.end)
        now = self._now
        match event:
            case SessionOpened(model=model):
                self._model = self._model or self._mask(model)
                self._ready.setdefault(None, now)
            case StatusChanged(status="requesting"):
                self._ready[None] = now
                self._is_asked = True
            case ApiRetried(status=status, error=error):
                self._trouble = str(status) if status is not None else error or "no_answer"
            case AgentFailed(code=code):
                self._trouble = code or self._trouble
                if (turn := self._turns.get(None)) is not None and turn.is_synthetic:
                    turn.span.error = self._trouble
            case MessageStarted(message_id=message_id, parent=parent, model=model):
                self._begin(message_id, parent, self._mask(model))
            case TextWritten(parent=parent) | ThinkingWritten(parent=parent):
                self._written(event, parent)
            case UsageCounted():
                self._count(event)
            case ToolCalled(parent=parent):
                self._touch(parent)
                if event.whole and event.tool_id not in self._tools:
                    self._call(event)
            case ToolReturned():
                self._return(event)
            case Finished(denials=denials):
                for denial in denials:
                    if (span := self._tools.get(denial.tool_id)) is not None:
                        span.error = DENIED
            case _:
                pass

    def close(self) -> None:
        """Nothing more comes."""
        end, why = self._run.end, self._run.error
        if self._is_asked and self._shared and (why or self._trouble):
            span = self._child(self._turn_name(), self._ready.get(None, end), None, is_client=True)
            span.end, span.error = end, self._trouble or why
            span.attributes |= self._turn_attributes()
        for tool_id in self._open:
            self._tools[tool_id].end = end
            self._tools[tool_id].error = self._tools[tool_id].error or why or "unfinished"
        for turn in self._turns.values():
            turn.tell(self._content if self._has_content else None)
        if self._left_out:
            self._run.attributes[LEFT_OUT] = self._left_out

    def _begin(self, message_id: str, parent: str | None, model: str) -> None:
        if message_id in self._messages or not self._shared:
            return
        if parent is None:
            self._is_asked = False
        if (before := self._turns.get(parent)) is not None:
            before.tell(self._content if self._has_content else None)
        span = self._child(self._turn_name(), min(self._ready.get(parent, self._now), self._now), parent, is_client=True)
        span.attributes |= self._turn_attributes() | {_RESPONSE: self._mask(message_id)}
        if model:
            span.attributes["gen_ai.response.model"] = model
        self._turns[parent] = self._messages[message_id] = _Turn(span)

    def _turn_name(self) -> str:
        return f"chat {self._model}".strip()

    def _turn_attributes(self) -> dict[str, Value]:
        model: dict[str, Value] = {"gen_ai.request.model": self._model} if self._model else {}
        return {_OPERATION: "chat", **self._shared, **model}

    def _touch(self, parent: str | None) -> _Turn | None:
        turn = self._turns.get(parent)
        if turn is not None:
            turn.span.end = self._now
        return turn

    def _written(self, event: TextWritten | ThinkingWritten, parent: str | None) -> None:
        turn = self._touch(parent)
        if turn is None or not isinstance(event, TextWritten) or not event.whole:
            return
        if event.synthetic:  # no model has written this, but the agent itself, for none did
            turn.is_synthetic = True
            turn.span.error = turn.span.error or self._trouble
            turn.span.attributes.pop(_RESPONSE, None)
            return
        turn.parts.append(event.text)

    def _count(self, event: UsageCounted) -> None:
        turn = self._messages.get(event.message_id)
        if turn is None:
            return
        turn.span.end = self._now
        turn.count(event)

    def _call(self, event: ToolCalled) -> None:
        name = self._mask(event.name) or "tool"
        span = self._child(f"execute_tool {name}", self._now, event.parent)
        span.attributes |= {
            _OPERATION: "execute_tool",
            **self._shared,
            "gen_ai.tool.name": name,
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": self._mask(event.tool_id),
        }
        if self._has_content:
            span.attributes["gen_ai.tool.call.arguments"] = self._content(event.input)
        self._tools[event.tool_id] = span
        self._open.add(event.tool_id)
        self._ready[event.tool_id] = self._now  # a subagent may begin

    def _return(self, event: ToolReturned) -> None:
        self._ready[event.parent] = self._now
        if event.tool_id not in self._open:
            return
        self._open.remove(event.tool_id)
        span = self._tools[event.tool_id]
        span.end = self._now
        if event.is_error:
            span.error = span.error or TOOL_FAILED
        if self._has_content:
            span.attributes["gen_ai.tool.call.result"] = self._content(event.text)

    def _child(self, name: str, start: float, parent: str | None, *, is_client: bool = False) -> Span:
        above = self._tools.get(parent) if parent is not None else None
        span = Span(name, max(start, self._run.start), self._now, parent=above, is_client=is_client)
        if len(self.children) < CHILDREN:
            self.children.append(span)
        else:
            self._left_out += 1
        return span

    def _content(self, text: str) -> str:
        masked = self._mask(text)
        return masked if len(masked) <= CONTENT_CHARS else f"{masked[:CONTENT_CHARS]}…"


class _Turn:
    """A message of a model that is being written, and what it has used."""

    def __init__(self, span: Span) -> None:
        self.span = span
        self.parts: list[str] = []
        self.is_synthetic = False
        self._counted: dict[str, int] = {}

    def count(self, event: UsageCounted) -> None:
        """The first figure of a message has its input, the last one its output; neither ever falls."""
        for name in _COUNTS:
            self._counted[name] = max(self._counted.get(name, 0), int(getattr(event, name)))
        self.span.attributes |= _tokens(*self._counted.values())

    def tell(self, content: Callable[[str], str] | None) -> None:
        """Write down what it has said, if that is wanted."""
        if content is not None and self.parts:
            self.span.attributes["gen_ai.output.messages"] = _messages("assistant", [_text(content(part)) for part in self.parts])


def _tokens(read: int, written: int, from_cache: int, into_cache: int) -> dict[str, Value]:
    return {
        "gen_ai.usage.input_tokens": read + from_cache + into_cache,  # all of them, says the convention
        "gen_ai.usage.output_tokens": written,
        "gen_ai.usage.cache_read.input_tokens": from_cache,
        "gen_ai.usage.cache_creation.input_tokens": into_cache,
    }


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "content": text}


def _messages(role: str, parts: list[dict[str, str]]) -> str:
    return json.dumps([{"role": role, "parts": parts}], ensure_ascii=False)
