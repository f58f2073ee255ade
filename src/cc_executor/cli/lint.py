"""`cc-executor lint`: what may be wrong with a prompt, and how long it is. Starts nothing and spends nothing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Final

import typer

from cc_executor.cli.group import exits_with
from cc_executor.cli.kept import AsJson, hint, print_json
from cc_executor.cli.lintoptions import Apply, Off
from cc_executor.cli.reading import read_prompt
from cc_executor.policy import tokens
from cc_executor.policy.lint import amended, difference, ids_of, lint, report
from cc_executor.policy.rules import RULES, Severity

WARNED: Final = 1  # exit code


@exits_with("0 nothing or hints, 1 warnings, 2 wrong call")
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


def _print_rules(*, as_json: bool) -> None:
    if as_json:
        names = ("id", "severity", "title", "why", "suggestion", "example", "better")
        print_json([{name: getattr(rule, name) for name in names} for rule in RULES])
        return
    for rule in RULES:
        typer.echo(f"{rule.id:<18} {rule.severity.value:<8} {rule.title}")
