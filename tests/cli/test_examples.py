"""The table of the commands says of each what its own docstring says, and ends its help with an example, which the parser takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from cc_executor.cli.commands import COMMANDS, app


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
            if not command.invoke_without_command:
                continue
        yield prefix + name, command


ALL = dict(commands(typer.main.get_command(app)))


def test_every_row_of_the_table_is_a_command_or_a_group_of_some() -> None:
    groups = {name for name, row in COMMANDS.items() if not row.place}
    assert ALL.keys() == COMMANDS.keys() - groups
    assert groups == {name.partition(" ")[0] for name in ALL if " " in name} - ALL.keys()


@pytest.mark.parametrize("name", ALL)
def test_what_a_list_says_of_a_command_is_the_first_sentence_of_its_docstring(name: str) -> None:
    paragraph = ALL[name].help.partition("\n\n")[0]
    assert COMMANDS[name].help == re.split(r"(?<=\.)\s", paragraph)[0]


@pytest.mark.parametrize("name", ALL)
def test_the_example_stands_in_the_help_and_is_understood(name: str) -> None:
    command = ALL[name]
    example = next(line for line in command.epilog.splitlines() if line.startswith("Example: "))
    assert len(example) < 80, "one line of a terminal"
    words = shlex.split(example.removeprefix("Example: `cc-executor ").removesuffix("`"))
    if ">" in words:
        words = words[: words.index(">")]
    assert words[: len(name.split())] == name.split()
    with command.make_context(name, words[len(name.split()) :]):
        pass  # a wrong option or a missing argument raises
