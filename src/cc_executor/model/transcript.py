"""A run as a page: a fold of events into numbered items, bounded in memory. Knows nothing of files, colours or browsers.

The fold is a function of the events alone: the same events in the same order, whatever pieces a text came in, give the same items with the same
numbers. So what was dropped from memory can be made again from the journal (`cc_executor.model.pager`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, Self

import msgspec

from cc_executor.model import toolcall
from cc_executor.model.ansi import Cleaner, clean, has_control
from cc_executor.model.event import (
    Event,
    Exited,
    MessageStarted,
    StderrWritten,
    TextWritten,
    ThinkingWritten,
    ToolCalled,
    ToolReturned,
)
from cc_executor.model.item import PART_CHARS, Item, ItemState, Kind, Level, count_lines, excerpt
from cc_executor.model.notice import Notice, notice
from cc_executor.model.part import Part
from cc_executor.model.paths import Roots

OPEN_LIMIT: Final = 500  # calls and blocks that never become whole; agents run some ten at once
REMOVED_LIMIT: Final = 4096  # removals that are remembered; a reader that is further behind gets everything anew
NOTES_LIMIT: Final = 200


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What is held in memory at most; the newest stays."""

    lines: int = 5000  # a hundred screens
    items: int = 1000  # thousands of one-line items cost a browser more than as many lines in one
    chars: int = 4 * 2**20  # 5,000 lines can also be 80 MB


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a page since a version.

    Attributes
    ----------
    version : int
        What to ask from next time.
    reset : bool
        Forget what you had: `items` is everything.
    items : tuple of Item
        New and changed items, in order.
    withdrawn, elided : tuple of int
        Numbers of items that are void, and of items that only the journal has now.
    floor : int
        Elided items have lower numbers than this. Items that are still open are kept, even below it.
    elided_lines : int
        Lines of all elided items.
    """

    version: int
    reset: bool
    items: tuple[Item, ...]
    withdrawn: tuple[int, ...]
    elided: tuple[int, ...]
    floor: int
    elided_lines: int


class _Block(msgspec.Struct):
    """A text that is not whole yet (or a raw stream, which never is): the numbers of its parts, and the last of them."""

    kind: Kind
    parent: str | None
    level: Level
    is_raw: bool
    cleaner: Cleaner | None = None  # from the first control character on
    numbers: list[int] = []
    tail: Part | None = None
    reuse: deque[int] = msgspec.field(default_factory=deque[int])

    def copy(self) -> _Block:
        tail = self.tail.copy() if self.tail else None
        return _Block(self.kind, self.parent, self.level, self.is_raw, self.cleaner and self.cleaner.copy(), list(self.numbers), tail)

    def cleaned(self, text: str) -> str:
        """The clean text that `text` completes."""
        if self.cleaner is None and has_control(text):
            self.cleaner = Cleaner()
        return self.cleaner.feed(text) if self.cleaner else text


class Transcript:
    """The page of one run.

    Parameters
    ----------
    bounds : Bounds
        What is held in memory at most.
    roots : Roots
        From where the paths of tools are seen.

    Notes
    -----
    Text blocks named without a colon are raw streams of agents that have no messages (`cc_executor.model.event.TextWritten.block`): output, not Markdown.
    """

    def __init__(self, bounds: Bounds | None = None, *, roots: Roots = ()) -> None:
        self._bounds, self.roots = bounds or Bounds(), roots
        self._ceiling: int | None = None
        self._next = 0
        self._newest = -1  # the highest number that was ever shown: numbers come in order
        self._latest = -1  # the newest item that an event made; a note is none
        self._latest_topic = ""
        self._items: dict[int, Item | Part] = {}
        self._sizes: dict[int, tuple[int, int]] = {}
        self._held_lines = self._held_chars = 0
        self._blocks: dict[tuple[Kind, str, str | None], _Block] = {}
        self._tools: dict[str, tuple[int, Item, bool]] = {}  # (number, the item, whether its input is whole)
        self._notes: dict[int, Item] = {}
        self._versions: dict[int, int] = {}  # in the order of change
        self._removed: dict[int, tuple[int, bool]] = {}  # (version, whether withdrawn), in that order
        self._forgotten = 0  # removals up to this version are no longer known
        self.version = 0
        self.elided_lines = 0
        self.floor = 0

    # --- reading ----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._items)

    @property
    def items(self) -> tuple[Item, ...]:
        """What is held, in order."""
        return tuple(self._whole(each) for each in self._items.values())

    @property
    def held_lines(self) -> int:
        """Lines of what is held."""
        return self._held_lines

    @property
    def next_number(self) -> int:
        """The number that the next item gets."""
        return self._next

    def get(self, number: int) -> Item | None:
        """The item of this number, if it is held."""
        found = self._items.get(number)
        return None if found is None else self._whole(found)

    def snapshot(self) -> Changes:
        """Everything that is held."""
        return self._changes(self.items, (), reset=True)

    def changes_since(self, version: int) -> Changes:
        """What changed after `version`; everything, marked as a reset, if that is too long ago."""
        if version < self._forgotten or version > self.version:
            return self.snapshot()
        changed: list[int] = []
        for number, at in reversed(self._versions.items()):
            if at <= version:
                break
            changed.append(number)
        removed: list[int] = []
        for number, (at, _) in reversed(self._removed.items()):
            if at <= version:
                break
            removed.append(number)
        return self._changes(tuple(self._whole(self._items[number]) for number in sorted(changed)), sorted(removed), reset=False)

    def is_settled_below(self, number: int) -> bool:
        """Whether no event can change an item with a lower number any more (but one that contradicts an earlier one)."""
        if self._latest < number:
            return False
        return not any(each < number for each in self._open())

    # --- the fold ---------------------------------------------------------------------------------------------------

    def feed(self, events: Iterable[Event]) -> None:
        """Take events in the order of the journal."""
        for event in events:
            self._advance(event)
        self._elide()

    def note(self, text: str, *, level: Level = Level.INFO, topic: str = "note") -> None:
        """Put in a notice that is in no journal (the workspace is not trusted, the supervisor is lost). More than `NOTES_LIMIT` are ignored."""
        if len(self._notes) >= NOTES_LIMIT:
            return
        number = self._next
        self._next += 1
        self._notes[number] = Item(number=number, kind=Kind.NOTICE, title=topic, text=clean(text), level=level)
        self._put(number, self._notes[number])
        self._elide()

    def origin(self) -> Self:
        """An empty transcript with the same notes: what this one was before its first event."""
        other = type(self)(self._bounds, roots=self.roots)
        other._notes = self._notes
        return other

    def copy(self, *, bounds: Bounds | None = None, ceiling: int | None = None) -> Self:
        """A transcript from which the same events give items with the same numbers. It holds none of the items that there are.

        Parameters
        ----------
        bounds : Bounds
            Its own bounds; None: the same.
        ceiling : int
            Items from this number on are folded and not held.
        """
        other = type(self)(bounds or self._bounds, roots=self.roots)
        other._ceiling = ceiling
        other._next, other._latest, other._latest_topic = self._next, self._latest, self._latest_topic
        other._notes = self._notes  # shared on purpose: notes that are put in later belong to the numbering as well
        other._blocks = {key: block.copy() for key, block in self._blocks.items()}
        other._tools = dict(self._tools)
        other._newest = self._newest
        return other

    def _advance(self, event: Event) -> None:
        match event:
            case MessageStarted(parent=parent):
                self._withdraw_unfinished(parent)
            case TextWritten(block=block, text=text, whole=whole, parent=parent, synthetic=synthetic):
                kind = Kind.TEXT if ":" in block else Kind.OUTPUT
                self._write(kind, block, text, whole=whole, parent=parent, level=Level.ERROR if synthetic else Level.INFO)
            case ThinkingWritten(block=block, text=text, whole=whole, parent=parent):
                self._write(Kind.THINKING, block, text, whole=whole, parent=parent)
            case StderrWritten(text=text):
                self._write(Kind.STDERR, "stderr", text, whole=False, parent=None)
            case ToolCalled():
                self._call(event)
            case ToolReturned():
                self._return(event)
            case Exited():
                self._cut_open()
            case _:
                pass  # at most a notice; `notice` is total over all events
        said = notice(event, self.roots)
        if said is not None:
            self._notice(said)

    # --- texts ------------------------------------------------------------------------------------------------------

    def _write(self, kind: Kind, name: str, text: str, *, whole: bool, parent: str | None, level: Level = Level.INFO) -> None:
        key = (kind, name, parent)
        is_raw = kind in {Kind.OUTPUT, Kind.STDERR}
        block = self._blocks.get(key)
        if block is None:
            block = self._blocks[key] = _Block(kind, parent, level, is_raw)
            self._close_oldest()
        if not whole or is_raw:
            if block.tail is not None and is_raw and block.tail.number != self._latest:
                block.tail = None  # something else came since: go on below it
                block.numbers.clear()
            self._grow(block, block.cleaned(text))
            return
        # The authoritative text takes the places of the pieces.
        final = _Block(kind, parent, level, is_raw, reuse=deque(block.numbers))
        self._grow(final, clean(text))
        for number in final.numbers:
            self._settle(number, ItemState.DONE)
        self._withdraw(final.reuse)
        del self._blocks[key]

    def _grow(self, block: _Block, text: str) -> None:
        for index, piece in enumerate(text.split("\r")):
            if index and block.tail is not None:
                block.tail.restart_line()
            for at in range(0, len(piece), PART_CHARS):  # slices, because what does not fit is copied on
                self._append(block, piece[at : at + PART_CHARS])
        if block.tail is not None:
            self._put(block.tail.number, block.tail)

    def _append(self, block: _Block, piece: str) -> None:
        part = block.tail or self._new_part(block, continues=False, fence="")
        part.append(piece)
        while (end := part.overflow()) is not None:
            text = part.text
            part.replace(text[: end.at])
            if block.is_raw:
                part.settle(ItemState.DONE)
                block.numbers.clear()  # nothing will ever replace it
            self._put(part.number, part)
            self._elide()
            part = self._new_part(block, continues=True, fence=end.fence)
            part.append(text[end.at :])

    def _new_part(self, block: _Block, *, continues: bool, fence: str) -> Part:
        number = block.reuse.popleft() if block.reuse else self._number()
        state = ItemState.DONE if block.is_raw else ItemState.OPEN
        part = Part(number=number, kind=block.kind, parent=block.parent, level=block.level, continues=continues, fence=fence, state=state)
        block.numbers.append(number)
        block.tail = part
        return part

    def _withdraw_unfinished(self, parent: str | None) -> None:
        for key, block in list(self._blocks.items()):
            if not block.is_raw and block.parent == parent:
                self._withdraw(block.numbers)
                del self._blocks[key]
        for tool_id, (number, item, whole) in list(self._tools.items()):
            if not whole and item.parent == parent:
                self._withdraw((number,))
                del self._tools[tool_id]

    # --- tools ------------------------------------------------------------------------------------------------------

    def _call(self, event: ToolCalled) -> None:
        known = self._tools.get(event.tool_id)
        number = known[0] if known else self._number()
        item = Item(number=number, kind=Kind.TOOL, state=ItemState.OPEN, title=clean(event.name), parent=event.parent)
        if event.whole:
            call = toolcall.fields(event.input, self.roots)
            shown = excerpt(clean(toolcall.readable(call) if call is not None else event.input))
            summary = clean(toolcall.summary(call) if call is not None else toolcall.one_line(event.input))
            item = msgspec.structs.replace(item, summary=summary, input=shown.text, left_out=shown.left_out, lines=1 + _lines(shown.text))
        elif known:
            return  # one more piece of its input: it is shown once it is whole
        self._tools[event.tool_id] = (number, item, event.whole)
        self._put(number, item)
        self._close_oldest()

    def _return(self, event: ToolReturned) -> None:
        known = self._tools.pop(event.tool_id, None)
        item = known[1] if known else Item(number=self._number(), kind=Kind.TOOL, title="tool", parent=event.parent)
        shown = excerpt(clean(event.text))
        self._put(
            item.number,
            msgspec.structs.replace(
                item,
                state=ItemState.FAILED if event.is_error else ItemState.DONE,
                text=shown.text,
                left_out=item.left_out + shown.left_out,
                lines=item.lines + _lines(shown.text),
            ),
        )

    def _close_oldest(self) -> None:
        """Bound what is open; the oldest is taken for lost."""
        if len(self._tools) > OPEN_LIMIT:
            number, item, _ = self._tools.pop(next(iter(self._tools)))
            self._put(number, msgspec.structs.replace(item, state=ItemState.CUT))
        if len(self._blocks) > OPEN_LIMIT:
            block = self._blocks.pop(next(iter(self._blocks)))
            for number in block.numbers:
                self._settle(number, ItemState.CUT)

    def _cut_open(self) -> None:
        """The run is over; what is open stays as it is, unless its end arrives late."""
        for block in self._blocks.values():
            for number in block.numbers:
                if not block.is_raw:
                    self._settle(number, ItemState.CUT)
        for number, item, _ in self._tools.values():
            self._put(number, msgspec.structs.replace(item, state=ItemState.CUT))

    # --- notices ----------------------------------------------------------------------------------------------------

    def _notice(self, said: Notice) -> None:
        replaces = said.replaces and said.topic == self._latest_topic
        number = self._latest if replaces else self._number()
        text = excerpt(clean(said.text))
        item = Item(
            number=number,
            kind=Kind.NOTICE,
            title=said.topic,
            text=text.text,
            level=said.level,
            left_out=text.left_out,
            lines=_lines(text.text),
        )
        self._latest_topic = said.topic
        self._put(number, item)

    # --- the list ---------------------------------------------------------------------------------------------------

    def _number(self) -> int:
        while self._next in self._notes:  # a replay: here somebody put in a note
            self._put(self._next, self._notes[self._next])
            self._next += 1
        number = self._latest = self._next
        self._latest_topic = ""
        self._next += 1
        return number

    def _open(self) -> Iterator[int]:
        for block in self._blocks.values():
            if not block.is_raw:
                yield from block.numbers
        for number, _, _ in self._tools.values():
            yield number

    def _pinned(self) -> set[int]:
        """What must not be elided, because more of it comes. Whole parts of an unfinished text may go."""
        tails = {
            block.tail.number
            for block in self._blocks.values()
            if block.tail is not None
            and not (block.is_raw and block.tail.number != self._latest)  # a raw stream goes on in its last item or in a new one
        }
        return tails | {number for number, _, _ in self._tools.values()}

    def _settle(self, number: int, state: ItemState) -> None:
        found = self._items.get(number)
        if isinstance(found, Part):
            found.settle(state)
            self._put(number, found.item())
        elif found is not None:
            self._put(number, msgspec.structs.replace(found, state=state))

    def _put(self, number: int, thing: Item | Part) -> None:
        """Show a new item, or a held one anew. What was elided or withdrawn stays so."""
        if self._ceiling is not None and number >= self._ceiling:
            return
        if number not in self._items and number <= self._newest:
            return
        self._newest = max(self._newest, number)
        self._hold(number, thing)

    def _hold(self, number: int, thing: Item | Part) -> None:
        self._items[number] = thing
        size = (thing.lines, thing.chars if isinstance(thing, Part) else len(thing.text) + len(thing.input))
        self._count(number, size)
        self.version += 1
        self._versions.pop(number, None)
        self._versions[number] = self.version

    def _count(self, number: int, size: tuple[int, int]) -> None:
        lines, chars = self._sizes.get(number, (0, 0))
        self._sizes[number] = size
        self._held_lines += size[0] - lines
        self._held_chars += size[1] - chars

    def _withdraw(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if number in self._items:
                self._remove(number, withdrawn=True)

    def _remove(self, number: int, *, withdrawn: bool) -> None:
        del self._items[number]
        lines, chars = self._sizes.pop(number)
        self._held_lines -= lines
        self._held_chars -= chars
        self._versions.pop(number, None)
        self.version += 1
        self._removed[number] = (self.version, withdrawn)
        if len(self._removed) > REMOVED_LIMIT:
            oldest = next(iter(self._removed))
            self._forgotten = self._removed.pop(oldest)[0]
        if not withdrawn:
            self.elided_lines += lines
            self.floor = max(self.floor, number + 1)

    def _elide(self) -> None:
        bounds = self._bounds
        if self._held_lines <= bounds.lines and len(self._items) <= bounds.items and self._held_chars <= bounds.chars:
            return
        pinned = self._pinned()
        for number in list(islice(self._items, len(self._items) - 1)):
            if self._held_lines <= bounds.lines and len(self._items) <= bounds.items and self._held_chars <= bounds.chars:
                return
            if number not in pinned:
                self._remove(number, withdrawn=False)

    def _changes(self, items: tuple[Item, ...], removed: Iterable[int], *, reset: bool) -> Changes:
        withdrawn: list[int] = []
        elided: list[int] = []
        for number in removed:
            (withdrawn if self._removed[number][1] else elided).append(number)
        return Changes(
            version=self.version, reset=reset, items=items, withdrawn=tuple(withdrawn), elided=tuple(elided),
            floor=self.floor, elided_lines=self.elided_lines,
        )  # fmt: skip

    @staticmethod
    def _whole(thing: Item | Part) -> Item:
        return thing.item() if isinstance(thing, Part) else thing


def _lines(text: str) -> int:
    return count_lines(text) if text else 0
