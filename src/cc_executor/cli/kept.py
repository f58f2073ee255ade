"""What the commands share: what is kept, how a run is named, and how an answer is written."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any, Final

import typer

from cc_executor.runtime.narrow import is_utf8
from cc_executor.store.home import StateHome, state_path
from cc_executor.store.journal import RunFolder

LIST_LENGTH: Final = 20


def named(context: typer.Context, param: typer.CallbackParam, value: str | list[str] | None) -> str | list[str] | None:
    """What was given as an id, if it is none that is empty: a script's variable that is not set is to end, or undo, nothing."""
    source = context.get_parameter_source(param.name or "")
    # By name: typer 0.16 and later have a click of their own.
    if source is not None and source.name == "COMMANDLINE" and "" in (value if isinstance(value, list) else [value]):
        raise typer.BadParameter("it is empty: perhaps a variable that is not set. Give an id, or leave it out for the newest.")
    return value


AsJson = Annotated[bool, typer.Option("--json", help="Write one JSON value and nothing else on standard output.")]
RunName = Annotated[
    str,
    typer.Argument(
        metavar="[RUN]",
        show_default=False,
        callback=named,
        help="A run's id, or the first or last four or more characters of one; the newest run if not given.",
    ),
]


def home() -> StateHome:
    """Where the runs are kept."""
    return StateHome(state_path(os.environ))


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
