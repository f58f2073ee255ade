"""`cc-executor verify` and `cc-executor lift`: receipts in notebooks, in files and beside their runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import anyio
import typer

from cc_executor.cli.codes import CONTRADICTED, UNVERIFIABLE
from cc_executor.cli.group import exits_with
from cc_executor.cli.kept import AsJson, hint, home, print_json
from cc_executor.cli.sealed import receipt_of
from cc_executor.errors import CCExecutorError, InvalidRequest
from cc_executor.model.ansi import clean
from cc_executor.runtime.evidence import verify_file
from cc_executor.runtime.verification import Keys, Verdict, Verification, transcript_roots, verify
from cc_executor.store.home import StateHome
from cc_executor.store.keys import public_keys_in
from cc_executor.store.named import is_there
from cc_executor.store.notebook import lift_file


@exits_with(f"0 all verified, {CONTRADICTED} contradicted, {UNVERIFIABLE} something could not be verified, 2 wrong call")
def verify_command(
    what: Annotated[
        list[str], typer.Argument(metavar="NOTEBOOK|RECEIPT|RUN...", help="Notebooks, receipts as JSON files, or ids of runs.")
    ],
    *,
    key: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Public keys, of which one must have signed (`cc-executor key export`); then the run's folder need not be here. Repeatable.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Examine receipts against their digest, signature, the journal, and the agent's own transcript. Needs no network and starts nothing."""
    runs, roots = home(), transcript_roots(os.environ)
    keys = {name: public for path in key for name, public in public_keys_in(path).items()} if key else None
    found: list[tuple[str, Verification]] = []
    wrong: list[str] = []
    for name in what:
        try:
            found += [(name, item) for item in _verified(name, runs, roots, keys)]
        except CCExecutorError as error:  # the others are looked at all the same
            wrong.append(str(error))
    if as_json:
        print_json([{"file": name, **item.as_dict()} for name, item in found])
    else:
        marks = {Verdict.VERIFIED: "✓", Verdict.CONTRADICTED: "✗", Verdict.UNVERIFIABLE: "?"}
        for name, item in found:
            typer.echo(f"{marks[item.verdict]} {item.verdict.value}  run {item.run_id}  ({name}{f', {item.where}' if item.where else ''})")
            for reason in item.reasons:
                typer.echo(f"    {clean(reason)}")
    verdicts = {item.verdict for _, item in found}
    if Verdict.CONTRADICTED in verdicts:
        for said in wrong:
            hint(said)
        raise typer.Exit(CONTRADICTED)
    if wrong:
        raise InvalidRequest(" ".join(wrong))
    if Verdict.UNVERIFIABLE in verdicts:
        raise typer.Exit(UNVERIFIABLE)


def _verified(name: str, runs: StateHome, roots: Sequence[Path], keys: Keys | None) -> list[Verification]:
    path = Path(name)
    if is_there(path) or os.sep in name or path.suffix:
        verified = verify_file(path, home=runs, transcript_roots=roots, keys=keys)
        if not verified:
            raise InvalidRequest(f"{name} holds no receipt: there is nothing to verify.")
        return verified
    receipt = anyio.run(receipt_of, runs, runs.find(name).run_id)
    if receipt is None:
        raise InvalidRequest(f"Run {name} goes on; its receipt is sealed when it has ended.")
    return [verify(receipt, home=runs, transcript_roots=roots, keys=keys)]


def lift_command(
    notebook: Annotated[list[Path], typer.Argument(metavar="NOTEBOOK...", help="Notebook files.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Copy receipts from the outputs of a notebook file to its metadata, and repair outputs that missed the end of their run.

    A Jupyter server with cc-executor does this whenever it saves. This is for files that something else has written: nbclient, papermill, an editor.
    """
    changed: dict[str, bool] = {}
    wrong: list[str] = []
    for path in notebook:
        try:
            changed[str(path)] = lift_file(path, home=home())
        except CCExecutorError as error:  # the others are lifted all the same
            wrong.append(str(error))
    if as_json:
        print_json([{"file": name, "changed": was} for name, was in changed.items()])
    else:
        for name, was in changed.items():
            typer.echo(f"{name}: {'lifted' if was else 'nothing to do'}")
    if wrong:
        raise InvalidRequest(" ".join(wrong))
