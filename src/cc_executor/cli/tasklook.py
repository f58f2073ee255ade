"""`cc-executor tasks list` and `cc-executor tasks show`: the lists that are kept, and how one stands. Starts nothing."""

from __future__ import annotations

from typing import Any

import typer

from cc_executor.cli.kept import AsJson, print_json
from cc_executor.cli.keptlists import ListName, list_folder, list_home
from cc_executor.cli.tasklines import line_of, rows_of
from cc_executor.errors import StateUnusable
from cc_executor.model.ansi import clean
from cc_executor.model.listrecord import TaskStatus
from cc_executor.model.table import flat
from cc_executor.store.tasklists import ListFolder


def list_command(*, as_json: AsJson = False) -> None:
    """The lists that are kept, the one that changed last first."""
    found = [_summary(folder) for folder in list_home().folders()]
    if as_json:
        print_json([{name: value for name, value in each.items() if name != "done"} for each in found])
        return
    for each in found:
        typer.echo(f"{each['id']:<24} {each['status']:<12} {each['done']}/{each['tasks']}  {flat(each['name'])}".rstrip())
    if not found:
        typer.echo("No task list was run yet.")


def _summary(folder: ListFolder) -> dict[str, Any]:
    """A list's line; of one that cannot be read, what can be said."""
    try:
        tasks, (state, is_run) = folder.tasks(), folder.standing()
    except StateUnusable:
        return {"id": folder.list_id, "name": "", "status": "unreadable", "tasks": 0, "done": 0}
    done = sum(state.task(task.id).status is TaskStatus.OK for task in tasks.tasks)
    return {"id": folder.list_id, "name": tasks.name, "status": state.word(is_run=is_run), "tasks": len(tasks.tasks), "done": done}


def show_command(name: ListName = "", *, as_json: AsJson = False) -> None:
    """Where each task of a list stands."""
    folder = list_folder(name)
    tasks, (state, is_run) = folder.tasks(), folder.standing()
    word = state.word(is_run=is_run)
    known = {task.id: state.task(task.id) for task in tasks.tasks}
    if as_json:
        print_json({"id": folder.list_id, "status": word, "summary": state.summary, "tasks": rows_of(known)})
        return
    typer.echo(f"{folder.list_id}  {word}  {flat(state.summary)}".rstrip())
    for task in tasks.tasks:
        typer.echo(line_of(task.id, task.title, known[task.id]))
    for note in state.notes:
        typer.echo(f"! {clean(note)}")
