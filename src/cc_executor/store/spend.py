"""What today's runs have cost: the sealed receipts of the local day, read from the runs' own folders. Reads small files; keeps nothing on the disk."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import msgspec

from cc_executor.errors import StateUnusable
from cc_executor.shim import records
from cc_executor.store.home import StateHome
from cc_executor.store.plain import read_plain

RECEIPT_LIMIT: Final = 16 * 2**20  # bytes of one receipt
LONGEST: Final = 24 * 3600.0  # seconds; a run that began longer than this before midnight is not looked for


class _Times(msgspec.Struct, frozen=True):
    ended: datetime


class _Costs(msgspec.Struct, frozen=True):
    times: _Times
    cost: float | None = None
    rehearsed: str | None = None


_decoder: Final = msgspec.json.Decoder(_Costs)


class DaySpend:
    """The sum over today's runs, which can be asked for again and again: a receipt is read once.

    Parameters
    ----------
    home : StateHome
    """

    def __init__(self, home: StateHome) -> None:
        self._home = home
        self._known: dict[str, tuple[float, float]] = {}  # run id → when it ended, US dollars

    def total(self, now: float) -> float:
        """US dollars of the runs that ended on the local day of `now` (seconds since the epoch).

        A run that goes on, one that nobody has sealed, and a rehearsed one count nothing.

        Raises
        ------
        StateUnusable
            The folder is not safe, or cannot be read.
        """
        start, end = local_day(now)
        spent = 0.0
        for folder in self._home.runs():
            if folder.created_at < start - LONGEST:
                break
            known = self._known.get(folder.run_id)
            if known is None:
                try:
                    costs = _decoder.decode(read_plain(folder.path / records.RECEIPT, RECEIPT_LIMIT))
                except (OSError, msgspec.DecodeError):  # not sealed yet; of another version; damaged
                    continue
                cost = 0.0 if costs.rehearsed is not None else max(0.0, costs.cost or 0.0)
                known = self._known[folder.run_id] = (costs.times.ended.timestamp(), cost)
            if start <= known[0] < end:
                spent += known[1]
        return spent


def local_day(now: float) -> tuple[float, float]:
    """Midnight before and after `now`, where this machine is; seconds since the epoch."""
    midnight = datetime.fromtimestamp(now).astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    next_day = (midnight.replace(tzinfo=None) + timedelta(days=1)).astimezone()  # a day may have 23 or 25 hours
    return midnight.replace(tzinfo=None).astimezone().timestamp(), next_day.timestamp()


def spent_today(home: StateHome, now: float) -> float:
    """`DaySpend.total`, asked for once; 0 when the folder cannot be read, for there is nothing in it then."""
    try:
        return DaySpend(home).total(now)
    except StateUnusable:
        return 0.0
