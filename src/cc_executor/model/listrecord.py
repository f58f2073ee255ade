"""What happened in a task list, as records, and what is known after them: a total fold. Knows no file, no process and no clock."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final, assert_never

import msgspec
from msgspec.structs import replace

from cc_executor.model.reference import Made

INTERRUPTED: Final = "interrupted"  # the outcome of an attempt whose process went away with whoever ran the list; it is made again
TEXT_LIMIT: Final = 32_000  # characters of a task's text that the list's own journal keeps; the run's receipt keeps as many


class TaskStatus(StrEnum):
    """Where a task stands."""

    WAITING = "waiting"
    RUNNING = "running"
    OK = "ok"
    FAILED = "failed"  # tried as often as it may be, and not ok
    SKIPPED = "skipped"
    STOPPED = "stopped"  # ended because somebody stopped the list or the task


class ListStatus(StrEnum):
    """Where the list stands."""

    OPEN = "open"
    OK = "ok"
    FAILED = "failed"  # a task did not end well
    STOPPED = "stopped"  # somebody stopped it
    BUDGET = "budget"  # the next task would cost more than is left


class _Record(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    at: float  # seconds since the epoch; for display only


class Begun(_Record, frozen=True, tag="begun"):
    """A task's attempt is about to start. `run_id`: empty for a callable. Written before anything is launched."""

    task: str
    attempt: int
    run_id: str = ""
    session: str = ""  # the agent's session that is continued


class Ended(_Record, frozen=True, tag="ended"):
    """A task's attempt has ended. `outcome`: the run's outcome, ``ok`` for success; a callable that raised is ``failed``; or `INTERRUPTED`."""

    task: str
    attempt: int
    outcome: str
    summary: str = ""
    text: str = ""
    data: Any = None
    files: tuple[str, ...] = ()
    cost: float | None = None
    seconds: float = 0.0
    session: str = ""  # an interrupted agent's session, for the next attempt to continue


class Skipped(_Record, frozen=True, tag="skipped"):
    """A task is not done."""

    task: str
    because: str


class Closed(_Record, frozen=True, tag="closed"):
    """Nothing further is started."""

    status: ListStatus
    summary: str = ""


class Paused(_Record, frozen=True, tag="paused"):
    """Somebody holds the list: nothing is started, and what runs stands still."""

    by: str = ""


class Resumed(_Record, frozen=True, tag="resumed"):
    """The list goes on."""

    by: str = ""


class Stopped(_Record, frozen=True, tag="stopped"):
    """Somebody ends the list: what runs is cancelled, nothing is started. With `task`: only that one."""

    task: str = ""
    by: str = ""


class SkipAsked(_Record, frozen=True, tag="skip"):
    """Somebody wants a task left out."""

    task: str
    by: str = ""


class RetryAsked(_Record, frozen=True, tag="retry"):
    """Somebody wants tasks done again."""

    tasks: tuple[str, ...]  # see `cc_executor.policy.schedule.set_back`
    by: str = ""


class Edited(_Record, frozen=True, tag="edit"):
    """Somebody gave a task that has not begun another text."""

    task: str
    text: str
    by: str = ""


Record = Begun | Ended | Skipped | Closed | Paused | Resumed | Stopped | SkipAsked | RetryAsked | Edited


class TaskState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one task."""

    status: TaskStatus = TaskStatus.WAITING
    attempts: int = 0  # since it was last asked for
    begun: int = 0  # attempts in all; each has its number
    run_id: str = ""
    outcome: str = ""
    summary: str = ""
    text: str = ""
    data: Any = None
    files: tuple[str, ...] = ()
    spent: float = 0.0  # US dollars, all attempts
    seconds: float = 0.0  # the newest attempt
    started_at: float | None = None
    session: str = ""  # to be continued by the next attempt
    is_stopped: bool = False  # somebody ends it
    is_unwanted: bool = False  # somebody wants it left out

    @property
    def made(self) -> Made:
        """What later tasks can refer to."""
        return Made(self.text, self.data, self.files, self.outcome or self.status.value, self.spent)


class ListState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a list. A task that nothing is known of waits."""

    tasks: dict[str, TaskState] = {}
    status: ListStatus = ListStatus.OPEN
    summary: str = ""
    is_paused: bool = False
    is_stopped: bool = False
    texts: dict[str, str] = {}

    def task(self, task_id: str) -> TaskState:
        """What is known of a task."""
        return self.tasks.get(task_id, WAITING)

    @property
    def spent(self) -> float:
        """US dollars so far, over all tasks and attempts."""
        return sum(task.spent for task in self.tasks.values())


