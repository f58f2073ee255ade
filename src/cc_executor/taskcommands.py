"""What a person does to a task list that goes on, by its view or over a server: each wish becomes a record in the list's journal, which whoever runs the list reads."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress
from typing import Final, cast

import msgspec

from cc_executor.errors import ControlFailed, InvalidRequest, RunNotFound
from cc_executor.model import reference
from cc_executor.model.listrecord import (
    Edited,
    Hurried,
    ListState,
    ListStatus,
    Paused,
    Record,
    Resumed,
    RetryAsked,
    SkipAsked,
    Stopped,
    TaskState,
    TaskStatus,
)
from cc_executor.model.tasklist import Task, TaskKind, TaskList, problems
from cc_executor.policy.schedule import set_back
from cc_executor.runtime.control import command as run_command
from cc_executor.store.home import StateHome
from cc_executor.store.tasklists import ListFolder

LIST_COMMANDS: Final = frozenset({"pause", "resume", "stop", "kill"})
TASK_COMMANDS: Final = frozenset({"skip", "retry", "stop", "edit", "now"})
OPTION_CHARS: Final = 200
EDIT_LIMIT: Final = 64 * 1024  # characters of a text that is edited in a page


class TaskCommands:
    """The wishes that one list takes. Blocking, a few milliseconds, from any thread.

    Parameters
    ----------
    folder : ListFolder
    tasks : TaskList
    home : StateHome
    """

    def __init__(self, folder: ListFolder, tasks: TaskList, home: StateHome) -> None:
        self._folder = folder
        self._tasks = tasks
        self._home = home

    def obey(self, command: str, *, task: str = "", text: str = "", by: str = "view", click: str = "", ended: Collection[str] = ()) -> None:
        """Write down what is wanted.

        Parameters
        ----------
        command : str
            One of `LIST_COMMANDS`, or with a `task` of `TASK_COMMANDS`.
        text : str
            For ``edit``.
        by : str
            Who wants it.
        click : str
            Which press of a button it was. One that was obeyed already changes nothing.
        ended : collection of str
            What a list takes that has ended: for when it is run on. With ``retry`` it is open.

        Raises
        ------
        ControlFailed
            It is too late for that: the list has ended, the task has begun.
        InvalidRequest
            There is no such command or task, or the text does not fit.
        StateUnusable
        """
        state, offset = ListState(), 0
        while True:  # until what is written stands behind the very state by which it was found right
            state, offset = self._folder.advanced(state, offset)
            if click and click in state.clicks:
                return
            if state.status is not ListStatus.OPEN and command not in ended:
                raise ControlFailed("The list has ended. Run it again: what ended well is not done again.")
            if command == "kill":
                self.kill(state, by=by, click=click)
                return
            record = msgspec.structs.replace(self._record(command, task, text, state, by), click=click)
            if self._folder.append_after(record, offset) is not None:
                return

    def _record(self, command: str, task: str, text: str, state: ListState, by: str) -> Record:
        at = time.time()
        if not task:
            match command:
                case "pause":
                    return Paused(at=at, by=by)
                case "resume":
                    return Resumed(at=at, by=by)
                case "stop":
                    return Stopped(at=at, by=by)
                case _:
                    raise InvalidRequest(f"A list cannot {command!r}.")
        try:
            wanted = self._tasks.task(task)
        except KeyError:
            raise InvalidRequest(f"There is no task {task!r} in this list.") from None
        status = state.task(task).status
        match command:
            case "skip" if status not in {TaskStatus.OK, TaskStatus.SKIPPED}:
                return SkipAsked(at=at, task=task, by=by)
            case "now" if state.task(task).until is not None:
                return Hurried(at=at, task=task, by=by)
            case "stop" if status is TaskStatus.RUNNING or state.task(task).until is not None:
                return Stopped(at=at, task=task, by=by)
            case "retry" if status in {TaskStatus.FAILED, TaskStatus.STOPPED, TaskStatus.SKIPPED}:
                return RetryAsked(at=at, tasks=set_back(self._tasks, state, task), by=by)
            case "edit" if status is TaskStatus.WAITING:
                self._check_text(wanted, text)
                return Edited(at=at, task=task, text=text, by=by)
            case _:
                raise ControlFailed(f"Task {task} is {status.value}: too late for {command!r}.")

    def _check_text(self, task: Task, text: str) -> None:
        if task.kind is TaskKind.CALL:
            raise InvalidRequest(f"Task {task.id} is a Python callable; there is no text to edit.")
        if len(text) > EDIT_LIMIT:
            raise InvalidRequest(f"The text has {len(text):,} characters; the limit for editing in the page is {EDIT_LIMIT:,}.")
        new = task.model_copy(update={"text": text})
        # What a task needs decides about the order, which stands.
        unknown = [str(item) for item in new.references if item.task not in task.all_needs]
        if unknown:
            raise InvalidRequest(f"The text refers to {', '.join(unknown)}, which task {task.id} did not need when the list began.")
        changed = self._tasks.model_copy(update={"tasks": tuple(new if each.id == task.id else each for each in self._tasks.tasks)})
        if found := problems(changed):
            raise InvalidRequest(str(found[0]))
        from cc_executor.taskplan import request_of  # here: only another text is made into a request; who pauses a list needs nothing of it

        request_of(changed, new, text, None, "")  # raises InvalidRequest

    def kill(self, state: ListState, *, by: str, click: str = "") -> None:
        """End what runs without giving it time to clean up; nothing further is started."""
        if click or not state.is_stopped:
            self._folder.append(Stopped(at=time.time(), by=by, click=click))
        for known in state.tasks.values():
            self._command(known, "cancel", reason="cancel", by=by, now=True)

    def at_once(self, *, goes_on: bool, by: str) -> None:
        """Have what runs obey now what the journal says: whoever runs the list may be busy for long, or gone.

        Parameters
        ----------
        goes_on : bool
            What stands still goes on, if nobody holds the list.
        by : str
            Who wants it.
        """
        state = self._folder.state()
        for known in state.tasks.values():
            if state.is_stopped or known.is_stopped or known.is_unwanted:
                self._command(known, "cancel", reason="cancel", by=by)
            elif state.is_paused:
                self._command(known, "pause", by=by)
            elif goes_on:
                self._command(known, "resume", by=by)

    def _command(self, known: TaskState, op: str, **fields: object) -> None:
        run_id = known.validator or known.run_id
        if known.status is TaskStatus.RUNNING and run_id:
            with suppress(RunNotFound, ControlFailed):  # it has ended by itself
                run_command(self._home.find(run_id), op, **fields)

    def detail(self, task_id: str) -> dict[str, object]:
        """What an opened row shows beside its run: the text as it will be sent or was sent, and what a callable has made."""
        state = self._folder.state()
        try:
            task = self._tasks.task(task_id)
        except KeyError:
            raise InvalidRequest(f"There is no task {task_id!r} in this list.") from None
        known = state.task(task_id)
        text = state.texts.get(task_id, task.text)
        made = known.text if task.kind is TaskKind.CALL else ""
        return {
            "task": task_id,
            "kind": task.kind.value,
            "text": text[:EDIT_LIMIT],
            "is_cut": len(text) > EDIT_LIMIT,
            "needs": list(task.all_needs),
            "options": {name: _shown(value)[:OPTION_CHARS] for name, value in task.options.items()},
            "made": made[:EDIT_LIMIT],
            "has_references": bool(reference.found(text)) and task.kind is TaskKind.AGENT,
        }


def _shown(value: object) -> str:
    """An option as people write it."""
    return ", ".join(map(str, cast("list[object]", value))) if isinstance(value, list | tuple) else str(value)
