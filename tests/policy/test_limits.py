"""The pure decisions about limits: when something is tried again, what it may cost, and when an agent goes round in a circle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_executor.agents.claude.decode import ClaudeDecoder
from cc_executor.model.care import OnLimit, OnOutputLimit
from cc_executor.model.event import AgentFailed, ApiRetried, Event, Finished, RateLimited, Repeated, TextWritten, ToolCalled, ToolReturned
from cc_executor.model.fold import advance_all
from cc_executor.model.outcome import OutcomeKind
from cc_executor.model.state import RunState
from cc_executor.policy.budget import SMALLEST, Purse
from cc_executor.policy.loopguard import REPEATS, LoopGuard
from cc_executor.policy.retry import (
    ASKED_LAST,
    BACKOFF_LAST,
    LIMIT_WAITS,
    OUTPUT_TRIES,
    Again,
    Care,
    Cause,
    Hit,
    backoff,
    decide,
    hit_of,
    said,
)
from support.recordings import Recording

K = OutcomeKind
WAIT = Care(on_limit=OnLimit.WAIT)


# --- what a run has met -----------------------------------------------------------------------------------------------


def after(*events: Event) -> RunState:
    return advance_all(RunState(), events)


@pytest.mark.parametrize(
    ("kind", "state", "hit"),
    [
        (K.USAGE_LIMITED, after(RateLimited(status="rejected", resets_at=9.0)), Hit(Cause.USAGE, 9.0)),
        (K.USAGE_LIMITED, after(RateLimited(status="allowed_warning", resets_at=9.0), AgentFailed(code="billing_error")), Hit(Cause.USAGE)),
        (K.USAGE_LIMITED, after(AgentFailed(code="billing_error")), Hit(Cause.USAGE)),
        (K.RATE_LIMITED, after(ApiRetried(attempt=1, max_attempts=2, delay=20.0, status=429)), Hit(delay=20.0)),
        (K.RATE_LIMITED, after(RateLimited(status="rejected", resets_at=9.0)), Hit()),
        (K.FAILED, after(AgentFailed(code="max_output_tokens")), Hit(Cause.OUTPUT)),
        (K.FAILED, after(Finished(subtype="success", is_error=True, stop_reason="max_tokens")), Hit(Cause.OUTPUT)),
        (K.FAILED, after(ApiRetried(attempt=1, max_attempts=2, delay=20.0, status=429), AgentFailed(code="max_output_tokens")), Hit(Cause.OUTPUT, delay=20.0)),
        (K.FAILED, after(AgentFailed(code="model_context_window_exceeded")), Hit()),
        (K.FAILED, after(Finished(subtype="success", is_error=True, text="max_tokens usage limit")), Hit()),
        (K.SCHEMA, after(), Hit(Cause.SCHEMA)),
    ],
    ids=[
        "window", "no credit", "no window", "throttled", "throttled in a window", "cut", "cut by stop reason", "cut and throttled", "context full",
        "only words", "schema",
    ],
)  # fmt: skip
def test_what_a_run_has_met_is_read_from_structured_facts(kind: OutcomeKind, state: RunState, hit: Hit) -> None:
    assert hit_of(kind, state) == hit


@pytest.mark.parametrize(
    ("recording", "kind", "cause"),
    [
        ("14e-ratelimit-rejected-subscriber", K.USAGE_LIMITED, Cause.USAGE),
        ("14e-v329-ratelimit-rejected-subscriber", K.USAGE_LIMITED, Cause.USAGE),
        ("04i-stop-max-tokens", K.FAILED, Cause.OUTPUT),
        ("04k-stop-context-window", K.FAILED, None),
        ("03j-429-persistent-retryafter1", K.RATE_LIMITED, None),
    ],
)
def test_recordings_of_limits(recording: str, kind: OutcomeKind, cause: Cause | None) -> None:
    hit = hit_of(kind, advance_all(RunState(), ClaudeDecoder().feed(Recording(recording).stdout)))
    assert hit.cause == cause
    assert hit.resets_at == (1795224998 if cause is Cause.USAGE else None)


# --- what follows -----------------------------------------------------------------------------------------------------


def follows(kind: OutcomeKind, hit: Hit, care: Care, **tried: int) -> Again | str | None:
    return decide(kind, hit, ended_at=1000.0, tried={Cause[name.upper()]: count for name, count in tried.items()}, care=care, seed="s")


@pytest.mark.parametrize(
    ("hit", "care", "waited", "words"),
    [
        (Hit(Cause.USAGE, 1600.0), Care(), 0, "Run it again after that, or let it wait (on_limit: wait)."),
        (Hit(Cause.USAGE), WAIT, 0, "nobody said when it ends"),
        (Hit(Cause.USAGE, 1000.0 + 7 * 3600), WAIT, 0, "7 h 0 min away; limit_wait_max is 6 h 0 min."),
        (Hit(Cause.USAGE, 1600.0), WAIT, LIMIT_WAITS, f"it was waited for {LIMIT_WAITS} times already"),
    ],
    ids=["stop", "no reset", "too far", "too often"],
)
def test_a_usage_limit_that_stops(hit: Hit, care: Care, waited: int, words: str) -> None:
    answer = follows(K.USAGE_LIMITED, hit, care, usage=waited)
    assert isinstance(answer, str)
    assert words in answer


def test_a_usage_limit_that_is_waited_for() -> None:
    answer = follows(K.USAGE_LIMITED, Hit(Cause.USAGE, 1600.0), WAIT)
    assert answer == Again(Cause.USAGE, 1602.0, "usage limit until 1970-01-01 00:26 UTC", is_resumed=True)
    assert isinstance(follows(K.USAGE_LIMITED, Hit(Cause.USAGE, 1000.0 + WAIT.limit_wait_max), WAIT), Again)
    for waited in range(LIMIT_WAITS):  # its clock is not ours, or the window did not open: not at once, and ever more slowly
        late = follows(K.USAGE_LIMITED, Hit(Cause.USAGE, 990.0), WAIT, usage=waited)
        assert isinstance(late, Again)
        assert late.until == 1000.0 + backoff(waited + 1, seed="s") >= 1005.0


def test_a_missing_result_is_asked_for_once_more_if_that_is_wanted() -> None:
    missing = Hit(Cause.SCHEMA)
    assert follows(K.SCHEMA, missing, Care()) is None
    again = follows(K.SCHEMA, missing, Care(reask=True, retry=1))
    assert isinstance(again, Again)
    assert (again.cause, again.until, again.is_resumed) == (Cause.SCHEMA, 1000.0, True)
    assert follows(K.SCHEMA, missing, Care(reask=True), schema=1) is None
    other = follows(K.FAILED, Hit(), Care(reask=True, retry=1))
    assert isinstance(other, Again)
    assert other.cause is Cause.RETRY


@pytest.mark.parametrize(
    ("kind", "care", "tried", "waits"),
    [
        (K.RATE_LIMITED, Care(retry=2), 0, True),
        (K.CRASHED, Care(retry=2), 1, True),
        (K.FAILED, Care(retry=2), 2, None),
        (K.FAILED, Care(), 0, None),
        (K.MAX_TURNS, Care(retry=1), 0, False),
        (K.RATE_LIMITED, Care(retry=1, backs_off=False), 0, False),
        (K.AUTH, Care(retry=5), 0, None),
        (K.DENIED, Care(retry=5), 0, None),
        (K.BUDGET, Care(retry=5), 0, None),
        (K.CANCELLED, Care(retry=5), 0, None),
    ],
)
def test_chance(kind: OutcomeKind, care: Care, tried: int, waits: bool | None) -> None:
    answer = follows(kind, Hit(), care, retry=tried)
    if waits is None:
        assert answer is None
    else:
        assert isinstance(answer, Again)
        assert (answer.until > 1000.0) is waits
        assert not answer.is_resumed
        assert answer.why == f"{kind.value.replace('_', ' ')}; tried again ({tried + 1} of {care.retry})"


def test_every_outcome_is_tried_again_where_that_can_help_and_waited_for_where_waiting_can() -> None:
    by_chance = {K.FAILED, K.RATE_LIMITED, K.STALLED, K.CRASHED, K.LOST}
    by_another_try = {K.SCHEMA, K.MAX_TURNS, K.TIMEOUT}
    for kind in K:
        answer = follows(kind, Hit(), Care(retry=1))
        if kind not in by_chance | by_another_try:
            assert answer is None, kind
        else:
            assert isinstance(answer, Again), kind
            assert (answer.until > 1000.0) == (kind in by_chance), kind


def test_as_long_as_the_api_has_asked_for_is_waited() -> None:
    answer = follows(K.RATE_LIMITED, Hit(delay=300.0), Care(retry=1))
    assert isinstance(answer, Again)
    assert answer.until == 1300.0


def test_a_cut_answer_that_nobody_wants_gone_on_with_is_a_failure_like_others() -> None:
    cut = Hit(Cause.OUTPUT)
    assert follows(K.FAILED, cut, Care()) is None
    wanted = Care(on_output_limit=OnOutputLimit.CONCISE)
    last = follows(K.FAILED, cut, wanted, output=OUTPUT_TRIES - 1)
    assert isinstance(last, Again)
    assert last.is_resumed
    assert last.why == f"the answer was cut at the output limit (concise, {OUTPUT_TRIES} of {OUTPUT_TRIES})"
    assert follows(K.FAILED, cut, wanted, output=OUTPUT_TRIES) is None
    assert follows(K.FAILED, Hit(), wanted) is None, "another failure is no cut answer"


def test_what_an_attempt_is_told() -> None:
    assert said("Do it.", "", is_resumed=False) == "Do it."
    assert said("Do it.", "", is_resumed=True).endswith("The task was:\n\nDo it.")
    assert said("Do it.", "Shorter.", is_resumed=True) == "Shorter."
    assert said("Do it.", "Shorter.", is_resumed=False) == "Shorter. The task was:\n\nDo it."


@given(st.integers(1, 6) | st.integers(1, 1000), st.text(max_size=8), st.floats(0, 1e6))
def test_waits_lie_between_five_seconds_and_a_minute_or_are_what_was_asked_for(attempt: int, seed: str, asked: float) -> None:
    wait = backoff(attempt, seed=seed)
    plain = 5 * 2 ** min(attempt - 1, 4)
    assert min(plain, BACKOFF_LAST) <= wait <= min(plain * 1.25, BACKOFF_LAST)
    assert wait == backoff(attempt, seed=seed)
    assert backoff(attempt, seed=seed, at_least=asked) == pytest.approx(max(wait, min(asked, ASKED_LAST)), abs=0.001)


def test_those_who_failed_together_do_not_come_back_together() -> None:
    assert len({backoff(1, seed=str(number)) for number in range(100)}) > 90


# --- money ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("purse", "wanted", "enough", "bound"),
    [
        (Purse(), None, True, None),
        (Purse(), 5.0, True, 5.0),
        (Purse(cap=1.0, spent=0.5), 0.5, True, 0.5),
        (Purse(cap=1.0, spent=0.5), 0.51, False, 0.51),
        (Purse(cap=1.0, spent=0.5), None, True, 0.5),
        (Purse(cap=1.0, spent=0.995), None, False, 0.005),
        (Purse(cap=1.0, reserved=(0.3, 0.3)), 0.4, True, 0.4),
        (Purse(cap=1.0, reserved=(0.3, 0.3)), 0.5, False, 0.5),
        (Purse(cap=1.0, day_cap=0.3, today=0.1), None, True, 0.2),
        (Purse(cap=0.1 + 0.2, spent=0.1), 0.2, True, 0.2),
    ],
)
def test_a_purse(purse: Purse, wanted: float | None, enough: bool, bound: float | None) -> None:
    assert purse.is_enough(wanted) is enough
    assert purse.bound(wanted) == bound


def test_what_is_spent_on_a_run_afterwards_is_kept_back() -> None:
    purse = Purse(cap=1.0, spent=0.5)
    assert purse.is_enough(0.3, 0.2)
    assert not purse.is_enough(0.3, 0.21)
    assert purse.bound(None, 0.2) == 0.3


def test_only_what_is_bounded_is_taken_by_a_run_without_a_bound() -> None:
    assert not Purse(reserved=(None,)).is_taken
    assert Purse(cap=1.0, reserved=(None,)).is_taken
    assert Purse(day_cap=1.0, reserved=(None,)).is_taken
    assert not Purse(cap=1.0, reserved=(0.1,)).is_taken


@given(st.floats(0.01, 100), st.lists(st.one_of(st.none(), st.floats(0.001, 50)), max_size=20))
def test_what_is_granted_one_after_the_other_is_never_more_than_the_cap(cap: float, wishes: list[float | None]) -> None:
    purse, granted = Purse(cap=cap), 0.0
    for wanted in wishes:
        if purse.is_taken or not purse.is_enough(wanted):
            continue
        granted += purse.bound(wanted) or 0.0
        purse = purse.with_one_more(wanted)
    assert granted <= cap + 1e-6


def test_a_purse_says_what_it_would_take() -> None:
    assert Purse(cap=1.0, spent=0.9).words("a", 0.5).endswith("A cap of $1.40 would let it start.")
    assert Purse(cap=5.0, day_cap=1.0, today=0.9).words("a", None).startswith("a has no bound of its own, and $0.10 of the day's $1.00")
    assert (
        Purse(cap=1.0, spent=0.9)
        .words("a", None, 0.2)
        .startswith("a has no bound of its own, and its validation $0.20, and $0.10 of $1.00")
    )
    assert Purse(day_cap=1.0, today=0.9).words("a", 0.3, 0.2) == (
        "a may cost $0.30 and its validation $0.20, and $0.10 of the day's $1.00 are left. Go on tomorrow, or with a day's cap of $1.40."
    )
    assert Purse(cap=1.0, spent=1.0).words("a", None) == ("a has no bound of its own, and $0.00 of $1.00 are left. Raise the cap to go on.")
    assert "tomorrow" in Purse(cap=5.0, day_cap=1.0, spent=4.0).words("a", 2.0), (
        "of both as much is left: a higher cap alone would not help"
    )
    assert "of $5.00" in Purse(cap=5.0, day_cap=1.0, spent=4.5).words("a", 2.0)
    assert "day's" in Purse(cap=5.0, day_cap=1.0, spent=4.5, today=0.9).words("a", 2.0)
    assert "of $5.00" in Purse(cap=5.0, spent=4.0, day_cap=4.0, today=1.0).words("a", 2.0)
    assert SMALLEST == 0.01


# --- circles ----------------------------------------------------------------------------------------------------------


def calls(*steps: tuple[str, str]) -> list[Event]:
    """Calls of Bash with their results, and talk between them."""
    events: list[Event] = []
    for number, (command, result) in enumerate(steps):
        events += [
            ToolCalled(tool_id=str(number), name="Bash", input=f'{{"command": "{command}"}}'),
            TextWritten(block="b", text="hm"),
            ToolReturned(tool_id=str(number), text=result),
        ]
    return events


@pytest.mark.parametrize(
    ("steps", "counts"),
    [
        ([("ls", "a")] * (REPEATS - 1), []),
        ([("ls", "a")] * REPEATS, [REPEATS]),
        ([("ls", "a")] * (2 * REPEATS), [REPEATS, 2 * REPEATS]),
        ([("ls", "a")] * (REPEATS - 1) + [("ls", "b")] + [("ls", "a")] * (REPEATS - 1), []),
        ([("ls", "a")] * REPEATS + [("ls", "b")] + [("ls", "a")] * REPEATS, [REPEATS, REPEATS]),
        ([("date", str(number)) for number in range(100)], []),
        ([("a", "1"), ("b", "2")] * REPEATS, [REPEATS]),
        ([("a", "1"), ("b", "2"), ("c", "3")] * REPEATS, [REPEATS]),
        ([("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")] * REPEATS, []),
    ],
    ids=[
        "not yet",
        "a circle",
        "twice as long",
        "another result between",
        "a second circle",
        "a clock",
        "two in turn",
        "three in turn",
        "four in turn",
    ],
)
def test_circles(steps: list[tuple[str, str]], counts: list[int]) -> None:
    whole = LoopGuard()
    found = whole.feed(calls(*steps))
    assert [event.count for event in found] == counts
    assert {event.about for event in found} <= {command for command, _ in steps}
    # In pieces, and through a copy, the same.
    guard, pieces = LoopGuard(), list[Repeated]()
    for event in calls(*steps):
        guard = guard.copy()
        pieces += guard.feed([event])
    assert pieces == found


def test_a_subagent_s_calls_and_those_that_run_are_no_circle() -> None:
    call = ToolCalled(tool_id="x", name="Bash", input="{}", parent="p")
    events: list[Event] = [call, ToolReturned(tool_id="x", text="", parent="p")] * 50
    events += [ToolCalled(tool_id=str(number), name="Bash", input="{}") for number in range(1000)]
    assert LoopGuard().feed(events) == []


def test_odd_calls_are_counted_like_others() -> None:
    def call(number: int) -> list[Event]:
        return [
            ToolCalled(tool_id=str(number), name="Bash", input="no JSON"),
            ToolReturned(tool_id=str(number), text="half a pair: \ud83d"),
        ]

    unknown = ToolReturned(tool_id="of another process", text="")
    events = [event for number in range(REPEATS) for event in (*call(number), unknown)]
    assert [event.count for event in LoopGuard().feed(events)] == [REPEATS]
