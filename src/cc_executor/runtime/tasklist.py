"""A task list at work: decisions from `policy.schedule`, runs from `runtime.run`, and everything that happens in the list's journal.

One process runs a list, whoever holds its lock; all others watch the journal, and append what they want. So a kernel that dies, a second notebook and a
terminal are the same easy case: whoever comes next reads the journal, adopts the runs that go on, and goes on.
"""

from __future__ import annotations

import inspect
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import anyio
import anyio.abc

from cc_executor.errors import CCExecutorError, ControlFailed, RunNotFound
from cc_executor.model.listrecord import (
    INTERRUPTED,
    TEXT_LIMIT,
    Begun,
    Closed,
    Ended,
    ListState,
    ListStatus,
    Record,
    Skipped,
    TaskStatus,
    advance,
)
from cc_executor.model.outcome import OutcomeKind
from cc_executor.model.receipt import Receipt
from cc_executor.model.reference import Absent, Made, filled
from cc_executor.model.request import RunId, RunRequest
from cc_executor.model.tasklist import Task, TaskKind, TaskList
from cc_executor.policy.schedule import Action, Cancel, Close, Skip, Start, due
from cc_executor.runtime.errand import in_thread
from cc_executor.runtime.plan import resolved
from cc_executor.runtime.run import Batch, Run
from cc_executor.runtime.transcripts import find_transcripts
from cc_executor.runtime.verification import transcript_roots
from cc_executor.store.home import StateHome, new_run_id
from cc_executor.store.tasklists import ListFolder

logger = logging.getLogger(__name__)

LOOK: Final = 0.2  # seconds between looks for what others have appended
NEEDS_VARIABLE: Final = "CC_NEEDS"
DATA_LIMIT: Final = 64 * 1024  # bytes of structured data that the list's journal keeps; the run's receipt has all of it
# Said to a session that is continued; the original prompt follows.
CONTINUE: Final = "Your work on this task was interrupted. Look at what is done already, and complete it. The task was:\n\n"

