"""A report as one HTML page: no script, nothing loaded, light and dark by the reader's own setting.

Everything that is not ours goes through `escape` or `markdown_html`; there is no third way into the page. Its policy for browsers (a meta element)
forbids what neither should ever let through.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from cc_executor.model.ansi import clean
from cc_executor.model.hook import HOOK_WORDS
from cc_executor.model.inert import NO_MATH, inert
from cc_executor.model.item import Level, excerpt
from cc_executor.model.listrecord import ListStatus, TaskStatus
from cc_executor.model.listreport import ListReport, TaskReport
from cc_executor.model.markdown import markdown_html
from cc_executor.model.notice import duration
from cc_executor.model.outcome import OutcomeKind
from cc_executor.model.paths import below
from cc_executor.model.receipt import Receipt, Standing
from cc_executor.model.report import RunReport
from cc_executor.model.reportstyle import STYLE
from cc_executor.model.reportwords import (
    CLAIM,
    COMMAND,
    DIGEST_CHARS,
    PHASES,
    REHEARSAL,
    SOURCE,
    STANDINGS,
    asked_rows,
    change,
    checked_of,
    cost,
    figures,
    how_it_ended,
    list_figures,
    list_title,
    money,
    said_of,
    shares,
    title,
    token_sum,
    tokens,
    when,
    when_epoch,
)
from cc_executor.model.toolcall import one_line

LINE_CHARS: Final = 240
SENTENCE_CHARS: Final = 800
CLAIM_CHARS: Final = 24_000
CLAIM_LINES: Final = 600
SPANS: Final = 200  # rows of the picture of a list

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_GOOD, _BAD, _MIDDLE, _QUIET = "good", "bad", "middle", "quiet"
_STANDINGS: Final = {Standing.VERIFIED: _GOOD, Standing.CLAIMED: _QUIET, Standing.CONTRADICTED: _BAD}
_TASKS: Final = {
    TaskStatus.OK: ("✓", _GOOD),
    TaskStatus.FAILED: ("✗", _BAD),
    TaskStatus.SKIPPED: ("–", _QUIET),
    TaskStatus.STOPPED: ("■", _MIDDLE),
    TaskStatus.RUNNING: ("▶", _MIDDLE),
    TaskStatus.WAITING: ("○", _QUIET),
}
_LEVELS: Final = {Level.INFO: _QUIET, Level.WARN: _MIDDLE, Level.ERROR: _BAD}


def run_page(told: RunReport) -> str:
    """The page of a run."""
    receipt = told.receipt
    return _page(title(told), [_run_head(told), *_run_body(told), _run_foot(receipt)])


def list_page(told: ListReport) -> str:
    """The page of a list: the whole, then each run folded."""
    parts = [
        _list_head(told),
        _tiles(list_figures(told)),
        _list_bad(told),
        _list_tasks(told),
        _spans(told),
        _list_notes(told),
        _list_runs(told),
    ]
    foot = f"<footer>{SOURCE} List <code>{_t(told.list_id)}</code></footer>"
    return _page(list_title(told), [*parts, foot])


def notebook_html(markdown: str) -> str:
    """A report's Markdown as a fragment for a notebook, which has styles of its own."""
    return inert(f'<div class="{NO_MATH}">{markdown_html(markdown)}</div>')


def _page(name: str, parts: Iterable[str]) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><meta name="referrer" content="no-referrer">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{_t(name)}</title><style>{STYLE}</style></head>\n<body><main>\n{chr(10).join(part for part in parts if part)}\n</main></body></html>\n"
    )


# --- a run ------------------------------------------------------------------------------------------------------------


def _run_head(told: RunReport) -> str:
    receipt = told.receipt
    agent = " ".join(part for part in (receipt.agent, receipt.agent_version) if part)
    about = [agent, receipt.model, f"{when(receipt.times.started)} – {when(receipt.times.ended)}", receipt.cwd]
    return f"<header><div>{_badges(receipt)}</div><h1>{_t(title(told))}</h1>{_about(about)}{_rehearsal(receipt.rehearsed is not None)}</header>"


def _badges(receipt: Receipt) -> str:
    outcome = receipt.outcome
    colour = _GOOD if outcome.ok else _MIDDLE if outcome.kind is OutcomeKind.CANCELLED else _BAD
    badges = [_badge(f"{'✓' if outcome.ok else '✗'} {outcome.kind.value.replace('_', ' ')}", colour)]
    badges.append(_badge(receipt.standing.value, _STANDINGS[receipt.standing], hint=STANDINGS[receipt.standing]))
    if receipt.rehearsed is not None:
        badges.append(_badge("rehearsal", _MIDDLE))
    return "".join(badges)


