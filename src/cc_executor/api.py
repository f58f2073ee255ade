"""The same runs from Python: `await cc_execute(...)`, and `cc_execute_sync(...)` where nothing can be awaited. Knows no IPython."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
from pydantic import ValidationError

from cc_executor.agents import agent_named
from cc_executor.errors import ControlFailed, InvalidRequest
from cc_executor.model.event import Event
from cc_executor.model.request import Limits, OnKernelExit, RunRequest
from cc_executor.model.result import Result
from cc_executor.rehearsal import scripts
from cc_executor.runtime.run import Run
from cc_executor.store.home import StateHome, state_path

logger = logging.getLogger(__name__)

EventCallback = Callable[[Event], Awaitable[None] | None]
T = TypeVar("T")

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
    tools: Sequence[str] = (),
    add_dirs: Sequence[str | Path] = (),
    expect: Sequence[str | Path] = (),
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
    folder = os.path.abspath(os.path.expanduser(str(cwd))) if cwd is not None else _current_folder()
    try:
        limits = Limits(wall=timeout, stall=stall_timeout, cost=max_cost, turns=max_turns)
        return RunRequest(
            prompt=prompt,
            agent=agent,
            cwd=folder,
            limits=limits,
            tools=tuple(tools),
            add_dirs=tuple(os.path.abspath(os.path.expanduser(os.fspath(path))) for path in add_dirs),
            expect=tuple(os.fspath(path) for path in expect),
            output_schema=_json_schema(schema),
            rehearse=rehearse,
            on_kernel_exit=OnKernelExit(on_kernel_exit),
            **more,
        )
    except ValidationError as error:
        raise InvalidRequest(_sentence(error)) from None


_OPTION_OF_FIELD: Final = {"wall": "timeout", "stall": "stall_timeout", "cost": "max_cost", "turns": "max_turns", "prompt": "The prompt", "output_schema": "schema"}


def _sentence(error: ValidationError) -> str:
    """Pydantic's finding as one sentence without its URLs and type codes."""
    first = error.errors(include_url=False, include_context=False)[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"There is no option {field!r}."
    name = _OPTION_OF_FIELD.get(field, field)
    value = "" if field in {"prompt", "output_schema", ""} else f" (given: {first['input']!r})"
    return f"{name} {message}{value}.".strip()


def _json_schema(schema: Any) -> dict[str, Any] | None:
    if schema is None or isinstance(schema, dict):
        return schema  # pyright: ignore[reportUnknownVariableType] - a JSON Schema is any dict; RunRequest checks it
    maker = getattr(schema, "model_json_schema", None)
    if callable(maker):
        made: Any = maker()
        return made
    raise InvalidRequest(f"schema must be a JSON Schema (dict) or a pydantic model class, not {type(schema).__name__}.")


def _current_folder() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        raise InvalidRequest("The current folder does not exist any more. Change to another, or name one with cwd.") from None


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
        See `make_request`: agent, cwd, model, fallback_model, permission_mode, tools, timeout, stall_timeout, max_cost, max_turns, schema, resume,
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
            await stop_and_seal(run, reason="interrupt", by="python")
        raise
    result = Result(receipt=receipt, folder=run.folder.path)
    if raise_error:
        result.raise_for_outcome()
    return result


async def stop_and_seal(run: Run, *, reason: str, by: str) -> None:
    """End a run whose caller goes away, and keep its receipt."""
    with suppress(ControlFailed):  # it has ended by itself
        await run.cancel(reason=reason, by=by)
    async with aclosing(run.follow()) as batches:
        async for _ in batches:
            pass
    await run.finish()


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
    """The result of `work`, whatever loop is or is not running in this thread."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    if _can_nest(loop):
        import nest_asyncio  # pyright: ignore[reportMissingTypeStubs] - it ships none

        nest_asyncio.apply(loop)  # noqa: TID251 - the one exception that the ban names  # pyright: ignore[reportUnknownMemberType] - it ships no types
        return loop.run_until_complete(work)
    return run_in_thread(work)


def _can_nest(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether nesting is safe. Measured: on ipykernel >= 7 nest-asyncio loses shell messages, so the next cells never run."""
    if not isinstance(loop, asyncio.BaseEventLoop):
        return False  # uvloop and others cannot be patched
    kernel = sys.modules.get("ipykernel")
    return kernel is None or int(str(kernel.__version__).split(".")[0]) < 7  # noqa: PLR2004 - the version that runs cells in one context


def run_in_thread(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, run on a loop of its own in another thread, with this thread's context variables. Interrupts cancel it."""
    outcome: list[T] = []
    failure: list[BaseException] = []
    started: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = []

    async def drive() -> None:
        task = asyncio.current_task()
        assert task is not None  # a coroutine that runs has a task
        started.append((asyncio.get_running_loop(), task))
        outcome.append(await work)

    def target() -> None:
        try:
            asyncio.run(drive())
        except BaseException as error:  # noqa: BLE001 - carried to the calling thread, which is owed it
            failure.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(target,), name="cc_executor", daemon=True)
    thread.start()
    interrupted = False
    while thread.is_alive():
        try:
            thread.join(0.1)  # short, so that the main thread still takes signals
        except KeyboardInterrupt:
            interrupted = True
            for loop, task in started:
                loop.call_soon_threadsafe(task.cancel)
    if interrupted:
        raise KeyboardInterrupt
    if failure:
        raise failure[0]
    return outcome[0]
