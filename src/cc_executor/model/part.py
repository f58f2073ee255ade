"""The growing end of a text: one part that takes pieces cheaply and becomes an item when somebody looks. Knows lines; knows no events."""

from __future__ import annotations

from typing import Self

import msgspec

from cc_executor.model.item import PART_CHARS, PART_LINES, Cut, Item, ItemState, Kind, Level, count_lines, cut


class Part(msgspec.Struct, kw_only=True):
    """Text below the size of one item. `markdown`: it is cut where Markdown may be cut."""

    number: int
    kind: Kind
    parent: str | None = None
    level: Level = Level.INFO
    continues: bool = False
    fence: str = ""
    state: ItemState = ItemState.OPEN
    _pieces: list[str] = []
    _chars: int = 0
    _newlines: int = 0
    _item: Item | None = None

    @property
    def text(self) -> str:
        """The text so far."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    @property
    def lines(self) -> int:
        """Lines so far, an unfinished one included."""
        return self._newlines + (not (self._pieces and self._pieces[-1].endswith("\n")))

    @property
    def chars(self) -> int:
        """Characters so far."""
        return self._chars

    def append(self, piece: str) -> None:
        """Take one more piece, whatever its size."""
        self._pieces.append(piece)
        self._chars += len(piece)
        self._newlines += piece.count("\n")
        self._item = None

    def restart_line(self) -> None:
        """Drop the unfinished last line, as a carriage return does."""
        text = self.text
        self.replace(text[: text.rfind("\n") + 1])

    def replace(self, text: str) -> None:
        """Hold `text` and nothing else."""
        self._pieces = [text] if text else []
        self._chars = len(text)
        self._newlines = text.count("\n")
        self._item = None

    def overflow(self) -> Cut | None:
        """Where this part has to end, if it holds more than one item may."""
        if self._chars <= PART_CHARS and self._newlines < PART_LINES:
            return None
        return cut(self.text, fence=self.fence, markdown=self.kind in {Kind.TEXT, Kind.THINKING})

    def settle(self, state: ItemState) -> None:
        """Set the state."""
        if state is not self.state:
            self.state = state
            self._item = None

    def copy(self) -> Self:
        """An independent part with the same content."""
        return type(self)(
            number=self.number, kind=self.kind, parent=self.parent, level=self.level, continues=self.continues, fence=self.fence,
            state=self.state, _pieces=[self.text], _chars=self._chars, _newlines=self._newlines,
        )  # fmt: skip

    def item(self) -> Item:
        """The item as of now."""
        if self._item is None:
            text = self.text
            self._item = Item(
                number=self.number, kind=self.kind, state=self.state, text=text, level=self.level, parent=self.parent,
                continues=self.continues, fence=self.fence, lines=count_lines(text),
            )  # fmt: skip
        return self._item
