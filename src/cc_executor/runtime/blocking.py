"""Coroutines run to their end where nothing can be awaited, whatever loop is or is not running. Knows loops, threads and Ctrl-C; knows no run."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from cc_executor.errors import InvalidRequest

T = TypeVar("T")

# The version of ipykernel from which on all cells run in one context, which a nested loop cannot enter again: its messages are lost (measured).
SINGLE_CONTEXT: Final = 7
NO_NESTING: Final = (3, 14)  # of Python: from then on `asyncio.current_task()` is None under nest-asyncio 1.6; nest-asyncio2 keeps it
_SIGNAL_LOOK: Final = 0.1  # seconds; short, so that the main thread still takes signals


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, whatever loop is or is not running in this thread. An interrupt cancels it, and is raised when it has ended."""
    try:
        require_tasks()
    except InvalidRequest:
        work.close()  # it was never to run
        raise
    loop = _running_loop()
    if loop is None:
        return run_in_thread(work) if _is_in_other_loop() else _run(work)
    return _run_nested(work, loop) if _can_nest(loop) else run_in_thread(work)


def require_asyncio() -> None:
    """Raise `InvalidRequest` where no loop of asyncio runs (in the tasks of another library, or outside of all), or one that does not know its tasks."""
    if _running_loop() is None:
        raise InvalidRequest(
            "This is awaited on a loop of asyncio, and none runs here. Under trio, call cc_execute_sync in a thread: "
            "await trio.to_thread.run_sync(functools.partial(cc_execute_sync, prompt, ...))."
        )
    require_tasks()


def require_tasks() -> None:
    """Raise `InvalidRequest` where somebody has applied nest-asyncio on Python 3.14 or later: no loop knows its own tasks then, and nothing can be cancelled."""
    if sys.version_info >= NO_NESTING and hasattr(asyncio, "_nest_patched") and not hasattr(asyncio, "_nest_asyncio2"):
        raise InvalidRequest(
            "nest_asyncio is applied here, under which asyncio no longer knows its own tasks on Python 3.14 and later. "
            "Restart, and leave it out, or apply nest_asyncio2 in its place (pip install nest-asyncio2)."
        )


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:  # what is done next is not done within this error, whose words would be above those of every other
        return None


def _is_in_other_loop() -> bool:
    """Whether a loop that is not asyncio's runs in this thread: anyio would take a coroutine that is run here for one of its tasks."""
    sniffio: Any = sys.modules.get("sniffio")  # loaded by whoever has such a loop
    if sniffio is None:
        return False
    try:
        return bool(sniffio.current_async_library())
    except sniffio.AsyncLibraryNotFoundError:
        return False


def _run(work: Coroutine[Any, Any, T]) -> T:
    # Not asyncio.run: where nest-asyncio was applied, that one is another, which leaves its loop open.
    with asyncio.Runner() as runner:
        return runner.run(work)


def _can_nest(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether nesting is safe."""
    if not isinstance(loop, asyncio.BaseEventLoop):
        return False  # uvloop and others cannot be patched
    kernel = sys.modules.get("ipykernel")
    return kernel is None or int(str(kernel.__version__).split(".")[0]) < SINGLE_CONTEXT


def _run_nested(work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    if sys.version_info >= (3, 14):  # `NO_NESTING`, as type checkers read it
        import nest_asyncio2 as nest_asyncio
    else:
        import nest_asyncio  # pyright: ignore[reportMissingTypeStubs] - it ships none

    nest_asyncio.apply(loop)  # noqa: TID251 - the one exception that the ban names  # pyright: ignore[reportUnknownMemberType] - it ships no types
    task = loop.create_task(work, name="cc_executor")
    # Left alone, Ctrl-C would reach the outer task, which does not run now, and the second one would leave this one behind.
    with _sigint_calls(lambda: loop.call_soon_threadsafe(task.cancel)) as interrupts:
        try:
            result = loop.run_until_complete(task)
        except asyncio.CancelledError:
            if interrupts:
                raise KeyboardInterrupt from None
            raise
    if interrupts:
        raise KeyboardInterrupt
    return result


def run_in_thread(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, run on a loop of its own in another thread, with this thread's context variables. Interrupts cancel it."""
    outcome: list[T] = []
    failure: list[BaseException] = []
    driver = _Driver()

    def target() -> None:
        try:
            outcome.append(_run(driver.drive(work)))
        except BaseException as error:  # noqa: BLE001 - carried to the calling thread, which is owed it
            failure.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(target,), name="cc_executor", daemon=True)
    with _sigint_calls(driver.cancel) as interrupts:
        thread.start()
        while thread.is_alive():
            thread.join(_SIGNAL_LOOK)
    if interrupts:
        raise KeyboardInterrupt
    if failure:
        raise failure[0]
    return outcome[0]


class _Driver:
    """A task in another thread's loop that can be cancelled at any time, also before it has begun."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler calls `cancel`, perhaps while this thread holds it
        self._cancelled = 0
        self._place: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None

    async def drive(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        assert task is not None  # a coroutine that runs has a task
        with self._lock:
            self._place = (asyncio.get_running_loop(), task)
            if self._cancelled:
                task.cancel()
        try:
            return await work
        finally:
            with self._lock:
                self._place = None

    def cancel(self) -> None:
        with self._lock:
            self._cancelled += 1
            if self._place is not None:
                loop, task = self._place
                loop.call_soon_threadsafe(task.cancel)


@contextmanager
def _sigint_calls(act: Callable[[], object]) -> Generator[list[int]]:
    """In the main thread, let Ctrl-C call `act` instead of raising `KeyboardInterrupt` wherever the code happens to be. Gives the list of interrupts."""
    interrupts: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in {None, signal.SIG_IGN, signal.SIG_DFL}:
        yield interrupts
        return

    def interrupted(number: int, _: object) -> None:
        interrupts.append(number)
        act()

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)
