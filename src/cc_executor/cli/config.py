"""`cc-executor config`: every setting, what it is in a new notebook, and who says so."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from cc_executor.cli.kept import AsJson, print_json
from cc_executor.model.ansi import clean


def config_command(*, as_json: AsJson = False) -> None:
    """Show every setting, its value in a new notebook or server, and where it comes from. Configuration files are read as Jupyter reads them.

    What a notebook sets by %config, and what a command line sets, is not seen from here.
    """
    from cc_executor.cli.settings import DEFAULT, settings  # here: every other command does without the tables of the doors

    found = list(settings())
    if as_json:
        print_json([asdict(each) for each in found])
        return
    width = max(len(each.name) for each in found)
    for each in found:
        value = "none" if each.value is None else each.value if isinstance(each.value, str) else json.dumps(each.value, default=str)
        origin = "" if each.source == DEFAULT else f"  ({each.source}: {each.where})"
        typer.echo(clean(f"{each.name:<{width}}  {value}{origin}"))
