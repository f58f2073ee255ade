"""The runs of a list that somebody else runs, followed for whoever watches it. Reads journals; owns and ends nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Final

import anyio

from cc_executor.errors import CCExecutorError, RunNotFound
from cc_executor.model.listrecord import ListState, TaskStatus
from cc_executor.runtime.run import Batch, Run
from cc_executor.store.home import StateHome

LOOK: Final = 0.2  # seconds between looks for a run that is just being launched
LOOKS: Final = 100

Look = Callable[[ListState], None]


@asynccontextmanager
async def onlooking(home: StateHome, environ: Mapping[str, str], on_batch: Callable[[str, Batch], None]) -> AsyncGenerator[Look]:
    """Gives a function that takes the list's state whenever it may have changed: `on_batch` is told a task's id and what its run has written.

    A run that cannot be followed is not: what there is to know of it stands in the list's journal.
    """
    known: set[str] = set()

    async def follow(task_id: str, run_id: str) -> None:
        with suppress(CCExecutorError):
            run = await _found(home, run_id, environ)
            async with aclosing(run.follow()) as batches:
                async for batch in batches:
                    on_batch(task_id, batch)

    problem: Exception | None = None
    async with anyio.create_task_group() as followers:

        def look(state: ListState) -> None:
            for task_id, task in state.tasks.items():
                if task.status is TaskStatus.RUNNING and task.run_id and task.run_id not in known:
                    known.add(task.run_id)
                    followers.start_soon(follow, task_id, task.run_id)

        try:
            yield look
        except Exception as error:  # noqa: BLE001 - carried out of the task group, which would wrap it
            problem = error
        finally:
            followers.cancel_scope.cancel()
    if problem is not None:
        raise problem


async def _found(home: StateHome, run_id: str, environ: Mapping[str, str]) -> Run:
    """The run. Its id is made known before it is launched, so it may not be there yet."""
    for _ in range(LOOKS):
        with suppress(CCExecutorError):
            return await Run.attach(home, run_id, environ=environ)
        await anyio.sleep(LOOK)
    raise RunNotFound(f"The run {run_id} has not begun.")
