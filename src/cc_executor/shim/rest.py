"""How long a stream that trickles is left alone between two looks. Knows bytes and seconds that it is given; knows no pipe and never reads a clock.

What a look costs (waking up, three writes, a message to whoever follows) is the same for one line and for a thousand: some 0.25 ms. An agent that streams
its text writes a hundred small lines a second, and of two hundred such runs on two cores their supervisors took all there was.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

REST: Final = 0.04  # seconds; a view shows 25 frames a second
# Where the machine has no core to spare, which is seen by coming back late, the rest is longer; a child that begins to write a lot is still not held up for
# longer than this: the Claude Code CLI loses its last output when nobody reads for 0.3 s with a full pipe.
LONGEST: Final = 0.1
LATE_FACTOR: Final = 10
TRICKLE: Final = 16 * 1024  # bytes at one look …
PART: Final = 4  # … and at most one part in so many of what the pipe holds: it fills up when the child begins to write a lot
BUSY: Final = 0.05  # seconds without a rest after more than a trickle
BUSY_TRICKLES: Final = 4  # so many in the meantime prolong it: a quick look at a quick writer finds little, too


class Rest:
    """The rests of one stream."""

    def __init__(self) -> None:
        self.until = float("inf")  # when the current rest ends; infinite: it does not rest
        self._late = 0.0
        self._busy_until = float("-inf")
        self._size = 0

    def came_back(self, late: float) -> None:
        """A timer rang so many seconds late."""
        self._late = max(min(late, LONGEST / LATE_FACTOR), 0.8 * self._late)

    def looked(self, size: int, now: float, room: int) -> bool:
        """So many bytes were found in a pipe that holds `room`; whether the stream may rest now, `until`."""
        trickle = min(TRICKLE, room // PART)
        self.until = float("inf")
        if now < self._busy_until:
            self._size += size
        if size >= trickle or self._size >= BUSY_TRICKLES * trickle:
            self._busy_until = now + BUSY
            self._size = 0
        if not size or now < self._busy_until:
            return False
        self._size = 0
        self.until = now + min(LONGEST, REST + LATE_FACTOR * self._late)
        return True
