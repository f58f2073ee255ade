"""What becomes of runs whose supervisor was killed: what is left of them is ended, and their receipts are sealed. Blocking; `reconcile` says when."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from cc_executor.errors import CCExecutorError, StateUnusable
from cc_executor.model.fold import advance_all
from cc_executor.model.state import RunState
from cc_executor.runtime import telemetry
from cc_executor.runtime.checks import Checking, mark_of_check
from cc_executor.runtime.hooks import RunHooks, mark_of_hooks
from cc_executor.runtime.leftovers import end_marked
from cc_executor.runtime.plan import Plan, mark_of
from cc_executor.runtime.reader import replay
from cc_executor.runtime.seal import claimed, fence, redactor_of, seal
from cc_executor.shim import records
from cc_executor.store import roll, underway
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder, RunStanding

logger = logging.getLogger(__name__)


def settle(home: StateHome, *, environ: Mapping[str, str]) -> list[str]:
    """End what is left of lost runs, seal their receipts, and tell their ids. Blocking; not where a loop runs."""
    missing = [home.folder(name) for name in roll.missing(home.root, now=time.time())]
    lost = [folder for folder in missing if fence(folder)]
    # First for all of them, in one look at the process table: their journals may be long.
    end_marked(*(mark_of(folder) for folder in lost if not _keeps(folder)))
    for run_id in underway.noted_runs(home.root):
        _end_abandoned_check(home, run_id)
    for folder in lost:
        try:
            if _was_begun(folder):
                _seal(folder, environ)
            else:
                home.discard(folder.run_id)
        except CCExecutorError as error:  # removed or damaged: there is nothing to be sealed, now or later
            logger.warning("run %s was lost and cannot be sealed: %s", folder.run_id, error)
            if folder.standing(time.time()) is RunStanding.LOST:  # it may have begun at this very moment
                roll.strike(home.root, folder.run_id)
        except Exception:  # whatever is wrong with one run, the others are sealed all the same; who looks at that one is told
            logger.exception("run %s was lost and could not be sealed", folder.run_id)
    return [folder.run_id for folder in lost]


def _end_abandoned_check(home: StateHome, run_id: str) -> None:
    """End the check of a run, or its hook, unless somebody seals that run now: its maker is gone. The run stays as it is, for whoever looks at it."""
    with claimed(home.folder(run_id)) as is_abandoned:
        if is_abandoned:
            end_marked(mark_of_check(run_id), mark_of_hooks(run_id))
            underway.forget(home.root, run_id)


def _keeps(folder: RunFolder) -> bool:
    """Whether the run's request wants what it leaves behind to live on."""
    try:
        return folder.request().keep_background
    except StateUnusable:
        return False


def _was_begun(folder: RunFolder) -> bool:
    """Whether a supervisor came, or could have come.

    A launcher that was killed before left a bare folder, or files that are not whole; whoever removes a run leaves none.
    """
    if folder.size(records.CONTROL) > 0:
        return True
    try:
        folder.request()
        Plan.of(folder)
    except StateUnusable:
        return False
    return True


def _seal(folder: RunFolder, environ: Mapping[str, str]) -> None:
    if folder.standing(time.time()) is not RunStanding.LOST:
        return
    with claimed(folder) as is_free:
        if not is_free:  # whoever seals it may take long or stand still: the other lost runs do not wait for that
            return
    state = RunState()
    for events in replay(folder, agent=folder.request().agent):
        state = advance_all(state, events)
    redactor = redactor_of(environ, folder.path.parent.parent)
    # Not asyncio.run: where nest-asyncio was applied, that one is another, which leaves its loop open.
    with asyncio.Runner() as runner:
        hooks = RunHooks.of(folder, environ=environ, redactor=redactor)
        receipt = runner.run(seal(folder, state, checking=Checking(environ, redactor), redactor=redactor, now=time.time(), hooks=hooks))
    telemetry.tell_soon(folder, receipt, environ=environ, redactor=redactor, is_new=True)
