"""One cell: start its run, show it, wait for it, bind its result. The awaited way and the blocking one are the same code."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from IPython.core.displaypub import CapturingDisplayPublisher
from msgspec.structs import replace

from cc_executor.errors import ControlFailed, StateUnusable
from cc_executor.kernel.asks import CellAsks
from cc_executor.kernel.config import settings_of
from cc_executor.kernel.display import Bundle, Display, SilentDisplay, StaticDisplay, make_display, show_static
from cc_executor.kernel.lint import forget_wish, is_only_linted
from cc_executor.kernel.loop import cancelled, interrupted, interruptible, is_ending, outlast, own, tell_of_nesting
from cc_executor.kernel.order import Order, order_of
from cc_executor.kernel.shell_pump import shell_pump
from cc_executor.kernel.value import Replay, RunHandle, ShownResult
from cc_executor.model.hook import Hook
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import OnKernelExit
from cc_executor.runtime import once
from cc_executor.runtime.again import Attempts
from cc_executor.runtime.answers import unattended
from cc_executor.runtime.blocking import run_in_thread
from cc_executor.runtime.errand import in_thread
from cc_executor.runtime.hooks import hooks_given
from cc_executor.runtime.plan import removed
from cc_executor.runtime.run import Run
from cc_executor.runtime.telemetry import is_traced
from cc_executor.runtime.turns import turns_here
from cc_executor.runtime.workspace import remark
from cc_executor.store.bundle import read_bundle, write_bundle
from cc_executor.store.home import StateHome, state_path
from cc_executor.store.journal import RunFolder

if TYPE_CHECKING:
    from cc_executor.kernel.countdown import Countdown

logger = logging.getLogger(__name__)

TICK: Final = 0.04  # seconds: 25 frames a second
QUEUED_AGAIN: Final = (
    "This cell is queued once more: when this run has ended, another one begins. Interrupting the kernel (I, I) ends both."
)

P = ParamSpec("P")
T = TypeVar("T")


async def execute(shell: Any, line: str, body: str) -> ShownResult | RunHandle | None:
    """Run a cell on the running loop, beside everything else that the loop does."""
    tell_of_nesting()
    return await interruptible(_execute(shell, line, body, followed_later=hasattr(shell, "kernel")))


def execute_blocking(shell: Any, line: str, body: str) -> ShownResult | RunHandle | None:
    """Run a cell where it cannot be awaited: inside `%%capture`, or with autoawait off. Blocks; interrupts end the run all the same."""
    tell_of_nesting()
    return unless_captured(shell, blocking(_execute(shell, line, body, followed_later=False)))


def unless_captured(shell: Any, value: T) -> T | None:
    """The value of a cell; None in one that is captured, where its outputs stand already: IPython would add an empty one for a value that shows nothing."""
    return None if isinstance(shell.display_pub, CapturingDisplayPublisher) and _own_lines(shell) else value


async def attach(shell: Any, run_id: str) -> ShownResult:
    """Show a run, whoever started it, until it ends. An interrupt only ends the watching."""
    return await interruptible(_attach(shell, run_id))


def attach_blocking(shell: Any, run_id: str) -> ShownResult:
    """`attach` where it cannot be awaited."""
    return blocking(_attach(shell, run_id))


def blocking(work: Coroutine[Any, Any, T]) -> T:
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
    folder = home.pick(run_id)
    if (shown := _shown_without_journal(shell, folder)) is not None:
        return shown
    run = await Run.attach(home, folder.run_id, environ=os.environ)
    display = _display(shell, run)
    watch = _Watch(run, home=home, display=display, asks=CellAsks(shell, run, display, owns=False))
    task = own(watch.follow(), name=f"cc_executor {run.run_id}")
    with shell_pump(getattr(shell, "kernel", None), again=watch.show_here):
        stopped = await outlast(task, lambda _: task.cancel())
    if not task.cancelled() and task.exception() is None:
        watch.show_again()
    if stopped is not None and task.cancelled():
        watch.leave(_goes_on(run.run_id))
        raise cancelled(stopped, f"run {run.run_id} goes on")
    return _as_value(shell, task.result())


def _shown_without_journal(shell: Any, folder: RunFolder) -> ShownResult | None:
    """A run whose journal was removed, as the view that was kept shows it; None where there is a journal, or no such view. What is left could only give less."""
    said, bundle, receipt = removed(folder), read_bundle(folder), folder.receipt()
    if not said or bundle is None or receipt is None:
        return None
    show_static(bundle, note=f"{said}: this is the view that was kept.", in_notebook=hasattr(shell, "kernel"))
    return _as_value(shell, ShownResult(receipt, folder.path, bundle))


def _goes_on(run_id: str) -> str:
    return f"{run_id} goes on; `%cc attach {run_id}` watches it again, `%cc cancel {run_id}` ends it"


def home_of(_shell: Any) -> StateHome:
    """The state folder of this kernel."""
    return StateHome(state_path(os.environ))


def sealed(home: StateHome, run_id: str) -> Receipt:
    """The receipt of a run that has ended; made now if nobody has followed it to its end. Blocks."""

    async def finished() -> Receipt:
        return await (await Run.attach(home, run_id, environ=os.environ)).finish()

    return run_in_thread(finished())


async def _execute(shell: Any, line: str, body: str, *, followed_later: bool) -> ShownResult | RunHandle | None:
    home, only_lint = home_of(shell), is_only_linted(shell)
    order = order_of(line, raw_body(shell, body), settings=settings_of(shell), namespace=shell.user_ns, lint=only_lint)
    if order.remarks:
        print(order.remarks)  # noqa: T201 - said before anything is spent, and before the run's view
    if only_lint:
        forget_wish(shell)  # not before: a cell with a wrong option was not looked over, and mended it is still not to start
        return None
    if order.rehearse_without_login is not None:
        order = await in_thread(lambda: _rehearsed_if_needed(order, home))
    if order.once and (known := once.recall(home, order.request)) is not None:
        return await _replayed(shell, order, home, *known, followed_later=followed_later)
    if order.background:
        return await _begin(shell, order, home, followed_later=followed_later)
    return await _wait_for(shell, order, home)


def _hooks(shell: Any) -> tuple[Hook, ...]:
    """The hooks of this kernel's settings; those of its Python code are found by the run itself."""
    return hooks_given(settings_of(shell).hooks, what="CCExecutor.hooks")


