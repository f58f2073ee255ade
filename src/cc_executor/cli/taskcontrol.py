"""What is said to a list that is kept, from `cc-executor tasks pause` to `edit`: each is a record or some in its journal."""

from __future__ import annotations

import time
from typing import Annotated, Final

import typer

from cc_executor.cli.kept import hint, home
from cc_executor.cli.keptlists import ListName, list_folder
from cc_executor.cli.reading import given_prompt, read_prompt
from cc_executor.errors import ControlFailed, TaskListNotFound
from cc_executor.model.listrecord import ListStatus, RetryAsked, TaskStatus
from cc_executor.policy.schedule import bounded, set_back
from cc_executor.store.tasklists import ListFolder
from cc_executor.taskcommands import TaskCommands

BY: Final = "cli"

TaskName = Annotated[str, typer.Argument(metavar="TASK", show_default=False, help="A task's id.")]


def pause_command(name: ListName = "") -> None:
    """Hold a list: nothing is started, and what runs stands still."""
    _tell(list_folder(name), "pause")


def resume_command(name: ListName = "") -> None:
    """Let a list go on."""
    folder = list_folder(name)
    state = folder.state()
    if state.status is ListStatus.OK:
        raise ControlFailed(f"The list {folder.list_id} has ended well: nothing is left to be done.")
    if state.status is ListStatus.OPEN:
        _tell(folder, "resume")
    else:
        from cc_executor.tasks import reopen  # here: all else that is said to a list needs nothing of what runs one

        reopen(folder, bounded(folder.tasks(), state))
        _say_who(folder)


def stop_command(name: ListName = "") -> None:
    """End what runs of a list, and start nothing further."""
    _tell(list_folder(name), "stop")


def now_command(task: TaskName, name: ListName = "") -> None:
    """Do not wait any longer: a task that waits, for the end of a usage limit or before it is tried again, goes on at once."""
    folder = list_folder(name)
    if folder.state().task(_known(folder, task)).until is None:
        hint(f"Task {task} does not wait for a time.")
        raise typer.Exit(1)
    _tell(folder, "now", task=task)


def skip_command(task: TaskName, name: ListName = "") -> None:
    """Leave a task out; what needs it is skipped, too."""
    folder = list_folder(name)
    _tell(folder, "skip", task=_known(folder, task))


def retry_command(
    task: TaskName,
    name: ListName = "",
    *,
    onward: Annotated[bool, typer.Option("--onward", help="Everything that comes after it, too.")] = False,
) -> None:
    """Do a task again, with what was kept from running by it."""
    folder = list_folder(name)
    state = folder.state()
    again = set_back(folder.tasks(), state, _known(folder, task), onward=onward)
    if at_work := [each for each in again if state.task(each).status is TaskStatus.RUNNING]:
        raise ControlFailed(
            f"Task {at_work[0]} runs: wait for its end, or stop the list first, with `cc-executor tasks stop {folder.list_id}`."
        )
    folder.append(RetryAsked(at=time.time(), tasks=again, by=BY))  # also of what ended well, which a view does not offer
    _say_who(folder)


def edit_command(
    task: TaskName,
    text: Annotated[
        str, typer.Argument(metavar="TEXT", show_default=False, help="The new prompt or command; - reads it from standard input.")
    ],
    name: ListName = "",
) -> None:
    """Give a task that has not begun another prompt or command."""
    folder = list_folder(name)
    status = folder.state().task(_known(folder, task)).status
    if status is not TaskStatus.WAITING:
        stop = f"End it with `cc-executor tasks stop {folder.list_id}`: " if status is TaskStatus.RUNNING else ""
        why = "is left out" if status is TaskStatus.SKIPPED else "has begun already"
        hint(f"Task {task} {why}. {stop}`cc-executor tasks retry {task} {folder.list_id}` sets it back; then edit it.")
        raise typer.Exit(1)
    _tell(folder, "edit", task=task, text=read_prompt("-") if text == "-" else given_prompt(text, is_command=False))


def _known(folder: ListFolder, task: str) -> str:
    ids = [item.id for item in folder.tasks().tasks]
    if task not in ids:
        raise TaskListNotFound(f"The list {folder.list_id} has no task {task!r}. It has {', '.join(ids)}.")
    return task


def _tell(folder: ListFolder, command: str, *, task: str = "", text: str = "") -> None:
    TaskCommands(folder, folder.tasks(), home()).obey(command, task=task, text=text, by=BY, ended={"skip", "edit"})
    _say_who(folder)


def _say_who(folder: ListFolder) -> None:
    if not folder.is_run():
        hint(f"Noted. Nobody runs this list now: `cc-executor tasks run {folder.list_id}` does.")
