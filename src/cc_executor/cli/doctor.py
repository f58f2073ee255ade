"""`cc-executor doctor`: what this machine has and lacks."""

from __future__ import annotations

import os

import typer

from cc_executor.cli.kept import AsJson, home, print_json
from cc_executor.runtime.doctor import examine


def doctor_command(*, as_json: AsJson = False) -> None:
    """Say what this machine has and lacks for running agents. Exits with 1 if something needed is missing."""
    findings = list(examine(home=home(), environ=os.environ))
    if as_json:
        fields = ("what", "ok", "required", "detail", "cure")
        print_json([{name: getattr(finding, name) for name in fields} for finding in findings])
    else:
        for finding in findings:
            typer.echo(str(finding))
    if any(finding.required and not finding.ok for finding in findings):
        raise typer.Exit(1)
