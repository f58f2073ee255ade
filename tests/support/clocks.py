"""Clocks for code that is given so much time: a slow machine uses none of it up before the thing has begun for which it is given."""

from __future__ import annotations

import time
from pathlib import Path


class ClockSinceBegun:
    """In place of a module's `time`: its clock stands still until a program has written a whole line into a file, and goes as always from there.

    Parameters
    ----------
    sign : Path
        The file.
    """

    def __init__(self, sign: Path) -> None:
        self._sign = sign
        self._since: float | None = None

    def monotonic(self) -> float:
        """Seconds since it began to go."""
        if self._since is None and self._sign.exists() and self._sign.read_bytes().endswith(b"\n"):
            self._since = time.monotonic()
        return 0.0 if self._since is None else time.monotonic() - self._since

    def sleep(self, seconds: float) -> None:
        """As always."""
        time.sleep(seconds)


class ClockOfSleeps:
    """In place of a module's `time`: its clock goes on only as long as somebody sleeps, and nobody really does."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        """Seconds that were slept."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """At once."""
        self._now += seconds
