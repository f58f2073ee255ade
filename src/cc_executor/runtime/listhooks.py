"""The hooks of a task list and of its tasks, called by the one who runs it. Whoever goes on in its place calls what was not begun, and nothing twice."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from cc_executor.errors import HookRefused, StateUnusable
from cc_executor.model.hook import OF_RUNS, Hook, HookReport, Moment, StoredHook, payload
from cc_executor.model.listrecord import INTERRUPTED, Ended, HookTold, ListState, ListStatus
from cc_executor.model.tasklist import Task, TaskKind, TaskList
from cc_executor.policy.redact import Redactor, secret_values
from cc_executor.runtime.errand import in_thread
from cc_executor.runtime.hooks import Caller, gathered, not_run, stands_in_the_way
from cc_executor.runtime.hookwork import Surroundings
from cc_executor.store.hooklog import HookLog
from cc_executor.store.place import WISH
from cc_executor.store.plain import read_plain, write_whole
from cc_executor.store.tasklists import ListFolder

if TYPE_CHECKING:
    from cc_executor.model.notify import Notify

KEPT: Final = "hooks.json"  # the list's own commands, for a process that has only the list's id
_KEPT_LIMIT: Final = 16 * 2**20  # bytes

Tell = Callable[[HookReport, str], Awaitable[None]]


def keep_hooks(folder: ListFolder, hooks: Sequence[Hook]) -> None:
    """Write down the commands among a list's own hooks; what was kept before is replaced. Who joins a list and brings none takes none away."""
    commands = [StoredHook.of(each).model_dump(mode="json") for each in hooks if each.command]
    if commands or ((folder.path / KEPT).exists() and not folder.is_run()):
        with suppress(OSError):  # who runs the list from here on has them all the same
            write_whole(folder.path / KEPT, json.dumps(commands).encode(), sync=False)


def kept_hooks(folder: ListFolder) -> tuple[Hook, ...]:
    """What `keep_hooks` has written down."""
    try:
        values: list[Any] = json.loads(read_plain(folder.path / KEPT, _KEPT_LIMIT))
        return tuple(StoredHook.model_validate(value).hook() for value in values)
    except (OSError, ValueError, TypeError):
        return ()


def keep_notify(folder: ListFolder, notify: Notify | None) -> None:
    """Write down who is to be told of a list, for whoever runs it. Who only watches and says nothing changes nothing."""
    if notify is None or not notify.targets:
        if (folder.path / WISH).exists() and not folder.is_run():
            with suppress(OSError):
                (folder.path / WISH).unlink()
    else:
        from cc_executor.store import notices  # as in `telling`: where nobody is to be told, nothing of it is loaded

        try:
            notices.keep(folder.path, notify)
        except OSError as error:
            said = f"Nobody will be told of this list's end: {folder.path} cannot be written ({error.strerror})."
            with suppress(StateUnusable):
                folder.append(HookTold(at=time.time(), text=said))


