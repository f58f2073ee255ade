"""`cc-executor mcp`: the Model Context Protocol over standard input and output; and `cc-executor prompt`, the file for agents that have no such tools."""

from __future__ import annotations

import os
import sys
from importlib.resources import files
from typing import Annotated, Final

import typer

# Doors do not import each other: the server's is a program of its own here. -P: nothing is imported from the folder that it is called in.
PROGRAM: Final = ("-P", "-m", "cc_executor.server.stdio")


def mcp_command(
    *,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Relay to the Jupyter server at this address, whose token is in CC_EXECUTOR_TOKEN (or JUPYTER_TOKEN)."
        ),
    ] = None,
    cwd: Annotated[
        str, typer.Option(metavar="FOLDER", help="Where agents work when they are not told otherwise; the current folder if not given.")
    ] = ".",
) -> None:
    """Serve runs as tools, over standard input and output. Without --url, those of this machine; what was started goes on when it ends."""
    more = ("--url", url) if url is not None else ("--cwd", cwd)
    os.execv(sys.executable, (sys.executable, *PROGRAM, *more))  # noqa: S606 - itself, without a shell


def prompt_command() -> None:
    """Print the instructions for an agent that has a shell: how it hands a task to a fresh agent by this command."""
    typer.echo(files("cc_executor").joinpath("cc_execute.md").read_text("utf-8"), nl=False)
