"""One cell with a task list: check it, run it, show it, wait for it, bind its result. `%%cc_tasks` and `await cc_tasks([...])` are the same code."""

from __future__ import annotations

import argparse
import asyncio
import atexit
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from cc_executor.api import NOTIFY
from cc_executor.errors import CCExecutorError
from cc_executor.kernel.cell import TICK, blocking, home_of, raw_body, unless_captured
from cc_executor.kernel.config import settings_of
from cc_executor.kernel.display import Bundle, show_mime
from cc_executor.kernel.loop import cancelled, interruptible, outlast, own, tell_of_nesting
from cc_executor.kernel.notify import bell_of, notify_of
from cc_executor.kernel.shell_pump import shell_pump, takes_input
from cc_executor.kernel.taskdisplay import StaticListDisplay, make_list_display
from cc_executor.kernel.taskoptions import parse
from cc_executor.listpage import ListPage, keep_table
from cc_executor.model.ansi import clean
from cc_executor.model.care import OnLimit
from cc_executor.model.hook import described
from cc_executor.model.listrecord import ListState, ListStatus, Stopped
from cc_executor.model.taskcard import EndedList, list_bundle
from cc_executor.model.tasklist import OnFailure, TaskKind, TaskList
from cc_executor.model.taskrows import is_rehearsed
from cc_executor.policy.ask import Answerer, Place, answerer, in_kernel
from cc_executor.runtime.attempt import Watcher
from cc_executor.runtime.bounds import keep_cap
from cc_executor.runtime.caps import standing_caps
from cc_executor.runtime.errand import in_thread
from cc_executor.runtime.forecast import ListForecast
from cc_executor.runtime.hooks import hooks_given
from cc_executor.runtime.listhooks import keep_hooks, keep_notify
from cc_executor.runtime.tasklist import run_list
from cc_executor.store.home import StateHome
from cc_executor.store.tasklists import ListFolder
from cc_executor.taskcommands import TaskCommands
from cc_executor.taskplan import Plan, as_plan, plan, request_of
from cc_executor.tasks import ListResult, forecast_of, list_result, open_list, reopen, undone_since

if TYPE_CHECKING:
    from cc_executor.model.notify import Notify

logger = logging.getLogger(__name__)

STOPS: Final = 2  # interrupts that stop a list, gently and at once; the next lets go of it, for whoever runs it may stand still


class ShownListResult(ListResult):
    """A `ListResult` whose cell shows it already: as that cell's value it stays silent once, and shows itself whenever it is asked for later."""

    __slots__ = ("_bundle", "_is_silent")

    def shown_as(self, bundle: Bundle, *, is_silent: bool) -> ShownListResult:
        """Keep the table; `is_silent`: do not show it the next time that this is displayed."""
        object.__setattr__(self, "_bundle", bundle)
        object.__setattr__(self, "_is_silent", is_silent)
        return self

    def _ipython_display_(self) -> None:
        if self._is_silent:
            object.__setattr__(self, "_is_silent", False)
            return
        from IPython.core.getipython import get_ipython

        if not hasattr(get_ipython(), "kernel"):
            print(repr(self))  # noqa: T201 - a terminal's view of a value
            return
        show_mime(*self._bundle)


async def execute_tasks(shell: Any, line: str, body: str) -> ShownListResult | None:
    """Run a cell with a task list on the running loop."""
    tell_of_nesting()
    return await interruptible(_execute(shell, line, body))


def execute_tasks_blocking(shell: Any, line: str, body: str) -> ShownListResult | None:
    """The same where it cannot be awaited: inside `%%capture`, or with autoawait off. Blocks; interrupts stop the list all the same."""
    tell_of_nesting()
    return unless_captured(shell, blocking(_execute(shell, line, body)))


