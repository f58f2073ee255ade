"""A report as Markdown. Everything that is not ours is escaped, or stands in a fence that it cannot close."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from cc_executor.model.ansi import clean
from cc_executor.model.hook import HOOK_WORDS
from cc_executor.model.item import excerpt
from cc_executor.model.listreport import ListReport
from cc_executor.model.notice import duration
from cc_executor.model.paths import below
from cc_executor.model.report import RunReport
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

CELL_CHARS: Final = 200
SENTENCE_CHARS: Final = 600
CLAIM_CHARS: Final = 12_000
CLAIM_LINES: Final = 300
CALLS: Final = 40  # calls that are named one by one; the page names more
_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>#|~$&!])")


def run_text(told: RunReport, *, level: int = 1, heading: str = "") -> str:
    """The report of a run. `level` and `heading`: within the report of a list."""
    receipt, head, sub = told.receipt, "#" * level, "#" * (level + 1)
    outcome = receipt.outcome
    lines = [f"{head} {_text(heading or title(told))}", ""]
    if receipt.rehearsed is not None:
        lines += [f"**{REHEARSAL}**", ""]
    lines += [f"**{outcome.kind.value.replace('_', ' ')}**, {receipt.standing.value} ({STANDINGS[receipt.standing]}).", ""]
    lines += [_text(f"{outcome.summary}", 600)]
    if outcome.cure:
        lines.append(f"→ {_text(outcome.cure, 600)}")
    agent = " ".join(part for part in (receipt.agent, receipt.agent_version, receipt.model) if part)
    lines += ["", *_table(("", ""), [*figures(told), ("agent", agent), ("folder", receipt.cwd), ("from", when(receipt.times.started))])]
    lines += [f"| to | {when(receipt.times.ended)} |", f"| end of the process | {_text(how_it_ended(receipt))} |"]
    if outcome.evidence:
        lines += ["", f"{sub} Evidence", "", *(f"- {_text(item)}" for item in outcome.evidence)]
    if receipt.checks:
        marks = {True: "passed", False: "**failed**", None: "not made"}
        lines += ["", f"{sub} Verification", "", "| check | result | |", "|---|---|---|"]
        lines += [f"| {_text(check.what)} | {marks[check.passed]} | {_text(check.detail)} |" for check in receipt.checks]
    lines += _timings(told, sub)
    if told.tools:
        rows = [
            (
                name,
                f"{use.calls:,}",
                f"{use.failed:,}" if use.failed else "",
                duration(use.seconds),
                f"{use.unfinished:,}" if use.unfinished else "",
            )
            for name, use in told.tools.items()
        ]
        lines += ["", f"{sub} Tools", "", *_table(("tool", "calls", "failed", "time", "never came back"), rows)]
        lines += _calls(told)
    if receipt.denials:
        lines += ["", f"Not allowed: {_text(', '.join(dict.fromkeys(receipt.denials)))}."]
    if receipt.asked:
        lines += ["", f"{sub} What it asked", "", *_table(("asked", "answer", "by", "words"), asked_rows(receipt))]
    if receipt.files:
        rows = [
            (
                below(file.path, (receipt.cwd,)),
                change(file),
                f"{file.size:,}" if file.size is not None else "",
                (file.before or "")[:DIGEST_CHARS],
                (file.after or "")[:DIGEST_CHARS],
            )
            for file in receipt.files
        ]
        lines += ["", f"{sub} Files", "", *_table(("file", "", "bytes", "SHA-256 before", "after"), rows)]
    if counted := tokens(receipt.usage):
        lines += ["", f"{sub} Cost and tokens", "", *_table(("", ""), [("cost", cost(receipt)), *counted])]
    lines += _hooks(told, sub)
    if told.notes:
        lines += ["", f"{sub} What went otherwise", "", *(f"- {duration(note.at)}: {_text(note.text, 400)}" for note in told.notes)]
        if told.notes_left_out:
            lines.append(f"- and {told.notes_left_out:,} more in the journal")
    if told.dropped:
        lines += ["", f"{sub} What is missing", "", *(f"- {_text(item)}" for item in told.dropped)]
    if receipt.text.strip():
        shown = excerpt(clean(receipt.text).strip("\n"), lines=CLAIM_LINES, chars=CLAIM_CHARS).text
        words = CLAIM if receipt.agent != "shell" else "What the command wrote."
        lines += ["", f"{sub} {'The agent’s claim' if receipt.agent != 'shell' else 'Output'}", "", words, "", *_fenced(shown)]
    lines += [
        "",
        f"{SOURCE} Run {_code(receipt.run_id)}, receipt {_code(receipt.digest)}{'' if receipt.is_intact else ' (**the receipt was changed after it was sealed**)'}.",
    ]
    return "\n".join(lines) + "\n"


def _timings(told: RunReport, sub: str) -> list[str]:
    times = told.receipt.times
    rows = [(PHASES[phase], duration(seconds), f"{share:.0%}") for phase, seconds, share in shares(told)]
    if not rows and not told.retries:
        return []
    lines = ["", f"{sub} Where the time went", "", *_table(("", "time", "share"), rows)]
    if times.paused or times.frozen:
        lines += [
            "",
            f"Paused for {duration(times.paused)}; the machine stood still for {duration(times.frozen)}. No clock counted either.",
        ]
    if told.retries:
        said = ", ".join(f"{what} ({count}×)" for what, count in told.retries.items())
        lines += ["", f"The API was asked again after {_text(said)}; waits announced: {duration(told.waited)}."]
    return [*lines, *(f"\n{_text(item)}" for item in told.limit_notes)]


def _calls(told: RunReport) -> list[str]:
    shown = told.calls[:CALLS]
    rows = [
        (
            duration(call.at),
            f"{'↳ ' if call.is_nested else ''}{call.name}",
            call.about,
            "never came back" if call.seconds is None else duration(call.seconds),
            "failed" if call.is_failed else "",
        )
        for call in shown
    ]
    lines = ["", *_table(("at", "call", "about", "took", ""), rows)]
    more = told.tool_calls - len(shown)
    return [*lines, *([f"\nand {more:,} more calls in the journal"] if more > 0 else [])]


def _hooks(told: RunReport, sub: str) -> list[str]:
    rows = [(each.hook, each.moment.value, HOOK_WORDS[each.status], each.detail, duration(each.seconds)) for each in told.receipt.hooks]
    rows += [
        (name, "the agent's own", f"ran {ran}×" + (f", {failed}× not well" if failed else ""), "", "")
        for name, (ran, failed) in told.agent_hooks.items()
    ]
    return ["", f"{sub} Hooks", "", *_table(("hook", "when", "", "", "took"), rows)] if rows else []


def list_text(told: ListReport) -> str:
    """The report of a list."""
    state = told.state
    lines = [f"# {_text(list_title(told))}", ""]
    if any(row.rehearsed for row in told.rows):
        lines += [f"**{REHEARSAL}**", ""]
    lines += [f"**{state.status.value}**{f': {_text(state.summary, 600)}' if state.summary else ''}", ""]
    lines += _table(("", ""), [*list_figures(told), ("folder", told.tasks.cwd), ("from", when_epoch(told.started_at))])
    rows = [
        (
            str(number), row.task.id, row.task.title, row.state.status.value, str(row.state.begun) if row.state.begun > 1 else "",
            duration(row.seconds) if row.seconds else "", "rehearsal" if row.rehearsed else money(row.state.spent) if row.state.spent else "",
            token_sum(row.usage), standing.value if (standing := checked_of(row)) is not None else "", ", ".join(row.task.all_needs),
        )
        for number, row in enumerate(told.rows, 1)
    ]  # fmt: skip
    heads = ("#", "task", "title", "state", "attempts", "time", "cost", "tokens", "checked", "needs")
    lines += ["", "## Tasks", "", *_table(heads, rows)]
    if told.path_seconds:
        lines += ["", f"Critical path ({duration(told.path_seconds)}): {_text(' → '.join(told.path), 2_000)}."]
    bad = [row for row in told.rows if row.is_bad]
    if bad:
        lines += ["", "## What did not end well, and why", ""]
        lines += [f"- **{_text(row.task.id)}** ({row.state.status.value}): {_text(said_of(row), 600)}" for row in bad]
    if told.next_steps:
        lines += ["", "## What to do next", "", *(f"- {_code_or_text(step)}" for step in told.next_steps)]
    if state.notes:
        lines += ["", "## Hooks", "", *(f"- {_text(note, 600)}" for note in state.notes)]
    for row in told.rows:
        if row.run is not None:
            lines += ["", "---", "", run_text(row.run, level=2, heading=f"Task {row.task.id}: {title(row.run)}").rstrip("\n")]
    lines += ["", f"{SOURCE} List `{told.list_id}`."]
    return "\n".join(lines) + "\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table without the columns that say nothing."""
    if not rows:
        return []
    shown = [column for column in range(len(heads)) if any(row[column] for row in rows)]
    if not any(heads):  # names and values
        rows = [row for row in rows if row[1]]
    return [
        "| " + " | ".join(heads[column] for column in shown) + " |",
        "|" + "---|" * len(shown),
        *("| " + " | ".join(_text(row[column]) for column in shown) + " |" for row in rows),
    ]


def _text(text: str, limit: int = CELL_CHARS) -> str:
    """Text of others on one line, in which nothing is Markdown or HTML."""
    return _SPECIAL.sub(r"\\\1", one_line(clean(text), limit))


def _code(text: str) -> str:
    """A name of ours, which a receipt from elsewhere may have in any form."""
    return f"`{one_line(clean(text)).replace('`', '')}`"


def _code_or_text(text: str) -> str:
    """A sentence of ours, or of an outcome, in which commands stand between backticks."""
    whole = " ".join(clean(text).split())[:SENTENCE_CHARS]
    return "".join(f"`{part}`" if number % 2 else _SPECIAL.sub(r"\\\1", part) for number, part in enumerate(COMMAND.split(whole)))


def _fenced(text: str) -> list[str]:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", text, fence]
