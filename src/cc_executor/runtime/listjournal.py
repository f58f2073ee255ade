"""A task list's journal as whoever follows it knows it: read as it comes, and written by what was read. Knows a list's folder; decides nothing."""

from __future__ import annotations

from collections.abc import Callable

from cc_executor.model.listrecord import ListState, Record, advance
from cc_executor.store.tasklists import ListFolder


class ListJournal:
    """The records of one list, and the state after them.

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

    def read(self) -> None:
        """All that is new."""
        before = self._offset
        self.state, self._offset = self.folder.advanced(self.state, self._offset)
        if self._offset != before:
            self._on_state(self.state)

    def add(self, record: Record) -> None:
        """Add what has happened."""
        self.folder.append(record)
        self.read()

    def decided(self, record: Record) -> bool:
        """Add what was decided by this very state. False when somebody has added something to it: then it is decided anew, for he may want otherwise."""
        end = self.folder.append_after(record, self._offset)
        if end is None:
            return False
        self.state, self._offset = advance(self.state, record), end
        self._on_state(self.state)
        return True
