"""What runs have cost: receipts, above all those of the local day, read from the runs' own folders. Reads small files; keeps nothing on the disk."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec

from cc_executor.errors import StateUnusable
from cc_executor.shim import records
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder
from cc_executor.store.localtime import local_day
from cc_executor.store.place import LONGEST_WAIT
from cc_executor.store.plain import read_plain

RECEIPT_LIMIT: Final = 16 * 2**20  # bytes of one receipt
LONGEST_DAY: Final = 25 * 3600.0  # seconds; one on which clocks are put back, in whatever time zone somebody counts
LONGEST: Final = 24 * 3600.0  # seconds; a run that was started longer than this before midnight is not looked for


class _Times(msgspec.Struct, frozen=True):
    ended: datetime


class _Tokens(msgspec.Struct, frozen=True):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_tokens: int = 0


class _Costs(msgspec.Struct, frozen=True):
    times: _Times
    cost: float | None = None
    rehearsed: str | None = None
    usage: _Tokens = _Tokens()


_decoder: Final = msgspec.json.Decoder(_Costs)


class EndedRun(msgspec.Struct, frozen=True):
    """What one run has cost.

    Attributes
    ----------
    run_id : str
    ended : float
        Seconds since the epoch.
    cost : float
        US dollars; 0 for a rehearsed one.
    tokens : int
        Read, written and put into caches; not those read from caches, which cost a tenth and are many. 0 for a rehearsed one.
    """

    run_id: str
    ended: float
    cost: float
    tokens: int


class DaySpend:
    """The runs of a day and their sum, which can be asked for again and again: a receipt is read once.

    Parameters
    ----------
    home : StateHome
    unsealed : callable
        What a run has cost that has no readable receipt; None: it is not counted, and asked for again the next time.
    """

    def __init__(self, home: StateHome, *, unsealed: Callable[[RunFolder], EndedRun | None] = lambda _: None) -> None:
        self._home = home
        self._unsealed = unsealed
        self._known: dict[str, EndedRun] = {}

    def total(self, now: float) -> float:
        """US dollars of the runs that ended on the local day of `now` (seconds since the epoch).

        Raises
        ------
        StateUnusable
            The folder is not safe, or cannot be read.
        """
        return sum(run.cost for run in self.runs(now))

    def runs(self, now: float) -> list[EndedRun]:
        """The runs that ended on the local day of `now`, newest first. A run that goes on is not among them.

        Raises
        ------
        StateUnusable
            As for `total`.
        """
        start, end = local_day(now)
        return [run for run in self.since(start) if run.ended < end]

    def since(self, start: float) -> list[EndedRun]:
        """The runs that ended at `start` (seconds since the epoch) or later, newest first.

        Raises
        ------
        StateUnusable
            As for `total`.
        """
        found: list[EndedRun] = []
        for folder in self._home.runs():
            if folder.created_at < start - LONGEST - LONGEST_WAIT:
                break
            known = self._known.get(folder.run_id)
            if known is None:
                try:
                    known = ended_run(folder.run_id, read_plain(folder.path / records.RECEIPT, RECEIPT_LIMIT))
                except (OSError, msgspec.DecodeError):  # not sealed yet; of another version; damaged
                    known = self._unsealed(folder)
                if known is None:
                    continue
                self._known[folder.run_id] = known
            if known.ended >= start:
                found.append(known)
        return found


def ended_run(run_id: str, receipt: bytes) -> EndedRun:
    """What a receipt, as JSON, says of what its run has cost. Raises `msgspec.DecodeError`."""
    costs = _decoder.decode(receipt)
    used = costs.usage
    tokens = used.input_tokens + used.output_tokens + used.cache_creation_tokens
    is_real = costs.rehearsed is None
    return EndedRun(run_id, costs.times.ended.timestamp(), max(0.0, costs.cost or 0.0) if is_real else 0.0, tokens if is_real else 0)


def spent_today(home: StateHome, now: float, *, unsealed: Callable[[RunFolder], EndedRun | None] = lambda _: None) -> float:
    """`DaySpend.total`, asked for once; 0 when the folder cannot be read, for there is nothing in it then."""
    try:
        return DaySpend(home, unsealed=unsealed).total(now)
    except StateUnusable:
        return 0.0
