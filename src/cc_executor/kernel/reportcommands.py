"""`%cc report [RUN|LIST] [FILE]`: what there is to tell of a run or of a list; shown, or written to a file whose name says in which form."""

from __future__ import annotations

import os
import shlex
from typing import Any

from cc_executor.errors import InvalidRequest, RunNotFound
from cc_executor.kernel.cell import home_of, sealed
from cc_executor.runtime.report import Report, report_named
from cc_executor.store.home import StateHome

_ENDINGS = (".html", ".htm", ".md", ".markdown")


def report(shell: Any, line: str) -> Report | None:
    """Do what `%cc report line` says.

    Raises
    ------
    InvalidRequest, RunNotFound
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise InvalidRequest(f"This cannot be split into words ({str(error).lower()}). Close the quotes.") from error
    files = [word for word in words if word.lower().endswith(_ENDINGS)]
    names = [word for word in words if word not in files]
    if len(files) > 1 or len(names) > 1:
        raise InvalidRequest("%cc report takes one run or list, and one file that ends in .html or .md.")
    home = home_of(shell)
    name = names[0] if names else ""
    try:
        made = report_named(home, name)
    except RunNotFound:
        made = _sealed_first(home, name)
    if not files:
        return made
    print(f"Written: {made.save(os.path.expandvars(files[0])).resolve()}")  # noqa: T201 - the command's answer
    return None


def _sealed_first(home: StateHome, name: str) -> Report:
    """The report of a run that has ended without anybody who sealed it."""
    folder = home.pick(name)
    if folder.receipt() is None and folder.is_supervised():
        raise InvalidRequest(f"Run {folder.run_id} goes on; it can be reported when it has ended.")
    sealed(home, folder.run_id)
    return report_named(home, folder.run_id)
