"""`cc-executor estimate`: what past runs say about the next one."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Annotated

import typer

from cc_executor.api import make_request
from cc_executor.cli.kept import AsJson, hint, home, print_json
from cc_executor.cli.reading import given_prompt, read_prompt
from cc_executor.runtime.forecast import estimate, estimate_lines


def estimate_command(
    prompt: Annotated[
        str, typer.Argument(metavar="[PROMPT]", show_default=False, help="The prompt; - or nothing reads it from standard input.")
    ] = "-",
    *,
    agent: Annotated[str, typer.Option(metavar="NAME", help="claude, or shell for a command.")] = "claude",
    model: Annotated[str | None, typer.Option(metavar="NAME", help="The agent's model.")] = None,
    cwd: Annotated[str | None, typer.Option(metavar="FOLDER", help="Where the agent would work; the current folder if not given.")] = None,
    label: Annotated[str, typer.Option(metavar="TEXT", help="The run's label: runs with the same one are alike.")] = "",
    rehearse: Annotated[str | None, typer.Option(metavar="SCRIPT", help="The script of a rehearsal.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say how long a run will take and what it will cost, from the runs that there were. Starts nothing and asks no model."""
    text = given_prompt(prompt, is_command=agent != "claude") if prompt != "-" else read_prompt("-")
    request = make_request(text, agent=agent, model=model, cwd=cwd, label=label, rehearse=rehearse)
    prediction, said = estimate(home(), request, environ=os.environ)
    for line in said:
        hint(line)
    if as_json:
        print_json(asdict(prediction))
        return
    for line in estimate_lines(prediction):
        typer.echo(line)
