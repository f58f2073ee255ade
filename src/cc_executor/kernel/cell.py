"""One cell: start its run, show it, wait for it, bind its result. The awaited way and the blocking one are the same code."""

from __future__ import annotations

import asyncio
import json
import os
import time
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, Final

import anyio.to_thread

from cc_executor.api import run_in_thread
from cc_executor.errors import ControlFailed
from cc_executor.kernel.config import settings_of
from cc_executor.kernel.display import Display, make_display, show_static
from cc_executor.kernel.loop import outlast_interrupts, own, sigint_cancels
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


async def execute(shell: Any, line: str, body: str) -> ShownResult | RunHandle:
    """Run a cell on the running loop, beside everything else that the loop does."""
    return await _execute(shell, line, body, followed_later=True)


def execute_blocking(shell: Any, line: str, body: str) -> ShownResult | RunHandle:
    """Run a cell where it cannot be awaited: inside `%%capture`, or with autoawait off. Blocks; interrupts end the run all the same."""
    work = _execute(shell, line, body, followed_later=False)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    return run_in_thread(work)


async def attach(shell: Any, run_id: str) -> ShownResult:
    """Show a run, whoever started it, until it ends. An interrupt only ends the watching."""
    home = home_of(shell)
    run = await Run.attach(home, run_id or newest(home), environ=os.environ)
    watch = _Watch(shell, run, home=home)
    task = own(watch.follow(), name=f"cc_executor {run.run_id}")
    with shell_pump(getattr(shell, "kernel", None)), sigint_cancels(in_kernel=hasattr(shell, "kernel")):
        interrupts = await outlast_interrupts(task, lambda _: task.cancel())
    if interrupts and task.cancelled():
        watch.display.leave(f"Run {run.run_id} goes on; `%cc attach {run.run_id}` watches it again, `%cc cancel {run.run_id}` ends it.")
        raise KeyboardInterrupt
    return task.result()


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
    if raw is not None and raw.lstrip().startswith("%%cc_execute"):
        return raw.lstrip().partition("\n")[2]
    return body


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
    task = own(_Watch(shell, run, home=home, owns=True).follow(), name=f"cc_executor {run.run_id}") if followed_later else None
    handle = RunHandle(run, task)
    if task is None:
        print(f"{handle!r}: `%cc attach {run.run_id}` shows it.")  # noqa: T201 - the cell's only output
    if order.out is not None:
        shell.push({order.out: handle})
    return handle


async def _wait_for(shell: Any, order: Order, home: StateHome) -> ShownResult:
    started: list[_Watch] = []
    wanted = {"stop": 0}

    async def whole() -> ShownResult:
        run = await Run.start(order.request, home=home, environ=os.environ)
        watch = _Watch(shell, run, home=home, owns=True)
        started.append(watch)
        if wanted["stop"]:
            watch.interrupt(wanted["stop"])
        return await watch.follow()

    def interrupt(count: int) -> None:
        wanted["stop"] = count
        for watch in started:
            watch.interrupt(count)

    task = own(whole(), name="cc_executor cell")
    with shell_pump(getattr(shell, "kernel", None)), sigint_cancels(in_kernel=hasattr(shell, "kernel")):
        interrupts = await outlast_interrupts(task, interrupt)
    result = _bound(shell, order, _as_value(shell, task.result()))
    if interrupts:
        raise KeyboardInterrupt(f"run {result.receipt.run_id} was ended; its receipt is kept")
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


def stored_bundle(folder: RunFolder) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """What the run's cell showed at the end, if it is kept."""
    try:
        found: Any = json.loads((folder.path / BUNDLE).read_bytes())
        return found["data"], found["metadata"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


class _Watch:
    """One run and its display, from the first event to the static end."""

    def __init__(self, shell: Any, run: Run, *, home: StateHome, owns: bool = False) -> None:
        self._run = run
        self._home = home
        self._owns = owns
        self.display: Display = make_display(shell, run, settings=settings_of(shell))

    def interrupt(self, count: int) -> None:
        """End the run; at once if this is not the first time."""
        with suppress(ControlFailed):  # it has ended by itself
            self._run.send("cancel", reason="interrupt", by="cell", now=count > 1)

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

    def _keep(self, bundle: tuple[dict[str, Any], dict[str, Any]]) -> None:
        data, metadata = bundle
        self._run.folder.replace(BUNDLE, json.dumps({"data": data, "metadata": metadata}).encode())

    async def _tick(self) -> None:
        while True:
            self.display.tick(time.monotonic())
            await asyncio.sleep(TICK)
