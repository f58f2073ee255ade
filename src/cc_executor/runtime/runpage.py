"""What a live view shows of one run: its transcript, older pages from the journal, the status line, the open questions; and the commands that it takes.

Knows a run and the view's protocol (`cc_executor.wire.feed`); knows no widget and no socket, so that a kernel and a server show the same page.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, cast

from cc_executor.errors import InvalidRequest
from cc_executor.model import toolcall
from cc_executor.model.ask import REASON_CHARS, Answer, Decision, ShownAsk
from cc_executor.model.event import Paused
from cc_executor.model.pager import Checkpoints, Page, earlier
from cc_executor.model.paths import Roots
from cc_executor.model.phase import Phase
from cc_executor.model.state import RunState
from cc_executor.model.transcript import Transcript
from cc_executor.runtime.answers import give, open_ask
from cc_executor.runtime.askpage import shown
from cc_executor.runtime.forecast import usual_words
from cc_executor.runtime.plan import roots_of
from cc_executor.runtime.reader import JournalReader, events_from
from cc_executor.runtime.run import Batch, Run
from cc_executor.wire.feed import ViewStatus

logger = logging.getLogger(__name__)

TOOL_CHARS: Final = 80
ANSWERS: Final = 20  # to the questions of one ask

_pages = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cc_executor pages")  # starts its thread when it is first used


class RunPage:
    """What a view shows of one run: its transcript, older pages from the journal, the status line; and the commands that it takes."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.transcript = Transcript(roots=roots_of(run.request.cwd))
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

    def command(self, command: str, pauses: int | None = None) -> None:
        """Give a command of a view. Blocking, a few milliseconds: the click may come in any thread, and must be obeyed even when the loop is not free.

        Parameters
        ----------
        command : str
            ``"pause"``, ``"resume"``, ``"cancel"`` or ``"kill"``.
        pauses : int or None
            How often the run had been paused, as the one who clicked saw it. A Pause or a Resume from before the last pause is not obeyed.

        Raises
        ------
        ControlFailed
            The run has ended or does not answer.
        """
        if command == "kill":
            self.run.send("cancel", reason="cancel", by="view", now=True)
        elif command == "cancel":
            self.run.send("cancel", reason="cancel", by="view")
        else:
            self.run.send(command, by="view", **({} if pauses is None else {"pauses": pauses}))

    def answer(self, content: Mapping[str, object]) -> None:
        """Answer a question of the agent; as `command`."""
        self._asks.answer(content)

    def read_page(self, before: int, done: Callable[[Page], None]) -> None:
        """Read the page before a number on another thread, and hand it to `done` there; an empty one if it cannot be read."""

        def work() -> None:
            page = Page(items=(), first=before)
            try:
                page = earlier(self._checkpoints, events_from, before=before)
            except Exception:  # root of the thread; whoever waits for the page may ask for it again
                logger.exception("older lines of run %s could not be read", self.run.run_id)
            done(page)

        _pages.submit(work)

    def status(self, state: RunState, *, detail: str = "") -> ViewStatus:
        """The status line after `state`."""
        phase = state.phase
        return ViewStatus(
            phase=phase.value,
            elapsed=self._elapsed(state),
            is_ticking=phase not in {Phase.PAUSED, Phase.ENDED},
            tool=_tool_words(state, self.transcript.roots),
            model=state.model,
            input_tokens=state.usage.input_tokens,
            output_tokens=state.usage.output_tokens,
            cost=None if self.run.request.rehearse is not None else state.cost,
            detail=detail or _detail(state),
            estimate=self._estimate,
            rehearsal=self.run.request.rehearse is not None,
            pauses=state.pauses,
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


class AskPage:
    """The open questions of one run as its views show them, and the answers that come from there."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._known: dict[str, ShownAsk] = {}

    def shown(self, state: RunState) -> tuple[ShownAsk, ...]:
        """What is open after `state`. Each question is put in words once: what it would change may be changed meanwhile."""
        if not state.asks:
            self._known.clear()
            return ()
        cwd, mask = self._run.request.cwd, self._run.mask
        self._known = {ask.ask_id: self._known.get(ask.ask_id) or shown(ask, cwd=cwd, mask=mask) for ask in state.asks}
        return tuple(self._known.values())

    def answer(self, content: Mapping[str, object]) -> None:
        """Take an answer from a view: ``{"ask", "decision", "text", "answers"}``. Blocking, a few milliseconds, in whatever thread the click arrives.

        Raises
        ------
        ControlFailed, InvalidRequest
            It is not open any more, or this is no answer to it.
        """
        ask = open_ask(self._run.state.asks, str(content.get("ask", "")))
        give(self._run.folder, ask, _answer(content), by="view")


def _answer(content: Mapping[str, object]) -> Answer:
    try:
        decision = Decision(str(content.get("decision")))
    except ValueError:
        known = ", ".join(each.value for each in Decision if each is not Decision.REFUSED)
        raise InvalidRequest(f"There is no decision {content.get('decision')!r}. Choose one of {known}.") from None
    answers = content.get("answers")
    texts = cast("list[object]", answers)[:ANSWERS] if isinstance(answers, list) else []
    text = content.get("text") or ""
    if not all(isinstance(each, str) for each in (text, *texts)):  # the agent would be told that its user has said None
        raise InvalidRequest("text and each of the answers must be a text.")
    return Answer(decision=decision, text=str(text)[:REASON_CHARS], answers=tuple(str(each)[:REASON_CHARS] for each in texts))


def _tool_words(state: RunState, roots: Roots) -> str:
    running = state.running_tools
    if not running:
        return ""
    tool = running[-1]
    call = toolcall.fields(tool.input.text, roots)
    about = toolcall.one_line(toolcall.summary(call), TOOL_CHARS) if call is not None else ""
    more = f" and {len(running) - 1} more" if len(running) > 1 else ""
    return f"{tool.name}({about}){more}"


def _detail(state: RunState) -> str:
    retry = state.retry
    if state.phase is Phase.RETRYING and retry is not None:
        answered = f"the API answered {retry.status}" if retry.status is not None else "the API could not be reached"
        return f"{answered}; attempt {retry.attempt} of {retry.max_attempts} in {retry.delay:.0f} s"
    return ""