def _run_body(told: RunReport) -> list[str]:
    receipt = told.receipt
    return [
        _tiles(figures(told)),
        _outcome(receipt),
        _checks(receipt),
        _times(told),
        _tools(told),
        _asked(receipt),
        _files(receipt),
        _tokens(receipt),
        _hooks(told),
        _notes(told),
        _section("What is missing", _items(told.dropped)) if told.dropped else "",
        _claim(receipt),
    ]


def _outcome(receipt: Receipt) -> str:
    outcome = receipt.outcome
    cure = f'<p class="cure">→ {_sentence(outcome.cure)}</p>' if outcome.cure else ""
    rows = "".join(f"<li><code>{_line(item)}</code></li>" for item in outcome.evidence)
    evidence = f"<h3>Evidence</h3><ul>{rows}</ul>" if rows else ""
    colour = _GOOD if outcome.ok else _BAD
    said = STANDINGS[receipt.standing]
    return _section(
        "Outcome",
        f'<div class="box {colour}"><p><b>{_sentence(outcome.summary)}</b></p>{cure}'
        f'<p class="quiet">{receipt.standing.value}: {said}. The process: {_t(how_it_ended(receipt))}.</p></div>{evidence}',
    )


def _checks(receipt: Receipt) -> str:
    words = {True: ("✓ passed", _GOOD), False: ("✗ failed", _BAD), None: ("? not made", _QUIET)}
    rows = [(f"<code>{_line(check.what)}</code>", _mark(*words[check.passed]), _line(check.detail)) for check in receipt.checks]
    return _section("Verification", _table(("check", "result", ""), rows)) if rows else ""


def _times(told: RunReport) -> str:
    found = shares(told)
    times = told.receipt.times
    said: list[str] = []
    if times.paused or times.frozen:
        said.append(f"Paused for {duration(times.paused)}; the machine stood still for {duration(times.frozen)}. No clock counted either.")
    if told.retries:
        again = ", ".join(f"{what} ({count}×)" for what, count in told.retries.items())
        said.append(f"The API was asked again after {again}; waits announced: {duration(told.waited)}.")
    said += told.limit_notes
    if not found and not said:
        return ""
    bar = "".join(f'<i class="p-{phase.value}" style="width:{share:.2%}"></i>' for phase, _, share in found)
    rows = [
        (f'<i class="key p-{phase.value}"></i>{_t(PHASES[phase])}', _t(duration(seconds)), f"{share:.0%}")
        for phase, seconds, share in found
    ]
    drawn = f'<div class="bar">{bar}</div>{_table(("", "time", "share"), rows, figures=(1, 2))}' if found else ""
    return _section("Where the time went", drawn + "".join(f"<p>{_sentence(item)}</p>" for item in said))


def _tools(told: RunReport) -> str:
    receipt = told.receipt
    denied = f"<p>{_mark('Not allowed', _BAD)}: {_line(', '.join(dict.fromkeys(receipt.denials)))}</p>" if receipt.denials else ""
    if not told.tools:
        return _section("Tools", denied) if denied else ""
    rows = [
        (
            _line(name),
            f"{use.calls:,}",
            _mark(f"{use.failed:,}", _BAD) if use.failed else "",
            _t(duration(use.seconds)),
            _mark(f"{use.unfinished:,}", _MIDDLE) if use.unfinished else "",
        )
        for name, use in told.tools.items()
    ]
    calls = [
        (
            _t(duration(call.at)),
            ("↳ " if call.is_nested else "") + _line(call.name),
            f"<code>{_line(call.about)}</code>",
            _mark("never came back", _MIDDLE) if call.seconds is None else _t(duration(call.seconds)),
            _mark("✗ failed", _BAD) if call.is_failed else "",
        )
        for call in told.calls
    ]
    more = f'<p class="quiet">and {told.calls_left_out:,} more calls in the journal</p>' if told.calls_left_out else ""
    each = f"<details><summary>Each call</summary>{_table(('at', 'call', 'about', 'took', ''), calls, figures=(0, 3))}{more}</details>"
    heads = ("tool", "calls", "failed", "time", "never came back")
    return _section("Tools", _table(heads, rows, figures=(1, 2, 3, 4)) + denied + each)


def _asked(receipt: Receipt) -> str:
    rows = [(f"<code>{_line(what)}</code>", _line(answer), _line(by), _sentence(words)) for what, answer, by, words in asked_rows(receipt)]
    return _section("What it asked", _table(("asked", "answer", "by", "words"), rows)) if rows else ""


def _files(receipt: Receipt) -> str:
    rows = [
        (
            f"<code>{_line(below(file.path, (receipt.cwd,)))}</code>",
            _t(change(file)),
            f"{file.size:,}" if file.size is not None else "",
            _digest(file.before),
            _digest(file.after),
        )
        for file in receipt.files
    ]
    return _section("Files", _table(("file", "", "bytes", "SHA-256 before", "after"), rows, figures=(2,))) if rows else ""


