"""The receipt of a run that has ended, whoever was there to seal it."""

from __future__ import annotations

import os

import anyio.to_thread

from cc_executor.model.receipt import Receipt
from cc_executor.runtime.run import Run
from cc_executor.store.home import StateHome


async def receipt_of(home: StateHome, run_id: str) -> Receipt | None:
    """The sealed receipt of a run; made now if the run has ended and nobody was there to seal it, None while it goes on."""
    run = await Run.attach(home, run_id, environ=os.environ)
    known = await anyio.to_thread.run_sync(run.folder.receipt)
    if known is not None or await anyio.to_thread.run_sync(run.folder.is_at_work):
        return known
    return await run.finish()
