"""The live view of a run, made here for a page whose kernel does not answer. Knows a run and the view's protocol; knows no socket.

The frames are those that a kernel sends (`cc_executor.wire.feed`), made from the journal. The first is a reset: a view that changes over gets everything
anew, as after a lost message, so that nothing can be there twice or be missing, wherever the kernel had stopped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Final

from cc_executor.errors import CCExecutorError, StateUnusable
from cc_executor.model.bundle import static_bundle
from cc_executor.model.care import LoopGuard
from cc_executor.model.fold import advance_all
from cc_executor.model.item import Level
from cc_executor.model.receipt import Receipt
from cc_executor.model.state import RunState
from cc_executor.runtime.reader import JournalReader
from cc_executor.runtime.run import Batch, Run
from cc_executor.runtime.runpage import RunPage
from cc_executor.runtime.workspace import remark
from cc_executor.store.bundle import read_bundle, write_bundle
from cc_executor.store.hooklog import HookLog
from cc_executor.store.journal import RunFolder, RunStanding
from cc_executor.wire.feed import ViewFeed
from cc_executor.wire.pace import EVERYBODY, PacedFeed

logger = logging.getLogger(__name__)

LOOK: Final = 0.1  # seconds between looks at a journal that grows
READING: Final = 0.05  # seconds of reading before what is due is sent
CATCHING_UP: Final = 5.0  # seconds in which a long journal is read before the first frame; then what there is is shown

Frame = tuple[dict[str, Any], bytes]


class Outbox:
    """Frames of a feed, on their way to one page."""

    def __init__(self) -> None:
        self._frames: deque[Frame] = deque()

    def put(self, content: dict[str, Any], buffers: list[bytes]) -> None:
        """What the feed sends by."""
        self._frames.append((content, buffers[0]))

    async def taken(self, feed: PacedFeed) -> AsyncGenerator[Frame]:
        """What there is. A frame that was taken is acknowledged: whoever carries it on waits for the page."""
        while self._frames:
            content, body = self._frames.popleft()
            yield content, body
            if content.get("ask"):
                feed.on_message({"op": "ack", "seq": content["seq"]})


def stands(folder: RunFolder) -> RunStanding:
    """What the files say of a run. Blocking. Raises `StateUnusable` where something else stands in the place of its lock, for whoever asks to be told."""
    try:
        return folder.standing(time.time())
    except OSError as error:
        raise StateUnusable(f"{folder.path} cannot be read: {error.strerror}.") from error


class Watch:
    """One view of one run.

    Parameters
    ----------
    run : Run
        Attached here; it is read from its beginning.
    receipt : callable
        Gives the run's receipt, sealed now if need be; None while it goes on.
    """

    def __init__(self, run: Run, *, receipt: Callable[[], Awaitable[Receipt | None]]) -> None:
        self._run = run
        self._receipt = receipt
        self._page = RunPage(run)
        self._reader = JournalReader(run.folder, agent=run.request.agent, guards=run.request.loop_guard is not LoopGuard.OFF)
        self._state = RunState()
        self._outbox = Outbox()
        self._feed = ViewFeed(self._page.transcript, self._outbox.put, read_page=self._page.read_page, run_id=run.run_id)
        self._feed.on_message({"op": "sync", "view": EVERYBODY})
        self._asked = asyncio.Event()

    def page(self, view: str, before: int) -> None:
        """Ask for older lines; they come among the frames."""
        self._feed.on_message({"op": "page", "view": view, "before": before})
        self._asked.set()

    def answer(self, said: Mapping[str, object]) -> None:
        """Answer a question of the agent, as `RunPage.answer`. Blocking."""
        self._page.answer(said)

    async def frames(self) -> AsyncGenerator[Frame]:
        """What the view is to be sent, for as long as it is asked for; the next one is made when the last has been taken."""
        if said := await asyncio.to_thread(remark, self._run.folder):
            self._page.transcript.note(said, level=Level.WARN)
        begun = time.monotonic()
        is_shown = False
        while not await asyncio.to_thread(self._has_ended):
            is_behind = await asyncio.to_thread(self._read)
            is_shown = is_shown or not is_behind or time.monotonic() - begun > CATCHING_UP
            if is_shown:
                async for frame in self._due():
                    yield frame
            if not is_behind:
                await asyncio.sleep(LOOK)
        await asyncio.to_thread(self._tell)
        sealing = asyncio.get_running_loop().create_task(self._sealed(), name=f"cc_executor end of {self._run.run_id}")
        try:
            while not sealing.done():
                async for frame in self._due():
                    yield frame
                await asyncio.wait([sealing], timeout=LOOK)
            said = sealing.result()
        finally:
            sealing.cancel()
        await asyncio.to_thread(self._tell, said)
        await asyncio.to_thread(self._feed.finish, time.monotonic())
        while True:  # older lines can be asked for as long as somebody looks
            async for frame in self._due():
                yield frame
            if self._feed.is_settled:
                await self._asked.wait()
                self._asked.clear()
            else:
                await asyncio.sleep(LOOK)

    async def _due(self) -> AsyncGenerator[Frame]:
        await asyncio.to_thread(self._feed.tick, time.monotonic())
        async for frame in self._outbox.taken(self._feed):
            yield frame

    def _read(self) -> bool:
        """Read on for a while; whether there is more."""
        until = time.monotonic() + READING
        while (events := self._reader.read()) is not None:
            self._fold(events)
            if time.monotonic() > until:
                break
        self._tell()
        return events is not None

    def _tell(self, detail: str = "") -> None:
        self._feed.show(self._page.status(self._state, detail=detail), time.monotonic())

    def _fold(self, events: list[Any]) -> None:
        if events:
            self._run.state = self._state = advance_all(self._state, events)
            self._page.apply(Batch(events, self._state, self._reader.copy))

    def _has_ended(self) -> bool:
        """Whether everything was read that there will ever be."""
        if self._reader.exited is not None:
            return True
        folder = self._run.folder
        if stands(folder) in {RunStanding.STARTING, RunStanding.RUNNING} or folder.is_supervised():
            return False
        while (events := self._reader.read()) is not None:  # looked at after its supervisor: what is not there now will never be
            self._fold(events)
        self._fold(self._reader.close())
        return True

    async def _sealed(self) -> str:
        """How it ended, in words, once there is a receipt; its last view is kept with it for the notebook, unless the kernel has done that.

        Checks and hooks are for whoever started the run, in their environment, or for somebody who asks for the receipt: looking on makes nothing happen.
        """
        folder = self._run.folder
        is_owed = self._run.request.verify is not None or HookLog(folder.path).exists()
        while (receipt := await asyncio.to_thread(folder.receipt)) is None:
            try:
                if not is_owed and (receipt := await self._receipt()) is not None:
                    break
            except CCExecutorError as error:
                return f"ended; {error}"
            await asyncio.sleep(LOOK)  # somebody else is about to seal it
        if await asyncio.to_thread(read_bundle, folder) is None:
            try:
                await asyncio.to_thread(write_bundle, folder, static_bundle(receipt, self._page.transcript))
            except StateUnusable:  # the receipt is there, and a notebook shows that
                logger.warning("the view of run %s could not be kept", folder.run_id, exc_info=True)
        return f"{receipt.outcome.kind.value}: {receipt.outcome.summary}"
