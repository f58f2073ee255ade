"""Blocking work in a thread that is never forgotten there. Knows threads and cancellation; knows nothing of the work."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Any, Final, Generic, TypeVar

import anyio
import anyio.to_thread

LOOK: Final = 0.02  # seconds; only who was cancelled looks, so there is nobody to be quick for

T = TypeVar("T")


async def in_thread(work: Callable[[], T], *, takes_long: bool = False) -> T:
    """The result of blocking work, from a thread of its own.

    Not `anyio.to_thread`, whose threads wait to be told of the end of the loop's root task: where nest-asyncio was applied, nobody tells them, and the
    program never ends. Its limit of 40 at a time is kept.

    Parameters
    ----------
    work : callable
    takes_long : bool
        Whether the work may take minutes: then it does not count for the limit, so that no other work waits for it.
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

    async with AsyncExitStack() as stack:
        if not takes_long:
            await stack.enter_async_context(anyio.to_thread.current_default_thread_limiter())
        threading.Thread(target=run, name="cc_executor errand", daemon=True).start()
        return await future


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
