"""Tasks in the kernel's event loop, and what an interrupt does to them. The one place that makes tasks: runs outlive the cell's own wait for them."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, TypeVar

import anyio

from cc_executor.runtime.blocking import SINGLE_CONTEXT, require_tasks

logger = logging.getLogger(__name__)

# How a cancellation says that a person wants the cell to stop; others (a timeout around the cell's run) come from the cell's own code.
INTERRUPT: Final = "cc_executor: interrupted"
GRACE: Final = 0.5  # seconds between an interrupt and the word that the kernel is to shut down; a few ms where nothing else is to be done
LOOK: Final = 0.01  # seconds; a kernel that was told to shut down goes on for some 100 ms

T = TypeVar("T")

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


async def outlast(task: asyncio.Task[Any], on_cancel: Callable[[int], object]) -> asyncio.CancelledError | None:
    """Wait until `task` is done, however often this task is cancelled meanwhile.

    Parameters
    ----------
    on_cancel : callable
        Told the number of the cancellation, from 1. It has to see to it that `task` ends soon.

    Returns
    -------
    CancelledError or None
        The first cancellation, for the caller to raise when it has done what there is to do.
    """
    first: asyncio.CancelledError | None = None
    times = 0
    while not task.done():
        try:
            # anyio goes on cancelling for as long as its scope is open: one of these counts.
            with anyio.CancelScope(shield=first is not None):
                await asyncio.wait({task})
        except asyncio.CancelledError as error:
            first = first or error
            times += 1
            on_cancel(times)
    return first


def cancelled(first: asyncio.CancelledError, text: str) -> asyncio.CancelledError:
    """The same cancellation with a sentence for the person; its first word tells whose it is (an interrupt's, a timeout's)."""
    return asyncio.CancelledError(*(first.args[:1] or ("",)), text)


async def interruptible(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which a cell awaits. An interrupt cancels `work`, and what the cell then shows is one line.

    A kernel cancels an awaiting cell by itself, but only once, and only when its loop wakes up for another reason (ipykernel 6.29 to 7.4: the handler uses
    tornado's `add_callback`, which does not wake the loop in whose thread it is called). In a terminal, IPython's own Ctrl-C leaves the loop in the middle,
    the coroutine never learns of it, and the agent goes on.
    """
    try:
        with _sigint_cancels_the_cell():
            return await work
    except asyncio.CancelledError as error:
        current = asyncio.current_task()
        # In a task of the user's own, KeyboardInterrupt would leave the loop and end the kernel.
        if INTERRUPT not in error.args or current is None or not _is_cell(current):
            raise
        while current.uncancel():
            pass
        raise interrupted(*error.args[1:]) from None


def interrupted(text: str = "") -> KeyboardInterrupt:
    """What an interrupted cell raises: shown as one line, not as the stack of the event loop."""
    error = KeyboardInterrupt(text)
    line = f"KeyboardInterrupt: {text}" if text else "KeyboardInterrupt"
    error.__dict__["_render_traceback_"] = lambda: [line]  # IPython and nbclient print what this returns
    return error


async def is_ending(shell: Any) -> bool:
    """Whether the interrupt that has just come was the beginning of this kernel's restart or shutdown: jupyter_client 8 sends one ahead of both."""
    if not hasattr(shell, "kernel"):
        return False
    end = time.monotonic() + GRACE
    while not shell.exit_now:  # set in another thread by ipykernel, when it is told to shut down
        if time.monotonic() > end:
            return False
        await asyncio.sleep(LOOK)
    return True


class _Guard:
    """The SIGINT handler while a cell awaits runs; several runs of one cell (`asyncio.gather`) share it."""

    def __init__(self, cell: asyncio.Task[Any]) -> None:
        self._cell = cell
        self._loop = asyncio.get_running_loop()
        self._before: Any = None
        self._users = 0

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._cell.cancel, INTERRUPT)

    def enter(self) -> None:
        self._users += 1
        if self._users == 1:
            self._before = signal.signal(signal.SIGINT, self)

    def leave(self) -> None:
        self._users -= 1
        if self._users == 0 and signal.getsignal(signal.SIGINT) is self:  # that of a later cell stays
            signal.signal(signal.SIGINT, self._before)

    @property
    def is_used(self) -> bool:
        return self._users > 0


_guards: Final[dict[asyncio.Task[Any], _Guard]] = {}


@contextmanager
def _sigint_cancels_the_cell() -> Generator[None]:
    """Nothing where no signal arrives (a worker thread), and nothing where no cell awaits (a task of the user's own between two cells)."""
    cell = awaiting_cell() if threading.current_thread() is threading.main_thread() else None
    if cell is None or signal.getsignal(signal.SIGINT) is None:  # None: a handler that Python does not know, and could not put back
        yield
        return
    guard = _guards.setdefault(cell, _Guard(cell))
    guard.enter()
    try:
        yield
    finally:
        guard.leave()
        if not guard.is_used:
            _guards.pop(cell, None)


def awaiting_cell() -> asyncio.Task[Any] | None:
    """The task of a cell that awaits something on this loop, if there is one."""
    current = asyncio.current_task()
    if current is not None and _is_cell(current):
        return current
    return next((task for task in asyncio.all_tasks() if _is_cell(task)), None)


def _is_cell(task: asyncio.Task[Any]) -> bool:
    """Whether IPython runs a cell in this task; ipykernel and the terminal both make one of `InteractiveShell.run_cell_async`."""
    return getattr(task.get_coro(), "__name__", "") == "run_cell_async"


_told: Final[set[str]] = set()


def tell_of_nesting() -> None:
    """Say once that somebody has applied nest-asyncio to a kernel that it harms; nest-asyncio2 loses no messages.

    Raises
    ------
    InvalidRequest
        No cell can be awaited under it: see `require_tasks`.
    """
    require_tasks()
    is_applied = hasattr(asyncio, "_nest_patched") and not hasattr(asyncio, "_nest_asyncio2")
    kernel = sys.modules.get("ipykernel")
    if is_applied and kernel is not None and kernel.version_info[0] >= SINGLE_CONTEXT and not _told:
        _told.add("nesting")
        print(  # noqa: T201 - a person is to read it
            "nest_asyncio is applied in this kernel: with ipykernel 7 and later, code that nests event loops can lose clicks and queued cells. "
            "%%cc_execute does not nest, and works."
        )