# The request of a task: its text with the references filled in, the dollars it may spend, the session that it continues.
RequestOf = Callable[[Task, str, float | None, str], RunRequest]
Call = Callable[..., object]


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who wants to know. Both are called on the loop and must not block.

    Attributes
    ----------
    on_state : callable
        Called with the list's state whenever it has changed.
    on_batch : callable
        Called with a task's id and what its run has written.
    """

    on_state: Callable[[ListState], None] = lambda _: None
    on_batch: Callable[[str, Batch], None] = lambda _, __: None


@dataclass(slots=True)
class _Live:
    """An attempt that this process drives."""

    run: Run | None = None
    is_adopted: bool = False  # its run goes on already, whether we have found it yet or not
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    is_cancelled: bool = False
    is_paused: bool = False


async def run_list(
    folder: ListFolder,
    *,
    home: StateHome,
    environ: Mapping[str, str],
    request_of: RequestOf,
    calls: Mapping[str, Call],
    watcher: Watcher,
) -> ListState:
    """Run a list to its end, or watch whoever runs it already; if that one dies, go on in its place.

    Cancelled, it lets go of the list: runs whose request says so go on, and whoever runs the list next adopts them.

    Raises
    ------
    StateUnusable
    """
    while True:
        with folder.claimed() as mine:
            if mine:
                return await _Runner(folder, home=home, environ=environ, request_of=request_of, calls=calls, watcher=watcher).drive()
        journal = _Journal(folder, watcher)
        while True:
            journal.read()
            if journal.state.status is not ListStatus.OPEN:
                return journal.state
            if not folder.is_run():
                break
            await anyio.sleep(LOOK)


class _Journal:
    """The list's records, read as they come, and the state after them."""

    def __init__(self, folder: ListFolder, watcher: Watcher) -> None:
        self.folder = folder
        self.state = ListState()
        self._watcher = watcher
        self._offset = 0

    def read(self) -> None:
        records, self._offset = self.folder.read(self._offset)
        for record in records:
            self.state = advance(self.state, record)
        if records:
            self._watcher.on_state(self.state)

    def add(self, record: Record) -> None:
        self.folder.append(record)
        self.read()


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
    ) -> None:
        self._tasks: TaskList = folder.tasks()
        self._folder = folder
        self._journal = _Journal(folder, watcher)
        self._home = home
        self._environ = environ
        self._request_of = request_of
        self._calls = calls
        self._watcher = watcher
        self._live: dict[str, _Live] = {}
        self._news = anyio.Event()

    async def drive(self) -> ListState:
        """Until nothing is left to be done."""
        self._journal.read()
        async with anyio.create_task_group() as attempts:
            for task in self._tasks.tasks:
                if self._journal.state.task(task.id).status is TaskStatus.RUNNING:
                    self._begin(attempts, task, self._adopt, is_adopted=True)
            while self._journal.state.status is ListStatus.OPEN or self._live:
                await self._hold_or_go()
                acted = [await self._do(action, attempts) for action in due(self._tasks, self._journal.state)]
                if not any(acted):
                    with anyio.move_on_after(LOOK):
                        await self._news.wait()
                    self._news = anyio.Event()
                self._journal.read()
        return self._journal.state

    async def _do(self, action: Action, attempts: anyio.abc.TaskGroup) -> bool:
        """Carry one action out; returns whether that changed the state."""
        match action:
            case Start(task=task_id, max_cost=max_cost):
                if task_id in self._live:  # its last attempt is just letting go
                    return False
                task, known = self._tasks.task(task_id), self._journal.state.task(task_id)
                run_id = "" if task.kind is TaskKind.CALL else str(new_run_id(time.time()))
                # Written before anything is launched: a run without this line cannot be, and this line without a run was never launched.
                self._journal.add(Begun(at=time.time(), task=task_id, attempt=known.begun + 1, run_id=run_id, session=known.session))
                self._begin(attempts, task, partial(self._attempt, max_cost=max_cost, run_id=run_id, session=known.session))
            case Skip(task=task_id, because=because):
                self._journal.add(Skipped(at=time.time(), task=task_id, because=because))
            case Close(status=status, summary=summary):
                self._journal.add(Closed(at=time.time(), status=status, summary=summary))
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
                return False
        return True

    async def _hold_or_go(self) -> None:
        wanted = self._journal.state.is_paused
        for live in self._live.values():
            if live.run is not None and live.is_paused != wanted:
                with suppress(ControlFailed):  # it has ended by itself
                    await (live.run.pause(by="tasks") if wanted else live.run.resume(by="tasks"))
                live.is_paused = wanted

    def _begin(
        self, attempts: anyio.abc.TaskGroup, task: Task, work: Callable[[Task, _Live], Awaitable[Ended]], *, is_adopted: bool = False
    ) -> None:
        live = self._live[task.id] = _Live(is_adopted=is_adopted)
        attempts.start_soon(self._whole, task, live, work)

    async def _whole(self, task: Task, live: _Live, work: Callable[[Task, _Live], Awaitable[Ended]]) -> None:
        ended = self._ended(task, OutcomeKind.CANCELLED.value, "it was ended before it had begun")
        try:
            with live.scope:
                ended = await work(task, live)
        except CCExecutorError as error:
            ended = self._ended(task, OutcomeKind.FAILED.value, str(error))
        finally:
            del self._live[task.id]
            self._news.set()
        self._journal.add(ended)

    async def _attempt(self, task: Task, live: _Live, *, max_cost: float | None, run_id: str, session: str) -> Ended:
        made = {need: self._made(need) for need in task.all_needs}
        if task.kind is TaskKind.CALL:
            return await self._call(task, made)
        text = self._journal.state.texts.get(task.id, task.text)
        try:
            prompt = filled(text, made) if task.kind is TaskKind.AGENT else text
        except Absent as error:
            return self._ended(task, OutcomeKind.FAILED.value, str(error))
        request = self._request_of(task, CONTINUE + prompt if session else prompt, max_cost, session)
        environ = dict(self._environ)
        if task.kind is TaskKind.SHELL:
            environ[NEEDS_VARIABLE] = str(self._folder.write_needs(task.id, _files_of(made)))
            request = request.model_copy(update={"env_names": (*request.env_names, NEEDS_VARIABLE)})
        live.run = await Run.start(request, home=self._home, environ=environ, run_id=RunId(run_id))
        if live.is_cancelled:  # while it was being launched
            with suppress(ControlFailed):
                await live.run.cancel(reason="cancel", by="tasks", now=True)
        return await self._follow(task, live.run)

    async def _follow(self, task: Task, run: Run) -> Ended:
        async with aclosing(run.follow()) as batches:
            async for batch in batches:
                await run.refuse_hopeless(batch)
                self._watcher.on_batch(task.id, batch)
        return self._ended_with(task, await run.finish())

    async def _adopt(self, task: Task, live: _Live) -> Ended:
        """A task that was running when whoever ran the list went away."""
        known = self._journal.state.task(task.id)
        if task.kind is TaskKind.CALL:
            return self._ended(task, INTERRUPTED, "the process that ran it is gone")
        try:
            live.run = await Run.attach(self._home, known.run_id, environ=self._environ)
        except RunNotFound:
            return self._ended(task, INTERRUPTED, "it was not launched any more")
        ended = await self._follow(task, live.run)
        receipt = await live.run.finish()
        if receipt.outcome.kind is OutcomeKind.LOST or receipt.exit.stopped_for == "kernel_exit":
            session = await in_thread(lambda: self._session(receipt))
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

    def _session(self, receipt: Receipt) -> str:
        """The agent's session, if its transcript is there for another run to continue."""
        if receipt.agent != "claude" or not receipt.session_id or receipt.rehearsed:  # a rehearsal's transcript stays with its run
            return ""
        return receipt.session_id if find_transcripts(receipt.session_id, transcript_roots(self._environ)) else ""

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
        started = time.monotonic()
        arguments = (made,) if _takes_needs(work) else ()
        try:
            if inspect.iscoroutinefunction(work):
                value: object = await work(*arguments)
            else:
                value = await in_thread(lambda: work(*arguments), takes_long=True)
        except Exception as error:  # the user's own code: the list is owed an answer, the developer the trace
            logger.exception("task %s failed", task.id)
            return self._ended(task, OutcomeKind.FAILED.value, f"{type(error).__name__}: {error}", seconds=time.monotonic() - started)
        try:
            data = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError):
            data = None
        text = value if isinstance(value, str) else "" if value is None else repr(value)
        return self._ended(
            task, OutcomeKind.OK.value, text=text, data=data if not isinstance(value, str) else None, seconds=time.monotonic() - started
        )

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
            files=files,
            cost=cost,
            seconds=round(seconds, 3),
        )


def _paths(receipt: Receipt) -> tuple[str, ...]:
    return tuple(str(resolved(change.path, cwd=receipt.cwd)) for change in receipt.files)


def _files_of(made: Mapping[str, Made]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, value in made.items():
        found[f"{name}.txt"] = value.text.encode("utf-8", "replace")
        if value.data is not None:
            found[f"{name}.json"] = json.dumps(value.data, ensure_ascii=False, indent=1).encode("utf-8", "replace")
    return found


def _takes_needs(work: Call) -> bool:
    try:
        parameters = inspect.signature(work).parameters.values()
    except (TypeError, ValueError):  # written in C
        return False
    kinds = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
    return any(parameter.kind in kinds for parameter in parameters)
