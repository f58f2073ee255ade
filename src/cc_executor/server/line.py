"""Who is next: starts the runs that wait, each owner's in their order, when there is room. Knows the queue and admission; launches by what it is given."""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Final

from cc_executor.errors import CCExecutorError, ControlFailed, StateUnusable
from cc_executor.model.request import RunId, RunRequest
from cc_executor.runtime.run import Run
from cc_executor.runtime.telemetry import within
from cc_executor.server.owners import Owners
from cc_executor.server.policy import RESERVED, TOO_MANY, Admission
from cc_executor.server.queue import Queue, Waiting, has_waited_too_long
from cc_executor.server.refusal import Refused
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder

logger = logging.getLogger(__name__)

WAITS: Final = frozenset({TOO_MANY, RESERVED})  # reasons that pass when another run ends
LOOK: Final = 2.0  # seconds; runs that this server does not follow end, too (those of kernels)
END_BUDGET: Final = 4.0  # seconds for a launch that is under way when the server ends; jupyter_server's patience is 5

Start = Callable[[RunRequest, RunId], Awaitable[Run]]


class Line:
    """The queue, and what moves it.

    Parameters
    ----------
    home : StateHome
    owners : Owners
    admission : Admission
    start : callable
        Launches a run under its id.
    """

    def __init__(self, home: StateHome, owners: Owners, admission: Admission, *, start: Start) -> None:
        self.queue = Queue(home, owners, admission.rules.queued)
        self.refused: Callable[[Waiting, str], object] = lambda entry, kind: None
        self._home = home
        self._admission = admission
        self._start = start
        self._bell = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_closing = False

    @property
    def is_moving(self) -> bool:
        """Whether something waits."""
        return self._task is not None and not self._task.done()

    async def has_to_wait(self, who: str) -> bool:
        """Whether somebody's next run has to stand behind others, whatever is at work."""
        return bool(await asyncio.to_thread(self.queue.of, who))

    async def add(self, run_id: RunId, request: RunRequest, who: str) -> None:
        """Let a run wait. Raises as `Queue.add`."""
        await self.queue.add(run_id, request, who)
        self.look()

    async def resume(self) -> None:
        """Go on with what waited when the last server ended."""
        await asyncio.to_thread(self.queue.sweep)
        self.look()

    def look(self) -> None:
        """Something may have changed."""
        self._bell.set()
        if not self.is_moving and not self._is_closing and self.queue.is_used:
            self._task = asyncio.get_running_loop().create_task(self._walk(), name="cc_executor queue")

    async def aclose(self) -> None:
        """Start nothing more. A launch that is under way is waited for, a moment: cancelled, it would end the run."""
        self._is_closing = True
        self._bell.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=END_BUDGET)

    async def withdrawn(self, entry: Waiting, op: str) -> bool:
        """Command a run that waits: it can be cancelled. False: it is just being started, and can take any command.

        Raises
        ------
        ControlFailed
        """
        if not entry.is_over:
            if op not in {"cancel", "kill"}:
                raise ControlFailed(f"The run waits for its turn, and there is nothing to {op} yet. It can be cancelled.")
            why = "It was cancelled while it waited for its turn."
            if await asyncio.to_thread(self.queue.withdraw, entry, status="cancelled", why=why):
                return True
            known = await asyncio.to_thread(self.queue.find, entry.run_id)
            if known is None or not known.is_over:
                return False
            entry = known  # somebody was faster
        raise ControlFailed(f"The run was never started: {entry.why}")

    def among(self, runs: Iterator[RunFolder]) -> Iterable[RunFolder | Waiting]:
        """All runs, newest first, with those that wait and those that were never started. Blocking."""
        if not self.queue.is_used:
            return runs
        others = sorted([*self.queue.entries(), *self.queue.over()], key=lambda entry: entry.run_id, reverse=True)
        return heapq.merge(runs, others, key=lambda each: str(each.run_id), reverse=True)

    async def _walk(self) -> None:
        while not self._is_closing:
            self._bell.clear()
            try:
                entries = await asyncio.to_thread(self.queue.entries)
                if not entries and not self._bell.is_set():
                    return
                await self._step(entries)
            except Exception:  # root of a task: those who wait go on waiting, and the log says why
                logger.exception("the queue could not be moved")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._bell.wait(), LOOK)

    async def _step(self, entries: list[Waiting]) -> None:
        stuck: set[str] = set()
        for entry in entries:
            if entry.owner in stuck or self._is_closing:
                continue
            try:
                await self._begin(entry)
            except Refused as refused:
                if refused.kind in WAITS:
                    stuck.add(entry.owner)
                else:
                    await self._drop(entry, refused.kind, str(refused))
            except StateUnusable as error:  # a full disk, mostly: it waits until there is room
                stuck.add(entry.owner)
                logger.info("run %s could not be started yet: %s", entry.run_id, error)
            except CCExecutorError as error:
                await self._drop(entry, type(error).__name__, str(error))

    async def _begin(self, entry: Waiting) -> None:
        if not await asyncio.to_thread(self.queue.is_wanted, entry):
            return
        if has_waited_too_long(entry, time.time()):
            raise Refused(409, "WaitedTooLong", "It has waited for a day. Ask again if it is still wanted.")
        request = self._admission.rules.applied(await asyncio.to_thread(self.queue.request, entry))  # the rules may have changed meanwhile
        bounded = await self._admission.reserve(entry.run_id, request, entry.owner)
        try:
            with within(entry.trace):  # not of the request whose end has made room
                run = await self._start(bounded, entry.run_id)
        except StateUnusable:
            if not self._home.folder(entry.run_id).path.exists():
                raise
            return  # another server of this state folder has started it, and says so: an id starts one run
        finally:
            self._admission.release(entry.run_id)
        if not await asyncio.to_thread(self.queue.started, entry):
            with suppress(ControlFailed):  # it has ended by itself
                await run.cancel(by="server")

    async def _drop(self, entry: Waiting, kind: str, why: str) -> None:
        if await asyncio.to_thread(self.queue.withdraw, entry, status="refused", why=why):
            self.refused(entry, kind)


def never_started(entry: Waiting) -> dict[str, Any]:
    """The results of a run that was never started, in the form of those that were."""
    nothing: dict[str, Any] = {"cure": "", "text": "", "data": None, "files": [], "cost": None, "usage": {}, "standing": "", "digest": ""}
    return {"id": entry.run_id, "done": True, "status": entry.status, "summary": entry.why, **nothing}
