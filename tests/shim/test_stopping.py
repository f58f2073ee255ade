"""A stop ends everything, in at most three seconds, and politely where that works."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cc_executor.shim.records as fmt
from support.agents import HOPPERS, POLITE, STUBBORN
from support.shims import UNHURRIED, Run, alive, state, until

Start = Callable[..., Run]

PROMISE = 3.0


# Writes numbered lines, as fast as they are taken.
COUNTING = r"""
number = 0
while True:
    left = b"".join(b"line %07d\n" % each for each in range(number, number + 500))
    number += 500
    while left: left = left[os.write(1, left):]
"""


def pid(born: Path) -> int:
    return int(born.name.removeprefix("born-"))


def signals(run: Run) -> list[str]:
    return [record["signal"] for record in run.records() if record["kind"] == "signalled"]


def test_a_polite_agent_has_its_last_word(start: Start) -> None:
    run = start(POLITE, stdin="open", program=UNHURRIED)
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
@pytest.mark.parametrize("is_paused", [False, True], ids=["at work", "paused"])
def test_a_tree_that_is_deaf_and_scattered_is_gone_in_three_seconds(start: Start, tmp_path: Path, is_paused: bool) -> None:
    run = start(STUBBORN)
    born = until(lambda: found if len(found := sorted(tmp_path.glob("born-*"))) == 4 else [])
    assert len(born) == 4
    if is_paused:
        assert run.ask(op="pause")["state"] == "paused"
        assert {state(pid(path)) for path in born} == {"T"}
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
    run = start(STUBBORN, program=UNHURRIED)
    until(lambda: len(list(tmp_path.glob("born-*"))) == 4)
    run.ask(op="cancel")
    assert run.ask(op="cancel")["state"] == "stopping"
    assert run.ask(op="pause")["ok"] is False
    assert run.ask(op="resume")["ok"] is False
    begun = time.monotonic()
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
    run = start(POLITE, program=UNHURRIED)
    until(lambda: run.read() == b"ready\n")
    os.kill(run.agent, signal.SIGSTOP)
    until(lambda: state(run.agent) == "T")
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
    run = start(code, program=UNHURRIED)
    until(lambda: run.read() == b"ready")
    run.ask(op="cancel")
    until(lambda: len(run.read()) == 300_005)
    assert run.ask(op="status")["state"] == "stopping"
    os.kill(run.agent, signal.SIGTERM)  # as the ladder does, when the status has been asked for
    run.wait(PROMISE)
    assert len(run.read(fmt.STDERR)) == 300_000
    assert signals(run) == ["SIGINT"]


@pytest.mark.row("faults", "supervisor told to end (SIGTERM, SIGHUP, SIGINT)", "the run ends in order")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_the_shim_is_a_cancel(start: Start, number: signal.Signals) -> None:
    run = start(POLITE, program=UNHURRIED)
    until(lambda: run.read() == b"ready\n")
    run.process.send_signal(number)
    facts = run.wait(PROMISE)
    assert (facts["code"], facts["stop_reason"]) == (3, "terminated")
    assert run.record("stop_requested")["by"] == number.name


@pytest.mark.row("faults", "supervisor killed", "the agent dies at once, no exit facts, the journal is whole to its last line")
@pytest.mark.parametrize("is_paused", [False, True], ids=["at work", "paused"])
def test_when_the_shim_is_killed_the_agent_dies_at_once(start: Start, tmp_path: Path, is_paused: bool) -> None:
    run = start(STUBBORN.removesuffix("live()\n") + COUNTING)
    born = until(lambda: found if len(found := sorted(tmp_path.glob("born-*"))) == 3 else [])
    until(lambda: len(run.read()) > 2**20)
    if is_paused:
        assert run.ask(op="pause")["state"] == "paused"
    run.process.kill()
    run.process.wait(10)
    until(lambda: not alive(run.agent), 5)
    assert not (run.folder / fmt.EXIT).exists()
    assert run.kinds() == ["started", "paused"][: 1 + is_paused]
    lines = run.read().splitlines(keepends=True)
    whole = lines if lines[-1].endswith(b"\n") else lines[:-1]
    assert whole == [b"line %07d\n" % number for number in range(len(whole))]
    for path in born:  # the others live on until somebody seals the run; the one without a mark is ours to end
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid(path), signal.SIGKILL)


FORK_BOMB = """
import os, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
depth = 0
while depth < 7:
    try:
        if os.fork() == 0:
            os.setsid()
    except BlockingIOError:  # there may be no more of them
        open(os.environ["FOLDER"] + "/full", "w").close()
    depth += 1
while True:
    try:
        if os.fork() == 0:
            os._exit(0)
        os.wait()
    except BlockingIOError:
        pass
"""


@pytest.mark.row("faults", "fork bomb", "ended")
def test_a_fork_bomb_is_ended(start: Start) -> None:
    run = start(FORK_BOMB)
    until(lambda: run.ask(op="status")["processes"] >= 60)
    run.ask(op="cancel", now=True)
    facts = run.wait(PROMISE + 2)
    assert facts["survivors"] == 0
    assert run.marked() == []


@pytest.fixture
def few_processes() -> Iterator[Path | None]:
    """A control group with room for 40 processes; None where we may not make one."""
    unified, legacy = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/pids")
    folder = (legacy if legacy.is_dir() else unified) / f"cc-executor-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "pids.max").write_text("40")
    except OSError:
        with contextlib.suppress(OSError):
            folder.rmdir()
        yield None
        return
    yield folder
    until(lambda: not (folder / "cgroup.procs").read_text())
    folder.rmdir()


@pytest.mark.row("faults", "fork bomb that has taken every process that there may be (pids.max)", "the supervisor answers, and ends it")
def test_a_fork_bomb_that_leaves_no_room_for_a_process_is_ended(
    start: Start, tmp_path: Path, few_processes: Path | None, saw: Callable[[str], None]
) -> None:
    if few_processes is not None:
        run = start(FORK_BOMB, prefix=("/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(few_processes / "cgroup.procs")))
        until((tmp_path / "full").exists)
        saw("a real control group of 40 processes")
    else:
        run = start(FORK_BOMB)
        until(lambda: run.ask(op="status")["processes"] >= 60)
        saw("without a limit, for nobody may make one here")
    assert run.ask(op="status")["state"] == "running"
    assert run.ask(op="pause")["state"] == "paused"
    run.ask(op="cancel")
    facts = run.wait(PROMISE + 2)
    assert (facts["signal"], facts["survivors"]) == ("SIGKILL", 0)
    assert run.marked() == []
