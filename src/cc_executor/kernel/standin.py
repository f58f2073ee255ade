"""Text in the place of a live view that no page can show. Knows the view's output, and whether a page has its model; knows nothing of runs and lists.

A kernel and the JupyterLab in front of it are often installed apart. Without anywidget there, or with another version, a page shows an error in the place of
the view, and somebody waits for an hour without a word and without a button.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from cc_executor.kernel.display import Bundle, replace_mime
from cc_executor.kernel.loop import awaiting_cell
from cc_executor.kernel.shell_pump import is_pumping
from cc_executor.policy.redact import Redactor

if TYPE_CHECKING:
    from anywidget import AnyWidget

PATIENCE: Final = 6.0  # seconds in which the kernel would have heard of a page that has the view's model; a tenth of one is usual
BLOCKED: Final = 0.2  # seconds between two ticks; what is longer was somebody's blocking code, in which nothing is heard
PACE: Final = 2.0  # seconds between two texts
LINES: Final = 40


def needed_version(view: AnyWidget) -> str:
    """The versions of anywidget in a page that can show a view of this kernel, as pip names them: ``0.11.*``."""
    untyped: Any = view
    return str(untyped.get_state("_model_module_version")["_model_module_version"]).lstrip("~^")


class StandIn:
    """The text, from when nobody can have the view until somebody has.

    Parameters
    ----------
    output : Bundle
        The output with the view, for when a page that can show it is opened after all.
    display_id : str
        Of that output.
    is_heard : callable
        Whether a page has the view's model.
    words : callable
        What there is to be read by now.
    needs : str
        The version of anywidget that the page has to have.
    steered : str
        How the run or list is ended without buttons.
    """

    def __init__(
        self, output: Bundle, *, display_id: str, is_heard: Callable[[], bool], words: Callable[[], str], needs: str, steered: str
    ) -> None:
        self._output = output
        self._display_id = display_id
        self._is_heard = is_heard
        self._words = words
        self._head = (
            f"This page cannot show the live view. Where JupyterLab or Notebook itself is installed: pip install ipywidgets 'anywidget=={needs}', and load "
            f"the page again. Until then the work is shown as text. {steered}"
        )
        self._mask = Redactor(()).text  # unlike the view, it stays in a notebook that is saved meanwhile
        self._waited = 0.0
        self._last_tick: float | None = None
        self._due = 0.0
        self._shown = ""

    def tick(self, now: float) -> None:
        """Show what is due. Called some 25 times a second; `now` in monotonic seconds."""
        if self._is_heard():
            if self._shown:
                self._shown = ""
                replace_mime(*self._output, display_id=self._display_id)
            return
        if self._waited < PATIENCE:
            self._wait(now)
        elif now >= self._due:
            self._due = now + PACE
            lines = self._words().rstrip("\n").split("\n")[-LINES:]
            text = self._mask("\n".join([self._head, "", *lines]))
            if text != self._shown:
                self._shown = text
                replace_mime({"text/plain": text}, self._output[1], display_id=self._display_id)

    def _wait(self, now: float) -> None:
        """Count the time in which a page would have been heard: the loop turns, and no cell keeps its messages from the kernel."""
        passed = min(now - self._last_tick, BLOCKED) if self._last_tick is not None else 0.0
        self._last_tick = now
        if threading.current_thread() is threading.main_thread() and (is_pumping() or awaiting_cell() is None):
            self._waited += passed
