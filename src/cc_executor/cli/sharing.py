"""`cc-executor history share` and `cc-executor history shared`: the history that several machines keep in a Redis."""

from __future__ import annotations

import os
import time
from typing import Annotated

import typer

from cc_executor.cli.history import show_history
from cc_executor.cli.kept import LIST_LENGTH, AsJson, home
from cc_executor.runtime.past import filters_of
from cc_executor.runtime.reconcile import LIST_PATIENCE, reconcile
from cc_executor.runtime.sharing import offer_all, send, shared


def share_command(
    *,
    every: Annotated[bool, typer.Option("--all", help="Also the runs from before CC_EXECUTOR_REDIS was set.")] = False,
) -> None:
    """Send what waits to the Redis that CC_EXECUTOR_REDIS names. Runs do so by themselves; this waits for it."""
    runs = home()
    reconcile(runs, environ=os.environ, patience=LIST_PATIENCE)
    if every:
        offer_all(runs)
    count = send(runs, os.environ)
    typer.echo(f"{count:,} {'run was' if count == 1 else 'runs were'} sent.")


def shared_command(
    *,
    agent: Annotated[str, typer.Option(metavar="NAME", help="Only runs of this agent.")] = "",
    outcome: Annotated[str, typer.Option(metavar="WORD", help="Only runs that ended so.")] = "",
    label: Annotated[str, typer.Option(metavar="TEXT", help="Only runs with this label.")] = "",
    text: Annotated[str, typer.Option(metavar="TEXT", help="Only runs with this in the label or the prompt's first line.")] = "",
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Only runs that started since then: 7d, 36h, 2026-01-31.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="At most so many, newest first.")] = LIST_LENGTH,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Write a table with a head (RFC 4180), one line for each run.")] = False,
) -> None:
    """Past runs of all machines that share their history by CC_EXECUTOR_REDIS; the newest 10,000 are looked at."""
    filters = filters_of(agent=agent, outcome=outcome, label=label, text=text, since=since, limit=limit, now=time.time())
    found = shared(filters, environ=os.environ)
    show_history(found, as_json=as_json, as_csv=as_csv, none="No such run is known.")
