"""`cc-executor key`: the key that signs receipts."""

from __future__ import annotations

from typing import Annotated

import typer

from cc_executor.cli.kept import AsJson, hint, home, print_json
from cc_executor.store.keys import line_of, own_keys, pem_of, rotate, signing_key


def show_command(*, as_json: AsJson = False) -> None:
    """Show the key's fingerprint, and those of the keys before it."""
    current = signing_key(home()).fingerprint
    former = [name for name in own_keys(home()) if name != current]
    if as_json:
        print_json({"key": current, "former": former})
        return
    typer.echo(current)
    for name in former:
        typer.echo(f"{name} (before; its receipts can still be verified)")


def export_command(
    *, every: Annotated[bool, typer.Option("--all", help="Every key that signed here, each in one line as OpenSSH writes it.")] = False
) -> None:
    """Write the public key as PEM, for whoever verifies your receipts: `cc-executor verify --key FILE`."""
    current = signing_key(home())
    if not every:
        typer.echo(pem_of(current.public), nl=False)
        return
    for key in {**own_keys(home()), current.fingerprint: current.public}.values():
        typer.echo(line_of(key))


def rotate_command(*, as_json: AsJson = False) -> None:
    """Make a new key for the receipts from now on. The old private key is removed; its public half is kept, so that older receipts can be verified."""
    made = rotate(home())
    if as_json:
        print_json({"key": made.fingerprint})
        return
    typer.echo(made.fingerprint)
    hint("Give the new public key to whoever verifies your receipts: `cc-executor key export --all`.")