def _tokens(receipt: Receipt) -> str:
    rows = [(_t(name), _t(count)) for name, count in [("cost", cost(receipt)), *tokens(receipt.usage)] if count]
    return _section("Cost and tokens", _table(("", ""), rows, figures=(1,))) if tokens(receipt.usage) else ""


def _hooks(told: RunReport) -> str:
    rows = [
        (
            _line(each.hook),
            _t(each.moment.value),
            _mark(HOOK_WORDS[each.status], _GOOD if each.ok else _BAD),
            _sentence(each.detail),
            _t(duration(each.seconds)),
        )
        for each in told.receipt.hooks
    ]
    rows += [
        (
            _line(name),
            "the agent’s own",
            _mark(f"ran {ran}×" + (f", {failed}× not well" if failed else ""), _BAD if failed else _GOOD),
            "",
            "",
        )
        for name, (ran, failed) in told.agent_hooks.items()
    ]
    return _section("Hooks", _table(("hook", "when", "", "", "took"), rows, figures=(4,))) if rows else ""


def _notes(told: RunReport) -> str:
    rows = [(_t(duration(note.at)), f'<span class="{_LEVELS[note.level]}">{_sentence(note.text)}</span>') for note in told.notes]
    more = f'<p class="quiet">and {told.notes_left_out:,} more in the journal</p>' if told.notes_left_out else ""
    return _section("What went otherwise", _table(("at", ""), rows, figures=(0,)) + more) if rows else ""


def _claim(receipt: Receipt) -> str:
    text = clean(receipt.text).strip("\n")
    if not text.strip():
        return ""
    shown = excerpt(text, lines=CLAIM_LINES, chars=CLAIM_CHARS).text
    if receipt.agent == "shell":
        return _section("Output", f"<pre>{escape(shown)}</pre>")
    return _section("The agent’s claim", f'<p class="quiet">{CLAIM}</p><blockquote class="claim">{markdown_html(shown)}</blockquote>')


def _run_foot(receipt: Receipt) -> str:
    changed = "" if receipt.is_intact else f" {_mark('The receipt was changed after it was sealed.', _BAD)}"
    return (
        f"<footer>{SOURCE} Run <code>{_t(receipt.run_id)}</code>, receipt <code>{_t(receipt.digest)}</code>{changed}, "
        f"cc_executor {_t(receipt.cc_executor_version)}</footer>"
    )


# --- a list -----------------------------------------------------------------------------------------------------------


def _list_head(told: ListReport) -> str:
    status = told.state.status
    colour = {ListStatus.OK: _GOOD, ListStatus.FAILED: _BAD, ListStatus.OPEN: _QUIET}.get(status, _MIDDLE)
    badge = _badge(
        f"{'✓' if status is ListStatus.OK else '✗' if status is ListStatus.FAILED else '■'} {status.value.replace('_', ' ')}", colour
    )
    is_rehearsed = any(row.rehearsed for row in told.rows)
    badge += _badge("rehearsal", _MIDDLE) if is_rehearsed else ""
    about = [f"{len(told.rows):,} {'task' if len(told.rows) == 1 else 'tasks'}", when_epoch(told.started_at), told.tasks.cwd]
    summary = f"<p>{_sentence(told.state.summary)}</p>" if told.state.summary else ""
    return f"<header><div>{badge}</div><h1>{_t(list_title(told))}</h1>{_about(about)}{summary}{_rehearsal(is_rehearsed)}</header>"


def _list_bad(told: ListReport) -> str:
    rows = [
        f"<li><b>{_t(row.task.id)}</b> {_mark(row.state.status.value, _TASKS[row.state.status][1])}: {_sentence(said_of(row))}" + "</li>"
        for row in told.rows
        if row.is_bad
    ]
    bad = _section("What did not end well, and why", f"<ul>{''.join(rows)}</ul>") if rows else ""
    steps = "".join(f"<li>{_with_code(step)}</li>" for step in told.next_steps)
    return bad + (_section("What to do next", f'<ul class="cure">{steps}</ul>') if steps else "")


def _list_tasks(told: ListReport) -> str:
    rows: list[tuple[str, ...]] = []
    for number, row in enumerate(told.rows, 1):
        mark, colour = _TASKS[row.state.status]
        known = row.state
        standing = checked_of(row)
        checked = _mark(standing.value, _STANDINGS[standing]) if standing is not None else ""
        spent = "rehearsal" if row.rehearsed else money(known.spent) if known.spent else ""
        rows.append(
            (
                str(number),
                f"<b>{_t(row.task.id)}</b>" + (f'<br><span class="quiet">{_line(row.task.title)}</span>' if row.task.title else ""),
                _mark(f"{mark} {known.status.value}", colour) + (f" ({known.begun} attempts)" if known.begun > 1 else ""),
                _t(duration(row.seconds)) if row.seconds else "",
                _t(spent),
                _t(token_sum(row.usage)),
                checked,
                _line(", ".join(row.task.all_needs)),
            )
        )
    path = (
        f"<p>Critical path, {_t(duration(told.path_seconds))}: {_t(one_line(' → '.join(told.path), 2_000))}</p>"
        if told.path_seconds
        else ""
    )
    heads = ("#", "task", "state", "time", "cost", "tokens", "checked", "needs")
    return _section("Tasks", _table(heads, rows, figures=(0, 3, 4, 5)) + path)


