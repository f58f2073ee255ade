"""What the scheduler does about limits, validations and money, case by case."""

from __future__ import annotations

import pytest

from cc_executor.model.care import OnOutputLimit
from cc_executor.model.listrecord import (
    Capped,
    Hurried,
    ListStatus,
    Resumed,
    RetryAsked,
    Stopped,
    Waiting,
)
from cc_executor.policy.retry import LIMIT_WAITS, SAY
from cc_executor.policy.schedule import set_back
from policy.listplay import Play, begun, listed, task

# --- limits -----------------------------------------------------------------------------------------------------------

USAGE: dict[str, object] = {"hit": "usage_limit", "session": "s1"}


def test_a_usage_limit_stops_the_list_at_once_whatever_a_failure_does() -> None:
    play = begun(task("a"), task("b", "a"), task("c"), on_failure="continue")
    play.end("a", "usage_limited", resets_at=1600.0, **USAGE)
    assert (play.state.status, play.started) == (ListStatus.LIMITED, ["a"])
    assert play.state.summary.startswith("a: The usage limit is reached until 1970-01-01 00:26 UTC. Run it again after that")
    assert play.status("b") == "waiting"


def test_a_usage_limit_is_waited_for_and_the_session_goes_on() -> None:
    play = begun(task("a"), task("b"), on_limit="wait")
    play.end("a", "usage_limited", resets_at=1600.0, cost=0.1, **USAGE)
    assert (play.state.status, play.held(), play.at_work()) == (ListStatus.OPEN, ["a"], [])
    play.later(601)
    assert play.at_work() == [], "the API's clock may be a moment behind"
    play.later(1)
    assert play.at_work() == ["a"]
    known = play.state.task("a")
    assert (known.begun, known.attempts, known.until) == (2, 1, None)
    assert [record.session for record in play.records if isinstance(record, Waiting)] == ["s1"]
    play.end("a")
    play.end("b")
    assert play.state.status is ListStatus.OK


@pytest.mark.parametrize(("ended", "goes_on"), [("crashed", ["a"]), ("usage_limited", [])])
def test_a_clock_that_is_set_back_makes_no_wait_of_our_own_longer(ended: str, goes_on: list[str]) -> None:
    play = begun(task("a", retry=1), on_limit="wait")
    play.end("a", ended, **({"resets_at": 1600.0} | USAGE if ended == "usage_limited" else {}))
    assert play.held() == ["a"]
    play.later(-3600)
    assert play.at_work() == goes_on


def test_while_one_waits_for_a_usage_limit_no_other_agent_meets_it() -> None:
    play = begun(task("a", group="g"), task("b", group="g"), {"id": "c", "run": "make", "group": "g"}, parallel=1, on_limit="wait")
    play.end("a", "usage_limited", resets_at=1600.0, **USAGE)
    assert (play.held(), play.at_work()) == (["a"], ["c"])
    play.end("c")
    assert play.at_work() == []
    play.later(602)
    assert play.at_work() == ["a"]


def test_somebody_does_not_want_to_wait() -> None:
    play = begun(task("a"), on_limit="wait")
    play.end("a", "usage_limited", resets_at=1600.0, **USAGE)
    play.add(Hurried(at=0.0, task="a"))
    play.go()
    assert play.at_work() == ["a"]


def test_somebody_ends_the_waiting() -> None:
    play = begun(task("a"), task("b"), on_limit="wait")
    play.end("a", "usage_limited", resets_at=1600.0, **USAGE)
    play.add(Stopped(at=0.0, task="a"))
    play.go()
    assert (play.status("a"), play.state.status) == ("stopped", ListStatus.FAILED)


def test_a_reset_too_far_away_stops_with_its_time() -> None:
    play = begun(task("a"), on_limit="wait", limit_wait_max=500)
    play.end("a", "usage_limited", resets_at=1600.0, **USAGE)
    assert play.state.status is ListStatus.LIMITED
    assert "10 min 0 s away; limit_wait_max is 8 min 20 s" in play.state.summary


