"""`cc-executor list`: the runs that there are, newest first."""

from __future__ import annotations

import os
import time
from typing import Annotated

import typer

from cc_executor.cli.kept import LIST_LENGTH, AsJson, hint, home, print_json
from cc_executor.model.table import columns
from cc_executor.runtime.reconcile import LIST_PATIENCE, reconcile
from cc_executor.runtime.summary import HEAD, summaries


def list_command(
    *,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many, newest first.")] = LIST_LENGTH,
    every: Annotated[bool, typer.Option("--all", help="All that are kept.")] = False,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    reconcile(home(), environ=os.environ, patience=LIST_PATIENCE)
    rows = summaries(home(), now=time.time(), limit=None if every else limit)
    if as_json:
        print_json([row.as_dict() for row in rows])
        return
    if not rows:
        hint("Nothing was run yet.")
        return
    for line in columns([HEAD, *(row.cells() for row in rows)]):
        typer.echo(line)
