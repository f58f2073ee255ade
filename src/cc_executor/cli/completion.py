"""`cc-executor completion`: the script by which a shell completes commands and options."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

# Typer's own scripts without its two options, which would write into the shell's start-up files.
from typer.completion import completion_init, get_completion_script  # pyright: ignore[reportPrivateImportUsage] - it names no other place

from cc_executor.cli import COMPLETION


class Shell(StrEnum):
    """Shells whose scripts there are."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def prepare() -> None:
    """Make the parser answer those scripts."""
    completion_init()


def completion_command(shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.", show_default=False)]) -> None:
    """Print a script that makes a shell complete commands and options. Changes nothing.

    bash: `eval "$(cc-executor completion bash)"` in ~/.bashrc. zsh: the same in ~/.zshrc, after compinit. fish: `cc-executor completion fish | source` in config.fish.
    """
    typer.echo(get_completion_script(prog_name="cc-executor", complete_var=COMPLETION, shell=shell.value))
