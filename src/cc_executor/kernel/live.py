"""The live view of one run, tied to its events: status line, pages from the journal, buttons, and the static end."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from cc_executor.kernel.asks import AskPage
from cc_executor.kernel.display import Bundle, replace_mime, show_mime
from cc_executor.kernel.feed import ViewStatus
from cc_executor.kernel.render import static_bundle
from cc_executor.kernel.widgets import RunView
from cc_executor.model import toolcall
from cc_executor.model.event import Paused
from cc_executor.model.item import Level
from cc_executor.model.pager import Checkpoints, Page, earlier
from cc_executor.model.receipt import Receipt
from cc_executor.model.state import Phase, RunState
from cc_executor.model.transcript import Transcript
from cc_executor.runtime.forecast import usual_words
from cc_executor.runtime.reader import JournalReader, events_from
from cc_executor.runtime.run import Batch, Run

WIDGET_MIME: Final = "application/vnd.jupyter.widget-view+json"
# A tab that is opened again after the end finds its view as long as the kernel keeps it; each holds at most 5,000 lines.
VIEWS_KEPT: Final = 20
TOOL_CHARS: Final = 80
NO_CODE: Final = "export default {};"  # a module that shows nothing, should a page come too late

_kept: Final[deque[RunView]] = deque()
_pages = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cc_executor pages")  # starts its thread when it is first used


class RunPage:
    """What a view shows of one run: its transcript, older pages from the journal, the status line; and the commands that it takes."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.transcript = Transcript()
        self._checkpoints = Checkpoints(JournalReader(run.folder, agent=run.request.agent), self.transcript)
        self._paused_at: float | None = None
        self._estimate = usual_words(run.folder)
        self._asks = AskPage(run)

    def apply(self, batch: Batch) -> None:
        """Take what happened."""
        self.transcript.feed(batch.events)
        if self._checkpoints.is_due(self.transcript):
            self._checkpoints.add(batch.position(), self.transcript)
        for event in batch.events:
            if isinstance(event, Paused):
                self._paused_at = event.at

    def command(self, command: str) -> None:
        """Give a command of `RunView`. Blocking, a few milliseconds: the click may come in any thread, and must be obeyed even when the loop is not free."""
        if command == "kill":
            self.run.send("cancel", reason="cancel", by="view", now=True)
        elif command == "cancel":
            self.run.send("cancel", reason="cancel", by="view")
        else:
            self.run.send(command, by="view")

    def answer(self, content: Mapping[str, object]) -> None:
        """Answer a question of the agent; as `command`."""
        self._asks.answer(content)

    def read_page(self, before: int, done: Callable[[Page], None]) -> None:
        """Read the page before a number on another thread, and hand it to `done` there."""
        _pages.submit(lambda: done(earlier(self._checkpoints, events_from, before=before)))

    def status(self, state: RunState, *, detail: str = "") -> ViewStatus:
        """The status line after `state`."""
        phase = state.phase
        return ViewStatus(
            phase=phase.value,
            elapsed=self._elapsed(state),
            is_ticking=phase not in {Phase.PAUSED, Phase.ENDED},
            tool=_tool_words(state),
            model=state.model,
            input_tokens=state.usage.input_tokens,
            output_tokens=state.usage.output_tokens,
            cost=None if self.run.request.rehearse is not None else state.cost,
            detail=detail or _detail(state),
            estimate=self._estimate,
            rehearsal=self.run.request.rehearse is not None,
            asks=self._asks.shown(state),
        )

    def _elapsed(self, state: RunState) -> float:
        """Seconds at work: less pauses and the sleep of the machine."""
        if state.started is None:
            return 0.0
        until = time.time()
        if state.exited is not None:
            until = state.exited.at
        elif state.is_paused and self._paused_at is not None:
            until = self._paused_at
        return max(0.0, until - state.started.at - state.paused - state.frozen)


class WidgetDisplay:
    """A widget while the run goes on, and the static view in its place at the end.

    Parameters
    ----------
    run : Run
    save_on_start : bool
        Ask JupyterLab to save the notebook once, so that a tab that is opened again finds the view.
    """

    def __init__(self, run: Run, *, save_on_start: bool) -> None:
        self._run = run
        self._page = RunPage(run)
        self._view = RunView(
            self._page.transcript,
            on_command=self._page.command,
            on_answer=self._page.answer,
            read_page=self._page.read_page,
            title=f"Agent run {run.run_id}",
            save_on_start=save_on_start,
        )
        self.was_looked_at = False
        self._last: Bundle | None = None
        self._view.on_msg(self._look)  # pyright: ignore[reportUnknownMemberType] - ipywidgets is untyped
        self._display_id = f"cc-executor-{run.run_id}-{id(self):x}"
        words = f"Run {run.run_id} is going on: `%cc attach {run.run_id}` shows it."
        data = {WIDGET_MIME: {"model_id": self._view.model_id, "version_major": 2, "version_minor": 0}, "text/plain": words}
        show_mime(data, self._mark(), display_id=self._display_id)

    def _look(self, *_: object) -> None:
        """A page speaks: it asks for what there is when it opens the view."""
        self.was_looked_at = True

    def _mark(self) -> dict[str, object]:
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

    def leave(self, note: str) -> None:
        """Say that the run goes on, and stop following it."""
        self._end(self._page.status(self._run.state, detail=note))
        replace_mime({"text/plain": note}, self._mark(), display_id=self._display_id)

    def _end(self, status: ViewStatus) -> None:
        self._view.finish(status)
        if not self.was_looked_at:
            # Nobody will: the output no longer names the view. nbclient and papermill keep the state of every widget in the file, and the view's code
            # is 35 KB for each cell.
            self._view.set_trait("_esm", NO_CODE)
            self._view.set_trait("_css", "")
        self._view.on_msg(answer_later(self._view.tick))  # pyright: ignore[reportUnknownMemberType] - ipywidgets is untyped
        _kept.append(self._view)
        if len(_kept) > VIEWS_KEPT:
            _kept.popleft().close()


def answer_later(tick: Callable[[], None]) -> Callable[..., None]:
    """What answers a view that asks when the run is over and nobody ticks any more."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return lambda *_: tick()

    def answer(*_: object) -> None:
        try:
            loop.call_soon_threadsafe(tick)
        except RuntimeError:  # that loop is gone (a cell that could not be awaited had its own)
            tick()

    return answer


def _tool_words(state: RunState) -> str:
    running = state.running_tools
    if not running:
        return ""
    tool = running[-1]
    call = toolcall.fields(tool.input.text)
    about = toolcall.one_line(toolcall.summary(call), TOOL_CHARS) if call is not None else ""
    more = f" and {len(running) - 1} more" if len(running) > 1 else ""
    return f"{tool.name}({about}){more}"


def _detail(state: RunState) -> str:
    retry = state.retry
    if state.phase is Phase.RETRYING and retry is not None:
        answered = f"the API answered {retry.status}" if retry.status is not None else "the API could not be reached"
        return f"{answered}; attempt {retry.attempt} of {retry.max_attempts} in {retry.delay:.0f} s"
    return ""
