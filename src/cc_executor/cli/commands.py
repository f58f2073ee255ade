"""The commands. Each is a few lines over runtime and store, and says its answer either for people or, with `--json`, as one JSON value."""

from __future__ import annotations

import os
import time
from typing import Annotated, Final

import anyio
import typer

from cc_executor import __version__
from cc_executor.cli import receipts, tasks, undo
from cc_executor.cli.answer import answer_command
from cc_executor.cli.codes import outcome_table
from cc_executor.cli.completion import completion_command
from cc_executor.cli.config import config_command
from cc_executor.cli.examples import add_examples
from cc_executor.cli.history import app as history_app
from cc_executor.cli.history import estimate_command
from cc_executor.cli.kept import LIST_LENGTH, AsJson, RunName, hint, home, print_json, run_folder
from cc_executor.cli.key import app as key_app
from cc_executor.cli.lint import lint_command
from cc_executor.cli.mcp import mcp_command, prompt_command
from cc_executor.cli.report import report_command
from cc_executor.cli.run import attach_command, run_command
from cc_executor.cli.server import app as server_app
from cc_executor.cli.session import receipt_of
from cc_executor.cli.sharing import share_command, shared_command
from cc_executor.cli.stress import FAILED, stress_command
from cc_executor.cli.tail import tail_command
from cc_executor.cli.trust import trust_command, untrust_command
from cc_executor.cli.validate import WRONG, validate_command
from cc_executor.cli.writer import closing_lines
from cc_executor.model.ansi import clean
from cc_executor.model.notice import processes
from cc_executor.model.paths import below
from cc_executor.runtime.control import command
from cc_executor.runtime.past import columns
from cc_executor.runtime.reconcile import LIST_PATIENCE, reconcile
from cc_executor.runtime.summary import HEAD, RunSummary, summaries, summary

app: Final = typer.Typer(
    help="Run coding agents, and look at, command and verify their runs. The same runs as in a notebook.",
    epilog="To try it, without a login and free of charge: `cc-executor run --rehearse hello 'Greet the reader.'`",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 140},
)

app.add_typer(tasks.app, name="tasks")
app.command("report")(report_command)
app.command("undo", epilog=undo.CODES)(undo.undo_command)
tasks.app.command("undo", epilog=undo.CODES)(undo.undo_list_command)
app.add_typer(history_app, name="history")
history_app.command("share")(share_command)
history_app.command("shared")(shared_command)
app.command("estimate")(estimate_command)
app.command("answer")(answer_command)
app.command("mcp")(mcp_command)
app.command("prompt")(prompt_command)
app.command("lint", epilog="Exit codes: 0 nothing or hints, 1 warnings, 2 wrong call.")(lint_command)
app.command("run", epilog=f"Exit codes: {outcome_table()}.")(run_command)
app.command("attach")(attach_command)
app.command("tail")(tail_command)
app.command("validate", epilog=f"Exit codes: 0 nothing that hinders, {WRONG} something cannot be run, 2 wrong call.")(validate_command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None:
    del version


# --- looking ------------------------------------------------------------------------------------------------------


@app.command("list")
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
    for line in columns([HEAD, *(_cells(row) for row in rows)]):
        typer.echo(line)


def _cells(row: RunSummary) -> tuple[str, ...]:
    return tuple(map(clean, row.cells()))


@app.command()
def show(run: RunName = "", *, as_json: AsJson = False) -> None:
    """Show the text and the receipt of a run that has ended; of one that goes on, how it stands."""
    folder = run_folder(run)
    name = folder.run_id
    receipt = anyio.run(receipt_of, home(), name)
    if receipt is None:
        row = summary(folder, now=time.time())
        if as_json:
            print_json(row.as_dict())
            return
        typer.echo("  ".join(cell for cell in _cells(row) if cell))
        hint(f"It goes on; `cc-executor attach {name}` shows it live.")
        return
    if as_json:
        print_json(receipt.model_dump(mode="json"))
        return
    if receipt.text:
        typer.echo(clean(receipt.text).rstrip("\n"))
        typer.echo()
    for line in closing_lines(receipt):
        typer.echo(line)
    for change in receipt.files:
        size = "" if change.size is None else f", {change.size:,} bytes"
        typer.echo(f"  file {clean(below(change.path, (receipt.cwd,)))}: {clean(change.words)}{size}")
    typer.echo(f"  {receipt.agent} {receipt.agent_version} {receipt.model}".rstrip() + f" in {clean(receipt.cwd)}")
    typer.echo(f"  started {receipt.times.started.astimezone():%Y-%m-%d %H:%M:%S}, journal {folder.path}")
    typer.echo(f"  digest {receipt.digest}")


# --- commanding ---------------------------------------------------------------------------------------------------


@app.command()
def pause(run: RunName = "", *, as_json: AsJson = False) -> None:
    """Let every process of a run stand still; its clocks stand still, too."""
    _control("pause", run, "stands still", as_json=as_json)


@app.command()
def resume(run: RunName = "", *, as_json: AsJson = False) -> None:
    """Let a paused run go on."""
    _control("resume", run, "goes on", as_json=as_json)


@app.command()
def cancel(
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


# --- the machine and its folders ----------------------------------------------------------------------------------

app.command("config")(config_command)
app.add_typer(server_app, name="server")
app.command("stress", epilog=f"Exit codes: 0 all went well and nothing is left, {FAILED} not so, 2 wrong call.")(stress_command)
app.command("completion")(completion_command)
app.command("trust")(trust_command)
app.command("untrust")(untrust_command)
app.command("verify", epilog=receipts.CODES)(receipts.verify_command)
app.command("lift")(receipts.lift_command)
app.add_typer(key_app, name="key")


@app.command()
def doctor(*, as_json: AsJson = False) -> None:
    """Say what this machine has and lacks for running agents. Exits with 1 if something needed is missing."""
    from cc_executor.runtime.doctor import examine

    findings = list(examine(home=home(), environ=os.environ))
    if as_json:
        fields = ("what", "ok", "required", "detail", "cure")
        print_json([{name: getattr(finding, name) for name in fields} for finding in findings])
    else:
        for finding in findings:
            typer.echo(str(finding))
    if any(finding.required and not finding.ok for finding in findings):
        raise typer.Exit(1)


add_examples(app)
