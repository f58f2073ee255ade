"""`cc-executor history prune`: old runs take less room, or go."""

from __future__ import annotations

import os
import time
from typing import Annotated

import typer

from cc_executor.cli.kept import AsJson, hint, home, print_json
from cc_executor.model.size import size_words
from cc_executor.model.table import flat
from cc_executor.runtime.past import when
from cc_executor.runtime.reconcile import LIST_PATIENCE, reconcile
from cc_executor.runtime.retention import plan_pruning, prune
from cc_executor.store.localtime import local


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
    for note in planned.notes:
        hint(note)
    if as_json:
        rows = [
            {"run_id": each.row.run_id, "size": each.size, "freed": each.freed, "whole": each.is_whole, "kept_because": each.because}
            for each in planned.candidates
        ]
        print_json({"done": yes, "freed": freed if yes else planned.freed, "total": planned.total, "runs": rows})
        return
    for each in planned.candidates:
        started = local(each.row.started).strftime("%Y-%m-%d %H:%M")
        what = "whole run" if each.is_whole else f"journal{f'; {each.because}' if each.because else ''}"
        words = flat(each.row.label or each.row.prompt_line)
        typer.echo(f"{each.row.run_id}  {started}  {size_words(each.freed):>8}  {what}  {words}".rstrip())
    for line in planned.words():
        hint(line)
    if not planned.candidates:
        hint("There is nothing to remove.")
    elif yes:
        hint(f"Removed: {size_words(freed)}.")
    else:
        hint("Nothing was removed. --yes does it.")
