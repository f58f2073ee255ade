"""Whether the agent has said its last word, told from how its lines begin. Knows bytes and marks; knows no agent, no pipe and no clock."""

from __future__ import annotations


class LastWord:
    """Watches raw output for lines that begin with a mark, wherever blocks are cut.

    Parameters
    ----------
    done : tuple of bytes
        A line that begins with one of these is a last word …
    anew : tuple of bytes
        … until one begins with one of these: the agent works on.

    Attributes
    ----------
    said : bool
        Whether the last word has been said.
    """

    def __init__(self, done: tuple[bytes, ...], anew: tuple[bytes, ...]) -> None:
        self.said = False
        self._needles = tuple((b"\n" + mark, is_done) for marks, is_done in ((done, True), (anew, False)) for mark in marks)
        self._reach = max(len(needle) for needle, _ in self._needles) - 1
        self._tail = b"\n"  # the end of what came before; the first line begins a line, too

    def look(self, buffer: bytearray, size: int) -> None:
        """Look at the next `size` bytes, which are at the beginning of `buffer`."""
        # Where two blocks meet, and then inside of this one, without a copy of it. The newest mark decides.
        seam = self._tail + buffer[: min(size, self._reach)]
        newest = -len(self._tail) - 1
        for needle, is_done in self._needles:
            place = buffer.rfind(needle, 0, size)
            if place < 0 and (place := seam.rfind(needle)) >= 0:
                place -= len(self._tail)
            elif place < 0:
                continue
            if place > newest:
                newest, self.said = place, is_done
        self._tail = bytes(buffer[size - self._reach : size]) if size >= self._reach else seam[-self._reach :]
