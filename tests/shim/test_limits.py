"""Wall and stall limits count what is active, nothing else."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from cc_executor.shim.clock import Clock
from cc_executor.shim.limits import Limits
from support.shims import Run, until, watch

Start = Callable[..., Run]

SILENT = "import time\nwhile True: time.sleep(1)"
CHATTY = "import os, time\nwhile True: os.write(2, b'.'); time.sleep(0.05)"
TOOL = r"""
import os, time
if os.fork() == 0:
    os.setsid(); os.close(1); os.close(2)
    time.sleep(1.5)
    os._exit(0)
os.wait()
while True: time.sleep(1)
"""


def test_the_wall_limit_ends_a_run(start: Start) -> None:
    run = start(CHATTY, wall=0.6)
    facts = run.wait()
    assert facts["stop_reason"] == "timeout"
    assert run.kinds()[:3] == ["started", "limit_reached", "stop_requested"]
    limit = run.record("limit_reached")
    assert (limit["limit"], limit["seconds"]) == ("wall", 0.6)
    assert 0.6 <= limit["t"] < 1.5


def test_silence_on_both_streams_is_a_stall(start: Start) -> None:
    run = start(SILENT, stall=0.5)
    facts = run.wait()
    assert facts["stop_reason"] == "stalled"
    limit = run.record("limit_reached")
    assert (limit["limit"], limit["seconds"]) == ("stall", 0.5)
    assert 0.5 <= limit["t"] < 1.5


def test_output_on_either_stream_is_life(start: Start) -> None:
    run = start(CHATTY, stall=0.5, wall=1.5)
    assert run.wait()["stop_reason"] == "timeout"


def test_a_tool_in_a_session_of_its_own_is_life_and_so_is_its_end(start: Start) -> None:
    run = start(TOOL, stall=0.6)
    facts = run.wait()
    assert facts["stop_reason"] == "stalled"
    assert run.record("limit_reached")["t"] >= 1.5 + 0.6


def test_both_clocks_stand_still_while_paused(start: Start) -> None:
    run = start(SILENT, stall=0.8, wall=1.2)
    run.ask(op="pause")
    watch(1.6)
    assert run.ask(op="status")["state"] == "paused"
    run.ask(op="resume")
    facts = run.wait()
    assert facts["stop_reason"] == "stalled"
    assert facts["paused"] >= 1.6
    assert run.record("limit_reached")["t"] >= 1.6 + 0.8


def test_a_shim_that_was_frozen_reports_it_and_ends_nothing(start: Start) -> None:
    run = start(SILENT, stall=2.5, wall=4.0)
    run.process.send_signal(signal.SIGSTOP)
    watch(4.5)
    run.process.send_signal(signal.SIGCONT)
    frozen = until(lambda: [record for record in run.records() if record["kind"] == "frozen"])
    assert frozen[0]["seconds"] > 3.5
    assert run.ask(op="status")["state"] == "running"
    assert run.ask(op="status")["active"] < 2.5
    facts = run.wait()
    assert facts["stop_reason"] == "stalled"
    assert facts["frozen"] == frozen[0]["seconds"] or abs(facts["frozen"] - frozen[0]["seconds"]) < 0.01
    assert run.record("limit_reached")["t"] >= frozen[0]["seconds"] + 2.5


def test_a_run_without_limits_has_none(start: Start) -> None:
    begun = time.monotonic()
    run = start(SILENT)
    watch(0.7)
    status = run.ask(op="status")
    assert status["state"] == "running"
    assert 0.6 < status["active"] <= time.monotonic() - begun
    run.ask(op="cancel", now=True)
    run.wait()


def test_the_clock_counts_neither_pause_nor_freeze() -> None:
    clock = Clock(100.0, 0.0)
    clock.asleep(100.5)
    assert clock.awake(101.0) == 0.0  # half a second late: a busy machine
    clock.pause(110.0)
    clock.asleep(110.5)
    assert clock.awake(150.0) == 0.0  # a suspend during a pause is part of the pause
    assert clock.active(150.0) == 10.0
    assert clock.resume(160.0) == 50.0
    assert clock.resume(161.0) == 0.0
    clock.asleep(161.0)
    assert clock.awake(171.0) == 10.0
    assert clock.active(171.0) == 11.0
    assert clock.elapsed(171.0) == 71.0 == clock.active(171.0) + clock.paused(171.0) + clock.frozen


def test_a_limit_is_reached_at_its_second_and_not_before() -> None:
    limits = Limits(100.0, 10.0)
    assert limits.next(0.0) == 5.0
    assert limits.reached(5.0, lambda: False) is None
    assert limits.next(5.0) == 5.5
    assert limits.reached(9.999, lambda: False) is None
    assert limits.next(9.999) == 10.0
    assert limits.reached(10.0, lambda: False) == ("stall", 10.0, "stalled")
    limits.sign(10.0)
    assert limits.reached(16.0, lambda: True) is None  # a tool runs
    assert limits.reached(40.0, lambda: False) is None  # it has ended just now
    assert limits.reached(49.9, lambda: False) is None
    assert limits.reached(50.0, lambda: False) == ("stall", 10.0, "stalled")
    limits.sign(95.0)
    assert limits.next(95.0) == 100.0
    assert limits.reached(100.0, lambda: True) == ("wall", 100.0, "timeout")
    assert Limits(None, None).next(1e9) == float("inf")
