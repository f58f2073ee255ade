"""Task lists for somebody: start, look, command. Knows lists and owners; knows no tornado and no HTTP.

A list is run by a process of its own, so that it goes on without the server.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime
from functools import partial
from heapq import merge
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

import msgspec
from msgspec.structs import asdict

from cc_executor.errors import CCExecutorError, ControlFailed, InvalidRequest, RunNotFound, StateUnusable
from cc_executor.model.listrecord import NOT_OVER, ListState, ListStatus, Resumed, TaskState, TaskStatus
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import RunRequest, canonical_digest
from cc_executor.model.tasklist import Task, TaskKind, TaskList
from cc_executor.policy.schedule import bounded
from cc_executor.runtime.listhooks import keep_notify
from cc_executor.server.keys import Held, Keys
from cc_executor.server.listcare import Care
from cc_executor.server.listrequest import ListRequests, as_asked
from cc_executor.server.listwatch import ListWatch, calls_left, why_alone
from cc_executor.server.owners import Owners
from cc_executor.server.queue import Waiting
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder
from cc_executor.store.owners import FOLDER as OWNERS
from cc_executor.store.tasklists import LIST, LIST_ID, ListFolder, ListHome
from cc_executor.taskcommands import TaskCommands
from cc_executor.tasks import rebound, reopen, row

if TYPE_CHECKING:
    from cc_executor.model.notify import Notify

logger = logging.getLogger(__name__)

PAGE: Final = 100  # tasks of one answer
TITLE: Final = 200  # characters
OPS: Final = ("pause", "resume", "cancel", "kill")
TASK_OPS: Final = ("skip", "retry", "cancel", "now", "edit")


class ListSummary(msgspec.Struct, frozen=True):
    """A row of a list among runs. `done`: tasks that are over."""

    id: str
    status: str
    started: float
    label: str
    tasks: int
    done: int
    cost: float
    kind: str = "list"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Lists:
    """The task lists of one server.

    Parameters
    ----------
    home : StateHome
    environ : mapping of str to str
        The environment to choose the agents' from.
    owners : Owners
    keys : Keys
    root : Path
        Where tasks work when a request names no folder.
    unfit : collection of str
        Options that a request over a network has not.
    allowed : callable
        A request under the server's rules; raises `Refused`.
    room : callable
        With an owner, a number, a list and what it has cost already: a block within which so many runs of his count, besides those that go on; it gives the
        list with a bound that the owner's day allows. Raises `Refused`.
    told : callable
        Takes out of options who is told, see `Notices.take`.
    """

    def __init__(
        self,
        *,
        home: StateHome,
        environ: Mapping[str, str],
        owners: Owners,
        keys: Keys,
        root: Path,
        unfit: Collection[str],
        allowed: Callable[[RunRequest], RunRequest],
        room: Callable[[str, int, TaskList, float], AbstractAsyncContextManager[TaskList]],
        told: Callable[[dict[str, Any]], Notify | None] = lambda _: None,
    ) -> None:
        self._home = home
        self._lists = ListHome(home)
        self._owners = owners
        self._room = room
        self._keys = keys
        self._environ = environ
        self._care = Care(environ, owners.of)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # of those who command the same list
        self.requests = ListRequests(root=root, unfit=unfit, allowed=allowed, told=told)

    # --- starting ---

    async def execute(self, body: Mapping[str, Any], *, who: str, key: str = "") -> tuple[str, bool]:
        """Start a list, or let an equal one of the same owner go on; returns its id, and whether it is new.

        Parameters
        ----------
        body : mapping
            ``tasks`` and what else a list has (see docs/tasks.md); ``fresh``: do everything again; ``timeout_per_task``: seconds, for tasks that name none.
        who : str
            The owner.
        key : str
            The idempotency key.

        Raises
        ------
        InvalidTaskList
            Everything that is wrong, each with its place.
        Refused, CCExecutorError
            Nothing was started.
        """
        asked, fresh = await asyncio.to_thread(self.requests.asked, body), body.get("fresh", False)
        notify = self.requests.told(dict(body))
        await asyncio.to_thread(self._home.prepare)
        # As for a run: by what was asked for.
        digest = canonical_digest([asked.tasks.model_copy(update={"cwd": as_asked(body.get("cwd"))}).digest(), fresh])
        async with self._keys.held(key, who=who, digest=digest) as held:
            if held.id and await asyncio.to_thread(self._is_there, ListFolder(self._lists.path / held.id), who):
                return held.id, False
            tasks = (await asyncio.to_thread(self.requests.under_rules, asked)).tasks
            known = None if fresh else await asyncio.to_thread(self._known, tasks, who)
            if known is not None:
                folder, state = known
                if state.status is ListStatus.OK or self._goes_on(folder, state):
                    await asyncio.to_thread(held.keep, folder.list_id)
                    return folder.list_id, False
            state = ListState() if known is None else known[1]
            async with self._room(who, _more(tasks, state), tasks, state.spent) as bounded:
                folder = await asyncio.to_thread(self._open, bounded, who, held, fresh=fresh)
                await asyncio.to_thread(keep_notify, folder, notify)
                try:
                    await asyncio.to_thread(reopen, folder, bounded)
                    await self._care.take(folder, starts=True)
                except CCExecutorError:
                    if known is None:  # nobody runs it, and nobody will: the same request again, with the same key, makes it anew
                        await asyncio.to_thread(shutil.rmtree, folder.path, ignore_errors=True)
                        self._owners.forget(folder.list_id)
                    raise
        return folder.list_id, known is None

    def _known(self, tasks: TaskList, who: str) -> tuple[ListFolder, ListState] | None:
        """An equal list, if there is one."""
        folder = self._lists.known(tasks, apart=self._owners.apart(who))
        return (folder, folder.state()) if folder is not None and self._is_there(folder, who) else None

    def _is_there(self, folder: ListFolder, who: str) -> bool:
        return (folder.path / LIST).exists() and self._owners.is_own(folder.list_id, who)

    def _goes_on(self, folder: ListFolder, state: ListState) -> bool:
        """Whether nothing is to be done for a list. Raises `ControlFailed` while it is being stopped."""
        kept = self._care.kept.get(folder.list_id)
        is_run = folder.is_run() or (kept is not None and not kept.is_given_up)
        if state.status is ListStatus.OPEN and state.is_stopped and is_run:
            raise ControlFailed("This list is being stopped. Send it again when it has ended.")
        return state.status is ListStatus.OPEN and is_run and not state.is_paused

    def _open(self, tasks: TaskList, who: str, held: Held, *, fresh: bool) -> ListFolder:
        def claim(list_id: str) -> None:
            held.keep(list_id)
            self._owners.claim(list_id, who)

        folder = self._lists.open(tasks, fresh=fresh, apart=self._owners.apart(who), claim=claim)
        if not self._owners.is_own(folder.list_id, who):  # of a time when people were told apart otherwise
            folder = self._lists.open(tasks, fresh=True, apart=self._owners.apart(who), claim=claim)
        return folder

    async def resume(self) -> None:
        """See through what was started by a server before this one."""

        def owed() -> list[ListFolder]:
            with suppress(OSError):
                names = [name for name in os.listdir(self._home.root / OWNERS) if LIST_ID.match(name)]
                return [folder for folder in map(ListFolder, map(self._lists.path.joinpath, names)) if _is_owed(folder)]
            return []

        for folder in await asyncio.to_thread(owed):
            try:
                await self._care.take(folder)
            except CCExecutorError as error:
                logger.warning("a list is left as it is: %s", error)

    async def aclose(self) -> None:
        """Let go of all lists; they go on."""
        await self._care.aclose()

    def promised(self, who: str) -> tuple[set[str], int]:
        """The runs that somebody's lists have begun, by their ids, and how many more may come any moment. Blocking."""
        begun: set[str] = set()
        more = 0
        for kept in [kept for kept in list(self._care.kept.values()) if kept.owner == who]:
            kept.look()
            if kept.is_wanted:
                # Of what a list has begun nothing may be seen yet but the list's own word.
                begun |= {known.run_id for known in kept.state.tasks.values() if known.status is TaskStatus.RUNNING}
                more += _more(kept.tasks, kept.state)
        return begun, more

    # --- looking ---

    def find(self, list_id: str, *, who: str) -> ListFolder:
        """Somebody's own list.

        Raises
        ------
        RunNotFound
            There is none, or it is somebody else's.
        """
        self._home.check()
        folder = ListFolder(self._lists.path / list_id)
        if LIST_ID.match(list_id) and (folder.path / LIST).is_file() and self._owners.may_see(list_id, who):
            return folder
        raise RunNotFound("There is no such execution.")

    def beside(self, runs: Iterable[RunFolder | Waiting]) -> Iterator[tuple[str, str, RunFolder | Waiting | ListFolder]]:
        """Runs and lists, newest first, each with its place in that order and its id. Blocking."""
        lists = [
            (f"{int(_made_at(folder) * 1000):012x}{folder.list_id[:14]}", str(folder.list_id), folder) for folder in self._lists.folders()
        ]
        lists.sort(key=lambda each: each[0], reverse=True)
        told = ((str(run.run_id), str(run.run_id), run) for run in runs)
        yield from merge(told, lists, key=lambda each: each[0], reverse=True)

    def summary(self, folder: ListFolder) -> ListSummary:
        """A list's row; of one that cannot be read, what can be said. Blocking."""
        try:
            tasks, (state, is_run) = folder.tasks(), folder.standing()
        except StateUnusable:
            return ListSummary(folder.list_id, "unreadable", _made_at(folder), label="", tasks=0, done=0, cost=0.0)
        return ListSummary(
            id=folder.list_id,
            status=self._word(folder, state, is_run=is_run),
            started=_made_at(folder),
            label=tasks.name,
            tasks=len(tasks.tasks),
            done=sum(state.task(task.id).status not in NOT_OVER for task in tasks.tasks),
            cost=state.spent,
        )

    async def status(self, list_id: str, *, who: str, offset: int = 0, limit: int = PAGE) -> dict[str, Any]:
        """How a list stands, and its tasks from a position on."""
        return await asyncio.to_thread(self._status, list_id, who, offset, limit)

    def _status(self, list_id: str, who: str, offset: int, limit: int) -> dict[str, Any]:
        folder = self.find(list_id, who=who)
        tasks, (state, is_run) = folder.tasks(), folder.standing()
        running = [task.id for task in tasks.tasks if state.task(task.id).status is TaskStatus.RUNNING]
        rows = [
            {"task": task.id, "title": task.title, "kind": task.kind.value, "until": known.until, "why": known.why, **row(known)}
            for task in tasks.tasks[offset : offset + limit]
            for known in (state.task(task.id),)
        ]
        return {
            **self._head(folder, tasks, state, is_run=is_run),
            "current_task": ", ".join(running),
            "notes": [*state.notes, *([words] if (words := self._complaint(folder)) else [])],
            "tasks": rows,
            "next_offset": _next(offset + limit, tasks),
        }

    async def results(self, list_id: str, *, who: str, offset: int = 0, limit: int = PAGE) -> dict[str, Any]:
        """What the tasks of a list have made, from a position on; those that are not over have made nothing yet."""
        return await asyncio.to_thread(self._results, list_id, who, offset, limit)

    def _results(self, list_id: str, who: str, offset: int, limit: int) -> dict[str, Any]:
        folder = self.find(list_id, who=who)
        tasks, (state, is_run) = folder.tasks(), folder.standing()
        known = [state.task(task.id) for task in tasks.tasks]
        return {
            **self._head(folder, tasks, state, is_run=is_run),
            "total_tasks": len(known),
            "completed_tasks": sum(task.status is TaskStatus.OK for task in known),
            "failed_tasks": sum(task.status in {TaskStatus.FAILED, TaskStatus.STOPPED} for task in known),
            "results": [
                self._result(number, task, state.task(task.id))
                for number, task in enumerate(tasks.tasks[offset : offset + limit], offset + 1)
                if state.task(task.id).status not in NOT_OVER
            ],
            "next_offset": _next(offset + limit, tasks),
        }

    def _head(self, folder: ListFolder, tasks: TaskList, state: ListState, *, is_run: bool) -> dict[str, Any]:
        """What is told of a list in every answer; `execution_id` and `progress` are words of an earlier system, whose clients still ask."""
        completed = sum(state.task(task.id).status is TaskStatus.OK for task in tasks.tasks)
        return {
            "id": folder.list_id,
            "execution_id": folder.list_id,
            "kind": "list",
            "name": tasks.name,
            "started": _made_at(folder),
            "status": self._word(folder, state, is_run=is_run),
            "done": state.status is not ListStatus.OPEN and not is_run,
            "summary": state.summary,
            "progress": f"{completed}/{len(tasks.tasks)} tasks completed",
            "cost": state.spent,
        }

    def _result(self, number: int, task: Task, known: TaskState) -> dict[str, Any]:
        receipt = self._receipt(known)
        ended = receipt.times.ended if receipt is not None else datetime.fromtimestamp(known.ended_at, UTC)
        text = known.text if receipt is None else receipt.text
        return {
            "task": task.id,
            **row(known),
            "text": text,
            "data": known.data if receipt is None else receipt.data,
            "files": [] if receipt is None else [file.model_dump(mode="json") for file in receipt.files],
            "standing": "" if receipt is None else receipt.standing.value,
            "digest": "" if receipt is None else receipt.digest,
            # The same in the words of an earlier system.
            "task_number": number,
            "task_description": (task.title or task.text)[:TITLE],
            "exit_code": 0 if known.status is TaskStatus.OK else (receipt.exit.code if receipt is not None else None) or 1,
            "stdout": text,
            "stderr": "" if known.status is TaskStatus.OK else known.summary,
            "execution_time": known.seconds,
            "completed_at": ended.isoformat() if known.ended_at else "",
        }

    def _receipt(self, known: TaskState) -> Receipt | None:
        with suppress(RunNotFound):
            return self._home.find(known.run_id).receipt() if known.run_id else None
        return None

    def _word(self, folder: ListFolder, state: ListState, *, is_run: bool) -> str:
        kept = self._care.kept.get(folder.list_id)
        word = state.word(is_run=is_run)
        if word != "interrupted" or kept is None or kept.is_given_up:
            return word
        return "paused" if state.is_paused and not state.is_stopped else "starting"

    def _complaint(self, folder: ListFolder) -> str:
        kept = self._care.kept.get(folder.list_id)
        return "" if kept is None else kept.complaint()

    async def watch(self, list_id: str, *, who: str) -> ListWatch:
        """The live view of a list, for a page whose kernel does not answer. Raises `RunNotFound`, `StateUnusable`."""
        folder = await asyncio.to_thread(self.find, list_id, who=who)
        tasks = await asyncio.to_thread(folder.tasks)
        alone = partial(self._why_alone, folder, tasks)
        return await asyncio.to_thread(partial(ListWatch, folder, tasks, self._home, environ=self._environ, why_alone=alone))

    def _why_alone(self, folder: ListFolder, tasks: TaskList, state: ListState) -> str:
        if state.status is not ListStatus.OPEN or self._word(folder, state, is_run=False) != "interrupted":
            return ""
        return self._complaint(folder) or why_alone(tasks, state)

    # --- commanding ---

    async def control(self, list_id: str, op: str, *, who: str, task: str = "", text: str = "", click: str = "") -> dict[str, Any]:
        """Give a command: one of `OPS`, or with a `task` one of `TASK_OPS`. `text`: for ``edit``. `click`: see `TaskCommands.obey`.

        Raises
        ------
        ControlFailed
            It is too late for that.
        InvalidRequest, RunNotFound, Refused, StateUnusable
        """
        folder = await asyncio.to_thread(self.find, list_id, who=who)
        tasks = await asyncio.to_thread(folder.tasks)
        if op not in (TASK_OPS if task else OPS):
            raise InvalidRequest(
                f"There is no command {op!r} for a {'task' if task else 'list'}. Choose one of {', '.join(TASK_OPS if task else OPS)}"
                f"{'.' if task or op not in TASK_OPS else ', or name the task.'}"
            )
        if task and task not in {each.id for each in tasks.tasks}:
            raise InvalidRequest(f"There is no task {task[:100]!r} in this list. It has {', '.join(each.id for each in tasks.tasks[:20])}.")
        said = partial(self._say, folder, tasks, op, task=task, text=text, by=who or "server", click=click)
        turn = self._turns.setdefault(list_id, asyncio.Lock())
        async with turn:  # what comes first is done first, to the runs as well
            if not click or click not in (await asyncio.to_thread(folder.state)).clicks:
                await self._obey(folder, tasks, op, said, who=who, task=task)
        told, is_run = await asyncio.to_thread(folder.standing)
        return {"id": list_id, "op": op, **({"task": task} if task else {}), "status": self._word(folder, told, is_run=is_run)}

    async def _obey(self, folder: ListFolder, tasks: TaskList, op: str, say: Callable[[], None], *, who: str, task: str) -> None:
        state = await asyncio.to_thread(folder.state)
        has_ended = state.status is not ListStatus.OPEN
        if op == "resume" and state.status is ListStatus.OK:
            raise ControlFailed("The list has ended well: nothing is left to be done.")
        # A kernel or a terminal runs it, which may be busy, or has run it and is gone.
        is_foreign = folder.list_id not in self._care.kept
        is_run = is_foreign and folder.is_run()
        if op in {"resume", "retry"} and (has_ended or (not self._goes_on(folder, state) and not is_run)):
            if calls := calls_left(tasks, state):
                raise ControlFailed(f"Task {calls[0]} is Python in a notebook: run its cell again, and what ended well is not done again.")
            held = bounded(tasks, state)
            async with self._room(who, _more(tasks, ListState() if has_ended else state), held, state.spent) as allowed:
                await asyncio.to_thread(rebound, folder, allowed, state)  # before it can be run
                await asyncio.to_thread(say)
                await self._care.take(folder, starts=True)
        else:
            await asyncio.to_thread(say)
            is_stopped = op in {"cancel", "kill"}
            if not is_foreign or (is_stopped and not (task and is_run)):  # one task that is stopped makes its list nobody else's
                await self._care.take(folder, starts=is_stopped)
        if is_foreign:
            commands = TaskCommands(folder, tasks, self._home)
            await asyncio.to_thread(partial(commands.at_once, goes_on=op == "resume", by=who or "server"))

    def _say(self, folder: ListFolder, tasks: TaskList, op: str, *, task: str, text: str, by: str, click: str) -> None:
        if op == "resume":
            reopen(folder, bounded(tasks, folder.state()))  # what it may cost was said last by whoever gave it
            state = folder.state()
            if state.is_paused:
                folder.append(Resumed(at=time.time(), by=by, click=click))
            return
        TaskCommands(folder, tasks, self._home).obey(
            "stop" if op == "cancel" else op, task=task, text=text, by=by, click=click, ended={"retry"}
        )


def width(tasks: TaskList, state: ListState) -> int:
    """How many runs of a list can be at work at the same time, from here to its end."""
    left = [task for task in tasks.tasks if state.task(task.id).status in NOT_OVER and task.kind is not TaskKind.CALL]
    groups = Counter(task.group for task in left if task.group)
    return max(min(1, len(left)), min(tasks.parallel, max(groups.values(), default=0)))


def _more(tasks: TaskList, state: ListState) -> int:
    """How many runs of a list may come besides those that go on."""
    running = sum(known.status is TaskStatus.RUNNING for known in state.tasks.values())
    return max(0, width(tasks, state) - running)


def _next(offset: int, tasks: TaskList) -> int | None:
    return offset if offset < len(tasks.tasks) else None


def _is_owed(folder: ListFolder) -> bool:
    try:
        return (folder.path / LIST).exists() and folder.state().status is ListStatus.OPEN
    except StateUnusable as error:
        logger.warning("a list is left as it is: %s", error)
        return False


def _made_at(folder: ListFolder) -> float:
    """When a list was given, in seconds since the epoch."""
    try:
        return (folder.path / LIST).stat().st_mtime
    except OSError:  # removed at this moment
        return 0.0
