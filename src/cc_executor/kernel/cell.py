"""One cell: start its run, show it, wait for it, bind its result. The awaited way and the blocking one are the same code."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Coroutine
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, Final, TypeVar

import anyio.to_thread

from cc_executor.api import run_in_thread
from cc_executor.errors import ControlFailed, RunNotFound
from cc_executor.kernel.config import settings_of
from cc_executor.kernel.display import Bundle, Display, SilentDisplay, make_display, show_static
from cc_executor.kernel.loop import cancelled, interrupted, interruptible, outlast, own, tell_of_nesting
from cc_executor.kernel.order import Order, order_of
from cc_executor.kernel.shell_pump import shell_pump
from cc_executor.kernel.value import RunHandle, ShownResult
from cc_executor.model.receipt import Receipt
from cc_executor.runtime import once
from cc_executor.runtime.executable import find_executable
from cc_executor.runtime.login import login_of
from cc_executor.runtime.run import Run
from cc_executor.store.home import StateHome, state_path
from cc_executor.store.journal import RunFolder
from cc_executor.store.notebook import BUNDLE

TICK: Final = 0.04  # seconds: 25 frames a second

T = TypeVar("T")


async def execute(shell: Any, line: str, body: str) -> ShownResult | RunHandle:
    """Run a cell on the running loop, beside everything else that the loop does."""
    tell_of_nesting()
    return await interruptible(_execute(shell, line, body, followed_later=hasattr(shell, "kernel")))


def execute_blocking(shell: Any, line: str, body: str) -> ShownResult | RunHandle:
    """Run a cell where it cannot be awaited: inside `%%capture`, or with autoawait off. Blocks; interrupts end the run all the same."""
    tell_of_nesting()
    return _blocking(_execute(shell, line, body, followed_later=False))


async def attach(shell: Any, run_id: str) -> ShownResult:
    """Show a run, whoever started it, until it ends. An interrupt only ends the watching."""
    return await interruptible(_attach(shell, run_id))


def attach_blocking(shell: Any, run_id: str) -> ShownResult:
    """`attach` where it cannot be awaited."""
    return _blocking(_attach(shell, run_id))


def _blocking(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, from a loop of its own: to nest it in the kernel's would stop or lose what that loop does meanwhile."""
    told: list[str] = []

    async def listened_to() -> T:
        try:
            return await work
        except asyncio.CancelledError as error:
            told[:] = error.args[1:]
            raise

    try:
        return run_in_thread(listened_to())
    except KeyboardInterrupt:
        raise interrupted(*told) from None


async def _attach(shell: Any, run_id: str) -> ShownResult:
    home = home_of(shell)
    wanted = run_id or newest(home)
    if not wanted:
        raise RunNotFound("Nothing was run yet.")
    run = await Run.attach(home, wanted, environ=os.environ)
    watch = _Watch(run, home=home, display=make_display(shell, run, settings=settings_of(shell)))
    task = own(watch.follow(), name=f"cc_executor {run.run_id}")
    with shell_pump(getattr(shell, "kernel", None)):
        stopped = await outlast(task, lambda _: task.cancel())
    if stopped is not None and task.cancelled():
        watch.display.leave(f"Run {run.run_id} goes on; `%cc attach {run.run_id}` watches it again, `%cc cancel {run.run_id}` ends it.")
        raise cancelled(stopped, f"run {run.run_id} goes on")
    return _as_value(shell, task.result())


def home_of(_shell: Any) -> StateHome:
    """The state folder of this kernel."""
    return StateHome(state_path(os.environ))


def newest(home: StateHome) -> str:
    """The id of the newest run; empty when there is none."""
    return next((folder.run_id for folder in home.runs()), "")


async def _execute(shell: Any, line: str, body: str, *, followed_later: bool) -> ShownResult | RunHandle:
    home = home_of(shell)
    order = order_of(line, raw_body(shell, body), settings=settings_of(shell), namespace=shell.user_ns)
    if order.rehearse_without_login is not None:
        order = await anyio.to_thread.run_sync(_rehearsed_if_needed, order, home)
    if order.once and (known := once.recall(home, order.request.digest())) is not None:
        return _replayed(shell, order, *known)
    if order.background:
        return await _begin(shell, order, home, followed_later=followed_later)
    return await _wait_for(shell, order, home)


def raw_body(shell: Any, body: str) -> str:
    """The cell as the user wrote it. IPython takes prompts like `>>> ` out of cells before a magic sees them; a prompt for an agent is text."""
    raw: str | None = getattr(shell, "_cc_executor_raw_cell", None)
    if raw is None:
        return body
    lines = raw.lstrip().splitlines(keepends=True)
    while lines and lines[0].startswith("%%") and not lines[0].startswith("%%cc_execute"):
        del lines[0]  # `%%time` hands its body on within the same cell
    if not lines or not lines[0].startswith("%%"):
        return body
    # Only if this body is what IPython made of that text: code of the user's own may give us another one, during this cell or after it.
    made = "".join(lines)
    for cleanup in shell.input_transformers_cleanup:
        made = "".join(cleanup(made.splitlines(keepends=True)))
    return "".join(lines[1:]) if made.partition("\n")[2].rstrip("\n") == body.rstrip("\n") else body


