"""`cc-executor trust` and `cc-executor untrust`: whether a folder's own settings take effect."""

from __future__ import annotations

import os
from typing import Annotated, Final

import typer

from cc_executor.cli.kept import AsJson, hint, home, print_json
from cc_executor.errors import InvalidRequest
from cc_executor.model.ansi import clean
from cc_executor.runtime.workspace import trust, trusted_folders, untrust

_ARGUMENT: Final = typer.Argument(metavar="[FOLDER]", show_default=False, help="The folder; the current one if not given.")


def trust_command(
    folder: Annotated[str | None, _ARGUMENT] = None,
    *,
    listed: Annotated[bool, typer.Option("--list", help="List the folders that are trusted.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let a folder's own settings, hooks and MCP servers take effect in every run there, until it is replaced or `untrust` takes it back."""
    if not listed:
        chosen = "." if folder is None else folder
        said = trust(chosen, home=home(), environ=os.environ)
        print_json({"trusted": os.path.realpath(chosen)}) if as_json else typer.echo(clean(said))
        return
    if folder is not None:
        raise InvalidRequest("--list shows every folder that is trusted, and trusts none: leave the folder or --list out.")
    rows = trusted_folders(home())
    if as_json:
        print_json([{"folder": path, "is_same": is_same} for path, is_same in rows])
        return
    if not rows:
        hint("No folder is trusted.")
    for path, is_same in rows:
        typer.echo(clean(path if is_same else f"{path} (replaced or gone since: not trusted)"))


def untrust_command(folder: Annotated[str, _ARGUMENT] = ".", *, as_json: AsJson = False) -> None:
    """Take back the trust in a folder."""
    said = untrust(folder, home=home())
    print_json({"untrusted": os.path.realpath(folder)}) if as_json else typer.echo(clean(said))
