"""One run in a terminal, from its start or from wherever it is: shown, and ended by Ctrl-C. Knows signals; decides nothing."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
import anyio.abc
import msgspec

from cc_executor.cli.answer import at_terminal
from cc_executor.cli.signals import ending
from cc_executor.cli.streams import is_about_output, sentence
from cc_executor.cli.writer import TerminalWriter
from cc_executor.errors import CCExecutorError, ControlFailed
from cc_executor.model.ansi import clean
from cc_executor.model.notice import duration
from cc_executor.model.phase import Phase
from cc_executor.model.receipt import Receipt
from cc_executor.policy.retry import Again
from cc_executor.runtime.again import Attempts, wait_until
from cc_executor.runtime.answers import attended
from cc_executor.runtime.hooks import hooks_of_environment
from cc_executor.runtime.narrow import has_a_cursor
from cc_executor.runtime.plan import roots_of
from cc_executor.runtime.run import Run
from cc_executor.runtime.workspace import remark
from cc_executor.store.home import StateHome
from cc_executor.store.localtime import local

if TYPE_CHECKING:
    from cc_executor.model.notify import Notify

TICK: Final = 1.0  # seconds between two looks at the clock


class _Wish(msgspec.Struct):
    """How often somebody has asked for the end, and of which run."""

    count: int = 0
    run: Run | None = None


async def run_to_end(
    attempts: Attempts, *, home: StateHome, environ: Mapping[str, str], writer: TerminalWriter, notify: Notify | None = None
) -> Receipt:
    """Start a run, show it, and return its receipt, or that of the last attempt. The first Ctrl-C ends the run's whole tree or the waiting, the second at once.

    Raises
    ------
    CCExecutorError
        Nothing was started; see `cc_executor.runtime.launch.launch`.
    """
    wish = _Wish()
    found: list[Receipt | CCExecutorError] = []
    async with anyio.create_task_group() as tasks:
        await tasks.start(partial(_end_on_signal, wish, writer))
        if has_a_cursor(sys.stderr):
            tasks.start_soon(_keep_time, wish, writer)
        try:
            while True:
                request = await attempts.request()
                run = await Run.start(request, home=home, environ=environ, hooks=hooks_of_environment(environ), notify=notify)
                writer.say(f"run {run.run_id} · {request.agent} in {request.cwd}")
                wish.run = run
                if wish.count:
                    await _end(run, wish.count, writer)
                receipt = await _show(run, writer, owns=True)
                again = None if wish.count else await attempts.after(receipt, run.state)
                if again is None or not await _waited(again, wish, writer):
                    if attempts.remark:
                        writer.say(attempts.remark)
                    break
            found.append(receipt)
        except CCExecutorError as error:  # carried out of the task group, which would wrap it
            found.append(error)
        tasks.cancel_scope.cancel()
    return _receipt(found)


async def _waited(again: Again, wish: _Wish, writer: TerminalWriter) -> bool:
    """Wait until the next attempt's time; False when Ctrl-C has ended the waiting. At a terminal the line counts down."""
    wish.run = None
    goes_on = f"{local(again.until):%H:%M:%S}"
    is_live = has_a_cursor(sys.stderr)
    if again.until > time.time():
        writer.say(f"  · waits: {again.why}; goes on at {goes_on}. Ctrl-C ends the waiting.")

    def tell(left: float) -> None:
        if is_live:
            sys.stderr.write(f"\r\x1b[K  · in {duration(round(left))}")
            sys.stderr.flush()

    await wait_until(again.until, is_over=lambda: wish.count > 0, tell=tell)
    if is_live:
        sys.stderr.write("\r\x1b[K")
    return wish.count == 0


async def watch(run: Run, *, writer: TerminalWriter) -> Receipt | None:
    """Show a run that somebody else may own, and return its receipt; None when Ctrl-C ended the watching, which leaves the run alone."""
    found: list[Receipt | CCExecutorError] = []
    async with anyio.create_task_group() as tasks:
        await tasks.start(partial(_cancel_on_signal, tasks.cancel_scope))
        if has_a_cursor(sys.stderr):
            tasks.start_soon(_keep_time, _Wish(run=run), writer)
        try:
            found.append(await _show(run, writer, owns=False))
        except CCExecutorError as error:  # as above
            found.append(error)
        tasks.cancel_scope.cancel()
    return _receipt(found) if found else None


def _receipt(found: list[Receipt | CCExecutorError]) -> Receipt:
    [outcome] = found
    if isinstance(outcome, CCExecutorError):
        raise outcome
    return outcome


async def _show(run: Run, writer: TerminalWriter, *, owns: bool) -> Receipt:
    writer.roots = roots_of(run.request.cwd)
    if said := remark(run.folder):
        writer.say(f"  · {clean(said)}")

    def tell_of_hooks() -> None:
        for said in run.told():
            writer.say(f"  · {clean(said)}")

    tell_of_hooks()
    who, on_ask = at_terminal(run, writer)
    async with attended(run, who, on_ask, by="terminal", refuses=owns) as attendant, aclosing(run.follow()) as batches:
        async for batch in batches:
            if batch.state.asks:
                writer.clear()  # a question is asked where it stands
            await attendant.attend(batch)
            try:
                writer.feed(batch.events)
                tell_of_hooks()
            except BrokenPipeError:
                # `| head` has read enough. As with every command whose reader goes away, that is its end; who only watches, watches no more.
                writer.abandon()
                if owns:
                    await _cancel(run, by="cli (nobody reads)")
            except OSError as error:
                if not is_about_output(error):
                    raise
                # The run is paid for, and its journal has everything. The command that could not write it fails in the end.
                writer.lose(error, f"  · {sentence(error)} The run goes on; `cc-executor show {run.run_id}` has its text.")
            if owns:
                await run.refuse_hopeless(batch)
    writer.close()
    receipt = await run.finish()
    with contextlib.suppress(BrokenPipeError):  # nobody reads any more
        tell_of_hooks()
    return receipt


async def _keep_time(wish: _Wish, writer: TerminalWriter) -> None:
    """Say each second how long the run works and what it is doing, unless somebody is asked."""
    while True:
        await anyio.sleep(TICK)
        run = wish.run
        if run is not None and not run.state.asks and run.state.phase is not Phase.ENDED:
            with contextlib.suppress(OSError):  # the terminal is gone, and the run is told of that by its signal
                writer.stand(f"  · {duration(round(time.time() - run.folder.created_at))} · {run.state.phase.value}")


async def _end_on_signal(wish: _Wish, writer: TerminalWriter, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(*ending()) as signals:
        task_status.started()
        async for _ in signals:
            wish.count += 1
            if wish.run is not None:
                await _end(wish.run, wish.count, writer)


async def _end(run: Run, count: int, writer: TerminalWriter) -> None:
    again = count > 1
    said = "Killing the run." if again else "Ending the run and everything that it started; once more kills it at once."
    try:
        writer.say(said)
    except OSError as error:  # the terminal is gone, or who read: the run must not go on for that
        writer.lose(error, said)
    await _cancel(run, by="cli", now=again)


async def _cancel(run: Run, *, by: str, now: bool = False) -> None:
    with contextlib.suppress(ControlFailed):  # it has ended by itself
        await run.cancel(reason="interrupt", by=by, now=now)


async def _cancel_on_signal(scope: anyio.CancelScope, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(*ending()) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()
