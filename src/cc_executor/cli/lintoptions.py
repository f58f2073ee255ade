"""The options of `cc-executor run` about its prompt, and what is made of them; `lint` has them, too."""

from __future__ import annotations

from typing import Annotated

import typer

from cc_executor.cli.kept import hint
from cc_executor.errors import InvalidRequest
from cc_executor.model.looked import Looked

Off = Annotated[
    list[str] | None, typer.Option("--lint-off", metavar="IDS", help="Rules that are not asked, comma-separated; all for every one.")
]
Apply = Annotated[
    list[str] | None, typer.Option("--lint-apply", metavar="IDS", help="Put the suggested text of these rules into the prompt.")
]


def looked_over_prompt(
    prompt: str,
    *,
    is_command: bool,
    show: bool,
    apply: list[str] | None,
    off: list[str] | None,
    model: str | None,
    is_checked: bool,
    resumes: bool,
) -> Looked:
    """The prompt of a run as its options want it looked over; what is found is said on standard error."""
    if is_command:
        if show or apply or off:
            raise InvalidRequest("--lint, --lint-apply and --lint-off are for prompts, and this is a command: leave them out.")
        return Looked(prompt)
    from cc_executor.policy.lint import ids_of, looked_over  # here: a command does without the rules

    looked = looked_over(prompt, show=show, apply=ids_of(apply), off=ids_of(off), model=model, is_checked=is_checked, resumes=resumes)
    if looked.said:
        hint(looked.said)
    return looked
