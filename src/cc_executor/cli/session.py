"""One run in a terminal, from its start or from wherever it is: shown, and ended by Ctrl-C. Knows signals; decides nothing."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio
import anyio.abc
import anyio.to_thread

from cc_executor.cli.writer import TerminalWriter
from cc_executor.errors import CCExecutorError, ControlFailed
from cc_executor.model.ansi import clean
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import RunRequest
from cc_executor.runtime.run import Run
from cc_executor.runtime.workspace import remark
from cc_executor.store.home import StateHome

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True)
class _Wish:
    """How often somebody has asked for the end, and of which run."""

    count: int = 0
    run: Run | None = None


async def run_to_end(request: RunRequest, *, home: StateHome, environ: Mapping[str, str], writer: TerminalWriter) -> Receipt:
    """Start a run, show it, and return its receipt. The first Ctrl-C ends the run's whole tree, the second at once.

    Raises
    ------
    CCExecutorError
        Nothing was started; see `cc_executor.runtime.launch.launch`.
    """
    wish = _Wish()
    found: list[Receipt | CCExecutorError] = []
    async with anyio.create_task_group() as tasks:
        await tasks.start(partial(_end_on_signal, wish, writer))
        try:
            run = await Run.start(request, home=home, environ=environ)
            writer.say(f"run {run.run_id} · {request.agent} in {request.cwd}")
            wish.run = run
            if wish.count:
                await _end(run, wish.count, writer)
            found.append(await _show(run, writer, owns=True))
        except CCExecutorError as error:  # carried out of the task group, which would wrap it
            found.append(error)
        tasks.cancel_scope.cancel()
    return _receipt(found)


async def watch(run: Run, *, writer: TerminalWriter) -> Receipt | None:
    """Show a run that somebody else may own, and return its receipt; None when Ctrl-C ended the watching, which leaves the run alone."""
    found: list[Receipt | CCExecutorError] = []
    async with anyio.create_task_group() as tasks:
        await tasks.start(partial(_cancel_on_signal, tasks.cancel_scope))
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
    if said := remark(run.folder):
        writer.say(f"  · {clean(said)}")
    async with aclosing(run.follow()) as batches:
        async for batch in batches:
            try:
                writer.feed(batch.events)
            except BrokenPipeError:
                # `| head` has read enough. As with every command whose reader goes away, that is its end; who only watches, watches no more.
                writer.abandon()
                if owns:
                    await _cancel(run, by="cli (nobody reads)")
            if owns:
                await run.refuse_hopeless(batch)
    writer.close()
    return await run.finish()


async def _end_on_signal(wish: _Wish, writer: TerminalWriter, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(*ENDING) as signals:
        task_status.started()
        async for _ in signals:
            wish.count += 1
            if wish.run is not None:
                await _end(wish.run, wish.count, writer)


async def _end(run: Run, count: int, writer: TerminalWriter) -> None:
    again = count > 1
    writer.say("Killing the run." if again else "Ending the run and everything that it started; once more kills it at once.")
    await _cancel(run, by="cli", now=again)


async def _cancel(run: Run, *, by: str, now: bool = False) -> None:
    with contextlib.suppress(ControlFailed):  # it has ended by itself
        await run.cancel(reason="interrupt", by=by, now=now)


async def _cancel_on_signal(scope: anyio.CancelScope, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(*ENDING) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()


async def receipt_of(home: StateHome, run_id: str) -> Receipt | None:
    """The sealed receipt of a run; made now if the run has ended and nobody was there to seal it, None while it goes on."""
    run = await Run.attach(home, run_id, environ=os.environ)
    known = await anyio.to_thread.run_sync(run.folder.receipt)
    if known is not None or await anyio.to_thread.run_sync(run.folder.is_supervised):
        return known
    async with aclosing(run.follow()) as batches:
        async for _ in batches:
            pass
    return await run.finish()
