"""`cc-executor validate`: everything that is wrong with a task list or a prompt, before anything is spent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from cc_executor.api import make_request
from cc_executor.cli.group import exits_with
from cc_executor.cli.kept import AsJson, hint, print_json
from cc_executor.cli.reading import read_prompt
from cc_executor.errors import InvalidRequest, InvalidTaskList
from cc_executor.model.ansi import clean
from cc_executor.policy.lint import lint
from cc_executor.taskplan import plan_of_file

WRONG: Final = 1  # exit code
ERROR: Final = "error"  # it cannot be run; warnings and hints are `lint`'s, and stop nothing
LISTS: Final = frozenset({".yaml", ".yml", ".json", ".md", ".markdown"})


@exits_with(f"0 nothing that hinders, {WRONG} something cannot be run, 2 wrong call")
def validate_command(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Task lists or prompts; - is a prompt on standard input.")],
    *,
    prompt: Annotated[bool, typer.Option("--prompt", help="They are prompts, whatever their names.")] = False,
    cwd: Annotated[str | None, typer.Option(metavar="FOLDER", help="Where the tasks would work.")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="The model that prompts are for.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say everything that is wrong with files, each problem with its place. YAML, JSON and Markdown are task lists, anything else is a prompt. Starts nothing."""
    rows: list[dict[str, str]] = []
    unread: list[str] = []
    for file in files:
        is_list = not prompt and file != "-" and Path(file).suffix.lower() in LISTS
        try:
            found = _of_list(file, cwd) if is_list else _of_prompt(file, model)
        except InvalidRequest as error:  # the others are looked at all the same
            unread.append(str(error))
            continue
        rows += [{"file": file, "severity": severity, "problem": problem} for severity, problem in found]
    is_wrong = any(row["severity"] == ERROR for row in rows)
    if as_json:
        print_json({"ok": not is_wrong and not unread, "problems": rows})
    else:
        for row in rows:
            typer.echo(clean(f"{row['file']}: {row['severity']}: {row['problem']}"))
    if is_wrong:
        for said in unread:
            hint(clean(said))
        raise typer.Exit(WRONG)
    if unread:
        raise InvalidRequest(" ".join(unread))


def _of_list(file: str, cwd: str | None) -> list[tuple[str, str]]:
    try:
        planned = plan_of_file(file, cwd=cwd)
    except InvalidTaskList as error:
        return [(ERROR, problem) for problem in error.problems]
    return [(each.finding.rule.severity.value, str(each)) for each in planned.hints()]


def _of_prompt(file: str, model: str | None) -> list[tuple[str, str]]:
    text = read_prompt(file)
    found = [(each.rule.severity.value, f"{each.line}:{each.column}: {each.detail or each.rule.title}") for each in lint(text, model=model)]
    try:
        make_request(text, model=model, cwd="/")
    except InvalidRequest as error:
        found.append((ERROR, str(error)))
    return found
