"""Hooks of this process and of one run: who is called, in which order, at most once, and what their failure does. One call is `hookwork`'s affair.

A decorator registers in this process alone; nothing is ever read from the folder in which an agent works. Where the process that started a run is gone,
whoever seals the run calls the commands that were meant and not begun; of a callable only its name is left.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cc_executor.errors import CCExecutorError, HookRefused, InvalidRequest, StateUnusable
from cc_executor.model.event import Event
from cc_executor.model.hook import (
    Hook,
    HookReport,
    HookStatus,
    Moment,
    OnHookFailure,
    StoredHook,
    call_named,
    hooks_from,
    payload,
    told_apart,
)
from cc_executor.model.joined import pieces_of
from cc_executor.model.outcome import Outcome, OutcomeKind
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import RunRequest
from cc_executor.policy.redact import Redactor
from cc_executor.runtime.errand import Errand, in_thread
from cc_executor.runtime.hookevents import EventPump
from cc_executor.runtime.hookwork import Surroundings, is_inside_hook, perform
from cc_executor.runtime.telling import Telling
from cc_executor.store.hooklog import HookLog
from cc_executor.store.journal import RunFolder

if TYPE_CHECKING:
    from cc_executor.model.notify import Notify

logger = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., object])

VARIABLE: Final = "CC_EXECUTOR_HOOKS"
ENTRY_POINTS: Final = "cc_executor.hooks"
KILL_BUDGET: Final = 5.0  # seconds until a call that is not wanted any more has ended
HURRY: Final = 2.0  # seconds for each call where somebody leaves and waits for the end
PROMPT_CHARS: Final = 64 * 1024  # of the prompt that `before_run` may look at
PATHS: Final = 200

_registered: Final[dict[tuple[str, str], Hook]] = {}
_lock: Final = threading.Lock()


# --- who is called ----------------------------------------------------------------------------------------------------


def hook(moment: str, **options: Any) -> Callable[[F], F]:
    """Register a function for a moment, in this process, for every run and every list that it starts from now on.

    A function of the same name, defined anew, takes the place of the one before: a cell may be run twice.

    Parameters
    ----------
    moment : str
        ``before_run``, ``after_run``, ``before_task``, ``after_task``, ``before_list``, ``after_list``, ``on_event`` or ``on_error``.
    **options
        name; timeout (seconds for one call, 10 if not given); on_failure (``"tell"`` or ``"stop"``); events (for ``on_event``: kinds of events);
        min_seconds (for ``after_run``, ``after_task`` and ``on_error``).

    Returns
    -------
    callable
        A decorator that returns the function itself. The function takes one dict, may be async (it gets a loop of its own), and is called in a thread.

    Raises
    ------
    InvalidRequest
        There is no such moment or option.
    """

    def register(call: F) -> F:
        [made] = hooks_given([{"when": moment, "call": call, **options}])
        with _lock:
            _registered[(made.moment.value, call_named(call))] = made
        return call

    return register


def unhook(call: Callable[..., object]) -> None:
    """Take back what `hook` has registered of this function, at every moment. Nothing happens if there is nothing."""
    with _lock:
        for key in [key for key in _registered if key[1] == call_named(call)]:
            del _registered[key]


def hooks_given(value: object, *, what: str = "hooks") -> tuple[Hook, ...]:
    """Hooks as users give them to a function or a setting.

    Raises
    ------
    InvalidRequest
        Everything that is wrong with them.
    """
    made = hooks_from(value)
    if made.problems:
        raise InvalidRequest(f"{what}: {' '.join(made.problems)}")
    return made.hooks


def hooks_of_environment(environ: Mapping[str, str]) -> tuple[Hook, ...]:
    """The hooks in `CC_EXECUTOR_HOOKS`, as JSON.

    Raises
    ------
    InvalidRequest
    """
    text = environ.get(VARIABLE, "").strip()
    if not text or is_inside_hook(environ):
        return ()
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"The environment variable {VARIABLE} is not JSON ({error}): change or unset it.") from None
    made = hooks_from(value, callables=False)
    if made.problems:
        raise InvalidRequest(f"The environment variable {VARIABLE}: {' '.join(made.problems)}")
    return made.hooks


def gathered(given: Sequence[Hook], *, environ: Mapping[str, str]) -> tuple[Hook, ...]:
    """Everybody who is to be called: entry points, this process, what is given; each once, and by a key of its own. Nobody, inside of a hook."""
    if is_inside_hook(environ):
        return ()
    with _lock:
        mine = tuple(_registered.values())
    found: list[Hook] = []
    for each in (*_installed(), *mine, *given):
        if each not in found:
            found.append(each)
    return told_apart(found)


@cache
def _installed() -> tuple[Hook, ...]:
    """The hooks of installed packages: entry points whose names begin with a moment, as `before_run.audit`. Looked up once in a process."""
    found: list[Hook] = []
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        moment, _, name = point.name.partition(".")
        try:
            found.append(_loaded(point, moment, name or point.value))
        except Exception as error:  # somebody else's package: it is told of with every run, and breaks none
            logger.warning("the hook %s of an installed package cannot be loaded", point.name, exc_info=True)
            # Whatever its moment was to be, and also where that is none: each run has these two.
            when = Moment.AFTER_RUN if moment == Moment.AFTER_RUN else Moment.BEFORE_RUN
            found.append(Hook(moment=when, call=partial(_broken, str(error)), name=point.name))
    return tuple(found)


def _loaded(point: importlib.metadata.EntryPoint, moment: str, name: str) -> Hook:
    value: object = point.load()
    if isinstance(value, Hook):
        return value
    [made] = hooks_given([{"when": moment, "call": value, "name": name}], what=f"entry point {point.name}")
    return made


def _broken(why: str, _payload: dict[str, Any]) -> None:
    raise InvalidRequest(f"it cannot be loaded: {why}")


# --- calling ----------------------------------------------------------------------------------------------------------


class Caller:
    """Calls hooks one after another and writes down what became of them. One for each run, one for each list.

    Parameters
    ----------
    environ : mapping of str to str
    redactor : Redactor
        Masks what hooks are given and what they say.
    """

    def __init__(self, *, environ: Mapping[str, str], redactor: Redactor) -> None:
        self.environ = environ
        self.redactor = redactor
        self._stop: threading.Event | None = None
        self._is_ended = False
        self._is_hurried = False
        self._news: deque[str] = deque(maxlen=100)
        self._hooks: tuple[Hook, ...] = ()

    def _at(self, moment: Moment) -> list[Hook]:
        return [each for each in self._hooks if each.moment is moment]

    def end(self) -> None:
        """End the call that goes on, and make no other."""
        self._is_ended = True
        if self._stop is not None:
            self._stop.set()

    def hurry(self) -> None:
        """From now on a call has two seconds at most: whoever waits goes away."""
        self._is_hurried = True

    def _patience(self, each: Hook) -> float:
        """Seconds that a hook has for a call now; none when nobody wants to wait for it."""
        if self._is_ended:
            return 0.0
        return min(each.timeout, HURRY) if self._is_hurried else each.timeout

    def news(self) -> list[str]:
        """Sentences about hooks that did not end well, each once."""
        found: list[str] = []
        with suppress(IndexError):
            while True:
                found.append(self._news.popleft())
        return found

    def tell(self, report: HookReport) -> None:
        """Take note of what did not end well. From any thread."""
        if not report.ok:
            self._news.append(report.sentence())

    async def call(
        self, each: Hook, given: Mapping[str, Any], *, where: Surroundings, log: HookLog | None = None, key: str = ""
    ) -> HookReport:
        """Call one hook; what became of it is in the log and in the news."""
        bounded = replace(each, timeout=self._patience(each))

        def work(stop: threading.Event) -> HookReport:
            self._stop = stop
            if self._is_ended:
                return not_run(each, "nobody wanted to wait for it any more")
            try:
                if log is not None:
                    log.begin(key)
            except StateUnusable as error:
                return not_run(each, str(error))
            report = perform(bounded, given, where=where, redactor=self.redactor, unwanted=stop)
            if log is not None:
                with suppress(StateUnusable):  # it was called, and is in the news
                    log.end(key, report)
            return report

        report = await Errand(work, patience=KILL_BUDGET, takes_long=True).run()
        self.tell(report)
        return report


def not_run(each: Hook, why: str = "whoever began to call it is gone; it is not called twice") -> HookReport:
    """What became of a hook that was not called."""
    return HookReport(hook=each.name, moment=each.moment, status=HookStatus.NOT_RUN, detail=why)


def stands_in_the_way(each: Hook, report: HookReport) -> str:
    """Why nothing may start, or what counts as failed, after this call; empty if it may go on."""
    if report.status is HookStatus.REFUSED:
        return f"{report.sentence()}."
    if report.ok or each.on_failure is OnHookFailure.TELL:
        return ""
    return f"{report.sentence()}, and it has to end well (on_failure: stop)."


class RunHooks(Caller):
    """The hooks of one run.

    Parameters
    ----------
    hooks : sequence of Hook
    names : mapping of str to str
        What commands are told besides the run's id.
    notify : Notify or None
        Who else is told.
    """

    def __init__(
        self,
        hooks: Sequence[Hook],
        *,
        environ: Mapping[str, str],
        redactor: Redactor,
        names: Mapping[str, str] | None = None,
        notify: Notify | None = None,
    ) -> None:
        super().__init__(environ=environ, redactor=redactor)
        self._hooks = tuple(hooks)
        self._names = dict(names or {})
        self._before: list[tuple[str, HookReport]] = []
        self._request: RunRequest | None = None
        self._pumps: list[EventPump] = []
        self._fed = 0
        self.telling = Telling(environ=environ, say=self._news.append, wish=notify)
        self.is_adopted = False

    @classmethod
    def of(cls, folder: RunFolder, *, environ: Mapping[str, str], redactor: Redactor) -> RunHooks:
        """The hooks that were meant for a run that somebody else has started."""
        made = cls((), environ=environ, redactor=redactor)
        made.is_adopted = True
        for report in HookLog(folder.path).read().reports.values():
            made.tell(report)
        made.telling.find(folder)
        return made

    def _where(self, request: RunRequest, run_id: str) -> Surroundings:
        names = {"CC_RUN_ID": run_id, **self._names}
        return Surroundings(environ=self.environ, cwd=request.cwd, names=names, mark=mark_of_hooks(run_id))

    async def before(self, request: RunRequest, run_id: str) -> None:
        """Call whoever wants to be called before the run starts.

        Raises
        ------
        HookRefused
            It must not start.
        """
        self._request = request
        where = self._where(request, run_id)
        for each in self._at(Moment.BEFORE_RUN):
            given = payload(each.moment, each, run=asked(request, run_id, mask=self.redactor.text), **self._context())
            report = await self.call(each, given, where=where)
            self._before.append((each.key, report))
            if why := stands_in_the_way(each, report):
                raise HookRefused(f"{why} Nothing was started.")
        self._pumps = [
            EventPump(each, partial(self._deliver, where, asked(request, run_id)), self.tell, mask=self.redactor.text)
            for each in self._at(Moment.ON_EVENT)
        ]

    async def could_not_start(self, request: RunRequest, run_id: str, error: CCExecutorError) -> None:
        """Tell whoever wants to hear of errors that the run was not started."""
        said = {"of": "run", "outcome": "not_started", "summary": str(error), "cure": ""}
        for each in self._at(Moment.ON_ERROR):
            given = payload(each.moment, each, run=asked(request, run_id), error=said, **self._context())
            await self.call(each, given, where=self._where(request, run_id))

    def keep(self, folder: RunFolder) -> None:
        """Write down what is meant for this run, so that somebody else can do the rest of it."""
        self.telling.keep(folder)
        if not self._hooks:
            return
        log = HookLog(folder.path)
        try:
            log.plan(tuple(StoredHook.of(each) for each in self._hooks), names=self._names)
            for key, report in self._before:
                log.end(key, report)
        except StateUnusable as error:
            self._news.append(f"Hooks of this run are called by this process or not at all: {error}")

    def feed(self, events: Sequence[Event], *, upto: int) -> None:
        """Hand events to whoever wants them, each once however many follow the run. `upto`: how many there were with these."""
        if not self._pumps:
            return
        place = upto - sum(map(pieces_of, events))
        chosen = [event for event in events if (place := place + pieces_of(event)) > self._fed]
        self._fed = max(self._fed, upto)
        for pump in self._pumps:
            pump.feed(chosen)

    def dismiss(self) -> None:
        """Nothing further happens in the run, whoever has sealed it."""
        self.telling.dismiss()
        for pump in self._pumps:
            pump.dismiss()

    def _deliver(self, where: Surroundings, run: Mapping[str, Any], each: Hook, part: Mapping[str, Any]) -> HookReport:
        given = payload(each.moment, each, run=run, **self._context()) | dict(part)
        return perform(each, given, where=where, redactor=self.redactor, unwanted=threading.Event())

    def _context(self) -> dict[str, Mapping[str, Any]]:
        task, whole = self._names.get("CC_TASK_ID"), self._names.get("CC_LIST_ID")
        return {name: {"id": value} for name, value in (("task", task), ("list", whole)) if value}

    def is_owed(self, folder: RunFolder) -> bool:
        """Whether there may be something to be called at the run's end."""
        return bool(self._hooks) or HookLog(folder.path).exists()

    async def after(self, folder: RunFolder, receipt: Receipt) -> Receipt:
        """Call whoever wants to be called after the run, once; returns the receipt with what became of all hooks.

        Called by the one who seals the run, before it is sealed.
        """
        log = HookLog(folder.path)
        if self.is_adopted and not log.exists():
            return receipt
        for pump, each in zip(self._pumps, self._at(Moment.ON_EVENT), strict=False):
            report = await in_thread(partial(pump.close, partial(self._patience, each)), takes_long=True)
            if report is not None:
                self.tell(report)
                with suppress(StateUnusable):
                    await in_thread(partial(log.end, each.key, report))
        story = await in_thread(log.read)
        self._names = self._names or story.names
        mine = await in_thread(partial(gathered, (), environ=self.environ)) if self.is_adopted else self._hooks
        known = {each.key: each for each in mine}  # a callable that this process has, too, is as good as the one that is gone
        meant = [known.get(stored.hook().key, stored.hook()) for stored in story.hooks] if story.hooks else list(self._hooks)
        request = self._request or folder.request()
        reports = dict(story.reports) or dict(self._before)
        for moment in (Moment.AFTER_RUN, Moment.ON_ERROR):
            for each in [each for each in meant if each.moment is moment]:
                if (moment is Moment.ON_ERROR and receipt.outcome.ok) or receipt.times.elapsed < each.min_seconds:
                    continue
                report = reports.get(each.key)
                if report is None and each.key in story.begun:
                    report = not_run(each)
                    self.tell(report)
                if report is None:
                    error = None if receipt.outcome.ok else _error(receipt.outcome, "run")
                    given = payload(moment, each, run=ended(request, receipt, folder), error=error, **self._context())
                    report = await self.call(each, given, where=self._where(request, receipt.run_id), log=log, key=each.key)
                reports[each.key] = report
                if moment is Moment.AFTER_RUN and receipt.outcome.ok and (why := stands_in_the_way(each, report)):
                    receipt = receipt.model_copy(update={"outcome": failed_by(why, receipt.outcome)})
        return receipt.model_copy(update={"hooks": tuple(reports.values())})


