"""The words and figures that a report's text and its page have in common. Knows reports; knows no markup."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from cc_executor.model import notice
from cc_executor.model.ansi import clean
from cc_executor.model.ask import what_from
from cc_executor.model.listreport import ListReport, TaskReport
from cc_executor.model.notice import duration
from cc_executor.model.phase import Phase
from cc_executor.model.receipt import FileChange, Receipt, Standing, TokenUsage
from cc_executor.model.report import RunReport
from cc_executor.model.tasklist import TaskKind
from cc_executor.model.toolcall import one_line

REHEARSAL: Final = "A rehearsal: a script spoke in the model's place, nothing was spent, and nothing is proved about a model."
CLAIM: Final = "What the agent says. Nobody has checked these words; what was checked stands above."
SOURCE: Final = "Made from the sealed receipt and the recorded events alone."
DIGEST_CHARS: Final = 12
# A command within a sentence: of letters that mean nothing in any markup.
COMMAND: Final = re.compile(r"`([A-Za-z0-9_./: =-]{1,200})`")
TITLE_CHARS: Final = 100
SMALLEST_SHARE: Final = 0.005

STANDINGS: Final = {
    Standing.VERIFIED: "every check that was asked for passed",
    Standing.CLAIMED: "nothing was asked to be checked",
    Standing.CONTRADICTED: "a check failed",
}
PHASES: Final = {
    Phase.QUEUED: "before the start",
    Phase.STARTING: "starting the agent",
    Phase.REQUESTING: "waiting for the model",
    Phase.THINKING: "thinking",
    Phase.WRITING: "writing",
    Phase.TOOL: "tools at work",
    Phase.RETRYING: "asking the API again",
    Phase.ASKING: "waiting for a person’s answer",
    Phase.WAITING: "waiting for background work",
    Phase.PAUSED: "paused",
    Phase.STOPPING: "being ended",
    Phase.ENDED: "ended",
}


def title(told: RunReport) -> str:
    """What the report is called."""
    return one_line(told.label, TITLE_CHARS) if told.label else f"Run {told.receipt.run_id[:DIGEST_CHARS]}"


def list_title(told: ListReport) -> str:
    """As `title`."""
    return one_line(clean(told.tasks.name), TITLE_CHARS) if told.tasks.name else f"Task list {told.list_id}"


def when(moment: datetime) -> str:
    """A moment, UTC, whoever reads it and wherever."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def when_epoch(seconds: float | None) -> str:
    """The same of seconds since the epoch."""
    return "" if seconds is None else when(datetime.fromtimestamp(seconds, UTC))


def money(amount: float | None) -> str:
    """US dollars; empty when nobody said."""
    return "" if amount is None else notice.money(amount)


def cost(receipt: Receipt) -> str:
    """What a run cost."""
    if receipt.rehearsed is not None:
        return "nothing (rehearsal)"
    if receipt.cost is None:
        return "" if receipt.agent == "shell" else "not reported"
    return money(receipt.cost)


def tokens(usage: TokenUsage) -> list[tuple[str, str]]:
    """Tokens by what they are."""
    named = (
        ("new input", usage.input_tokens),
        ("written to the cache", usage.cache_creation_tokens),
        ("read from the cache", usage.cache_read_tokens),
        ("output", usage.output_tokens),
    )
    return [(name, f"{count:,}") for name, count in named if count]


def token_sum(usage: TokenUsage) -> str:
    """Tokens in and out, on one line."""
    read = usage.input_tokens + usage.cache_read_tokens + usage.cache_creation_tokens
    return f"{read:,} in, {usage.output_tokens:,} out" if read or usage.output_tokens else ""


