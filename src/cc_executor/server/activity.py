"""What keeps a server alive: the runs and lists at work in its state folder, whoever has started them. Knows files and supervisors; knows no server.

A culler looks at the time of the last activity alone, and neither a silent cell nor a detached run is any to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from cc_executor.errors import CCExecutorError, ControlFailed, StateUnusable
from cc_executor.runtime.control import command
from cc_executor.store import roll
from cc_executor.store.home import StateHome
from cc_executor.store.tasklists import ListFolder, ListHome


class AtWork:
    """Looks at what is at work, and knows since when.

    Parameters
    ----------
    root : Path
        The state folder.
    most : float
        Seconds for which one run, or one list, counts at most: what hangs must not keep a server for ever. A pause ends the count, and what goes on then
        is counted anew.
    clock : callable
        Seconds, monotonic.
    checked : callable
        Ids of the runs whose checks go on in this server. Blocking.
    """

    def __init__(self, root: Path, *, most: float, clock: Callable[[], float], checked: Callable[[], Iterable[str]] = tuple) -> None:
        self._home = StateHome(root)
        self._most = most
        self._clock = clock
        self._checked = checked
        self._since: dict[str, float] = {}

    def look(self) -> bool:
        """Whether something is at work that counts. Blocking; costs some system calls for each run that goes on and each list that is kept."""
        now = self._clock()
        try:
            names = [*self._runs(), *self._lists(), *self._checked()]
        except (OSError, CCExecutorError):  # a folder that cannot be read: whoever starts a run is told
            names = []
        self._since = {name: self._since.get(name, now) for name in names}
        return any(now - since < self._most for since in self._since.values())

    def _runs(self) -> Iterator[str]:
        self._home.check()
        for name in roll.going(self._home.root):
            try:
                is_paused = command(self._home.folder(name), "status").get("state") == "paused"
            except ControlFailed:  # it starts, or has just ended
                is_paused = False
            if not is_paused:
                yield name

    def _lists(self) -> Iterator[str]:
        return (folder.list_id for folder in ListHome(self._home).folders() if folder.is_run() and not _is_paused(folder))


def _is_paused(folder: ListFolder) -> bool:
    with suppress(StateUnusable):  # it is run all the same
        return folder.state().is_paused
    return False