async def cc_tasks(
    tasks: Sequence[object] | TaskList | str | os.PathLike[str] | Plan,
    *,
    fresh: bool = False,
    raise_error: bool = True,
    hooks: object = None,
    **more: Any,
) -> ListResult:
    """Run a list of tasks in a cell, with the live view of `%%cc_tasks`; await it. A callable among the tasks runs in this kernel.

    Parameters
    ----------
    tasks
        Prompts, callables, mappings; or the path of a YAML or Markdown file, or such a text. See `cc_executor.taskplan.plan`.
    fresh : bool
        Do everything again. Without it, what ended well before is not done again.
    raise_error : bool
        Raise `TaskListFailed` for a list that does not end well.
    hooks : mapping or sequence, optional
        As for `cc_execute_list`.
    **more
        cwd, name, parallel, max_cost (US dollars for the list), max_cost_per_day (for everything that is run today), on_failure (``stop``, ``skip``,
        ``continue``), on_limit (``stop`` or ``wait`` for the end of a usage limit), limit_wait_max (seconds), defaults (options for every run); and
        notify, notify_after, notify_on, as for `cc_execute_list`; the kernel's settings hold for what is not given.

    Returns
    -------
    ListResult
        Interrupted, it ends what runs, keeps what there is, and raises `KeyboardInterrupt`.

    Raises
    ------
    InvalidTaskList, InvalidRequest, StateUnusable
        Nothing was started.
    TaskListFailed
        The list did not end well; not with ``raise_error=False``.
    """
    from IPython.core.getipython import get_ipython

    said = {name: more.pop(name, None) for name in NOTIFY}
    planned = as_plan(tasks, more)
    planned = replace(planned, hooks=(*planned.hooks, *hooks_given(hooks)))
    shell: Any = get_ipython()
    if shell is None:  # no notebook, no view
        from cc_executor.tasks import cc_execute_list

        return await cc_execute_list(planned, fresh=fresh, raise_error=raise_error, **said)
    tell_of_nesting()
    notify = notify_of(settings_of(shell), argparse.Namespace(**said))
    return await interruptible(_run(shell, planned, out=None, fresh=fresh, raise_error=raise_error, notify=notify))


async def _execute(shell: Any, line: str, body: str) -> ShownListResult | None:
    options = parse(line)
    settings = settings_of(shell)
    # The empty line stands for that of the magic, so that messages count lines as the cell does; and it makes this a text in any case, never a path.
    text = f"\n{raw_body(shell, body)}"
    planned = plan(text, cwd=os.path.expandvars((settings.cwd or ".") if options.cwd is None else options.cwd), **_given(options))
    if options.dry_run:
        expected = await in_thread(lambda: forecast_of(planned.tasks, home_of(shell)))
        hints = planned.hints(off=settings.lint_off)
        lines = [dry_run(planned.tasks, expected), *map(clean, described(planned.hooks)), *(clean(str(hint)) for hint in hints)]
        print("\n".join(lines))  # noqa: T201 - the cell's only output
        return None
    raise_error = settings.raise_error and not options.no_raise_error
    notify = notify_of(settings, options)
    return await _run(shell, planned, out=options.out, fresh=options.fresh, raise_error=raise_error, notify=notify)


def _given(options: argparse.Namespace) -> dict[str, Any]:
    names = ("name", "parallel", "max_cost", "max_cost_per_day", "limit_wait_max")
    given = {name: getattr(options, name) for name in names}
    given["on_limit"] = None if options.on_limit is None else OnLimit(options.on_limit)
    policy = None if options.on_failure is None else OnFailure(options.on_failure)
    return {name: value for name, value in (given | {"on_failure": policy}).items() if value is not None}


