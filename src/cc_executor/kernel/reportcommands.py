"""`%cc report [RUN|LIST] [FILE]`: what there is to tell of a run or of a list; shown, or written to a file whose name says in which form."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cc_executor.errors import InvalidRequest, RunNotFound
from cc_executor.kernel.cell import home_of, sealed
from cc_executor.kernel.options import words_of
from cc_executor.runtime.report import PAGES, TEXTS, Report, report_named
from cc_executor.store.home import StateHome


def report(shell: Any, line: str) -> Report | None:
    """Do what `%cc report line` says.

    Raises
    ------
    InvalidRequest, RunNotFound
    """
    words = words_of(line)
    files = [word for word in words if Path(word).suffix]  # no id has one
    names = [word for word in words if word not in files]
    if len(files) > 1 or len(names) > 1:
        raise InvalidRequest(f"%cc report takes one run or list, and one file that ends in {', '.join((*PAGES, *TEXTS))}.")
    home = home_of(shell)
    name = names[0] if names else ""
    try:
        made = report_named(home, name)
    except RunNotFound as error:
        made = _sealed_first(home, name, error)
    if not files:
        return made
    print(f"Written: {made.save(os.path.expandvars(files[0])).resolve()}")  # noqa: T201 - the command's answer
    return None


def _sealed_first(home: StateHome, name: str, error: RunNotFound) -> Report:
    """The report of a run that has ended without anybody who sealed it; `error` where there is no such run."""
    try:
        folder = home.pick(name)
    except RunNotFound:
        raise error from None
    if folder.receipt() is None and folder.is_at_work():
        raise InvalidRequest(f"Run {folder.run_id} goes on; it can be reported when it has ended.")
    sealed(home, folder.run_id)
    return report_named(home, folder.run_id)
