"""The options that say who is told of a run or a list, the same for both commands."""

from __future__ import annotations

from typing import Annotated, Any

import typer

Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--notify", metavar="TARGET", help="Whom to tell of the end and of questions: command:…, an https address, env:NAME; repeatable."
    ),
]
After = Annotated[
    float | None, typer.Option("--notify-after", metavar="SECONDS", help="Of what took less nobody is told; 30 if not given.")
]
On = Annotated[
    str | None, typer.Option("--notify-on", metavar="LIST", help="What of: done, failed, input, comma-separated; all if not given.")
]


def given(targets: list[str] | None, after: float | None, on: str | None) -> dict[str, Any]:
    """The options as `take_notify` takes them."""
    return {"notify": targets, "notify_after": after, "notify_on": on}
