"""`cc-executor lint`: what may be wrong with a prompt, and how long it is. Starts nothing and spends nothing."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from cc_executor.cli.kept import AsJson, hint, print_json
from cc_executor.errors import InvalidRequest
from cc_executor.model.looked import Looked
from cc_executor.model.request import PROMPT_LIMIT
from cc_executor.policy import tokens
from cc_executor.policy.lint import amended, difference, ids_of, lint, looked_over, report
from cc_executor.policy.rules import RULES, Severity

WARNED: Final = 1  # exit code

Off = Annotated[
    list[str] | None, typer.Option("--lint-off", metavar="IDS", help="Rules that are not asked, comma-separated; all for every one.")
]
Apply = Annotated[
    list[str] | None, typer.Option("--lint-apply", metavar="IDS", help="Put the suggested text of these rules into the prompt.")
]


def lint_command(
    file: Annotated[
        str, typer.Argument(metavar="FILE", show_default=False, help="A file with the prompt; - reads it from standard input.")
    ] = "-",
    *,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="The model that it is for.")] = None,
    lint_off: Off = None,
    lint_apply: Apply = None,
    rules: Annotated[bool, typer.Option("--rules", help="Print the rules, and look at nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what may be wrong with a prompt, and how many tokens it has. With --lint-apply print the prompt as it would be, and on standard error what changed."""
    if rules:
        _print_rules(as_json=as_json)
        return
    text = read_prompt(file)
    if lint_apply:
        after, applied = amended(text, ids_of(lint_apply), model=model)
        print_json({"prompt": after, "applied": applied}) if as_json else typer.echo(after.rstrip("\n"))
        hint(difference(text, after) or "Nothing was changed.")
        return
    found, counted = lint(text, model=model, off=ids_of(lint_off)), tokens.count(text, model)
    problem = tokens.over(text, model)
    if as_json:
        print_json({"tokens": asdict(counted), "too_long": problem, "findings": [each.as_dict() for each in found]})
    else:
        typer.echo(report(found, counted))
        if problem:
            typer.echo(f"It cannot be sent: it {problem}.")
    if problem or any(each.rule.severity is Severity.WARNING for each in found):
        raise typer.Exit(WARNED)


def looked_over_prompt(
    prompt: str,
    *,
    is_command: bool,
    show: bool,
    apply: list[str] | None,
    off: list[str] | None,
    model: str | None,
    is_checked: bool,
    resumes: bool,
) -> Looked:
    """The prompt of a run as its options want it looked over; what is found is said on standard error."""
    if is_command:
        if show or apply:
            raise InvalidRequest("--lint and --lint-apply are for prompts, and this is a command: leave them out.")
        return Looked(prompt)
    looked = looked_over(prompt, show=show, apply=ids_of(apply), off=ids_of(off), model=model, is_checked=is_checked, resumes=resumes)
    if looked.said:
        hint(looked.said)
    return looked


def _print_rules(*, as_json: bool) -> None:
    if as_json:
        names = ("id", "severity", "title", "why", "suggestion", "example", "better")
        print_json([{name: getattr(rule, name) for name in names} for rule in RULES])
        return
    for rule in RULES:
        typer.echo(f"{rule.id:<18} {rule.severity.value:<8} {rule.title}")


def read_prompt(file: str) -> str:
    """The text of a file; of standard input, if it is ``-``.

    Raises
    ------
    InvalidRequest
        It cannot be read, or is not UTF-8.
    """
    try:
        raw = sys.stdin.buffer.read(PROMPT_LIMIT + 1) if file == "-" else Path(file).read_bytes()
        return raw.decode(
            "utf-8", "replace" if len(raw) > PROMPT_LIMIT else "strict"
        )  # too long all the same, and perhaps cut within a character
    except OSError as error:
        raise InvalidRequest(
            f"There is no prompt to read in {file}: {error.strerror}. Name a file, or send the text to standard input."
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The prompt {file} is not UTF-8 text (byte {error.start}).") from error