def _rehearsed_if_needed(order: Order, home: StateHome) -> Order:
    """The order, as a rehearsal if nobody is logged in to the agent."""
    executable = find_executable(order.request, environ=os.environ, home=home)
    if login_of(executable.path, environ=os.environ).logged_in:
        return order
    return replace(order, request=order.request.model_copy(update={"rehearse": order.rehearse_without_login}))


def _replayed(shell: Any, order: Order, folder: RunFolder, receipt: Receipt) -> ShownResult:
    bundle = stored_bundle(folder)
    show_static(bundle, note=f"Replayed from run {receipt.run_id}: this cell is unchanged, nothing was run and nothing was spent.")
    return _bound(shell, order, _as_value(shell, ShownResult(receipt, folder.path, bundle)))


async def _begin(shell: Any, order: Order, home: StateHome, *, followed_later: bool) -> RunHandle:
    run = await Run.start(order.request, home=home, environ=os.environ)
    display = make_display(shell, run, settings=settings_of(shell)) if followed_later else SilentDisplay()
    handle = RunHandle(run, _Watch(run, home=home, display=display, owns=True), is_shown=followed_later)
    if followed_later:
        handle.follow()
    else:
        # No loop goes on between two cells here, and lines would come into the midst of what is being typed.
        print(f"Run {run.run_id} goes on in the background: `%cc attach {run.run_id}` shows it.")  # noqa: T201 - the cell's only output
    if order.out is not None:
        shell.push({order.out: handle})
    return handle


async def _wait_for(shell: Any, order: Order, home: StateHome) -> ShownResult:
    watches: list[_Watch] = []

    async def whole() -> ShownResult:
        run = await Run.start(order.request, home=home, environ=os.environ)
        watch = _Watch(run, home=home, display=make_display(shell, run, settings=settings_of(shell)), owns=True)
        watches.append(watch)
        return await watch.follow()

    def stop(count: int) -> None:
        if watches:
            watches[0].stop(now=count > 1)
        else:
            task.cancel()  # it is being launched; what may have begun is ended

    task = own(whole(), name="cc_executor cell")
    with shell_pump(getattr(shell, "kernel", None)):
        stopped = await outlast(task, stop)
    if stopped is not None and task.cancelled():
        raise cancelled(stopped, "the launch was given up")
    result = _bound(shell, order, _as_value(shell, task.result()))
    if stopped is not None:
        raise cancelled(stopped, f"run {result.receipt.run_id} was ended; its receipt is kept")
    if order.raise_error:
        result.raise_for_outcome()
    return result


def _as_value(shell: Any, result: ShownResult) -> ShownResult:
    """The cell's value. A notebook shows it above already; a terminal writes `Out[1]: ` in any case, so something had better stand there."""
    return result.silenced() if hasattr(shell, "kernel") else result


def _bound(shell: Any, order: Order, result: ShownResult) -> ShownResult:
    if order.out is not None:
        shell.push({order.out: result})
    return result


def stored_bundle(folder: RunFolder) -> Bundle | None:
    """What the run's cell showed at the end, if it is kept."""
    try:
        found: Any = json.loads((folder.path / BUNDLE).read_bytes())
        return found["data"], found["metadata"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


async def ended_bundle(shell: Any, run_id: str) -> Bundle:
    """The view of a run that has ended and that nobody followed to its end; made from the journal."""
    home = home_of(shell)
    run = await Run.attach(home, run_id, environ=os.environ)
    return (await _Watch(run, home=home, display=SilentDisplay()).follow()).bundle or ({}, {})


class _Watch:
    """One run and its display, from the first event to the static end."""

    def __init__(self, run: Run, *, home: StateHome, display: Display, owns: bool = False) -> None:
        self._run = run
        self._home = home
        self._owns = owns
        self.display = display

    def stop(self, *, now: bool) -> None:
        """End the run; `now`: without giving it time to clean up."""
        with suppress(ControlFailed):  # it has ended by itself
            self._run.send("cancel", reason="interrupt", by="cell", now=now)

    async def follow(self) -> ShownResult:
        """Show the run until it has ended, seal its receipt, and leave the static view."""
        ticker = own(self._tick(), name="cc_executor view")
        try:
            async with aclosing(self._run.follow()) as batches:
                async for batch in batches:
                    self.display.apply(batch)
                    if self._owns:
                        await self._run.refuse_hopeless(batch)
            receipt = await self._run.finish()
            once.remember(self._home, receipt)
        finally:
            ticker.cancel()
        bundle = self.display.finish(receipt)
        self._keep(bundle)
        return ShownResult(receipt, self._run.folder.path, bundle)

    def _keep(self, bundle: Bundle) -> None:
        data, metadata = bundle
        self._run.folder.replace(BUNDLE, json.dumps({"data": data, "metadata": metadata}).encode())

    async def _tick(self) -> None:
        while True:
            self.display.tick(time.monotonic())
            await asyncio.sleep(TICK)