def _spans(told: ListReport) -> str:
    if not told.wall:
        return ""
    colours = {row.task.id: _TASKS[row.state.status][1] for row in told.rows}
    rows = [
        f'<div class="span"><span>{_t(span.task)}</span><div><i class="{colours.get(span.task, _QUIET)}" '
        f'style="margin-left:{span.begin / told.wall:.2%};width:{((span.end or told.wall) - span.begin) / told.wall:.2%}"></i></div></div>'
        for span in told.spans[:SPANS]
    ]
    more = f'<p class="quiet">and {len(told.spans) - SPANS:,} more attempts</p>' if len(told.spans) > SPANS else ""
    return _section(
        "In time",
        f'<div class="spans">{"".join(rows)}</div><p class="quiet scale"><span>0</span><span>{duration(told.wall)}</span></p>{more}',
    )


def _list_notes(told: ListReport) -> str:
    return _section("Hooks", _items(told.state.notes)) if told.state.notes else ""


def _list_runs(told: ListReport) -> str:
    drawn = [_task_run(row, row.run) for row in told.rows if row.run is not None]
    return _section("Each task", "".join(drawn)) if drawn else ""


def _task_run(row: TaskReport, run: RunReport) -> str:
    mark, colour = _TASKS[row.state.status]
    name = f"{_mark(mark, colour)} <b>{_t(row.task.id)}</b> {_line(row.task.title)}"
    body = "".join(
        part.replace("<h3", "<h4").replace("</h3>", "</h4>").replace("<h2", "<h3").replace("</h2>", "</h3>")
        for part in _run_body(run)
        if part
    )
    return f'<details class="run"><summary>{name}</summary><div>{_badges(run.receipt)}</div>{body}{_run_foot(run.receipt)}</details>'


# --- what they are made of --------------------------------------------------------------------------------------------


def _t(text: str) -> str:
    return escape(clean(text))


def _line(text: str) -> str:
    return escape(one_line(clean(text), LINE_CHARS))


def _sentence(text: str) -> str:
    return escape(one_line(clean(text), SENTENCE_CHARS))


def _with_code(text: str) -> str:
    return "".join(f"<code>{escape(part)}</code>" if number % 2 else escape(part) for number, part in enumerate(COMMAND.split(clean(text))))


def _digest(value: str | None) -> str:
    return f'<code title="{_t(value)}">{_t(value[:DIGEST_CHARS])}</code>' if value else ""


def _mark(text: str, colour: str) -> str:
    return f'<span class="{colour}">{_t(text)}</span>'


def _badge(text: str, colour: str, *, hint: str = "") -> str:
    return f'<span class="badge {colour}" title="{_t(hint)}">{_t(text)}</span>'


def _about(parts: Sequence[str]) -> str:
    return f'<p class="quiet">{" · ".join(_line(part) for part in parts if part)}</p>'


def _rehearsal(is_one: bool) -> str:
    return f'<p class="box middle"><b>{REHEARSAL}</b></p>' if is_one else ""


def _tiles(rows: Sequence[tuple[str, str]]) -> str:
    return f'<div class="tiles">{"".join(f"<div><span>{_t(name)}</span><b>{_t(value)}</b></div>" for name, value in rows)}</div>'


def _section(name: str, body: str) -> str:
    return f"<section><h2>{escape(name)}</h2>{body}</section>"


def _items(texts: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{_sentence(text)}</li>' for text in texts)}</ul>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, figures: Sequence[int] = ()) -> str:
    """A table of cells that are HTML already, without the columns that say nothing."""
    shown = [column for column in range(len(heads)) if any(row[column] for row in rows)]
    head = "".join(f"<th{_kind(column, figures)}>{heads[column]}</th>" for column in shown)
    body = "".join(f"<tr>{''.join(f'<td{_kind(column, figures)}>{row[column]}</td>' for column in shown)}</tr>" for row in rows)
    top = f"<thead><tr>{head}</tr></thead>" if any(heads[column] for column in shown) else ""
    kind = ' class="small"' if not heads[0] else ""
    return f'<div class="wide"><table{kind}>{top}<tbody>{body}</tbody></table></div>'


def _kind(column: int, figures: Sequence[int]) -> str:
    return ' class="figure"' if column in figures else ""
