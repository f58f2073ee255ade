"""Task lists from Python: `await cc_execute_list([...])`, and `cc_execute_task_list` where nothing can be awaited. Knows no IPython."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio

from cc_executor.api import check_callback, take_notify
from cc_executor.errors import RunNotFound, TaskListFailed
from cc_executor.model.listrecord import Capped, ListState, ListStatus, Resumed, RetryAsked, Stopped, TaskState, TaskStatus
from cc_executor.model.tasklist import BOUNDS, TaskKind, TaskList
from cc_executor.policy.schedule import Close, bounded, due, set_back
from cc_executor.runtime.attempt import Watcher
from cc_executor.runtime.blocking import require_asyncio, run_blocking
from cc_executor.runtime.bounds import DAY, bounds_of, keep_cap, with_kept_cap
from cc_executor.runtime.forecast import ListForecast, Only, forecast_list
from cc_executor.runtime.frame import frame_of
from cc_executor.runtime.hooks import hooks_given, hooks_of_environment
from cc_executor.runtime.listhooks import keep_hooks, keep_notify, kept_hooks
from cc_executor.runtime.once import is_undone
from cc_executor.runtime.report import Report, report_of_list
from cc_executor.runtime.result import Result
from cc_executor.runtime.tasklist import run_list
from cc_executor.store.home import StateHome, home_named
from cc_executor.store.tasklists import ListFolder, ListHome
from cc_executor.taskplan import Plan, as_plan, request_of

NAMED: Final = 5  # tasks in a sentence
STOP_BUDGET: Final = 30.0  # seconds; the stop ladder takes 3 for each run, and they end side by side


@dataclass(frozen=True, slots=True)
class ListResult:
    """What became of a list. `result["id"]` is what a task has made: its structured data if there is any, else its text; of a callable its value.

    Attributes
    ----------
    list_id : str
    status : str
        ``ok``, ``failed``, ``stopped``, ``budget``, ``usage_limited``, or ``open`` while it goes on.
    summary : str
        One sentence.
    tasks : dict of str to TaskState
        In the order of the list. Each has status, outcome, summary, text, data, files, run_id, begun (attempts), spent (US dollars, all attempts) and
        seconds (the newest attempt).
    """

    list_id: str
    status: str
    summary: str
    tasks: dict[str, TaskState]
    home: StateHome

    @property
    def ok(self) -> bool:
        """Whether every task ended well, or was left out by somebody's wish."""
        return self.status == ListStatus.OK

    @property
    def cost(self) -> float:
        """US dollars, over all attempts."""
        return sum(task.spent for task in self.tasks.values())

    def __getitem__(self, task_id: str | int) -> Any:
        """What a task has made: the structured data if there is any, else the text. Raises `KeyError` with the tasks that there are."""
        return self._task(task_id).made.result

    def result(self, task_id: str | int) -> Result:
        """The whole result of a task's newest run.

        Raises
        ------
        RunNotFound
            It has none: it is a callable, it did not run, or it has not ended.
        KeyError
            There is no such task.
        """
        known = self._task(task_id)
        if known.run_id:
            with suppress(RunNotFound):  # it has an id before it is launched, and may not have been
                folder = self.home.find(known.run_id)
                receipt = folder.receipt()
                if receipt is not None:
                    return Result(receipt=receipt, folder=folder.path)
        raise RunNotFound(f"Task {task_id!r} has no run that has ended{f': {known.summary}' if known.summary else '.'}")

    def _task(self, task_id: str | int) -> TaskState:
        try:
            return self.tasks[str(task_id)]  # a task that is given no id has its number
        except KeyError:
            raise KeyError(f"The list {self.list_id} has no task {task_id!r}. It has {', '.join(self.tasks)}.") from None

    def report(self) -> Report:
        """What there is to tell of the list and of its runs: `markdown`, `html`, `save(path)`. Reads their journals."""
        return report_of_list(ListHome(self.home).find(self.list_id), self.home)

    def raise_for_status(self) -> None:
        """Raise `TaskListFailed` unless the list ended well."""
        if not self.ok:
            raise TaskListFailed(self.list_id, self.status, self.summary)

    def to_frame(self) -> Any:
        """A pandas `DataFrame`, one row for each task; `InvalidRequest` where there is no pandas."""
        return frame_of(
            ({"task": name, **row(task)} for name, task in self.tasks.items()), columns=("task", *row(TaskState())), index="task"
        )

    def __repr__(self) -> str:
        lines = [f"<TaskList {self.list_id} {self.status}: {self.summary}>"]
        lines += [f"  {name}: {task.status.value}{f' ({task.summary})' if task.summary else ''}" for name, task in self.tasks.items()]
        return "\n".join(lines)


