"""`cc-executor history`: past runs."""

from __future__ import annotations

import os
import sys
import time
from typing import Annotated, Any

import typer

from cc_executor.cli.kept import LIST_LENGTH, AsJson, hint, home, print_json
from cc_executor.errors import InvalidRequest
from cc_executor.model.table import columns
from cc_executor.runtime.history import rebuild
from cc_executor.runtime.past import History, filters_of, past
from cc_executor.runtime.reconcile import LIST_PATIENCE, reconcile
from cc_executor.store.history import Unusable


def history_command(
    context: typer.Context,
    *,
    agent: Annotated[str, typer.Option(metavar="NAME", help="Only runs of this agent.")] = "",
    model: Annotated[str, typer.Option(metavar="NAME", help="Only runs of this model, as the agent named it.")] = "",
    outcome: Annotated[str, typer.Option(metavar="WORD", help="Only runs that ended so: ok, failed, timeout, cancelled, …")] = "",
    label: Annotated[str, typer.Option(metavar="TEXT", help="Only runs with this label.")] = "",
    cwd: Annotated[str, typer.Option(metavar="FOLDER", help="Only runs in this folder.")] = "",
    category: Annotated[str, typer.Option(metavar="WORD", help="Only runs of this category: code, analysis, test, command:make, …")] = "",
    task_list: Annotated[str, typer.Option("--list", metavar="LIST", help="Only runs of this task list.")] = "",
    text: Annotated[str, typer.Option(metavar="TEXT", help="Only runs with this in the label or the prompt's first line.")] = "",
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only runs that started since then: 7d, 36h, 2026-01-31, 2026-01-31T12:00.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Only runs that started before then.")] = None,
    rehearsed: Annotated[
        bool | None, typer.Option("--rehearsals/--real", help="Only rehearsals, or only runs with a real model.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="At most so many, newest first.")] = LIST_LENGTH,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Write a table with a head (RFC 4180), one line for each run.")] = False,
) -> None:
    """Past runs: what was asked, how it ended, how long it took, what it cost, and what had been predicted."""
    if context.invoked_subcommand is not None:
        return
    if as_json and as_csv:
        raise InvalidRequest("--json and --csv are two forms of the same: give one of them.")
    runs = home()
    filters = filters_of(
        agent=agent, model=model, outcome=outcome, label=label, cwd=cwd, category=category, list_id=task_list, text=text, since=since,
        until=until, rehearsed=rehearsed, limit=None if every else limit, now=time.time(),
    )  # fmt: skip
    reconcile(runs, environ=os.environ, patience=LIST_PATIENCE)
    found = past(runs, filters, environ=os.environ)
    is_all = filters == filters_of(limit=filters.limit, now=0.0)
    show_history(found, as_json=as_json, as_csv=as_csv, none="Nothing was run yet." if is_all else "No such run is known.")


def show_history(found: History, *, as_json: bool, as_csv: bool, none: str) -> None:
    """Past runs in the form that is wanted. `none`: what is said if there are none."""
    _say(found.notes)
    if as_json:
        print_json(found.to_dicts())
    elif as_csv:
        sys.stdout.write(found.to_csv())
    elif not len(found):
        hint(none)
    else:
        for line in columns(found.table()):
            typer.echo(line)
        hint(found.summary())


def rebuild_command(*, as_json: AsJson = False) -> None:
    """Make the history anew from the receipts. It heals itself; this is for whoever wants to be sure."""
    try:
        count, said = rebuild(home(), environ=os.environ)
    except Unusable as error:
        raise InvalidRequest(f"The history is in use by somebody else ({error}). Try again in a moment.") from error
    _say(said)
    if as_json:
        print_json({"runs": count})
    else:
        typer.echo(f"The history has {count:,} {'run' if count == 1 else 'runs'}.")


def _say(notes: Any) -> None:
    for text in notes:
        hint(text)
