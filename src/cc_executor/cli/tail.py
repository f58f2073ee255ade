"""`cc-executor tail`: the last lines of a run's text, and with -f what comes. Looks at the journal; commands nothing."""

from __future__ import annotations

import io
import sys
import time
from collections import deque
from typing import Annotated, Final, TextIO

import typer

from cc_executor.cli.kept import LIST_LENGTH, RunName, hint, home, run_folder
from cc_executor.cli.writer import TerminalWriter, closing_lines, exit_code
from cc_executor.runtime.plan import removed, roots_of
from cc_executor.runtime.reader import JournalReader
from cc_executor.store.journal import RunFolder, RunStanding

LOOK: Final = 0.2  # seconds between two looks at a run that goes on; tail(1) takes 1
_LINE_LIMIT: Final = 2**20  # characters of an unfinished line that are held back


class Held(io.StringIO):
    """The last lines of what is written, until it is let go; from then on everything."""

    def __init__(self, out: TextIO, lines: int) -> None:
        super().__init__()
        self._out: TextIO | None = None
        self._target = out
        self._lines: deque[str] = deque(maxlen=lines)
        self._rest = ""

    def write(self, text: str, /) -> int:
        """Hold it back, or hand it on."""
        if self._out is not None:
            return self._out.write(text)
        *whole, self._rest = (self._rest + text).split("\n")
        self._rest = self._rest[-_LINE_LIMIT:]
        self._lines.extend(whole)
        return len(text)

    def flush(self) -> None:
        """Nothing is handed on before its time."""
        if self._out is not None:
            self._out.flush()

    def fileno(self) -> int:
        """The number of what it is handed on to."""
        return self._target.fileno()

    def let_go(self) -> None:
        """Write what is held."""
        last = [*self._lines, self._rest] if self._rest else [*self._lines, ""]
        most = (self._lines.maxlen or 0) + (not self._rest)
        if held := "\n".join(last[max(0, len(last) - most) :]):
            self._target.write(held)
            self._target.flush()
        self._out = self._target


def tail_command(
    run: RunName = "",
    *,
    lines: Annotated[int, typer.Option("--lines", "-n", metavar="N", min=0, max=100_000, help="How many lines.")] = LIST_LENGTH,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show what comes, too, until the run has ended; then exit with its outcome's code.")
    ] = False,
) -> None:
    """Show the last lines of a run's text. Ctrl-C ends the watching, not the run."""
    folder = run_folder(run)
    request = folder.request()
    if said := removed(folder):
        hint(f"{said}: `cc-executor show {folder.run_id}` has the text of the receipt.")
    reader = JournalReader(folder, agent=request.agent)
    out, err = Held(sys.stdout, lines), Held(sys.stderr, 0)
    writer = TerminalWriter(out, err, pieces=True)
    writer.roots = roots_of(request.cwd)
    _show(reader, writer)
    if not follow:
        writer.close()
        out.let_go()
        return
    out.let_go()
    err.let_go()
    while reader.exited is None and _goes_on(folder):
        time.sleep(LOOK)  # a file that grows tells nobody
        _show(reader, writer)
    _show(reader, writer)  # what was written between the last look and the end
    if reader.exited is None:
        writer.feed(reader.close())
    writer.close()
    import anyio  # from here on with --follow alone: the lines of a journal need nothing of what follows and seals runs

    from cc_executor.cli.sealed import receipt_of

    receipt = anyio.run(receipt_of, home(), folder.run_id)
    if receipt is not None:
        for line in closing_lines(receipt):
            writer.say(line)
        raise typer.Exit(exit_code(receipt, writer))


def _show(reader: JournalReader, writer: TerminalWriter) -> None:
    while (events := reader.read()) is not None:
        writer.feed(events)


def _goes_on(folder: RunFolder) -> bool:
    return folder.standing(time.time()) in {RunStanding.STARTING, RunStanding.RUNNING} or folder.is_supervised()