def raw_body(shell: Any, body: str) -> str:
    """The cell as the user wrote it. IPython takes prompts like `>>> ` out of cells before a magic sees them; a prompt for an agent is text."""
    lines = _own_lines(shell)
    if not lines:
        return body
    # Only if this body is what IPython made of that text: code of the user's own may give us another one, during this cell or after it.
    made = "".join(lines)
    for cleanup in shell.input_transformers_cleanup:
        made = "".join(cleanup(made.splitlines(keepends=True)))
    return "".join(lines[1:]) if made.partition("\n")[2].rstrip("\n") == body.rstrip("\n") else body


def _own_lines(shell: Any) -> list[str]:
    """The lines of the cell that runs, as they were written, from our own magic on; none where it is no cell of ours, but code that calls the magic."""
    lines = str(getattr(shell, "_cc_executor_raw_cell", None) or "").lstrip().splitlines(keepends=True)
    while lines and lines[0].startswith("%%") and not lines[0].startswith(("%%cc_execute", "%%cc_tasks")):
        del lines[0]  # `%%time` hands its body on within the same cell
    return lines if lines and lines[0].startswith("%%") else []


def _rehearsed_if_needed(order: Order, home: StateHome) -> Order:
    """The order, as a rehearsal if nobody is logged in to the agent."""
    from cc_executor.runtime.executable import find_executable
    from cc_executor.runtime.login import login_of

    executable = find_executable(order.request, environ=os.environ, home=home)
    if login_of(executable.path, environ=os.environ).logged_in:
        return order
    return replace(order, request=order.request.model_copy(update={"rehearse": order.rehearse_without_login}))


async def _replayed(
    shell: Any, order: Order, home: StateHome, folder: RunFolder, receipt: Receipt, *, followed_later: bool
) -> ShownResult | RunHandle:
    bundle = read_bundle(folder)
    note = f"Replayed from run {receipt.run_id}: this cell is unchanged, nothing was run and nothing was spent."
    show_static(bundle, note=note, in_notebook=hasattr(shell, "kernel"))
    result = ShownResult(receipt, folder.path, bundle)
    if not order.background:
        return _bound(shell, order, _as_value(shell, result))
    run = await Run.attach(home, receipt.run_id, environ=os.environ)
    handle = RunHandle(run, Replay(run, result), is_shown=followed_later)  # what comes after the cell awaits it, as it did the first time
    if followed_later:
        handle.follow()
    return _bound(shell, order, handle)


async def _begin(shell: Any, order: Order, home: StateHome, *, followed_later: bool) -> RunHandle:
    if not followed_later:
        unattended(order.request)
    run = await Run.start(await _attempts(order, home).request(), home=home, environ=os.environ, hooks=_hooks(shell), notify=order.notify)
    display = _display(shell, run) if followed_later else SilentDisplay(run)
    asks = CellAsks(shell, run, display, owns=True) if followed_later else None
    handle = RunHandle(run, _Watch(run, home=home, display=display, owns=True, asks=asks), is_shown=followed_later)
    if followed_later:
        handle.follow()
    else:
        # No loop goes on between two cells here, and lines would come into the midst of what is being typed.
        print(f"Run {run.run_id} goes on in the background: `%cc attach {run.run_id}` shows it.")  # noqa: T201 - the cell's only output
    return _bound(shell, order, handle)


