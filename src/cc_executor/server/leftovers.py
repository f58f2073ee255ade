"""What the server keeps of runs and lists that are gone, and that nobody needs: whose they were, the idempotency keys that have started them, and who was to be told.

Nothing goes of what is there, waits, or was asked for lately: a run without its owner's name would be whom the server runs for, and one without its key would
be paid twice. Blocking.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from cc_executor.runtime.retention import GOING
from cc_executor.server.keys import Keys
from cc_executor.server.notices import FOLDER as NOTIFY
from cc_executor.store import owners
from cc_executor.store.home import RUN_ID, StateHome
from cc_executor.store.place import LONGEST_WAIT, RUNS
from cc_executor.store.tasklists import FOLDER as LISTS
from cc_executor.store.tasklists import LIST_ID

KEPT_FOR: Final = 2 * LONGEST_WAIT  # seconds; what waits for its turn begins within the half of them


def sweep(home: StateHome, keys: Keys, *, now: float) -> None:
    """Remove them. `now`: seconds since the epoch.

    Raises
    ------
    StateUnusable
        The state folder is not safe, or somebody holds its locks.
    """
    home.check()
    kept = _Kept(home.root)
    keys.sweep(kept.lacks, before=now - KEPT_FOR)
    owners.sweep(home.root, kept.lacks, before=now - KEPT_FOR)
    _forget_promises(home.root / NOTIFY, before=now - KEPT_FOR)


def _forget_promises(folder: Path, *, before: float) -> None:
    """Remove what a server that was killed had promised to runs; they hold addresses, which may be secret. Those that have begun have a copy of their own."""
    with suppress(OSError):  # nothing was ever promised, or it is gone at this moment
        for path in list(folder.iterdir()):
            if path.lstat().st_mtime < before:
                shutil.rmtree(path, ignore_errors=True)


class _Kept:
    """What is there, waits, or has waited."""

    def __init__(self, root: Path) -> None:
        self._runs = root / RUNS
        self._lists = root / LISTS
        self._queue = root / "server" / "queue"

    def lacks(self, name: str) -> bool:
        """Whether a run or a list is gone. False for what is no id of ours, and where that cannot be told."""
        if LIST_ID.match(name):
            return _can_tell(self._lists) and not os.path.lexists(self._lists / name)
        if not RUN_ID.match(name) or not _can_tell(self._runs):
            return False
        # The queue between two looks at the runs: what waits may begin at this moment, and never the other way round.
        return not (self._is_run(name) or self._waits(name) or self._is_run(name))

    def _is_run(self, name: str) -> bool:
        return os.path.lexists(self._runs / name) or os.path.lexists(self._runs / f".{name}{GOING}")

    def _waits(self, name: str) -> bool:
        try:
            return any(name in waiting for waiting in os.listdir(self._queue)) or os.path.lexists(self._queue / "ended" / name)
        except FileNotFoundError:  # nothing was ever queued
            return False
        except OSError:
            return True


def _can_tell(folder: Path) -> bool:
    """Whether a folder can be looked into: of one that was moved away for a while, nothing is gone."""
    return os.access(folder, os.R_OK | os.X_OK)
