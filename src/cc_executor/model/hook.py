"""What a user wants called at certain moments of runs, tasks and lists, as data; and what became of it. Knows shapes and words; calls nothing.

A hook is a Python callable or a command. Both get one JSON object (`SCHEMA`), and answer by ending well, by failing, or, before something starts, by
``{"refuse": "why"}``. Nothing else of an answer counts: a hook cannot change what was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, Literal, cast, get_args

import msgspec
from pydantic import BaseModel, ConfigDict

from cc_executor.model.event import Event
from cc_executor.model.number import is_finite

SCHEMA: Final = 1  # of what hooks are given; a new field does not raise it, a changed one does

TIMEOUT: Final = 10.0  # seconds for one call, if a hook does not say
TIMEOUT_LIMIT: Final = 600.0  # seconds; somebody waits for it
COMMAND_LIMIT: Final = 64 * 1024  # characters
HOOKS_LIMIT: Final = 100  # of one list, one configuration
DETAIL_CHARS: Final = 500  # of what a hook said
NAME_CHARS: Final = 80

_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Moment(StrEnum):
    """When a hook is called."""

    BEFORE_RUN = "before_run"
    AFTER_RUN = "after_run"
    BEFORE_TASK = "before_task"
    AFTER_TASK = "after_task"
    BEFORE_LIST = "before_list"
    AFTER_LIST = "after_list"
    ON_EVENT = "on_event"
    ON_ERROR = "on_error"

    @property
    def is_before(self) -> bool:
        """Whether something is about to start, which a hook may refuse."""
        return self in {Moment.BEFORE_RUN, Moment.BEFORE_TASK, Moment.BEFORE_LIST}


OF_RUNS: Final = frozenset({Moment.BEFORE_RUN, Moment.AFTER_RUN, Moment.ON_EVENT, Moment.ON_ERROR})


class OnHookFailure(StrEnum):
    """What a hook that fails or hangs does to what it belongs to."""

    TELL = "tell"  # it is shown, in the view and in the record
    STOP = "stop"  # before: nothing starts; after: the run, task or list counts as failed


class HookStatus(StrEnum):
    """What became of one call."""

    OK = "ok"
    FAILED = "failed"
    HUNG = "hung"  # it did not end in time: a command was killed, a callable was left alone in its thread
    REFUSED = "refused"
    NOT_RUN = "not_run"  # the process that could have called it is gone


HOOK_WORDS: Final = {
    HookStatus.OK: "ended well",
    HookStatus.FAILED: "failed",
    HookStatus.HUNG: "did not end in time",
    HookStatus.REFUSED: "refused",
    HookStatus.NOT_RUN: "was not called",
}


class HookReport(BaseModel):
    """What became of a hook at one moment.

    Attributes
    ----------
    hook : str
        Its name.
    detail : str
        What it said, bounded and without secrets.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hook: str
    moment: Moment
    status: HookStatus
    detail: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether there is nothing to tell."""
        return self.status is HookStatus.OK

    def sentence(self) -> str:
        """For the view and for the record."""
        what = f"The hook {self.hook!r} ({self.moment.value})"
        return f"{what} {HOOK_WORDS[self.status]}{f': {self.detail}' if self.detail else ''}"


@dataclass(frozen=True, slots=True)
class Hook:
    """One wish to be called.

    Attributes
    ----------
    moment : Moment
    command : str
        A command line for ``/bin/sh``; empty for a callable.
    call : callable or None
        Takes the payload (dict); may be async.
    name : str
        By which it is told of.
    timeout : float
        Seconds for one call.
    on_failure : OnHookFailure
    events : tuple of str
        For ``on_event``: the kinds of events that it wants; empty: all that are whole.
    env : tuple of str
        For a command: names of further environment variables.
    min_seconds : float
        For ``after_run``, ``after_task`` and ``on_error``: not called for what took less.
    """

    moment: Moment
    command: str = ""
    call: Callable[[dict[str, Any]], object] | None = field(default=None, repr=False)
    name: str = ""
    timeout: float = TIMEOUT
    on_failure: OnHookFailure = OnHookFailure.TELL
    events: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    min_seconds: float = 0.0

    @property
    def key(self) -> str:
        """Tells two hooks of one record apart; the same in every process."""
        return f"{self.moment.value}:{self.name}:{self.command}"


def told_apart(hooks: Iterable[Hook]) -> tuple[Hook, ...]:
    """The same hooks, each with a key of its own: of several lambdas at one moment the second is called ``<lambda> 2``, and so on."""
    found: dict[str, Hook] = {}
    for each in hooks:
        made, number = each, 1
        while made.key in found:
            number += 1
            made = replace(each, name=f"{each.name[: NAME_CHARS - 4]} {number}")
        found[made.key] = made
    return tuple(found.values())


class StoredHook(BaseModel):
    """A hook as it is kept on disk; a callable leaves its name only."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    moment: Moment
    name: str
    command: str = ""
    timeout: float = TIMEOUT
    on_failure: OnHookFailure = OnHookFailure.TELL
    events: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    min_seconds: float = 0.0

    @classmethod
    def of(cls, hook: Hook) -> StoredHook:
        """What is kept of a hook."""
        names = [name for name in cls.model_fields if hasattr(hook, name)]
        return cls.model_validate({name: getattr(hook, name) for name in names})

    def hook(self) -> Hook:
        """The hook again; one without a command can only be told of."""
        return Hook(**{name: getattr(self, name) for name in type(self).model_fields})


