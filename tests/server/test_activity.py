"""What keeps a server alive, with real runs and lists that no server has started."""

from __future__ import annotations

import threading
from pathlib import Path

import anyio
import pytest

from cc_executor.runtime.run import Run
from cc_executor.server.activity import AtWork
from cc_executor.store.home import StateHome
from cc_executor.tasks import cc_execute_list
from support.runs import BOUND, eventually, started, to_end

MOST = 10.0


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def at_work(home: StateHome, clock: Clock) -> AtWork:
    return AtWork(home.root, most=MOST, clock=clock)


async def sleeping(home: StateHome, folder: Path) -> Run:
    return await started("sleep 600", home=home, cwd=folder)


async def test_a_run_counts_while_it_is_at_work_and_not_while_it_is_paused(home: StateHome, tmp_path: Path, at_work: AtWork) -> None:
    assert not at_work.look(), "nothing was ever run"
    run = await sleeping(home, tmp_path)
    assert at_work.look()
    await run.pause()
    assert not at_work.look()
    await run.resume()
    assert at_work.look()
    await run.cancel(now=True)
    await to_end(run)
    await eventually(lambda: not at_work.look())


async def test_a_run_that_hangs_counts_for_so_long_and_takes_none_of_another_s_time(
    home: StateHome, tmp_path: Path, at_work: AtWork, clock: Clock
) -> None:
    hung = await sleeping(home, tmp_path)
    assert at_work.look()
    clock.now = MOST - 0.1
    assert at_work.look()
    clock.now = MOST
    assert not at_work.look()
    other = await sleeping(home, tmp_path)
    assert at_work.look(), "a run that has just begun"
    for run in (hung, other):
        await run.cancel(now=True)
        await to_end(run)


async def test_a_list_counts_between_its_runs(at_work: AtWork) -> None:
    begun, go = threading.Event(), threading.Event()

    def waits() -> None:
        begun.set()
        assert go.wait(BOUND)

    async with anyio.create_task_group() as group:
        group.start_soon(cc_execute_list, [{"id": "a", "call": waits}])
        try:
            await eventually(begun.is_set)
            assert at_work.look(), "there is no run, and there is work"
        finally:
            go.set()
    assert not at_work.look()


async def test_a_state_folder_that_is_not_safe_keeps_nothing_alive(home: StateHome, tmp_path: Path, at_work: AtWork) -> None:
    run = await sleeping(home, tmp_path)
    home.root.chmod(0o755)
    try:
        assert not at_work.look()
    finally:
        home.root.chmod(0o700)
    assert at_work.look()
    await run.cancel(now=True)
    await to_end(run)
