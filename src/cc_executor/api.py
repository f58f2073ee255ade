"""The same runs from Python: `await cc_execute(...)`, and `cc_execute_sync(...)` where nothing can be awaited. Knows no IPython."""

from __future__ import annotations

import asyncio
import difflib
import inspect
import json
import logging
import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
from pydantic import ValidationError

from cc_executor.agents import agent_named
from cc_executor.errors import InvalidRequest
from cc_executor.model.care import Care, OnLimit, OnOutputLimit
from cc_executor.model.event import Event
from cc_executor.model.number import is_finite
from cc_executor.model.paths import EMPTY
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import STALL, SURELY_FITS, Limits, OnKernelExit, RunRequest
from cc_executor.model.size import size_of
from cc_executor.model.toollist import split_tools
from cc_executor.model.wrong import as_given, must
from cc_executor.policy.ask import Place, answerer
from cc_executor.runtime.again import Attempts, wait_until
from cc_executor.runtime.answers import AskCallback, attended
from cc_executor.runtime.blocking import run_blocking
from cc_executor.runtime.bounds import bounded
from cc_executor.runtime.errand import is_cancelled
from cc_executor.runtime.hooks import hooks_given, hooks_of_environment
from cc_executor.runtime.result import Result
from cc_executor.runtime.run import Run
from cc_executor.runtime.wakeup import felt_at_once
from cc_executor.store.home import home_named
from cc_executor.store.place import NOTIFY_VARIABLE

if TYPE_CHECKING:
    from cc_executor.model.notify import Notify

logger = logging.getLogger(__name__)

EventCallback = Callable[[Event], Awaitable[None] | None]

STOP_BUDGET: Final = 10.0  # seconds; the stop ladder takes 3 at most


def make_request(
    prompt: str,
    *,
    agent: str = "claude",
    cwd: str | Path | None = None,
    timeout: float | None = None,
    stall_timeout: float | None = None,
    max_cost: float | None = None,
    max_turns: int | None = None,
    linger: float | None = None,
    journal_limit: str | int | None = None,
    limits: Limits | None = None,
    tools: str | Sequence[str] = (),
    add_dirs: str | Path | Sequence[str | Path] = (),
    expect: str | Path | Sequence[str | Path] = (),
    env_names: str | Sequence[str] = (),
    schema: Any = None,
    rehearse: str | None = None,
    on_kernel_exit: str = "cancel",
    undo: bool | None = None,
    **more: Any,
) -> RunRequest:
    """A checked request out of what users write.

    Parameters
    ----------
    prompt : str
        For agent ``"shell"`` the command.
    cwd : path, optional
        Where the agent works; the current folder if not given.
    timeout : float, optional
        Seconds.
    stall_timeout : float, optional
        Seconds without a sign of life; 0 means no limit. For an agent 600 if neither this nor `limits` is given; a command may be silent for ever.
    max_cost : float, optional
        US dollars.
    linger : float, optional
        Seconds that the agent may stay after its last word for what it left in the background; 60 if not given. With `keep_background` that lives on.
    journal_limit : str or int, optional
        How much of the output is kept: bytes, or a size such as ``"500 MB"``; 20 GB if not given, ``"none"`` for no limit. Of more, beginning and end are kept.
    limits : Limits, optional
        All of these at once; what is also given by itself counts.
    tools : str or sequence of str
        Tools allowed without asking; one text may name several, as ``"Bash(git log, git diff),Write"`` does.
    add_dirs, expect, env_names : str or sequence
        Several, or just one.
    on_kernel_exit : str
        ``"cancel"`` or ``"continue"``: what becomes of the run when this process ends.
    schema : dict or pydantic model class, optional
        What the structured output must look like, as the agent's own program checks it (2.1.330: JSON Schema of draft 7, so no tuples). It does not check
        `format`, nor a model's own validators: `Model.model_validate(result.data)` does.
    undo : bool, optional
        Look at the folder before and after, so that what the run did to it can be undone; for agents yes, for commands no, if not given.
    **more
        Other fields of `RunRequest` by name.

    Raises
    ------
    InvalidRequest
        One sentence that names the option and the cure. Nothing was started.
    """
    if not isinstance(agent, str):  # pyright: ignore[reportUnnecessaryIsInstance] - it may come from JSON
        raise InvalidRequest(f"agent must be a name, not {type(agent).__name__}.")
    agent_named(agent)  # raises InvalidRequest with the names that there are
    if rehearse is not None:
        from cc_executor.rehearsal import scripts  # here: few runs are rehearsals

        rehearse = scripts.whole(_path_text("rehearse", rehearse))
        scripts.load(rehearse)  # as above
    if agent == "claude":
        _check_size(prompt, more.get("model"))
    _check_numbers(timeout=timeout, stall_timeout=stall_timeout, max_cost=max_cost, max_turns=max_turns, linger=linger)
    if "output_schema" in more:
        raise InvalidRequest("There is no option 'output_schema': it is called schema.")
    expect = [_path_text("expect", path) for path in _several("expect", expect)]
    _check_checks(more.get("verify"), expect)
    try:
        given = {"wall": timeout, "cost": max_cost, "turns": max_turns, "linger": linger}
        named = {name: value for name, value in given.items() if value is not None}
        return RunRequest(
            prompt=prompt,
            agent=agent,
            cwd=absolute("cwd", "." if cwd is None else cwd),
            limits=_limits(limits, named | _stall(stall_timeout, limits, agent) | _journal(journal_limit)),
            tools=split_tools(tools) if isinstance(tools, str) else tuple(_several("tools", tools)),
            add_dirs=tuple(absolute("add_dirs", path) for path in _several("add_dirs", add_dirs)),
            expect=tuple(expect),
            env_names=tuple(_several("env_names", env_names)),
            output_schema=json_schema(schema),
            rehearse=rehearse,
            on_kernel_exit=_on_kernel_exit(on_kernel_exit),
            undo=agent != "shell" if undo is None else undo,
            **more,
        )
    except ValidationError as error:
        raise InvalidRequest(_sentences(error)) from None


