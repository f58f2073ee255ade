"""A run as lines in a terminal: the agent's words on standard output, everything about them on standard error.

Knows streams and events; knows no run. What an agent writes is cleaned of terminal control before it is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TextIO

import msgspec

from cc_executor.cli.codes import OUTCOME_CODES
from cc_executor.cli.streams import OUTPUT_LOST, is_about_output, lead_nowhere
from cc_executor.model import toolcall
from cc_executor.model.ansi import Cleaner, clean
from cc_executor.model.event import Event, MessageStarted, StderrWritten, TextWritten, ToolCalled, ToolReturned
from cc_executor.model.notice import duration, money, notice
from cc_executor.model.paths import Roots
from cc_executor.model.receipt import Receipt

BLOCKS_LIMIT: Final = 64  # texts that are being written at the same time; agents write one
ERROR_CHARS: Final = 400  # of a tool's error


class _Shown(msgspec.Struct):
    """What of one text is on the screen."""

    cleaner: Cleaner = msgspec.field(default_factory=Cleaner)
    raw: str = ""


class TerminalWriter:
    """Writes events as they come.

    Parameters
    ----------
    out, err : text streams
    pieces : bool
        Write a text as it grows, for people. Without, each text is written once it is whole, so that a pipe gets no text that becomes void.
        A command's own output is always written as it comes.

    Attributes
    ----------
    roots : Roots
        From where the paths of tools are seen: the run's, once there is one.
    """

    def __init__(self, out: TextIO, err: TextIO, *, pieces: bool) -> None:
        self._out, self._err, self._pieces = out, err, pieces
        self._open: dict[str, _Shown] = {}
        self._mid_line = False
        self._stands = False
        self._stderr = Cleaner()
        self.roots: Roots = ()
        self.lost: OSError | None = None  # why not everything was written

    def feed(self, events: Iterable[Event]) -> None:
        """Write what these events say, and flush."""
        for event in events:
            self._write(event)
        self._out.flush()
        self._tell()

    def stand(self, text: str) -> None:
        """Let a line stand below everything until something else is written. For terminals; not within a line, whose growth is progress enough."""
        if not self._mid_line:
            self._tell(f"\r\x1b[K{text}")
            self._stands = True

    def clear(self) -> None:
        """Take the line that stands away."""
        if self._stands:
            self._stands = False
            self._tell("\r\x1b[K")

    def say(self, text: str) -> None:
        """A line of our own."""
        self.clear()
        self._end_line()
        self._out.flush()
        self._tell(f"{text}\n")

    def abandon(self) -> None:
        """Write no more: nobody reads, or there is no room."""
        lead_nowhere(self._out)

    def lose(self, error: OSError, said: str) -> None:
        """Write no more for this reason, and say so where that can be said."""
        self.lost = error
        self.abandon()
        try:
            self.say(said)
        except OSError:
            lead_nowhere(self._err)

    def close(self) -> None:
        """End an unfinished line."""
        self.clear()
        self._end_line()
        self._out.flush()

    def _write(self, event: Event) -> None:
        match event:
            case TextWritten(parent=None):
                self._text(event)
            case MessageStarted(parent=None):
                if self._pieces and any(shown.raw for name, shown in self._open.items() if ":" in name):
                    self.say("  (the answer was cut off; it begins anew)")
                self._open = {name: shown for name, shown in self._open.items() if ":" not in name}
            case ToolCalled(whole=True, name=name, input=source, parent=parent):
                about = toolcall.summary(toolcall.fields(source, self.roots) or {})
                self.say(f"{'    ' if parent else '  '}→ {clean(name)}{f': {clean(about)}' if about else ''}")
            case ToolReturned(is_error=True, text=text, parent=parent):
                self.say(f"{'    ' if parent else '  '}✗ {toolcall.one_line(clean(text), ERROR_CHARS)}")
            case StderrWritten(text=text):
                self.clear()
                self._end_line()
                self._tell(self._stderr.feed(text))
            case _:
                said = notice(event, self.roots)
                if said is not None:
                    self.say(f"  · {clean(said.text)}")

    def _tell(self, text: str = "") -> None:
        """Write on standard error, and flush. Without room, nothing more is said there; the run goes on, and what the agent writes is shown."""
        try:
            self._err.write(text)
            self._err.flush()
        except OSError as error:
            if not is_about_output(error):
                raise
            self.lost = error
            lead_nowhere(self._err)

    def _text(self, event: TextWritten) -> None:
        shown = self._open.get(event.block)
        if not event.whole:
            if shown is None:
                if len(self._open) >= BLOCKS_LIMIT:
                    self._open.pop(next(iter(self._open)))
                shown = self._open[event.block] = _Shown()
            if ":" not in event.block:  # a command's output: it is never whole, and nothing of it becomes void
                self._put(shown.cleaner.feed(event.text))
            elif self._pieces:
                shown.raw += event.text
                self._put(shown.cleaner.feed(event.text))
            return
        self._open.pop(event.block, None)
        if shown is not None and shown.raw and event.text.startswith(shown.raw):
            self._put(shown.cleaner.feed(event.text[len(shown.raw) :]))
        else:
            self._end_line()
            self._put(clean(event.text))
        self._end_line()

    def _put(self, text: str) -> None:
        if text:
            self.clear()
            self._out.write(text)
            self._mid_line = not text.endswith("\n")

    def _end_line(self) -> None:
        if self._mid_line:
            self._out.write("\n")
            self._mid_line = False


def closing_lines(receipt: Receipt) -> list[str]:
    """The end of a run in a few lines: outcome, evidence, checks, cure."""
    outcome, times = receipt.outcome, receipt.times
    parts = [outcome.kind.value, duration(times.active)]
    if receipt.cost is not None and not receipt.rehearsed:
        parts.append(money(receipt.cost))
    if receipt.rehearsed:
        parts.append(f"rehearsal {receipt.rehearsed}")
    parts += [receipt.standing.value, f"run {receipt.run_id}"]
    lines = [" · ".join(parts)]
    if not outcome.is_plain:
        lines.append(f"  {outcome.summary}")
    if not outcome.ok:
        lines += [f"  evidence: {item}" for item in outcome.evidence]
    for check in receipt.checks:
        mark = {True: "✓", False: "✗", None: "?"}[check.passed]
        lines.append(f"  {mark} {check.what}: {toolcall.one_line(check.detail, ERROR_CHARS)}")
    lines += [f"  ! {each.sentence()}" for each in receipt.hooks if not each.ok]
    if outcome.cure:
        lines.append(f"  {outcome.cure}")
    return [clean(line) for line in lines]


def exit_code(receipt: Receipt, writer: TerminalWriter) -> int:
    """What a command that has shown a run to its end exits with: an outcome other than ok comes before an output that could not be written."""
    code = OUTCOME_CODES[receipt.outcome.kind]
    return OUTPUT_LOST if writer.lost is not None and code == 0 else code
