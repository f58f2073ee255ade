"""The run's clocks. Knows arithmetic on monotonic seconds that it is given; knows no process. Never reads a clock itself.

Monotonic time stands still by itself while a Linux machine is suspended, so that needs no record; a machine or a process that is stopped from outside (a
virtual machine, SIGSTOP) is noticed by the loop that comes back late.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

FREEZE: Final = 2.0  # seconds; a loaded machine can be late by some hundred milliseconds, a suspended one is late by far more
# A freeze is seen as lateness beyond the time that was asked for, so it is missed by up to one tick; hence a short one.
TICK: Final = 0.5


class Clock:
    """Elapsed, paused, frozen and active seconds of one run.

    Parameters
    ----------
    now : float
        Monotonic seconds at which the shim started.
    at : float
        The same moment in seconds since the epoch; for display only.
    """

    def __init__(self, now: float, at: float) -> None:
        self.began = now
        self.at = at
        self.frozen = 0.0
        self._paused = 0.0
        self._paused_since: float | None = None
        self._expected = now + TICK

    @property
    def standing(self) -> bool:
        """Whether the clocks stand still now."""
        return self._paused_since is not None

    def elapsed(self, now: float) -> float:
        """Seconds since the start, everything included."""
        return now - self.began

    def paused(self, now: float) -> float:
        """Seconds spent paused."""
        return self._paused + (now - self._paused_since if self._paused_since is not None else 0.0)

    def active(self, now: float) -> float:
        """Seconds that count: neither paused nor frozen. Both limits are measured with it."""
        return max(0.0, self.elapsed(now) - self.paused(now) - self.frozen)

    def pause(self, now: float) -> None:
        """Stand still from now on."""
        if self._paused_since is None:
            self._paused_since = now

    def resume(self, now: float) -> float:
        """Go on; returns how long this pause was."""
        if self._paused_since is None:
            return 0.0
        seconds = now - self._paused_since
        self._paused += seconds
        self._paused_since = None
        return seconds

    def asleep(self, until: float) -> None:
        """The loop will be back at `until`, or earlier."""
        self._expected = until

    def awake(self, now: float) -> float:
        """The loop is back: how long it stood still beyond what it had asked for, or 0. Those seconds count for nothing."""
        late = now - self._expected
        if late <= FREEZE or self._paused_since is not None:
            return 0.0
        self.frozen += late
        return late
