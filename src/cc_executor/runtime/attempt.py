"""What is done for one task of a list: an attempt, one that goes on already, a look at its work. `runtime.tasklist` decides which is due."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any, Final

import anyio
import msgspec

from cc_executor.errors import ControlFailed, InvalidRequest, RunNotFound, StateUnusable
from cc_executor.model.care import VALIDATOR_COST, Verdict
from cc_executor.model.listrecord import (
    INTERRUPTED,
    TEXT_LIMIT,
    Ended,
    ListState,
    TaskState,
    Validated,
    Validating,
)
from cc_executor.model.outcome import OutcomeKind
from cc_executor.model.receipt import Receipt
from cc_executor.model.reference import Absent, Made, files_of, filled
from cc_executor.model.request import RunId, RunRequest
from cc_executor.model.tasklist import Task, TaskKind, TaskList
from cc_executor.policy.ask import Answerer, Place, answerer
from cc_executor.policy.budget import SMALLEST
from cc_executor.policy.retry import hit_of, said
from cc_executor.runtime.adoption import adopted
from cc_executor.runtime.again import resumable
from cc_executor.runtime.answers import Attendant
from cc_executor.runtime.errand import Errand, in_thread
from cc_executor.runtime.listhooks import ListHooks
from cc_executor.runtime.listjournal import ListJournal
from cc_executor.runtime.plan import resolved
from cc_executor.runtime.run import Batch, Run
from cc_executor.runtime.seal import redactor_of
from cc_executor.runtime.taskcall import DATA_LIMIT, Call, call
from cc_executor.runtime.taskvalidation import validated, validation_request, verdict_of
from cc_executor.runtime.wholetext import WHOLE_LIMIT, whole_text
from cc_executor.store import owners
from cc_executor.store.home import StateHome, new_run_id
from cc_executor.store.tasklists import ListFolder

LOOK: Final = 0.2  # seconds between looks for what others have appended
WRITE_BUDGET: Final = 10.0  # seconds for which one that was stopped waits for its files: the next attempt makes that folder anew
NEEDS_VARIABLE: Final = "CC_NEEDS"
TAKEN_IN: Final = 8 * WHOLE_LIMIT  # characters of all texts that a task takes in, which whoever runs the list holds in memory meanwhile
FILES_LIMIT: Final = 1000  # names of files that the list's journal keeps

REWRITE: Final = "Set it back (`cc-executor tasks retry`), give it another prompt (`cc-executor tasks edit`), and run the list again."

# The request of a task: its text with the references filled in, the dollars it may spend, the session that it continues.
RequestOf = Callable[[Task, str, float | None, str], RunRequest]


class Watcher(msgspec.Struct, frozen=True):
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


class Live(msgspec.Struct):
    """An attempt, or a look at one, that this process drives."""

    run: Run | None = None
    is_adopted: bool = False  # its run goes on already, whether we have found it yet or not
    scope: anyio.CancelScope = msgspec.field(default_factory=anyio.CancelScope)
    is_cancelled: bool = False
    is_paused: bool | None = False  # None: its run was found so, and nobody has looked


class TaskAttempts:
    """What is done for the tasks of one list, by the process that runs it. Each tells what there is to be written down; `CCExecutorError`: nothing was begun."""

    def __init__(
        self,
        folder: ListFolder,
        *,
        tasks: TaskList,
        journal: ListJournal,
        hooks: ListHooks,
        home: StateHome,
        environ: Mapping[str, str],
        request_of: RequestOf,
        calls: Mapping[str, Call],
        watcher: Watcher,
    ) -> None:
        self._tasks = tasks
        self._folder = folder
        self._journal = journal
        self._hooks = hooks
        self._home = home
        self._environ = environ
        self._request_of = request_of
        self._calls = calls
        self._watcher = watcher

    async def attempt(self, task: Task, live: Live, *, max_cost: float | None, run_id: str, session: str, say: str) -> Ended:
        """Begin a task and see it through. `say`: what this attempt is told; `session`: the one that it continues."""
        await self._hooks.before_task(task, self._journal.state.task(task.id).begun, self._journal.state)
        # On another thread: a long text is read from its journal.
        made = await in_thread(lambda: self._taken_in(task), takes_long=True)
        self._journal.read()  # the hook may have taken long
        while self._journal.state.is_paused:  # noqa: ASYNC110 - the list's file, which has no event; who stops the list cancels this
            await anyio.sleep(LOOK)
        if task.kind is TaskKind.CALL:
            return await self._call(task, made)
        text = self._journal.state.texts.get(task.id, task.text)
        try:
            prompt = filled(text, made) if task.kind is TaskKind.AGENT else text
        except Absent as error:
            raise InvalidRequest(f"{error} {REWRITE}") from error
        try:
            request = self._request_of(task, said(prompt, say, is_resumed=bool(session)), max_cost, session)
        except InvalidRequest as error:
            if prompt == text:
                raise
            raise InvalidRequest(f"With {len(prompt) - len(text):,} characters from the tasks that it needs: {error}") from error
        environ = dict(self._environ)
        if task.kind is TaskKind.SHELL:
            write = Errand(lambda _: self._folder.write_needs(task.id, files_of(made)), patience=WRITE_BUDGET, takes_long=True)
            environ[NEEDS_VARIABLE] = str(await write.run())
            request = request.model_copy(update={"env_names": (*request.env_names, NEEDS_VARIABLE)})
        made = {}  # many megabytes, perhaps, and the run may take hours
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

    async def look(self, task: Task, live: Live, *, run_id: str = "", max_cost: float | None = None) -> Validated | Validating:
        """Let a fresh agent look at what a task has done; with a `run_id`, hear what the one says that looks at it already.

        `Validating`, with no run: that one was never launched, and the look is owed again.
        """
        known, validation = self._journal.state.task(task.id), task.validation
        assert validation is not None  # the journal says that a look is owed, and the list is the one that it was written for
        # Whether one is still wanted, and what it may cost, is decided anew.
        owed = Validating(at=time.time(), task=task.id, attempt=known.begun, run_id="")
        if run_id:
            live.run = await adopted(self._home, run_id, environ=self._environ)
            if live.run is None:
                return owed
        elif max_cost is not None and max_cost < SMALLEST:
            is_ended = known.is_stopped or known.is_unwanted or self._journal.state.is_stopped
            return self._validated(task, Verdict.UNCHECKED, "it was ended before" if is_ended else "there is no money left for it")
        if live.run is None:
            cap = validation.max_cost if max_cost is None else max_cost
            request = await in_thread(lambda: self._look_request(task, known, cap), takes_long=True)
            new = self.new_run()
            # As for an attempt: written before anything is launched.
            await self._journal.add(Validating(at=time.time(), task=task.id, attempt=known.begun, run_id=new))
            live.run = await Run.start(request, home=self._home, environ=self._environ, run_id=new)
            if live.is_cancelled:  # while it was being launched
                with suppress(ControlFailed):
                    await live.run.cancel(reason="cancel", by="tasks", now=True)
        await self._show(task, live.run)
        receipt = await live.run.finish()
        if run_id and receipt.outcome.kind is OutcomeKind.LOST and live.run.state.started is None:
            return owed  # its launcher died before it had a supervisor
        return self._validated(task, *verdict_of(receipt), cost=None if receipt.rehearsed else receipt.cost)

    def _look_request(self, task: Task, known: TaskState, max_cost: float) -> RunRequest:
        text = self._journal.state.texts.get(task.id, task.text)
        here = RunRequest(prompt=task.text, agent="shell", cwd=self._tasks.cwd)  # a callable has no run; it worked where the list does
        base = here if task.kind is TaskKind.CALL else self._request_of(task, text, None, "")
        # Where nobody has named another bound, what holds for every run does.
        if task.validation is not None and task.validation.max_cost == VALIDATOR_COST:
            plain = task.model_copy(update={"kind": TaskKind.AGENT, "options": {}})
            max_cost = min(max_cost, self._request_of(plain, "-", None, "").limits.cost or max_cost)
        if task.kind is TaskKind.AGENT:
            with suppress(Absent):  # it was filled in when the task was begun
                text = filled(text, self._taken_in(task))
        return validation_request(task, base, text, known, max_cost=max_cost)

    def _validated(self, task: Task, verdict: Verdict, reasons: str, *, cost: float | None = None) -> Validated:
        return validated(task, self._journal.state, verdict, reasons, cost=cost, at=time.time())

    async def adopt(self, task: Task, live: Live) -> Ended:
        """A task that was running when whoever ran the list went away."""
        known = self._journal.state.task(task.id)
        if task.kind is TaskKind.CALL:
            return self._ended(task, INTERRUPTED, "the process that ran it is gone")
        live.run = await adopted(self._home, known.run_id, environ=self._environ)
        if live.run is None:
            return msgspec.structs.replace(self._ended(task, INTERRUPTED, "it was not launched any more"), launched=False)
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

    def _taken_in(self, task: Task) -> dict[str, Made]:
        """What a task gets of those that it needs. Blocking. Raises `InvalidRequest` for more than `TAKEN_IN` characters."""
        made: dict[str, Made] = {}
        size = 0
        for need in task.all_needs:
            made[need] = self._made(need)
            size += len(made[need].text)
            if size > TAKEN_IN:  # cut off, it would be another result
                raise InvalidRequest(
                    f"The {len(made)} tasks from {task.all_needs[0]!r} to {need!r} alone have written {size:,} characters, and a task takes in "
                    f"{TAKEN_IN:,} of all that it needs: let them write files into their folder and name these, or sum up some in a task between."
                )
        return made

    def _made(self, task_id: str) -> Made:
        """What a task offers. Its receipt has all of it; the journal what a list is drawn from."""
        known = self._journal.state.task(task_id)
        if known.run_id:
            with suppress(RunNotFound):
                folder = self._home.find(known.run_id)
                receipt = folder.receipt()
                if receipt is not None:
                    text = whole_text(folder, receipt, mask=redactor_of(self._environ, self._home.root).text)
                    return Made(text, receipt.data, _paths(receipt), known.outcome, known.spent)
        return known.made

    async def _call(self, task: Task, made: Mapping[str, Made]) -> Ended:
        work = self._calls.get(task.text)
        if work is None:
            return self._ended(task, OutcomeKind.FAILED.value, f"There is no callable {task.text!r} in the process that runs the list.")
        value = await call(work, made)
        if value.error:
            return self._ended(task, OutcomeKind.FAILED.value, value.error, seconds=value.seconds)
        return self._ended(task, OutcomeKind.OK.value, text=value.text[:TEXT_LIMIT], data=value.data, seconds=value.seconds)

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
            text=text,
            data=kept,
            files=files[:FILES_LIMIT],
            cost=cost,
            seconds=round(seconds, 3),
            to_validate=task.validation is not None and outcome == OutcomeKind.OK.value,
        )

    def new_run(self) -> RunId:
        """The id of a run that is about to be launched; whose the list is, his is the run."""
        run_id = new_run_id(time.time())
        owners.inherit(self._home.root, run_id, of=self._folder.list_id)
        return run_id

    def unbegun(self, task: Task, outcome: OutcomeKind, why: str, *, hit: str = "") -> Ended | Validated:
        """What becomes of an attempt, or of a look at one, that could not be made."""
        if self._journal.state.task(task.id).validation:
            return self._validated(task, Verdict.UNCHECKED, why)
        return msgspec.structs.replace(self._ended(task, outcome.value, why), hit=hit, launched=self._is_launched(task))

    def _is_launched(self, task: Task) -> bool:
        """Whether there is a run to show. It may have been launched by somebody who was ended before he knew."""
        try:
            self._home.find(self._journal.state.task(task.id).run_id)
        except (RunNotFound, StateUnusable):
            return False
        return True


def _paths(receipt: Receipt) -> tuple[str, ...]:
    return tuple(str(resolved(change.path, cwd=receipt.cwd)) for change in receipt.files if change.change != "deleted")