def dry_run(tasks: TaskList, forecast: ListForecast | None = None) -> str:
    """The order, what each task needs, and how long it usually takes where that is known."""
    order = tasks.in_order()
    head = f"{len(order)} {'task' if len(order) == 1 else 'tasks'} in {tasks.cwd}; a task that fails: {tasks.on_failure.value}"
    cap = f"; at most ${tasks.max_cost:,.2f}" if tasks.max_cost is not None else ""
    rows: list[tuple[str, ...]] = [("#", "task", "what", "group", "needs")]
    words = {TaskKind.AGENT: "agent", TaskKind.SHELL: "command", TaskKind.CALL: "callable"}
    for number, task in enumerate(order, start=1):
        what = words[task.kind] + (" (rehearsal)" if is_rehearsed(task) else "")
        rows.append((str(number), task.id, what, task.group, ", ".join(task.all_needs)))
    expected = forecast.summary() if forecast is not None else ""
    if forecast is not None and expected:
        usual = ("usually", *(forecast.words(task.id) for task in order))
        costs = ("cost", *(forecast.cost_words(task.id) for task in order))
        rows = [(*row, time, cost) for row, time, cost in zip(rows, usual, costs, strict=True)]
        rows = rows if any(costs[1:]) else [row[:-1] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([f"{head}{cap}. Nothing was started.", *table, *([expected] if expected else [])])


async def _run(shell: Any, planned: Plan, *, out: str | None, fresh: bool, raise_error: bool, notify: Notify | None) -> ShownListResult:
    home, day, named = home_of(shell), settings_of(shell).max_cost_per_day, planned.tasks
    if day is not None and planned.tasks.max_cost_per_day is None:
        planned = replace(planned, tasks=planned.tasks.bounded({"max_cost_per_day": day}))
    folder = open_list(planned, home, fresh=fresh)
    watch = _ListWatch(shell, planned, folder, home, named=named, is_done=folder.state().status is ListStatus.OK, notify=notify)
    task = own(watch.follow(), name=f"cc_executor list {folder.list_id}")
    _followed[watch] = os.getpid()
    # A task that was cancelled may have been by the end of its loop: then the list is still to be stopped.
    task.add_done_callback(lambda task: None if task.cancelled() else _followed.pop(watch, None))

    def stop(count: int) -> None:
        if count <= STOPS:
            own(watch.stop(is_first=count == 1), name=f"cc_executor stop of {folder.list_id}")
        else:
            task.cancel()

    with shell_pump(getattr(shell, "kernel", None), again=watch.show_here):
        stopped = await outlast(task, stop)
    if task.cancelled():
        words = f"list {folder.list_id} was told to stop and let go; whoever runs it stands still, or needs longer"
        raise cancelled(stopped or asyncio.CancelledError(), words)
    ended: EndedList = task.result()
    listed = list_result(folder, planned.tasks, ended.state, home)
    result = ShownListResult(listed.list_id, listed.status, listed.summary, listed.tasks, home)
    # A notebook shows it above already; a terminal writes `Out[1]: ` in any case, so something had better stand there.
    result.shown_as(watch.bundle or list_bundle(ended), is_silent=hasattr(shell, "kernel"))
    if out is not None:
        shell.push({out: result})
    if stopped is not None:
        raise cancelled(stopped, f"list {folder.list_id} was stopped; what ended well is kept, run the cell again to go on")
    if raise_error:
        result.raise_for_status()
    return result


class _ListWatch:
    """One list and its display, from the first record to the table. When the display fails, the list goes on unseen."""

    def __init__(
        self, shell: Any, planned: Plan, folder: ListFolder, home: StateHome, *, named: TaskList, is_done: bool, notify: Notify | None
    ) -> None:
        self._shell = shell
        self._takes_input = takes_input(getattr(shell, "kernel", None))
        self._planned = planned
        self._named = named
        self._settings_hooks = hooks_given(settings_of(shell).hooks, what="CCExecutor.hooks")
        keep_hooks(folder, planned.hooks)
        keep_notify(folder, notify)
        keep_cap(folder, standing_caps())
        self._folder = folder
        self._home = home
        self._is_done = is_done
        self._page = ListPage(folder, planned.tasks, home)
        self._commands = TaskCommands(folder, planned.tasks, home)
        self._is_blind = False
        self._is_interrupted = False
        self.bundle: Bundle | None = None
        try:
            self._display = (
                StaticListDisplay()  # there is nothing to watch
                if is_done
                else make_list_display(
                    shell,
                    self._page.board,
                    commands=self._commands,
                    home=home,
                    list_id=folder.list_id,
                    settings=settings_of(shell),
                    bell=bell_of(notify),
                )
            )
        except Exception as error:  # noqa: BLE001 - as in `_show`
            self._tell(error)
            self._display = StaticListDisplay()

    async def stop(self, *, is_first: bool) -> None:
        """What an interrupt does: stop the list; from the second on without giving what runs time to clean up."""
        self._is_interrupted = True
        try:  # in a thread, for a supervisor that stands still answers no command, and others are to be told meanwhile
            await in_thread(self._stop if is_first else lambda: self._commands.kill(self._folder.state(), by="cell"), takes_long=True)
            _followed.pop(self, None)
        except CCExecutorError:
            logger.exception("the list %s could not be told to stop", self._folder.list_id)

    def _stop(self) -> None:
        self._folder.append(Stopped(at=time.time(), by="cell"))
        self._commands.at_once(goes_on=False, by="cell")  # a kernel that restarts has no time for more

    def stop_with_kernel(self) -> None:
        """What the end of the interpreter does: the interrupt that comes ahead of a restart may not have got through before the loop was stopped."""
        with suppress(CCExecutorError):
            if self._folder.state().status is ListStatus.OPEN:
                self._stop()

    async def follow(self) -> EndedList:
        """Run the list, or watch whoever runs it, to its end, and leave the table."""
        ticker = own(self._tick(), name="cc_executor list view")
        try:
            known = self._folder.state()
            if known.status is ListStatus.OPEN and known.is_stopped:
                await self._run()  # whoever stopped it was gone before it had ended
            if not self._is_interrupted:
                reopen(self._folder, self._planned.tasks, named=self._named)
            self._on_state(self._folder.state())
            await self._page.read_receipts()
            await self._page.expect()
            state = await self._run()
        except asyncio.CancelledError:
            self._show(self._display.finish, self._ended(self._folder.state()))
            raise
        except Exception as error:  # as for a run: the view says that nobody follows the list from here, and the caller gets the error
            self._show(self._display.leave, f"The task list {self._folder.list_id} cannot be followed any longer: {error}")
            raise
        finally:
            ticker.cancel()
        ended = await in_thread(lambda: self._ended(state))
        self._on_state(state)
        self.bundle = self._show(self._display.finish, ended)
        if self.bundle is None:
            self.bundle = StaticListDisplay().finish(ended)
        keep_table(self._folder, self.bundle)
        return ended

    async def _run(self) -> ListState:
        return await run_list(
            self._folder,
            home=self._home,
            environ=os.environ,
            request_of=partial(request_of, self._planned.tasks),
            calls=self._planned.calls,
            hooks=(*self._settings_hooks, *self._planned.hooks),
            watcher=Watcher(on_state=self._on_state, on_batch=self._page.apply, who=self._who),
        )

    def _ended(self, state: ListState) -> EndedList:
        note = "Done before: this list is unchanged, nothing was run and nothing was spent." if self._is_done else ""
        undone = undone_since(state.tasks, self._folder.list_id, self._home)
        return self._page.ended(state, note=f"{note} {undone}".strip())

    def _on_state(self, state: ListState) -> None:
        changed = self._page.board.show(state)
        self._show(lambda: self._display.changed(changed))

    def _who(self) -> Answerer:
        """Who answers what an agent of the list asks: a person in a row that is opened; a terminal's lines have no room for that."""
        if isinstance(self._display, StaticListDisplay) or not hasattr(self._shell, "kernel"):
            return answerer(Place.LIST)
        return in_kernel(is_shown=True, takes_input=self._takes_input, was_looked_at=False)

    def show_here(self) -> None:
        """Show the view in the place of the one that the front end has cleared, for the cell is queued once more."""
        self._show(self._display.show_here)

    def _show(self, act: Callable[..., Any], *args: Any) -> Any:
        """What `act` of the display gives; None when the display fails or has failed."""
        if self._is_blind:
            return None
        try:
            return act(*args)
        except Exception as error:  # noqa: BLE001 - whatever it is: the list is owed its life, the person is told
            self._is_blind = True
            self._tell(error)
            return None

    def _tell(self, error: Exception) -> None:
        logger.error("the view of list %s failed", self._folder.list_id, exc_info=error)
        with suppress(OSError, ValueError):  # what failed may be this very output
            print(f"The live view of the list failed ({error!r}). The list goes on, and its end will be shown.")  # noqa: T201 - a person is to read it

    async def _tick(self) -> None:
        while True:
            self._show(self._display.tick, time.monotonic())
            await asyncio.sleep(TICK)


# What this kernel follows and has not told to stop, with the process that does: one that was forked has nothing to stop.
_followed: Final[dict[_ListWatch, int]] = {}


def _stop_followed() -> None:
    for watch, process in list(_followed.items()):
        if process == os.getpid():
            watch.stop_with_kernel()


atexit.register(_stop_followed)
