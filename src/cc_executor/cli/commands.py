"""The commands. Each is a few lines over runtime and store, and says its answer either for people or, with `--json`, as one JSON value."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import anyio
import typer

from cc_executor import __version__
from cc_executor.cli import limits
from cc_executor.cli.answer import answer_command
from cc_executor.cli.codes import CONTRADICTED, INTERRUPTED, OUTCOME_CODES, UNVERIFIABLE, outcome_table
from cc_executor.cli.history import app as history_app
from cc_executor.cli.history import estimate_command
from cc_executor.cli.lint import Apply, Off, lint_command, looked_over_prompt
from cc_executor.cli.mcp import mcp_command, prompt_command
from cc_executor.cli.report import report_command
from cc_executor.cli.session import receipt_of, run_to_end, watch
from cc_executor.cli.sharing import share_command, shared_command
from cc_executor.cli.tasks import app as tasks_app
from cc_executor.cli.undo import CODES as UNDO_CODES
from cc_executor.cli.undo import undo_command, undo_list_command
from cc_executor.cli.writer import TerminalWriter, closing_lines
from cc_executor.errors import InvalidRequest, RunNotFound
from cc_executor.model.ansi import clean
from cc_executor.model.notice import duration
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import PROMPT_LIMIT, OnKernelExit
from cc_executor.model.toollist import split_tools
from cc_executor.runtime.again import Attempts
from cc_executor.runtime.answers import unattended
from cc_executor.runtime.control import command
from cc_executor.runtime.hooks import hooks_of_environment
from cc_executor.runtime.reconcile import LIST_PATIENCE, reconcile
from cc_executor.runtime.run import Run
from cc_executor.runtime.summary import RunSummary, summaries, summary
from cc_executor.store.home import StateHome, state_path
from cc_executor.store.journal import RunFolder

LIST_LENGTH: Final = 20

app: Final = typer.Typer(
    help="Run coding agents, and look at, command and verify their runs. The same runs as in a notebook.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 140},
)

app.add_typer(tasks_app, name="tasks")
app.command("report")(report_command)
app.command("undo", epilog=UNDO_CODES)(undo_command)
tasks_app.command("undo", epilog=UNDO_CODES)(undo_list_command)
app.add_typer(history_app, name="history")
history_app.command("share")(share_command)
history_app.command("shared")(shared_command)
app.command("estimate")(estimate_command)
app.command("answer")(answer_command)
app.command("mcp")(mcp_command)
app.command("prompt")(prompt_command)
app.command("lint", epilog="Exit codes: 0 nothing or hints, 1 warnings, 2 wrong call.")(lint_command)

AsJson = Annotated[bool, typer.Option("--json", help="Write one JSON value and nothing else on standard output.")]
RunName = Annotated[
    str,
    typer.Argument(
        metavar="[RUN]",
        show_default=False,
        help="A run's id, or the first or last four or more characters of one; the newest run if not given.",
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None:
    del version


# --- running ------------------------------------------------------------------------------------------------------


@app.command("run", epilog=f"Exit codes: {outcome_table()}.")
def run_command(
    prompt: Annotated[
        str, typer.Argument(show_default=False, help="What the agent should do; - or nothing reads it from standard input.")
    ] = "-",
    *,
    agent: Annotated[str, typer.Option(help="claude, or shell, which runs the prompt as a command.")] = "claude",
    model: Annotated[str | None, typer.Option(metavar="NAME", help="The agent's model.")] = None,
    fallback_model: Annotated[str | None, typer.Option(metavar="NAME", help="Model to fall back on when the first is overloaded.")] = None,
    cwd: Annotated[str | None, typer.Option(metavar="FOLDER", help="Where the agent works; the current folder if not given.")] = None,
    add_dir: Annotated[list[str] | None, typer.Option(metavar="FOLDER", help="Another folder that the agent may use; repeatable.")] = None,
    tools: Annotated[
        str | None, typer.Option(metavar="LIST", help='Tools allowed without asking, comma-separated: "Bash(git *),Write".')
    ] = None,
    permission_mode: Annotated[
        str | None, typer.Option(metavar="MODE", help="acceptEdits (the default), default, plan, dontAsk or bypassPermissions.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="End the run after this time; the clock stands still while it is paused.")
    ] = None,
    stall_timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="End the run after this time without a sign of life.")
    ] = None,
    max_cost: Annotated[float | None, typer.Option(metavar="DOLLARS", help="End the run when it has cost this much.")] = None,
    max_cost_per_day: limits.PerDay = None,
    on_limit: limits.OnLimit = None,
    limit_wait_max: limits.WaitMax = None,
    on_output_limit: limits.OnOutputLimit = None,
    reask: limits.Reask = False,
    loop_guard: limits.LoopGuard = "tell",
    max_turns: Annotated[int | None, typer.Option(metavar="N", help="End the run after this many agent turns.")] = None,
    linger: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="How long the agent may stay after its last word for what runs in the background; 60 if not given."
        ),
    ] = None,
    journal_limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="How much of the output is kept, such as 500MB; 20GB if not given, none for no limit. The end is kept always.",
        ),
    ] = None,
    schema: Annotated[
        str | None, typer.Option(metavar="FILE", help="JSON Schema that the result must meet; the object is in the receipt's data.")
    ] = None,
    resume: Annotated[str | None, typer.Option(metavar="SESSION", help="Continue this session of the agent.")] = None,
    append_system_prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="Add to the agent's system prompt.")] = None,
    verify: Annotated[
        str | None, typer.Option(metavar="CMD", help="Command to run afterwards, outside the agent; exit code 0 means verified.")
    ] = None,
    expect: Annotated[list[str] | None, typer.Option(metavar="FILE", help="File that the run must create or change; repeatable.")] = None,
    ask: Annotated[
        bool,
        typer.Option(
            "--ask", help="Ask at this terminal when the agent wants leave or has a question; without a terminal that is refused at once."
        ),
    ] = False,
    rehearse: Annotated[
        str | None,
        typer.Option(metavar="SCRIPT", help="Play this script through the real agent instead of calling a model; spends nothing."),
    ] = None,
    shell: Annotated[
        str | None, typer.Option(metavar="SHELL", help="For --agent shell: the shell that reads the prompt (bash, zsh, sh).")
    ] = None,
    cli: Annotated[str | None, typer.Option(metavar="PATH", help="The agent's executable.")] = None,
    env: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Another environment variable for the agent; repeatable.")] = None,
    keep_background: Annotated[
        bool, typer.Option("--keep-background", help="Leave processes alone that outlive the agent, or its --linger.")
    ] = False,
    trust_workspace: Annotated[
        bool, typer.Option("--trust-workspace", help="Let the folder's own settings, hooks and MCP servers take effect.")
    ] = False,
    undo: Annotated[
        bool | None,
        typer.Option(
            "--undo/--no-undo",
            show_default=False,
            help="Look at the folder before and after, for `undo`; agents yes, commands no, if not given.",
        ),
    ] = None,
    label: Annotated[str, typer.Option(metavar="TEXT", help="A name for lists.")] = "",
    lint: Annotated[
        bool, typer.Option("--lint", help="Say before the start what may be wrong with the prompt; it is sent as it stands.")
    ] = False,
    lint_off: Off = None,
    lint_apply: Apply = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Do not wait: print the run's id; the run goes on without this command.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run an agent, show what it does, and exit with a code for its outcome. Ctrl-C ends the run and everything that it started."""
    from cc_executor.api import make_request

    looked = looked_over_prompt(
        _prompt(prompt),
        is_command=agent != "claude",
        show=lint,
        apply=lint_apply,
        off=lint_off,
        model=model,
        is_checked=bool(verify or expect),
        resumes=resume is not None,
    )
    request = make_request(
        looked.prompt,
        agent=agent,
        cwd=cwd,
        timeout=timeout,
        stall_timeout=stall_timeout,
        max_cost=max_cost,
        max_turns=max_turns,
        linger=linger,
        journal_limit=journal_limit,
        tools=split_tools(tools) if tools is not None else (),
        add_dirs=add_dir or (),
        expect=expect or (),
        schema=_schema(schema),
        ask=ask,
        rehearse=rehearse,
        on_kernel_exit=(OnKernelExit.CONTINUE if detach else OnKernelExit.CANCEL).value,
        model=model,
        fallback_model=fallback_model,
        permission_mode=permission_mode,
        resume=resume,
        append_system_prompt=append_system_prompt,
        verify=verify,
        cli=cli,
        shell=shell,
        env_names=tuple(env or ()),
        keep_background=keep_background,
        trust_workspace=trust_workspace,
        loop_guard=loop_guard,
        undo=undo,
        label=label,
        amended=looked.amended,
    )
    further = {"on_limit": on_limit, "on_output_limit": on_output_limit, "limit_wait_max": limit_wait_max, "reask": reask or None}
    attempts = limits.attempts(request, further, max_cost_per_day=max_cost_per_day, detach=detach, home=_home())
    if detach:
        unattended(request)
        _detach(attempts, as_json=as_json)
        return
    writer = _writer(as_json=as_json)
    receipt = anyio.run(lambda: run_to_end(attempts, home=_home(), environ=os.environ, writer=writer))
    _end(receipt, as_json=as_json)


