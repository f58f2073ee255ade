"""Text with a bound: its beginning, its end, and how much is missing between them. Knows characters; knows nothing of runs."""

from __future__ import annotations

import msgspec


class Clipped(msgspec.Struct, frozen=True):
    """The first and the last characters of a text. A function of the whole text alone, whatever pieces it came in.

    Attributes
    ----------
    head, tail : str
        The kept characters.
    omitted : int
        How many characters between them are not kept.
    """

    head: str = ""
    tail: str = ""
    omitted: int = 0

    @classmethod
    def of(cls, text: str, *, limit: int) -> Clipped:
        """`text` with at most `limit` characters, half of them from each end."""
        return cls().plus(text, limit=limit)

    def plus(self, piece: str, *, limit: int) -> Clipped:
        """The same text with `piece` at its end. Costs at most the limit, however long the text was."""
        if not piece:
            return self
        half = limit // 2
        room = half - len(self.head)
        if len(piece) <= room:
            return Clipped(self.head + piece)
        rest = piece[room:] if room > 0 else piece
        kept = (self.tail + rest)[-half:] if len(rest) < half else rest[-half:]
        return Clipped(self.head + piece[: max(room, 0)], kept, self.omitted + len(self.tail) + len(rest) - len(kept))

    @property
    def text(self) -> str:
        """What is kept, with a line in the middle that says what is not."""
        return f"{self.head}\n[… {self.omitted:,} characters left out …]\n{self.tail}" if self.omitted else self.head + self.tail

    @property
    def size(self) -> int:
        """Characters of the whole text."""
        return len(self.head) + self.omitted + len(self.tail)

    def __str__(self) -> str:
        return self.text
