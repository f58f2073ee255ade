"""Receipts of ended runs that nobody here has followed, made because somebody asks. A check may take minutes, here or elsewhere, and no request waits for it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from cc_executor.model.receipt import Receipt
from cc_executor.runtime.run import Run

PATIENCE: Final = 1.0  # seconds; a receipt takes some milliseconds where nothing is to be checked


class Sealing:
    """Those that are being made now, by the ids of their runs."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[Receipt]] = {}

    async def receipt(self, run: Run) -> Receipt | None:
        """The receipt of an ended run; None if it takes long: it is made all the same, for whoever asks again. Raises as `Run.finish`."""
        task = self._tasks.get(run.run_id)
        if task is None:
            task = self._tasks[run.run_id] = asyncio.get_running_loop().create_task(run.finish(), name=f"cc_executor end of {run.run_id}")
            task.add_done_callback(partial(self._ended, run.run_id))
        await asyncio.wait([task], timeout=PATIENCE)
        return task.result() if task.done() else None

    def _ended(self, run_id: str, task: asyncio.Task[Receipt]) -> None:
        del self._tasks[run_id]
        if not task.cancelled():
            task.exception()  # taken note of: who still waits is told, and who asks again tries again

    async def aclose(self) -> None:
        """The server ends, and its checks with it; whoever asks the next one has them made anew."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
