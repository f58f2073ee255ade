"""A receipt in words and figures: what the cell, the terminal and the saved notebook say alike. Knows receipts; knows no markup."""

from __future__ import annotations

from typing import Final

from cc_executor.model.ansi import clean
from cc_executor.model.item import excerpt
from cc_executor.model.notice import duration, money
from cc_executor.model.receipt import Check, Receipt, Standing
from cc_executor.model.toolcall import one_line

REHEARSAL: Final = "Rehearsal: scripted model, no real agent spoke, nothing was spent."

# The saved notebook keeps a page to read; the journal has all of it.
PLAIN_LINES: Final = 300
PLAIN_CHARS: Final = 12 * 1024
SENTENCE_CHARS: Final = 600

STANDINGS: Final = {
    Standing.VERIFIED: "verified: every check passed",
    Standing.CLAIMED: "claimed: the agent's word, nothing was checked",
    Standing.CONTRADICTED: "contradicted: a check failed",
}


def cost_words(receipt: Receipt) -> str:
    """What it cost, or that nobody said; empty for a command."""
    if receipt.rehearsed is not None:
        return "nothing spent"
    if receipt.cost is None:
        return "" if receipt.agent == "shell" else "cost not reported"
    return money(receipt.cost)


def token_words(receipt: Receipt) -> str:
    """Tokens in (cached ones included) and out, or an empty text."""
    usage = receipt.usage
    read = usage.input_tokens + usage.cache_read_tokens + usage.cache_creation_tokens
    return f"{read:,} in / {usage.output_tokens:,} out tokens" if read or usage.output_tokens else ""


def time_words(receipt: Receipt) -> str:
    """How long it took, and how long it stood still."""
    paused = f" ({duration(receipt.times.paused)} paused)" if receipt.times.paused else ""
    return duration(receipt.times.elapsed) + paused


def figures(receipt: Receipt) -> list[str]:
    """Time, cost, tokens, model: those that there are."""
    return [one_line(clean(part)) for part in (time_words(receipt), cost_words(receipt), token_words(receipt), receipt.model) if part]


def check_words(check: Check) -> str:
    """One check on one line."""
    mark = {True: "✓", False: "✗", None: "?"}[check.passed]
    return clean(f"{mark} {check.what}{f': {check.detail}' if check.detail else ''}")


def hook_words(receipt: Receipt) -> list[str]:
    """A sentence for each hook that did not end well."""
    return [each.sentence() for each in receipt.hooks if not each.ok]


def undo_words(receipt: Receipt) -> str:
    """Whether the run can be undone, where there is something to be said about it."""
    undo = receipt.undo
    if undo is None or (undo.ready and not undo.changes and not undo.note):
        return ""
    if not undo.ready:
        return f"no undo: {clean(undo.note)}"
    return "; ".join(filter(None, (f"%cc undo {clean(receipt.run_id)[-8:]} undoes it", clean(undo.note))))


def plain_text(receipt: Receipt) -> str:
    """The final text, then the status line; for a run that is not ok its evidence and its cure."""
    outcome = receipt.outcome
    rows: list[str] = []
    text = clean(receipt.text).strip("\n")
    if text.strip():
        rows += [excerpt(text, lines=PLAIN_LINES, chars=PLAIN_CHARS).text, ""]
    if receipt.rehearsed is not None:
        rows.append(REHEARSAL)
    rows.append(" · ".join([outcome.kind.value, *figures(receipt), receipt.standing.value, f"run {one_line(clean(receipt.run_id))}"]))
    if not outcome.is_plain:
        rows.append(f"  {clean(outcome.summary)}")
    if not outcome.ok:
        rows += [f"  evidence: {clean(item)}" for item in outcome.evidence]
        if outcome.cure:
            rows.append(f"  cure: {clean(outcome.cure)}")
    rows += [f"  {check_words(check)}" for check in receipt.checks]
    if receipt.undo is not None and receipt.undo.note:
        rows.append(f"  {one_line(undo_words(receipt), SENTENCE_CHARS)}")
    rows += [f"  ! {clean(said)}" for said in hook_words(receipt)]
    return excerpt("\n".join(rows), lines=PLAIN_LINES * 2, chars=PLAIN_CHARS + PLAIN_CHARS // 2).text
