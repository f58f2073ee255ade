"""Older pages of a transcript, made again from the journal. Knows checkpoints and folding; how to read from a position is the caller's.

A position is whatever the caller needs to read on from a point: byte offsets and a copy of the decoder (`cc_executor.agents.base.Decoder.copy`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar

import msgspec

from cc_executor.model.event import Event
from cc_executor.model.item import Item
from cc_executor.model.transcript import Bounds, Transcript

P = TypeVar("P")

PAGE_LINES: Final = 1000
PAGE_CHARS: Final = 2**20
CHECKPOINTS: Final = 64
CHECKPOINT_LINES: Final = (
    2500  # at first; doubles each time that the list is full, so that a page of any run is one of at most 64 stretches
)


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Items just before some number.

    Attributes
    ----------
    items : tuple of Item
        In order, without a gap.
    first : int
        Everything from this number on has been given; ask for what comes before it next. 0: there is nothing before.
    """

    items: tuple[Item, ...]
    first: int


class Checkpoints(Generic[P]):
    """Points from which a run can be folded again, at most `CHECKPOINTS` of them.

    Parameters
    ----------
    start : P
        The position of the very beginning.
    transcript : Transcript
        Any transcript of the run, for its notes.
    """

    def __init__(self, start: P, transcript: Transcript) -> None:
        self._marks: list[tuple[P, Transcript]] = [(start, transcript.origin())]
        self._every = CHECKPOINT_LINES
        self._lines = 0

    def __len__(self) -> int:
        return len(self._marks)

    def is_due(self, transcript: Transcript) -> bool:
        """Whether a checkpoint would be kept now: ask before copying a decoder."""
        return transcript.held_lines + transcript.elided_lines - self._lines >= self._every

    def add(self, position: P, transcript: Transcript) -> None:
        """Keep the point between two calls of `Transcript.feed` at which reading goes on from `position`."""
        self._lines = transcript.held_lines + transcript.elided_lines
        self._marks.append((position, transcript.copy()))
        if len(self._marks) > CHECKPOINTS:
            del self._marks[1::2]
            self._every *= 2

    def before(self, number: int) -> list[tuple[P, Transcript]]:
        """The checkpoints at which `number` did not exist yet, latest first; the beginning is always there."""
        return [mark for mark in reversed(self._marks[1:]) if mark[1].next_number < number] + self._marks[:1]


def earlier(
    checkpoints: Checkpoints[P], read: Callable[[P], Iterable[Event]], *, before: int, lines: int = PAGE_LINES, chars: int = PAGE_CHARS
) -> Page:
    """The newest items with numbers below `before`, at most `lines` lines (but at least one item).

    Parameters
    ----------
    read : callable
        Gives the events from a position on, in the order in which they were fed; it is stopped as soon as the page is settled.
    """
    page = Page(items=(), first=0)
    for position, transcript in checkpoints.before(before):
        page, is_full = _fold(transcript, read(position), before=before, bounds=Bounds(lines=lines, chars=chars))
        if is_full:
            break
    return page


def _fold(start: Transcript, events: Iterable[Event], *, before: int, bounds: Bounds) -> tuple[Page, bool]:
    replay = start.copy(bounds=bounds, ceiling=before)
    for event in events:
        replay.feed((event,))
        if replay.is_settled_below(before):
            break
    first = max(start.next_number, replay.floor)
    items = tuple(item for item in replay.items if item.number >= first)
    is_full = replay.floor > start.next_number or sum(item.lines for item in items) >= bounds.lines
    return Page(items=items, first=first), is_full
