"""Events that a reader of the page should know of, in one sentence each. Knows words; keeps nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final, NamedTuple, assert_never

from cc_executor.model import toolcall
from cc_executor.model.ask import BY_PATH, DECISION_WORDS, Decision, what_from, what_of
from cc_executor.model.event import (
    AgentFailed,
    Answered,
    ApiRetried,
    AskWithdrawn,
    Degraded,
    Event,
    Exited,
    Finished,
    Frozen,
    HookRan,
    HostAsked,
    LeftBehind,
    LimitReached,
    MessageStarted,
    ModelSwitched,
    Noise,
    Paused,
    PermissionAsked,
    QuestionAsked,
    Queued,
    RateLimited,
    Repeated,
    Resumed,
    SessionOpened,
    Signalled,
    Started,
    StatusChanged,
    StderrWritten,
    StopRequested,
    TaskChanged,
    TextWritten,
    ThinkingWritten,
    ToolCalled,
    ToolReturned,
    Unrecognised,
    UsageCounted,
)
from cc_executor.model.item import Level
from cc_executor.model.paths import Roots, below

NAMED_PROCESSES: Final = 5
RAW_CHARS: Final = 200
MINUTE: Final = 60
HOUR: Final = 3600
SMALL_COST: Final = 0.1  # dollars


class Notice(NamedTuple):
    """A sentence with its topic. A notice right after one of the same topic takes its place if `replaces`."""

    topic: str
    text: str
    level: Level = Level.INFO
    replaces: bool = False


_REASONS: Final = {
    "cancel": "cancelled",
    "interrupt": "interrupted",
    "timeout": "time limit",
    "stalled": "no sign of life",
    "kernel_exit": "the kernel is gone",
    "auth": "no valid login",
    "budget": "budget spent",
    "linger": "it did not end by itself",
    "loop": "it goes round in a circle",
}


def notice(event: Event, roots: Roots = ()) -> Notice | None:
    """The notice for `event`, its paths seen from `roots`, or None if it has its own kind of item or says nothing to a reader."""
    match event:
        case (  # first, for these are nine of ten events, and each class is asked for in turn
            Noise()
            | TextWritten()
            | ThinkingWritten()
            | ToolCalled()
            | ToolReturned()
            | UsageCounted()
            | MessageStarted()
            | StderrWritten()
            | Started()
            | Queued()
        ):
            return None
        case ApiRetried():
            return _retry(event)
        case RateLimited():
            return _rate_limit(event)
        case SessionOpened(mcp_servers=servers):
            lost = [f"{name} ({status})" for name, status in servers if status in {"failed", "needs-auth"}]
            return Notice("mcp", f"MCP servers not connected: {', '.join(lost)}", Level.WARN, replaces=True) if lost else None
        case PermissionAsked(name=name, input=source):
            about = toolcall.summary(toolcall.fields(source, roots) or {})
            return Notice("permission", f"Waits for leave to use {name}{f': {about}' if about else ''}", Level.WARN)
        case QuestionAsked():
            return Notice("question", f"Asks: {what_of(event)}", Level.WARN)
        case AskWithdrawn():
            return Notice("permission", "No longer waits for an answer")
        case HostAsked(what=what):
            return Notice("permission", f"The agent asked for {what}, which cc_executor does not offer; it was told so", Level.WARN)
        case Answered(what=what, decision=decision, by=by, note=note):
            about = f": {what_from(what, roots)}" if what else ""
            said = f" ({toolcall.one_line(note, RAW_CHARS)})" if note else ""
            if decision == Decision.REFUSED:
                return Notice("answer", f"Refused, for nobody could answer{about}", Level.WARN)
            level = Level.WARN if decision == Decision.DENY else Level.INFO
            return Notice("answer", f"{DECISION_WORDS.get(decision, decision)}{_by(by)}{about}{said}", level)
        case ModelSwitched(model=model, reason=reason):
            return Notice("model", f"Goes on with {model}{f' ({reason})' if reason else ''}", Level.WARN)
        case TaskChanged(status=status, description=description, background=background):
            if not background:
                return None
            return Notice("task", f"Background task {status}{f': {toolcall.one_line(description)}' if description else ''}")
        case HookRan(name=name, status=status, text=text):
            return _hook(name, status, text)
        case Repeated(name=name, about=about, count=count):
            call = f"{name}({below(about, roots) if name in BY_PATH else about})" if about else name
            said = f"The agent goes round in a circle: {call} came back with the same result {count} times"
            return Notice("loop", said, Level.WARN, replaces=True)
        case StatusChanged(status=status):
            return Notice("status", "Compacting the conversation") if status == "compacting" else None
        case AgentFailed(code=code, text=text):
            return Notice("error", f"The agent reports {code}{f': {text}' if text else ''}", Level.ERROR)
        case Finished():
            return _finished(event)
        case Unrecognised(what=what, raw=raw):
            return Notice("unrecognised", f"A line that this version does not know ({what}): {toolcall.one_line(raw, RAW_CHARS)}")
        case Paused(by=by, processes=count):
            return Notice("paused", f"Paused{_by(by)}; {processes(count)} stand still" if count != 1 else f"Paused{_by(by)}")
        case Resumed(by=by, paused=seconds):
            return Notice("resumed", f"Resumed{_by(by)} after {duration(seconds)}")
        case StopRequested(reason=reason, by=by):
            return Notice("stop", f"Stop requested{_by(by)}: {_REASONS.get(reason, reason)}", Level.WARN)
        case Signalled(signal=name, processes=count):
            text = "Closed the agent's standard input" if name == "close_stdin" else f"Sent {name} to {processes(count)}"
            return Notice("signal", text, replaces=True)
        case Frozen(seconds=seconds):
            return Notice("frozen", f"The machine stood still for {duration(seconds)}; no clock counted it")
        case LimitReached(limit=limit, seconds=seconds):
            what = {"wall": "The time limit", "stall": "The limit without a sign of life"}.get(limit, f"The limit {limit}")
            return Notice("limit", f"{what} of {duration(seconds)} is reached", Level.ERROR)
        case Degraded(stream=stream, error=error):
            return Notice(
                "degraded", f"Output on {stream} can no longer be kept ({error}); it is counted, and the run goes on", Level.ERROR
            )
        case LeftBehind():
            return _left_behind(event)
        case Exited(code=code, signal=signal):
            if signal:
                return Notice("exit", f"Ended by {signal}", Level.WARN)
            return Notice("exit", f"Exit code {code}", Level.WARN) if code else None
        case _:
            assert_never(event)


def _hook(name: str, status: str, text: str) -> Notice | None:
    """A hook of the agent's own settings. One that begins, and one that has nothing to say, is no news; they run at every tool call."""
    said = f": {toolcall.one_line(text)}" if text.strip() else ""
    if status in _HOOK_IS_WELL:
        return Notice("hook", f"The agent's hook {name} says{said}") if said and status != "started" else None
    return Notice("hook", f"The agent's hook {name} did not end well ({status}){said}", Level.WARN)


