"""A task list's journal as whoever follows it knows it: read as it comes, and written by what was read. Knows a list's folder; decides nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import anyio

from cc_executor.model.listrecord import ListState, Record
from cc_executor.runtime.errand import Errand
from cc_executor.store.tasklists import ListFolder

T = TypeVar("T")


class ListJournal:
    """The records of one list, and the state after them.

    What is added is on the disk when that returns, and the loop goes on meanwhile: others add and read in the midst of it.

    Parameters
    ----------
    folder : ListFolder
    on_state : callable
        Called with the state whenever it has changed.

    Attributes
    ----------
    state : ListState
    """

    def __init__(self, folder: ListFolder, on_state: Callable[[ListState], None]) -> None:
        self.folder = folder
        self.state = ListState()
        self._on_state = on_state
        self._offset = 0
        self._considered = 0  # the offset of the state by which is decided

    def read(self) -> None:
        """All that is new."""
        before = self._offset
        self.state, self._offset = self.folder.advanced(self.state, self._offset)
        if self._offset != before:
            self._on_state(self.state)

    def considered(self) -> ListState:
        """The state, to decide by it."""
        self._considered = self._offset
        return self.state

    async def add(self, record: Record) -> None:
        """Add what has happened."""
        await _written(partial(self.folder.append, record))
        self.read()

    async def decided(self, record: Record) -> bool:
        """Add what was decided by the state that was `considered` last, and by what was decided since.

        False when somebody has added something to it: then it is decided anew, for he may want otherwise.
        """
        end = await _written(partial(self.folder.append_after, record, self._considered))
        if end is None:
            return False
        self._considered = end
        self.read()
        return True


async def _written(write: Callable[[], T]) -> T | None:
    """What `write` gives, from a thread. Whoever is cancelled meanwhile waits for it: nobody lets go of a list while something is still written to it."""
    errand = Errand(lambda _: write(), patience=math.inf, takes_long=True)
    with anyio.CancelScope(shield=True):
        await errand.run()
    return errand.result
