"""The words by which a run's end is known, and what each means: why we ended it, what the closing statement says, what the API answered."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, NamedTuple

from cc_executor.model.outcome import OutcomeKind

OVERLOADED: Final = 529  # the Messages API's own status
LOG_IN: Final = "Run `claude` in a terminal and log in (or set ANTHROPIC_API_KEY)."
CHECK_KEY: Final = "Check ANTHROPIC_API_KEY; without one, run `claude` in a terminal and log in again."
SEE_MORE: Final = "See the run's journal and standard error for more."


class End(NamedTuple):
    """What one word means: the outcome's kind, its sentence, its cure."""

    kind: OutcomeKind
    summary: str
    cure: str


# By `terminal_reason` or, where that is absent (2.1.197: budget), by `subtype`.
_MORE_TURNS: Final = End(
    OutcomeKind.MAX_TURNS, "The agent used all the turns that it had.", "Allow more with --max-turns, or resume the session."
)
_MORE_MONEY: Final = End(
    OutcomeKind.BUDGET,
    "The budget is spent; it is checked after each answer, so the cost may be above it.",
    "Raise it with --max-cost, or resume the session.",
)
_INTERRUPTED: Final = End(
    OutcomeKind.CANCELLED, "The agent was interrupted by a signal that did not come from us.", "Run it again, or resume the session."
)
_HOOK: Final = End(OutcomeKind.FAILED, "One of the agent's own hooks ended the turn.", "Look at the hooks in its settings.")
ENDS: Final[dict[str, End]] = {
    "error_max_turns": _MORE_TURNS,
    "max_turns": _MORE_TURNS,
    "error_max_budget_usd": _MORE_MONEY,
    "budget_exhausted": _MORE_MONEY,
    "error_max_structured_output_retries": End(
        OutcomeKind.SCHEMA,
        "The agent did not meet the output schema in the tries that it had.",
        "Make the schema simpler, or describe it in the prompt.",
    ),
    "aborted_streaming": _INTERRUPTED,
    "aborted_tools": _INTERRUPTED,
    "prompt_too_long": End(
        OutcomeKind.FAILED,
        "The conversation is longer than the model takes.",
        "Shorten the prompt, name files instead of pasting them, or start a new session.",
    ),
    "image_error": End(
        OutcomeKind.FAILED,
        "The request is larger than the API takes.",
        "Name files instead of pasting them, and use smaller or fewer images and documents.",
    ),
    "stop_hook_prevented": _HOOK,
    "hook_stopped": _HOOK,
    "blocking_limit": End(
        OutcomeKind.FAILED,
        "The conversation reached the agent's limit.",
        "Shorten the prompt, name files instead of pasting them, or start a new session.",
    ),
    "rapid_refill_breaker": End(OutcomeKind.FAILED, "The context filled up again at once after compacting.", "Let it read less at a time."),
    "model_error": End(OutcomeKind.FAILED, "The model's answer could not be used.", "Run it again."),
    "tool_deferred": End(OutcomeKind.FAILED, "The agent ended with a tool call that somebody else should execute.", "Leave that tool out."),
}

_WINDOW_FULL: Final = End(OutcomeKind.FAILED, "The context window is full.", "Start a new session, or shorten the prompt.")
# By `stop_reason` of the last message. `model_context_window_exceeded` is the API's own word.
STOP_REASONS: Final[dict[str, End]] = {
    "refusal": End(OutcomeKind.FAILED, "The model refused.", "Rephrase the prompt in a new session, or choose another model with --model."),
    "max_tokens": End(
        OutcomeKind.FAILED,
        "The answer was cut at the model's output limit.",
        "Ask for less at a time, or set CLAUDE_CODE_MAX_OUTPUT_TOKENS.",
    ),
    "model_context_window_exceeded": _WINDOW_FULL,
}

