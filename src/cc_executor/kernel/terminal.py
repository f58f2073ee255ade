"""A run in a plain terminal: lines as they come. Knows a text stream; knows no widgets, no colours, no cursor moves."""

from __future__ import annotations

from typing import Final, TextIO

from cc_executor.model.item import Item, ItemState, Kind
from cc_executor.model.receipt import Receipt
from cc_executor.model.toolcall import one_line
from cc_executor.model.transcript import Changes, Transcript
from cc_executor.model.words import REHEARSAL, plain_text

WIDTH: Final = 120
RESULT_CHARS: Final = 200


class TerminalView:
    """Writes what is new of a transcript to a stream.

    Text appears while it is written; a tool call is one line when it is complete and one when it returns. What was written stays: if the agent takes
    back what it had begun, a line says so.

    Parameters
    ----------
    stream : TextIO
        Where to write, mostly ``sys.stdout``.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._version = 0
        self._texts: dict[int, str] = {}  # what is written of texts that may grow
        self._tools: dict[int, ItemState | None] = {}  # None: the call is not complete
        self._done_below = 0
        self._column = 0
        self._current: int | None = None
        self._unfinished: Item | None = None
        self._elided = 0

    def update(self, transcript: Transcript) -> None:
        """Write what has changed since the last time."""
        changes = transcript.changes_since(self._version)
        self._version = changes.version
        self._withdraw(changes)
        self._say_elided(changes)
        for item in changes.items:
            self._write(item, is_last=item.number + 1 == transcript.next_number)
        self._stream.flush()

    def close(self, receipt: Receipt, *, text_is_written: bool = True) -> None:
        """Write how it ended. `text_is_written`: the final text was streamed already, so only what comes after it is due."""
        self._finish_line()
        shown = receipt.model_copy(update={"text": ""}) if text_is_written else receipt
        self._line(plain_text(shown))
        self._stream.flush()

    def rehearsal(self) -> None:
        """Say that no real agent speaks."""
        self._line(REHEARSAL)

    def _withdraw(self, changes: Changes) -> None:
        shown = [self._texts.pop(number, "") for number in changes.withdrawn]
        if any(shown):
            self._line("  (what was begun above is void; it is written anew)")
        for number in changes.withdrawn:
            self._tools.pop(number, None)

    def _say_elided(self, changes: Changes) -> None:
        """Lines that came and went between two updates."""
        if changes.reset or changes.elided:
            never = [number for number in changes.elided if number >= self._done_below and number not in self._texts]
            for number in changes.elided:
                self._texts.pop(number, None)
                self._tools.pop(number, None)
            missed = changes.elided_lines - self._elided if never or changes.reset else 0
            if missed > 0 and (never or changes.floor > self._done_below):
                self._line(f"  … up to {missed:,} lines left out here; the journal has them …")
        self._elided = changes.elided_lines

    def _write(self, item: Item, *, is_last: bool) -> None:
        if self._unfinished is not None and self._unfinished.number != item.number:
            self._finish_line()
        self._done_below = max(self._done_below, item.number + 1)
        match item.kind:
            case Kind.TEXT:
                self._text(item, item.text)
            case Kind.OUTPUT | Kind.STDERR:
                self._unfinished = item if is_last else None
                self._text(item, item.text[: item.text.rfind("\n") + 1] if is_last else item.text)
            case Kind.THINKING:
                if item.number not in self._texts:
                    self._texts[item.number] = ""
                    if not item.continues:
                        self._line("✻ Thinking…")
            case Kind.TOOL:
                self._tool(item)
            case Kind.NOTICE:
                if self._texts.get(item.number) != item.text:
                    self._texts[item.number] = item.text
                    self._line(f"• {item.text}")

    def _finish_line(self) -> None:
        """Write the last line of raw output, which was held because a carriage return could have begun it anew."""
        if self._unfinished is not None:
            self._text(self._unfinished, self._unfinished.text)
            self._unfinished = None

    def _text(self, item: Item, text: str) -> None:
        written = self._texts.get(item.number, "")
        if text == written:
            return
        if text.startswith(written):
            rest = text[len(written) :]
            if self._current != item.number and not item.continues:
                self._break()
        else:
            self._line("  (the above was rewritten:)")
            rest = text
        self._current = item.number
        self._texts[item.number] = text
        self._put(rest)

    def _tool(self, item: Item) -> None:
        known = item.number in self._tools
        indent = "  " if item.parent else ""
        if item.state is ItemState.OPEN and not item.input and not item.summary:
            self._tools.setdefault(item.number, None)
            return
        if not known or self._tools[item.number] is None:
            self._line(f"{indent}⏺ {item.title}({one_line(item.summary, WIDTH)})")
        if item.state is not ItemState.OPEN and self._tools.get(item.number) is not item.state:
            self._line(f"{indent}  ⎿ {_result(item)}")
        self._tools[item.number] = item.state

    def _break(self) -> None:
        if self._column:
            self._put("\n")

    def _line(self, text: str) -> None:
        self._break()
        self._current = None
        self._put(text + "\n")

    def _put(self, text: str) -> None:
        if text:
            self._stream.write(text)
            self._column = len(text) - text.rfind("\n") - 1 + (0 if "\n" in text else self._column)


def _result(item: Item) -> str:
    if item.state is ItemState.CUT:
        return "no result"
    lines = item.text.count("\n") + 1 + item.left_out if item.text else 0
    first = one_line(item.text.strip(), RESULT_CHARS) if lines == 1 or item.state is ItemState.FAILED else f"{lines:,} lines"
    if item.state is ItemState.FAILED:
        return f"error: {first}" if item.text else "error"
    return first if item.text else "(nothing)"
