"""A stream of a run as it grows, looked at and read once for all who watch it. Knows the files of runs and the loop; knows no tornado.

Each watcher goes at its own speed. Those that keep up ask for the same bytes at the same time, and get the same piece; one that has fallen behind has its own
pieces read, so that it costs a piece of memory and nobody else any time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from cc_executor.errors import CCExecutorError, RunNotFound, StateUnusable
from cc_executor.server.pieces import PIECE, Piece, shown
from cc_executor.server.queue import Waiting
from cc_executor.shim import records
from cc_executor.store.journal import RunFolder, RunStanding

logger = logging.getLogger(__name__)

LOOK: Final = 0.02  # seconds between looks: a fifth of what somebody who watches would call late
KEPT: Final = 16  # pieces that the next ones may ask for: 1 MiB of output
GRID: Final = PIECE // 2  # pieces end here where they can, so that those who began at different bytes soon ask for the same


Waits = Callable[[str], Waiting | None]


class Told(msgspec.Struct, frozen=True):
    """A piece as it is sent: a JSON object (`shown`), and where the next one begins."""

    text: bytes
    next_offset: int


class Tail:
    """One stream of one run.

    Attributes
    ----------
    size : int
        Bytes that were there at the last look.
    has_ended : bool
        Whether there will be no more.
    """

    def __init__(self, folder: RunFolder, stream: str, waiting: Waits) -> None:
        self.size = 0
        self.has_ended = False
        self.watchers = 0
        self._folder = folder
        self._stream = stream
        self._waiting = waiting
        self._has_run = False
        self._news = asyncio.Event()
        self._problem: CCExecutorError | None = None
        self._reading = asyncio.Lock()
        self._kept: OrderedDict[int, Told] = OrderedDict()
        self._looking = asyncio.get_running_loop().create_task(self._look(), name=f"cc_executor tail of {folder.run_id}")

    def close(self) -> None:
        """Look no more."""
        self._looking.cancel()

    async def news(self, within: float) -> bool:
        """Wait until there is more, or no more to come; False when there was nothing for `within` seconds.

        Raises
        ------
        CCExecutorError
            The run's folder is gone, or cannot be read.
        """
        try:
            async with asyncio.timeout(within):
                await self._news.wait()
        except TimeoutError:
            return False
        if self._problem is not None:
            raise self._problem
        return True

    async def piece(self, offset: int) -> Told:
        """What was written from `offset` on, which is less than `size`: `PIECE` bytes at most.

        Raises
        ------
        StateUnusable
            It cannot be read any more.
        """
        if (told := self._kept.get(offset)) is None:
            async with self._reading:  # one reads for all who wait for the same
                if (told := self._kept.get(offset)) is None:
                    told = await asyncio.to_thread(self._read, offset)
                    self._kept[offset] = told
                    if len(self._kept) > KEPT:
                        self._kept.popitem(last=False)
        return told

    def _read(self, offset: int) -> Told:
        data = self._folder.read(self._stream, offset, PIECE - offset % GRID)
        if not data:
            raise StateUnusable(f"{self._folder.path / self._stream} has become shorter.")
        piece = shown(Piece(offset, data, is_last=self.has_ended and offset + len(data) >= self.size))
        return Told(json.dumps(piece).encode(), piece["next_offset"])

    async def _look(self) -> None:
        try:
            while not self.has_ended:
                size, has_ended = await asyncio.to_thread(self._seen)
                if size > self.size or has_ended:
                    self.size, self.has_ended = size, has_ended
                    said, self._news = self._news, asyncio.Event()
                    said.set()
                await asyncio.sleep(LOOK)
        except CCExecutorError as error:
            self._fail(error)
        except Exception:  # root of a task: those who watch are told
            logger.exception("a stream of run %s cannot be watched", self._folder.run_id)
            self._fail(StateUnusable(f"{self._folder.path} cannot be read."))

    def _fail(self, problem: CCExecutorError) -> None:
        self._problem = problem
        self._news.set()

    def _seen(self) -> tuple[int, bool]:
        if not self._folder.path.exists() and (entry := self._waiting(self._folder.run_id)) is not None:
            return 0, entry.is_over
        if not self._folder.path.exists():
            raise RunNotFound("There is no such execution.")
        standing = self._folder.standing(time.time())
        self._has_run = self._has_run or standing is RunStanding.RUNNING
        if self._has_run and standing is RunStanding.LOST and not (self._folder.path / records.LOCK).exists():
            raise RunNotFound("There is no such execution.")  # its folder is being removed: that is no end of the run
        has_ended = standing not in {RunStanding.STARTING, RunStanding.RUNNING}
        return self._folder.size(self._stream), has_ended  # after the end was seen the last bytes are in


class Tails:
    """Those that are watched now.

    Parameters
    ----------
    waiting : callable
        A run that waits for its turn, or was never started; None for every other. Blocking.
    """

    def __init__(self, waiting: Waits) -> None:
        self._waiting = waiting
        self._open: dict[tuple[str, str], Tail] = {}

    @asynccontextmanager
    async def watching(self, folder: RunFolder, stream: str) -> AsyncGenerator[Tail]:
        """The tail of a stream, which all who watch it at the same time share."""
        key = (str(folder.run_id), stream)
        tail = self._open.get(key)
        if tail is None:
            tail = self._open[key] = Tail(folder, stream, self._waiting)
        tail.watchers += 1
        try:
            yield tail
        finally:
            tail.watchers -= 1
            if not tail.watchers:
                del self._open[key]
                tail.close()

    def close(self) -> None:
        """The server ends."""
        for tail in self._open.values():
            tail.close()
