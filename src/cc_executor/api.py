"""The same runs from Python: `await cc_execute(...)`, and `cc_execute_sync(...)` where nothing can be awaited. Knows no IPython."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import anyio
from pydantic import ValidationError

from cc_executor.agents import agent_named
from cc_executor.errors import InvalidRequest
from cc_executor.model.event import Event
from cc_executor.model.request import Limits, OnKernelExit, RunRequest
from cc_executor.model.result import Result
from cc_executor.model.toollist import split_tools
from cc_executor.rehearsal import scripts
from cc_executor.runtime.run import Run
from cc_executor.store.home import StateHome, state_path

logger = logging.getLogger(__name__)

EventCallback = Callable[[Event], Awaitable[None] | None]
T = TypeVar("T")

STOP_BUDGET: Final = 10.0  # seconds; the stop ladder takes 3 at most
_SIGNAL_LOOK: Final = 0.1  # seconds; short, so that the main thread still takes signals


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
    limits: Limits | None = None,
    tools: str | Sequence[str] = (),
    add_dirs: str | Path | Sequence[str | Path] = (),
    expect: str | Path | Sequence[str | Path] = (),
    env_names: str | Sequence[str] = (),
    schema: Any = None,
    rehearse: str | None = None,
    on_kernel_exit: str = "cancel",
    **more: Any,
) -> RunRequest:
    """A checked request out of what users write.

    Parameters
    ----------
    prompt : str
        For agent ``"shell"`` the command.
    cwd : path, optional
        Where the agent works; the current folder if not given.
    timeout, stall_timeout : float, optional
        Seconds.
    max_cost : float, optional
        US dollars.
    linger : float, optional
        Seconds that the agent may stay after its last word for what it left in the background; 60 if not given. With `keep_background` that lives on.
    limits : Limits, optional
        All of these at once; what is also given by itself counts.
    tools : str or sequence of str
        Tools allowed without asking; one text may name several, as ``"Bash(git log, git diff),Write"`` does.
    add_dirs, expect, env_names : str or sequence
        Several, or just one.
    on_kernel_exit : str
        ``"cancel"`` or ``"continue"``: what becomes of the run when this process ends.
    schema : dict or pydantic model class, optional
        What the structured output must look like.
    **more
        Other fields of `RunRequest` by name.

    Raises
    ------
    InvalidRequest
        One sentence that names the option and the cure. Nothing was started.
    """
    agent_named(agent)  # raises InvalidRequest with the names that there are
    if rehearse is not None:
        scripts.load(rehearse)  # as above
    if "output_schema" in more:
        raise InvalidRequest("There is no option 'output_schema': it is called schema.")
    try:
        given = {"wall": timeout, "stall": stall_timeout, "cost": max_cost, "turns": max_turns, "linger": linger}
        return RunRequest(
            prompt=prompt,
            agent=agent,
            cwd=_absolute("cwd", "." if cwd is None else cwd),
            limits=_limits(limits, {name: value for name, value in given.items() if value is not None}),
            tools=split_tools(tools) if isinstance(tools, str) else tuple(tools),
            add_dirs=tuple(_absolute("add_dirs", path) for path in _several(add_dirs)),
            expect=tuple(_path_text("expect", path) for path in _several(expect)),
            env_names=tuple(_several(env_names)),
            output_schema=json_schema(schema),
            rehearse=rehearse,
            on_kernel_exit=_on_kernel_exit(on_kernel_exit),
            **more,
        )
    except ValidationError as error:
        raise InvalidRequest(_sentence(error)) from None


def _limits(base: Any, given: dict[str, Any]) -> Limits:
    if base is not None and not isinstance(base, Limits):
        raise InvalidRequest(f"limits must be a cc_executor.Limits, not {type(base).__name__}.")
    return Limits(**{**(base.model_dump() if base is not None else {}), **given})


def _several(values: Any) -> Sequence[Any]:
    if isinstance(values, str | bytes | os.PathLike):
        return (cast("Any", values),)
    return tuple(values)


def _path_text(option: str, path: Any) -> str:
    """A path as Python carries it: bytes that are no UTF-8 become lone surrogates."""
    try:
        text = os.fsdecode(path)
    except TypeError:
        raise InvalidRequest(f"{option} must be a path, not {type(path).__name__}.") from None
    if "\0" in text:
        raise InvalidRequest(f"{option} holds a NUL character: remove it.")
    return text


def _absolute(option: str, path: Any) -> str:
    try:
        return os.path.abspath(os.path.expanduser(_path_text(option, path)))
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
    "prompt": "The prompt",
    "output_schema": "schema",
}


def _sentence(error: ValidationError) -> str:
    """Pydantic's finding as one sentence without its URLs and type codes."""
    first = error.errors(include_url=False, include_context=False)[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    message = first["msg"].removeprefix("Value error, ").replace("Input should", "must", 1)
    if first["type"] == "extra_forbidden":
        return f"There is no option {field!r}."
    name = _OPTION_OF_FIELD.get(field, field)
    value = "" if field in {"prompt", "output_schema", ""} else f" (given: {first['input']!r})"
    return f"{name} {message}{value}.".strip()


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


async def cc_execute(
    prompt: str,
    *,
    on_event: EventCallback | None = None,
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
        Called with every event; may be async. What it raises is logged and never breaks the run.
    raise_error : bool
        Raise `CCExecutionError` for an outcome other than ok.
    state : path, optional
        The state folder, if not the usual one.
    environ : mapping, optional
        The environment to choose the agent's from; `os.environ` if not given.
    **options
        See `make_request`: agent, cwd, model, fallback_model, permission_mode, tools, timeout, stall_timeout, max_cost, max_turns, linger, schema, resume,
        add_dirs, append_system_prompt, verify, expect, rehearse, cli, shell, env_names, keep_background, trust_workspace, label.

    Returns
    -------
    Result
        Also when the run failed: `result.status` tells. Cancelling the awaiting task ends the whole process tree first.

    Raises
    ------
    InvalidRequest, AgentNotFound, AgentUnsupported, StateUnusable, LaunchFailed
        Nothing was started.
    CCExecutionError
        With `raise_error`, for an outcome other than ok.
    """
    request = make_request(prompt, **options)
    environment = os.environ if environ is None else environ
    home = StateHome(Path(state) if state is not None else state_path(environment))
    run = await Run.start(request, home=home, environ=environment)
    try:
        async with aclosing(run.follow()) as batches:
            async for batch in batches:
                await run.refuse_hopeless(batch)
                if on_event is not None:
                    for event in batch.events:
                        await _tell(on_event, event)
        receipt = await run.finish()
    except BaseException:
        with anyio.CancelScope(shield=True), anyio.move_on_after(STOP_BUDGET):
            await run.end(reason="interrupt", by="python")
        raise
    result = Result(receipt=receipt, folder=run.folder.path)
    if raise_error:
        result.raise_for_outcome()
    return result


async def _tell(callback: EventCallback, event: Event) -> None:
    try:
        answer = callback(event)
        if inspect.isawaitable(answer):
            await answer
    except Exception:  # the user's own code: the run is owed its life, the developer the trace
        logger.exception("on_event failed for %s", type(event).__name__)


def cc_execute_sync(prompt: str, **options: Any) -> Result:
    """`cc_execute` for code that cannot await; blocks until the run has ended. Takes and raises the same.

    Where a loop is running already, and it is not that of ipykernel 7 or later, the loop's other tasks go on meanwhile (nest-asyncio);
    on ipykernel 7 and later, where nesting loses messages, and on loops that cannot be nested, the run is driven from a worker thread.
    """
    return run_blocking(cc_execute(prompt, **options))


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, whatever loop is or is not running in this thread. An interrupt cancels it, and is raised when it has ended."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return _run(work)
    if _can_nest(loop):
        return _run_nested(work, loop)
    return run_in_thread(work)


def _run(work: Coroutine[Any, Any, T]) -> T:
    # Not asyncio.run: where nest-asyncio was applied, that one is another, which leaves its loop open.
    with asyncio.Runner() as runner:
        return runner.run(work)


def _can_nest(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether nesting is safe. Measured: on ipykernel >= 7 nest-asyncio loses shell messages, so the next cells never run."""
    if not isinstance(loop, asyncio.BaseEventLoop):
        return False  # uvloop and others cannot be patched
    kernel = sys.modules.get("ipykernel")
    return kernel is None or int(str(kernel.__version__).split(".")[0]) < 7  # noqa: PLR2004 - the version that runs cells in one context


def _run_nested(work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    import nest_asyncio  # pyright: ignore[reportMissingTypeStubs] - it ships none

    nest_asyncio.apply(loop)  # noqa: TID251 - the one exception that the ban names  # pyright: ignore[reportUnknownMemberType] - it ships no types
    task = loop.create_task(work, name="cc_executor")
    # Left alone, Ctrl-C would reach the outer task, which does not run now, and the second one would leave this one behind.
    with _sigint_calls(lambda: loop.call_soon_threadsafe(task.cancel)) as interrupts:
        try:
            result = loop.run_until_complete(task)
        except asyncio.CancelledError:
            if interrupts:
                raise KeyboardInterrupt from None
            raise
    if interrupts:
        raise KeyboardInterrupt
    return result


def run_in_thread(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, run on a loop of its own in another thread, with this thread's context variables. Interrupts cancel it."""
    outcome: list[T] = []
    failure: list[BaseException] = []
    driver = _Driver()

    def target() -> None:
        try:
            outcome.append(_run(driver.drive(work)))
        except BaseException as error:  # noqa: BLE001 - carried to the calling thread, which is owed it
            failure.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(target,), name="cc_executor", daemon=True)
    with _sigint_calls(driver.cancel) as interrupts:
        thread.start()
        while thread.is_alive():
            thread.join(_SIGNAL_LOOK)
    if interrupts:
        raise KeyboardInterrupt
    if failure:
        raise failure[0]
    return outcome[0]


class _Driver:
    """A task in another thread's loop that can be cancelled at any time, also before it has begun."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler calls `cancel`, perhaps while this thread holds it
        self._cancelled = 0
        self._place: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None

    async def drive(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        assert task is not None  # a coroutine that runs has a task
        with self._lock:
            self._place = (asyncio.get_running_loop(), task)
            if self._cancelled:
                task.cancel()
        try:
            return await work
        finally:
            with self._lock:
                self._place = None

    def cancel(self) -> None:
        with self._lock:
            self._cancelled += 1
            if self._place is not None:
                loop, task = self._place
                loop.call_soon_threadsafe(task.cancel)


@contextmanager
def _sigint_calls(act: Callable[[], object]) -> Generator[list[int]]:
    """In the main thread, let Ctrl-C call `act` instead of raising `KeyboardInterrupt` wherever the code happens to be. Gives the list of interrupts."""
    interrupts: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in {None, signal.SIG_IGN, signal.SIG_DFL}:
        yield interrupts
        return

    def interrupted(number: int, _: object) -> None:
        interrupts.append(number)
        act()

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)
