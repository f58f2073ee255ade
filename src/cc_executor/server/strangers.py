"""Requests of those who are not known here, counted by where they come from: whoever has no account cannot push out what others did. Knows addresses and rows.

The first ones from an address are noted each, so that an administrator sees what was tried; then one whenever there are twice as many as were told, and the
last count when somebody looks, when the hour is over, and when the server ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cc_executor.server.trail import Row

EACH: Final = 10  # requests of one address in an hour that are noted each
HOUR: Final = 3600.0  # seconds
ADDRESSES: Final = 100  # counted by themselves in one hour, so that many cost no more than some thousand lines
OTHERS: Final = "others"  # further ones, together


@dataclass(slots=True)
class _Count:
    """Of one address: requests in this hour, how many of them are told, and the last one."""

    seen: int
    told: int
    row: Row


class Strangers:
    """Those of one server.

    Parameters
    ----------
    write : callable
        Adds a row; called by one thread at a time.
    """

    def __init__(self, write: Callable[[Row], object]) -> None:
        self._write = write
        self._counts: dict[str, _Count] = {}
        self._since = 0.0
        self._lock = threading.Lock()

    def take(self, row: Row, origin: str, *, now: float) -> bool:
        """Count a request; whether it was written. `origin`: an address; `now`: seconds, of a clock that only goes forward."""
        with self._lock:
            if now - self._since >= HOUR:
                self._settle()
                self._counts, self._since = {}, now
            if origin not in self._counts and len(self._counts) >= ADDRESSES:
                origin = OTHERS
            count = self._counts.setdefault(origin, _Count(0, 0, row))
            count.seen += 1
            count.row = {**row, "from": origin, "count": count.seen}
            if count.seen > EACH and count.seen < 2 * count.told:
                return False
            count.told = count.seen
            self._write(count.row)
            return True

    def settle(self) -> None:
        """Write what is counted and not told yet."""
        with self._lock:
            self._settle()

    def _settle(self) -> None:
        for count in self._counts.values():
            if count.told != count.seen:
                count.told = count.seen
                self._write(count.row)
