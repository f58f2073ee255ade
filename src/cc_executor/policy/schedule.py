"""What is to be done next in a task list. Pure: a list and its state in, actions out; asked again after every record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cc_executor.model.listrecord import ListState, ListStatus, TaskState, TaskStatus
from cc_executor.model.outcome import OutcomeKind
from cc_executor.model.tasklist import OnFailure, Task, TaskKind, TaskList

# Trying again helps against chance; against a wrong key, an empty purse, a missing right or a person's word it only spends.
WORTH_RETRYING: Final = frozenset(
    {
        OutcomeKind.FAILED, OutcomeKind.RATE_LIMITED, OutcomeKind.MAX_TURNS, OutcomeKind.SCHEMA, OutcomeKind.TIMEOUT, OutcomeKind.STALLED,
        OutcomeKind.CRASHED, OutcomeKind.LOST,
    }
)  # fmt: skip
_OVER: Final = frozenset({TaskStatus.OK, TaskStatus.FAILED, TaskStatus.SKIPPED, TaskStatus.STOPPED})
_BAD: Final = frozenset({TaskStatus.FAILED, TaskStatus.STOPPED})


@dataclass(frozen=True, slots=True)
class Start:
    """Start a task. `max_cost`: US dollars that it may spend at most, None for no bound."""

    task: str
    max_cost: float | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a task that runs."""

    task: str


@dataclass(frozen=True, slots=True)
class Skip:
    """Leave a task out."""

    task: str
    because: str


@dataclass(frozen=True, slots=True)
class Close:
    """Nothing is left to be done, or nothing further may be."""

    status: ListStatus
    summary: str


Action = Start | Cancel | Skip | Close


def due(tasks: TaskList, state: ListState) -> list[Action]:
    """What is to be done now. Skips come alone, because what is skipped decides about others. Empty: wait for what runs, or for a person."""
    if state.status is not ListStatus.OPEN:
        return []
    order = tasks.in_order()
    running = [task for task in order if state.task(task.id).status is TaskStatus.RUNNING]
    if state.is_stopped:
        return [Cancel(task.id) for task in running] or [Close(ListStatus.STOPPED, _count(tasks, state))]
    if skips := _skips(tasks, order, state):
        return list(skips)
    unwanted = [task for task in running if state.task(task.id).is_stopped or state.task(task.id).is_unwanted]
    return [*(Cancel(task.id) for task in unwanted), *_starts(tasks, order, running, state)]


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
    return (task_id, *(name for name in tasks.dependants(task_id) if state.task(name).status in held))


def _skips(tasks: TaskList, order: tuple[Task, ...], state: ListState) -> list[Skip]:
    found: list[Skip] = []
    for task in order:
        known = state.task(task.id)
        if known.status is not TaskStatus.WAITING:
            continue
        if known.is_unwanted:
            found.append(Skip(task.id, "somebody left it out"))
            continue
        for need in task.all_needs:
            policy, status = tasks.policy(tasks.task(need)), state.task(need).status
            is_bad = status is TaskStatus.SKIPPED or (
                status in _BAD and policy is OnFailure.SKIP and not _retries(tasks.task(need), state.task(need))
            )
            if is_bad and policy is not OnFailure.CONTINUE:
                found.append(
                    Skip(task.id, f"it needs {need}, which {'was skipped' if status is TaskStatus.SKIPPED else 'did not end well'}")
                )
                break
    return found


def _starts(tasks: TaskList, order: tuple[Task, ...], running: list[Task], state: ListState) -> list[Action]:
    if state.is_paused:
        return []
    stopper = next((task for task in order if _stops_all(tasks, task, state)), None)
    if stopper is not None:
        known = state.task(stopper.id)
        return [] if running else [Close(ListStatus.FAILED, f"{stopper.id} did not end well ({known.outcome}); {_count(tasks, state)}")]
    ready = [task for task in order if _is_ready(tasks, task, state)]
    if not ready:
        return [] if running else [_end(tasks, order, state)]
    if running:
        group = running[0].group
        ready = [task for task in ready if group and task.group == group]
    else:
        group = ready[0].group
        ready = [task for task in ready if group and task.group == group] or ready[:1]
    actions: list[Action] = []
    reserved = [task.options.get("max_cost") for task in running if task.kind is TaskKind.AGENT]
    for task in ready[: max(0, tasks.parallel - len(running))]:
        if tasks.max_cost is None or task.kind is not TaskKind.AGENT:
            actions.append(Start(task.id, task.options.get("max_cost")))
            continue
        if None in reserved:  # that one may spend all that is left
            break
        left = tasks.max_cost - state.spent - sum(amount for amount in reserved if amount is not None)
        wanted: float | None = task.options.get("max_cost")
        if left <= 0 or (wanted is not None and wanted > left):
            if not running and not actions:
                actions.append(Close(ListStatus.BUDGET, _money(tasks, state, task, wanted)))
            break
        actions.append(Start(task.id, wanted if wanted is not None else left))
        reserved.append(wanted)
    return actions


def _money(tasks: TaskList, state: ListState, task: Task, wanted: float | None) -> str:
    assert tasks.max_cost is not None  # only asked where there is a cap
    need = f"may cost ${wanted:.2f}" if wanted is not None else "needs more"
    more = f" A cap of ${state.spent + wanted:.2f} would let it start." if wanted is not None else " Raise the cap to go on."
    return f"{task.id} {need}, and ${max(0.0, tasks.max_cost - state.spent):.2f} of ${tasks.max_cost:.2f} are left.{more}"


def _retries(task: Task, known: TaskState) -> bool:
    return known.status is TaskStatus.FAILED and known.attempts <= task.retry and known.outcome in WORTH_RETRYING


def _stops_all(tasks: TaskList, task: Task, state: ListState) -> bool:
    known = state.task(task.id)
    return known.status in _BAD and tasks.policy(task) is OnFailure.STOP and not _retries(task, known)


def _is_ready(tasks: TaskList, task: Task, state: ListState) -> bool:
    known = state.task(task.id)
    if known.status is not TaskStatus.WAITING and not _retries(task, known):
        return False
    return all(state.task(need).status in _OVER and not _retries(tasks.task(need), state.task(need)) for need in task.all_needs)


def _end(tasks: TaskList, order: tuple[Task, ...], state: ListState) -> Close:
    is_bad = any(
        state.task(task.id).status in _BAD or (state.task(task.id).status is TaskStatus.SKIPPED and not state.task(task.id).is_unwanted)
        for task in order
    )
    return Close(ListStatus.FAILED if is_bad else ListStatus.OK, _count(tasks, state))


def _count(tasks: TaskList, state: ListState) -> str:
    done = sum(state.task(task.id).status is TaskStatus.OK for task in tasks.tasks)
    return f"{done} of {len(tasks.tasks)} tasks ended well"