def _check_size(prompt: Any, model: Any) -> None:
    if isinstance(prompt, str) and len(prompt) > SURELY_FITS and isinstance(model, str | None):
        from cc_executor.policy import tokens  # here: most prompts are short

        if problem := tokens.over(prompt, model):
            raise InvalidRequest(f"The prompt {problem}.")


def check_callback(option: str, callback: object) -> None:
    """Raise `InvalidRequest` unless `callback` can be called, or is none: found out at the first event, it would be told of at each."""
    if callback is not None and not callable(callback):
        raise InvalidRequest(f"{option} must be a function, not {type(callback).__name__}.")


def _check_numbers(**given: object) -> None:
    """True is a 1 to Python, and would be a limit that nobody has meant."""
    for name, value in given.items():
        if isinstance(value, bool):
            raise InvalidRequest(f"{name} must be a number, not {value}.")


def _check_checks(verify: Any, expect: Sequence[str]) -> None:
    """An empty command succeeds whatever was done, and an empty name is no file: mostly of a variable that was not set."""
    for name, value in (("verify", verify), *(("expect", each) for each in expect)):
        if isinstance(value, str) and not value.strip():
            raise InvalidRequest(f"{name} is empty, and would check nothing: leave it out, or say what is to be looked at.")


def _limits(base: Any, given: dict[str, Any]) -> Limits:
    if base is not None and not isinstance(base, Limits):
        raise InvalidRequest(f"limits must be a cc_executor.Limits, not {type(base).__name__}.")
    return Limits(**{**(base.model_dump() if base is not None else {}), **given})


def _stall(seconds: float | None, limits: Limits | None, agent: str) -> dict[str, float | None]:
    if seconds is None:
        return {"stall": STALL} if limits is None and agent != "shell" else {}
    return {"stall": None if seconds == 0 else seconds}


def _journal(limit: str | int | None) -> dict[str, int | None]:
    if limit is None:
        return {}
    try:
        return {"journal": size_of(limit)}
    except (TypeError, ValueError):
        raise InvalidRequest(f"journal_limit must be a size such as 20 GB or 500 MB, or none {as_given(limit)}.") from None


def _several(option: str, values: Any) -> Sequence[Any]:
    if isinstance(values, str | bytes | os.PathLike):
        return (cast("Any", values),)
    if isinstance(values, Mapping) or not isinstance(values, Iterable):
        raise InvalidRequest(f"{option} must be a text or a list of texts, not {type(cast('object', values)).__name__}.")
    return tuple(cast("Iterable[Any]", values))


