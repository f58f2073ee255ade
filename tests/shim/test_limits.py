"""Wall and stall limits count what is active, nothing else."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import cc_executor.shim.records as fmt
from cc_executor.shim.clock import Clock
from cc_executor.shim.limits import Limits
from cc_executor.shim.linger import LastWord
from cc_executor.shim.quiet import Quiet
from support.shims import Run, until, watch

Start = Callable[..., Run]

SILENT = "import time\nwhile True: time.sleep(1)"
# Shells, because they start at once: an interpreter may need longer than the limit on a loaded machine, and then nothing has begun.
CHATTY = ("/bin/sh", "-c", "while :; do echo . >&2; sleep 0.05; done")
TOOL = ("/bin/sh", "-c", "setsid sh -c 'until [ -e done ]; do sleep 0.05; done' >/dev/null 2>&1; exec sleep 60")


def active(run: Run, kind: str) -> float:
    """The active seconds at which a record was made in a run without a pause."""
    record = run.record(kind)
    return record["t"] - sum(each["seconds"] for each in run.records()[: record["seq"]] if each["kind"] == "frozen")


def last_word(run: Run) -> float:
    """When standard output came for the last time before the run was told to stop."""
    stop = run.record("stop_requested")["t"]
    return max(t for _, t, _, stream in fmt.INDEX.iter_unpack(run.read(fmt.INDEX_FILE)) if stream == 0 and t < stop)


def test_the_wall_limit_ends_a_run(start: Start) -> None:
    run = start(CHATTY, wall=0.6)
    facts = run.wait()
    assert facts["stop_reason"] == "timeout"
    assert run.kinds()[:3] == ["started", "limit_reached", "stop_requested"]
    limit = run.record("limit_reached")
    assert (limit["limit"], limit["seconds"]) == ("wall", 0.6)
    assert 0.6 <= active(run, "limit_reached") < 3


@pytest.mark.row("faults", "agent hangs in silence", "stalled")
def test_silence_on_both_streams_is_a_stall(start: Start) -> None:
    run = start(SILENT, stall=0.5)
    facts = run.wait()
    assert facts["stop_reason"] == "stalled"
    limit = run.record("limit_reached")
    assert (limit["limit"], limit["seconds"]) == ("stall", 0.5)
    assert 0.5 <= active(run, "limit_reached") < 3


def test_output_on_either_stream_is_life(start: Start) -> None:
    run = start(CHATTY, stall=3.0, wall=4.5)
    assert run.wait()["stop_reason"] == "timeout"


def test_lines_that_only_say_that_the_line_is_open_are_no_life(start: Start) -> None:
    pinging = ("/bin/sh", "-c", "echo begun; while :; do echo '{\"ping\": 1}'; sleep 0.05; done")
    facts = start(pinging, stall=1.0, wall=60, quiet=['{"ping"']).wait()
    assert facts["stop_reason"] == "stalled"
    told = start(pinging, stall=3.0, wall=4.5, quiet=['{"pong"']).wait()
    assert told["stop_reason"] == "timeout"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 64, 6000])
def test_anything_else_is_heard_wherever_blocks_are_cut(size: int) -> None:
    lines = [b'{"ping"}', b'{"pi', b'{"ping":' + b"x" * 40, b"", b'x{"ping"}', b'{"ping"}', b"y" * 5000, b'{"ping"}']
    quiet, buffer = Quiet((b'{"pong"', b'{"ping"')), bytearray(6000)
    for line in lines:
        for at in range(0, len(line) + 1, size):
            piece = (line + b"\n")[at : at + size]
            buffer[: len(piece)] = piece
            quiet.look(buffer, len(piece))
        assert quiet.heard() is not line.startswith(b'{"ping"'), line
    quiet.look(bytearray(b'{"ping"}\n{"p'), 12)
    assert not quiet.heard(), "it may become one"
    quiet.look(bytearray(b'ing"}\n{"pi\n'), 11)
    assert quiet.heard()


def test_a_tool_in_a_session_of_its_own_is_life_and_so_is_its_end(start: Start, tmp_path: Path) -> None:
    run = start(TOOL, stall=2.5)
    worked = until(lambda: seconds if (seconds := run.ask(op="status")["active"]) > 3 else 0)
    (tmp_path / "done").touch()
    facts = run.wait()
    assert facts["stop_reason"] == "stalled"
    assert run.record("limit_reached")["t"] >= worked + 2.5


@pytest.mark.row("faults", "pause longer than every limit", "no limit is reached")
def test_both_clocks_stand_still_while_paused(start: Start) -> None:
    run = start(SILENT, stall=3.0, wall=2.5)  # of two that are reached while nobody looks, the wall limit is the one that is told
    run.ask(op="pause")
    watch(3.2)
    assert run.ask(op="status")["state"] == "paused"
    run.ask(op="resume")
    facts = run.wait()
    assert facts["stop_reason"] == "timeout"
    assert facts["paused"] >= 3.2
    assert run.record("limit_reached")["t"] >= 3.2 + 2.5


def lingerer(more: str = "") -> tuple[str, ...]:
    """Says its last word, cut anywhere, and stays, with a child in a session of its own; then does what `more` says."""
    spoken = r"""printf '{"a":1}\n{"do'; sleep 0.05; printf 'ne":1}\n'"""
    return "/bin/sh", "-c", f"setsid sleep 60 >/dev/null 2>&1 & {spoken}; {more} while :; do sleep 1; done"


LINGER = {"done": ['{"done"'], "anew": ['{"anew"'], "seconds": 0.6}


def test_an_agent_that_lingers_after_its_last_word_is_ended_with_what_it_left(start: Start) -> None:
    run = start(lingerer(), linger=LINGER | {"seconds": 4.0}, stall=3.0, wall=60)  # the silence after a last word is no stall
    facts = run.wait()
    assert facts["stop_reason"] == "linger"
    assert run.kinds()[:3] == ["started", "left_behind", "stop_requested"]
    assert run.record("left_behind")["kept"] is False
    assert [left["command"] for left in facts["left_behind"]] == ["sleep 60"]
    assert 4.0 <= active(run, "stop_requested") < 8
    assert facts["survivors"] == 0
    assert run.marked() == []


def test_what_is_to_be_kept_lives_on_when_the_agent_lingered(start: Start) -> None:
    run = start(lingerer(), linger=LINGER, keep_background=True)
    facts = run.wait()
    assert (facts["stop_reason"], facts["signal"], facts["kept"], facts["survivors"]) == ("linger", "SIGKILL", True, 1)
    assert [left["pid"] for left in facts["left_behind"]] == run.marked()
    assert run.agent not in run.marked()


def test_output_after_the_last_word_starts_the_clock_anew(start: Start) -> None:
    run = start(lingerer("for n in 1 2 3 4 5 6 7 8; do echo more; sleep 0.2; done;"), linger=LINGER | {"seconds": 1.0})
    assert run.wait()["stop_reason"] == "linger"
    assert run.record("stop_requested")["t"] >= last_word(run) + 1.0


def test_an_agent_that_works_on_after_a_last_word_does_not_linger(start: Start) -> None:
    run = start(lingerer("""echo '{"anew":1}';"""), linger=LINGER, wall=2.0)
    assert run.wait()["stop_reason"] == "timeout"


def test_an_agent_without_a_last_word_does_not_linger(start: Start) -> None:
    said_inside = r"""
