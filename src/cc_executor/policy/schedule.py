"""What is to be done next in a task list. Pure: a list and its state in, actions out; asked again after every record."""

from __future__ import annotations

from typing import Final

import msgspec

from cc_executor.model.care import Care, OnLimit
from cc_executor.model.listrecord import INVALID, LEFT_OUT, OWED, ListState, ListStatus, TaskState, TaskStatus
from cc_executor.model.outcome import OutcomeKind
from cc_executor.model.tasklist import OnFailure, Task, TaskKind, TaskList
from cc_executor.policy.budget import Purse
from cc_executor.policy.retry import Again, Cause, Hit, decide

_OVER: Final = frozenset({TaskStatus.OK, TaskStatus.FAILED, TaskStatus.SKIPPED, TaskStatus.STOPPED})
_DONE: Final = frozenset({TaskStatus.OK, TaskStatus.SKIPPED})
_BAD: Final = frozenset({TaskStatus.FAILED, TaskStatus.STOPPED})


class Start(msgspec.Struct, frozen=True):
    """Start a task. `max_cost`: US dollars that it may spend at most, None for no bound."""

    task: str
    max_cost: float | None = None


class Cancel(msgspec.Struct, frozen=True):
    """End a task that runs."""

    task: str


class Skip(msgspec.Struct, frozen=True):
    """Leave a task out."""

    task: str
    because: str


class Close(msgspec.Struct, frozen=True):
    """Nothing is left to be done, or nothing further may be."""

    status: ListStatus
    summary: str


class Wait(msgspec.Struct, frozen=True):
    """Write down that a task is done another time, and when. `session`: what that attempt continues; `say`: what it is told."""

    task: str
    until: float
    why: str
    cause: str
    session: str = ""
    say: str = ""


class Validate(msgspec.Struct, frozen=True):
    """Let a fresh agent look at a task's work. `max_cost`: US dollars that it may spend at most; 0: it is not begun, and could not check."""

    task: str
    max_cost: float


Action = Start | Cancel | Skip | Close | Wait | Validate


def bounded(tasks: TaskList, state: ListState) -> TaskList:
    """The list with the bounds that hold now."""
    if state.caps is None:
        return tasks
    caps = state.caps
    bounds = {"max_cost": caps.max_cost, "max_cost_per_day": caps.max_cost_per_day, "on_limit": OnLimit(caps.on_limit)}
    return tasks.bounded(bounds | ({} if caps.limit_wait_max is None else {"limit_wait_max": caps.limit_wait_max}))


def due(tasks: TaskList, state: ListState, *, now: float, today: float = 0.0) -> list[Action]:
    """What is to be done now. Skips and waits come alone, because they decide about others. Empty: wait for what runs, for a time, or for a person.

    Parameters
    ----------
    now : float
        Seconds since the epoch.
    today : float
        US dollars that everything of today has cost, this list's runs and all others.
    """
    if state.status is not ListStatus.OPEN:
        return []
    tasks = bounded(tasks, state)
    order = tasks.in_order()
    # What ended well or was left out asks for nothing more; of a long list that is most of it, and this is asked after every record.
    order = tuple(task for task in order if state.task(task.id).status not in _DONE)
    running = [task for task in order if state.task(task.id).status is TaskStatus.RUNNING]
    if state.is_stopped and order:  # what was stopped when nothing was left to be done has ended by itself
        return [_ending(task, state) for task in running] or [Close(ListStatus.STOPPED, _count(tasks, state))]
    if skips := _skips(tasks, order, state):
        return list(skips)
    if waits := _waits(tasks, order, state):
        return list(waits)
    unwanted = [task for task in running if state.task(task.id).is_stopped or state.task(task.id).is_unwanted]
    purse = _purse(tasks, state, running, today)
    if state.is_paused:
        return [_ending(task, state) for task in unwanted]
    owed = [task for task in running if task.validation is not None and state.task(task.id).validation == OWED and task not in unwanted]
    busy = [task for task in running if task not in owed]
    looked_at = _that_fit(tasks, owed, busy, state)
    starts = _starts(tasks, order, [*busy, *looked_at], state, now=now, purse=purse)
    if owed and any(isinstance(action, Close) for action in starts):  # what a look waits for is not begun any more
        looked_at, starts = owed[:1], []
    return [*(_ending(task, state) for task in unwanted), *_looks(looked_at, purse), *starts]


def _ending(task: Task, state: ListState) -> Cancel | Validate:
    """How a task is ended: what runs is cancelled; where only a look at it is owed, that is not begun."""
    return Validate(task.id, 0.0) if state.task(task.id).validation == OWED else Cancel(task.id)


