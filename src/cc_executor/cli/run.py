"""`cc-executor run` and `cc-executor attach`: start a run, and watch one."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from cc_executor.cli import INTERRUPTED, limits
from cc_executor.cli import notify as notified
from cc_executor.cli.codes import outcome_table
from cc_executor.cli.group import exits_with
from cc_executor.cli.kept import AsJson, RunName, hint, home, print_json, run_folder
from cc_executor.cli.lintoptions import Apply, Off, looked_over_prompt
from cc_executor.cli.reading import given_prompt
from cc_executor.cli.session import run_to_end, watch
from cc_executor.cli.writer import TerminalWriter, closing_lines, exit_code
from cc_executor.errors import InvalidRequest
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import PROMPT_LIMIT, OnKernelExit
from cc_executor.model.toollist import split_tools
from cc_executor.runtime.again import Attempts
from cc_executor.runtime.answers import unattended
from cc_executor.runtime.bounds import bounded
from cc_executor.runtime.hooks import hooks_of_environment
from cc_executor.runtime.plan import removed
from cc_executor.runtime.run import Run
from cc_executor.runtime.summary import summary

if TYPE_CHECKING:
    from cc_executor.model.notify import Notify


@exits_with(outcome_table())
def run_command(
    prompt: Annotated[
        str,
        typer.Argument(metavar="[PROMPT]", show_default=False, help="What the agent should do; - or nothing reads it from standard input."),
    ] = "-",
    *,
    agent: Annotated[str, typer.Option(metavar="NAME", help="claude, or shell, which runs the prompt as a command.")] = "claude",
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
        float | None,
        typer.Option(metavar="SECONDS", help="End the run after this time without a sign of life: 600 for an agent; 0 for no limit."),
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
        str | None,
        typer.Option(
            metavar="SHELL",
            help="For --agent shell: the shell that reads the prompt (bash, zsh, sh).",
        ),
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
    notify: notified.Targets = None,
    notify_after: notified.After = None,
    notify_on: notified.On = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Do not wait: print the run's id; the run goes on without this command.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run an agent, show what it does, and exit with a code for its outcome. Ctrl-C ends the run and everything that it started."""
    from cc_executor.api import make_request, take_notify

    looked = looked_over_prompt(
        given_prompt(prompt, is_command=agent != "claude") if prompt != "-" else _prompt(),
        is_command=agent != "claude",
        show=lint,
        apply=lint_apply,
        off=lint_off,
        model=model,
        is_checked=bool(verify or expect),
        resumes=resume is not None,
    )
    bounds = bounded({"timeout": timeout, "max_cost": max_cost, "max_turns": max_turns, "max_cost_per_day": max_cost_per_day}, os.environ)
    day = bounds.pop("max_cost_per_day")
    request = make_request(
        looked.prompt,
        agent=agent,
        cwd=cwd,
        **bounds,
        stall_timeout=stall_timeout,
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
    attempts = limits.attempts(request, further, max_cost_per_day=day, detach=detach, home=home())
    wish = take_notify(notified.given(notify, notify_after, notify_on), os.environ)
    if detach:
        unattended(request)
        _detach(attempts, wish, as_json=as_json)
        return
    writer = _writer(as_json=as_json)
    receipt = anyio.run(lambda: run_to_end(attempts, home=home(), environ=os.environ, writer=writer, notify=wish))
    _end(receipt, writer, as_json=as_json)


def _detach(attempts: Attempts, notify: Notify | None, *, as_json: bool) -> None:
    async def start() -> Run:
        hooks = hooks_of_environment(os.environ)
        return await Run.start(await attempts.request(), home=home(), environ=os.environ, hooks=hooks, notify=notify)

    run = anyio.run(start)
    if as_json:
        print_json(summary(run.folder, now=time.time()).as_dict())
        return
    typer.echo(run.run_id)
    hint(f"It goes on by itself. `cc-executor attach {run.run_id}` shows it, `cc-executor cancel {run.run_id}` ends it.")
    if notify is not None and notify.targets:
        hint(
            f"Nobody follows it, and so nobody is told before somebody looks: `cc-executor attach {run.run_id}` waits for its end and tells."
        )


def attach_command(run: RunName = "", *, as_json: AsJson = False) -> None:
    """Show a run from its beginning until it has ended. Ctrl-C ends the watching, not the run."""
    folder = run_folder(run)
    name = folder.run_id
    if said := removed(folder):
        hint(f"{said}: `cc-executor show {name}` has the text of the receipt.")
    writer = _writer(as_json=as_json)

    async def follow() -> Receipt | None:
        return await watch(await Run.attach(home(), name, environ=os.environ), writer=writer)

    receipt = anyio.run(follow)
    if receipt is None:
        writer.close()
        hint(f"Run {name} goes on; `cc-executor cancel {name}` ends it.")
        raise typer.Exit(INTERRUPTED)
    _end(receipt, writer, as_json=as_json)


def _end(receipt: Receipt, writer: TerminalWriter, *, as_json: bool) -> None:
    if as_json:
        print_json(receipt.model_dump(mode="json"))
    else:
        for line in closing_lines(receipt):
            writer.say(line)
    raise typer.Exit(exit_code(receipt, writer))


def _prompt() -> str:
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


def _writer(*, as_json: bool) -> TerminalWriter:
    """With `--json`, what would be shown goes to standard error, so that standard output is the JSON alone."""
    return TerminalWriter(sys.stderr if as_json else sys.stdout, sys.stderr, pieces=sys.stdout.isatty() and not as_json)
