"""A finished run as one HTML card: inline styles, no script, nothing loaded. Reads in light and dark, because it takes the page's own colours.

Everything that is not ours goes through `escape` or `markdown_html`; there is no third way into the page.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

from cc_executor.model.ansi import clean
from cc_executor.model.inert import NO_MATH, inert
from cc_executor.model.item import Item, ItemState, Kind, Level, excerpt
from cc_executor.model.markdown import markdown_html
from cc_executor.model.outcome import Outcome, OutcomeKind
from cc_executor.model.paths import Roots, below
from cc_executor.model.receipt import FileChange, Receipt, Standing
from cc_executor.model.toolcall import one_line
from cc_executor.model.words import REHEARSAL, STANDINGS, check_words, figures, hook_words, undo_words

CARD_BYTES: Final = 48 * 1024  # with the plain text and a usual receipt the whole bundle stays below 64 KB
TEXT_CHARS: Final = 12 * 1024
TEXT_LINES: Final = 300
STEP_CHARS: Final = 1500  # of one tool's input or result: enough to see what it was
STEP_LINES: Final = 24
FILES: Final = 20
CHECKS: Final = 10
LINE_CHARS: Final = 200  # of a check, a file name, a piece of evidence
SENTENCE_CHARS: Final = 600  # of what went wrong, and of its cure

# Middle tones: at least 3:1 against white and against JupyterLab's dark #111 (WCAG 2.2, 1.4.11), for signs and borders. Words need 4.5:1 (1.4.3), which no
# one tone has on both grounds: they keep the page's colour.
GREEN: Final = "#2f9e58"
RED: Final = "#e0524d"
AMBER: Final = "#c07f14"
GREY: Final = "#808a94"
LINE: Final = "rgba(128,138,148,.35)"
SHADE: Final = "rgba(128,138,148,.10)"
MONO: Final = "font-family:var(--jp-code-font-family,ui-monospace,SFMono-Regular,Menlo,Consolas,monospace);font-size:12px"
# The first is all that JupyterLab leaves of it in a notebook that it does not trust.
WRAP: Final = "overflow-wrap:break-word;overflow-wrap:anywhere"

_CARD: Final = (
    f"border:1px solid {LINE};border-radius:6px;margin:2px 0;max-width:960px;overflow:hidden;"
    "font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:13px;line-height:1.5"
)
_HEAD: Final = f"padding:6px 12px;border-bottom:1px solid {LINE};background:{SHADE}"
_BODY: Final = f"padding:4px 12px;overflow-x:auto;{WRAP}"  # a wide table of such a notebook is scrolled
_PRE: Final = f"{MONO};line-height:1.45;white-space:pre-wrap;{WRAP};margin:4px 0;padding:6px 8px;background:{SHADE};border-radius:4px"
QUIET: Final = "opacity:.72"

_START: Final = "text-align:start;unicode-bidi:plaintext"  # each paragraph begins where its script does

_STYLES: Final = {
    "a": "color:inherit;text-decoration:underline",
    "blockquote": f"margin:6px 0;padding-left:10px;border-left:3px solid {LINE}",
    "code": MONO,
    "li": _START,
    "p": f"margin:6px 0;{_START}",
    "pre": _PRE,
    "table": "border-collapse:collapse;margin:6px 0;font-size:12px;color:inherit",
    "td": f"border:1px solid {LINE};padding:2px 8px;{_START}",
    "th": f"border:1px solid {LINE};padding:2px 8px;{_START}",
}

_STANDING_COLOURS: Final = {Standing.VERIFIED: GREEN, Standing.CLAIMED: GREY, Standing.CONTRADICTED: RED}
_LEVEL_COLOURS: Final = {Level.INFO: GREY, Level.WARN: AMBER, Level.ERROR: RED}


def card(receipt: Receipt, items: Iterable[Item], *, left_out: int = 0, roots: Roots = ()) -> str:
    """The card. `left_out`: lines of the run that are in none of `items`; `roots`: from where paths are seen."""
    steps = _without_final(list(items), receipt)
    if receipt.agent == "shell":
        left_out = 0  # the excerpt of its output says what is left out
    top = [_head(receipt), _problem(receipt), _final(receipt), _checks(receipt), _hooks(receipt), _files(receipt, roots)]
    room = CARD_BYTES - sum(_size(part) for part in top)
    # Whatever was overlooked on the way to here goes no further.
    return inert(
        f'<div class="{NO_MATH}" style="{_CARD}">{"".join([*top, _steps(steps, room=room, left_out=left_out), _foot(receipt)])}</div>'
    )


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def badge(text: str, colour: str, *, mark: str = "", title: str = "") -> str:
    """A word in a frame of that colour."""
    hint = f' title="{escape(title, quote=True)}"' if title else ""
    return (
        f'<span{hint} style="display:inline-block;padding:0 8px;margin-right:6px;border:1px solid {colour};border-radius:10px;'
        f'font-weight:600;font-size:12px">{sign(mark, colour) + " " if mark else ""}{escape(text)}</span>'
    )


def sign(mark: str, colour: str) -> str:
    """One mark in that colour; the words beside it keep the page's."""
    return f'<span style="color:{colour}">{escape(mark)}</span>'


