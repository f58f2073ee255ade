"""Others that stand still: a supervisor or another process that was stopped (SIGSTOP), threads that are all taken. Nobody waits for them for ever."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from cc_executor.errors import ControlFailed, StateUnusable
from cc_executor.runtime import control, seal
from cc_executor.runtime import run as running
from cc_executor.runtime.errand import THREADS, in_thread
from cc_executor.runtime.lost import settle
from cc_executor.runtime.run import Run
from cc_executor.shim import records
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder, RunStanding
from support.locks import held_by_a_stopped_process
from support.runs import BOUND, eventually, started, to_end, until, wait_for

pytestmark = pytest.mark.timeout(120)


async def supervisor_of(run: Run) -> int:
    state = await until(run, lambda state: state.started)
    assert state.started is not None
    return state.started.shim_pid


# --- a supervisor -------------------------------------------------------------------------------------------------


@pytest.mark.row("faults", "supervisor stopped (SIGSTOP), cancelled by whoever follows the run", "it is told to go on, and ends the run")
@pytest.mark.parametrize("is_own", [True, False], ids=["started here", "attached"])
async def test_a_cancel_lets_a_stopped_supervisor_go_on(
    tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch, is_own: bool
) -> None:
    monkeypatch.setattr(control, "ANSWER_BUDGET", 0.2)
    mine = await started("sleep 1000", home=home, cwd=tmp_path)
    run = mine if is_own else await Run.attach(home, mine.run_id, environ=os.environ)
    if not is_own:
        monkeypatch.setattr(running, "terminate", lambda _: False)  # it is no child of whoever attaches
    os.kill(await supervisor_of(run), signal.SIGSTOP)
    assert await run.is_deaf()
    with anyio.fail_after(BOUND):
        receipt = await run.end(reason="interrupt", by="test")
    assert receipt.outcome.kind.value == "cancelled"
    assert not await run.is_deaf()


@pytest.mark.row(
    "faults", "supervisor stopped (SIGSTOP), cancelled from a terminal or another notebook", "it is told to go on, and ends the run"
)
async def test_a_cancel_by_anybody_lets_a_stopped_supervisor_go_on(
    tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "ANSWER_BUDGET", 0.2)
    monkeypatch.setattr(control, "WOKEN_BUDGET", BOUND)
    run = await started("sleep 1000", home=home, cwd=tmp_path)
    os.kill(await supervisor_of(run), signal.SIGSTOP)
    with pytest.raises(ControlFailed, match="let it go on with"):
        control.command(run.folder, "pause")
    assert control.command(run.folder, "cancel", by="test")["state"] in {"stopping", "exited"}
    assert (await run.finish()).outcome.kind.value == "cancelled"


async def test_a_cancel_that_is_obeyed_as_soon_as_its_supervisor_goes_on_is_no_error(
    tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "ANSWER_BUDGET", 0.2)
    run = await started("sleep 1000", home=home, cwd=tmp_path)
    wake = control.wake

    def wake_and_wait(folder: RunFolder) -> None:
        wake(folder)
        wait_for(lambda: folder.standing(time.time()) is RunStanding.ENDED, within=BOUND)

    monkeypatch.setattr(control, "wake", wake_and_wait)
    os.kill(await supervisor_of(run), signal.SIGSTOP)
    assert control.command(run.folder, "cancel", by="test")["state"] == "exited"
    assert (await run.finish()).outcome.kind.value == "cancelled"


# --- somebody who seals -------------------------------------------------------------------------------------------


@pytest.mark.row("faults", "whoever seals a run is stopped (SIGSTOP)", "a cancel ends the wait for it after 5 s; the receipt is made later")
async def test_whoever_waits_for_a_sealer_that_was_stopped_can_leave(
    tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seal.TURN_BUDGET == 5
    monkeypatch.setattr(seal, "TURN_BUDGET", 0.2)
    run = await started("echo hello", home=home, cwd=tmp_path)
    await to_end(run)
    with held_by_a_stopped_process(run.folder.path / "sealing"):
        with anyio.move_on_after(1.0) as patience:  # it may make a check that takes long
            await run.finish()
        assert patience.cancelled_caught
        with (
            anyio.fail_after(BOUND),
            pytest.raises(StateUnusable, match=f"makes the receipt of run {run.run_id} and does not come to an end"),
        ):
            await run.end(reason="interrupt", by="test")
    with anyio.fail_after(BOUND):
        assert (await run.finish()).outcome.ok


async def test_a_lost_run_that_somebody_seals_holds_up_no_other(tmp_path: Path, home: StateHome) -> None:
    runs = [await started("sleep 1000", home=home, cwd=tmp_path) for _ in range(2)]
    for run in runs:
        os.kill(await supervisor_of(run), signal.SIGKILL)
        await eventually(partial(_is_lost, run))
    first, second = runs
    with held_by_a_stopped_process(first.folder.path / "sealing"), anyio.fail_after(BOUND):
        await in_thread(partial(settle, home, environ=os.environ))
        assert first.folder.receipt() is None
        assert second.folder.receipt() is not None
    await in_thread(partial(settle, home, environ=os.environ))
    assert first.folder.receipt() is not None


def _is_lost(run: Run) -> bool:
    return run.folder.standing(time.time()) is RunStanding.LOST


# --- threads ------------------------------------------------------------------------------------------------------


@pytest.mark.row("faults", "every thread that anyio allows is taken by the user's own code", "runs start, end and are sealed")
async def test_threads_of_others_hold_up_no_run(tmp_path: Path, home: StateHome) -> None:
    goes_on = threading.Event()
    taken = anyio.to_thread.current_default_thread_limiter().total_tokens
    async with anyio.create_task_group() as others:
        for _ in range(int(taken)):
            others.start_soon(anyio.to_thread.run_sync, goes_on.wait)
        try:
            with anyio.fail_after(BOUND):
                run = await started("echo hello", home=home, cwd=tmp_path)
                assert (await run.finish()).outcome.ok
        finally:
            goes_on.set()


async def test_a_cancel_does_not_wait_for_the_threads_of_other_runs(tmp_path: Path, home: StateHome) -> None:
    run = await started("sleep 1000", home=home, cwd=tmp_path)
    goes_on, at_work = threading.Event(), threading.Barrier(THREADS + 1)

    def work(wait: Callable[[], object]) -> None:
        at_work.wait(BOUND)
        wait()

    async with anyio.create_task_group() as others:
        for _ in range(THREADS):
            others.start_soon(in_thread, partial(work, goes_on.wait))
        await in_thread(partial(at_work.wait, BOUND), takes_long=True)
        try:
            with anyio.fail_after(BOUND):
                await run.cancel(now=True)
                await to_end(run)
        finally:
            goes_on.set()
    assert (run.folder.path / records.EXIT).exists()
    assert (await run.finish()).exit.stopped_for == "cancel"


@pytest.mark.row("faults", "the system has no more threads", "an error, and nobody waits for work that never begins")
async def test_work_for_which_there_is_no_thread_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(THREADS + 1):  # each gives its place back
            with anyio.fail_after(BOUND), pytest.raises(RuntimeError, match="can't start new thread"):
                await in_thread(lambda: None)
    assert await in_thread(lambda: "works") == "works"


async def test_a_thread_that_is_slow_to_begin_does_not_hold_up_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, start = threading.Event(), threading.Thread.start

    def late(thread: threading.Thread) -> None:
        assert goes_on.wait(BOUND)
        start(thread)

    with monkeypatch.context() as patched, anyio.fail_after(BOUND):
        patched.setattr(threading.Thread, "start", late)
        async with anyio.create_task_group() as others:
            others.start_soon(in_thread, lambda: None)
            await anyio.sleep(0.01)  # the loop turns, though the thread has not begun
            goes_on.set()