def set_back(tasks: TaskList, state: ListState, task_id: str, *, onward: bool = False) -> tuple[str, ...]:
    """The tasks that have to be done (again) when this one is, in order.

    Parameters
    ----------
    onward : bool
        Everything that comes after it in the list's order, and not only what was kept from running by it.

    Raises
    ------
    KeyError
        There is no such task.
    """
    order = [task.id for task in tasks.in_order()]
    if task_id not in order:
        raise KeyError(task_id)
    if onward:
        return tuple(order[order.index(task_id) :])
    held = {TaskStatus.SKIPPED, TaskStatus.FAILED, TaskStatus.STOPPED}
    found = [name for name in tasks.dependants(task_id) if state.task(name).status in held]
    return (task_id, *(name for name in found if not state.task(name).is_unwanted))  # what somebody left out stays so, unless he names it


def _skips(tasks: TaskList, order: tuple[Task, ...], state: ListState) -> list[Skip]:
    found: list[Skip] = []
    for task in order:
        known = state.task(task.id)
        if known.status is not TaskStatus.WAITING:
            continue
        if known.is_unwanted:
            found.append(Skip(task.id, LEFT_OUT))
            continue
        for need in task.all_needs:
            policy, status = tasks.policy(tasks.task(need)), state.task(need).status
            is_bad = status is TaskStatus.SKIPPED or (
                status in _BAD and policy is OnFailure.SKIP and _after(tasks, tasks.task(need), state.task(need)) is None
            )
            if is_bad and policy is not OnFailure.CONTINUE:
                found.append(
                    Skip(task.id, f"it needs {need}, which {'was skipped' if status is TaskStatus.SKIPPED else 'did not end well'}")
                )
                break
    return found


def _after(tasks: TaskList, task: Task, known: TaskState) -> Again | str | None:
    """What follows a failed attempt: another one, a sentence that stops the list, or nothing."""
    if known.status is not TaskStatus.FAILED or known.hit == INVALID:
        return None
    try:
        kind = OutcomeKind(known.outcome)
    except ValueError:  # a word of ours: what could not be looked at is not done again for that
        return None
    care = Care(
        on_limit=task.on_limit or tasks.on_limit,
        limit_wait_max=task.limit_wait_max or tasks.limit_wait_max,
        on_output_limit=task.on_output_limit,
        reask=task.reask,
        retry=task.retry,
        backs_off=task.kind is TaskKind.AGENT,
    )
    tried = {cause: known.tried.get(cause.value, 0) for cause in Cause} | {Cause.RETRY: max(0, known.attempts - 1)}
    # Of an older version's record nothing is known but the outcome.
    hit = Cause.USAGE if kind is OutcomeKind.USAGE_LIMITED else Cause(known.hit) if known.hit in set(Cause) else None
    return decide(
        kind, Hit(hit, known.resets_at, known.delay), ended_at=known.ended_at, tried=tried, care=care, seed=f"{task.id}/{known.ended_at}"
    )


def _waits(tasks: TaskList, order: tuple[Task, ...], state: ListState) -> list[Wait]:
    """Further attempts that are not simply made at once."""
    found: list[Wait] = []
    for task in order:
        known = state.task(task.id)
        again = _after(tasks, task, known)
        if isinstance(again, Again) and (again.cause is not Cause.RETRY or again.until > known.ended_at):
            session = known.resumable if again.is_resumed else ""
            found.append(Wait(task.id, again.until, again.why, again.cause.value, session, again.say))
    return found


def _that_fit(tasks: TaskList, owed: list[Task], busy: list[Task], state: ListState) -> list[Task]:
    """The tasks that can be looked at now, beside what is at work.

    After the task itself there is room for its validation. One that is wanted again waits for its turn as a task does: nobody can judge a folder in which
    another task works, and what it needs may be done again as well.
    """
    found: list[Task] = []
    for task in owed:
        beside = [*busy, *found]
        is_fit = len(beside) < tasks.parallel and all(task.group and other.group == task.group for other in beside)
        if is_fit and _has_its_needs(tasks, task, state):
            found.append(task)
    return found


def _looks(looked_at: list[Task], purse: Purse) -> list[Validate]:
    """Validations. The money for each was kept back when its task was started, and the task may have spent more than it was to."""
    found: list[Validate] = []
    for task in looked_at:
        wanted = task.validation.max_cost if task.validation is not None else 0.0
        left = purse.left + wanted
        found.append(Validate(task.id, wanted if left >= wanted else max(0.0, left)))
    return found


def _purse(tasks: TaskList, state: ListState, running: list[Task], today: float) -> Purse:
    reserved: list[float | None] = []
    for task in running:
        extra = task.validation.max_cost if task.validation is not None else 0.0
        if state.task(task.id).validation:  # the task itself is paid
            reserved.append(extra)
        elif task.kind is TaskKind.AGENT:
            own: float | None = task.options.get("max_cost")
            reserved.append(None if own is None else own + extra)
        else:
            reserved.append(extra)
    return Purse(cap=tasks.max_cost, spent=state.spent, day_cap=tasks.max_cost_per_day, today=today, reserved=tuple(reserved))


