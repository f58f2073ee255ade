"""What the commands about task lists share: which are kept, and how one is named."""

from __future__ import annotations

from typing import Annotated

import typer

from cc_executor.cli.kept import home, named
from cc_executor.errors import TaskListNotFound
from cc_executor.store.tasklists import ListFolder, ListHome

ListName = Annotated[
    str, typer.Argument(metavar="[LIST]", show_default=False, callback=named, help="A list's id or its beginning; the newest if not given.")
]


def list_home() -> ListHome:
    """Where the task lists are kept."""
    return ListHome(home())


def list_folder(name: str) -> ListFolder:
    """The task list of this name, or the newest one.

    Raises
    ------
    TaskListNotFound
        There is none, or the name fits several.
    """
    if name:
        return list_home().find(name)
    newest = next(list_home().folders(), None)
    if newest is None:
        raise TaskListNotFound("No task list was run yet. `cc-executor tasks run FILE` runs one.")
    return newest
