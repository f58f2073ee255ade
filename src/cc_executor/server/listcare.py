"""Seeing task lists through to their ends: a runner that is killed is followed by another one. Knows runners and journals; knows no owner's rights."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from cc_executor.errors import CCExecutorError
from cc_executor.model.listrecord import NOT_OVER, Closed, ListState, ListStatus
from cc_executor.model.tasklist import TaskList
from cc_executor.runtime.detached import LOG, start_runner
from cc_executor.store.tasklists import ListFolder

logger = logging.getLogger(__name__)

LOOK: Final = 0.5  # seconds between looks
WAITS: Final = (0.0, 1.0, 10.0)  # seconds after each runner that died before the next; after these the list is left alone, and says so
LOG_TAIL: Final = 2000  # bytes


class Kept(msgspec.Struct):
    """A list whose end is owed to somebody."""

    folder: ListFolder
    tasks: TaskList
    owner: str
    state: ListState = msgspec.field(default_factory=ListState)
    runner: subprocess.Popen[bytes] | None = None
    task: asyncio.Task[None] | None = None
    started: int = 0  # runners since a task has come to its end
    asked: int = 0  # how often somebody has wanted it seen through
    not_before: float = 0.0
    _offset: int = 0
    _over: int = 0
    _reading: threading.Lock = msgspec.field(default_factory=threading.Lock)

    def look(self) -> bool:
        """Read what is new, and tell whether somebody runs the list. Blocking, from any thread."""
        with self._reading:
            return self._look()

    def _look(self) -> bool:
        if self.runner is not None and self.runner.poll() is not None:
            self.runner = None
        is_run = self.folder.is_run() or self.runner is not None  # asked before the journal: who runs it no more has written all
        self.state, self._offset = self.folder.advanced(self.state, self._offset)
        over = sum(known.status not in NOT_OVER for known in self.state.tasks.values())
        if over != self._over:
            self._over, self.started = over, 0
        return is_run

    def start(self, environ: Mapping[str, str]) -> None:
        """Start a process that runs the list. Blocking. Raises `StateUnusable`, `LaunchFailed`."""
        self.not_before = time.monotonic() + WAITS[min(self.started, len(WAITS) - 1)]
        self.started += 1
        self.runner = start_runner(self.folder, environ=environ)

    @property
    def is_wanted(self) -> bool:
        """Whether somebody should run it: it is open, nobody holds it, and its runners do not die without end."""
        state = self.state
        return state.status is ListStatus.OPEN and (state.is_stopped or not state.is_paused) and not self.is_given_up

    @property
    def is_given_up(self) -> bool:
        """Whether its runners have died too often."""
        return self.started > len(WAITS)

    def complaint(self) -> str:
        """Why nobody runs it; empty while somebody should."""
        if not self.is_given_up or self.folder.is_run():
            return ""
        lines = _tail(self.folder.path / LOG).splitlines()
        last = f" Its last word: {lines[-1]}" if lines else ""
        return f"Whoever ran this list has died {self.started} times, and no task came to its end.{last} The command resume starts it once more."


class Care:
    """The lists that one server sees through.

    Parameters
    ----------
    environ : mapping of str to str
        The environment to choose the agents' from.
    owner_of : callable
        Who started a list through a server.
    """

    def __init__(self, environ: Mapping[str, str], owner_of: Callable[[str], str | None]) -> None:
        self._environ = environ
        self._owner_of = owner_of
        self.kept: dict[str, Kept] = {}
        self._taking = asyncio.Lock()  # two who take the same list at once would start two runners

    async def take(self, folder: ListFolder, *, starts: bool = False) -> None:
        """See a list through to its end from now on; those that are seen through already get as many runners again. `starts`: begin at once.

        Raises
        ------
        StateUnusable, LaunchFailed
            Nobody could be started who runs the list, and nobody will be.
        """
        async with self._taking:
            await self._take(folder, starts=starts)

    async def _take(self, folder: ListFolder, *, starts: bool) -> None:
        found = self.kept.get(folder.list_id)
        if found is None:
            found = self.kept[folder.list_id] = Kept(folder, await asyncio.to_thread(folder.tasks), self._owner_of(folder.list_id) or "")
        found.started, found.not_before = 0, 0.0
        found.asked += 1
        if starts and found.task is None:
            try:
                if not await asyncio.to_thread(found.look):
                    await asyncio.to_thread(found.start, self._environ)
            except BaseException:
                self.kept.pop(folder.list_id, None)
                # Else a later server would start what its owner was told could not be.
                with suppress(CCExecutorError):
                    folder.append(Closed(at=time.time(), status=ListStatus.STOPPED, summary="nobody could be started who runs it"))
                raise
        if found.task is None:
            found.task = asyncio.get_running_loop().create_task(self._whole(found), name=f"cc_executor list {folder.list_id}")

    async def _whole(self, kept: Kept) -> None:
        try:
            while True:
                asked = kept.asked
                is_run = await asyncio.to_thread(kept.look)
                # Not asked for during the look: else it may have been opened anew.
                if not is_run and kept.state.status is not ListStatus.OPEN and kept.asked == asked:
                    return
                if not is_run and kept.is_wanted and time.monotonic() >= kept.not_before:
                    with suppress(CCExecutorError):  # counted like one that died
                        await asyncio.to_thread(kept.start, self._environ)
                await asyncio.sleep(LOOK)
        except CCExecutorError as error:
            logger.warning("list %s could not be followed to its end: %s", kept.folder.list_id, error)
        except Exception:  # root of a task: the list goes on, and who asks for it is told how it stands
            logger.exception("list %s could not be followed to its end", kept.folder.list_id)
        finally:
            self.kept.pop(kept.folder.list_id, None)

    async def aclose(self) -> None:
        """Let go of all lists; they go on."""
        tasks = [kept.task for kept in self.kept.values() if kept.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL))
            return file.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""
