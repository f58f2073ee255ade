"""`cc-executor pause`, `resume` and `cancel`: one command to the supervisor of a run."""

from __future__ import annotations

from typing import Annotated

import typer

from cc_executor.cli.kept import AsJson, RunName, print_json, run_folder
from cc_executor.model.notice import processes
from cc_executor.runtime.control import command


def pause_command(run: RunName = "", *, as_json: AsJson = False) -> None:
    """Let every process of a run stand still; its clocks stand still, too."""
    _control("pause", run, "stands still", as_json=as_json)


def resume_command(run: RunName = "", *, as_json: AsJson = False) -> None:
    """Let a paused run go on."""
    _control("resume", run, "goes on", as_json=as_json)


def cancel_command(
    run: RunName = "",
    *,
    now: Annotated[bool, typer.Option("--now", help="Kill at once, without time to clean up.")] = False,
    as_json: AsJson = False,
) -> None:
    """End a run and everything that it started."""
    _control("cancel", run, "is being ended", as_json=as_json, reason="cancel", now=now)


def _control(op: str, run: str, said: str, *, as_json: bool, **fields: object) -> None:
    folder = run_folder(run)
    status = command(folder, op, by="cli", **fields)
    if as_json:
        print_json({"id": folder.run_id, **status})
    else:
        typer.echo(f"Run {folder.run_id} {said} ({processes(status.get('processes', 0))}).")
