"""What happened in a task list, as records, and what is known after them: a total fold. Knows no file, no process and no clock."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final, assert_never

import msgspec
from msgspec.structs import replace

from cc_executor.model.reference import Made

INTERRUPTED: Final = "interrupted"  # the outcome of an attempt whose process went away with whoever ran the list; it is made again
UNCHECKED: Final = "could_not_check"  # the outcome of a task whose work nobody could look at
INVALID: Final = "invalid"  # what an attempt has met that could not be asked for: an equal one could not be, either
LEFT_OUT: Final = "somebody left it out"  # the summary of a task that is skipped by somebody's wish
OWED: Final = "owed"
LOOKED_AT: Final = "running"
TEXT_LIMIT: Final = 32_000  # characters of a task's text that the list's own journal keeps; the run's receipt keeps as many


NOTES_LIMIT: Final = 20
CLICKS: Final = 200  # presses of buttons that are remembered: more than anybody makes while a kernel is busy


class TaskStatus(StrEnum):
    """Where a task stands."""

    WAITING = "waiting"
    RUNNING = "running"
    OK = "ok"
    FAILED = "failed"  # tried as often as it may be, and not ok
    SKIPPED = "skipped"
    STOPPED = "stopped"  # ended because somebody stopped the list or the task


NOT_OVER: Final = frozenset({TaskStatus.WAITING, TaskStatus.RUNNING})


class ListStatus(StrEnum):
    """Where the list stands."""

    OPEN = "open"
    OK = "ok"
    FAILED = "failed"  # a task did not end well
    STOPPED = "stopped"  # somebody stopped it
    BUDGET = "budget"  # the next task would cost more than is left
    LIMITED = "usage_limited"  # the account's limit is reached, and nobody waits for its end


class _Record(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    at: float  # seconds since the epoch; for display only


class Wish(_Record, frozen=True, kw_only=True):
    """What somebody wants of a list.

    Attributes
    ----------
    click : str
        Which press of a button it was, if it was one: a press that comes by two ways, or late, is obeyed once.
    """

    by: str = ""
    click: str = ""


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
    session: str = ""  # the agent's session, where the next attempt can continue it
    hit: str = ""  # what it has met, by the words of `cc_executor.policy.retry.Cause`; or `INVALID`
    resets_at: float | None = None  # when a usage limit ends; seconds since the epoch
    delay: float = 0.0  # seconds that the agent waited last before it asked the API again
    to_validate: bool = False  # it ended well, and a fresh agent is to look at it
    launched: bool = True  # False: the run that `Begun` names never was


class Waiting(_Record, frozen=True, tag="waiting"):
    """A task is done another time, not before `until` (seconds since the epoch). `session`: what that attempt continues; `say`: what it is told."""

    task: str
    until: float
    why: str
    cause: str
    session: str = ""
    say: str = ""


class Hurried(Wish, frozen=True, tag="hurried"):
    """Somebody does not want to wait any longer."""

    task: str


class Validating(_Record, frozen=True, tag="validating"):
    """A fresh agent is about to look at a task's work. Written before anything is launched.

    `run_id` empty: the run of the last such record was never launched, and the look is owed again.
    """

    task: str
    attempt: int
    run_id: str


class Validated(_Record, frozen=True, tag="validated"):
    """What it says. `accepted`: whether the task stands."""

    task: str
    attempt: int
    verdict: str  # a word of `cc_executor.model.care.Verdict`
    accepted: bool
    summary: str = ""
    cost: float | None = None


class Capped(_Record, frozen=True, tag="capped"):
    """Somebody has given the list other bounds than it was made with; they replace all of those before."""

    max_cost: float | None = None
    max_cost_per_day: float | None = None
    on_limit: str = "stop"
    limit_wait_max: float | None = None
    by: str = ""


class Skipped(_Record, frozen=True, tag="skipped"):
    """A task is not done."""

    task: str
    because: str


class Closed(_Record, frozen=True, tag="closed"):
    """Nothing further is started."""

    status: ListStatus
    summary: str = ""


class Paused(Wish, frozen=True, tag="paused"):
    """Somebody holds the list: nothing is started, and what runs stands still."""


class Resumed(Wish, frozen=True, tag="resumed"):
    """The list goes on."""


class Stopped(Wish, frozen=True, tag="stopped"):
    """Somebody ends the list: what runs is cancelled, nothing is started. With `task`: only that one."""

    task: str = ""


class SkipAsked(Wish, frozen=True, tag="skip"):
    """Somebody wants a task left out."""

    task: str


class RetryAsked(Wish, frozen=True, tag="retry"):
    """Somebody wants tasks done again."""

    tasks: tuple[str, ...]  # see `cc_executor.policy.schedule.set_back`


class Edited(Wish, frozen=True, tag="edit"):
    """Somebody gave a task that has not begun another text."""

    task: str
    text: str


class HookTold(_Record, frozen=True, tag="hook"):
    """A hook did not end well. `text`: a sentence."""

    text: str
    task: str = ""


Record = (
    Begun
    | HookTold
    | Ended
    | Waiting
    | Hurried
    | Validating
    | Validated
    | Capped
    | Skipped
    | Closed
    | Paused
    | Resumed
    | Stopped
    | SkipAsked
    | RetryAsked
    | Edited
)


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
    say: str = ""  # what that is told
    until: float | None = None  # it waits, till then (seconds since the epoch)
    why: str = ""  # what it waits for
    cause: str = ""
    tried: dict[str, int] = {}  # further attempts by their cause
    hit: str = ""  # what the newest attempt has met
    resets_at: float | None = None
    delay: float = 0.0
    ended_at: float = 0.0
    resumable: str = ""  # the newest attempt's session, where it can be continued
    validation: str = ""  # owed, or running
    validator: str = ""  # the validator's run
    verdict: str = ""
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
    notes: tuple[str, ...] = ()  # of hooks that did not end well; the newest
    caps: Capped | None = None  # bounds that replace the list's own
    clicks: tuple[str, ...] = ()  # that were obeyed; the newest

    def task(self, task_id: str) -> TaskState:
        """What is known of a task."""
        return self.tasks.get(task_id, WAITING)

    @property
    def spent(self) -> float:
        """US dollars so far, over all tasks and attempts."""
        return sum(task.spent for task in self.tasks.values())

    def cap(self, own: float | None) -> float | None:
        """US dollars that the list may cost, by the bounds that hold now. `own`: those of the list as it was made."""
        return own if self.caps is None else self.caps.max_cost

    def word(self, *, is_run: bool) -> str:
        """How the list stands, in one word. `is_run`: whether somebody runs it now."""
        if self.status is not ListStatus.OPEN:
            return self.status.value
        if not is_run:
            return "interrupted"
        return "paused" if self.is_paused else "running"


WAITING: Final = TaskState()


def advance(state: ListState, record: Record) -> ListState:
    """The state after `record`. Total: a record that does not fit the state (two writers, a damaged file) changes nothing that it should not."""
    if isinstance(record, Wish) and record.click:
        if record.click in state.clicks:
            return state
        state = replace(state, clicks=(*state.clicks, record.click)[-CLICKS:])
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
                    until=None,
                    why="",
                    cause="",
                    validation="",
                    validator="",
                    verdict="",
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
            if state.status is ListStatus.OK:  # nothing is left to go on with
                return replace(state, is_paused=False, is_stopped=False)
            return replace(state, is_paused=False, is_stopped=False, status=ListStatus.OPEN, summary="")
        case Stopped(task=""):
            return replace(state, is_stopped=True)
        case Stopped():
            before = state.task(record.task)
            has_failed = before.status is TaskStatus.FAILED or (before.status is TaskStatus.WAITING and before.until is not None)
            if has_failed:  # and is not to be tried again
                return _with(state, record.task, replace(before, status=TaskStatus.STOPPED, until=None, is_stopped=True))
            return _with(state, record.task, replace(before, is_stopped=True))
        case SkipAsked():
            before = state.task(record.task)
            if before.status in {TaskStatus.FAILED, TaskStatus.STOPPED}:
                return _with(state, record.task, replace(before, status=TaskStatus.SKIPPED, is_unwanted=True, summary=LEFT_OUT))
            return _with(state, record.task, replace(before, is_unwanted=True))
        case Waiting():
            return _with(state, record.task, _waiting(state.task(record.task), record))
        case Hurried():
            before = state.task(record.task)
            return state if before.until is None else _with(state, record.task, replace(before, until=0.0))
        case Validating():
            before = state.task(record.task)
            if not before.validation or record.attempt != before.begun:
                return state
            return _with(state, record.task, replace(before, validation=LOOKED_AT if record.run_id else OWED, validator=record.run_id))
        case Validated():
            return _with(state, record.task, _validated(state.task(record.task), record, list_is_stopped=state.is_stopped))
        case Capped():
            return replace(state, caps=record)
        case RetryAsked():
            for task_id in record.tasks:
                before = state.task(task_id)
                if before.status is not TaskStatus.RUNNING:  # what runs is being done
                    state = _with(state, task_id, _again(before))
            return replace(state, status=ListStatus.OPEN, summary="", is_stopped=False)
        case Edited():
            if state.task(record.task).status is not TaskStatus.WAITING:
                return state
            return replace(state, texts={**state.texts, record.task: record.text})
        case HookTold():
            said = f"{record.task}: {record.text}" if record.task else record.text
            return replace(state, notes=(*state.notes, said)[-NOTES_LIMIT:])
        case _:
            assert_never(record)


def _ended(before: TaskState, record: Ended, *, list_is_stopped: bool) -> TaskState:
    if record.attempt != before.begun or before.status is not TaskStatus.RUNNING:
        return before
    is_stopped = before.is_stopped or list_is_stopped
    is_again = record.outcome == INTERRUPTED and not (before.is_unwanted or is_stopped)
    is_looked_at = record.to_validate and record.outcome == "ok" and not (before.is_unwanted or is_stopped)
    status = TaskStatus.WAITING if is_again else _status_after(before, record, is_stopped=is_stopped)
    return replace(
        before,
        status=TaskStatus.RUNNING if is_looked_at else status,
        validation=OWED if is_looked_at else "",
        attempts=before.attempts - is_again,
        # One that was never launched goes on with what it was to continue.
        session=(record.session or before.resumable) if is_again else "",
        say=before.say if is_again and not record.session else "",
        resumable=record.session,
        hit=record.hit,
        resets_at=record.resets_at,
        delay=record.delay,
        ended_at=record.at,
        run_id=before.run_id if record.launched else "",
        outcome=record.outcome,
        summary=record.summary,
        text=record.text,
        data=record.data,
        files=record.files,
        spent=before.spent + (record.cost or 0.0),
        seconds=record.seconds,
    )


def _waiting(before: TaskState, record: Waiting) -> TaskState:
    if before.status is not TaskStatus.FAILED:
        return before
    return replace(
        before,
        status=TaskStatus.WAITING,
        until=record.until,
        why=record.why,
        cause=record.cause,
        session=record.session,
        resumable=record.session,
        say=record.say,
        tried={**before.tried, record.cause: before.tried.get(record.cause, 0) + 1},
        attempts=before.attempts - (record.cause != "retry"),  # `retry` counts what chance took
    )


def _validated(before: TaskState, record: Validated, *, list_is_stopped: bool) -> TaskState:
    if record.attempt != before.begun or before.status is not TaskStatus.RUNNING or not before.validation:
        return before
    failed = TaskStatus.STOPPED if before.is_stopped or list_is_stopped else TaskStatus.FAILED
    status = TaskStatus.OK if record.accepted else TaskStatus.SKIPPED if before.is_unwanted else failed
    return replace(
        before,
        status=status,
        validation="",
        verdict=record.verdict,
        outcome="ok" if record.accepted else UNCHECKED if record.verdict == UNCHECKED else "failed",
        summary=record.summary,
        spent=before.spent + (record.cost or 0.0),
        ended_at=record.at,
    )


def _again(before: TaskState) -> TaskState:
    """A task that is to be done again. What only could not be looked at is looked at again; a session that met a limit goes on."""
    if before.outcome == UNCHECKED:
        return replace(before, status=TaskStatus.RUNNING, validation=OWED, validator="", verdict="", is_stopped=False, is_unwanted=False)
    session = before.resumable if before.hit == "usage_limit" else ""
    return TaskState(begun=before.begun, spent=before.spent, session=session, resumable=session)


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
