"""A task list at work: decisions from `policy.schedule`, runs from `runtime.run`, and everything that happens in the list's journal.

One process runs a list, whoever holds its lock; all others watch the journal, and append what they want. So a kernel that dies, a second notebook and a
terminal are the same easy case: whoever comes next reads the journal, adopts the runs that go on, and goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast

import anyio
import anyio.abc
import msgspec

from cc_executor.errors import CCExecutorError, ControlFailed, HookRefused, RunNotFound
from cc_executor.model.care import Verdict
from cc_executor.model.hook import Hook, HookReport
from cc_executor.model.listrecord import (
    INTERRUPTED,
    LOOKED_AT,
    OWED,
    TEXT_LIMIT,
    Begun,
    Closed,
    Ended,
    HookTold,
    ListState,
    ListStatus,
    Skipped,
    TaskState,
    TaskStatus,
    Validated,
    Validating,
    Waiting,
)
from cc_executor.model.outcome import OutcomeKind
from cc_executor.model.receipt import Receipt
from cc_executor.model.reference import Absent, Made, files_of, filled
from cc_executor.model.request import RunId, RunRequest
from cc_executor.model.tasklist import Task, TaskKind, TaskList
from cc_executor.policy.ask import Answerer, Place, answerer
from cc_executor.policy.budget import SMALLEST
from cc_executor.policy.retry import hit_of, said
from cc_executor.policy.schedule import Action, Cancel, Close, Skip, Start, Validate, Wait, bounded, due
from cc_executor.runtime.adoption import adopted
from cc_executor.runtime.again import resumable
from cc_executor.runtime.answers import Attendant
from cc_executor.runtime.errand import in_thread
from cc_executor.runtime.listhooks import ListHooks
from cc_executor.runtime.listjournal import ListJournal
from cc_executor.runtime.listspans import list_in_span, task_in_span
from cc_executor.runtime.onlooker import onlooking
from cc_executor.runtime.plan import resolved
from cc_executor.runtime.run import Batch, Run
from cc_executor.runtime.taskcall import DATA_LIMIT, Call, call
from cc_executor.runtime.taskvalidation import validated, validation_request, verdict_of
from cc_executor.runtime.unsealed import spent_unsealed
from cc_executor.store import owners
from cc_executor.store.home import StateHome, new_run_id
from cc_executor.store.journal import RunFolder
from cc_executor.store.spend import DaySpend, EndedRun
from cc_executor.store.tasklists import ListFolder

LOOK: Final = 0.2  # seconds between looks for what others have appended
NEEDS_VARIABLE: Final = "CC_NEEDS"
FILES_LIMIT: Final = 1000  # names of files that the list's journal keeps; as above
DAY_LOOK: Final = 2.0  # seconds between two looks at what today's runs have cost; what this list has paid is looked at at once

# The request of a task: its text with the references filled in, the dollars it may spend, the session that it continues.
RequestOf = Callable[[Task, str, float | None, str], RunRequest]


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who wants to know. Both are called on the loop and must not block.

    Attributes
    ----------
    on_state : callable
        Called with the list's state whenever it has changed.
    on_batch : callable
        Called with a task's id and what its run has written.
    who : callable
        Says whether somebody can answer what an agent asks; if not, it is refused at once.
    """

    on_state: Callable[[ListState], None] = lambda _: None
    on_batch: Callable[[str, Batch], None] = lambda _, __: None
    who: Callable[[], Answerer] = lambda: answerer(Place.LIST)


