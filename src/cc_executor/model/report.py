"""What there is to report of a run, from its receipt and its recorded events alone. A fold: the same records give the same report, whenever it is made.

The agent's words are in it once, as what the agent claims. Everything else is what was recorded: times, calls, files, figures, checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from cc_executor.model import toolcall
from cc_executor.model.ansi import clean
from cc_executor.model.event import ApiRetried, Degraded, Event, HookRan, RateLimited, ToolCalled, ToolReturned
from cc_executor.model.fold import advance_all
from cc_executor.model.item import Level
from cc_executor.model.notice import notice
from cc_executor.model.paths import Roots
from cc_executor.model.phase import Phase
from cc_executor.model.receipt import Receipt
from cc_executor.model.state import RunState

CALLS_LIMIT: Final = 300  # calls that are named one by one; all of them are counted
NOTES_LIMIT: Final = 100  # notices that are quoted, the first ones; all of them are counted
LABEL_CHARS: Final = 200


class ToolCall(msgspec.Struct):
    """One call of a tool. `seconds` None: it never came back. Times are seconds since the run's start."""

    name: str
    about: str
    at: float
    seconds: float | None = None
    is_failed: bool = False
    is_nested: bool = False  # a subagent's


class ToolUse(msgspec.Struct):
    """All calls of one tool."""

    calls: int = 0
    failed: int = 0
    unfinished: int = 0
    seconds: float = 0.0