def _detach(attempts: Attempts, *, as_json: bool) -> None:
    async def start() -> Run:
        return await Run.start(await attempts.request(), home=_home(), environ=os.environ, hooks=hooks_of_environment(os.environ))

    run = anyio.run(start)
    if as_json:
        _print_json(summary(run.folder, now=time.time()).as_dict())
        return
    typer.echo(run.run_id)
    _hint(f"It goes on by itself. `cc-executor attach {run.run_id}` shows it, `cc-executor cancel {run.run_id}` ends it.")


@app.command()
def attach(run: RunName = "", *, as_json: AsJson = False) -> None:
    """Show a run from its beginning until it has ended. Ctrl-C ends the watching, not the run."""
    name = _folder(run).run_id
    writer = _writer(as_json=as_json)

    async def follow() -> Receipt | None:
        return await watch(await Run.attach(_home(), name, environ=os.environ), writer=writer)

    receipt = anyio.run(follow)
    if receipt is None:
        writer.close()
        _hint(f"Run {name} goes on; `cc-executor cancel {name}` ends it.")
        raise typer.Exit(INTERRUPTED)
    _end(receipt, as_json=as_json)


def _end(receipt: Receipt, *, as_json: bool) -> None:
    if as_json:
        _print_json(receipt.model_dump(mode="json"))
    else:
        for line in closing_lines(receipt):
            _hint(line)
    raise typer.Exit(OUTCOME_CODES[receipt.outcome.kind])