# --- as people write them ---------------------------------------------------------------------------------------------

_KINDS: Final = frozenset(str(each.__struct_config__.tag) for each in get_args(Event))
_TIMED: Final = (Moment.AFTER_RUN, Moment.AFTER_TASK, Moment.ON_ERROR)  # of what these tell there is a time that it took
_FIELDS: Final = ("when", "run", "call", "name", "timeout", "on_failure", "events", "env", "min_seconds")


class WrittenHooks(msgspec.Struct):
    """What was made of somebody's hooks, and everything that is wrong with them."""

    hooks: tuple[Hook, ...] = ()
    problems: list[str] = []


def hooks_from(value: object, *, callables: bool = True) -> WrittenHooks:
    """Hooks as people write them.

    Parameters
    ----------
    value : mapping or sequence
        Either a mapping from a moment to a command, a callable, a mapping, or several of these; or a sequence of mappings with ``when`` and ``run`` (a
        command) or ``call`` (a callable), and name, timeout, on_failure, events, env, min_seconds. Or a sequence of `Hook`.
    callables : bool
        Whether callables are allowed: a file has none.
    """
    made = WrittenHooks()
    found: list[Hook] = []
    try:
        several = in_a_list(value)
    except ValueError as error:
        made.problems.append(str(error))
        return made
    for given in several:
        hook = given if isinstance(given, Hook) else _hook(given, made, callables=callables)
        if hook is not None and hook not in found:
            found.append(hook)
    if len(found) > HOOKS_LIMIT:
        made.problems.append(f"{len(found)} hooks are more than the limit of {HOOKS_LIMIT}.")
    made.hooks = tuple(found)
    return made


