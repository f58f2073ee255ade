"""The one place that makes tasks in the kernel's event loop: runs that no cell awaits any more, and their end."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any, Final

logger = logging.getLogger(__name__)

# Loops keep only weak references to their tasks; these are the strong ones. A task leaves when it is done.
_tasks: Final[set[asyncio.Task[Any]]] = set()


def own(work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
    """Run `work` on the running loop, beside the cell. What it raises is logged when nobody awaits it."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    _tasks.add(task)
    task.add_done_callback(_done)
    return task


def _done(task: asyncio.Task[Any]) -> None:
    _tasks.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.debug("%s ended with %r", task.get_name(), error)


async def outlast_interrupts(task: asyncio.Task[Any], on_interrupt: Callable[[int], object]) -> int:
    """Wait until `task` is done, however often this task is cancelled meanwhile.

    Parameters
    ----------
    on_interrupt : callable
        Told the number of the cancellation, from 1.

    Returns
    -------
    int
        How often this task was cancelled.
    """
    interrupts = 0
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            interrupts += 1
            current = asyncio.current_task()
            if current is not None:
                current.uncancel()
            on_interrupt(interrupts)
    return interrupts


@contextmanager
def sigint_cancels(*, in_kernel: bool) -> Generator[None]:
    """In a terminal, make Ctrl-C cancel the awaiting task; a kernel does that by itself.

    Without it IPython's own Ctrl-C leaves the loop in the middle, the coroutine never learns of it, and the agent goes on.
    """
    if in_kernel or threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # a coroutine that runs has a task
    before = signal.getsignal(signal.SIGINT)
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)
