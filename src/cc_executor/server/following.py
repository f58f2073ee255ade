"""The runs that a server sees through to their receipts, and what is known of them meanwhile. Owns none of them: they go on without it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing, nullcontext
from typing import Any, Final

import msgspec

from cc_executor.errors import CCExecutorError
from cc_executor.model.receipt import Receipt
from cc_executor.model.state import RunState
from cc_executor.runtime.run import Run
from cc_executor.server.attendance import Attend

logger = logging.getLogger(__name__)

TEXT_TAIL: Final = 4000  # characters of a running agent's text in its status


class Followed(msgspec.Struct):
    """A run that goes on, as far as its events have been read."""

    run: Run
    attend: Attend | None
    state: RunState = msgspec.field(default_factory=RunState)
    task: asyncio.Task[None] | None = None

    def words(self) -> dict[str, Any]:
        """What a status says of it."""
        state = self.state
        return {
            "phase": state.phase.value,
            "model": state.model,
            "tool": state.running_tools[-1].name if state.running_tools else "",
            "input_tokens": state.usage.input_tokens,
            "output_tokens": state.usage.output_tokens,
            "cost": state.cost,
            "text": state.text[-TEXT_TAIL:],
        }


class Following:
    """All of them, by id.

    Parameters
    ----------
    sealed : callable
        Is given every receipt that was sealed here.
    over : callable
        Is called when a run is followed no more.
    """

    def __init__(self, *, sealed: Callable[[Run, Receipt], object], over: Callable[[], object]) -> None:
        self._sealed = sealed
        self._over = over
        self._runs: dict[str, Followed] = {}

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._runs

    def get(self, run_id: str) -> Followed | None:
        """One of them."""
        return self._runs.get(run_id)

    def runs(self) -> list[Run]:
        """All of them, as they are now; from any thread."""
        return [followed.run for followed in tuple(self._runs.values())]

    def take(self, run: Run, attend: Attend | None = None) -> None:
        """See a run through to its receipt."""
        followed = self._runs[run.run_id] = Followed(run, attend)
        followed.task = asyncio.get_running_loop().create_task(self._whole(followed), name=f"cc_executor {run.run_id}")

    async def aclose(self) -> None:
        """Let go of all; they go on."""
        tasks = [followed.task for followed in self._runs.values() if followed.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _whole(self, followed: Followed) -> None:
        run = followed.run
        try:
            async with followed.attend(run) if followed.attend else nullcontext() as attendant, aclosing(run.follow()) as batches:
                async for batch in batches:
                    followed.state = batch.state
                    await run.refuse_hopeless(batch)
                    if attendant is not None:
                        await attendant.attend(batch)
            self._sealed(run, await run.finish())
        except CCExecutorError as error:
            logger.warning("run %s could not be followed to its end: %s", run.run_id, error)
        except Exception:  # root of a task: the run goes on by itself, and whoever asks for its results is told
            logger.exception("run %s could not be followed to its end", run.run_id)
        finally:
            self._runs.pop(run.run_id, None)
            self._over()
