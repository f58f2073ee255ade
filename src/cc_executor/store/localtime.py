"""Moments on the clocks of this machine. Knows its time zone, whatever that is; knows no run."""

from __future__ import annotations

from datetime import datetime, timedelta


def local(seconds: float) -> datetime:
    """The local time, without a zone: `TZ` may name an offset of a day or more, which is none to `datetime`.

    Parameters
    ----------
    seconds : float
        Since the epoch.
    """
    return datetime.fromtimestamp(seconds)  # noqa: DTZ006 - without a zone on purpose, see above


def local_day(now: float) -> tuple[float, float]:
    """Midnight before and after `now`, where this machine is; seconds since the epoch."""
    midnight = local(now).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight.timestamp(), (midnight + timedelta(days=1)).timestamp()  # a day may have 23 or 25 hours
