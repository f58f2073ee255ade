"""A cell that waits for the end of a usage limit: how long still, a button to go on now, one to end the waiting. Knows widgets; starts nothing."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from cc_executor.kernel.config import CCExecutor
from cc_executor.kernel.display import replace_mime, show_mime
from cc_executor.policy.retry import Again
from cc_executor.runtime.again import wait_until
from cc_executor.runtime.narrow import has_a_cursor
from cc_executor.store.localtime import local


class Countdown:
    """The waiting of one cell.

    Parameters
    ----------
    shell : InteractiveShell
    again : Again
    settings : CCExecutor
    """

    def __init__(self, shell: Any, again: Again, *, settings: CCExecutor) -> None:
        self._again = again
        self._is_hurried = False
        self._is_given_up = False
        self._in_notebook = hasattr(shell, "kernel")
        self._shown = ""
        self._widgets: list[Any] = []
        self._display_id = f"cc-executor-wait-{id(self):x}"
        if self._in_notebook and settings.view != "text":
            self._show_widget()

    def _show_widget(self) -> None:
        import ipywidgets  # pyright: ignore[reportMissingTypeStubs] - it ships none

        from cc_executor.kernel.live import WIDGET_MIME

        kit: Any = ipywidgets  # it is untyped
        self._label = kit.Label(value=self._words(), layout=kit.Layout(flex="1 1 0"))
        narrow = kit.Layout(width="auto", flex="0 0 auto")
        go, stop = kit.Button(description="Go on now", layout=narrow), kit.Button(description="Stop waiting", layout=narrow)
        go.on_click(self.hurry)
        stop.on_click(self.give_up)
        box = kit.HBox([self._label, go, stop])
        self._widgets = [box, self._label, go, stop]
        data = {WIDGET_MIME: {"model_id": box.model_id, "version_major": 2, "version_minor": 0}, "text/plain": self._words()}
        show_mime(data, {}, display_id=self._display_id)

    def hurry(self, _: object = None) -> None:
        """Go on at once. From any thread, and as a button's callback."""
        self._is_hurried = True

    def give_up(self, _: object = None) -> None:
        """End the waiting. As above."""
        self._is_given_up = True

    async def over(self) -> bool:
        """Wait; False when somebody gave it up."""
        if not self._widgets:
            self._write(self._words(), end="" if self._is_live else "\n")
        try:
            await wait_until(self._again.until, is_over=lambda: self._is_hurried or self._is_given_up, tell=self._tell)
        except asyncio.CancelledError:
            self.give_up()
            raise
        finally:
            self._end()
        return not self._is_given_up

    @property
    def _is_live(self) -> bool:
        return not self._in_notebook and has_a_cursor(sys.stdout)

    def _words(self) -> str:
        left = max(0.0, self._again.until - time.time())
        at = f"{local(self._again.until):%H:%M:%S}"
        minutes, seconds = divmod(round(left), 60)
        how = "" if self._widgets else "; an interrupt ends the waiting"
        return f"Waits {minutes}:{seconds:02}, until {at}: {self._again.why}{how}"

    def _tell(self, left: float) -> None:
        words = self._words()
        if words == self._shown:
            return
        self._shown = words
        if self._widgets:
            self._label.value = words
        elif self._is_live:
            self._write(f"\r\x1b[K{words}", end="")

    def _end(self) -> None:
        said = "The waiting was ended." if self._is_given_up else f"Waited: {self._again.why}."
        if self._widgets:
            replace_mime({"text/plain": said}, {}, display_id=self._display_id)
            for widget in self._widgets:
                widget.close()
        else:
            self._write(f"\r\x1b[K{said}" if self._is_live else said)

    def _write(self, text: str, end: str = "\n") -> None:
        print(text, end=end, flush=True)  # noqa: T201 - this is the terminal's view