# By the reason of the stop request: we ended it.
STOPS: Final[dict[str, End]] = {
    "cancel": End(OutcomeKind.CANCELLED, "The run was cancelled.", "Run it again, or resume its session."),
    "interrupt": End(OutcomeKind.CANCELLED, "The run was interrupted.", "Run it again, or resume its session."),
    "kernel_exit": End(
        OutcomeKind.CANCELLED,
        "The run was ended because the process that had started it was gone.",
        "A run that shall outlive its kernel is started with --bg.",
    ),
    "timeout": End(OutcomeKind.TIMEOUT, "The run took longer than its time limit.", "Give it more time with --timeout, or a smaller task."),
    "stalled": End(
        OutcomeKind.STALLED,
        "The run gave no sign of life for longer than its limit.",
        "Run it again; if a quiet step of it takes that long, raise --stall-timeout.",
    ),
    "loop": End(
        OutcomeKind.STALLED,
        "The agent went round in a circle, and was ended for it (loop_guard: stop).",
        "Say in the prompt what to do when a step does not help; or let it go on with --loop-guard tell.",
    ),
    "auth": End(OutcomeKind.AUTH, "The API refused the login, and the run was ended instead of asking for three minutes more.", CHECK_KEY),
    "budget": End(OutcomeKind.BUDGET, "The budget is spent.", "Raise it with --max-cost, or give a smaller task."),
}


class Fault(NamedTuple):
    """An error of the API: statuses and codes that name it."""

    statuses: frozenset[int]
    codes: frozenset[str]
    end: End


def _fault(kind: OutcomeKind, summary: str, cure: str, *, statuses: Sequence[int] = (), codes: Sequence[str] = ()) -> Fault:
    return Fault(frozenset(statuses), frozenset(codes), End(kind, summary, cure))


UNREACHABLE: Final = End(
    OutcomeKind.FAILED,
    "The API could not be reached, or failed on its side.",
    "Check the network, proxy and ANTHROPIC_BASE_URL, then run it again.",
)

# Told to wait for 20 s, the CLI waits and asks again; told to wait for 120 s or an hour, it ends at once, and does not say how long (2.1.329).
LONG_WAIT: Final = End(
    OutcomeKind.RATE_LIMITED,
    "The API throttles this account, and the agent did not ask again, as it does when it is told to wait for minutes or hours.",
    "Run it again in an hour, or choose another model; the account's own page says when its limits open.",
)

# In this order, because a code and a status may disagree: no credit is 400 with `billing_error`. A code is the CLI's `assistant.error`.
FAULTS: Final = (
    _fault(
        OutcomeKind.USAGE_LIMITED,
        "The account has no credit left.",
        "Buy credit for the account of this key, or use another login.",
        codes=("billing_error",),
        statuses=(HTTPStatus.PAYMENT_REQUIRED,),
    ),
    _fault(
        OutcomeKind.AUTH,
        "The API refused the login.",
        CHECK_KEY,
        statuses=(HTTPStatus.UNAUTHORIZED,),
    ),
    _fault(
        OutcomeKind.AUTH,
        "This login has no access to what was asked for.",
        "Use a login of an organisation that has access, or choose another model.",
        statuses=(HTTPStatus.FORBIDDEN,),
        codes=("oauth_org_not_allowed",),
    ),
    _fault(OutcomeKind.AUTH, "The agent is not logged in.", LOG_IN, codes=("authentication_failed",)),
    _fault(
        OutcomeKind.RATE_LIMITED,
        "The API throttles this account.",
        "Wait, run fewer agents at a time, or choose another model.",
        statuses=(HTTPStatus.TOO_MANY_REQUESTS,),
        codes=("rate_limit",),
    ),
    _fault(
        OutcomeKind.RATE_LIMITED,
        "The API is overloaded.",
        "Run it again later, or name a second model with --fallback-model.",
        statuses=(OVERLOADED,),
        codes=("overloaded",),
    ),
    _fault(
        OutcomeKind.FAILED,
        "The model is not known to the API, or not to this account.",
        "Name another with --model.",
        statuses=(HTTPStatus.NOT_FOUND,),
        codes=("model_not_found",),
    ),
    _fault(
        OutcomeKind.FAILED,
        "The request is larger than the API takes.",
        "Shorten the prompt, or name files instead of pasting them.",
        statuses=(HTTPStatus.REQUEST_ENTITY_TOO_LARGE,),
    ),
    _fault(
        OutcomeKind.FAILED,
        "The answer was cut at the model's output limit.",
        "Ask for less at a time, or set CLAUDE_CODE_MAX_OUTPUT_TOKENS.",
        codes=("max_output_tokens",),
    ),
    _fault(*_WINDOW_FULL, codes=("model_context_window_exceeded",)),
    _fault(*UNREACHABLE, statuses=range(500, 600), codes=("server_error", "unknown")),
    _fault(OutcomeKind.FAILED, "The API did not take the request.", SEE_MORE, codes=("invalid_request",), statuses=range(400, 500)),
)
