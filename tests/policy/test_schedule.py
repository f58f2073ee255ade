"""The scheduler as a state machine: whatever happens, in whatever order, its promises hold; and what it does in each plain case."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_executor.model.listrecord import (
    INTERRUPTED,
    Begun,
    Closed,
    Edited,
    Ended,
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
    advance,
    advance_all,
)
from cc_executor.model.tasklist import OnFailure, TaskKind, TaskList
from cc_executor.model.tasktext import from_items
from cc_executor.policy.schedule import Action, Cancel, Close, Skip, Start, due

OVER = {TaskStatus.OK, TaskStatus.FAILED, TaskStatus.SKIPPED, TaskStatus.STOPPED}


def listed(*items: object, **more: Any) -> TaskList:
    made = from_items(items, cwd="/w", **more)
    assert made.tasks is not None
    assert made.problems == []
    return made.tasks


def task(task_id: str, *needs: str, **more: object) -> dict[str, object]:
    return {"id": task_id, "prompt": task_id, "needs": needs, **more}


class Play:
    """A list that is run by nobody but the scheduler and this test's words."""

    def __init__(self, tasks: TaskList) -> None:
        self.tasks = tasks
        self.state = ListState()
        self.records: list[Record] = []
        self.started: list[str] = []
        self.caps: dict[str, float | None] = {}
        self._clock = count()

    def add(self, record: Record) -> None:
        self.records.append(record)
        self.state = advance(self.state, record)

    def go(self) -> list[Action]:
        """Carry out what is due until there is nothing to do but wait."""
        cancelled: list[Action] = []
        for _ in range(1000):
            actions = due(self.tasks, self.state)
            fresh = [action for action in actions if not isinstance(action, Cancel)]
            cancelled = [action for action in actions if isinstance(action, Cancel)]
            if not fresh:
                return cancelled
            for action in fresh:
                self._do(action)
        raise AssertionError("the scheduler never comes to rest")

    def _do(self, action: Action) -> None:
        at = float(next(self._clock))
        match action:
            case Start(task=name, max_cost=cap):
                self.started.append(name)
                self.caps[name] = cap
                self.add(Begun(at=at, task=name, attempt=self.state.task(name).begun + 1, run_id=f"r{at}"))
            case Skip(task=name, because=because):
                self.add(Skipped(at=at, task=name, because=because))
            case Close(status=status, summary=summary):
                self.add(Closed(at=at, status=status, summary=summary))
            case Cancel():
                raise AssertionError

    def end(self, name: str, outcome: str = "ok", **more: object) -> None:
        known = self.state.task(name)
        assert known.status is TaskStatus.RUNNING
        self.add(Ended(at=0.0, task=name, attempt=known.begun, outcome=outcome, **more))  # pyright: ignore[reportArgumentType] - fields by name
        self.go()

    def at_work(self) -> list[str]:
        return [name for name in self.state.tasks if self.state.task(name).status is TaskStatus.RUNNING]

    def status(self, name: str) -> str:
        return self.state.task(name).status.value


def begun(*items: object, **more: Any) -> Play:
    play = Play(listed(*items, **more))
    play.go()
    return play


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
    assert play.started == ["a"] * starts
    assert play.state.status is ListStatus.FAILED


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


# --- whatever happens -------------------------------------------------------------------------------------------------

OUTCOMES = ("ok", "ok", "ok", "failed", "timeout", "auth", "cancelled", INTERRUPTED)


@st.composite
def lists(draw: st.DrawFn) -> TaskList:
    size = draw(st.integers(1, 7))
    items: list[object] = []
    for number in range(size):
        needs = draw(st.sets(st.integers(0, number - 1), max_size=2)) if number else set[int]()
        items.append(
            task(
                f"t{number}",
                *(f"t{need}" for need in sorted(needs)),
                group=draw(st.sampled_from(("", "", "g", "h"))),
                retry=draw(st.integers(0, 2)),
                on_failure=draw(st.sampled_from((None, *(policy.value for policy in OnFailure)))),
                max_cost=draw(st.sampled_from((None, 0.1, 0.3))),
            )
        )
    return listed(
        *items,
        parallel=draw(st.integers(1, 3)),
        max_cost=draw(st.sampled_from((None, 0.5))),
        on_failure=draw(st.sampled_from(list(OnFailure))).value,
    )