def test_waits_for_a_limit_that_does_not_end_are_counted() -> None:
    play = begun(task("a"), on_limit="wait")
    for _ in range(100):
        if play.state.status is not ListStatus.OPEN:
            break
        if play.at_work():
            play.end("a", "usage_limited", resets_at=play.now - 50, **USAGE)
        play.later(10)
    assert play.state.status is ListStatus.LIMITED
    assert len(play.started) == 1 + LIMIT_WAITS


def test_a_throttled_agent_is_tried_again_after_a_while() -> None:
    play = begun(task("a", retry=1), task("b"))
    play.end("a", "rate_limited", delay=30.0)
    assert play.held() == ["a"]
    play.later(29)
    assert play.at_work() == []
    play.later(2)
    assert play.at_work() == ["a"]
    assert play.state.task("a").attempts == 2


@pytest.mark.parametrize(("strategy", "session"), [("continue", "s1"), ("concise", "s1"), ("outline", "s1")])
def test_a_cut_answer_is_gone_on_with_at_most_twice(strategy: str, session: str) -> None:
    play = begun(task("a", on_output_limit=strategy))
    for _ in range(3):
        play.end("a", "failed", hit="output_limit", session=session, cost=0.1)
    waits = [record for record in play.records if isinstance(record, Waiting)]
    assert [(record.cause, record.session) for record in waits] == [("output_limit", "s1")] * 2
    assert waits[0].say == SAY[OnOutputLimit(strategy)]
    assert (play.state.status, play.state.spent) == (ListStatus.FAILED, pytest.approx(0.3))


def test_a_cut_answer_is_left_alone_unless_something_else_was_said() -> None:
    play = begun(task("a"))
    play.end("a", "failed", hit="output_limit", session="s1")
    assert play.started == ["a"]


def test_a_missing_structured_result_is_asked_for_once_more() -> None:
    play = begun(task("a", schema={"type": "object"}, reask=True))
    play.end("a", "schema", hit="schema", session="s1")
    assert play.at_work() == ["a"]
    play.end("a", "schema", hit="schema", session="s1")
    assert (play.started, play.state.status) == (["a", "a"], ListStatus.FAILED)


# --- validation -------------------------------------------------------------------------------------------------------


def test_what_needs_a_task_waits_for_its_validation() -> None:
    play = begun(task("a", validate="it works"), task("b", "a"))
    play.end("a", text="done")
    assert (play.status("a"), play.at_work(), play.looks) == ("running", ["a"], [("a", 1)])
    play.say("a", "pass", accepted=True, cost=0.2)
    assert (play.status("a"), play.at_work()) == ("ok", ["b"])
    assert (play.state.spent, play.state.task("a").text) == (0.2, "done")


def test_a_failed_validation_is_a_failed_task_and_retry_does_it_again() -> None:
    play = begun(task("a", validate="it works", retry=1), task("b"))
    play.end("a")
    play.say("a", "fail", accepted=False)
    assert play.held() == ["a"]
    play.later(10)
    play.end("a")
    play.say("a", "pass", accepted=True)
    assert play.looks == [("a", 1), ("a", 2)]
    assert play.at_work() == ["b"]


def test_what_could_not_be_checked_is_no_success_and_is_looked_at_again_not_done_again() -> None:
    play = begun(task("a", validate="it works", retry=3), task("b"))
    play.end("a")
    play.say("a", "could_not_check", accepted=False)
    assert (play.status("a"), play.state.status, play.started) == ("failed", ListStatus.FAILED, ["a"])
    play.add(RetryAsked(at=0.0, tasks=("a",)))
    play.go()
    assert (play.started, play.looks) == (["a"], [("a", 1), ("a", 1)])
    play.say("a", "pass", accepted=True)
    assert play.at_work() == ["b"]