def _path_text(option: str, path: Any) -> str:
    """A path as Python carries it: bytes that are no UTF-8 become lone surrogates."""
    try:
        text = os.fsdecode(path)
    except TypeError:
        raise InvalidRequest(f"{option} must be a path, not {type(path).__name__}.") from None
    if "\0" in text:
        raise InvalidRequest(f"{option} holds a NUL character: remove it.")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:  # half a character, out of JSON
        raise InvalidRequest(f"{option} holds what can be in no file's name here {as_given(text)}: write it as text.") from None
    return text


def absolute(option: str, path: Any) -> str:
    """A path as it is seen from the current folder. Raises `InvalidRequest`, also for an empty one: it would be that folder, and nobody has meant it."""
    text = _path_text(option, path)
    if not text:
        raise InvalidRequest(f"{option} {EMPTY}")
    try:
        return os.path.abspath(os.path.expanduser(text))
    except FileNotFoundError:
        raise InvalidRequest("The current folder does not exist any more. Change to another, or name one with cwd.") from None


def _on_kernel_exit(word: str) -> OnKernelExit:
    try:
        return OnKernelExit(word)
    except ValueError:
        raise InvalidRequest(f"on_kernel_exit must be 'cancel' or 'continue' (given: {word!r}).") from None


_OPTION_OF_FIELD: Final = {
    "wall": "timeout",
    "stall": "stall_timeout",
    "cost": "max_cost",
    "turns": "max_turns",
    "journal": "journal_limit",
    "prompt": "The prompt",
    "output_schema": "schema",
}


# What other doors, and other lists of tasks, call it.
_ELSEWHERE: Final = {
    "env": "env_names",
    "add_dir": "add_dirs",
    "no_undo": "undo",
    "no_raise_error": "raise_error",
    "depends_on": "needs",
    "dependencies": "needs",
    "requires": "needs",
    "after": "needs",
    "name": "title",
}


def option_names() -> set[str]:
    """What `make_request` takes by name."""
    parameters = inspect.signature(make_request).parameters.values()
    return {each.name for each in parameters if each.kind is each.KEYWORD_ONLY} | (RunRequest.model_fields.keys() - {"output_schema"})


def near_name(name: str, names: Collection[str]) -> str:
    """Which of `names` somebody may have meant who said `name`; empty if that cannot be told."""
    near = [_ELSEWHERE.get(name, ""), *difflib.get_close_matches(name, sorted(names), 1)]
    return next(filter(names.__contains__, near), "")


def no_option(name: str, beside: Iterable[str]) -> str:
    """The sentence about an option that there is not, with the one that may have been meant. `beside`: what can be said there besides a run's options."""
    meant = near_name(name, {*option_names(), *beside})
    return f"There is no option {name!r}.{f' Did you mean {meant}?' if meant else ''}"


def _sentences(error: ValidationError) -> str:
    """Pydantic's findings, one sentence for each option, without URLs and type codes."""
    found: dict[str, str] = {}
    for each in error.errors(include_url=False, include_context=False):
        field = str(each["loc"][0]) if each["loc"] else ""
        message = must(each["msg"])
        name = _OPTION_OF_FIELD.get(field, field)
        value = "" if field in {"prompt", "output_schema", ""} else f" {as_given(each['input'])}"
        is_unknown = each["type"] == "extra_forbidden"
        found.setdefault(field, no_option(field, _OF_CALLS) if is_unknown else f"{name} {message}{value}.".strip())
    return " ".join(found.values())


def json_schema(schema: Any) -> dict[str, Any] | None:
    """A schema as users give it (dict, pydantic model class) as JSON Schema. Raises `InvalidRequest`."""
    if schema is None:
        return None
    maker = getattr(schema, "model_json_schema", None)
    try:
        found: Any = maker() if callable(maker) else schema
        json.dumps(found, allow_nan=False)  # it goes to the agent, and into the run's folder
    except Exception as error:  # the user's own class, and whatever pydantic finds in it: the user is owed a sentence
        reason = (str(error).splitlines() or [type(error).__name__])[0]  # pydantic goes on with an address
        raise InvalidRequest(
            f"schema cannot be written as JSON ({reason}): use objects, lists, text, numbers, true, false and null."
        ) from error
    if not isinstance(found, dict):
        raise InvalidRequest(f"schema must be a JSON Schema (dict) or a pydantic model class, not {type(schema).__name__}.")
    return cast("dict[str, Any]", found)


