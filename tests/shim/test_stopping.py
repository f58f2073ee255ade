"""A stop ends everything, in at most three seconds, and politely where that works."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import cc_executor.shim.records as fmt
from support.agents import HOPPERS, POLITE, STUBBORN
from support.shims import Run, alive, until

Start = Callable[..., Run]

PROMISE = 3.0


def pid(born: Path) -> int:
    return int(born.name.removeprefix("born-"))


def signals(run: Run) -> list[str]:
    return [record["signal"] for record in run.records() if record["kind"] == "signalled"]


def test_a_polite_agent_has_its_last_word(start: Start) -> None:
    run = start(POLITE, stdin="open")
    until(lambda: run.read() == b"ready\n")
    reply = run.ask(op="cancel", by="cell", reason="interrupt")
    assert reply["state"] == "stopping"
    facts = run.wait(PROMISE)
    assert run.read() == b"ready\nstopped by 2\n"
    assert (facts["code"], facts["signal"], facts["stop_reason"]) == (3, None, "interrupt")
    assert run.record("stop_requested") | {"reason": "interrupt", "by": "cell"} == run.record("stop_requested")
    assert signals(run) == ["close_stdin", "SIGINT"]


@pytest.mark.row(
    "faults", "child ignores SIGINT and SIGTERM; double fork, setsid, cleared environment", "all of it is gone within 3 s of a cancel"
)
def test_a_tree_that_is_deaf_and_scattered_is_gone_in_three_seconds(start: Start, tmp_path: Path) -> None:
    run = start(STUBBORN)
    born = until(lambda: found if len(found := sorted(tmp_path.glob("born-*"))) == 4 else [])
    assert len(born) == 4
    begun = time.monotonic()
    run.ask(op="cancel")
    facts = run.wait(2 * PROMISE)
    assert time.monotonic() - begun <= PROMISE
    assert run.marked() == []
    assert not any(alive(pid(path)) for path in born)
    assert (facts["signal"], facts["survivors"]) == ("SIGKILL", 0)
    assert signals(run) == ["SIGINT", "SIGTERM", "SIGKILL"]


@pytest.mark.row("faults", "processes that fork and end all the time", "caught: nothing is left")
def test_a_tree_that_hops_is_caught(start: Start) -> None:
    run = start(HOPPERS)
    until(lambda: run.read() == b"hopping\n")
    begun = time.monotonic()
    run.ask(op="cancel")
    facts = run.wait(2 * PROMISE)
    assert time.monotonic() - begun <= PROMISE
    assert facts["survivors"] == 0
    assert run.marked() == []


def test_a_second_cancel_can_be_at_once(start: Start, tmp_path: Path) -> None:
    run = start(STUBBORN)
    until(lambda: len(list(tmp_path.glob("born-*"))) == 4)
    run.ask(op="cancel")
    begun = time.monotonic()
    assert run.ask(op="cancel")["state"] == "stopping"
    assert run.ask(op="pause")["ok"] is False
    assert run.ask(op="resume")["ok"] is False
    run.ask(op="cancel", now=True)
    run.wait(PROMISE)
    assert time.monotonic() - begun < 1.0
    assert signals(run) == ["SIGINT", "SIGKILL"]
    assert run.kinds().count("stop_requested") == 1


def test_the_first_cancel_can_be_at_once(start: Start) -> None:
    run = start(POLITE)
    until(lambda: run.read() == b"ready\n")
    run.ask(op="cancel", now=True)
    assert run.wait(PROMISE)["signal"] == "SIGKILL"
    assert signals(run) == ["SIGKILL"]


def test_an_agent_that_stands_still_by_somebody_else_is_ended(start: Start) -> None:
    run = start(POLITE)
    until(lambda: run.read() == b"ready\n")
    os.kill(run.agent, signal.SIGSTOP)
    run.ask(op="cancel")
    assert run.wait(PROMISE)["code"] == 3


def test_output_is_taken_and_questions_are_answered_while_stopping(start: Start) -> None:
    code = """
import os, signal, time
signal.signal(signal.SIGINT, lambda *_: os.write(1, b"x" * 300_000))
signal.signal(signal.SIGTERM, lambda *_: (os.write(2, b"y" * 300_000), os._exit(0)))
os.write(1, b"ready")
while True: time.sleep(1)
"""
    run = start(code)
    until(lambda: run.read() == b"ready")
    run.ask(op="cancel")
    until(lambda: len(run.read()) == 300_005)
    assert run.ask(op="status")["state"] == "stopping"
    run.wait(PROMISE)
    assert len(run.read(fmt.STDERR)) == 300_000
    assert signals(run) == ["SIGINT", "SIGTERM"]


@pytest.mark.row("faults", "supervisor told to end (SIGTERM, SIGHUP, SIGINT)", "the run ends in order")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_the_shim_is_a_cancel(start: Start, number: signal.Signals) -> None:
    run = start(POLITE)
    until(lambda: run.read() == b"ready\n")
    run.process.send_signal(number)
    facts = run.wait(PROMISE)
    assert (facts["code"], facts["stop_reason"]) == (3, "terminated")
    assert run.record("stop_requested")["by"] == number.name


@pytest.mark.row("faults", "supervisor killed", "the agent dies at once, no exit facts, the journal is whole to its last line")
def test_when_the_shim_is_killed_the_agent_dies_at_once(start: Start, tmp_path: Path) -> None:
    run = start(STUBBORN)
    born = until(lambda: found if len(found := sorted(tmp_path.glob("born-*"))) == 4 else [])
    run.process.kill()
    run.process.wait(10)
    until(lambda: not alive(run.agent))
    assert not (run.folder / fmt.EXIT).exists()
    assert run.kinds() == ["started"]
    for path in born:  # the others live on until somebody seals the run; the one without a mark is ours to end
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid(path), signal.SIGKILL)


@pytest.mark.row("faults", "fork bomb", "ended")
def test_a_fork_bomb_is_ended(start: Start) -> None:
    code = """
import os, resource, signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(1, b"ready")
depth = 0
while depth < 7:
    if os.fork() == 0:
        os.setsid()
    depth += 1
while True:
    if os.fork() == 0:
        os._exit(0)
    os.wait()
"""
    run = start(code)
    until(lambda: run.ask(op="status")["processes"] >= 60)
    run.ask(op="cancel", now=True)
    facts = run.wait(PROMISE + 2)
    assert facts["survivors"] == 0
    assert run.marked() == []
