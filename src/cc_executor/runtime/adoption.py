"""The run of somebody who is dead: taken over, or known never to have begun. Its supervisor lives on by itself, if it ever came."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

import anyio

from cc_executor.errors import RunNotFound, StateUnusable
from cc_executor.runtime.errand import in_thread
from cc_executor.runtime.plan import Plan
from cc_executor.runtime.run import Run
from cc_executor.runtime.seal import fence
from cc_executor.shim import records
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunStanding

LATE: Final = 5.0  # seconds that a supervisor gets to appear, of which 30 ms are enough; its launcher is dead, and can give it nothing more
LOOK: Final = 0.05


async def adopted(home: StateHome, run_id: str, *, environ: Mapping[str, str]) -> Run | None:
    """The run, whose launcher is dead; None when it was never launched, and now never will be.

    Raises
    ------
    StateUnusable
        It was begun, and what it left cannot be read.
    """
    folder = home.folder(run_id)
    with anyio.move_on_after(LATE):
        while folder.standing(time.time()) is RunStanding.STARTING:  # noqa: ASYNC110 - files, which have no event
            await anyio.sleep(LOOK)
    if folder.standing(time.time()) is RunStanding.STARTING:
        await in_thread(lambda: fence(folder))
    try:
        run = await Run.attach(home, run_id, environ=environ)
        Plan.of(folder)
    except RunNotFound:
        return None
    except StateUnusable:
        if folder.size(records.CONTROL):
            raise
        # The launcher was killed in the midst of writing what comes before there is a supervisor.
        await in_thread(lambda: home.discard(folder.run_id))
        return None
    return run
