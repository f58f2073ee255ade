"""Which of its questions the agent still waits for, told from how its lines begin. Knows bytes, marks and ids; knows no agent, no pipe and no clock."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

ID_LIMIT: Final = 200  # bytes; the Claude Code CLI gives UUIDs
OPEN_LIMIT: Final = 256  # questions at a time; agents ask one, or one for each tool of a message
ANSWERED_LIMIT: Final = 4096  # ids that are remembered, so that a second answer can be told from one to nothing


class Asks:
    """Watches raw output for lines that ask and lines that take a question back, wherever blocks are cut.

    Parameters
    ----------
    asked : tuple of bytes
        A line that begins with one of these asks; what follows, to the next quotation mark, is the question's id.
    withdrawn : tuple of bytes
        A line that begins with one of these takes back the question of the id that follows.
    """

    def __init__(self, asked: tuple[bytes, ...], withdrawn: tuple[bytes, ...]) -> None:
        self._needles = tuple((b"\n" + mark, is_ask) for marks, is_ask in ((asked, True), (withdrawn, False)) for mark in marks)
        self._reach = max(len(needle) for needle, _ in self._needles) - 1
        self._tail = b"\n"  # the end of what came before; the first line begins a line, too
        self._open: dict[str, None] = {}
        self._answered: dict[str, None] = {}

    @property
    def waiting(self) -> bool:
        """Whether the agent waits for an answer."""
        return bool(self._open)

    def open(self) -> list[str]:
        """The ids of the questions that wait."""
        return list(self._open)

    def look(self, buffer: bytearray, size: int) -> None:
        """Look at the next `size` bytes, which are at the beginning of `buffer`."""
        text = self._tail + bytes(memoryview(buffer)[:size])
        done = 0
        while True:
            found = [(place, needle, is_ask) for needle, is_ask in self._needles if (place := text.find(needle, done)) >= 0]
            if not found:
                break
            place, needle, is_ask = min(found)
            begin = place + len(needle)
            rest = text[begin : begin + ID_LIMIT + 1]
            end = rest.find(b'"')
            if end < 0 and len(rest) <= ID_LIMIT and b"\n" not in rest:  # the rest of the id is still to come
                self._tail = text[place:]
                return
            done = begin
            if end > 0 and b"\n" not in rest[:end]:
                self._note(rest[:end].decode("utf-8", "replace"), is_ask=is_ask)
        self._tail = text[max(done, len(text) - self._reach) :]

    def _note(self, ask: str, *, is_ask: bool) -> None:
        if not is_ask:
            self._open.pop(ask, None)
        elif ask not in self._answered and len(self._open) < OPEN_LIMIT:
            self._open[ask] = None

    def problem(self, ask: str) -> str | None:
        """Why an answer to this question cannot be taken, or None."""
        if ask in self._open:
            return None
        return "that question has been answered already" if ask in self._answered else "that question is not open"

    def settle(self, ask: str) -> None:
        """It has its answer."""
        self._open.pop(ask, None)
        self._answered[ask] = None
        if len(self._answered) > ANSWERED_LIMIT:
            del self._answered[next(iter(self._answered))]

    def forget(self) -> None:
        """The agent has said its last word: it waits for nothing more."""
        self._open.clear()
