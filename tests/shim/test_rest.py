"""A stream that trickles is looked at now and then, and nobody notices but the machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import cc_executor.shim.records as fmt
from cc_executor.shim.rest import BUSY, LATE_FACTOR, LONGEST, REST, TRICKLE, Rest
from support.shims import Run, changed, cpu, until, watch

Start = Callable[..., Run]

ROOM = 2**20
TRICKLING = """
import os, time
for _ in range(200):
    os.write(1, b"x\\n")
    time.sleep(0.002)  # the pace of the agent: a trickle is what this is about
"""
TWO_WORDS = """
import os, signal
os.write(1, b"one ")
open("go").close()
os.write(1, b"two")
open("done", "w").close()
signal.pause()
"""
LAST_AND_CLOSED = """
import os, signal
os.write(1, b"last")
os.close(1)
signal.pause()
"""
HALF_A_SECRET = """
import os, signal
os.write(1, b"a word, and sec")
open("go").close()
os.close(1)
signal.pause()
"""
SMALL_PIPE = """
import fcntl, os
fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 4096)
os.write(1, b"first ")
open("go").close()
os.write(1, bytes(400 * 4096))
"""
STDERR_LAST = """
import os, signal
os.write(1, b"first ")
open("go").close()
os.write(1, b"second")
os.write(2, b"third")
signal.pause()
"""


@pytest.fixture(autouse=True)
def gate(tmp_path: Path) -> None:
    """Where agents wait for `let_go`, as soon as they have written their first word."""
    os.mkfifo(tmp_path / "go")


def let_go(folder: Path) -> None:
    with (folder / "go").open("w"):
        pass


def test_a_trickle_rests_and_silence_does_not() -> None:
    rest = Rest()
    assert rest.looked(100, 7.0, ROOM)
    assert rest.until == 7.0 + REST
    assert not rest.looked(0, 7.0 + REST, ROOM)
    assert rest.until == float("inf")


def test_a_writer_that_writes_a_lot_is_not_left_alone() -> None:
    rest = Rest()
    assert not rest.looked(TRICKLE, 0.0, ROOM)
    assert not rest.looked(1, 0.9 * BUSY, ROOM)
    assert rest.looked(1, 1.1 * BUSY, ROOM)


def test_quick_looks_at_a_quick_writer_find_little_and_it_is_busy_all_the_same() -> None:
    rest = Rest()
    rest.looked(TRICKLE, 0.0, ROOM)
    looks = int(10 * BUSY / 0.001)  # one a millisecond
    assert not any(rest.looked(TRICKLE // 10, 0.001 * number, ROOM) for number in range(1, looks))


@pytest.mark.parametrize("late", [0.0, 0.001, 0.1, 5.0])
def test_where_no_core_is_free_the_rest_is_longer_but_never_long(late: float) -> None:
    rest = Rest()
    rest.came_back(late)
    assert rest.looked(1, 0.0, ROOM)
    assert rest.until == pytest.approx(min(LONGEST, REST + LATE_FACTOR * late))
    for _ in range(25):  # a second of looks: nor for long
        rest.came_back(0.0)
    rest.looked(1, 0.0, ROOM)
    assert rest.until == pytest.approx(REST, abs=0.001)


def test_a_trickling_child_is_looked_at_no_more_often_than_the_rests_allow(start: Start) -> None:
    run = start(TRICKLING)
    seconds = run.wait()["elapsed"]
    assert run.read() == b"x\n" * 200
    looks = sum(stream == 0 for _, _, _, stream in fmt.INDEX.iter_unpack(run.read(fmt.INDEX_FILE)))
    assert looks <= seconds / REST + 2  # each has an entry, for they are further apart than entries; and the last, at the end


def test_what_was_written_before_a_command_is_kept_before_its_answer(start: Start, tmp_path: Path) -> None:
    run = start(TWO_WORDS)
    until(lambda: run.read() == b"one ")
    let_go(tmp_path)
    until((tmp_path / "done").exists)
    assert run.ask(op="status")["written"][fmt.STDOUT] == len("one two")


def test_stderr_never_overtakes_what_was_written_to_stdout_before_it(start: Start, tmp_path: Path) -> None:
    run = start(STDERR_LAST)
    until(lambda: run.read() == b"first ")
    let_go(tmp_path)
    until(lambda: run.read(fmt.STDERR) == b"third")
    assert run.read() == b"first second"


def test_a_stream_that_ended_while_it_rested_costs_nothing(start: Start) -> None:
    run = start(LAST_AND_CLOSED)
    until(lambda: run.read() == b"last")
    watch(2 * LONGEST)  # the rest is over
    before = cpu(run.process.pid)
    watch(0.5)
    assert cpu(run.process.pid) - before < 0.1  # all of it, on a quiet machine, where a rest in the past was waited for


def test_what_a_closed_stream_held_back_becomes_durable(start: Start, tmp_path: Path) -> None:
    run = start(HALF_A_SECRET, secrets=["secret-of-somebody"])
    until(lambda: run.ask(op="status")["durable"][fmt.STDOUT] == len("a word, and "))
    let_go(tmp_path)
    until(lambda: run.ask(op="status")["durable"][fmt.STDOUT] == len("a word, and sec"))


def test_a_flood_through_a_small_pipe_is_not_looked_at_in_rests(start: Start, tmp_path: Path) -> None:
    # Rests so long that those of 400 looks would never come to an end in this test, however slow the machine is without them.
    run = start(SMALL_PIPE, program=changed("from cc_executor.shim import rest", "rest.REST = rest.LONGEST = 2.0"))
    until(lambda: run.read() == b"first ")
    let_go(tmp_path)
    run.wait(100)
    assert len(run.read()) == len("first ") + 400 * 4096