def test_a_look_that_is_wanted_again_waits_for_its_turn_as_a_task_does() -> None:
    play = begun(task("a", validate="it works"), task("b"), task("c"), on_failure="continue")
    play.end("a")
    play.say("a", "could_not_check", accepted=False)
    assert play.at_work() == ["b"]
    play.add(RetryAsked(at=0.0, tasks=("a",)))
    play.go()
    assert play.at_work() == ["b"], "in a folder in which another task works there is nothing to be judged"
    play.end("b")
    assert play.at_work() == ["a"]
    play.say("a", "pass", accepted=True)
    assert play.at_work() == ["c"]
    assert (play.started, play.looks) == (["a", "b", "c"], [("a", 1), ("a", 1)])


def test_what_is_needed_is_done_again_before_the_look() -> None:
    play = begun(task("a"), task("b", "a", validate="it works"))
    play.end("a")
    play.end("b")
    play.say("b", "could_not_check", accepted=False)
    play.add(RetryAsked(at=0.0, tasks=set_back(play.tasks, play.state, "a")))
    play.go()
    assert play.at_work() == ["a"]
    play.end("a")
    assert play.at_work() == ["b"]
    assert play.looks == [("b", 1), ("b", 1)]


def test_where_nothing_further_is_begun_a_look_does_not_wait_for_it() -> None:
    play = begun(task("a"), task("b"), task("c", "b", validate="it works"), on_failure="continue")
    for name in "abc":
        play.end(name)
    play.say("c", "could_not_check", accepted=False)
    play.add(RetryAsked(at=0.0, tasks=("b", "c")))
    play.add(Capped(at=0.0, max_cost=0.001))
    play.go()
    assert play.at_work() == []
    assert (play.state.task("c").verdict, play.state.status) == ("could_not_check", ListStatus.BUDGET)


def test_the_money_for_a_validation_is_kept_back() -> None:
    look = {"prompt": "it works", "max_cost": 0.3}
    play = begun(task("a", max_cost=0.2, validate=look), task("b", max_cost=0.2, validate=look), max_cost=0.9)
    play.end("a", cost=0.2)
    assert play.caps["a validated"] == 0.3
    play.say("a", "pass", accepted=True, cost=0.3)
    assert play.state.status is ListStatus.BUDGET
    assert (
        play.state.summary == "b may cost $0.20 and its validation $0.30, and $0.40 of $0.90 are left. A cap of $1.00 would let it start."
    )


# --- money ------------------------------------------------------------------------------------------------------------


def test_a_group_reserves_what_each_of_it_may_spend() -> None:
    play = begun(*(task(f"g{n}", group="g", max_cost=0.2) for n in range(3)), max_cost=0.5)
    assert play.at_work() == ["g0", "g1"]
    play.end("g0", cost=0.05)
    assert play.at_work() == ["g1", "g2"]


def test_less_than_a_cent_is_nothing_to_start_with() -> None:
    play = begun(task("a"), task("b"), max_cost=0.5)
    play.end("a", cost=0.495)
    assert play.state.status is ListStatus.BUDGET
    assert play.state.summary == "b has no bound of its own, and $0.01 of $0.50 are left. Raise the cap to go on."


def test_what_used_up_the_rest_of_the_money_says_so() -> None:
    play = begun(task("a"), task("b"), max_cost=0.5)
    play.end("a", "budget", cost=0.5)
    assert play.state.status is ListStatus.BUDGET
    assert play.state.summary == "a used what was left of $0.50, and was not ready. Raise the cap to go on; 0 of 2 tasks ended well"


def test_the_day_s_cap_counts_what_others_have_spent() -> None:
    play = Play(listed(task("a", max_cost=0.2), max_cost_per_day=1))
    play.today = 0.9
    play.go()
    assert (play.started, play.state.status) == ([], ListStatus.BUDGET)
    assert play.state.summary == "a may cost $0.20, and $0.10 of the day's $1.00 are left. Go on tomorrow, or with a day's cap of $1.10."


def test_other_bounds_hold_from_then_on() -> None:
    play = begun(task("a", max_cost=0.2), task("b", max_cost=0.4), max_cost=0.5)
    play.end("a", cost=0.2)
    assert play.state.status is ListStatus.BUDGET
    play.add(Capped(at=0.0, max_cost=0.6))
    play.add(Resumed(at=0.0))
    play.go()
    assert play.at_work() == ["b"]
