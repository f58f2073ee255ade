"""An agent's questions in a cell: shown by its view, asked in a terminal IPython, refused where nobody is. Knows IPython and a run; decides by `policy.ask`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import Any

from cc_executor.errors import ControlFailed
from cc_executor.kernel.display import Display, StaticDisplay
from cc_executor.kernel.loop import own
from cc_executor.kernel.shell_pump import takes_input
from cc_executor.model.ask import Ask
from cc_executor.policy.ask import Answerer, Place, answerer, in_kernel, in_terminal
from cc_executor.runtime.answers import Attendant, give
from cc_executor.runtime.askpage import shown
from cc_executor.runtime.errand import in_thread
from cc_executor.runtime.prompt import prompted
from cc_executor.runtime.run import Batch, Run


class CellAsks:
    """Looks after the questions of a run that a cell follows.

    Parameters
    ----------
    shell
        IPython's.
    run : Run
    display : Display
        What shows the run here.
    owns : bool
        Whether this cell has started the run: then what nobody can answer is refused.
    """

    def __init__(self, shell: Any, run: Run, display: Display, *, owns: bool) -> None:
        self._kernel: Any = getattr(shell, "kernel", None)
        self._takes_input = takes_input(self._kernel)  # as the request of this cell says; no later one counts
        self._run = run
        self._display = display
        self._prompts: dict[str, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()
        self._attendant = Attendant(run, self._who, ask=self._put, withdraw=self._withdraw, refuses=owns)

    async def attend(self, batch: Batch) -> None:
        """Look at what has happened."""
        await self._attendant.attend(batch)

    def close(self) -> None:
        """Nobody looks any more."""
        for ask_id in list(self._prompts):
            self._withdraw(ask_id)

    def _who(self) -> Answerer:
        is_shown = not isinstance(self._display, StaticDisplay)
        if self._kernel is not None:
            looked_at = bool(getattr(self._display, "was_looked_at", False))
            return in_kernel(is_shown=is_shown, takes_input=self._takes_input, was_looked_at=looked_at)
        return in_terminal(reads=_is_terminal(sys.stdin), shows=_is_terminal(sys.stdout)) if is_shown else answerer(Place.CAPTURED)

    def _put(self, ask: Ask) -> None:
        if self._kernel is None:
            self._prompts[ask.ask_id] = own(self._prompt(ask), name=f"cc_executor question {ask.ask_id}")
        elif not hasattr(self._display, "was_looked_at"):  # lines of text, which nobody can click
            print(f"It waits for you: `cc-executor answer {self._run.run_id}` in a terminal answers.")  # noqa: T201 - the view is text

    def _withdraw(self, ask_id: str) -> None:
        task = self._prompts.pop(ask_id, None)
        if task is not None and not task.done():
            task.cancel()

    async def _prompt(self, ask: Ask) -> None:
        async with self._turn:
            answer = await prompted(shown(ask, cwd=self._run.request.cwd, mask=self._run.mask), fd=sys.stdin.fileno(), say=_say)
            with suppress(ControlFailed):  # it was answered elsewhere, or the run has ended
                await in_thread(lambda: give(self._run.folder, ask, answer, by="terminal"))


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a terminal


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty()) and stream.fileno() >= 0
    except (AttributeError, OSError, ValueError):
        return False
