"""An interrupt that is felt at once. Knows signals and the running loop; what an interrupt means is the business of whoever has set the handler."""

from __future__ import annotations

import asyncio
import functools
import signal
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, ParamSpec, TypeVar

from cc_executor.runtime.blocking import require_asyncio

P = ParamSpec("P")
T = TypeVar("T")


class _Wake:
    """A SIGINT handler that lets the one before do its work, and then wakes the loop; whoever awaits beside each other (`asyncio.gather`) shares it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.users = 0
        self._loop = loop
        self._before: Any = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        try:
            self._before(number, frame)
        finally:
            self._loop.call_soon_threadsafe(lambda: None)

    def enter(self) -> None:
        self.users += 1
        if self.users == 1:
            self._before = signal.getsignal(signal.SIGINT)
            signal.signal(signal.SIGINT, self)

    def leave(self) -> None:
        self.users -= 1
        if self.users == 0 and signal.getsignal(signal.SIGINT) is self:  # that of somebody who came later stays
            signal.signal(signal.SIGINT, self._before)


_wakes: Final[dict[asyncio.AbstractEventLoop, _Wake]] = {}


@contextmanager
def _sigint_wakes() -> Generator[None]:
    """Nothing where no signal arrives (another thread), and nothing where no Python code handles it."""
    if threading.current_thread() is not threading.main_thread() or not callable(signal.getsignal(signal.SIGINT)):
        yield
        return
    loop = asyncio.get_running_loop()
    wake = _wakes.setdefault(loop, _Wake(loop))
    wake.enter()
    try:
        yield
    finally:
        wake.leave()
        if not wake.users:
            del _wakes[loop]


def felt_at_once(work: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Let an interrupt be felt at once while `work` is awaited.

    The handler of ipykernel (6.29 to 7.4) cancels an awaiting cell by tornado's `add_callback`, which does not wake the loop in whose thread it is called:
    the cell is cancelled when the loop wakes up for another reason, and that may take as long as `work` waits for anything.
    """

    @functools.wraps(work)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        require_asyncio()
        with _sigint_wakes():
            return await work(*args, **kwargs)

    return wrapped
