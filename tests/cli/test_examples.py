"""The help of each command ends with an example, and the parser takes it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from cc_executor.cli.commands import app
from cc_executor.cli.examples import EXAMPLES


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
            if not command.invoke_without_command:
                continue
        yield prefix + name, command


ALL = dict(commands(typer.main.get_command(app)))


def test_every_command_has_an_example_and_no_example_is_of_nothing() -> None:
    assert ALL.keys() == EXAMPLES.keys()


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
