"""A task list that has ended, as the one output that stays in the notebook: a table as HTML and as text. Inline styles, no script, nothing loaded.

Everything that is not ours goes through `escape`; there is no other way into the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

import msgspec

from cc_executor.model.ansi import clean
from cc_executor.model.card import AMBER, CARD_BYTES, GREEN, GREY, LINE, MONO, QUIET, RED, SHADE, WRAP, badge, sign
from cc_executor.model.inert import NO_MATH, inert
from cc_executor.model.item import excerpt
from cc_executor.model.listrecord import ListState, ListStatus, TaskState, TaskStatus
from cc_executor.model.notice import duration, money
from cc_executor.model.tasklist import Task, TaskKind, TaskList
from cc_executor.model.taskrows import first_line, last_line
from cc_executor.model.toolcall import one_line

ROWS: Final = 100  # each is some 1.5 KB, most of it the styles; of ten thousand tasks nobody reads all in a cell
TEXT_CHARS: Final = 1_500  # of what one task has made
TEXT_LINES: Final = 24
LINE_CHARS: Final = 160
PLAIN_CHARS: Final = 72  # of a sentence in the text table

_CARD: Final = (
    f"border:1px solid {LINE};border-radius:6px;margin:2px 0;max-width:960px;overflow-x:auto;"
    "font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:13px;line-height:1.5"
)
_CELL: Final = "box-sizing:border-box;min-width:0;border:0;padding:5px 8px;text-align:left;white-space:normal"
_FIGURE: Final = f"{_CELL};font-variant-numeric:tabular-nums"
# A row breaks in two where the page is narrow, a phone's or a split pane's: inline styles know of no widths but by a row that wraps. Equal widths to begin
# with, and equal shares of the rest, keep the columns below each other.
_BLOCK: Final = "display:block;width:100%"
_ROW: Final = f"display:flex;flex-wrap:wrap;background:none;border-top:1px solid {LINE}"
_HEADS: Final = {
    "#": "flex:0 0 34px",
    "task": "flex:4 1 130px",
    "state": "flex:0 0 106px",
    "what became of it": "flex:5 1 130px",
    "time": "flex:0 0 96px",
    "cost": "flex:0 0 84px",
}
_NUMBER, _TASK, _STATE, _WHAT, _TIME, _COST = _HEADS.values()

MARKS: Final = {
    TaskStatus.OK: ("✓", "ok", GREEN),
    TaskStatus.FAILED: ("✗", "failed", RED),
    TaskStatus.SKIPPED: ("–", "skipped", "inherit"),
    TaskStatus.STOPPED: ("■", "stopped", AMBER),
    TaskStatus.RUNNING: ("▶", "running", AMBER),
    TaskStatus.WAITING: ("○", "not begun", "inherit"),
}
LIST_MARKS: Final = {
    ListStatus.OK: ("✓", "ok", GREEN),
    ListStatus.FAILED: ("✗", "failed", RED),
    ListStatus.STOPPED: ("■", "stopped", AMBER),
    ListStatus.BUDGET: ("✗", "budget used up", AMBER),
    ListStatus.LIMITED: ("✗", "usage limit reached", AMBER),
    ListStatus.OPEN: ("○", "goes on", GREY),
}


class EndedList(msgspec.Struct, frozen=True):
    """What the table is made of. `receipts`: run id, digest and status of every run of the list that has a sealed receipt."""

    list_id: str
    tasks: TaskList
    state: ListState
    receipts: Sequence[Mapping[str, str]] = ()
    rehearsed: frozenset[str] = frozenset()  # ids of tasks in whose model's place a script spoke
    note: str = ""

    def sentence(self) -> str:
        """How the list stands."""
        return clean(self.state.summary) or LIST_MARKS[self.state.status][1]


def list_bundle(ended: EndedList) -> tuple[dict[str, Any], dict[str, Any]]:
    """The MIME bundle, and the output metadata that let a save lift the receipts: ``{"cc_executor": {"list_id", "status", "receipts"}}``."""
    mark = {"list_id": ended.list_id, "status": ended.state.status.value, "receipts": [dict(each) for each in ended.receipts]}
    return {"text/plain": list_text(ended), "text/html": list_card(ended)}, {"cc_executor": mark}


def cost_words(spent: float, *, is_known: bool) -> str:
    """US dollars, or nothing."""
    return money(spent) if is_known else ""


def _cost(ended: EndedList, task: Task, known: TaskState) -> str:
    if task.id in ended.rehearsed:
        return "rehearsal" if known.begun else ""
    return cost_words(known.spent, is_known=bool(known.spent) or (task.kind is TaskKind.AGENT and bool(known.outcome)))


def _said(task: Task, known: TaskState) -> str:
    """One sentence: what became of it."""
    match known.status:
        case TaskStatus.OK:
            return (first_line if task.kind is TaskKind.AGENT else last_line)(known.text) or one_line(clean(known.summary), LINE_CHARS)
        case TaskStatus.SKIPPED:
            return one_line(clean(known.summary), LINE_CHARS)
        case TaskStatus.FAILED | TaskStatus.STOPPED:
            outcome = known.outcome.replace("_", " ")
            said = one_line(clean(known.summary), LINE_CHARS)
            return f"{outcome}: {said}" if said and outcome != "failed" else said or outcome
        case _:
            return ""


def _figures(ended: EndedList) -> list[str]:
    spent = ended.state.spent
    bound = ended.state.cap(ended.tasks.max_cost)
    cap = f" of ${bound:,.2f}" if bound is not None else ""
    money = cost_words(spent, is_known=spent > 0 or bool(cap)) + cap
    seconds = sum(ended.state.task(task.id).seconds for task in ended.tasks.tasks)
    return [part for part in (f"{duration(seconds)} of work" if seconds else "", money) if part]


# --- HTML -------------------------------------------------------------------------------------------------------------


def list_card(ended: EndedList) -> str:
    """The card."""
    order = ended.tasks.in_order()
    room = CARD_BYTES
    rows: list[str] = []
    for number, task in enumerate(order[:ROWS], start=1):
        html = _row(ended, number, task)
        room -= len(html.encode("utf-8", "replace"))
        rows.append(html if room > 0 else _row(ended, number, task, with_text=False))
    more = len(order) - ROWS
    if more > 0:
        rows.append(
            f'<tr style="{_ROW}"><td style="{_CELL};{_NUMBER}"></td><td style="{_CELL};{_TASK};{QUIET}">and {more:,} more</td></tr>'
        )
    mark, word, colour = LIST_MARKS[ended.state.status]
    shown = badge(word, colour, mark=mark)
    name = f"<b>{escape(one_line(clean(ended.tasks.name), 80))}</b> · " if ended.tasks.name else ""
    note = f'<div style="{QUIET}">{escape(ended.note)}</div>' if ended.note else ""
    note += "".join(f"<div>{sign('!', AMBER)} {escape(one_line(clean(told), LINE_CHARS * 2))}</div>" for told in ended.state.notes)
    head = (
        f'<div style="padding:6px 12px;background:{SHADE}">{shown}{name}{escape(one_line(ended.sentence(), LINE_CHARS * 2))}'
        f'<span style="{QUIET}">{escape("".join(f" · {part}" for part in _figures(ended)))}</span>{note}</div>'
    )
    titles = "".join(
        f'<th style="{_CELL};{width};{QUIET};font-weight:600;font-size:12px;background:none">{title}</th>'
        for title, width in _HEADS.items()
    )
    head_row = f'<thead style="{_BLOCK};border:0"><tr style="{_ROW}">{titles}</tr></thead>'
    body = f'<tbody style="{_BLOCK}">{"".join(rows)}</tbody>'
    table = f'<table style="{_BLOCK};margin:0;font-size:13px;color:inherit">{head_row}{body}</table>'
    foot = f'<div style="{MONO};{QUIET};padding:4px 12px;border-top:1px solid {LINE};font-size:11px">list {escape(ended.list_id)}</div>'
    # Whatever was overlooked on the way to here goes no further.
    return inert(f'<div class="{NO_MATH}" style="{_CARD}">{head}{table}{foot}</div>')


def _row(ended: EndedList, number: int, task: Task, *, with_text: bool = True) -> str:
    known = ended.state.task(task.id)
    mark, word, colour = MARKS[known.status]
    title = f'<div style="{QUIET}">{escape(one_line(clean(task.title), 100))}</div>' if task.title else ""
    parts = [f"group {task.group}" if task.group else "", f"needs {', '.join(task.all_needs)}" if task.all_needs else ""]
    place = " · ".join(part for part in parts if part)
    needs = f'<div style="{QUIET};font-size:12px">{escape(one_line(clean(place), 120))}</div>' if place else ""
    run = f'<div style="{MONO};{QUIET};font-size:11px">run {escape(known.run_id)}</div>' if known.run_id else ""
    attempts = f'<div style="{QUIET};font-weight:400">{known.begun} attempts</div>' if known.begun > 1 else ""
    cells = (
        (f"{_FIGURE};{_NUMBER}", str(number)),
        (f"{_CELL};{_TASK};{WRAP}", f"<b>{escape(task.id)}</b>{title}{needs}"),
        (f"{_FIGURE};{_STATE};font-weight:600", f"{sign(mark, colour)} {word}{attempts}"),
        (f"{_CELL};{_WHAT};{WRAP}", _what(task, known, with_text=with_text) + run),
        (f"{_FIGURE};{_TIME}", escape(duration(known.seconds)) if known.seconds else ""),
        (f"{_FIGURE};{_COST};{WRAP}", escape(_cost(ended, task, known))),
    )
    drawn = "".join(f'<td style="{style}">{html}</td>' for style, html in cells)
    return f'<tr style="{_ROW}">{drawn}</tr>'


def _what(task: Task, known: TaskState, *, with_text: bool) -> str:
    said = escape(_said(task, known))
    text = clean(known.text).strip("\n")
    if not with_text or not text.strip() or (known.status is TaskStatus.OK and "\n" not in text.strip() and len(text) <= LINE_CHARS):
        return said
    shown = escape(excerpt(text, lines=TEXT_LINES, chars=TEXT_CHARS).text)
    style = f"{MONO};line-height:1.45;white-space:pre-wrap;{WRAP};margin:4px 0;padding:6px 8px;background:{SHADE};border-radius:4px"
    return f'<details><summary style="cursor:pointer">{said}</summary><pre style="{style}">{shown}</pre></details>'


# --- text -------------------------------------------------------------------------------------------------------------


def list_text(ended: EndedList) -> str:
    """The same for a terminal, and for whoever reads the notebook without a page."""
    order = ended.tasks.in_order()
    table = [("#", "task", "state", "time", "cost", "run", "what became of it")]
    for number, task in enumerate(order[:ROWS], start=1):
        known = ended.state.task(task.id)
        mark, word, _ = MARKS[known.status]
        seconds = duration(known.seconds) if known.seconds else ""
        said = one_line(_said(task, known), PLAIN_CHARS)
        table.append((str(number), task.id, f"{mark} {word}", seconds, _cost(ended, task, known), known.run_id, said))
    shown = [column for column in range(len(table[0])) if any(row[column] for row in table[1:])]
    widths = {column: max(len(row[column]) for row in table) for column in shown}
    lines = ["  ".join(row[column].ljust(widths[column]) for column in shown).rstrip() for row in table]
    if len(order) > ROWS:
        lines.append(f"and {len(order) - ROWS:,} more")
    mark, word, _ = LIST_MARKS[ended.state.status]
    name = f"{clean(ended.tasks.name)}: " if ended.tasks.name else ""
    said = "" if ended.sentence() == word else f" {ended.sentence()}"
    head = f"{mark} {name}{word},{said}".rstrip(",") + "".join(f" · {part}" for part in _figures(ended)) + f" · list {ended.list_id}"
    told = [f"! {one_line(clean(each), LINE_CHARS * 2)}" for each in ended.state.notes]
    return "\n".join([*([ended.note] if ended.note else []), head, *told, *lines])
