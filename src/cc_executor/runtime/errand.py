"""Blocking work in a thread that is never forgotten there. Knows threads and cancellation; knows nothing of the work."""

from __future__ import annotations

import _thread
import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Any, Final, Generic, TypeVar

import anyio
from anyio.lowlevel import RunVar

LOOK: Final = 0.02  # seconds; only who was cancelled looks, so there is nobody to be quick for

THREADS: Final = 40  # at a time on one loop; what they wait for is mostly the disk
# Not anyio's own limit, which is everybody's: work that a user's cell, or a server in the same process, lets wait in 40 threads would keep every run waiting.
_limits: Final[RunVar[anyio.CapacityLimiter]] = RunVar("cc_executor threads")

T = TypeVar("T")


async def in_thread(work: Callable[[], T], *, takes_long: bool = False) -> T:
    """The result of blocking work, from a thread of its own.

    Not `anyio.to_thread`, whose threads wait to be told of the end of the loop's root task: where nest-asyncio was applied, nobody tells them, and the
    program never ends.

    Parameters
    ----------
    work : callable
    takes_long : bool
        Whether the work may take minutes, or must not wait for a place: it does not count for the limit of `THREADS`.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def tell(say: Callable[[Any], None], what: object) -> None:
        if not future.done():  # cancelled meanwhile
            say(what)

    def run() -> None:
        say: Callable[[Any], None] = future.set_result
        what: object
        try:
            what = context.run(work)
        except BaseException as error:  # noqa: BLE001 - carried to the task that awaits it
            # A future takes no StopIteration (PEP 479), and whoever waits for it would wait for ever.
            say, what = future.set_exception, RuntimeError(repr(error)) if isinstance(error, StopIteration) else error
        with suppress(RuntimeError):  # that loop is gone, and with it whoever waited
            loop.call_soon_threadsafe(tell, say, what)

    def begin(thread: threading.Thread) -> None:
        try:
            thread.start()
        except RuntimeError as error:  # there are no more threads
            with suppress(RuntimeError):  # as above
                loop.call_soon_threadsafe(tell, future.set_exception, error)

    async with AsyncExitStack() as stack:
        if not takes_long:
            await stack.enter_async_context(_limit())
        # `start` waits until the thread runs, which on a busy machine takes as long as all the others want the interpreter: not on the loop.
        _thread.start_new_thread(begin, (threading.Thread(target=run, name="cc_executor errand", daemon=True),))
        return await future


def is_cancelled() -> bool:
    """Whether somebody has cancelled the running task; else a `CancelledError` that is caught here is one of what it awaits, as of another task."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _limit() -> anyio.CapacityLimiter:
    try:
        return _limits.get()
    except LookupError:
        limit = anyio.CapacityLimiter(THREADS)
        _limits.set(limit)
        return limit


class Errand(Generic[T]):
    """One piece of work, done once, in a thread.

    A task that is cancelled while a thread works for it goes on at once, and what the thread then brings home is nobody's: a run would be started
    that nobody knows of. Here the thread is told, and waited for.

    Parameters
    ----------
    work : callable
        Takes a `threading.Event` that is set when the result is not wanted any more; how soon it heeds that is its own affair.
    patience : float
        Seconds for which a cancelled task waits for the thread.
    takes_long : bool
        As for `in_thread`.

    Attributes
    ----------
    result : T or None
        What the work brought home, also when nobody awaited it any more.
    """

    def __init__(self, work: Callable[[threading.Event], T], *, patience: float, takes_long: bool = False) -> None:
        self.result: T | None = None
        self._work = work
        self._patience = patience
        self._takes_long = takes_long
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._begun = False
        self._done = threading.Event()

    async def run(self) -> T:
        """The result of the work. What it raises is raised; cancelled, however often, the thread is at its end or `patience` is over when this returns."""
        try:
            return await in_thread(self._work_once, takes_long=self._takes_long)
        except BaseException:
            if self._abandoned():
                await self._outlast()
            raise

    async def _outlast(self) -> None:
        until = time.monotonic() + self._patience
        while not self._done.is_set() and time.monotonic() < until:  # a thread sets it, perhaps when this loop is gone
            # Who presses Stop again cancels again, which no scope of anyio shields from: that changes nothing of what the thread brings home.
            with anyio.CancelScope(shield=True), suppress(asyncio.CancelledError):
                await anyio.sleep(LOOK)

    def _work_once(self) -> T:
        with self._lock:
            if self._stop.is_set():
                raise RuntimeError("abandoned before it began")  # nobody is there to hear it
            self._begun = True
        try:
            self.result = self._work(self._stop)
            return self.result
        finally:
            self._done.set()

    def _abandoned(self) -> bool:
        """Tell the thread. False when it never began, so that there is nothing to wait for."""
        with self._lock:
            self._stop.set()
            return self._begun