def _colour(outcome: Outcome) -> str:
    return GREEN if outcome.ok else AMBER if outcome.kind is OutcomeKind.CANCELLED else RED


def _head(receipt: Receipt) -> str:
    outcome = receipt.outcome
    colour = _colour(outcome)
    badges = [badge(outcome.kind.value.replace("_", " "), colour, mark="✓" if outcome.ok else "✗", title=one_line(clean(outcome.summary)))]
    badges.append(badge(receipt.standing.value, _STANDING_COLOURS[receipt.standing], title=STANDINGS[receipt.standing]))
    if receipt.rehearsed is not None:
        badges.append(badge("rehearsal", AMBER, title=REHEARSAL))
    said = f'<div style="font-weight:600">{sign("!", AMBER)} {escape(REHEARSAL)}</div>' if receipt.rehearsed is not None else ""
    return f'<div style="{_HEAD}">{"".join(badges)}<span style="{QUIET}">{escape(" · ".join(figures(receipt)))}</span>{said}</div>'


def _problem(receipt: Receipt) -> str:
    outcome = receipt.outcome
    if outcome.is_plain:
        return ""
    rows = [f"<div><b>{escape(one_line(clean(outcome.summary), SENTENCE_CHARS))}</b></div>"]
    if not outcome.ok:
        rows += [f'<div style="{MONO};{QUIET}">{escape(one_line(clean(item), LINE_CHARS))}</div>' for item in outcome.evidence[:CHECKS]]
    if outcome.cure:
        rows.append(f"<div>→ {escape(one_line(clean(outcome.cure), SENTENCE_CHARS))}</div>")
    return f'<div style="{_BODY};border-left:3px solid {_colour(outcome)};margin:8px 12px">{"".join(rows)}</div>'


