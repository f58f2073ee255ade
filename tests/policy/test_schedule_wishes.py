"""What somebody wishes for holds: left out stays left out, what runs is not begun twice, and the end word is true."""

from __future__ import annotations

import pytest

from cc_executor.model.listrecord import Begun, Closed, Hurried, ListStatus, Paused, Resumed, RetryAsked, SkipAsked, Stopped, TaskStatus
from cc_executor.policy.schedule import set_back
from policy.listplay import begun, task

USAGE: dict[str, object] = {"hit": "usage_limit", "session": "s1", "resets_at": 5000.0}


def test_what_runs_is_not_begun_a_second_time_beside_itself_and_what_it_costs_counts() -> None:
    play = begun(task("a"), task("b", "a"))
    play.add(RetryAsked(at=0.0, tasks=("a", "b")))  # two views, two presses: the second comes when the first was obeyed already
    play.go()
    assert play.started == ["a"]
    play.end("a", cost=0.5)
    assert (play.state.spent, play.at_work()) == (0.5, ["b"])


def test_what_is_looked_at_is_not_begun_beside_its_look() -> None:
    play = begun(task("a", validate="is it so?"))
    play.end("a", cost=0.5)
    play.add(RetryAsked(at=0.0, tasks=("a",)))
    play.go()
    play.say("a", "pass", accepted=True, cost=0.25)
    assert (play.started, play.state.status, play.state.spent) == (["a"], ListStatus.OK, 0.75)


def test_what_somebody_left_out_stays_left_out_when_the_list_is_run_again() -> None:
    play = begun(task("a"), task("b", "a"), task("c", "b"))
    play.add(SkipAsked(at=0.0, task="b"))
    play.end("a", "failed")
    play.add(RetryAsked(at=0.0, tasks=set_back(play.tasks, play.state, "a")))
    play.go()
    play.end("a")
    assert play.started == ["a", "a"]
    assert [play.status(name) for name in "bc"] == ["skipped", "skipped"]
    assert set_back(play.tasks, play.state, "b") == ("b", "c")  # unless it is that very task which is wanted


def test_a_failed_task_that_somebody_leaves_out_holds_nothing_up() -> None:
    play = begun(task("a"), task("b", "a"), task("c"))
    play.end("a", "failed")
    assert play.state.status is ListStatus.FAILED
    play.add(SkipAsked(at=0.0, task="a"))
    play.add(Resumed(at=0.0))
    play.go()
    assert [play.status(name) for name in "ab"] == ["skipped", "skipped"]
    assert play.at_work() == ["c"]
    play.end("c")
    assert play.state.status is ListStatus.OK


def test_a_list_of_which_somebody_left_out_a_task_and_with_it_what_needs_it_has_not_failed() -> None:
    play = begun(task("a"), task("b"), task("c", "b"))
    play.add(SkipAsked(at=0.0, task="b"))
    play.end("a")
    assert (play.status("c"), play.state.status) == ("skipped", ListStatus.OK)


def test_what_was_left_out_because_of_a_failure_as_well_is_a_failure() -> None:
    play = begun(task("a"), task("b"), task("c", "a", "b"), on_failure="skip")
    play.add(SkipAsked(at=0.0, task="b"))
    play.end("a", "failed")
    assert play.state.status is ListStatus.FAILED


@pytest.mark.parametrize("status", [ListStatus.OK])
def test_a_list_that_has_ended_well_has_nothing_to_go_on_with(status: ListStatus) -> None:
    play = begun(task("a"))
    play.end("a")
    assert play.state.status is status
    play.add(Resumed(at=0.0))
    assert play.state.status is status
    play.add(RetryAsked(at=0.0, tasks=("a",)))
    assert play.state.status is ListStatus.OPEN


def test_a_task_that_is_stopped_when_it_has_just_failed_is_not_tried_again() -> None:
    play = begun(task("a", retry=2))
    play.add(Paused(at=0.0))
    play.end("a", "timeout")  # tried again at once, but for the pause
    play.add(Stopped(at=0.0, task="a"))
    play.add(Resumed(at=0.0))
    play.go()
    assert (play.started, play.status("a")) == (["a"], "stopped")


def test_who_does_not_want_to_wait_for_a_usage_limit_is_obeyed_also_while_another_task_waits_for_it() -> None:
    play = begun(task("a", group="g"), task("b", group="g"), on_limit="wait")
    for name in "ab":
        play.end(name, "usage_limited", **USAGE)
    assert play.held() == ["a", "b"]
    play.add(Hurried(at=0.0, task="a"))
    play.go()
    assert play.at_work() == ["a"]
    assert play.held() == ["b"]


def test_the_end_names_the_cap_that_was_used_up() -> None:
    play = begun(task("a"), max_cost=100.0, max_cost_per_day=1.0)
    play.today = 1.0
    play.end("a", "budget", cost=1.0)
    assert (play.state.status, play.state.summary) == (
        ListStatus.BUDGET,
        "a used what was left of the day's $1.00, and was not ready. Raise the cap to go on; 0 of 1 tasks ended well",
    )


def test_a_day_whose_money_is_used_up_is_no_failure() -> None:
    play = begun(task("a"), max_cost_per_day=1.0)
    play.today = 1.0
    play.end("a", "budget", cost=1.0)
    assert play.state.status is ListStatus.BUDGET
    assert isinstance(play.records[-1], Closed)
    assert not any(isinstance(record, Begun) for record in play.records[1:])
    assert play.state.task("a").status is TaskStatus.FAILED