_HOOK_IS_WELL: Final = frozenset({"started", "success", "done", ""})


def _retry(event: ApiRetried) -> Notice:
    if event.status is None:
        what = f"The API did not answer{f' ({event.error})' if event.error else ''}"
    else:
        known = event.status in HTTPStatus.__members__.values()
        what = f"The API answered {event.status}{f' {HTTPStatus(event.status).phrase}' if known else ''}"
    tries = f"attempt {event.attempt} of {event.max_attempts}" if event.max_attempts else f"attempt {event.attempt}"
    return Notice("retry", f"{what}; {tries} in {duration(event.delay)}", Level.WARN, replaces=True)


def _rate_limit(event: RateLimited) -> Notice | None:
    if event.status == "allowed":
        return None
    window = f" ({event.window.replace('_', ' ')})" if event.window else ""
    used = f", {event.utilization:.0%} used" if event.utilization is not None else ""
    again = f"; it opens again at {moment(event.resets_at)}" if event.resets_at else ""
    if event.status == "rejected":
        return Notice("rate_limit", f"The subscription's limit is reached{window}{used}{again}", Level.ERROR, replaces=True)
    return Notice("rate_limit", f"The subscription's limit is near{window}{used}{again}", Level.WARN, replaces=True)


def _finished(event: Finished) -> Notice | None:
    if event.denials:
        names = ", ".join(dict.fromkeys(denial.name for denial in event.denials))
        return Notice("denied", f"Not allowed: {names} ({len(event.denials)}×)", Level.ERROR)
    if not event.is_error:
        return None
    said = "; ".join(toolcall.one_line(error, RAW_CHARS) for error in event.errors[:NAMED_PROCESSES])
    what = "an error" if event.subtype == "success" else event.subtype  # it says both at once when nobody is logged in
    return Notice("error", f"The agent ended with {what}{f': {said}' if said else ''}", Level.ERROR)


def _left_behind(event: LeftBehind) -> Notice:
    names = ", ".join(f"{toolcall.one_line(each.command, 60)} (pid {each.pid})" for each in event.processes[:NAMED_PROCESSES])
    more = len(event.processes) - NAMED_PROCESSES
    rest = f" and {more} more" if more > 0 else ""
    if event.kept:
        return Notice("left_behind", f"Still running, by your wish: {names}{rest}", Level.WARN)
    return Notice("left_behind", f"The agent left processes behind; they were ended: {names}{rest}", Level.WARN)


def _by(by: str) -> str:
    return f" by {by}" if by else ""


def processes(count: int) -> str:
    """A number of processes in words."""
    return "1 process" if count == 1 else f"{count} processes"


def duration(seconds: float) -> str:
    """`seconds` for people: ``0.4 s``, ``12 s``, ``3 min 4 s``, ``2 h 5 min``."""
    seconds = max(0.0, seconds)
    if seconds < 10:  # noqa: PLR2004  below ten, a tenth is worth showing
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s"
    return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"


def money(dollars: float) -> str:
    """US dollars for people; below ten cents, cents say too little."""
    return f"${dollars:.4f}" if 0 < dollars < SMALL_COST else f"${dollars:,.2f}"


def moment(seconds: float) -> str:
    """A point in time for people, UTC; whatever number an agent wrote."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, OSError, ValueError):
        return "an unknown time"
