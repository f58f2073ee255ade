"""Whether an agent has said anything but that its line is open, told from how its lines begin. Knows bytes and marks; knows no agent, no pipe and no clock."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

LARGEST: Final = 4096  # bytes of a block that is looked through; a larger one holds more than such lines


class Quiet:
    """Watches raw output for anything but lines that begin with a mark, wherever blocks are cut.

    Parameters
    ----------
    marks : tuple of bytes
        A line that begins with one of these is no sign of life.
    """

    def __init__(self, marks: tuple[bytes, ...]) -> None:
        self._marks = marks
        self._reach = max(map(len, marks))
        self._begin = b""  # of the line that goes on
        self._was_heard = False

    def heard(self) -> bool:
        """Whether anything else has come since this was asked last."""
        was_heard, self._was_heard = self._was_heard, False
        return was_heard

    def look(self, buffer: bytearray, size: int) -> None:
        """Look at the next `size` bytes, which are at the beginning of `buffer`."""
        if size > LARGEST:
            self._was_heard = True
            place = buffer.rfind(b"\n", 0, size) + 1
            self._begin = (b"" if place else self._begin) + bytes(buffer[place : min(size, place + self._reach)])
            return
        *ended, last = bytes(buffer[:size]).split(b"\n")
        for line in ended:
            if not (self._begin + line).startswith(self._marks):
                self._was_heard = True
            self._begin = b""
        self._begin = (self._begin + last)[: self._reach]
        if last and not any(mark.startswith(self._begin) for mark in self._marks):  # as far as it has come
            self._was_heard = True