class ListHooks(Caller):
    """The hooks of one list, for as long as this process runs it.

    Parameters
    ----------
    given : sequence of Hook
        Besides those of this process.
    folder : ListFolder
    tasks : TaskList
    environ : mapping of str to str
    tell : callable
        Told of every report that is not ok, with the task's id or an empty text.
    """

    def __init__(self, given: Sequence[Hook], *, folder: ListFolder, tasks: TaskList, environ: Mapping[str, str], tell: Tell) -> None:
        super().__init__(environ=environ, redactor=Redactor(secret_values(environ)))
        self._given = tuple(given)
        self._tasks = tasks
        self._folder = folder
        self._list_id = folder.list_id
        self._log = HookLog(folder.path)
        self._tell = tell
        self._round = 0
        self._is_open = False

    @property
    def for_runs(self) -> tuple[Hook, ...]:
        """Those that are called for the list's runs."""
        return tuple(each for each in self._given if each.moment in OF_RUNS)

    @cached_property
    def notify(self) -> Notify | None:
        """Who is told of what the list's runs ask."""
        if not (self._folder.path / WISH).exists():
            return None
        from cc_executor.runtime.notices import wish_for_runs  # as in `telling`: where nobody is to be told, nothing of it is loaded

        return wish_for_runs(self._folder, self._tasks.name)

    async def told(self, state: ListState) -> None:
        """Tell whoever is to be told that the list has ended, unless somebody has."""
        if (self._folder.path / WISH).exists():
            from cc_executor.runtime.notices import tell_of_list

            await tell_of_list(self._folder, state, self._tasks.name, environ=self.environ)

    def names(self, task: Task) -> dict[str, str]:
        """What the hooks of a task's run are told."""
        return {"CC_LIST_ID": self._list_id, "CC_TASK_ID": task.id}

    async def open(self, state: ListState) -> str:
        """Call whoever wants to be called before the list begins; why it must not begin, or an empty text. Of a list that goes on, nothing is called again."""
        called = await in_thread(partial(gathered, self._given, environ=self.environ))
        story = await in_thread(self._log.read)
        mine = {each.key: each for each in called}
        meant = [mine.get(stored.hook().key, stored.hook()) for stored in story.hooks] if story.is_open else []
        self._hooks = (*called, *(each for each in meant if each.key not in mine))
        self._round, self._is_open = story.rounds, story.is_open
        if state.status is not ListStatus.OPEN or self._is_open or not self._hooks:
            return ""
        try:
            await in_thread(partial(self._log.plan, tuple(StoredHook.of(each) for each in self._hooks)))
        except StateUnusable:  # the list's own journal will say so
            return ""
        self._round, self._is_open = story.rounds + 1, True
        for each in self._at(Moment.BEFORE_LIST):
            report = await self._called(each, f"{each.key}#{self._round}", self._list(state))
            if why := stands_in_the_way(each, report):
                return why
        return ""

    async def close(self, state: ListState) -> str:
        """Call whoever wants to be called when the list has ended; why it counts as failed, or an empty text."""
        if not self._is_open or state.status is ListStatus.OPEN:
            return ""
        story = await in_thread(self._log.read)
        found = ""
        for each in self._at(Moment.AFTER_LIST):
            key = f"{each.key}#{self._round}"
            report = story.reports.get(key) or (not_run(each) if key in story.begun else await self._called(each, key, self._list(state)))
            found = found or stands_in_the_way(each, report)
        with suppress(StateUnusable):
            await in_thread(self._log.close)
        self._is_open = False
        return found if state.status is ListStatus.OK else ""

    async def before_task(self, task: Task, attempt: int, state: ListState) -> None:
        """Call whoever wants to be called before a task's attempt.

        Raises
        ------
        HookRefused
            It must not start.
        """
        for each in self._at(Moment.BEFORE_TASK):
            report = await self._called(each, self._key(each, task, attempt), self._list(state), task, {"attempt": attempt})
            if why := stands_in_the_way(each, report):
                raise HookRefused(f"{why} The task was not started.")

    async def after_task(self, task: Task, ended: Ended, state: ListState) -> Ended:
        """Call whoever wants to be called after a task's attempt; what became of the task with that."""
        if ended.outcome == INTERRUPTED:
            return ended
        moments = [Moment.AFTER_TASK]
        if task.kind is TaskKind.CALL and ended.outcome != "ok":  # a run tells of its own errors
            moments.append(Moment.ON_ERROR)
        meant = [each for each in self._hooks if each.moment in moments and ended.seconds >= each.min_seconds]
        if not meant:
            return ended
        story = await in_thread(self._log.read)
        known = {"attempt": ended.attempt, "outcome": ended.outcome, "ok": ended.outcome == "ok", "summary": ended.summary}
        known |= {"seconds": ended.seconds, "cost": ended.cost, "files": list(ended.files[:200])}
        for each in meant:
            key = self._key(each, task, ended.attempt)
            report = story.reports.get(key)
            if report is None and key in story.begun:
                report = not_run(each)
            if report is None:
                report = await self._called(each, key, self._list(state), task, known)
            if each.moment is Moment.AFTER_TASK and ended.outcome == "ok" and (why := stands_in_the_way(each, report)):
                ended = replace(ended, outcome="failed", summary=why)
        return ended

    def _key(self, each: Hook, task: Task, attempt: int) -> str:
        return f"{each.key}#{task.id}#{attempt}"

    def _list(self, state: ListState) -> dict[str, Any]:
        return {
            "id": self._list_id,
            "name": self._tasks.name,
            "cwd": self._tasks.cwd,
            "tasks": len(self._tasks.tasks),
            "status": state.status.value,
            "summary": state.summary,
            "cost": state.spent,
            "states": {task.id: state.task(task.id).status.value for task in self._tasks.tasks},
        }

    async def _called(
        self, each: Hook, key: str, whole: Mapping[str, Any], task: Task | None = None, known: Mapping[str, Any] | None = None
    ) -> HookReport:
        names = {"CC_LIST_ID": self._list_id} | ({"CC_TASK_ID": task.id} if task is not None else {})
        where = Surroundings(environ=self.environ, cwd=self._tasks.cwd, names=names, mark=f"{self._list_id}-hook")
        part = {"id": task.id, "title": task.title, "kind": task.kind.value, **(known or {})} if task is not None else None
        error = None
        if each.moment is Moment.ON_ERROR and known is not None:
            error = {"of": "task", "outcome": known.get("outcome"), "summary": known.get("summary"), "cure": ""}
        given = payload(each.moment, each, list=whole, task=part, error=error)
        report = await self.call(each, given, where=where, log=self._log, key=key)
        if not report.ok:
            await self._tell(report, task.id if task is not None else "")
        return report
