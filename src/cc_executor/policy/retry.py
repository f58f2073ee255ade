"""Whether and when something that did not end well is tried again, and with which words. Pure: facts in, a wait or a sentence out.

Three causes are told apart by structured facts alone: a usage limit (a window of the subscription, with its reset time), an answer that was cut at the
model's output limit, and a structured result that is missing. Everything else is chance, or is not worth trying again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import msgspec

from cc_executor.model.care import OUTPUT_TRIES, Care, OnLimit, OnOutputLimit
from cc_executor.model.notice import duration, moment
from cc_executor.model.outcome import OutcomeKind
from cc_executor.model.state import RunState

BACKOFF_FIRST: Final = 5.0  # seconds before the first further attempt; each next wait is twice as long
BACKOFF_LAST: Final = 60.0
JITTER: Final = 0.25  # of the wait, added, so that many who failed together do not come back together
ASKED_LAST: Final = 600.0  # seconds that the API may ask us to wait
RESET_MARGIN: Final = 2.0  # seconds after a window's reset: the API's clock and ours differ
LIMIT_WAITS: Final = 5  # of one task; each is at most `limit_wait_max` long
REASKS: Final = 1

# Trying again helps against chance; against a wrong key, an empty purse, a missing right or a person's word it only spends.
WORTH_RETRYING: Final = frozenset(
    {
        OutcomeKind.FAILED, OutcomeKind.RATE_LIMITED, OutcomeKind.MAX_TURNS, OutcomeKind.SCHEMA, OutcomeKind.TIMEOUT, OutcomeKind.STALLED,
        OutcomeKind.CRASHED, OutcomeKind.LOST,
    }
)  # fmt: skip
# Of these the cause may be gone in a minute. A schema that was not met, turns or time that were too few are not a matter of waiting.
WORTH_WAITING: Final = frozenset({OutcomeKind.FAILED, OutcomeKind.RATE_LIMITED, OutcomeKind.STALLED, OutcomeKind.CRASHED, OutcomeKind.LOST})


class Cause(StrEnum):
    """Why something waits, or is done another time."""

    USAGE = "usage_limit"
    OUTPUT = "output_limit"
    SCHEMA = "schema"
    RETRY = "retry"


class Hit(msgspec.Struct, frozen=True):
    """What a run that did not end well has met.

    Attributes
    ----------
    cause : Cause or None
        None: nothing of it.
    resets_at : float or None
        Seconds since the epoch, where the agent said when the window opens again.
    delay : float
        Seconds that the agent waited last before it asked the API again; it heeds a `retry-after`.
    """

    cause: Cause | None = None
    resets_at: float | None = None
    delay: float = 0.0


class Again(msgspec.Struct, frozen=True):
    """Another attempt is to be made. `until`: seconds since the epoch; `say`: what the attempt is told, empty for the prompt alone."""

    cause: Cause
    until: float
    why: str
    say: str = ""
    is_resumed: bool = False  # in the session of the attempt before, where it can be continued


def hit_of(kind: OutcomeKind, state: RunState) -> Hit:
    """What a run of this outcome has met, from its structured events."""
    delay = state.retry.delay if state.retry is not None else 0.0
    match kind:
        case OutcomeKind.USAGE_LIMITED:
            window = state.rate_limit
            return Hit(Cause.USAGE, window.resets_at if window is not None and window.status == "rejected" else None)
        case OutcomeKind.SCHEMA:
            return Hit(Cause.SCHEMA)
        case OutcomeKind.FAILED if _is_cut(state):
            return Hit(Cause.OUTPUT, delay=delay)
        case _:
            return Hit(delay=delay)


def _is_cut(state: RunState) -> bool:
    # The CLI's own code, and the API's stop reason: what the texts say decides nothing. A full context window has a code of its own.
    is_said = state.failure is not None and state.failure.code == "max_output_tokens"
    return is_said or (state.finished is not None and state.finished.stop_reason == "max_tokens")


SAY: Final[Mapping[OnOutputLimit, str]] = MappingProxyType(
    {
        OnOutputLimit.CONTINUE: "Your last answer was cut at the output limit. Go on exactly where it stopped, and repeat nothing of it.",
        OnOutputLimit.CONCISE: "Your last answer was cut at the output limit. Give the whole answer again in less than half of the length, "
        "and leave out what is not needed.",
        OnOutputLimit.OUTLINE: "Your last answer was cut at the output limit. Answer with an outline of at most twenty lines; what needs more "
        "room goes into files, one after the other, each no longer than a few hundred lines, and the outline names them.",
    }
)
SAY_SCHEMA: Final = (
    "Your last answer had no structured output that meets the schema. Give it now, as the schema says, by the tool for structured output."
)


# Said to a session that is continued; the original prompt follows.
CONTINUE: Final = "Your work on this task was interrupted. Look at what is done already, and complete it. The task was:\n\n"


def said(prompt: str, say: str, *, is_resumed: bool) -> str:
    """What a further attempt is told. `is_resumed`: its session knows the prompt."""
    if is_resumed:
        return say or CONTINUE + prompt
    return f"{say} The task was:\n\n{prompt}" if say else prompt


def decide(kind: OutcomeKind, hit: Hit, *, ended_at: float, tried: Mapping[Cause, int], care: Care, seed: str) -> Again | str | None:
    """What follows an attempt that did not end well.

    Parameters
    ----------
    kind : OutcomeKind
    hit : Hit
        From `hit_of`.
    ended_at : float
        When it ended; seconds since the epoch.
    tried : mapping
        How many further attempts were made already, by cause.
    seed : str
        Decides about chance: equal seeds wait equally long.

    Returns
    -------
    Again, str or None
        Another attempt; or the sentence with which a usage limit stops everything; or nothing.
    """
    before = {cause: tried.get(cause, 0) for cause in Cause}
    if hit.cause is Cause.USAGE:
        return _after_usage(hit.resets_at, ended_at, before[Cause.USAGE], care, seed)
    if hit.cause is Cause.OUTPUT and care.on_output_limit is not OnOutputLimit.STOP and before[Cause.OUTPUT] < OUTPUT_TRIES:
        why = f"the answer was cut at the output limit ({care.on_output_limit.value}, {before[Cause.OUTPUT] + 1} of {OUTPUT_TRIES})"
        return Again(Cause.OUTPUT, ended_at, why, SAY[care.on_output_limit], is_resumed=True)
    if hit.cause is Cause.SCHEMA and care.reask and before[Cause.SCHEMA] < REASKS:
        return Again(Cause.SCHEMA, ended_at, "the structured result is missing and asked for once more", SAY_SCHEMA, is_resumed=True)
    number = before[Cause.RETRY] + 1
    if kind not in WORTH_RETRYING or number > care.retry:
        return None
    wait = backoff(number, seed=seed, at_least=hit.delay) if care.backs_off and kind in WORTH_WAITING else 0.0
    return Again(Cause.RETRY, ended_at + wait, f"{kind.value.replace('_', ' ')}; tried again ({number} of {care.retry})")


def _after_usage(resets_at: float | None, ended_at: float, waited: int, care: Care, seed: str) -> Again | str:
    if resets_at is None:
        return "The account's limit is reached, and nobody said when it ends. Run it again later, or use another login."
    told = f"The usage limit is reached until {moment(resets_at)}"
    if care.on_limit is OnLimit.STOP:
        return f"{told}. Run it again after that, or let it wait (on_limit: wait)."
    wait = resets_at - ended_at
    if wait > care.limit_wait_max:
        return f"{told}, {duration(wait)} away; limit_wait_max is {duration(care.limit_wait_max)}. Run it again after that, or allow more."
    if waited >= LIMIT_WAITS:
        return f"{told}, and it was waited for {waited} times already. Run it again after that."
    # A reset that lies in the past has not helped: the next try is not at once.
    until = resets_at + RESET_MARGIN if resets_at > ended_at else ended_at + backoff(waited + 1, seed=seed)
    return Again(Cause.USAGE, until, f"usage limit until {moment(resets_at)}", is_resumed=True)


def backoff(attempt: int, *, seed: str, at_least: float = 0.0) -> float:
    """Seconds to wait before further attempt number `attempt` (from 1): 5, 10, 20, 40, 60, and up to a quarter more of it, as `seed` decides.

    `at_least`: what the API has asked for; it is heeded up to `ASKED_LAST`.
    """
    plain = BACKOFF_FIRST * 2 ** min(attempt - 1, 10)
    chance = int.from_bytes(hashlib.sha256(f"{seed}/{attempt}".encode()).digest()[:4], "big") / 2**32
    return round(max(min(BACKOFF_LAST, plain * (1 + JITTER * chance)), min(at_least, ASKED_LAST)), 3)