def _final(receipt: Receipt) -> str:
    text = clean(receipt.text).strip("\n")
    if not text.strip():
        return ""
    shown = excerpt(text, lines=TEXT_LINES, chars=TEXT_CHARS)
    html = "" if receipt.agent == "shell" else markdown_html(shown.text, styles=_STYLES)
    if not html or _size(html) > CARD_BYTES // 2:  # a table of empty cells is ten times its source
        html = _pre(text, lines=TEXT_LINES, chars=TEXT_CHARS, room=CARD_BYTES // 2)
    return f'<div style="{_BODY}">{html}</div>'


def _pre(text: str, *, lines: int, chars: int, room: int) -> str:
    """As much of `text` as `room` bytes of markup can hold."""
    while True:
        html = f'<pre style="{_PRE}">\n{escape(excerpt(text, lines=lines, chars=chars).text)}</pre>'
        if _size(html) <= room or chars <= STEP_CHARS // 2:
            return html
        chars //= 2


def _checks(receipt: Receipt) -> str:
    if not receipt.checks:
        return ""
    rows: list[str] = []
    for check in receipt.checks[:CHECKS]:
        mark, _, words = one_line(check_words(check), LINE_CHARS).partition(" ")
        rows.append(f"<div>{sign(mark, GREEN if check.passed else GREY if check.passed is None else RED)} {escape(words)}</div>")
    return f'<div style="{_BODY}">{"".join(rows)}{_more(len(receipt.checks) - CHECKS, "check")}</div>'


def _hooks(receipt: Receipt) -> str:
    rows = [f"<div>{sign('!', AMBER)} {escape(one_line(clean(said), SENTENCE_CHARS))}</div>" for said in hook_words(receipt)[:CHECKS]]
    return f'<div style="{_BODY}">{"".join(rows)}</div>' if rows else ""


def _files(receipt: Receipt, roots: Roots) -> str:
    if not receipt.files:
        return ""
    rows = [f"<div>{escape(_file_words(file, roots))}</div>" for file in receipt.files[:FILES]]
    count = len(receipt.files)
    return (
        f'<details style="{_BODY}"><summary style="cursor:pointer">{count} {"file" if count == 1 else "files"}</summary>'
        f'<div style="{MONO};padding:2px 0 2px 16px">{"".join(rows)}{_more(count - FILES, "file")}</div></details>'
    )


def _file_words(file: FileChange, roots: Roots) -> str:
    size = f", {file.size:,} bytes" if file.size is not None else ""
    return f"{one_line(clean(below(file.path, roots)), LINE_CHARS)}  {one_line(clean(file.words), LINE_CHARS)}{size}"


def _more(count: int, noun: str) -> str:
    return f'<div style="{QUIET}">and {count:,} more {noun}{"" if count == 1 else "s"} in the receipt</div>' if count > 0 else ""


def _foot(receipt: Receipt) -> str:
    said = one_line(undo_words(receipt), SENTENCE_CHARS)
    undo = f" · {escape(said)}" if said else ""
    trusted = " · the workspace was trusted: its own settings could take effect" if receipt.workspace_trusted else ""
    return f'<div style="{MONO};{QUIET};padding:4px 12px;border-top:1px solid {LINE};font-size:11px">run {escape(clean(receipt.run_id))}{trusted}{undo}</div>'


# --- what happened ----------------------------------------------------------------------------------------------------


def _without_final(items: list[Item], receipt: Receipt) -> list[Item]:
    """The steps: not the final text, which stands above, in however many parts it came."""
    if receipt.agent == "shell" and receipt.text.strip():
        return [item for item in items if item.kind is not Kind.OUTPUT]
    parts: list[Item] = []
    for item in reversed(items):
        if item.kind is Kind.TEXT and item.parent is None:
            parts.append(item)
            if not item.continues:
                break
    if "".join(part.text for part in reversed(parts)).strip() != clean(receipt.text).strip():
        return items
    numbers = {part.number for part in parts}
    return [item for item in items if item.number not in numbers]


def _steps(items: list[Item], *, room: int, left_out: int) -> str:
    shown: list[str] = []
    missing = left_out
    for index, item in enumerate(reversed(items)):
        html = _step(item)
        if item.parent is not None:
            html = f'<div style="margin-left:16px">{html}</div>'
        room -= _size(html)
        if room < 0:
            missing += sum(each.lines for each in items[: len(items) - index])
            break
        shown.append(html)
    if not shown and not missing:
        return ""
    tools = sum(item.kind is Kind.TOOL for item in items)
    last = "the last " if left_out and tools > 1 else ""  # how many there were before, nobody has counted
    label = f"{last}{tools:,} tool {'call' if tools == 1 else 'calls'}" if tools else "What happened"
    more = (
        f'<div style="{QUIET}">{missing:,} earlier {"line is" if missing == 1 else "lines are"} in the journal only</div>'
        if missing
        else ""
    )
    return (
        f'<details style="{_BODY}"><summary style="cursor:pointer">{label}</summary>'
        f'<div style="padding:2px 0 2px 16px">{more}{"".join(reversed(shown))}</div></details>'
    )


def _step(item: Item) -> str:
    match item.kind:
        case Kind.TOOL:
            mark, colour = {ItemState.FAILED: ("✗", RED), ItemState.DONE: ("✓", GREEN)}.get(item.state, ("–", GREY))
            head = f'{sign(mark, colour)} <b>{escape(one_line(item.title, 80))}</b> <span style="{MONO}">{escape(item.summary)}</span>'
            body = "".join(_short(text) for text in (item.input, item.text) if text)
            return _folded(head, body) if body else f"<div>{head}</div>"
        case Kind.THINKING:
            return _folded(f'<i style="{QUIET}">Thinking</i>', _short(item.text))
        case Kind.NOTICE:
            return f"<div>{sign('•', _LEVEL_COLOURS[item.level])} {escape(one_line(item.text, SENTENCE_CHARS))}</div>"
        case Kind.TEXT:
            shown = excerpt(item.text.strip("\n"), lines=STEP_LINES, chars=STEP_CHARS).text
            return f'<div style="white-space:pre-wrap;margin:4px 0">{escape(shown)}</div>'
        case Kind.STDERR | Kind.OUTPUT:
            return _short(item.text)


def _folded(head: str, body: str) -> str:
    return f'<details style="margin:1px 0"><summary style="cursor:pointer">{head}</summary>{body}</details>'


def _short(text: str) -> str:
    return _pre(text, lines=STEP_LINES, chars=STEP_CHARS, room=STEP_CHARS * 4)
