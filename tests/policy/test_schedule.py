"""The scheduler as a state machine: whatever happens, in whatever order, its promises hold; and what it does in each plain case."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_executor.model.care import OUTPUT_TRIES
from cc_executor.model.listrecord import (
    INTERRUPTED,
    Begun,
    Capped,
    Closed,
    Edited,
    Ended,
    Hurried,
    ListState,
    ListStatus,
    Paused,
    Record,
    Resumed,
    RetryAsked,
    SkipAsked,
    Skipped,
    Stopped,
    TaskStatus,
    Validated,
    Validating,
    Waiting,
    advance_all,
)
from cc_executor.model.tasklist import OnFailure, TaskList
from cc_executor.policy.retry import LIMIT_WAITS
from cc_executor.policy.schedule import Cancel, bounded, due, set_back
from policy.listplay import Play, begun, listed, task


def test_one_after_the_other() -> None:
    play = begun(task("a"), task("b"), task("c"))
    for name in "abc":
        assert play.at_work() == [name]
        play.end(name)
    assert (play.state.status, play.state.summary) == (ListStatus.OK, "3 of 3 tasks ended well")


def test_a_group_runs_side_by_side_within_its_bound_and_alone() -> None:
    play = begun(task("a"), *(task(f"g{n}", group="g") for n in range(4)), task("z"), parallel=3)
    assert play.at_work() == ["a"]
    play.end("a")
    assert play.at_work() == ["g0", "g1", "g2"]
    play.end("g1")
    assert play.at_work() == ["g0", "g2", "g3"]
    for name in ("g0", "g2"):
        play.end(name)
    assert play.at_work() == ["g3"]
    play.end("g3")
    assert play.at_work() == ["z"]


def test_a_failure_stops_the_list() -> None:
    play = begun(task("a"), task("b"), task("c"))
    play.end("a")
    play.end("b", "failed")
    assert (play.state.status, play.status("c")) == (ListStatus.FAILED, "waiting")
    assert play.state.summary == "b did not end well (failed); 1 of 3 tasks ended well"


def test_a_failure_skips_what_needs_it_and_nothing_else() -> None:
    play = begun(task("a"), task("b", "a"), task("c", "b"), task("d"), task("e", "d"), on_failure="skip")
    play.end("a", "failed")
    assert [play.status(name) for name in "abc"] == ["failed", "skipped", "skipped"]
    play.end("d")
    play.end("e")
    assert (play.state.status, play.state.summary) == (ListStatus.FAILED, "2 of 5 tasks ended well")


def test_a_failure_may_stand() -> None:
    play = begun(task("a", on_failure="continue"), task("b", "a"))
    play.end("a", "failed", text="half")
    assert play.at_work() == ["b"]
    assert play.state.task("a").made.result == "half"


@pytest.mark.parametrize(
    ("outcome", "starts"),
    [("failed", 3), ("timeout", 3), ("crashed", 3), ("auth", 1), ("usage_limited", 1), ("cancelled", 1), ("budget", 1)],
)
def test_what_is_worth_it_is_tried_again(outcome: str, starts: int) -> None:
    play = begun(task("a", retry=2), task("b"))
    while play.at_work() == ["a"]:
        play.end("a", outcome)
        play.later(100)
    assert play.started == ["a"] * starts
    assert play.state.status is (ListStatus.LIMITED if outcome == "usage_limited" else ListStatus.FAILED)


def test_an_interrupted_attempt_does_not_count_and_its_session_goes_on() -> None:
    play = begun(task("a"))
    play.end("a", INTERRUPTED, session="s1")
    assert play.started == ["a", "a"]
    known = play.state.task("a")
    assert (known.attempts, known.begun, known.status) == (1, 2, TaskStatus.RUNNING)


def test_pause_starts_nothing_and_resume_goes_on() -> None:
    play = begun(task("a"), task("b"))
    play.add(Paused(at=0.0))
    play.end("a")
    assert play.at_work() == []
    assert play.state.status is ListStatus.OPEN
    play.add(Resumed(at=0.0))
    play.go()
    assert play.at_work() == ["b"]


def test_stop_ends_what_runs_and_closes() -> None:
    play = begun(task("a", group="g"), task("b", group="g"), task("c"))
    play.add(Stopped(at=0.0))
    assert play.go() == [Cancel("a"), Cancel("b")]
    play.end("a", "cancelled")
    play.end("b", "cancelled")
    assert (play.state.status, play.status("a"), play.status("c")) == (ListStatus.STOPPED, "stopped", "waiting")


def test_a_list_that_is_stopped_when_all_of_it_has_ended_well_has_ended_well() -> None:
    play = begun(task("a"), task("b", "a"))
    play.end("a")
    play.add(Stopped(at=0.0))
    assert play.go() == [Cancel("b")]
    play.end("b")  # it was faster
    assert (play.state.status, play.status("b")) == (ListStatus.OK, "ok")


def test_somebody_leaves_a_task_out() -> None:
    play = begun(task("a"), task("b"), task("c", "b"), task("d"))
    play.add(SkipAsked(at=0.0, task="b"))
    play.end("a")
    assert [play.status(name) for name in "bcd"] == ["skipped", "skipped", "running"]
    play.add(SkipAsked(at=0.0, task="d"))
    assert play.go() == [Cancel("d")]
    play.end("d", "cancelled")
    assert play.status("d") == "skipped"


def test_a_task_is_done_again_with_what_was_skipped_for_it() -> None:
    play = begun(task("a"), task("b", "a"), on_failure="skip")
    play.end("a", "failed", cost=0.5)
    assert play.state.status is ListStatus.FAILED
    play.add(RetryAsked(at=0.0, tasks=("a", "b")))
    play.go()
    assert play.at_work() == ["a"]
    play.end("a", cost=0.25)
    play.end("b")
    assert play.state.status is ListStatus.OK
    assert (play.state.task("a").begun, play.state.spent) == (2, 0.75)


def test_only_a_task_that_waits_can_be_edited() -> None:
    play = begun(task("a"), task("b"))
    play.add(Edited(at=0.0, task="a", text="other"))
    play.add(Edited(at=0.0, task="b", text="other"))
    assert play.state.texts == {"b": "other"}


def test_the_task_that_would_exceed_the_cap_does_not_start() -> None:
    play = begun(task("a", max_cost=0.2), task("b", max_cost=0.4), max_cost=0.5)
    play.end("a", cost=0.2)
    assert play.started == ["a"]
    assert play.state.status is ListStatus.BUDGET
    assert play.state.summary == "b may cost $0.40, and $0.30 of $0.50 are left. A cap of $0.60 would let it start."


def test_a_task_without_a_cap_of_its_own_may_spend_what_is_left_and_alone() -> None:
    play = begun(task("a", group="g"), task("b", group="g"), max_cost=0.5)
    assert play.started == ["a"]
    assert play.caps == {"a": 0.5}
    play.end("a", cost=0.125)
    assert play.caps["b"] == 0.375
    play.end("b", cost=0.375)
    assert play.state.status is ListStatus.OK


USAGE: dict[str, object] = {"hit": "usage_limit", "session": "s1"}

# --- whatever happens -------------------------------------------------------------------------------------------------

OUTCOMES = ("ok", "ok", "ok", "failed", "timeout", "auth", "cancelled", "usage_limited", "schema", "cut", INTERRUPTED)


@st.composite
def lists(draw: st.DrawFn) -> TaskList:
    size = draw(st.integers(1, 7))
    items: list[object] = []
    for number in range(size):
        needs = draw(st.sets(st.integers(0, number - 1), max_size=2)) if number else set[int]()
        more = {"schema": {"type": "object"}, "reask": True} if draw(st.booleans()) else {}
        if draw(st.sampled_from((False, False, True))):
            more["validate"] = {"prompt": "v", "max_cost": 0.1}
        items.append(
            task(
                f"t{number}",
                *(f"t{need}" for need in sorted(needs)),
                group=draw(st.sampled_from(("", "", "g", "h"))),
                retry=draw(st.integers(0, 2)),
                on_failure=draw(st.sampled_from((None, *(policy.value for policy in OnFailure)))),
                max_cost=draw(st.sampled_from((None, 0.1, 0.3))),
                on_limit=draw(st.sampled_from((None, "wait", "stop"))),
                on_output_limit=draw(st.sampled_from(("stop", "continue", "outline"))),
                **more,
            )
        )
    return listed(
        *items,
        parallel=draw(st.integers(1, 3)),
        max_cost=draw(st.sampled_from((None, 0.5))),
        max_cost_per_day=draw(st.sampled_from((None, 0.7))),
        on_limit=draw(st.sampled_from(("stop", "wait"))),
        on_failure=draw(st.sampled_from(list(OnFailure))).value,
    )


STEPS = ("end", "end", "end", "end", "later", "pause", "resume", "stop", "stop one", "skip", "edit", "hurry", "retry", "cap")


@given(lists(), st.data())
def test_whatever_happens_the_promises_hold(tasks: TaskList, data: st.DataObject) -> None:
    play = Play(tasks)
    names = [item.id for item in tasks.tasks]
    for _ in range(60):
        cancels = play.go()
        _check(play, tasks)
        at_work = play.at_work()
        is_over = play.state.status is not ListStatus.OPEN
        if is_over and data.draw(st.booleans()):
            break
        assert is_over or at_work or play.held() or play.state.is_paused, (
            "an open list that is not held has something at work, or waits for a time"
        )
        step = data.draw(st.sampled_from(("resume", "retry", "cap") if is_over else STEPS))
        name = data.draw(st.sampled_from(names))
        if cancels or (step == "end" and at_work):
            name = cancels[0].task if cancels and isinstance(cancels[0], Cancel) else data.draw(st.sampled_from(at_work))
            _end(play, name, data, is_cancelled=bool(cancels))
        elif step == "later":
            play.later(data.draw(st.sampled_from((3, 30, 400, -1000))))  # the last: somebody sets the clock back
        elif step == "cap":
            play.add(_raised(play, data))
        else:
            again = set_back(tasks, play.state, name, onward=data.draw(st.booleans())) if step == "retry" else ()
            words: dict[str, Record] = {
                "pause": Paused(at=0.0), "stop": Stopped(at=0.0), "stop one": Stopped(at=0.0, task=name), "skip": SkipAsked(at=0.0, task=name),
                "edit": Edited(at=0.0, task=name, text="x"), "hurry": Hurried(at=0.0, task=name), "retry": RetryAsked(at=0.0, tasks=again),
            }  # fmt: skip
            play.add(words.get(step, Resumed(at=0.0)))
    # Each attempt is begun once, and looked at until somebody has said something.
    begun_ones = [(record.task, record.attempt) for record in play.records if isinstance(record, Begun)]
    assert len(begun_ones) == len(set(begun_ones))
    undecided = [
        (record.task, record.attempt) for record in play.records if isinstance(record, Validated) and record.verdict == "could_not_check"
    ]
    assert all(play.looks.count(look) <= 1 + undecided.count(look) for look in play.looks), "looked at again is what nobody could look at"
    # Replay gives the same state, also when it is told in pieces.
    cut = len(play.records) // 2
    assert advance_all(advance_all(ListState(), play.records[:cut]), play.records[cut:]) == play.state


def _raised(play: Play, data: st.DataObject) -> Capped:
    """Other bounds, none of them lower than before."""
    now = bounded(play.tasks, play.state)
    more = data.draw(st.sampled_from((0.0, 0.2, None)))
    caps = [None if cap is None or more is None else cap + more for cap in (now.max_cost, now.max_cost_per_day)]
    return Capped(at=0.0, max_cost=caps[0], max_cost_per_day=caps[1], on_limit=data.draw(st.sampled_from(("wait", "stop"))))


def _end(play: Play, name: str, data: st.DataObject, *, is_cancelled: bool) -> None:
    """What is at work ends somehow, and has not cost more than it might."""
    known = play.state.task(name)
    if known.validation:
        verdict = "could_not_check" if is_cancelled else data.draw(st.sampled_from(("pass", "fail", "could_not_check")))
        cost = min(play.caps[f"{name} validated"] or 0.0, 0.05)
        play.today += cost
        play.say(name, verdict, accepted=verdict == "pass", cost=cost)
        return
    outcome = "cancelled" if is_cancelled else data.draw(st.sampled_from(OUTCOMES))
    cap = play.caps[name]
    cost = min(0.1, cap) if cap is not None else 0.1
    play.today += cost
    hits: dict[str, dict[str, object]] = {
        "usage_limited": USAGE | {"resets_at": play.now + data.draw(st.sampled_from((-10, 300, 30_000)))},
        "schema": {"hit": "schema", "session": "s"},
        "cut": {"hit": "output_limit"},
    }
    play.end(name, "failed" if outcome == "cut" else outcome, cost=cost, **hits.get(outcome, {}))


def _check(play: Play, tasks: TaskList) -> None:
    at_work = [tasks.task(name) for name in play.at_work()]
    assert len(at_work) <= max(1, tasks.parallel)
    assert len(at_work) <= 1 or (len({item.group for item in at_work}) == 1 and at_work[0].group), "only one group runs side by side"
    for item in tasks.tasks:
        known = play.state.task(item.id)
        assert known.attempts <= item.retry + 1
        assert known.tried.get("usage_limit", 0) <= LIMIT_WAITS
        assert known.tried.get("output_limit", 0) <= OUTPUT_TRIES
        assert known.tried.get("schema", 0) <= 1
        if item.validation is not None and known.status is TaskStatus.OK:
            assert known.verdict == "pass", "what nobody has looked at is no success"
    tasks = bounded(tasks, play.state)
    for cap, spent in ((tasks.max_cost, play.state.spent), (tasks.max_cost_per_day, play.today)):
        assert cap is None or spent <= cap + 1e-6, "no cap is exceeded"
    if play.state.status is not ListStatus.OPEN:
        assert not at_work
    if play.state.status is ListStatus.OK:
        assert all(play.state.task(item.id).status in {TaskStatus.OK, TaskStatus.SKIPPED} for item in tasks.tasks)


RECORDS: Sequence[Record] = (
    Begun(at=0.0, task="a", attempt=1), Begun(at=0.0, task="a", attempt=9), Ended(at=0.0, task="a", attempt=1, outcome="ok"),
    Ended(at=0.0, task="a", attempt=3, outcome="lost"), Skipped(at=0.0, task="a", because="x"), Closed(at=0.0, status=ListStatus.OK), Paused(at=0.0),
    Resumed(at=0.0), Stopped(at=0.0), Stopped(at=0.0, task="a"), SkipAsked(at=0.0, task="b"), RetryAsked(at=0.0, tasks=("a", "zz")),
    Edited(at=0.0, task="b", text="t"), Ended(at=0.0, task="a", attempt=1, outcome="usage_limited", hit="usage_limit", resets_at=9.0),
    Ended(at=0.0, task="a", attempt=1, outcome="ok", to_validate=True), Waiting(at=0.0, task="a", until=9.0, why="w", cause="usage_limit"),
    Hurried(at=0.0, task="a"), Validating(at=0.0, task="a", attempt=1, run_id="v"), Capped(at=0.0, max_cost=0.1),
    Validated(at=0.0, task="a", attempt=1, verdict="fail", accepted=False), Ended(at=0.0, task="a", attempt=1, outcome="of a newer version", hit="new"),
)  # fmt: skip


@given(st.lists(st.sampled_from(RECORDS), max_size=30))
def test_the_fold_takes_any_records_in_any_order(records: list[Record]) -> None:
    state = advance_all(ListState(), records)
    due(listed(task("a"), task("b", "a")), state, now=0.0)