def row(task: TaskState) -> dict[str, Any]:
    """A task's state as flat values, for tables and JSON."""
    return {
        "status": task.status.value,
        "outcome": task.outcome,
        "attempts": task.begun,
        "seconds": task.seconds,
        "cost": task.spent,
        "run_id": task.run_id,
        "summary": task.summary,
    }


def open_list(planned: Plan, home: StateHome, *, fresh: bool = False) -> ListFolder:
    """Where a list is kept, or is from now on. Raises `StateUnusable`, `TaskListNotFound`."""
    lists = ListHome(home)
    return lists.find(planned.list_id) if planned.list_id and not fresh else lists.open(planned.tasks, fresh=fresh)


def forecast_of(tasks: TaskList, home: StateHome, *, only: Only | None = None) -> ListForecast:
    """What the history says about a list. `only`: by which runs, by all if not given. Blocking."""
    return forecast_list(
        tasks, home.root, lambda task: None if task.kind is TaskKind.CALL else request_of(tasks, task, task.text, None, ""), only=only
    )


def day_bounded(planned: Plan, environ: Mapping[str, str]) -> Plan:
    """The list with the day's bound of the environment, where it has none of its own. Raises `InvalidRequest`."""
    day = bounds_of(environ).get(DAY)
    return (
        planned if day is None or planned.tasks.max_cost_per_day is not None else replace(planned, tasks=planned.tasks.bounded({DAY: day}))
    )


async def cc_execute_list(
    tasks: Sequence[object] | TaskList | str | os.PathLike[str] | Plan,
    *,
    fresh: bool = False,
    on_state: Callable[[ListState], None] | None = None,
    hooks: object = None,
    raise_error: bool = False,
    state: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    **more: Any,
) -> ListResult:
    """Run a list of tasks, each with a fresh context, and wait for its end.

    Equal lists are one and the same work: what ended well before is not done again, here or anywhere; what did not is tried again. If another process runs
    this list now, this one watches it, and goes on in its place if that one dies.

    Parameters
    ----------
    tasks : sequence, path or str
        For each task a prompt, a Python callable, or a mapping with `prompt` (for an agent), `run` (a command) or `call` (a callable), and with id, title,
        needs, group, on_failure, retry, and options of `cc_execute`; or the path of a YAML or Markdown file; or such a text itself, if it has more than
        one line.
    fresh : bool
        Do everything again.
    on_state : callable, optional
        Called with the `ListState` whenever it has changed.
    hooks : mapping or sequence, optional
        Whom to call at moments of this list, its tasks and their runs, as ``{"after_list": function}``; see docs/hooks.md.
    raise_error : bool
        Raise `TaskListFailed` for a status other than ok.
    state : path, optional
        The state folder, if not the usual one.
    environ : mapping, optional
        The environment to choose the agents' from; `os.environ` if not given.
    **more
        cwd, name, parallel, max_cost (US dollars for the list), max_cost_per_day (for everything that is run today), on_failure (``stop``, ``skip``,
        ``continue``), on_limit (``stop`` or ``wait`` for the end of a usage limit), limit_wait_max (seconds), defaults (options for every run, as
        `cc_execute` takes them); they win over what a file or a text says itself. And notify, notify_after, notify_on, as for `cc_execute`: of the list's
        end once, and of what its runs ask.

    Returns
    -------
    ListResult
        Cancelling the awaiting task stops the list and ends what runs first.

    Raises
    ------
    InvalidTaskList, InvalidRequest, StateUnusable
        Nothing was started. What keeps a task from starting later, such as a missing agent, is no error: the task has failed, with a summary that says why.
    TaskListFailed
        With `raise_error`, for a status other than ok.
    """
    require_asyncio()
    check_callback("on_state", on_state)
    environment = os.environ if environ is None else environ
    notify = take_notify(more, environment)
    given = as_plan(tasks, more)
    planned = day_bounded(given, environment)
    own = (*planned.hooks, *hooks_given(hooks))
    called = (*hooks_of_environment(environment), *own)
    home = home_named(state, environment)
    folder = open_list(planned, home, fresh=fresh)
    watcher = Watcher(on_state=on_state) if on_state is not None else Watcher()
    keep_hooks(folder, own)
    keep_notify(folder, notify)
    keep_cap(folder, bounds_of(environment))

    async def whole(watcher: Watcher) -> ListState:
        return await run_list(
            folder,
            home=home,
            environ=environment,
            request_of=partial(request_of, planned.tasks, environ=environment),
            calls=planned.calls,
            hooks=called,
            watcher=watcher,
        )

    try:
        known = folder.state()
        if known.status is ListStatus.OPEN and known.is_stopped:
            await whole(watcher)  # whoever stopped it was gone before it had ended
        reopen(folder, planned.tasks, named=given.tasks)
        ended = await whole(watcher)
    except BaseException:
        with anyio.CancelScope(shield=True), anyio.move_on_after(STOP_BUDGET):
            folder.append(Stopped(at=time.time(), by="python"))
            await whole(Watcher())  # it may be the watcher who has raised
        raise
    result = list_result(folder, planned.tasks, ended, home)
    if raise_error:
        result.raise_for_status()
    return result