def _attempts(order: Order, home: StateHome) -> Attempts:
    return Attempts(order.request, order.care, max_cost_per_day=order.max_cost_per_day, home=home, environ=os.environ)


async def _wait_for(shell: Any, order: Order, home: StateHome) -> ShownResult:
    watches: list[_Watch] = []
    waits: list[Countdown] = []
    left = ""  # how the run is left to itself
    attempts = _attempts(order, home)

    async def whole() -> ShownResult:
        first = ""
        while True:
            run = await Run.start(
                await attempts.request(),
                home=home,
                environ=os.environ,
                hooks=_hooks(shell),
                notify=order.notify,
                spared=settings_of(shell).spare,
            )
            display = _display(shell, run)
            watch = _Watch(run, home=home, display=display, owns=True, asks=CellAsks(shell, run, display, owns=True))
            watches[:] = [watch]
            result = await watch.follow()
            if first:
                once.remember(home, result.receipt, first=first)
            first = first or run.run_id
            watch.show_again()
            again = await attempts.after(result.receipt, run.state)
            if again is None or run.is_unwanted:
                _keep_spare(shell, order, home)
                if attempts.remark:
                    print(attempts.remark)  # noqa: T201 - a person is to read it: the view above has ended
                return result.remarked(attempts.remark)
            from cc_executor.kernel.countdown import Countdown  # here: few runs meet a limit

            waits[:] = [Countdown(shell, again, settings=settings_of(shell))]
            if not await waits[0].over():
                return result
            waits.clear()
            watches.clear()

    async def end(watch: _Watch, *, now: bool) -> None:
        nonlocal left
        left = await watch.interrupt(shell, now=now) or left
        if left:
            task.cancel()

    def stop(count: int) -> None:
        if waits:
            waits[0].give_up()
        elif watches:
            own(end(watches[0], now=count > 1), name="cc_executor cancel")
        else:
            task.cancel()  # it is being launched; what may have begun is ended

    def show_here() -> None:
        for watch in watches:
            watch.show_here(QUEUED_AGAIN)

    task = own(whole(), name="cc_executor cell")
    with shell_pump(getattr(shell, "kernel", None), again=show_here):
        stopped = await outlast(task, stop)
    if stopped is not None and task.cancelled():
        raise cancelled(stopped, watches[0].leave(left) if watches else "the launch was given up")
    result = _bound(shell, order, _as_value(shell, task.result()))
    if stopped is not None and waits:
        raise cancelled(stopped, f"the waiting was ended; the receipt of run {result.receipt.run_id} is kept")
    if stopped is not None:
        raise cancelled(stopped, f"run {result.receipt.run_id} was ended; its receipt is kept")
    if order.raise_error:
        result.raise_for_outcome()
    return result


def _keep_spare(shell: Any, order: Order, home: StateHome) -> None:
    """Where that is wanted: begin an agent for the next cell, beside whatever comes.

    With a cap of the day each run has other options, and within a trace another environment: it would fit no run.
    """
    if settings_of(shell).spare and order.max_cost_per_day is None and not is_traced(os.environ):
        from cc_executor.runtime.spare import drop, prepare

        environ = dict(os.environ)

        def work() -> None:
            prepare(order.request, home=home, environ=environ, pid=os.getpid())
            if not settings_of(shell).spare:  # not wanted any more since
                drop()

        threading.Thread(target=work, name="cc_executor spare", daemon=True).start()


def _as_value(shell: Any, result: ShownResult) -> ShownResult:
    """The cell's value. A notebook shows it above already; a terminal writes `Out[1]: ` in any case, so something had better stand there."""
    return result.silenced() if hasattr(shell, "kernel") else result


def _bound(shell: Any, order: Order, value: T) -> T:
    if order.out is not None:
        shell.push({order.out: value})
    return value


async def ended_bundle(shell: Any, run_id: str) -> Bundle:
    """The view of a run that has ended and that nobody followed to its end; made from the journal."""
    home = home_of(shell)
    run = await Run.attach(home, run_id, environ=os.environ)
    return (await _Watch(run, home=home, display=SilentDisplay(run)).follow()).bundle or ({}, {})


def _display(shell: Any, run: Run) -> Display:
    """How this run is shown here; by its end alone where the live view cannot be made."""
    try:
        return make_display(shell, run, settings=settings_of(shell))
    except Exception as error:  # noqa: BLE001 - as in `_Watch._show`
        _tell_of_view(run, error)
        return StaticDisplay(run)


