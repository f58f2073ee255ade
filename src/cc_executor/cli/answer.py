"""What an agent asks, answered at the terminal that follows its run, or by `cc-executor answer` from any other."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import anyio
import msgspec
import typer

from cc_executor.cli.kept import AsJson, RunName, print_json, run_folder
from cc_executor.cli.writer import TerminalWriter
from cc_executor.errors import InvalidRequest
from cc_executor.model.ask import DECISION_WORDS, Answer, Ask, Decision
from cc_executor.model.event import QuestionAsked
from cc_executor.policy.ask import Answerer, in_terminal
from cc_executor.policy.redact import Redactor, secret_values
from cc_executor.runtime.answers import AskCallback, give, meant_ask, open_asks
from cc_executor.runtime.askpage import line_of, shown
from cc_executor.runtime.prompt import heading, prompted, question_words
from cc_executor.runtime.run import Run
from cc_executor.store.journal import RunFolder


def at_terminal(run: Run, writer: TerminalWriter) -> tuple[Answerer, AskCallback | None]:
    """Who answers where a command follows a run, and how they are asked, one question at a time."""
    who = in_terminal(reads=sys.stdin.isatty(), shows=sys.stderr.isatty())
    turn = anyio.Lock()

    async def ask_here(ask: Ask) -> Answer:
        async with turn:
            return await prompted(shown(ask, cwd=run.request.cwd, mask=run.mask), fd=sys.stdin.fileno(), say=writer.say)

    return who, ask_here if who.is_there else None


def answer_command(
    run: RunName = "",
    *,
    allow: Annotated[bool, typer.Option("--allow", help="Allow this one call.")] = False,
    allow_run: Annotated[bool, typer.Option("--allow-run", help="Allow it and whatever is like it until the run ends.")] = False,
    deny: Annotated[bool, typer.Option("--deny", help="Do not allow it, or do not answer.")] = False,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="With --deny: why; the agent sees it.")] = "",
    text: Annotated[
        list[str] | None, typer.Option(metavar="ANSWER", help="The answer to a question; once for each, in their order.")
    ] = None,
    ask: Annotated[str, typer.Option(metavar="ID", help="Which question, by the beginning of its id, where several are open.")] = "",
    as_json: AsJson = False,
) -> None:
    """Answer what a run's agent asks. Without an answer: show what is open, and ask for one if this is a terminal."""
    folder = run_folder(run)
    asks = open_asks(folder)
    wanted = _wanted(allow=allow, allow_run=allow_run, deny=deny, reason=reason, texts=text or [])
    if wanted is None and (as_json or not asks):
        _list(folder, asks, as_json=as_json)
        return
    chosen = meant_ask(folder, asks if ask or wanted is not None else asks[:1], ask)
    if wanted is None:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            _list(folder, asks, as_json=False)
            return
        wanted = anyio.run(lambda: _prompted(folder, chosen))
    give(folder, chosen, wanted, by="cli")
    if as_json:
        print_json({"id": folder.run_id, "ask": chosen.ask_id, "decision": wanted.decision.value})
    else:
        typer.echo(f"{DECISION_WORDS[wanted.decision]}: {line_of(chosen, cwd=folder.request().cwd)}")


def _wanted(*, allow: bool, allow_run: bool, deny: bool, reason: str, texts: list[str]) -> Answer | None:
    said = [
        *([Answer(decision=Decision.ALLOW)] if allow else []),
        *([Answer(decision=Decision.ALLOW_RUN)] if allow_run else []),
        *([Answer(decision=Decision.DENY, text=reason)] if deny else []),
        *([Answer(decision=Decision.ANSWER, answers=tuple(texts))] if texts else []),
    ]
    if len(said) > 1:
        raise InvalidRequest("Give one of --allow, --allow-run, --deny and --text.")
    if reason and not deny:
        raise InvalidRequest("--reason goes with --deny.")
    return said[0] if said else None


async def _prompted(folder: RunFolder, ask: Ask) -> Answer:
    return await prompted(
        shown(ask, cwd=folder.request().cwd, mask=_mask()), fd=sys.stdin.fileno(), say=lambda text: print(text, file=sys.stderr)
    )


def _mask() -> Any:
    return Redactor(secret_values(os.environ)).text


def _list(folder: RunFolder, asks: tuple[Ask, ...], *, as_json: bool) -> None:
    cwd, mask = folder.request().cwd, _mask()
    pages = [shown(each, cwd=cwd, mask=mask) for each in asks]
    if as_json:
        print_json(msgspec.to_builtins(pages))
        return
    if not pages:
        typer.echo(f"Run {folder.run_id} asks nothing now.")
    for page, each in zip(pages, asks, strict=True):
        if isinstance(each, QuestionAsked):
            typer.echo(f"\n  ? {page.title} asks")
            for question in page.questions:
                typer.echo(question_words(question))
        else:
            typer.echo(heading(page))
        typer.echo(f"    (question {each.ask_id})")
