"""Runs of pieces as one event. A text comes in thousands of pieces; who only wants the text so far need not look at each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from msgspec.structs import replace

from cc_executor.model.event import Event, Noise, StderrWritten, TextWritten, ThinkingWritten, ToolCalled

# All other kinds are passed on without a closer look.
_IN_PIECES: Final = frozenset({TextWritten, ThinkingWritten, ToolCalled, StderrWritten})


def joined(events: Iterable[Event]) -> Iterator[tuple[Event, int]]:
    """The same events with neighbouring pieces of one block put together.

    Parameters
    ----------
    events : iterable of Event
        In order. `Noise` between two pieces does not part them: the Claude CLI writes `thinking_tokens` before each piece of thinking.

    Yields
    ------
    tuple of Event and int
        An event, and how many pieces it stands for. Each is counted once.
    """
    first: Event | None = None
    pieces: list[str] = []
    count = 0  # events since the last one that was handed over
    for event in events:
        if first is not None and isinstance(event, Noise):
            count += pieces_of(event)
            continue
        piece = _piece(event) if type(event) in _IN_PIECES else None
        if first is not None and piece is not None and _continues(first, event):
            pieces.append(piece)
            count += pieces_of(event)
            continue
        if first is not None:
            yield _put_together(first, pieces), count
            first = None
        if piece is None:
            yield event, pieces_of(event)
        else:
            first, pieces, count = event, [piece], pieces_of(event)
    if first is not None:
        yield _put_together(first, pieces), count


def pieces_of(event: Event) -> int:
    """How many of the agent's own pieces an event stands for."""
    return event.pieces if isinstance(event, TextWritten) else 1


def _piece(event: Event) -> str | None:
    match event:
        case TextWritten(whole=False, text=text) | ThinkingWritten(whole=False, text=text) | StderrWritten(text=text):
            return text
        case ToolCalled(whole=False, input=text):
            return text
        case _:
            return None


def _continues(first: Event, event: Event) -> bool:
    match first, event:
        case TextWritten(), TextWritten():
            return (first.block, first.parent, first.synthetic) == (event.block, event.parent, event.synthetic)
        case ThinkingWritten(), ThinkingWritten():
            return (first.block, first.parent) == (event.block, event.parent)
        case ToolCalled(), ToolCalled():
            return (first.tool_id, first.name, first.parent) == (event.tool_id, event.name, event.parent)
        case StderrWritten(), StderrWritten():
            return True
        case _:
            return False


def _put_together(first: Event, pieces: list[str]) -> Event:
    if len(pieces) == 1:
        return first
    text = "".join(pieces)
    match first:
        case TextWritten() | ThinkingWritten() | StderrWritten():
            return replace(first, text=text)
        case ToolCalled():
            return replace(first, input=text)
        case _:
            return first