def _starts(tasks: TaskList, order: tuple[Task, ...], running: list[Task], state: ListState, *, now: float, purse: Purse) -> list[Action]:
    for task in order:
        said = _after(tasks, task, state.task(task.id))
        if isinstance(said, str):
            return [] if running else [Close(ListStatus.LIMITED, f"{task.id}: {said} {_count(tasks, state)}.")]
    stopper = next((task for task in order if _stops_all(tasks, task, state)), None)
    if stopper is not None:
        return [] if running else [_stop(tasks, stopper, state, purse)]
    held = [task for task in order if _is_held(state.task(task.id), now)]
    ready = [task for task in order if _is_ready(tasks, task, state) and task not in held]
    if any(state.task(task.id).cause == Cause.USAGE for task in held):  # another agent would meet the same limit
        ready = [task for task in ready if task.kind is not TaskKind.AGENT or state.task(task.id).until == 0]  # hurried
    if not ready:
        return [] if running or held else [_end(tasks, state)]
    if running or held:
        group = (running or held)[0].group
        ready = [task for task in ready if group and task.group == group]
    else:
        group = ready[0].group
        ready = [task for task in ready if group and task.group == group] or ready[:1]
    actions: list[Action] = []
    for task in ready[: max(0, tasks.parallel - len(running))]:
        wanted: float | None = task.options.get("max_cost")
        extra = task.validation.max_cost if task.validation is not None else 0.0
        is_paid = task.kind is TaskKind.AGENT or extra > 0
        if not is_paid or not purse.is_bounded:
            actions.append(Start(task.id, wanted))
            continue
        if purse.is_taken:
            break
        if task.kind is not TaskKind.AGENT:
            wanted = 0.0
        if not purse.is_enough(wanted, extra):
            if not running and not held and not actions:
                actions.append(Close(ListStatus.BUDGET, purse.words(task.id, wanted, extra)))
            break
        actions.append(Start(task.id, purse.bound(wanted, extra) if task.kind is TaskKind.AGENT else None))
        purse = purse.with_one_more(None if wanted is None else wanted + extra)
    return actions


def _is_held(known: TaskState, now: float) -> bool:
    if known.status is not TaskStatus.WAITING or known.until is None:
        return False
    # Before the end of the attempt that it follows: the clock was set back since, and makes no wait of our own longer. A window ends by the API's clock.
    was_set_back = now < known.ended_at and known.cause != Cause.USAGE
    return known.until > now and not was_set_back


def _stop(tasks: TaskList, task: Task, state: ListState, purse: Purse) -> Close:
    known = state.task(task.id)
    count = _count(tasks, state)
    if known.outcome == OutcomeKind.BUDGET and "max_cost" not in task.options and purse.is_bounded:
        said = f"{task.id} used what was left of {purse.narrowest}, and was not ready. Raise the cap to go on; {count}"
        return Close(ListStatus.BUDGET, said)
    return Close(ListStatus.FAILED, f"{task.id} did not end well ({known.outcome}); {count}")


def _stops_all(tasks: TaskList, task: Task, state: ListState) -> bool:
    known = state.task(task.id)
    return known.status in _BAD and tasks.policy(task) is OnFailure.STOP and _after(tasks, task, known) is None


def _is_ready(tasks: TaskList, task: Task, state: ListState) -> bool:
    known = state.task(task.id)
    if known.status is not TaskStatus.WAITING and _after(tasks, task, known) is None:
        return False
    return _has_its_needs(tasks, task, state)


def _has_its_needs(tasks: TaskList, task: Task, state: ListState) -> bool:
    return all(state.task(need).status in _OVER and _after(tasks, tasks.task(need), state.task(need)) is None for need in task.all_needs)


def _end(tasks: TaskList, state: ListState) -> Close:
    left_out: set[str] = set()  # by somebody's wish, which is for what needs it, too
    is_bad = False
    for task in tasks.in_order():
        known = state.task(task.id)
        if known.status is TaskStatus.SKIPPED and (known.is_unwanted or not left_out.isdisjoint(task.all_needs)):
            left_out.add(task.id)
        elif known.status is not TaskStatus.OK:
            is_bad = True
    return Close(ListStatus.FAILED if is_bad else ListStatus.OK, _count(tasks, state))


def _count(tasks: TaskList, state: ListState) -> str:
    done = sum(state.task(task.id).status is TaskStatus.OK for task in tasks.tasks)
    return f"{done} of {len(tasks.tasks)} tasks ended well"