def figures(told: RunReport) -> list[tuple[str, str]]:
    """The figures at the top."""
    receipt = told.receipt
    failed = f", {told.tool_failures:,} failed" if told.tool_failures else ""
    rows = [
        ("time", duration(receipt.times.elapsed)),
        ("cost", cost(receipt)),
        ("tokens", token_sum(receipt.usage)),
        ("turns", f"{receipt.turns:,}" if receipt.turns is not None else ""),
        ("tool calls", f"{told.tool_calls:,}{failed}" if told.tool_calls else ""),
        ("files", f"{len(receipt.files):,}" if receipt.files else ""),
        ("retries", f"{receipt.retries:,}" if receipt.retries else ""),
    ]
    return [(name, value) for name, value in rows if value]


def shares(told: RunReport) -> list[tuple[Phase, float, float]]:
    """Phase, seconds and share of the run; what took less than half a percent is left out."""
    whole = sum(told.phases.values())
    return [(phase, seconds, seconds / whole) for phase, seconds in told.phases.items() if whole and seconds / whole >= SMALLEST_SHARE]


def change(file: FileChange) -> str:
    """What became of a file."""
    if file.change is not None:
        return file.words
    if file.after is None:
        if file.size is not None:
            return "too large to be read"
        return "gone" if file.before is not None else "not there"
    if file.before is None:
        return "written"
    return "unchanged" if file.before == file.after else "changed"


def how_it_ended(receipt: Receipt) -> str:
    """The process's own end."""
    exit_ = receipt.exit
    parts = [f"exit code {exit_.code}" if exit_.code is not None else f"ended by {exit_.signal}" if exit_.signal else "nobody saw the end"]
    if exit_.stopped_for:
        parts.append(f"stopped for: {clean(exit_.stopped_for)}")
    if exit_.left_behind:
        count = len(exit_.left_behind)
        parts.append(f"left {count} {'process' if count == 1 else 'processes'} behind")
    if exit_.survivors:
        parts.append(f"{exit_.survivors} could not be ended")
    return ", ".join(parts)


def asked_rows(receipt: Receipt) -> list[tuple[str, str, str, str]]:
    """What the agent asked, what it was told, by whom, and what was said."""
    return [
        (what_from(each.what, (receipt.cwd,)), each.decision.replace("_", " ") or "nobody answered", each.by, each.note)
        for each in receipt.asked
    ]


def list_figures(told: ListReport) -> list[tuple[str, str]]:
    """The figures at the top of a list."""
    counted: dict[str, int] = {}
    for row in told.rows:
        counted[row.state.status.value] = counted.get(row.state.status.value, 0) + 1
    attempts = sum(row.state.begun for row in told.rows)
    bound = told.state.cap(told.tasks.max_cost)
    cap = f" of {money(bound)}" if bound is not None else ""
    is_paid = any(row.task.kind is TaskKind.AGENT and row.state.begun for row in told.rows)
    rehearsed = " (rehearsal)" if any(row.rehearsed for row in told.rows) else ""
    rows = [
        ("tasks", ", ".join(f"{count:,} {status}" for status, count in counted.items())),
        ("time", duration(told.wall) if told.wall else ""),
        ("work", duration(told.work) if told.work else ""),
        ("critical path", duration(told.path_seconds) if told.path_seconds else ""),
        ("cost", f"{money(told.state.spent)}{cap}{rehearsed}" if is_paid or cap else ""),
        ("tokens", token_sum(told.usage)),
        ("attempts", f"{attempts:,}" if attempts > len(told.rows) else ""),
    ]
    return [(name, value) for name, value in rows if value]


def said_of(row: TaskReport) -> str:
    """One sentence on what became of a task: the outcome's own, never the agent's."""
    known = row.state
    if row.run is not None and known.outcome != "ok":
        return clean(known.summary) or clean(row.run.receipt.outcome.summary)
    if known.outcome not in {"", "ok", "failed"}:
        return f"{known.outcome.replace('_', ' ')}: {clean(known.summary)}".rstrip(": ")
    return clean(known.summary)


def checked_of(row: TaskReport) -> Standing | None:
    """How far a task's result was checked; None where there is nothing to say: a command claims nothing."""
    if row.run is None or (row.task.kind is TaskKind.SHELL and not row.run.receipt.checks):
        return None
    return row.run.receipt.standing