@felt_at_once
async def cc_execute(
    prompt: str,
    *,
    on_event: EventCallback | None = None,
    on_ask: AskCallback | None = None,
    hooks: object = None,
    raise_error: bool = False,
    state: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    **options: Any,
) -> Result:
    """Run an agent and wait for its end.

    Parameters
    ----------
    prompt : str
        The text for the agent, sent byte for byte.
    on_event : callable, optional
        Called with every event; may be async. What it raises is logged, once, and never breaks the run.
    on_ask : callable, optional
        Called with each request for leave and each question of the agent (`PermissionAsked`, `QuestionAsked`); may be async, and another thread calls it if
        it is not. Its value answers: True, ``"allow_run"``, False, a text (a reason to deny, or the answer), a list of answers. It makes ``ask=True``.
    hooks : mapping or sequence, optional
        Whom to call at moments of this run, as ``{"before_run": function, "after_run": "command"}``; see docs/hooks.md.
    raise_error : bool
        Raise `CCExecutionError` for an outcome other than ok.
    state : path, optional
        The state folder, if not the usual one.
    environ : mapping, optional
        The environment to choose the agent's from; `os.environ` if not given.
    **options
        Each means what the option of `%%cc_execute` with this name does: agent, cwd, model, fallback_model, permission_mode, tools, resume, add_dirs,
        append_system_prompt, verify, expect, ask, undo (True or False), loop_guard, rehearse, cli, shell, env_names, keep_background, trust_workspace, label;
        timeout, stall_timeout and linger in seconds; max_cost in US dollars; max_turns; journal_limit in bytes, or as ``"500MB"``; limits, a `Limits` that says
        all of these at once; schema, a dict or a pydantic model class; on_kernel_exit (``"cancel"``, or ``"continue"`` when this process ends).
        Of tools, add_dirs, expect and env_names one or several.
        And what makes further attempts, each a run with its own receipt, of which the last is returned: on_limit (``"stop"``, or ``"wait"`` for the end of a
        usage limit at most limit_wait_max seconds away), on_output_limit (``"stop"``, ``"continue"``, ``"concise"``, ``"outline"``), reask (ask once more for a
        missing structured result); max_cost_per_day (US dollars for everything that is run today); and who is told of the run: notify (``"command:…"``,
        an https address, ``"env:NAME"``, or several), notify_after (seconds, 30 if not given), notify_on (of ``"done"``, ``"failed"``, ``"input"``).
        For timeout, max_cost, max_turns and max_cost_per_day that are not given, the environment's ``CC_EXECUTOR_TIMEOUT`` and so on hold;
        in a notebook that has loaded the extension also its settings' max_cost and max_cost_per_day.

    Returns
    -------
    Result
        Also when the run failed: `result.status` tells. Cancelling the awaiting task ends the whole process tree first.

    Raises
    ------
    InvalidRequest, AgentNotFound, AgentUnsupported, StateUnusable, LaunchFailed, HookRefused, DaySpent
        Nothing was started; or, if a further attempt was wished for, that one was not.
    CCExecutionError
        With `raise_error`, for an outcome other than ok.
    """
    check_callback("on_event", on_event)
    check_callback("on_ask", on_ask)
    environment = os.environ if environ is None else environ
    options = bounded(options, environment)
    care, day = take_care(options)
    notify = take_notify(options, environment)
    request = make_request(prompt, **_asking(options, on_ask))
    home = home_named(state, environment)
    called = (*hooks_of_environment(environment), *hooks_given(hooks))
    attempts = Attempts(request, care, max_cost_per_day=day, home=home, environ=environment)
    while True:
        run = await Run.start(await attempts.request(), home=home, environ=environment, hooks=called, notify=notify)
        receipt = await _to_end(run, on_event, on_ask)
        again = await attempts.after(receipt, run.state)
        if again is None:
            break
        await wait_until(again.until, is_over=lambda: False, tell=lambda _: None)
    result = Result(receipt=receipt, folder=run.folder.path, remark=attempts.remark)
    if raise_error:
        result.raise_for_outcome()
    return result


