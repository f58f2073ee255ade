"""The end of a stream whose journal is full: its last lines, held in memory until the stream ends. Knows bytes and newlines; knows no file and no pipe.

An agent's closing statement is its last line, and decides how the run is judged: so the end is kept whatever came before it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# Bytes; at most twice as many are held. A closing statement has some kilobytes, with a long final text some hundred.
LONGEST: Final = 4 * 2**20
SHARE: Final = 4  # of what a stream may have, the end gets at most one part in so many


def end_of(limit: int) -> int:
    """How much of a stream's `limit` is left for its end."""
    return min(LONGEST, limit // SHARE)


class Tail:
    """Takes bytes and keeps the last of them.

    Parameters
    ----------
    room : int
        Bytes that are kept at most.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._held = bytearray()
        self._has_lost = False

    def take(self, data: bytes | memoryview) -> int:
        """Take what comes next; returns how many bytes were given up for it."""
        self._held += data
        if len(self._held) <= 2 * self._room:
            return 0
        return self._give_up(len(self._held) - self._room)

    def rest(self) -> tuple[bytes, int]:
        """What is kept at the end of the stream, and how many bytes more were given up.

        Where something was lost it begins with a newline, if there is one before the last line: so the line that was cut off ends there, and every line of it
        is whole.
        """
        lost = 0
        if len(self._held) > self._room:
            lost = self._give_up(len(self._held) - self._room)
        if self._has_lost:
            # Not at the last newline, which ends the last line: of one that is longer than the room its own end is kept.
            lost += self._give_up(max(0, self._held.find(b"\n", 0, -1)))
        return bytes(self._held), lost

    def _give_up(self, size: int) -> int:
        del self._held[:size]
        self._has_lost = self._has_lost or size > 0
        return size
