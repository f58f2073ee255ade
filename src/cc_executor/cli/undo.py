"""`cc-executor undo` and `cc-executor tasks undo`: bring back what was in a folder before a run, or before the tasks of a list."""

from __future__ import annotations

from typing import Annotated, Final

import anyio
import typer

from cc_executor.cli.group import exits_with
from cc_executor.cli.kept import AsJson, home, named, print_json, run_folder
from cc_executor.cli.keptlists import ListName, list_folder
from cc_executor.cli.sealed import receipt_of
from cc_executor.model.ansi import clean
from cc_executor.model.undone import Undone
from cc_executor.runtime.undo import last_undone, redo, runs_of_list, undo

CODES: Final = "0 done, 2 refused or wrong call; then nothing was changed, unless it is said that the undo was cut short"

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")]
Redo = Annotated[bool, typer.Option("--redo", help="Take an undo back.")]
KeepMine = Annotated[
    bool,
    typer.Option("--keep-mine", help="Leave files alone that were changed since, or that cannot be brought back, and restore the others."),
]


@exits_with(CODES)
def undo_command(
    run: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN...]",
            show_default=False,
            callback=named,
            help="Ids of runs, or the first or last four or more characters of them; the newest run if not given. Several are undone as one.",
        ),
    ] = None,
    *,
    dry_run: DryRun = False,
    take_back: Redo = False,
    keep_mine: KeepMine = False,
    as_json: AsJson = False,
) -> None:
    """Bring back what was in the folder before a run: contents, modes and links; what it made is removed. All of it, or nothing."""
    kept = home()
    names = [run_folder(name).run_id for name in run or [""]]
    for name in names:
        anyio.run(receipt_of, kept, name)  # what a run left is looked at when it is sealed
    if take_back:
        _say(redo(kept, *names, dry_run=dry_run, keep_mine=keep_mine), as_json=as_json)
    else:
        _say(undo(kept, names, dry_run=dry_run, keep_mine=keep_mine), as_json=as_json)


@exits_with(CODES)
def undo_list_command(
    name: ListName = "",
    *,
    since: Annotated[str, typer.Option("--from", metavar="TASK", help="Only this task and what was run after it had begun.")] = "",
    dry_run: DryRun = False,
    take_back: Redo = False,
    keep_mine: KeepMine = False,
    as_json: AsJson = False,
) -> None:
    """Undo the tasks of a list, the newest first: all of them, or nothing. The list itself stays as it is; `tasks retry` does its tasks again."""
    kept = home()
    runs = runs_of_list(kept, list_folder(name), since=since)
    for run_id in runs:
        anyio.run(receipt_of, kept, run_id)
    if take_back:
        _say(redo(kept, last_undone(kept, runs), dry_run=dry_run, keep_mine=keep_mine), as_json=as_json)
    else:
        _say(undo(kept, runs, dry_run=dry_run, keep_mine=keep_mine), as_json=as_json)


def _say(done: Undone, *, as_json: bool) -> None:
    print_json(done.as_dict()) if as_json else typer.echo(clean(repr(done)))