@dataclass(slots=True)
class _Live:
    """An attempt that this process drives."""

    run: Run | None = None
    is_adopted: bool = False  # its run goes on already, whether we have found it yet or not
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    is_cancelled: bool = False
    is_paused: bool | None = False  # None: its run was found so, and nobody has looked


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
        with folder.claimed() as mine:
            if mine:
                try:
                    runner = _Runner(folder, home=home, environ=environ, request_of=request_of, calls=calls, watcher=watcher, hooks=hooks)
                    await list_in_span(folder.list_id, folder.tasks(), runner.drive, environ=environ)
                except BaseExceptionGroup as group:  # of the attempts' task group; whoever runs the list is owed the error itself
                    raise _first(group) from group
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
        self._request_of = request_of
        self._calls = calls
        self._watcher = watcher
        self._hooks = ListHooks(hooks, folder=folder, tasks=self._tasks, environ=environ, tell=self._tell)
        self._live: dict[str, _Live] = {}
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
        async with anyio.create_task_group() as attempts:
            for task in self._tasks.tasks:
                known = self._journal.state.task(task.id)
                if known.status is TaskStatus.RUNNING and known.validation == LOOKED_AT:
                    self._begin(attempts, task, partial(self._look, run_id=known.validator), is_adopted=True)
                elif known.status is TaskStatus.RUNNING and known.validation != OWED:
                    self._begin(attempts, task, self._adopt, is_adopted=True)
            while self._journal.state.status is ListStatus.OPEN or self._live:
                await self._hold_or_go()
                if not await self._act(attempts):
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

    async def _act(self, attempts: anyio.abc.TaskGroup) -> bool:
        """Do what is due; whether to ask again at once. One step at a time, because meanwhile others act and say what they want."""
        has_acted = False
        for action in await self._due():
            if await self._do(action, attempts):
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

    async def _do(self, action: Action, attempts: anyio.abc.TaskGroup) -> bool:
        """Carry one action out; whether to ask again at once, because that changed something, or because somebody else has."""
        match action:
            case Start(task=task_id, max_cost=max_cost):
                if task_id in self._live:  # its last attempt is just letting go
                    return False
                task, known = self._tasks.task(task_id), self._journal.state.task(task_id)
                run_id = "" if task.kind is TaskKind.CALL else str(self._new_run())
                # Written before anything is launched: a run without this line cannot be, and this line without a run was never launched.
                if await self._journal.decided(
                    Begun(at=time.time(), task=task_id, attempt=known.begun + 1, run_id=run_id, session=known.session)
                ):
                    work = partial(self._attempt, max_cost=max_cost, run_id=run_id, session=known.session, say=known.say)
                    self._begin(attempts, task, work)
            case Wait(task=task_id, until=until, why=why, cause=cause, session=session, say=say):
                await self._journal.decided(
                    Waiting(at=time.time(), task=task_id, until=until, why=why, cause=cause, session=session, say=say)
                )
            case Validate(task=task_id, max_cost=max_cost):
                if task_id in self._live:  # as above
                    return False
                self._begin(attempts, self._tasks.task(task_id), partial(self._look, max_cost=max_cost))
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

    def _new_run(self) -> RunId:
        """The id of a run that is about to be launched; whose the list is, his is the run."""
        run_id = new_run_id(time.time())
        owners.inherit(self._home.root, run_id, of=self._folder.list_id)
        return run_id

    async def _hold_or_go(self) -> None:
        wanted = self._journal.state.is_paused
        for live in list(self._live.values()):  # one may end while another is told
            if live.run is not None and live.is_paused != wanted:
                with suppress(ControlFailed):  # it has ended by itself
                    await (live.run.pause(by="tasks") if wanted else live.run.resume(by="tasks"))
                live.is_paused = wanted

    def _begin(
        self,
        attempts: anyio.abc.TaskGroup,
        task: Task,
        work: Callable[[Task, _Live], Awaitable[Ended | Validated]],
        *,
        is_adopted: bool = False,
    ) -> None:
        live = self._live[task.id] = _Live(is_adopted=is_adopted, is_paused=None if is_adopted else False)
        attempts.start_soon(self._whole, task, live, task_in_span(work, environ=self._environ))

    async def _whole(self, task: Task, live: _Live, work: Callable[[Task, _Live], Awaitable[Ended | Validated]]) -> None:
        ended = self._unbegun(task, OutcomeKind.CANCELLED, "it was ended before it had begun")
        try:
            try:
                with live.scope:
                    ended = await work(task, live)
            except HookRefused as error:
                ended = self._unbegun(task, OutcomeKind.DENIED, str(error))  # asked again, it would refuse again
            except CCExecutorError as error:
                ended = self._unbegun(task, OutcomeKind.FAILED, str(error))
            if isinstance(
                ended, Validated
            ):  # written down while it is live: a look that could not be begun is owed until then, and would be begun again
                await self._journal.add(ended)
        finally:
            del self._live[task.id]
        if isinstance(ended, Ended):
            await self._journal.add(await self._hooks.after_task(task, ended, self._journal.state))
        self._news.set()

    def _unbegun(self, task: Task, outcome: OutcomeKind, why: str) -> Ended | Validated:
        """What becomes of an attempt, or of a look at one, that could not be made."""
        if self._journal.state.task(task.id).validation:
            return self._validated(task, Verdict.UNCHECKED, why)
        return self._ended(task, outcome.value, why)

    async def _attempt(self, task: Task, live: _Live, *, max_cost: float | None, run_id: str, session: str, say: str) -> Ended:
        await self._hooks.before_task(task, self._journal.state.task(task.id).begun, self._journal.state)
        self._journal.read()  # the hook may have taken long
        while self._journal.state.is_paused:  # noqa: ASYNC110 - the list's file, which has no event; who stops the list cancels this
            await anyio.sleep(LOOK)
        made = {need: self._made(need) for need in task.all_needs}
        if task.kind is TaskKind.CALL:
            return await self._call(task, made)
        text = self._journal.state.texts.get(task.id, task.text)
        try:
            prompt = filled(text, made) if task.kind is TaskKind.AGENT else text
        except Absent as error:
            return self._ended(task, OutcomeKind.FAILED.value, str(error))
        request = self._request_of(task, said(prompt, say, is_resumed=bool(session)), max_cost, session)
        environ = dict(self._environ)
        if task.kind is TaskKind.SHELL:
            environ[NEEDS_VARIABLE] = str(self._folder.write_needs(task.id, files_of(made)))
            request = request.model_copy(update={"env_names": (*request.env_names, NEEDS_VARIABLE)})
        live.run = await Run.start(
            request,
            home=self._home,
            environ=environ,
            run_id=RunId(run_id),
            hooks=self._hooks.for_runs,
            hook_names=self._hooks.names(task),
            notify=self._hooks.notify,
        )
        if live.is_cancelled:  # while it was being launched
            with suppress(ControlFailed):
                await live.run.cancel(reason="cancel", by="tasks", now=True)
        return await self._follow(task, live.run)

    async def _show(self, task: Task, run: Run) -> None:
        attendant = Attendant(run, self._watcher.who)
        async with aclosing(run.follow()) as batches:
            async for batch in batches:
                await run.refuse_hopeless(batch)
                await attendant.attend(batch)
                self._watcher.on_batch(task.id, batch)

    async def _follow(self, task: Task, run: Run) -> Ended:
        await self._show(task, run)
        receipt = await run.finish()
        ended = self._ended_with(task, receipt)
        if receipt.outcome.ok:
            return ended
        hit = hit_of(receipt.outcome.kind, run.state)
        session = await in_thread(lambda: resumable(receipt, self._environ)) if hit.cause is not None else ""
        return msgspec.structs.replace(ended, hit=hit.cause or "", resets_at=hit.resets_at, delay=hit.delay, session=session)

    async def _look(self, task: Task, live: _Live, *, run_id: str = "", max_cost: float | None = None) -> Validated:
        """Let a fresh agent look at what a task has done; with a `run_id`, hear what the one says that looks at it already."""
        known, validation = self._journal.state.task(task.id), task.validation
        assert validation is not None  # the journal says that a look is owed, and the list is the one that it was written for
        if run_id:
            with suppress(RunNotFound):  # it was not launched any more
                live.run = await Run.attach(self._home, run_id, environ=self._environ)
        elif max_cost is not None and max_cost < SMALLEST:
            is_ended = known.is_stopped or known.is_unwanted or self._journal.state.is_stopped
            return self._validated(task, Verdict.UNCHECKED, "it was ended before" if is_ended else "there is no money left for it")
        if live.run is None:
            request = self._look_request(task, known, validation.max_cost if max_cost is None else max_cost)
            new = self._new_run()
            # As for an attempt: written before anything is launched.
            await self._journal.add(Validating(at=time.time(), task=task.id, attempt=known.begun, run_id=new))
            live.run = await Run.start(request, home=self._home, environ=self._environ, run_id=new)
            if live.is_cancelled:  # while it was being launched
                with suppress(ControlFailed):
                    await live.run.cancel(reason="cancel", by="tasks", now=True)
        await self._show(task, live.run)
        receipt = await live.run.finish()
        return self._validated(task, *verdict_of(receipt), cost=None if receipt.rehearsed else receipt.cost)

    def _look_request(self, task: Task, known: TaskState, max_cost: float) -> RunRequest:
        text = self._journal.state.texts.get(task.id, task.text)
        here = RunRequest(prompt=task.text, agent="shell", cwd=self._tasks.cwd)  # a callable has no run; it worked where the list does
        base = here if task.kind is TaskKind.CALL else self._request_of(task, text, None, "")
        if task.kind is TaskKind.AGENT:
            with suppress(Absent):  # it was filled in when the task was begun
                text = filled(text, {need: self._made(need) for need in task.all_needs})
        return validation_request(task, base, text, known, max_cost=max_cost)

    def _validated(self, task: Task, verdict: Verdict, reasons: str, *, cost: float | None = None) -> Validated:
        return validated(task, self._journal.state, verdict, reasons, cost=cost, at=time.time())

    async def _adopt(self, task: Task, live: _Live) -> Ended:
        """A task that was running when whoever ran the list went away."""
        known = self._journal.state.task(task.id)
        if task.kind is TaskKind.CALL:
            return self._ended(task, INTERRUPTED, "the process that ran it is gone")
        live.run = await adopted(self._home, known.run_id, environ=self._environ)
        if live.run is None:
            return self._ended(task, INTERRUPTED, "it was not launched any more")
        ended = await self._follow(task, live.run)
        receipt = await live.run.finish()
        if receipt.outcome.kind is OutcomeKind.LOST or receipt.exit.stopped_for == "kernel_exit":
            session = await in_thread(lambda: resumable(receipt, self._environ))
            return Ended(
                at=time.time(),
                task=task.id,
                attempt=known.begun,
                outcome=INTERRUPTED,
                summary=receipt.outcome.summary,
                cost=receipt.cost,
                session=session,
            )
        return ended

    def _made(self, task_id: str) -> Made:
        """What a task offers. Its receipt has all of it; the journal what a list is drawn from."""
        known = self._journal.state.task(task_id)
        if known.run_id:
            with suppress(RunNotFound):
                receipt = self._home.find(known.run_id).receipt()
                if receipt is not None:
                    return Made(receipt.text, receipt.data, _paths(receipt), known.outcome, known.spent)
        return known.made

    async def _call(self, task: Task, made: Mapping[str, Made]) -> Ended:
        work = self._calls.get(task.text)
        if work is None:
            return self._ended(task, OutcomeKind.FAILED.value, f"There is no callable {task.text!r} in the process that runs the list.")
        value = await call(work, made)
        if value.error:
            return self._ended(task, OutcomeKind.FAILED.value, value.error, seconds=value.seconds)
        return self._ended(task, OutcomeKind.OK.value, text=value.text, data=value.data, seconds=value.seconds)

    def _ended_with(self, task: Task, receipt: Receipt) -> Ended:
        cost = None if receipt.rehearsed else receipt.cost
        return self._ended(
            task,
            receipt.outcome.kind.value,
            receipt.outcome.summary,
            text=receipt.text,
            data=receipt.data,
            files=_paths(receipt),
            cost=cost,
            seconds=receipt.times.active,
        )

    def _ended(
        self,
        task: Task,
        outcome: str,
        summary: str = "",
        *,
        text: str = "",
        data: Any = None,
        files: tuple[str, ...] = (),
        cost: float | None = None,
        seconds: float = 0.0,
    ) -> Ended:
        kept = data if data is not None and len(json.dumps(data)) <= DATA_LIMIT else None
        return Ended(
            at=time.time(),
            task=task.id,
            attempt=self._journal.state.task(task.id).begun,
            outcome=outcome,
            summary=summary,
            text=text[:TEXT_LIMIT],
            data=kept,
            files=files[:FILES_LIMIT],
            cost=cost,
            seconds=round(seconds, 3),
            to_validate=task.validation is not None and outcome == OutcomeKind.OK.value,
        )


def _paths(receipt: Receipt) -> tuple[str, ...]:
    return tuple(str(resolved(change.path, cwd=receipt.cwd)) for change in receipt.files if change.change != "deleted")
