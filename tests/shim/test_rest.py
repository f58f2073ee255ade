"""A stream that trickles is looked at now and then, and nobody notices but the machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import cc_executor.shim.records as fmt
from cc_executor.shim.rest import BUSY, BUSY_SIZE, LATE_FACTOR, LONGEST, REST, TRICKLE, Rest
from support.shims import Run, until

Start = Callable[..., Run]

TRICKLING = "import os, time\nfor _ in range(200):\n    os.write(1, b'x\\n')\n    time.sleep(0.002)"
TWO_WORDS = """
import os, time
os.write(1, b"one ")
while not os.path.exists("go"):
    time.sleep(0.0005)
os.write(1, b"two")
open("done", "w").close()
time.sleep(60)
"""
STDERR_LAST = """
import os, time
os.write(1, b"first ")
while not os.path.exists("go"):
    time.sleep(0.0005)
os.write(1, b"second")
os.write(2, b"third")
time.sleep(60)
"""


def test_a_trickle_rests_and_silence_does_not() -> None:
    rest = Rest()
    assert rest.looked(100, 7.0)
    assert rest.until == 7.0 + REST
    assert not rest.looked(0, 7.0 + REST)
    assert rest.until == float("inf")


def test_a_writer_that_writes_a_lot_is_not_left_alone() -> None:
    rest = Rest()
    assert not rest.looked(TRICKLE, 0.0)
    assert not rest.looked(1, 0.9 * BUSY)
    assert rest.looked(1, 1.1 * BUSY)


def test_quick_looks_at_a_quick_writer_find_little_and_it_is_busy_all_the_same() -> None:
    rest = Rest()
    rest.looked(TRICKLE, 0.0)
    looks = int(10 * BUSY / 0.001)  # one a millisecond
    assert not any(rest.looked(BUSY_SIZE // 40, 0.001 * number) for number in range(1, looks))


@pytest.mark.parametrize("late", [0.0, 0.001, 0.1, 5.0])
def test_where_no_core_is_free_the_rest_is_longer_but_never_long(late: float) -> None:
    rest = Rest()
    rest.came_back(late)
    assert rest.looked(1, 0.0)
    assert rest.until == pytest.approx(min(LONGEST, REST + LATE_FACTOR * late))
    for _ in range(100):
        rest.came_back(0.0)
    rest.looked(1, 0.0)
    assert rest.until == pytest.approx(REST)


def test_a_trickling_child_is_looked_at_no_more_often_than_the_rests_allow(start: Start) -> None:
    run = start(TRICKLING)
    seconds = run.wait()["elapsed"]
    assert run.read() == b"x\n" * 200
    looks = sum(stream == 0 for _, _, _, stream in fmt.INDEX.iter_unpack(run.read(fmt.INDEX_FILE)))
    assert looks <= seconds / REST + 2  # each has an entry, for they are further apart than entries; and the last, at the end


def test_what_was_written_before_a_command_is_kept_before_its_answer(start: Start, tmp_path: Path) -> None:
    run = start(TWO_WORDS)
    until(lambda: run.read() == b"one ")
    (tmp_path / "go").touch()
    until((tmp_path / "done").exists)
    assert run.ask(op="status")["written"][fmt.STDOUT] == len("one two")
    run.ask(op="cancel", now=True)
    run.wait()


def test_stderr_never_overtakes_what_was_written_to_stdout_before_it(start: Start, tmp_path: Path) -> None:
    run = start(STDERR_LAST)
    until(lambda: run.read() == b"first ")
    (tmp_path / "go").touch()
    until(lambda: run.read(fmt.STDERR) == b"third")
    assert run.read() == b"first second"
    run.ask(op="cancel", now=True)
    run.wait()
