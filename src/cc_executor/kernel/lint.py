"""`%cc lint`: what may be wrong with a prompt, or with that of the next cell, which then starts nothing. Asks the rules; changes nothing."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, Final

from cc_executor.errors import InvalidRequest
from cc_executor.kernel.config import CCExecutor, settings_of
from cc_executor.model.looked import Looked
from cc_executor.model.request import SURELY_FITS

_WISH: Final = "_cc_executor_lint_next"


def lint_verb(shell: Any, text: str) -> None:
    """Do what `%cc lint TEXT` says; without a text, look over the next cell."""
    if text:
        from cc_executor.policy import tokens
        from cc_executor.policy.lint import lint, report

        settings = settings_of(shell)
        found = lint(text, model=settings.model, names=shell.user_ns, off=settings.lint_off)
        print(report(found, tokens.count(text, settings.model)))  # noqa: T201 - the command's answer
        return
    setattr(shell, _WISH, True)
    print("The next %%cc_execute cell will be looked over, and not started.")  # noqa: T201 - as above


def is_only_linted(shell: Any) -> bool:
    """Whether the cell that runs now is the one that `%cc lint` meant."""
    return bool(getattr(shell, _WISH, False))


def forget_wish(shell: Any) -> None:
    """The cell that `%cc lint` meant was looked over; the next one starts its run again."""
    setattr(shell, _WISH, False)


def looked_over_cell(
    prompt: str, options: argparse.Namespace, *, settings: CCExecutor, namespace: Mapping[str, Any], is_asked: bool
) -> Looked:
    """A cell's prompt as its options want it looked over.

    Parameters
    ----------
    is_asked : bool
        Show what is found, whatever the options say.

    Raises
    ------
    InvalidRequest
        There is no such rule, it has no text to put in, or the cell is a command.
    """
    names_rules = options.lint_apply or options.lint_off or settings.lint_off
    if not (options.lint or is_asked or names_rules or len(prompt) > SURELY_FITS):
        return Looked(prompt)
    from cc_executor.policy.lint import ids_of, looked_over  # here: the rules take 10 ms, and most cells ask none of them

    apply = ids_of(options.lint_apply)
    if (options.agent or settings.agent) != "claude":
        if options.lint or apply or options.lint_off:
            raise InvalidRequest("--lint, --lint-apply and --lint-off are for prompts, and this cell is a command: leave them out.")
        return Looked(prompt, said="Lint: this cell is a command, and no prompt; it was not started." if is_asked else "")
    return looked_over(
        prompt,
        show=options.lint or is_asked,
        apply=apply,
        off=(*settings.lint_off, *ids_of(options.lint_off)),
        model=options.model or settings.model,
        is_checked=bool(options.verify or options.expect),
        names=namespace,
        resumes=options.resume is not None,
    )
