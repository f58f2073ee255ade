"""Whole lines out of arbitrary chunks, and whole characters out of arbitrary bytes. Knows newlines, UTF-8 and a limit; knows nothing of JSON or pipes."""

from __future__ import annotations

import codecs
from typing import Final, NamedTuple, Self

from cc_executor.model.event import StderrWritten

# The longest line that was ever recorded is 5.8 MB (a Write of 5 MB); a decoder holds at most one such line.
LINE_LIMIT: Final = 64 * 2**20

# What is kept of a line that is too long: enough to see what it was. The journal has all of it.
HEAD_LIMIT: Final = 4096


class Overlong(NamedTuple):
    """A line of more than `LINE_LIMIT` bytes: its first bytes, and how many it had in all."""

    head: bytes
    size: int


class LineSplitter:
    r"""Cuts a byte stream at ``b"\n"`` and nowhere else.

    U+0085, U+2028 and a lone carriage return are text: the Claude CLI writes the first as it is inside of its strings (2.1.197), and
    `bytes.splitlines` would cut there. Every byte is looked at once and copied at most twice, however the stream is cut into chunks.
    """

    __slots__ = ("_limit", "_rest", "_skipped")

    def __init__(self, *, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._skipped = 0  # bytes of the current line, once it is overlong

    def feed(self, data: bytes) -> list[bytes | Overlong]:
        """The lines that `data` completes, without their newline.

        Parameters
        ----------
        data : bytes
            The next bytes of the stream, of any size.

        Returns
        -------
        list of bytes or Overlong
            In order; an `Overlong` stands for a line of more than the limit.
        """
        pieces = data.split(b"\n")
        rest = pieces.pop()
        lines: list[bytes | Overlong] = [*pieces]
        if len(data) > self._limit:  # else no whole line in it can be too long
            lines = [Overlong(piece[:HEAD_LIMIT], len(piece)) if len(piece) > self._limit else piece for piece in pieces]
        if pieces and self._rest:
            self._keep(pieces[0])
            lines[0] = self._take()
        self._keep(rest)
        return lines

    def close(self) -> list[bytes | Overlong]:
        """The last line, if it had no newline."""
        return [self._take()] if self._rest else []

    def copy(self) -> Self:
        """An independent splitter in the same state."""
        twin = type(self)(limit=self._limit)
        twin._rest = bytearray(self._rest)
        twin._skipped = self._skipped
        return twin

    def _keep(self, data: bytes) -> None:
        size = (self._skipped or len(self._rest)) + len(data)
        if size <= self._limit:
            self._rest += data
            return
        self._skipped = size
        self._rest += data[: max(0, HEAD_LIMIT - len(self._rest))]
        del self._rest[HEAD_LIMIT:]

    def _take(self) -> bytes | Overlong:
        line = bytes(self._rest)
        size, self._skipped = self._skipped, 0
        self._rest = bytearray()
        return Overlong(line, size) if size else line


class TextStream:
    """Characters out of bytes: a sequence cut by a chunk's end waits for its rest, and what is not UTF-8 becomes U+FFFD."""

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> str:
        """The characters that `data` completes."""
        return self._decoder.decode(data)

    def close(self) -> str:
        """What is left of a sequence that was never completed."""
        return self._decoder.decode(b"", final=True)

    def copy(self) -> Self:
        """An independent stream in the same state."""
        twin = type(self)()
        twin._decoder.setstate(self._decoder.getstate())
        return twin


class StderrDecoder:
    """Standard error of any agent as events."""

    __slots__ = ("_text",)

    def __init__(self) -> None:
        self._text = TextStream()

    def feed(self, data: bytes) -> list[StderrWritten]:
        """One event with the characters that `data` completes, or none."""
        text = self._text.feed(data)
        return [StderrWritten(text=text)] if text else []

    def close(self) -> list[StderrWritten]:
        """What is left of a sequence that was never completed."""
        text = self._text.close()
        return [StderrWritten(text=text)] if text else []

    def copy(self) -> Self:
        """An independent decoder in the same state."""
        twin = type(self)()
        twin._text = self._text.copy()
        return twin