def mark_of_hooks(run_id: str) -> str:
    """What the processes of a run's hooks carry as their mark."""
    return f"{run_id}-hook"


def failed_by(why: str, outcome: Outcome) -> Outcome:
    """The outcome of what ended well and was not good enough for a hook."""
    return Outcome(
        kind=OutcomeKind.FAILED,
        summary=why.rstrip("."),
        evidence=(f"before the hook: {outcome.kind.value}", *outcome.evidence),
        cure="Look at what the hook found; with on_failure: tell it is only told of.",
    )


def _error(outcome: Outcome, of: str) -> dict[str, Any]:
    return {"of": of, "outcome": outcome.kind.value, "summary": outcome.summary, "cure": outcome.cure}


def asked(request: RunRequest, run_id: str, *, mask: Callable[[str], str] | None = None) -> dict[str, Any]:
    """A run that is about to start, for a hook. The prompt, without secrets, is there with `mask` alone: for `before_run`, which has to judge it."""
    given: dict[str, Any] = {
        "id": run_id,
        "agent": request.agent,
        "model": request.model,
        "cwd": request.cwd,
        "label": request.label,
        "permission_mode": request.permission_mode,
        "tools": list(request.tools),
        "max_cost": request.limits.cost,
        "rehearsed": request.rehearse,
    }
    if mask is not None:  # before it is cut: the beginning of a secret is not recognised
        given |= {"prompt": mask(request.prompt[: 2 * PROMPT_CHARS])[:PROMPT_CHARS], "prompt_chars": len(request.prompt)}
    return given


def ended(request: RunRequest, receipt: Receipt, folder: RunFolder) -> dict[str, Any]:
    """A run that has ended, for a hook: figures and names, neither the prompt nor the agent's words."""
    usage = receipt.usage
    return {
        "id": receipt.run_id,
        "agent": receipt.agent,
        "agent_version": receipt.agent_version,
        "model": receipt.model,
        "cwd": receipt.cwd,
        "label": request.label,
        "rehearsed": receipt.rehearsed,
        "session_id": receipt.session_id,
        "ok": receipt.outcome.ok,
        "outcome": receipt.outcome.kind.value,
        "summary": receipt.outcome.summary,
        "cure": receipt.outcome.cure,
        "standing": receipt.standing.value,
        "seconds": receipt.times.elapsed,
        "cost": receipt.cost,
        "tokens": {"input": usage.input_tokens, "output": usage.output_tokens, "cache_read": usage.cache_read_tokens},
        "turns": receipt.turns,
        "files": [change.path for change in receipt.files[:PATHS]],
        "checks": [{"what": check.what, "passed": check.passed} for check in receipt.checks[:PATHS]],
        "folder": str(folder.path),
    }
