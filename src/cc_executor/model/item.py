"""One thing on the page of a run: a piece of text, a tool call, a notice. Knows shapes and where a long text may be cut."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

# A part is what a view draws, elides and asks for at once: some screens full, and cheap to draw anew while it grows.
PART_LINES: Final = 200
PART_CHARS: Final = 16 * 1024


class Kind(StrEnum):
    """What an item is."""

    TEXT = "text"  # Markdown of the agent
    THINKING = "thinking"
    TOOL = "tool"
    NOTICE = "notice"
    STDERR = "stderr"
    OUTPUT = "output"  # raw lines of an agent that is a command


class ItemState(StrEnum):
    """How far an item has come."""

    OPEN = "open"  # it may still grow, or be withdrawn
    DONE = "done"
    FAILED = "failed"  # a tool's error, or a notice of one
    CUT = "cut"  # the run ended before it was whole


class Level(StrEnum):
    """How loud a notice is."""

    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One item, whole as of now.

    Attributes
    ----------
    number : int
        Running number: order on the page and name of the item. Numbers of withdrawn items are not used again.
    text : str
        The text; for a tool its result.
    title : str
        A tool's name, a notice's topic.
    summary : str
        One line about a tool's input.
    input : str
        A tool's input, readable.
    continues : bool
        It goes on where the item of the same text before it was cut.
    fence : str
        The opening line of the Markdown code fence that is open where this part begins.
    left_out : int
        Lines of input and result that only the journal has.
    lines : int
        Lines that it stands for.
    """

    number: int
    kind: Kind
    state: ItemState = ItemState.DONE
    text: str = ""
    title: str = ""
    summary: str = ""
    input: str = ""
    level: Level = Level.INFO
    parent: str | None = None
    continues: bool = False
    fence: str = ""
    left_out: int = 0
    lines: int = 1


def count_lines(text: str) -> int:
    """Lines of `text`; an unfinished last line counts, and nothing is one line."""
    return text.count("\n") + (not text.endswith("\n"))


# --- where a long text is cut ---------------------------------------------------------------------------------------

_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")


class Cut(NamedTuple):
    """Where a part ends, and the fence that is open there."""

    at: int
    fence: str


def cut(text: str, *, fence: str = "", markdown: bool) -> Cut | None:
    """Where the first part of `text` ends, or None if it fits into one.

    Depends on nothing beyond the first character that does not fit, so that a text is cut alike in whatever pieces it came.
    Markdown is cut at an empty line outside of code fences if there is one in the second half, else at any line's end.
    """
    limit = _limit(text)
    if limit is None:
        return None
    if markdown:
        return _cut_markdown(text[:limit], fence)
    line_end = text.rfind("\n", 0, limit) + 1
    return Cut(line_end or limit, "")


def _limit(text: str) -> int | None:
    if len(text) <= PART_LINES:
        return None
    window = text[:PART_CHARS]
    *lines, rest = window.split("\n", PART_LINES)
    if len(lines) < PART_LINES:
        return PART_CHARS if len(text) > PART_CHARS else None
    at = len(window) - len(rest)
    return at if len(text) > at else None


def _cut_markdown(window: str, fence: str) -> Cut:
    best, best_fence, at, empty = 0, "", 0, 0
    while line_end := window.find("\n", at) + 1:
        line = window[at:line_end]
        at = line_end
        fence = _fence_after(fence, line)
        best, best_fence = at, fence
        if not fence and not line.strip() and at > len(window) // 2:
            empty = at
    if empty:
        return Cut(empty, "")
    return Cut(best, best_fence) if best else Cut(len(window), fence)


def _fence_after(fence: str, line: str) -> str:
    match = _FENCE.match(line)
    if match is None:
        return fence
    mark, rest = match.groups()
    if not fence:
        return "" if mark[0] == "`" and "`" in rest else line  # CommonMark: an info string after backticks holds no backtick
    opened = fence.lstrip()
    is_close = mark[0] == opened[0] and len(mark) >= len(opened) - len(opened.lstrip(opened[0])) and not rest.strip()
    return "" if is_close else fence


# --- what is shown of a text that nobody reads whole ----------------------------------------------------------------

HEAD_SHARE: Final = 0.75


class Excerpt(NamedTuple):
    """Beginning and end of a text, and how many of its lines are not wholly in them."""

    text: str
    left_out: int


def excerpt(text: str, *, lines: int = PART_LINES, chars: int = PART_CHARS) -> Excerpt:
    """`text` if it has at most `lines` lines and `chars` characters, else its beginning and its end with a line between them that says so."""
    text = text.rstrip("\n")
    rows = text.split("\n")
    if len(rows) <= lines and len(text) <= chars:
        return Excerpt(text, 0)
    if len(rows) == 1:
        return Excerpt(f"{text[: max(chars - 1, 0)]}…\n… a line of {len(text):,} characters; the journal has all of it …", 1)
    head_rows = max(1, int(lines * HEAD_SHARE))
    head = _fit(rows[:head_rows], int(chars * HEAD_SHARE))
    tail = _fit(rows[max(len(head), len(rows) - (lines - head_rows)) :][::-1], chars - int(chars * HEAD_SHARE))[::-1]
    left_out = len(rows) - len(head) - len(tail)
    says = f"… {left_out:,} more {'line' if left_out == 1 else 'lines'} in the journal …"
    return Excerpt("\n".join([*head, says, *tail]), left_out)


def _fit(rows: list[str], chars: int) -> list[str]:
    """The first of `rows`, as many as have room for them whole."""
    kept: list[str] = []
    for row in rows:
        if len(row) + 1 > chars:
            break
        kept.append(row)
        chars -= len(row) + 1
    return kept
