"""What the commands share: what is kept, how a run is named, and how an answer is written."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any, Final

import typer

from cc_executor.cli.streams import is_utf8
from cc_executor.errors import TaskListNotFound
from cc_executor.store.home import StateHome, state_path
from cc_executor.store.journal import RunFolder
from cc_executor.store.tasklists import ListFolder, ListHome

LIST_LENGTH: Final = 20

AsJson = Annotated[bool, typer.Option("--json", help="Write one JSON value and nothing else on standard output.")]
RunName = Annotated[
    str,
    typer.Argument(
        metavar="[RUN]",
        show_default=False,
        help="A run's id, or the first or last four or more characters of one; the newest run if not given.",
    ),
]


def home() -> StateHome:
    """Where the runs are kept."""
    return StateHome(state_path(os.environ))


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


def run_folder(name: str) -> RunFolder:
    """The run of this name, or the newest one.

    Raises
    ------
    RunNotFound
        There is none, or the name fits several.
    """
    return home().pick(name)


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    typer.echo(json.dumps(value, ensure_ascii=not is_utf8(sys.stdout)))


def hint(text: str) -> None:
    """A line beside the answer, on standard error."""
    typer.echo(text, err=True)