def in_a_list(value: object) -> list[object]:
    """Hooks as one list of mappings with ``when``, however they are written. Raises `ValueError` for what is neither mapping nor list."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        found: list[object] = []
        for moment, several in cast("Mapping[object, object]", value).items():
            works = cast("Sequence[object]", several) if isinstance(several, list | tuple) else (several,)
            for work in works:
                if isinstance(work, Mapping):
                    found.append({"when": moment, **cast("Mapping[str, Any]", work)})
                else:
                    found.append({"when": moment, ("call" if callable(work) else "run"): work})
        return found
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return list(cast("Sequence[object]", value))
    raise ValueError(f"must be a mapping from moments to commands, or a list of mappings, not {type(value).__name__}.")


def _hook(given: object, made: WrittenHooks, *, callables: bool) -> Hook | None:
    if not isinstance(given, Mapping):
        made.problems.append(f"a hook must be a mapping with `when` and `run`, not {type(given).__name__}.")
        return None
    fields = {str(name): value for name, value in cast("Mapping[object, Any]", given).items()}
    when = fields.get("when")
    wrong: list[str] = []
    if unknown := sorted(fields.keys() - set(_FIELDS)):
        wrong.append(f"has no {', '.join(map(_shown, unknown))}; it has {', '.join(_FIELDS)}")
    if when not in tuple(Moment):
        wrong.append(f"needs `when`, one of {', '.join(Moment)} (given: {when!r})")
    command, call = fields.get("run"), fields.get("call")
    if (command is None) == (call is None):
        wrong.append("needs one of `run` (a command) and `call` (a Python callable)")
    elif command is not None and not (
        isinstance(command, str) and command.strip() and "\0" not in command and len(command) <= COMMAND_LIMIT
    ):
        wrong.append(f"needs a command of at most {COMMAND_LIMIT:,} characters as `run`")
    elif call is not None and not (callables and callable(call)):
        wrong.append("can only be a command here (`run`)" if not callables else "needs something that can be called as `call`")
    timeout = _number(fields.get("timeout", TIMEOUT))
    if timeout is None or not 0 < timeout <= TIMEOUT_LIMIT:
        wrong.append(f"needs a timeout in seconds, more than 0 and at most {TIMEOUT_LIMIT:.0f} (given: {fields.get('timeout')!r})")
    least = _number(fields.get("min_seconds", 0.0))
    if least is None or least < 0:
        wrong.append(f"needs min_seconds of 0 or more (given: {fields.get('min_seconds')!r})")
    policy = fields.get("on_failure", OnHookFailure.TELL)
    if policy not in tuple(OnHookFailure):
        wrong.append(f"has on_failure {policy!r}; it is one of {', '.join(OnHookFailure)}")
    events, env = _words(fields.get("events", ())), _words(fields.get("env", ()))
    if events is None or (events and when != Moment.ON_EVENT):
        wrong.append("takes `events` (kinds of events) for on_event only")
    elif unknown_kinds := [kind for kind in events if kind not in _KINDS]:
        wrong.append(f"waits for {', '.join(map(repr, unknown_kinds))}, which no event is; there are {', '.join(sorted(_KINDS))}")
    if least and when not in _TIMED:
        wrong.append(f"takes min_seconds for {', '.join(_TIMED)} only")
    if env is None or not all(_ENV_NAME.fullmatch(name) for name in env):
        wrong.append("takes names of environment variables as `env`")
    name = fields.get("name") or (_called(call) if call is not None else _first_word(command)) or when
    if wrong:
        made.problems += [f"the hook {str(name)[:NAME_CHARS]!r} {problem}." for problem in wrong]
        return None
    return Hook(
        moment=Moment(when),
        command=command or "",
        call=call,
        name=str(name)[:NAME_CHARS],
        timeout=timeout or TIMEOUT,
        on_failure=OnHookFailure(policy),
        events=events or (),
        env=env or (),
        min_seconds=least or 0.0,
    )


def _shown(name: str) -> str:
    return name if name.isprintable() else repr(name)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not is_finite(value):
        return None
    return float(value)


def _words(value: object) -> tuple[str, ...] | None:
    several = (value,) if isinstance(value, str) else value
    if not isinstance(several, list | tuple):
        return None
    words = cast("Sequence[object]", several)
    return tuple(cast("Sequence[str]", words)) if all(isinstance(word, str) for word in words) else None


def _called(call: object) -> str:
    return str(getattr(call, "__name__", type(call).__name__))


def _first_word(command: object) -> str:
    words = command.split() if isinstance(command, str) else []
    return words[0].rsplit("/", 1)[-1] if words else ""


def call_named(call: Callable[..., object]) -> str:
    """`module.function`: the same after a cell has defined it anew."""
    return f"{getattr(call, '__module__', '')}.{getattr(call, '__qualname__', type(call).__qualname__)}"


# --- what they are given ----------------------------------------------------------------------------------------------

Kind = Literal["run", "task", "list", "error"]


def payload(moment: Moment, hook: Hook, **parts: Mapping[str, Any] | None) -> dict[str, Any]:
    """The object for one call. `parts`: run, task, list, error; those that there are."""
    given = {name: dict(part) for name, part in parts.items() if part is not None}
    return {"schema": SCHEMA, "moment": moment.value, "hook": hook.name, **given}


def refusal(answer: object) -> str | None:
    """Why a hook refuses, or None if it does not."""
    if isinstance(answer, Mapping):
        reason = cast("Mapping[object, object]", answer).get("refuse")
        if reason:
            return reason if isinstance(reason, str) else "it gave no reason"
    return None


def described(hooks: Sequence[Hook]) -> list[str]:
    """One line for each hook, for whoever looks before anything is started."""
    return [
        f"hook {each.moment.value}: {each.command or f'{each.name}()'}  ({each.timeout:g} s, {each.on_failure.value})" for each in hooks
    ]
