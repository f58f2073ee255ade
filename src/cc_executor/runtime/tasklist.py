"""A task list at work: decisions from `policy.schedule`, runs from `runtime.run`, and everything that happens in the list's journal.

One process runs a list, whoever holds its lock; all others watch the journal, and append what they want. So a kernel that dies, a second notebook and a
terminal are the same easy case: whoever comes next reads the journal, adopts the runs that go on, and goes on.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, cast

import anyio
import anyio.abc

from cc_executor.errors import CCExecutorError, ControlFailed, HookRefused, InvalidRequest, NestedTooDeep
from cc_executor.model.hook import Hook, HookReport
from cc_executor.model.listrecord import (
    INVALID,
    LOOKED_AT,
    OWED,
    Begun,
    Closed,
    Ended,
    HookTold,
    ListState,
    ListStatus,
    Skipped,
    TaskStatus,
    Validated,
    Validating,
    Waiting,
)
from cc_executor.model.outcome import OutcomeKind
from cc_executor.model.tasklist import Task, TaskKind, TaskList
from cc_executor.policy.schedule import Action, Cancel, Close, Skip, Start, Validate, Wait, bounded, due
from cc_executor.runtime.attempt import LOOK, Live, RequestOf, TaskAttempts, Watcher
from cc_executor.runtime.errand import in_thread
from cc_executor.runtime.listhooks import ListHooks
from cc_executor.runtime.listjournal import ListJournal
from cc_executor.runtime.listspans import list_in_span, task_in_span
from cc_executor.runtime.onlooker import onlooking
from cc_executor.runtime.taskcall import Call
from cc_executor.runtime.unsealed import spent_unsealed
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder
from cc_executor.store.spend import DaySpend, EndedRun
from cc_executor.store.tasklists import ListFolder

DAY_LOOK: Final = 2.0  # seconds between two looks at what today's runs have cost; what this list has paid is looked at at once


async def run_list(
    folder: ListFolder,
    *,
    home: StateHome,
    environ: Mapping[str, str],
    request_of: RequestOf,
    calls: Mapping[str, Call],
    watcher: Watcher,
    hooks: Sequence[Hook] = (),
) -> ListState:
    """Run a list to its end, or watch whoever runs it already; if that one dies, go on in its place. The end is that of the hooks after the list.

    Cancelled, it lets go of the list: runs whose request says so go on, and whoever runs the list next adopts them.

    Raises
    ------
    StateUnusable
    """
    while True:
        error: BaseException | None = None
        with folder.claimed() as mine:
            if mine:
                try:
                    runner = _Runner(folder, home=home, environ=environ, request_of=request_of, calls=calls, watcher=watcher, hooks=hooks)
                    await list_in_span(folder.list_id, folder.tasks(), runner.drive, environ=environ)
                except BaseExceptionGroup as group:  # of the attempts' task group; whoever runs the list is owed the error itself
                    error = _first(group)
        # Not where it was caught: of an error with a group behind it IPython shows no error, but a dump on standard error.
        if error is not None:
            raise error
        # Also by whoever has run it: who wanted a task again while the last hook was called has seen that somebody runs the list.
        journal = ListJournal(folder, watcher.on_state)
        async with onlooking(home, environ, watcher.on_batch) as look:
            while True:
                is_run = folder.is_run()  # asked before the journal: who runs it no more has written all
                journal.read()
                if not is_run:
                    break
                if journal.state.status is ListStatus.OPEN:
                    look(journal.state)
                await anyio.sleep(LOOK)
        if journal.state.status is not ListStatus.OPEN:
            return journal.state


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


class _Runner:
    """The one that runs a list, while it holds the lock."""

    def __init__(
        self,
        folder: ListFolder,
        *,
        home: StateHome,
        environ: Mapping[str, str],
        request_of: RequestOf,
        calls: Mapping[str, Call],
        watcher: Watcher,
        hooks: Sequence[Hook],
    ) -> None:
        self._tasks: TaskList = folder.tasks()
        self._folder = folder
        self._journal = ListJournal(folder, watcher.on_state)
        self._home = home
        self._environ = environ
        self._hooks = ListHooks(hooks, folder=folder, tasks=self._tasks, environ=environ, tell=self._tell)
        self._attempts = TaskAttempts(
            folder,
            tasks=self._tasks,
            journal=self._journal,
            hooks=self._hooks,
            home=home,
            environ=environ,
            request_of=request_of,
            calls=calls,
            watcher=watcher,
        )
        self._live: dict[str, Live] = {}
        self._news = anyio.Event()
        self._day = DaySpend(home, unsealed=self._spent_unsealed)
        self._today = 0.0
        self._looked: tuple[float, float] | None = None  # when today's runs were looked at, and what this list had cost then

    async def drive(self) -> ListState:
        """Until nothing is left to be done."""
        self._journal.read()
        if why := await self._hooks.open(self._journal.state):
            await self._journal.add(Closed(at=time.time(), status=ListStatus.STOPPED, summary=why))
        self._journal.read()  # the first hook may have taken long
        async with anyio.create_task_group() as group:
            for task in self._tasks.tasks:
                known = self._journal.state.task(task.id)
                if known.status is TaskStatus.RUNNING and known.validation == LOOKED_AT:
                    self._begin(group, task, partial(self._attempts.look, run_id=known.validator), is_adopted=True)
                elif known.status is TaskStatus.RUNNING and known.validation != OWED:
                    self._begin(group, task, self._attempts.adopt, is_adopted=True)
            while self._journal.state.status is ListStatus.OPEN or self._live:
                await self._hold_or_go()
                if not await self._act(group):
                    with anyio.move_on_after(LOOK):
                        await self._news.wait()
                    self._news = anyio.Event()
                self._journal.read()
        why = await self._hooks.close(self._journal.state)
        self._journal.read()  # the last hook may have taken long, and somebody may have wanted a task again
        while why and self._journal.considered().status is ListStatus.OK:
            if await self._journal.decided(Closed(at=time.time(), status=ListStatus.FAILED, summary=why)):
                break
            self._journal.read()
        if self._journal.state.status is not ListStatus.OPEN:
            await self._hooks.told(self._journal.state)
        return self._journal.state

    async def _act(self, group: anyio.abc.TaskGroup) -> bool:
        """Do what is due; whether to ask again at once. One step at a time, because meanwhile others act and say what they want."""
        has_acted = False
        for action in await self._due():
            if await self._do(action, group):
                has_acted = True
                # There may be thousands of these; after somebody who comes between them, none is written.
                if not isinstance(action, Skip | Wait):
                    break
        return has_acted

    async def _tell(self, report: HookReport, task: str) -> None:
        await self._journal.add(HookTold(at=time.time(), task=task, text=report.sentence()))

    async def _due(self) -> list[Action]:
        state, now = self._journal.state, time.time()
        if state.status is ListStatus.OPEN and bounded(self._tasks, state).max_cost_per_day is not None:
            at, spent = self._looked or (-DAY_LOOK, 0.0)
            if self._looked is None or spent != state.spent or not 0 <= now - at < DAY_LOOK:
                self._today = await in_thread(lambda: self._day.total(now))
                self._looked = (now, state.spent)
        return due(self._tasks, self._journal.considered(), now=now, today=self._today)

    def _spent_unsealed(self, folder: RunFolder) -> EndedRun | None:
        """What a run has cost that nobody has sealed. Of one that goes on in this list what it may cost is set aside until it is."""
        going = (task for task in self._journal.state.tasks.values() if task.status is TaskStatus.RUNNING)
        return None if any(folder.run_id in {task.run_id, task.validator} for task in going) else spent_unsealed(folder)

    async def _do(self, action: Action, group: anyio.abc.TaskGroup) -> bool:
        """Carry one action out; whether to ask again at once, because that changed something, or because somebody else has."""
        match action:
            case Start(task=task_id, max_cost=max_cost):
                if task_id in self._live:  # its last attempt is just letting go
                    return False
                task, known = self._tasks.task(task_id), self._journal.state.task(task_id)
                run_id = "" if task.kind is TaskKind.CALL else str(self._attempts.new_run())
                # Written before anything is launched: a run without this line cannot be, and this line without a run was never launched.
                if await self._journal.decided(
                    Begun(at=time.time(), task=task_id, attempt=known.begun + 1, run_id=run_id, session=known.session)
                ):
                    work = partial(self._attempts.attempt, max_cost=max_cost, run_id=run_id, session=known.session, say=known.say)
                    self._begin(group, task, work)
            case Wait(task=task_id, until=until, why=why, cause=cause, session=session, say=say):
                await self._journal.decided(
                    Waiting(at=time.time(), task=task_id, until=until, why=why, cause=cause, session=session, say=say)
                )
            case Validate(task=task_id, max_cost=max_cost):
                if task_id in self._live:  # as above
                    return False
                self._begin(group, self._tasks.task(task_id), partial(self._attempts.look, max_cost=max_cost))
            case Skip(task=task_id, because=because):
                await self._journal.decided(Skipped(at=time.time(), task=task_id, because=because))
            case Close(status=status, summary=summary):
                await self._journal.decided(Closed(at=time.time(), status=status, summary=summary))
            case Cancel(task=task_id):
                live = self._live.get(task_id)
                if live is None or live.is_cancelled or (live.is_adopted and live.run is None):
                    return False
                live.is_cancelled = True
                if live.run is None:
                    live.scope.cancel()
                else:
                    with suppress(ControlFailed):  # it has ended by itself
                        await live.run.cancel(reason="cancel", by="tasks")
        return True

    async def _hold_or_go(self) -> None:
        wanted = self._journal.state.is_paused
        for live in list(self._live.values()):  # one may end while another is told
            if live.run is not None and live.is_paused != wanted:
                with suppress(ControlFailed):  # it has ended by itself
                    await (live.run.pause(by="tasks") if wanted else live.run.resume(by="tasks"))
                live.is_paused = wanted

    def _begin(
        self,
        group: anyio.abc.TaskGroup,
        task: Task,
        work: Callable[[Task, Live], Awaitable[Ended | Validated | Validating]],
        *,
        is_adopted: bool = False,
    ) -> None:
        live = self._live[task.id] = Live(is_adopted=is_adopted, is_paused=None if is_adopted else False)
        group.start_soon(self._whole, task, live, task_in_span(work, environ=self._environ))

    async def _whole(self, task: Task, live: Live, work: Callable[[Task, Live], Awaitable[Ended | Validated | Validating]]) -> None:
        ended: Ended | Validated | Validating | None = None
        try:
            try:
                with live.scope:
                    ended = await work(task, live)
                if ended is None:
                    ended = self._attempts.unbegun(task, OutcomeKind.CANCELLED, "it was ended before it had begun")
            except (HookRefused, NestedTooDeep) as error:
                ended = self._attempts.unbegun(task, OutcomeKind.DENIED, str(error))  # asked again, it would be refused again
            except InvalidRequest as error:
                ended = self._attempts.unbegun(task, OutcomeKind.FAILED, str(error), hit=INVALID)
            except CCExecutorError as error:
                ended = self._attempts.unbegun(task, OutcomeKind.FAILED, str(error))
            if not isinstance(ended, Ended):
                # Written down while it is live: a look that could not be begun is owed until then, and would be begun again.
                await self._journal.add(ended)
        finally:
            del self._live[task.id]
        if isinstance(ended, Ended):
            await self._journal.add(await self._hooks.after_task(task, ended, self._journal.state))
        self._news.set()
