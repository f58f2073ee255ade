"""The live view of one run, tied to its events: status line, pages from the journal, buttons, and the static end."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from cc_executor.kernel.display import Bundle, replace_mime, show_mime
from cc_executor.kernel.loop import own
from cc_executor.kernel.render import TerminalView, static_bundle
from cc_executor.kernel.shell_pump import cell_now, code_now
from cc_executor.kernel.standin import LINES, StandIn, needed_version
from cc_executor.kernel.widgets import RunView
from cc_executor.model.item import Level
from cc_executor.model.receipt import Receipt
from cc_executor.runtime.run import Batch, Run
from cc_executor.runtime.runpage import RunPage
from cc_executor.store.place import process_mark
from cc_executor.wire.feed import ViewStatus
from cc_executor.wire.pace import FRAME_SECONDS, HEARTBEAT_SECONDS

WIDGET_MIME: Final = "application/vnd.jupyter.widget-view+json"
# A tab that is opened again after the end finds its view as long as the kernel keeps it; each holds at most 5,000 lines.
VIEWS_KEPT: Final = 20
SPEAKS_SECONDS: Final = 2.5 * HEARTBEAT_SECONDS  # a page that shows a view answers each frame that asks
NO_CODE: Final = "export default {};"  # a module that shows nothing, should a page come too late

_kept: Final[deque[RunView]] = deque()


class ShownView(Protocol):
    """A view that tells the pages that fetch it where it is shown: in the JSON of `shown_at`, or nowhere."""

    shown_at: str

    def on_msg(self, callback: Callable[..., None]) -> None:
        """Have what pages say told."""
        ...


class Audience:
    """The pages that show one live view, as far as they have spoken, and where a page that is loaded anew has to show it. `view`: tells what they say.

    A page finds the view in its notebook, if that was saved in time. For where it was not, the view itself says which output it is, of which cell.
    """

    def __init__(self, view: ShownView, *, save_on_start: bool) -> None:
        self.has_model = False  # though the view may be out of sight
        self.was_there = False
        self._view = view
        self._save_on_start = save_on_start
        self._spoke: dict[str, float] = {}  # when a page last did
        self._was_cleared = False
        self._place = ""
        self._is_over = False
        view.on_msg(self._hear)

    def shown(self, output: Bundle) -> None:
        """The view has become an output of the cell whose request is the parent now."""
        cell = cell_now()
        if not cell or self._is_over:
            return
        data, metadata = output
        view = metadata["cc_executor"]["view"]
        place = {"cell": cell, "code": code_now(), "view": view, "data": data, "metadata": metadata, "save": self._save_on_start}
        self._place = json.dumps(place)
        self._view.shown_at = self._place

    def ended(self) -> None:
        """The live view stands nowhere any more."""
        self._is_over = True
        self._view.shown_at = ""

    def _hear(self, _widget: object, content: object, _buffers: object) -> None:
        """A page speaks: when it has the model, when it opens the view and asks for what there is, and when somebody has cleared the view out of a cell."""
        self.has_model = True
        if content == {"op": "here"}:
            return
        self.was_there = True
        match content:
            case {"op": "cleared", "view": str(view)}:
                self._was_cleared = True
                self._spoke.pop(view, None)
                self._view.shown_at = ""
            case {"view": str(view)}:
                if view not in self._spoke and not self._is_over:  # it has just been opened: what was cleared before is another
                    self._view.shown_at = self._place
                self._spoke[view] = time.monotonic()
            case _:
                pass

    @property
    def has_lost_it(self) -> bool:
        """Whether the view was cleared away, and no page has it: then there is nothing in whose place its end could be put."""
        return self._was_cleared and not any(time.monotonic() - at < SPEAKS_SECONDS for at in self._spoke.values())


class WidgetDisplay:
    """A widget while the run goes on, and the static view in its place at the end.

    Parameters
    ----------
    run : Run
    save_on_start : bool
        Ask JupyterLab to save the notebook once, so that a tab that is opened again finds the view.
    is_read : bool
        Whether a person may look at the page: then text stands in for a view that the page cannot show.
    bell : str
        See `cc_executor.kernel.notify.bell_of`.
    """

    def __init__(self, run: Run, *, save_on_start: bool, is_read: bool = False, bell: str = "") -> None:
        self._run = run
        self._page = RunPage(run)
        self._view = RunView(
            self._page.transcript,
            on_command=self._page.command,
            on_answer=self._page.answer,
            read_page=self._page.read_page,
            run_id=run.run_id,
            title=f"Agent run {run.run_id}",
            save_on_start=save_on_start,
            bell=bell,
        )
        self._last: Bundle | None = None
        self._audience = Audience(self._view, save_on_start=save_on_start)
        self._display_id = f"cc-executor-{run.run_id}-{id(self):x}"
        words = f"Run {run.run_id} is going on: `%cc attach {run.run_id}` shows it (in a new kernel after `%load_ext cc_executor`)."
        data = {WIDGET_MIME: {"model_id": self._view.model_id, "version_major": 2, "version_minor": 0}, "text/plain": words}
        metadata = {"cc_executor": {**self._mark()["cc_executor"], "kernel": process_mark(), "view": self._view.model_id}}
        self._live: Bundle = (data, metadata)
        self.show_here()
        self._lines = io.StringIO()
        self._terminal = TerminalView(self._lines)
        self._stand_in = (
            StandIn(
                self._live,
                display_id=self._display_id,
                is_heard=lambda: self._audience.has_model,
                words=self._words,
                needs=needed_version(self._view),
                steered=f"To end the run: interrupt its cell (I, I), or `cc-executor cancel {run.run_id}` in a terminal. "
                f"`%cc attach {run.run_id}` shows it in another cell.",
            )
            if is_read
            else None
        )

    @property
    def was_looked_at(self) -> bool:
        """Whether a page has ever shown it."""
        return self._audience.was_there

    def _mark(self) -> dict[str, dict[str, str]]:
        """What lets a save find the run of this output, and put its end in place if the page missed it."""
        return {"cc_executor": {"run_id": self._run.run_id, "status": "running"}}

    def note(self, text: str) -> None:
        """Put in a notice that is in no journal."""
        self._page.transcript.note(text, level=Level.WARN)

    def apply(self, batch: Batch) -> None:
        """Take what happened; what of it is due is shown at the next tick."""
        self._page.apply(batch)
        self._view.show(self._page.status(batch.state))

    def tick(self, now: float) -> None:
        """Send what is due to the views."""
        self._view.tick(now)
        if self._stand_in is not None:
            self._stand_in.tick(now)

    def _words(self) -> str:
        """What a terminal would show; of lines that were read before, the last ones."""
        self._terminal.update(self._page.transcript)
        text = "\n".join(self._lines.getvalue().split("\n")[-LINES - 1 :])
        self._lines.seek(0)
        self._lines.truncate()
        self._lines.write(text)
        return text

    def finish(self, receipt: Receipt) -> Bundle:
        """Replace the live view by the static one."""
        bundle = static_bundle(receipt, self._page.transcript)
        self._end(self._page.status(self._run.state, detail=f"{receipt.outcome.kind.value}: {receipt.outcome.summary}"))
        self._last = bundle
        self.repeat()
        return bundle

    def repeat(self) -> None:
        """Put the end in its place once more."""
        if self._last is not None:
            replace_mime(*self._last, display_id=self._display_id)

    def show_again(self) -> None:
        """Show the end as a new output where the view was cleared away."""
        if self._last is not None and self._audience.has_lost_it:
            show_mime(*self._last)

    def show_here(self) -> None:
        """Show the view, or its end, as a new output; what replaces the others replaces this one, too."""
        show_mime(*(self._last or self._live), display_id=self._display_id)
        self._audience.shown(self._live)

    def leave(self, note: str) -> None:
        """Say that the run goes on, and stop following it."""
        self._end(self._page.status(self._run.state, detail=note))
        replace_mime({"text/plain": note}, self._mark(), display_id=self._display_id)

    def _end(self, status: ViewStatus) -> None:
        self._audience.ended()
        self._view.finish(status)
        if not self.was_looked_at:
            # Nobody will: the output no longer names the view. nbclient and papermill keep the state of every widget in the file, and the view's code
            # is 35 KB for each cell.
            self._view.set_trait("_esm", NO_CODE)
            self._view.set_trait("_css", "")
        self._view.on_msg(answer_later(self._view))  # pyright: ignore[reportUnknownMemberType] - ipywidgets is untyped
        _kept.append(self._view)
        if len(_kept) > VIEWS_KEPT:
            _kept.popleft().close()


class EndedView(Protocol):
    """A view whose run or list is over, and that nobody ticks any more."""

    @property
    def is_settled(self) -> bool:
        """Whether every page has all that there is."""
        ...

    def tick(self) -> None:
        """Send what is due."""
        ...


def answer_later(view: EndedView) -> Callable[..., None]:
    """What answers pages that ask when nobody ticks any more: called with each message, ticks until they have what there is. Begins at once."""
    loop: asyncio.AbstractEventLoop | None = None
    with suppress(RuntimeError):
        loop = asyncio.get_running_loop()
    ticker: asyncio.Task[None] | None = None

    async def tick_on() -> None:
        while not view.is_settled:
            view.tick()
            await asyncio.sleep(FRAME_SECONDS)

    def start() -> None:
        nonlocal ticker
        if ticker is None or ticker.done():
            ticker = own(tick_on(), name="cc_executor ended view")

    def answer(*_: object) -> None:
        try:
            if loop is not None:
                loop.call_soon_threadsafe(start)
                return
        except RuntimeError:  # that loop is gone (a cell that could not be awaited had its own)
            pass
        view.tick()

    answer()
    return answer
