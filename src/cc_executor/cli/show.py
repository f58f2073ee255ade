"""`cc-executor show`: one run, as its receipt says; while it goes on, as it stands."""

from __future__ import annotations

import time

import anyio
import typer

from cc_executor.cli.kept import AsJson, RunName, hint, home, print_json, run_folder
from cc_executor.cli.sealed import receipt_of
from cc_executor.cli.writer import closing_lines
from cc_executor.model.ansi import clean
from cc_executor.model.paths import below
from cc_executor.model.table import columns
from cc_executor.runtime.summary import summary
from cc_executor.store.localtime import local


def show_command(run: RunName = "", *, as_json: AsJson = False) -> None:
    """Show the text and the receipt of a run that has ended; of one that goes on, how it stands."""
    folder = run_folder(run)
    name = folder.run_id
    receipt = anyio.run(receipt_of, home(), name)
    if receipt is None:
        row = summary(folder, now=time.time())
        if as_json:
            print_json(row.as_dict())
            return
        typer.echo(columns([tuple(cell for cell in row.cells() if cell)])[0])
        hint(f"It goes on; `cc-executor attach {name}` shows it live.")
        return
    if as_json:
        print_json(receipt.model_dump(mode="json"))
        return
    if receipt.text:
        typer.echo(clean(receipt.text).rstrip("\n"))
        typer.echo()
    for line in closing_lines(receipt):
        typer.echo(line)
    for change in receipt.files:
        size = "" if change.size is None else f", {change.size:,} bytes"
        typer.echo(f"  file {clean(below(change.path, (receipt.cwd,)))}: {clean(change.words)}{size}")
    typer.echo(f"  {receipt.agent} {receipt.agent_version} {receipt.model}".rstrip() + f" in {clean(receipt.cwd)}")
    typer.echo(f"  started {local(receipt.times.started.timestamp()):%Y-%m-%d %H:%M:%S}, journal {folder.path}")
    typer.echo(f"  digest {receipt.digest}")