import os, time
os.write(1, b'a {"done":1} in the middle of a line\n'); os.write(2, b'{"done":1}\n')
while True: time.sleep(1)
"""
    assert start(said_inside, linger=LINGER, wall=1.5).wait()["stop_reason"] == "timeout"


def test_the_linger_clock_stands_still_while_paused(start: Start) -> None:
    run = start(lingerer(), linger=LINGER | {"seconds": 3.0})
    until(lambda: b'"done"' in run.read())
    run.ask(op="pause")
    watch(1.5)
    assert run.ask(op="status")["state"] == "paused"
    run.ask(op="resume")
    facts = run.wait()
    assert facts["stop_reason"] == "linger"
    assert facts["paused"] >= 1.5
    assert run.record("stop_requested")["t"] >= last_word(run) + facts["paused"] + 3.0


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 64])
def test_a_mark_is_found_wherever_blocks_are_cut(size: int) -> None:
    lines = [b'{"done":1}', b"between", b'x{"done":1}', b'{"anew":1}', b"", b'{"done', b'{"done"', b"after"]
    data, told = b"", False
    word, buffer = LastWord((b'{"done"',), (b'{"anew"',)), bytearray(64)
    for line in lines:
        data += line + b"\n"
        told = line.startswith(b'{"done"') or (told and not line.startswith(b'{"anew"'))
        for at in range(0, len(line) + 1, size):
            piece = (line + b"\n")[at : at + size]
            buffer[: len(piece)] = piece
            word.look(buffer, len(piece))
        assert word.said is told, data


def test_of_two_marks_where_blocks_meet_the_later_one_counts() -> None:
    word = LastWord((b"d",), (b"anew-and-longer",))
    for piece in (b"before it\n", b"d\nanew-and-longer\n"):
        word.look(bytearray(piece), len(piece))
    assert not word.said


@pytest.mark.row("faults", "laptop suspended, virtual machine frozen", "the gap is recorded, no limit is reached by it")
def test_a_shim_that_was_frozen_reports_it_and_ends_nothing(start: Start) -> None:
    run = start(SILENT, stall=4.0, wall=2.5)  # of two that are reached while nobody looks, the wall limit is the one that is told
    run.process.send_signal(signal.SIGSTOP)
    watch(4.5)
    run.process.send_signal(signal.SIGCONT)

    def frozen() -> list[float]:
        """By the stop above, and by whatever else the machine stood still."""
        return [record["seconds"] for record in run.records() if record["kind"] == "frozen"]

    until(lambda: max(frozen(), default=0) > 3.5)
    assert run.ask(op="status")["state"] == "running"
    assert run.ask(op="status")["active"] < 2.5
    facts = run.wait()
    assert facts["stop_reason"] == "timeout"
    assert abs(facts["frozen"] - sum(frozen())) < 0.01
    assert run.record("limit_reached")["t"] >= max(frozen()) + 2.5 - 0.001  # a gap is told in whole milliseconds


def test_a_run_without_limits_has_none(start: Start) -> None:
    begun = time.monotonic()
    run = start(SILENT)
    status = until(lambda: told if (told := run.ask(op="status"))["active"] > 0.6 else {})
    assert status["state"] == "running"
    assert status["active"] <= time.monotonic() - begun
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


def test_after_the_last_word_only_linger_and_wall_limit_count() -> None:
    limits = Limits(100.0, 10.0, 20.0)
    limits.spoke(5.0, is_done=True)
    assert limits.next(5.0) == 25.0
    assert limits.reached(24.9, lambda: False) is None
    assert limits.reached(25.0, lambda: True) == ("linger", 20.0, "linger")
    limits.spoke(30.0, is_done=False)
    limits.sign(30.0)
    assert limits.reached(39.9, lambda: False) is None
    assert limits.reached(40.0, lambda: False) == ("stall", 10.0, "stalled")
    limits.spoke(90.0, is_done=True)
    assert limits.next(90.0) == 100.0
    assert limits.reached(100.0, lambda: False) == ("wall", 100.0, "timeout")