@given(lists(), st.data())
def test_whatever_happens_the_promises_hold(tasks: TaskList, data: st.DataObject) -> None:
    play = Play(tasks)
    names = [item.id for item in tasks.tasks]
    for _ in range(60):
        cancels = play.go()
        _check(play, tasks)
        at_work = play.at_work()
        if play.state.status is not ListStatus.OPEN:
            break
        assert at_work or play.state.is_paused, "an open list that is not held has something at work"
        step = data.draw(st.sampled_from(("end", "end", "end", "pause", "resume", "stop", "stop one", "skip", "edit")))
        name = data.draw(st.sampled_from(names))
        if cancels or (step == "end" and at_work):
            name = cancels[0].task if cancels and isinstance(cancels[0], Cancel) else data.draw(st.sampled_from(at_work))
            play.end(name, "cancelled" if cancels else data.draw(st.sampled_from(OUTCOMES)), cost=0.05)
        else:
            words: dict[str, Record] = {
                "pause": Paused(at=0.0), "stop": Stopped(at=0.0), "stop one": Stopped(at=0.0, task=name), "skip": SkipAsked(at=0.0, task=name),
                "edit": Edited(at=0.0, task=name, text="x"),
            }  # fmt: skip
            play.add(words.get(step, Resumed(at=0.0)))
    # Replay gives the same state, also when it is told in pieces.
    cut = len(play.records) // 2
    assert advance_all(advance_all(ListState(), play.records[:cut]), play.records[cut:]) == play.state


def _check(play: Play, tasks: TaskList) -> None:
    at_work = [tasks.task(name) for name in play.at_work()]
    assert len(at_work) <= max(1, tasks.parallel)
    assert len(at_work) <= 1 or (len({item.group for item in at_work}) == 1 and at_work[0].group), "only one group runs side by side"
    for item in tasks.tasks:
        known = play.state.task(item.id)
        if known.status in {TaskStatus.RUNNING, TaskStatus.OK}:
            for need in item.all_needs:
                status = play.state.task(need).status
                assert status in OVER
                assert status is TaskStatus.OK or tasks.policy(tasks.task(need)) is not OnFailure.SKIP or item.kind is TaskKind.CALL
        assert known.attempts <= item.retry + 1
    if play.state.status in {ListStatus.OK, ListStatus.FAILED, ListStatus.STOPPED, ListStatus.BUDGET}:
        assert not at_work
    if play.state.status is ListStatus.OK:
        assert all(play.state.task(item.id).status in {TaskStatus.OK, TaskStatus.SKIPPED} for item in tasks.tasks)


RECORDS: Sequence[Record] = (
    Begun(at=0.0, task="a", attempt=1), Begun(at=0.0, task="a", attempt=9), Ended(at=0.0, task="a", attempt=1, outcome="ok"),
    Ended(at=0.0, task="a", attempt=3, outcome="lost"), Skipped(at=0.0, task="a", because="x"), Closed(at=0.0, status=ListStatus.OK), Paused(at=0.0),
    Resumed(at=0.0), Stopped(at=0.0), Stopped(at=0.0, task="a"), SkipAsked(at=0.0, task="b"), RetryAsked(at=0.0, tasks=("a", "zz")),
    Edited(at=0.0, task="b", text="t"),
)  # fmt: skip


@given(st.lists(st.sampled_from(RECORDS), max_size=30))
def test_the_fold_takes_any_records_in_any_order(records: list[Record]) -> None:
    state = advance_all(ListState(), records)
    due(listed(task("a"), task("b", "a")), state)