async def _to_end(run: Run, on_event: EventCallback | None, on_ask: AskCallback | None) -> Receipt:
    who = answerer(Place.PYTHON if on_ask is None else Place.CALLBACK)
    has_failed = False
    try:
        async with attended(run, who, on_ask) as attendant, aclosing(run.follow()) as batches:
            async for batch in batches:
                await run.refuse_hopeless(batch)
                await attendant.attend(batch)
                if on_event is not None:
                    for event in batch.events:
                        has_failed = not await _tell(on_event, event, is_quiet=has_failed) or has_failed
        return await run.finish()
    except BaseException as error:
        error.add_note(f"Run {run.run_id} was ended by this; `cc-executor show {run.run_id}` tells what it had done.")
        with anyio.CancelScope(shield=True), anyio.move_on_after(STOP_BUDGET):
            await run.end(reason="interrupt", by="python")
        raise


NOTIFY: Final = ("notify", "notify_after", "notify_on")
_CARE: Final = ("on_limit", "limit_wait_max", "on_output_limit", "reask")
_OF_CALLS: Final = (*NOTIFY, *_CARE, "raise_error")  # what `cc_execute` takes besides
_WORDS: Final[Mapping[str, type[StrEnum]]] = {"on_limit": OnLimit, "on_output_limit": OnOutputLimit}


def take_care(options: dict[str, Any]) -> tuple[Care, float | None]:
    """What is done about limits, and US dollars for the day; taken out of `options`, where None means that it was not given.

    Raises
    ------
    InvalidRequest
        One sentence that names the option and the cure.
    """
    given = {name: value for name in _CARE if (value := options.pop(name, None)) is not None}
    for name, words in _WORDS.items():
        if name in given:
            try:
                given[name] = words(given[name])
            except ValueError:
                known = ", ".join(repr(word.value) for word in words)
                raise InvalidRequest(f"{name} must be one of {known} (given: {given[name]!r}).") from None
    day = options.pop("max_cost_per_day", None)
    for name, value in (("limit_wait_max", given.get("limit_wait_max")), ("max_cost_per_day", day)):
        if value is not None and not (isinstance(value, int | float) and is_finite(value) and value > 0):
            raise InvalidRequest(f"{name} must be a number greater than 0; leave it out for no limit of your own (given: {value!r}).")
    if given.get("reask") and options.get("schema") is None:
        raise InvalidRequest("reask asks again for a structured result, and there is no schema: give one, or leave reask out.")
    return Care(**given), day


def take_notify(options: dict[str, Any], environ: Mapping[str, str]) -> Notify | None:
    """Who is told of a run or a list, taken out of `options`: notify, notify_after and notify_on, and what the environment says besides.

    Raises
    ------
    InvalidRequest
        One sentence that names the option and the cure, and of an address its host alone.
    """
    given = {name: options.pop(name) for name in NOTIFY if name in options}
    if all(value is None for value in given.values()) and not environ.get(NOTIFY_VARIABLE):
        return None
    from cc_executor.runtime.notices import wish_of  # where nobody is to be told, nothing of it is loaded

    return wish_of(given.get("notify"), after=given.get("notify_after"), on=given.get("notify_on"), environ=environ)


def _asking(options: dict[str, Any], on_ask: AskCallback | None) -> dict[str, Any]:
    return options if on_ask is None else {"ask": True, **options}


async def _tell(callback: EventCallback, event: Event, *, is_quiet: bool) -> bool:
    """Whether the callback has taken it. `is_quiet`: it has failed before, and was told of."""
    try:
        answer = callback(event)
        if inspect.isawaitable(answer):
            await answer
    except (asyncio.CancelledError, Exception) as error:  # the user's own code: the run is owed its life, the developer the trace
        if isinstance(error, asyncio.CancelledError) and is_cancelled():
            raise
        if not is_quiet:  # once: a run has thousands of events
            logger.exception("on_event failed for %s; of more failures in this run nothing is said", type(event).__name__)
        return False
    return True


def cc_execute_sync(prompt: str, **options: Any) -> Result:
    """`cc_execute` for code that cannot await; blocks until the run has ended. Takes and raises the same.

    Where a loop is running already, and it is not that of ipykernel 7 or later, the loop's other tasks go on meanwhile (nest-asyncio);
    on ipykernel 7 and later, where nesting loses messages, and on loops that cannot be nested, the run is driven from a worker thread.
    """
    return run_blocking(cc_execute(prompt, **options))
