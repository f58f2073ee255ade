"""What of a run is shown where: a widget in a notebook, lines in a terminal, nothing inside `%%capture` until the end."""

from __future__ import annotations

import html
import sys
from typing import Any, Protocol

import IPython.display
from IPython.core.displaypub import CapturingDisplayPublisher

from cc_executor.kernel.config import CCExecutor
from cc_executor.kernel.notify import bell_of, notify_of
from cc_executor.kernel.render import TerminalView, static_bundle
from cc_executor.kernel.shell_pump import takes_input
from cc_executor.model.item import Level
from cc_executor.model.receipt import Receipt
from cc_executor.model.transcript import Transcript
from cc_executor.runtime.plan import roots_of
from cc_executor.runtime.run import Batch, Run

Bundle = tuple[dict[str, Any], dict[str, Any]]


class Display(Protocol):
    """One way of showing one run."""

    def note(self, text: str) -> None:
        """Say something about the run that is in no journal."""
        ...

    def apply(self, batch: Batch) -> None:
        """Take what happened."""
        ...

    def tick(self, now: float) -> None:
        """Show what is due. Called some 25 times a second; `now` in monotonic seconds."""
        ...

    def finish(self, receipt: Receipt) -> Bundle:
        """Put the static view in the place of the live one, and return it."""
        ...

    def repeat(self) -> None:
        """Do the last of it once more, in a cell that has waited for the end of a run in the background.

        nbclient and papermill listen to the cell that runs; to them, what another cell's run says meanwhile is lost.
        """
        ...

    def show_again(self) -> None:
        """Show the end once more if somebody has cleared the view away; in the cell that shows the run."""
        ...

    def show_here(self) -> None:
        """Show what is shown once more, as an output of whatever request is the parent now."""
        ...

    def leave(self, note: str) -> None:
        """Stop watching a run that goes on."""
        ...


def make_display(shell: Any, run: Run, *, settings: CCExecutor) -> Display:
    """The display that fits this shell and these settings."""
    if isinstance(shell.display_pub, CapturingDisplayPublisher):
        return StaticDisplay(run)
    if settings.view == "widget" or (settings.view == "auto" and hasattr(shell, "kernel")):
        from cc_executor.kernel.live import WidgetDisplay

        return WidgetDisplay(
            run,
            save_on_start=settings.save_on_start,
            is_read=takes_input(getattr(shell, "kernel", None)),
            bell=bell_of(run.notify or notify_of(settings)),
        )
    return TextDisplay(run, in_notebook=hasattr(shell, "kernel"))


_ipython: Any = IPython.display  # it is untyped


def show_mime(data: dict[str, Any], metadata: dict[str, Any], *, display_id: str | None = None) -> None:
    """Display a MIME bundle as it is; in a terminal that is its plain text."""
    _ipython.display(data, metadata=metadata, raw=True, display_id=display_id)


def replace_mime(data: dict[str, Any], metadata: dict[str, Any], *, display_id: str) -> None:
    """Put a MIME bundle in the place of the one that was displayed with this id."""
    _ipython.update_display(data, metadata=metadata, raw=True, display_id=display_id)


def show_static(bundle: Bundle | None, *, note: str = "", in_notebook: bool = False) -> None:
    """Display a stored view, with a sentence above it. In a notebook it stands in one form only, so that one line of the file changes and no more."""
    data, metadata = bundle if bundle is not None else ({"text/plain": "The run's view is not kept any more."}, {})
    if note and in_notebook and "text/html" in data:
        data = {**data, "text/html": f'<p style="opacity:.72;margin:4px 0">{html.escape(note)}</p>{data["text/html"]}'}
    elif note:
        data = {**data, "text/plain": f"{note}\n{data['text/plain']}"}
    show_mime(data, metadata)


class StaticDisplay:
    """Nothing until the end: what is captured is kept, and a live view in it would be dead."""

    def __init__(self, run: Run) -> None:
        self._transcript = Transcript(roots=roots_of(run.request.cwd))

    def note(self, text: str) -> None:
        """Remember it for the end."""
        self._transcript.note(text, level=Level.WARN)

    def apply(self, batch: Batch) -> None:
        """Remember it for the end."""
        self._transcript.feed(batch.events)

    def tick(self, now: float) -> None:
        """Nothing is due before the end."""

    def finish(self, receipt: Receipt) -> Bundle:
        """Display the static view."""
        bundle = static_bundle(receipt, self._transcript)
        show_mime(*bundle)
        return bundle

    def repeat(self) -> None:
        """Nothing was shown while others listened."""

    def show_again(self) -> None:
        """Nothing was there to be cleared."""

    def show_here(self) -> None:
        """Nothing is shown before the end."""

    def leave(self, note: str) -> None:
        """Say that the run goes on."""
        show_mime({"text/plain": note}, {})


class SilentDisplay(StaticDisplay):
    """Nothing at all: the run is shown where somebody attaches to it."""

    def finish(self, receipt: Receipt) -> Bundle:
        """Make the static view, for `%cc show`."""
        return static_bundle(receipt, self._transcript)

    def leave(self, note: str) -> None:
        """Nobody watches."""


class TextDisplay:
    """Lines as they come; in a notebook the static view below them at the end."""

    def __init__(self, run: Run, *, in_notebook: bool) -> None:
        self._transcript = Transcript(roots=roots_of(run.request.cwd))
        self._view = TerminalView(sys.stdout)
        self._in_notebook = in_notebook
        if run.request.rehearse is not None:
            self._view.rehearsal()

    def note(self, text: str) -> None:
        """Take it, to be written at the next tick."""
        self._transcript.note(text, level=Level.WARN)

    def apply(self, batch: Batch) -> None:
        """Take it, to be written at the next tick."""
        self._transcript.feed(batch.events)

    def tick(self, now: float) -> None:
        """Write what is new."""
        self._view.update(self._transcript)

    def finish(self, receipt: Receipt) -> Bundle:
        """Write the rest and how it ended."""
        self._view.update(self._transcript)
        bundle = static_bundle(receipt, self._transcript)
        if self._in_notebook:
            show_mime(*bundle)
        else:
            self._view.close(receipt)
        return bundle

    def repeat(self) -> None:
        """Lines are not written twice."""

    def show_again(self) -> None:
        """The end is an output of its own."""

    def show_here(self) -> None:
        """Lines are not written twice."""

    def leave(self, note: str) -> None:
        """Say that the run goes on."""
        self._view.update(self._transcript)
        print(note)  # noqa: T201 - this display is a terminal