class Note(msgspec.Struct, frozen=True):
    """A sentence about something that went otherwise than it should, and when."""

    at: float
    level: Level
    text: str


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    Attributes
    ----------
    receipt : Receipt
        Sealed.
    label : str
        The user's own name for it.
    phases : mapping of Phase to float
        Seconds that the run was seen in each phase, the longest first. A phase is what the agent's output showed last.
    tools : mapping of str to ToolUse
        By name, the most used first.
    calls : sequence of ToolCall
        The first `CALLS_LIMIT` of them.
    retries : mapping of str to int
        How often the API was asked again, by the answer that it gave before.
    waited : float
        Seconds that the agent said it would wait before it asked again.
    agent_hooks : mapping of str to (int, int)
        Hooks of the agent's own settings: how often each ran, and how often not well.
    dropped : tuple of str
        What was not kept or not understood, in sentences.
    """

    receipt: Receipt
    label: str = ""
    phases: Mapping[Phase, float] = {}
    tools: Mapping[str, ToolUse] = {}
    calls: Sequence[ToolCall] = ()
    calls_left_out: int = 0
    retries: Mapping[str, int] = {}
    waited: float = 0.0
    limit_notes: tuple[str, ...] = ()
    agent_hooks: Mapping[str, tuple[int, int]] = {}
    notes: Sequence[Note] = ()
    notes_left_out: int = 0
    dropped: tuple[str, ...] = ()

    @property
    def tool_calls(self) -> int:
        """Calls of all tools."""
        return sum(use.calls for use in self.tools.values())

    @property
    def tool_failures(self) -> int:
        """Calls that came back as errors."""
        return sum(use.failed for use in self.tools.values())


def run_report(
    receipt: Receipt, timed: Iterable[tuple[float, Sequence[Event]]], *, label: str = "", mask: Callable[[str], str] = str
) -> RunReport:
    """The report of a run.

    Parameters
    ----------
    receipt : Receipt
    timed : iterable of (float, sequence of Event)
        Every event in order, with the seconds since the start at which it was written.
    label : str
    mask : callable
        Takes secrets out of a text; the receipt is without them.
    """
    fold = _Fold(mask, (receipt.cwd,))
    for t, events in timed:
        fold.take(t, events)
    return RunReport(
        receipt=receipt,
        label=mask(clean(label))[:LABEL_CHARS],
        phases=dict(sorted(fold.phases.items(), key=lambda item: (-item[1], item[0].value))),
        tools=dict(sorted(fold.tools.items(), key=lambda item: (-item[1].calls, item[0]))),
        calls=tuple(fold.calls),
        calls_left_out=max(0, fold.count - len(fold.calls)),
        retries=dict(sorted(fold.retries.items())),
        waited=round(fold.waited, 3),
        limit_notes=tuple(fold.limits),
        agent_hooks=dict(sorted(fold.hooks.items())),
        notes=tuple(fold.notes),
        notes_left_out=fold.notes_left_out,
        dropped=_dropped(receipt, fold),
    )


class _Fold:
    def __init__(self, mask: Callable[[str], str], roots: Roots) -> None:
        self._mask, self._roots = mask, roots
        self.state = RunState()
        self.t = 0.0
        self.phases: dict[Phase, float] = {}
        self.tools: dict[str, ToolUse] = {}
        self.calls: list[ToolCall] = []
        self.count = 0
        self.open: dict[str, ToolCall] = {}
        self.retries: dict[str, int] = {}
        self.waited = 0.0
        self.limits: dict[str, None] = {}
        self.hooks: dict[str, tuple[int, int]] = {}
        self.notes: list[Note] = []
        self.notes_left_out = 0
        self.degraded: dict[str, None] = {}
        self._topic = ""

    def take(self, t: float, events: Sequence[Event]) -> None:
        t = max(t, self.t)
        if t > self.t:
            phase = self.state.phase
            if phase is not Phase.ENDED:
                self.phases[phase] = self.phases.get(phase, 0.0) + (t - self.t)
            self.t = t
        self.state = advance_all(self.state, events)
        for event in events:
            self._look(t, event)

    def _look(self, t: float, event: Event) -> None:
        match event:
            case ToolCalled(whole=True):
                self._called(t, event)
            case ToolReturned():
                self._returned(t, event)
            case ApiRetried(status=status, error=error, delay=delay):
                what = str(status) if status is not None else clean(error) or "no answer"
                self.retries[what] = self.retries.get(what, 0) + 1
                self.waited += delay
            case RateLimited(status=status) if status != "allowed":
                said = notice(event)
                if said is not None:
                    self.limits[self._mask(said.text)] = None
            case HookRan(name=name, status=status) if status != "started":
                ran, failed = self.hooks.get(clean(name), (0, 0))
                self.hooks[clean(name)] = (ran + 1, failed + (status not in {"success", "done", ""}))
            case Degraded(stream=stream, error=error):
                self.degraded[f"Output on {stream} could not be kept: {clean(error)}."] = None
            case _:
                pass
        self._note(t, event)

    def _called(self, t: float, event: ToolCalled) -> None:
        if event.tool_id in self.open:
            return
        source = self._mask(event.input)  # before it is cut: the beginning of a secret is not recognised
        call = toolcall.fields(source, self._roots)
        about = toolcall.summary(call) if call is not None else toolcall.one_line(source)
        name = self._mask(clean(event.name)) or "tool"
        made = ToolCall(name, self._mask(clean(about)), t, is_nested=event.parent is not None)
        self.open[event.tool_id] = made
        self.count += 1
        if len(self.calls) < CALLS_LIMIT:
            self.calls.append(made)
        use = self.tools.setdefault(name, ToolUse())
        use.calls += 1
        use.unfinished += 1

    def _returned(self, t: float, event: ToolReturned) -> None:
        made = self.open.pop(event.tool_id, None)
        if made is None:
            return
        made.seconds = t - made.at
        made.is_failed = event.is_error
        use = self.tools[made.name]
        use.unfinished -= 1
        use.failed += event.is_error
        use.seconds += made.seconds

    def _note(self, t: float, event: Event) -> None:
        said = notice(event, self._roots)
        if said is None or said.level is Level.INFO:
            return
        note = Note(t, said.level, self._mask(clean(said.text)))
        if said.replaces and said.topic == self._topic and self.notes:
            self.notes[-1] = note
        elif len(self.notes) < NOTES_LIMIT:
            self.notes.append(note)
        else:
            self.notes_left_out += 1
        self._topic = said.topic


def _dropped(receipt: Receipt, fold: _Fold) -> tuple[str, ...]:
    found = [f"{digest.dropped:,} bytes of {name} were not kept." for name, digest in sorted(receipt.journal.items()) if digest.dropped]
    found += fold.degraded
    if fold.state.unrecognised:
        count = fold.state.unrecognised
        found.append(
            f"{count:,} {'line' if count == 1 else 'lines'} of the agent's output were not understood by this version; the journal has them."
        )
    return tuple(found)