async def carry_on(folder: ListFolder, *, home: StateHome, environ: Mapping[str, str]) -> ListState:
    """Run a list that is kept to its end, as it stands: what somebody has held or stopped meanwhile stays so, and one that was closed stays closed.

    Cancelled, it lets go of the list; what runs goes on.

    Raises
    ------
    StateUnusable
    """
    tasks, known = folder.tasks(), folder.state()
    if known.status is not ListStatus.OPEN:
        return known
    return await run_list(
        folder,
        home=home,
        environ=environ,
        request_of=partial(request_of, tasks, environ=with_kept_cap(environ, folder)),
        calls={},
        hooks=(*hooks_of_environment(environ), *kept_hooks(folder)),
        watcher=Watcher(),
    )


def undone_since(tasks: Mapping[str, TaskState], list_id: str, home: StateHome) -> str:
    """That the work of tasks that ended well was undone, with what does it again: the list keeps their results. Empty where there is nothing to say."""
    undone = [name for name, known in tasks.items() if known.status is TaskStatus.OK and known.run_id and is_undone(home, known.run_id)]
    if not undone:
        return ""
    more = f" and {len(undone) - NAMED} more" if len(undone) > NAMED else ""
    return (
        f"Undone since then: {', '.join(undone[:NAMED])}{more}. The list keeps what they have made; "
        f"`cc-executor tasks retry {undone[0]} {list_id} --onward`, and then the list once more, does the work again."
    )


def list_result(folder: ListFolder, tasks: TaskList, state: ListState, home: StateHome) -> ListResult:
    """A list's state as users get it."""
    return ListResult(folder.list_id, state.status.value, state.summary, {task.id: state.task(task.id) for task in tasks.tasks}, home)


def reopen(folder: ListFolder, tasks: TaskList, *, named: TaskList | None = None) -> None:
    """Let a list go on that was closed before its end, or that was held or stopped by somebody who is gone.

    What did not end well is tried again, with what was skipped for it. `named`: as for `rebound`.
    """
    rebound(folder, tasks, folder.state(), named=named)
    known = folder.state()  # after the bounds: from here on nobody closes the list without having read them
    is_left = known.status is ListStatus.OPEN and not folder.is_run()
    if is_left and (known.is_paused or known.is_stopped):
        folder.append(Resumed(at=time.time(), by="python"))
        return
    # Whoever ran it may have died in the moment before he closed it.
    is_over = is_left and any(isinstance(action, Close) for action in due(tasks, known, now=time.time()))
    if known.status is ListStatus.OK or (known.status is ListStatus.OPEN and not is_over):
        return
    again: dict[str, None] = {}
    for task in tasks.tasks:
        if known.task(task.id).status in {TaskStatus.FAILED, TaskStatus.STOPPED}:
            again |= dict.fromkeys(set_back(tasks, known, task.id))
    if again:
        folder.append(RetryAsked(at=time.time(), tasks=tuple(again), by="python"))
    folder.append(Resumed(at=time.time(), by="python"))


def rebound(folder: ListFolder, tasks: TaskList, known: ListState, *, named: TaskList | None = None) -> None:
    """Let the bounds of `tasks` hold for the list from now on: what it may cost, and what it waits for.

    `named`: the list with the bounds that somebody has named, where `tasks` has some of the environment, too.
    """
    held = bounded(folder.tasks(), known)
    if known.status is ListStatus.OPEN and folder.is_run():
        # Who joins a list that somebody runs changes what he names: a second one who only wants to watch lifts no cap.
        own = named or tasks
        tasks = held.bounded({name: value for name in BOUNDS & own.model_fields_set if (value := getattr(own, name)) is not None})
    if any(getattr(tasks, name) != getattr(held, name) for name in BOUNDS):
        folder.append(
            Capped(
                at=time.time(),
                max_cost=tasks.max_cost,
                max_cost_per_day=tasks.max_cost_per_day,
                on_limit=tasks.on_limit.value,
                limit_wait_max=tasks.limit_wait_max,
                by="python",
            )
        )


def cc_execute_task_list(tasks: Sequence[object] | TaskList | str | os.PathLike[str] | Plan, **options: Any) -> ListResult:
    """`cc_execute_list` for code that cannot await; blocks until the list has ended. Takes and raises the same."""
    return run_blocking(cc_execute_list(tasks, **options))
