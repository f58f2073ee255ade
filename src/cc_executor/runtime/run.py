"""One run, seen from outside: start or attach, follow, command, finish. A reader of the journal and a sender of commands; it owns no process."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread

from cc_executor.errors import ControlFailed
from cc_executor.model.event import ApiRetried, Event
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import RunId, RunRequest
from cc_executor.model.state import RunState, advance_all
from cc_executor.policy.redact import Redactor, secret_values
from cc_executor.runtime.control import Status, command, nudges
from cc_executor.runtime.launch import launch, reap
from cc_executor.runtime.reader import JournalReader
from cc_executor.runtime.seal import seal
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder, RunStanding

# A key that is refused stays refused: the CLI alone would try for 180 s (2.1.197 and 2.1.329, recording 03i).
HOPELESS_STATUSES: Final = frozenset({401, 403})
LOOK_AGAIN: Final = 1.0  # seconds; the shim's nudges make this a safety net


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that were read together, and the state after them.

    `position` makes the cursor from which reading goes on after them; it is good until the next batch is asked for.
    """

    events: list[Event]
    state: RunState
    position: Callable[[], JournalReader]


class Run:
    """A run that was started here or anywhere else.

    Use `Run.start` or `Run.attach`, then iterate `follow()` to the end, then `await finish()`. Several may follow the same run.

    Attributes
    ----------
    folder : RunFolder
    request : RunRequest
    state : RunState
        The fold of everything that `follow` has yielded.
    """

    def __init__(self, folder: RunFolder, request: RunRequest, *, redactor: Redactor) -> None:
        self.folder = folder
        self.request = request
        self.state = RunState()
        self._redactor = redactor
        self._gave_up = False

    @property
    def run_id(self) -> RunId:
        """The id by which every door knows the run."""
        return self.folder.run_id

    @classmethod
    async def start(cls, request: RunRequest, *, home: StateHome, environ: Mapping[str, str]) -> Run:
        """Launch `request`; see `cc_executor.runtime.launch.launch` for what can be refused."""
        folder = await launch(request, home=home, environ=environ, pid=os.getpid())
        return cls(folder, request, redactor=Redactor(secret_values(environ)))

    @classmethod
    async def attach(cls, home: StateHome, run_id: str, *, environ: Mapping[str, str]) -> Run:
        """A run by its id, running or ended.

        Raises
        ------
        RunNotFound, StateUnusable
        """
        folder = home.find(run_id)
        return cls(folder, folder.request(), redactor=Redactor(secret_values(environ)))

    async def follow(self) -> AsyncGenerator[Batch]:
        """Everything from the beginning, then what comes, until the run has ended or its supervisor is gone. Folds `state` on the way."""
        reader = JournalReader(self.folder, agent=self.request.agent)
        self.state = RunState()
        async with AsyncExitStack() as stack:
            wake = await self._listen(stack)
            while True:
                events = reader.read()
                if events is not None:
                    if events:
                        yield self._fold(events, reader)
                    await anyio.lowlevel.checkpoint()
                elif reader.exited is not None:
                    break
                elif wake is None or not await _woken(wake):
                    if self.folder.standing(time.time()) is RunStanding.STARTING:
                        await anyio.sleep(LOOK_AGAIN / 20)
                        wake = await self._listen(stack)
                    elif (events := reader.read()) is not None:
                        yield self._fold(events, reader)
                    elif self.folder.standing(time.time()) is RunStanding.RUNNING:
                        await anyio.sleep(LOOK_AGAIN)  # it lives, but does not take our connection: look at the files instead
                    elif reader.exited is None and (rest := reader.close()):
                        yield self._fold(rest, reader)
                        break
                    else:
                        break
        reap()

    async def _listen(self, stack: AsyncExitStack) -> anyio.abc.ByteReceiveStream | None:
        try:
            return await stack.enter_async_context(nudges(self.folder))
        except ControlFailed:
            return None

    def _fold(self, events: list[Event], reader: JournalReader) -> Batch:
        self.state = advance_all(self.state, events)
        return Batch(events, self.state, reader.copy)

    async def refuse_hopeless(self, batch: Batch) -> None:
        """End the run when the agent keeps asking an API that will go on refusing it. Called by the one who owns the run, not by mere watchers."""
        if not self._gave_up and any(isinstance(event, ApiRetried) and event.status in HOPELESS_STATUSES for event in batch.events):
            self._gave_up = True
            with suppress(ControlFailed):  # it has ended by itself meanwhile
                await self.cancel(reason="auth", by="cc_executor")

    async def finish(self) -> Receipt:
        """The sealed receipt. Makes it (checks, outcome, digests) unless there is one already; call it after `follow` has ended."""
        return await seal(self.folder, self.state, redactor=self._redactor, now=time.time())

    def send(self, op: str, **fields: object) -> Status:
        """One command, blocking (a few milliseconds), from any thread. `op`: pause, resume, cancel or status.

        Raises
        ------
        ControlFailed
            The run has ended or does not answer.
        """
        return command(self.folder, op, **fields)

    async def pause(self, *, by: str = "") -> Status:
        """Stop every process of the run; returns when they stand."""
        return await self._ask("pause", by=by)

    async def resume(self, *, by: str = "") -> Status:
        """Let every process of the run go on."""
        return await self._ask("resume", by=by)

    async def cancel(self, *, reason: str = "cancel", by: str = "", now: bool = False) -> Status:
        """Begin to end the run (`now`: without giving it time to clean up). `follow` ends when nothing of it is left."""
        return await self._ask("cancel", reason=reason, by=by, now=now)

    async def status(self) -> Status:
        """What the supervisor says now."""
        return await self._ask("status")

    async def _ask(self, op: str, **fields: object) -> Status:
        return await anyio.to_thread.run_sync(partial(self.send, op, **fields))


async def _woken(stream: anyio.abc.ByteReceiveStream) -> bool:
    """Wait until the journal may have grown. False when the supervisor is gone."""
    with anyio.move_on_after(LOOK_AGAIN):
        try:
            await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return False
    return True