WAITING: Final = TaskState()


def advance(state: ListState, record: Record) -> ListState:
    """The state after `record`. Total: a record that does not fit the state (two writers, a damaged file) changes nothing that it should not."""
    match record:
        case Begun():
            before = state.task(record.task)
            return _with(
                replace(state, status=ListStatus.OPEN, summary=""),
                record.task,
                replace(
                    before,
                    status=TaskStatus.RUNNING,
                    attempts=before.attempts + (record.attempt > before.begun),
                    begun=max(before.begun, record.attempt),
                    run_id=record.run_id,
                    outcome="",
                    summary="",
                    started_at=record.at,
                    session="",
                ),
            )
        case Ended():
            return _with(state, record.task, _ended(state.task(record.task), record, list_is_stopped=state.is_stopped))
        case Skipped():
            return _with(state, record.task, replace(state.task(record.task), status=TaskStatus.SKIPPED, summary=record.because))
        case Closed():
            return replace(state, status=record.status, summary=record.summary)
        case Paused():
            return replace(state, is_paused=True)
        case Resumed():
            # Going on is also what somebody wants who resumes a list that was stopped or has no money left.
            return replace(state, is_paused=False, is_stopped=False, status=ListStatus.OPEN, summary="")
        case Stopped(task=""):
            return replace(state, is_stopped=True)
        case Stopped():
            return _with(state, record.task, replace(state.task(record.task), is_stopped=True))
        case SkipAsked():
            return _with(state, record.task, replace(state.task(record.task), is_unwanted=True))
        case RetryAsked():
            for task_id in record.tasks:
                before = state.task(task_id)
                state = _with(state, task_id, TaskState(begun=before.begun, spent=before.spent))
            return replace(state, status=ListStatus.OPEN, summary="", is_stopped=False)
        case Edited():
            if state.task(record.task).status is not TaskStatus.WAITING:
                return state
            return replace(state, texts={**state.texts, record.task: record.text})
        case _:
            assert_never(record)


def _ended(before: TaskState, record: Ended, *, list_is_stopped: bool) -> TaskState:
    if record.attempt != before.begun or before.status is not TaskStatus.RUNNING:
        return before
    is_stopped = before.is_stopped or list_is_stopped
    is_again = record.outcome == INTERRUPTED and not (before.is_unwanted or is_stopped)
    return replace(
        before,
        status=TaskStatus.WAITING if is_again else _status_after(before, record, is_stopped=is_stopped),
        attempts=before.attempts - is_again,
        session=record.session if is_again else "",
        outcome=record.outcome,
        summary=record.summary,
        text=record.text,
        data=record.data,
        files=record.files,
        spent=before.spent + (record.cost or 0.0),
        seconds=record.seconds,
    )


def _status_after(before: TaskState, record: Ended, *, is_stopped: bool) -> TaskStatus:
    if record.outcome == "ok":
        return TaskStatus.OK
    if before.is_unwanted:
        return TaskStatus.SKIPPED
    return TaskStatus.STOPPED if is_stopped else TaskStatus.FAILED


def _with(state: ListState, task_id: str, task: TaskState) -> ListState:
    return replace(state, tasks={**state.tasks, task_id: task})


def advance_all(state: ListState, records: Iterable[Record]) -> ListState:
    """The state after all of `records`."""
    for record in records:
        state = advance(state, record)
    return state
