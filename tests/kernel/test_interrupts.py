"""An interrupt of a cell that awaits a run by itself, without a magic: the run is told at once, not when the loop happens to wake up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kernel.cells import WAIT, living, make_gate, wait_for_pid
from support.kernel import Kernel
from support.looks import eventually

SLEEPS = 100  # seconds, for which nothing else wakes the loop up; it is one that people wait for
# Before it is followed it is a launch that is interrupted.
ONE = f"made = await cc_execute({WAIT!r}, agent='shell', shell='bash', on_event=lambda _: open('followed', 'w').close())"
GATHERED = f"await asyncio.gather(cc_execute('true', agent='shell', shell='bash'), {ONE.partition('await ')[2]})"


@pytest.fixture
def sleepy(kernel: Kernel) -> Iterator[Kernel]:
    """A kernel in which a run is looked at when something happens, and else hardly ever."""
    kernel.run(
        f"import asyncio, signal\nfrom cc_executor import cc_execute\nfrom cc_executor.runtime import run\nrun.LOOK_AGAIN = {SLEEPS}"
    )
    yield kernel
    kernel.run("from cc_executor.runtime import run\nrun.LOOK_AGAIN = 1.0")


@pytest.mark.parametrize("cell", [ONE, GATHERED], ids=["one", "gathered"])
def test_an_awaited_run_feels_an_interrupt_at_once(sleepy: Kernel, tmp_path: Path, cell: str, saw: Callable[[str], None]) -> None:
    make_gate(tmp_path)
    handler = sleepy.value("signal.getsignal(signal.SIGINT)")
    sent = sleepy.send(cell)
    wait_for_pid(tmp_path)
    eventually((tmp_path / "followed").exists, within=60, what="the run is followed")
    interrupted = time.monotonic()
    sleepy.interrupt()
    answer = sleepy.wait(sent, within=60)
    saw(f"{time.monotonic() - interrupted:.2f} s")
    assert (answer.status, answer.ename) == ("error", "CancelledError")
    assert living(tmp_path) == []
    assert sleepy.value("signal.getsignal(signal.SIGINT)") == handler
