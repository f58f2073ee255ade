"""`cc-executor history` and `cc-executor estimate`: past runs, and what they say about the next one."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer

from cc_executor.cli.kept import LIST_LENGTH, AsJson, hint, home, print_json
from cc_executor.cli.lint import read_prompt
from cc_executor.errors import InvalidRequest
from cc_executor.model.ansi import clean
from cc_executor.runtime.forecast import estimate, estimate_lines
from cc_executor.runtime.history import rebuild
from cc_executor.runtime.past import History, columns, filters_of, past, when
from cc_executor.runtime.reconcile import LIST_PATIENCE, reconcile
from cc_executor.runtime.retention import plan_pruning, prune, size_words
from cc_executor.store.history import Unusable

app: typer.Typer = typer.Typer(
    help="Past runs: what was asked, how it ended, how long it took, what it cost, and what had been predicted.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.callback()
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
            typer.echo(clean(line))
        hint(found.summary())


@app.command("rebuild")
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


@app.command("prune")
def prune_command(
    *,
    older_than: Annotated[
        str | None, typer.Option(metavar="TIME", help="Runs that started before then: 30d, 12w, 2026-01-31.", show_default=False)
    ] = None,
    keep: Annotated[int | None, typer.Option(metavar="N", help="All but the newest so many.", show_default=False)] = None,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole",
            help="Whole runs with their receipts, not just journals; those of known notebooks and task lists, and what was paid today, keep receipts.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without this, it is only shown what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove the journals of old runs, which are most of what runs hold; shows sizes, and does nothing without --yes."""
    runs, now = home(), time.time()
    before = when(older_than, now=now)
    reconcile(runs, environ=os.environ, patience=LIST_PATIENCE)
    planned = plan_pruning(runs, environ=os.environ, now=now, before=before, keep=keep, whole=whole)
    freed = prune(runs, planned, environ=os.environ, now=now) if yes else 0
    _say(planned.notes)
    if as_json:
        rows = [
            {"run_id": each.row.run_id, "size": each.size, "freed": each.freed, "whole": each.is_whole, "kept_because": each.because}
            for each in planned.candidates
        ]
        print_json({"done": yes, "freed": freed if yes else planned.freed, "total": planned.total, "runs": rows})
        return
    for each in planned.candidates:
        started = datetime.fromtimestamp(each.row.started).astimezone().strftime("%Y-%m-%d %H:%M")
        what = "whole run" if each.is_whole else f"journal{f'; {each.because}' if each.because else ''}"
        words = clean(each.row.label or each.row.prompt_line)
        typer.echo(f"{each.row.run_id}  {started}  {size_words(each.freed):>8}  {what}  {words}".rstrip())
    for line in planned.words():
        hint(line)
    if not planned.candidates:
        hint("There is nothing to remove.")
    elif yes:
        hint(f"Removed: {size_words(freed)}.")
    else:
        hint("Nothing was removed. --yes does it.")


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
    from cc_executor.api import make_request

    text = prompt if prompt != "-" else read_prompt("-")
    request = make_request(text, agent=agent, model=model, cwd=cwd, label=label, rehearse=rehearse)
    prediction, said = estimate(home(), request, environ=os.environ)
    _say(said)
    if as_json:
        print_json(asdict(prediction))
        return
    for line in estimate_lines(prediction):
        typer.echo(line)


def _say(notes: Any) -> None:
    for text in notes:
        hint(text)
