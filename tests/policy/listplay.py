"""A task list that is run by nobody but the scheduler and a test's words."""

from __future__ import annotations

from itertools import count
from typing import Any

from cc_executor.model.listrecord import (
    OWED,
    Begun,
    Closed,
    Ended,
    ListState,
    Record,
    Skipped,
    TaskStatus,
    Validated,
    Validating,
    Waiting,
    advance,
)
from cc_executor.model.tasklist import OnFailure, TaskList
from cc_executor.model.tasktext import from_items
from cc_executor.policy.budget import SMALLEST
from cc_executor.policy.schedule import Action, Cancel, Close, Skip, Start, Validate, Wait, due


def listed(*items: object, **more: Any) -> TaskList:
    made = from_items(items, cwd="/w", **more)
    assert made.tasks is not None
    assert made.problems == []
    return made.tasks


def task(task_id: str, *needs: str, **more: object) -> dict[str, object]:
    return {"id": task_id, "prompt": task_id, "needs": needs, **more}


OVER = {TaskStatus.OK, TaskStatus.FAILED, TaskStatus.SKIPPED, TaskStatus.STOPPED}


class Play:
    """A list that is run by nobody but the scheduler and this test's words."""

    def __init__(self, tasks: TaskList) -> None:
        self.tasks = tasks
        self.state = ListState()
        self.records: list[Record] = []
        self.started: list[str] = []
        self.caps: dict[str, float | None] = {}
        self.looks: list[tuple[str, int]] = []  # validations, by task and attempt
        self.now = 1000.0
        self.today = 0.0
        self._clock = count()

    def add(self, record: Record) -> None:
        self.records.append(record)
        self.state = advance(self.state, record)

    def go(self) -> list[Action]:
        """Carry out what is due until there is nothing to do but wait."""
        cancelled: list[Action] = []
        for _ in range(1000):
            actions = due(self.tasks, self.state, now=self.now, today=self.today)
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
                known = self.state.task(name)
                assert known.until is None or known.until <= self.now or self.now < known.ended_at, "nothing is begun before its time"
                for need in map(self.tasks.task, self.tasks.task(name).all_needs):
                    status = self.state.task(need.id).status
                    assert status in OVER, "nothing is begun before what it needs has ended"
                    assert status is TaskStatus.OK or self.tasks.policy(need) is not OnFailure.SKIP, "nor after what has made it fail"
                self.started.append(name)
                self.caps[name] = cap
                self.add(Begun(at=at, task=name, attempt=self.state.task(name).begun + 1, run_id=f"r{at}"))
            case Skip(task=name, because=because):
                self.add(Skipped(at=at, task=name, because=because))
            case Close(status=status, summary=summary):
                self.add(Closed(at=at, status=status, summary=summary))
            case Wait(task=name, until=until, why=why, cause=cause, session=session, say=say):
                self.add(Waiting(at=at, task=name, until=until, why=why, cause=cause, session=session, say=say))
            case Validate(task=name, max_cost=cap):
                begun = self.state.task(name).begun
                if cap < SMALLEST:
                    self.add(Validated(at=at, task=name, attempt=begun, verdict="could_not_check", accepted=False))
                    return
                self.looks.append((name, begun))
                self.caps[f"{name} validated"] = cap
                self.add(Validating(at=at, task=name, attempt=begun, run_id=f"v{at}"))
            case Cancel():
                raise AssertionError

    def end(self, name: str, outcome: str = "ok", **more: object) -> None:
        known = self.state.task(name)
        assert known.status is TaskStatus.RUNNING
        owes = self.tasks.task(name).validation is not None and outcome == "ok"
        self.add(Ended(at=self.now, task=name, attempt=known.begun, outcome=outcome, to_validate=owes, **more))  # pyright: ignore[reportArgumentType] - fields by name
        self.go()

    def say(self, name: str, verdict: str, *, accepted: bool, cost: float | None = None) -> None:
        """A validator's verdict."""
        known = self.state.task(name)
        assert known.validation == "running"
        self.add(Validated(at=self.now, task=name, attempt=known.begun, verdict=verdict, accepted=accepted, cost=cost))
        self.go()

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.go()

    def held(self) -> list[str]:
        """What waits for a time to come."""
        known = self.state.tasks.items()
        return [name for name, task in known if task.status is TaskStatus.WAITING and task.until is not None and task.until > self.now]

    def at_work(self) -> list[str]:
        """What runs, or is being looked at."""
        return [name for name, task in self.state.tasks.items() if task.status is TaskStatus.RUNNING and task.validation != OWED]

    def status(self, name: str) -> str:
        return self.state.task(name).status.value


def begun(*items: object, **more: Any) -> Play:
    play = Play(listed(*items, **more))
    play.go()
    return play
