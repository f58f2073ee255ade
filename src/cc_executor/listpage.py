"""What a live view shows of one task list: its rows, how long its tasks usually take, how it ended.

Knows a list's folder and its runs' receipts; knows no widget and no socket, so that a kernel and a server show the same page.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from cc_executor.errors import RunNotFound, StateUnusable
from cc_executor.model.listrecord import Begun, ListState, Validating
from cc_executor.model.receipt import Receipt
from cc_executor.model.taskcard import EndedList, list_bundle
from cc_executor.model.tasklist import TaskList
from cc_executor.model.taskrows import TaskBoard, run_ids
from cc_executor.runtime.errand import in_thread
from cc_executor.runtime.plan import roots_of
from cc_executor.runtime.run import Batch
from cc_executor.store.bundle import write_list_bundle
from cc_executor.store.home import StateHome
from cc_executor.store.tasklists import ListFolder
from cc_executor.taskplan import cwd_of
from cc_executor.tasks import forecast_of

logger = logging.getLogger(__name__)

RECEIPTS: Final = 1000  # of one list that a notebook names; as many as its metadata keeps


class ListPage:
    """One list, as its view shows it.

    Parameters
    ----------
    folder : ListFolder
    tasks : TaskList
    home : StateHome

    Attributes
    ----------
    board : TaskBoard
        The rows; whoever makes the page feeds it with states.
    """

    def __init__(self, folder: ListFolder, tasks: TaskList, home: StateHome) -> None:
        self._folder = folder
        self._tasks = tasks
        self._home = home
        self.board = TaskBoard(tasks, list_id=folder.list_id, roots=lambda task: roots_of(os.path.abspath(cwd_of(tasks, task))))

    def apply(self, task_id: str, batch: Batch) -> None:
        """Take what a task's run has written."""
        self.board.apply(task_id, batch.events, batch.state, time.time())

    async def read_receipts(self) -> None:
        """Tokens of what has ended before are in receipts alone."""
        ended = run_ids(self.board.state, (task.id for task in self.board.order))
        if ended:
            found = await in_thread(lambda: self._receipts(ended.values()))
            for task_id, run_id in ended.items():
                if run_id in found:
                    self.board.receive(task_id, found[run_id])

    async def expect(self) -> None:
        """Say in the rows how long their tasks usually take."""
        forecast = await in_thread(lambda: forecast_of(self._tasks, self._home))
        self.board.expect({task.id: words for task in self._tasks.tasks if (words := forecast.words(task.id))})

    def ended(self, state: ListState, *, note: str = "") -> EndedList:
        """The list with the receipts of all its attempts, in the order of the runs. Blocking."""
        begun = [record.run_id for record in self._folder.records() if isinstance(record, Begun | Validating) and record.run_id]
        receipts = self._receipts(dict.fromkeys(begun))
        rehearsed = {run_id for run_id, receipt in receipts.items() if receipt.rehearsed is not None}
        return EndedList(
            list_id=self._folder.list_id,
            tasks=self._tasks,
            state=state,
            receipts=tuple(
                {"run_id": receipt.run_id, "digest": receipt.digest, "status": receipt.outcome.kind.value}
                for receipt in list(receipts.values())[-RECEIPTS:]
            ),
            rehearsed=frozenset(task.id for task in self._tasks.tasks if state.task(task.id).run_id in rehearsed),
            note=note,
        )

    def _receipts(self, run_ids: Iterable[str]) -> dict[str, Receipt]:
        found: dict[str, Receipt] = {}
        for run_id in run_ids:
            with suppress(RunNotFound, StateUnusable):
                if (receipt := self._home.find(run_id).receipt()) is not None:
                    found[run_id] = receipt
        return found


def keep_table(folder: ListFolder, bundle: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Keep the table of a list that has ended, for the notebook that shows its view. Blocking; a table that cannot be kept is logged."""
    try:
        write_list_bundle(folder.path, bundle)
    except StateUnusable as error:  # the result is owed to whoever waits for it, the table kept or not
        logger.warning("the table of list %s could not be kept: %s", folder.list_id, error)


def keep_end(folder: ListFolder, state: ListState, home: StateHome) -> None:
    """Keep the table of a list that has ended without a kernel to show it. Blocking. Raises `StateUnusable` if the list cannot be read."""
    tasks = folder.tasks()
    keep_table(folder, list_bundle(ListPage(folder, tasks, home).ended(state)))
