"""The live view of a task list, made here for a page whose kernel does not answer. Knows a list and the view's protocol; knows no socket.

As `cc_executor.server.watch` for a run: the frames are those that a kernel sends (`cc_executor.wire.taskfeed`), made from the list's journal and those of
its runs, and the first is a reset. A run that somebody opens in the list is watched like any other run.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final

from cc_executor.listpage import ListPage, keep_table
from cc_executor.model.listrecord import NOT_OVER, ListState, ListStatus, TaskStatus
from cc_executor.model.taskcard import list_bundle
from cc_executor.model.tasklist import TaskKind, TaskList
from cc_executor.runtime.onlooker import onlooking
from cc_executor.server.watch import LOOK, Frame, Outbox
from cc_executor.store.home import StateHome
from cc_executor.store.notebook import stored_list_bundles
from cc_executor.store.tasklists import ListFolder
from cc_executor.taskcommands import TaskCommands
from cc_executor.wire.pace import EVERYBODY
from cc_executor.wire.taskfeed import TaskFeed

logger = logging.getLogger(__name__)

GONE: Final = "Nobody runs this list now: the kernel that ran it is gone."
GOES_ON: Final = "What had begun goes on by itself, nothing further is begun."
WAS_STOPPED: Final = "It was being stopped: Stop ends what still runs."
CONTINUE: Final = "Continue has this server run the rest."
NOT_HERE: Final = "{what} in the notebook: run the cell again, and what ended well is not done again."


class ListWatch:
    """One view of one list.

    Parameters
    ----------
    folder : ListFolder
    tasks : TaskList
    home : StateHome
    environ : mapping of str to str
        Of the server.
    why_alone : callable
        Given the state of a list that nobody runs, says in a sentence why; empty while somebody is about to. Blocking.
    """

    def __init__(
        self, folder: ListFolder, tasks: TaskList, home: StateHome, *, environ: Mapping[str, str], why_alone: Callable[[ListState], str]
    ) -> None:
        self._folder = folder
        self._tasks = tasks
        self._home = home
        self._environ = environ
        self._why_alone = why_alone
        self._state = ListState()
        self._offset = 0
        self._page = ListPage(folder, tasks, home)
        self._commands = TaskCommands(folder, tasks, home)
        self._outbox = Outbox()
        self._feed = TaskFeed(self._page.board, self._outbox.put, wall=time.time)
        self._feed.on_message({"op": "sync", "view": EVERYBODY})

    def detail(self, task: str) -> dict[str, Any]:
        """What an opened row shows, as `TaskCommands.detail`. Blocking."""
        return self._commands.detail(task)

    async def frames(self) -> AsyncGenerator[Frame]:
        """What the view is to be sent, for as long as it is asked for; the next one is made when the last has been taken."""
        await self._look()
        await self._page.read_receipts()
        await self._page.expect()
        # In a task of its own: its group of followers must not be left in the midst of a frame.
        following = asyncio.get_running_loop().create_task(self._follow(), name=f"cc_executor view of list {self._folder.list_id}")
        try:
            while not following.done():
                async for frame in self._due():
                    yield frame
                await asyncio.wait([following], timeout=LOOK)
            following.result()
            await self._page.read_receipts()
            self._feed.finish(time.monotonic())
            async for frame in self._due():
                yield frame
            await asyncio.Event().wait()  # what is inside of a row can be asked for as long as somebody looks
        finally:
            following.cancel()

    async def _due(self) -> AsyncGenerator[Frame]:
        self._feed.tick(time.monotonic())
        async for frame in self._outbox.taken(self._feed):
            yield frame

    async def _follow(self) -> None:
        """Read the list's journal and those of its runs until the list has ended."""
        async with onlooking(self._home, self._environ, self._page.apply) as look:
            while True:
                is_run = await self._look()
                if self._state.status is not ListStatus.OPEN and not is_run:
                    break
                look(self._state)
                await asyncio.sleep(LOOK)
        await asyncio.to_thread(self._keep_end)

    async def _look(self) -> bool:
        """Bring the rows up to date; whether somebody runs the list."""
        is_run, why = await asyncio.to_thread(self._read)
        self._page.board.show(self._state)
        self._page.board.leave(why, can_continue=bool(why) and not calls_left(self._tasks, self._state))
        return is_run

    def _read(self) -> tuple[bool, str]:
        """Read what is new; whether somebody runs the list, and why nobody does."""
        is_run = self._folder.is_run()  # asked before the journal: who runs it no more has written all
        self._state, self._offset = self._folder.advanced(self._state, self._offset)
        return is_run, "" if is_run else self._why_alone(self._state)

    def _keep_end(self) -> None:
        """Keep the table for the notebook, unless whoever ran the list has done that."""
        if stored_list_bundles(self._home)(self._folder.list_id) is None:
            keep_table(self._folder, list_bundle(self._page.ended(self._state)))


def calls_left(tasks: TaskList, state: ListState) -> list[str]:
    """Ids of Python callables that would have to be called: they are in the kernel that gave the list, and nowhere else."""
    is_open = state.status is ListStatus.OPEN
    calls = [(task.id, state.task(task.id).status) for task in tasks.tasks if task.kind is TaskKind.CALL]
    return [name for name, status in calls if (status in NOT_OVER if is_open else status is not TaskStatus.OK)]


def why_alone(tasks: TaskList, state: ListState) -> str:
    """What the view says of a list that nobody runs: what is true, and what can be done."""
    goes_on = f"{GONE} {WAS_STOPPED if state.is_stopped else GOES_ON}"
    calls = calls_left(tasks, state)
    if not calls:
        return f"{goes_on} {CONTINUE}"
    what = f"Task {calls[0]} is Python" if len(calls) == 1 else f"{len(calls)} tasks, {calls[0]} among them, are Python"
    return f"{goes_on} {NOT_HERE.format(what=what)}"