def _prompt(argument: str) -> str:
    if argument != "-":
        return argument
    if sys.stdin.isatty():
        raise InvalidRequest("What should the agent do? Write it as an argument, or send it to standard input.")
    raw = sys.stdin.buffer.read(PROMPT_LIMIT + 1)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if len(raw) > PROMPT_LIMIT:
            return raw.decode("utf-8", "replace")  # too long all the same, and refused for that
        raise InvalidRequest(f"The prompt on standard input is not UTF-8 text (byte {error.start}).") from error


def _schema(name: str | None) -> dict[str, Any] | None:
    if name is None:
        return None
    try:
        schema = json.loads(Path(name).read_bytes())
    except OSError as error:
        raise InvalidRequest(f"The schema {name} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"The schema {name} is not JSON: {error}.") from error
    if not isinstance(schema, dict):
        raise InvalidRequest(f"The schema {name} must hold a JSON object.")
    return schema  # pyright: ignore[reportUnknownVariableType] - a JSON Schema is any object; the request checks it


# --- looking ------------------------------------------------------------------------------------------------------


@app.command("list")
def list_command(
    *,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = LIST_LENGTH,
    every: Annotated[bool, typer.Option("--all", help="All that are kept.")] = False,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    reconcile(_home(), environ=os.environ, patience=LIST_PATIENCE)
    rows = summaries(_home(), now=time.time(), limit=None if every else limit)
    if as_json:
        _print_json([row.as_dict() for row in rows])
        return
    if not rows:
        _hint("Nothing was run yet.")
        return
    table = [("run", "started", "status", "time", "cost", "agent", "prompt"), *(_cells(row) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cells(row: RunSummary) -> tuple[str, ...]:
    return (
        row.id,
        datetime.fromtimestamp(row.started).astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        f"{row.status} (rehearsal)" if row.rehearsed else row.status,
        "" if row.elapsed is None else duration(row.elapsed),
        "" if row.cost is None else f"${row.cost:.4f}",
        row.agent,
        clean(row.label or row.prompt),
    )


@app.command()
def show(run: RunName = "", *, as_json: AsJson = False) -> None:
    """Show the text and the receipt of a run that has ended; of one that goes on, how it stands."""
    folder = _folder(run)
    name = folder.run_id
    receipt = anyio.run(receipt_of, _home(), name)
    if receipt is None:
        row = summary(folder, now=time.time())
        if as_json:
            _print_json(row.as_dict())
            return
        typer.echo("  ".join(cell for cell in _cells(row) if cell))
        _hint(f"It goes on; `cc-executor attach {name}` shows it live.")
        return
    if as_json:
        _print_json(receipt.model_dump(mode="json"))
        return
    if receipt.text:
        typer.echo(clean(receipt.text).rstrip("\n"))
        typer.echo()
    for line in closing_lines(receipt):
        typer.echo(line)
    for change in receipt.files:
        size = "" if change.size is None else f", {change.size:,} bytes"
        typer.echo(f"  file {clean(change.path)}: {clean(change.words)}{size}")
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
    folder = _folder(run)
    status = command(folder, op, by="cli", **fields)
    if as_json:
        _print_json({"id": folder.run_id, **status})
    else:
        typer.echo(f"Run {folder.run_id} {said} ({status.get('processes', 0)} processes).")


# --- trust --------------------------------------------------------------------------------------------------------


Folder = Annotated[str, typer.Argument(metavar="[FOLDER]", show_default=False, help="The folder; the current one if not given.")]


@app.command()
def trust(
    folder: Folder = ".",
    *,
    listed: Annotated[bool, typer.Option("--list", help="List the folders that are trusted.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let a folder's own settings, hooks and MCP servers take effect in every run there, until it is replaced or `untrust` takes it back."""
    from cc_executor.runtime.workspace import trust as trust_folder
    from cc_executor.runtime.workspace import trusted_folders

    if not listed:
        said = trust_folder(folder, home=_home(), environ=os.environ)
        _print_json({"trusted": os.path.realpath(folder)}) if as_json else typer.echo(clean(said))
        return
    rows = trusted_folders(_home())
    if as_json:
        _print_json([{"folder": path, "is_same": is_same} for path, is_same in rows])
        return
    for path, is_same in rows:
        typer.echo(clean(path if is_same else f"{path} (replaced or gone since: not trusted)"))


@app.command()
def untrust(folder: Folder = ".", *, as_json: AsJson = False) -> None:
    """Take back the trust in a folder."""
    from cc_executor.runtime.workspace import untrust as untrust_folder

    said = untrust_folder(folder, home=_home())
    _print_json({"untrusted": os.path.realpath(folder)}) if as_json else typer.echo(clean(said))


# --- receipts -----------------------------------------------------------------------------------------------------


@app.command(
    epilog=f"Exit codes: 0 all verified, {CONTRADICTED} contradicted, {UNVERIFIABLE} something could not be verified, 2 wrong call."
)
def verify(
    what: Annotated[
        list[str], typer.Argument(metavar="NOTEBOOK|RECEIPT|RUN...", help="Notebooks, receipts as JSON files, or ids of runs.")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Examine receipts against their digest, the journal, and the agent's own transcript. Needs no network and starts nothing."""
    from cc_executor.runtime.evidence import verify_file
    from cc_executor.runtime.verification import Verdict, transcript_roots
    from cc_executor.runtime.verification import verify as verify_receipt

    home, roots = _home(), transcript_roots(os.environ)
    found: list[tuple[str, Any]] = []
    for name in what:
        path = Path(name)
        if path.exists() or os.sep in name or path.suffix:
            verified = verify_file(path, home=home, transcript_roots=roots)
            if not verified:
                raise InvalidRequest(f"{name} holds no receipt: there is nothing to verify.")
            found += [(name, item) for item in verified]
        else:
            receipt = anyio.run(receipt_of, home, home.find(name).run_id)
            if receipt is None:
                raise InvalidRequest(f"Run {name} goes on; its receipt is sealed when it has ended.")
            found.append((name, verify_receipt(receipt, home=home, transcript_roots=roots)))
    if as_json:
        _print_json([{"file": name, **item.as_dict()} for name, item in found])
    else:
        marks = {Verdict.VERIFIED: "✓", Verdict.CONTRADICTED: "✗", Verdict.UNVERIFIABLE: "?"}
        for name, item in found:
            typer.echo(f"{marks[item.verdict]} {item.verdict.value}  run {item.run_id}  ({name}{f', {item.where}' if item.where else ''})")
            for reason in item.reasons:
                typer.echo(f"    {clean(reason)}")
    verdicts = {item.verdict for _, item in found}
    if Verdict.CONTRADICTED in verdicts:
        raise typer.Exit(CONTRADICTED)
    if Verdict.UNVERIFIABLE in verdicts:
        raise typer.Exit(UNVERIFIABLE)


@app.command()
def lift(
    notebook: Annotated[list[Path], typer.Argument(metavar="NOTEBOOK...", help="Notebook files.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Copy receipts from the outputs of a notebook file to its metadata, and repair outputs that missed the end of their run.

    A Jupyter server with cc-executor does this whenever it saves. This is for files that something else has written: nbclient, papermill, an editor.
    """
    from cc_executor.store.notebook import lift_file

    changed = {str(path): lift_file(path, home=_home()) for path in notebook}
    if as_json:
        _print_json([{"file": name, "changed": was} for name, was in changed.items()])
    else:
        for name, was in changed.items():
            typer.echo(f"{name}: {'lifted' if was else 'nothing to do'}")


@app.command()
def doctor(*, as_json: AsJson = False) -> None:
    """Say what this machine has and lacks for running agents. Exits with 1 if something needed is missing."""
    from cc_executor.runtime.doctor import examine

    findings = list(examine(home=_home(), environ=os.environ))
    if as_json:
        fields = ("what", "ok", "required", "detail", "cure")
        _print_json([{name: getattr(finding, name) for name in fields} for finding in findings])
    else:
        for finding in findings:
            mark = "✓" if finding.ok else "✗" if finding.required else "–"
            typer.echo(f"{mark} {finding.what}: {finding.detail}" + (f" — {finding.cure}" if finding.cure else ""))
    if any(finding.required and not finding.ok for finding in findings):
        raise typer.Exit(1)


# --- what they share ----------------------------------------------------------------------------------------------


def _home() -> StateHome:
    return StateHome(state_path(os.environ))


def _folder(name: str) -> RunFolder:
    home = _home()
    if name:
        return home.find(name)
    newest = next(home.runs(), None)
    if newest is None:
        raise RunNotFound("Nothing was run yet.")
    return newest


def _writer(*, as_json: bool) -> TerminalWriter:
    """With `--json`, what would be shown goes to standard error, so that standard output is the JSON alone."""
    return TerminalWriter(sys.stderr if as_json else sys.stdout, sys.stderr, pieces=sys.stdout.isatty() and not as_json)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False))


def _hint(text: str) -> None:
    typer.echo(text, err=True)