def _tell_of_view(run: Run, error: Exception) -> None:
    logger.error("the view of run %s failed", run.run_id, exc_info=error)
    with suppress(OSError, ValueError):  # what failed may be this very output
        print(f"The live view of run {run.run_id} failed ({error!r}). The run goes on, and its end will be shown.")  # noqa: T201 - a person is to read it


class _Watch:
    """One run and its display, from the first event to the static end.

    The run may cost money: when its display fails, it goes on unseen; when its journal can no longer be followed, the one who owns it ends it.
    """

    def __init__(self, run: Run, *, home: StateHome, display: Display, owns: bool = False, asks: CellAsks | None = None) -> None:
        self._run = run
        self._asks = asks
        self._home = home
        self._owns = owns
        self._is_blind = False
        self._is_orphan = False
        self.display = display

    async def interrupt(self, shell: Any, *, now: bool) -> str:
        """As `stop`, unless the kernel ends and the run is to go on without it."""
        self._run.is_unwanted = True  # at once: it may end by itself before it is told
        if not now and self._run.request.on_kernel_exit is OnKernelExit.CONTINUE and await is_ending(shell):
            self._is_orphan = True
            return _goes_on(self._run.run_id)
        return await self.stop(now=now)

    async def stop(self, *, now: bool) -> str:
        """End the run; `now`: without giving it time to clean up. What is said where nobody knows when it ends: its supervisor stands still."""
        with suppress(ControlFailed):  # it has ended by itself, or is deaf
            await self._run.cancel(reason="interrupt", by="cell", now=now)
        if not await self._run.is_deaf():
            return ""
        run_id = self._run.run_id
        return f"{run_id} was told to end, and its supervisor stands still; `%cc attach {run_id}` watches it again"

    def leave(self, said: str) -> str:
        """Follow the run no longer; what there is to be said of it. Its view stays as it is where the kernel ends: it goes on through the server."""
        if not self._is_orphan:
            self._show(self.display.leave, f"Run {said}.")
        return f"run {said}"

    async def follow(self) -> ShownResult:
        """Show the run until it has ended, seal its receipt, and leave the static view."""
        ticker = own(self._tick(), name="cc_executor view")
        if said := remark(self._run.folder):
            self._show(self.display.note, said)
        self._tell_of_hooks()
        try:
            async with aclosing(self._run.follow()) as batches:
                async for batch in batches:
                    self._show(self.display.apply, batch)
                    self._tell_of_hooks()
                    if self._asks is not None:
                        await self._asks.attend(batch)
                    if self._owns:
                        await self._run.refuse_hopeless(batch)
            receipt = await self._run.finish()
            self._tell_of_hooks()
            once.remember(self._home, receipt)
        except Exception as error:  # whatever it was, nobody follows the run from here: its view says so, and the caller gets the error
            if self._owns:
                await self.stop(now=True)
            self._show(self.display.leave, f"Run {self._run.run_id} cannot be followed any longer: {error}")
            raise
        finally:
            ticker.cancel()
            if self._asks is not None:
                self._asks.close()
        bundle = self._show(self.display.finish, receipt)
        if bundle is None and not isinstance(self.display, SilentDisplay):
            bundle = (await _Watch(self._run, home=self._home, display=SilentDisplay(self._run)).follow()).bundle
            show_static(bundle)
        self._keep(bundle)
        return ShownResult(receipt, self._run.folder.path, bundle)

    def show_again(self) -> None:
        """Show the end where the view was cleared away."""
        self._show(self.display.show_again)

    def show_here(self, note: str = "") -> None:
        """Show the view in the place of the one that the front end has cleared, for the cell is queued once more."""
        if note:
            self._show(self.display.note, note)
        self._show(self.display.show_here)

    def _show(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """What `act` of the display gives; None when the display fails or has failed."""
        if self._is_blind:
            return None
        try:
            return act(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever it is: the run is owed its life, the person is told
            self._is_blind = True
            _tell_of_view(self._run, error)
            return None

    def _tell_of_hooks(self) -> None:
        for said in self._run.told():
            self._show(self.display.note, said)

    def _keep(self, bundle: Bundle | None) -> None:
        if bundle is None:
            return
        try:
            write_bundle(self._run.folder, bundle)
        except StateUnusable as error:  # its result is owed to whoever waits for it, kept or not
            logger.warning("the view of run %s could not be kept: %s", self._run.run_id, error)

    async def _tick(self) -> None:
        turns = turns_here()
        while True:
            self._show(self.display.tick, time.monotonic())
            await turns.tick(TICK)
