"""The agent ends by itself: its last output is taken, and what it leaves is listed and ended, or kept."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.shims import SHIM, UNHURRIED, Run, alive, until

Start = Callable[..., Run]

HOLDER = r"""
import os, time
if os.fork() == 0:
    os.setsid()
    time.sleep(100)
os.write(1, b"the end\n")
os._exit(4)
"""
DAEMON = r"""
import os, signal, time

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in (0, 1, 2): os.close(fd)
        if DEAF: signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with open(os.environ["FOLDER"] + "/born", "w") as file: file.write(str(os.getpid()))
        os.rename(file.name, os.environ["FOLDER"] + "/daemon")
        while True: time.sleep(1)
    os._exit(0)
os.wait()
while not os.path.exists(os.environ["FOLDER"] + "/daemon"): time.sleep(0.005)
os.write(1, b"done\n")
"""


@pytest.mark.row("faults", "grandchild keeps stdout open", "the run ends within a second of its agent")
def test_a_grandchild_that_holds_the_pipe_delays_the_end_by_a_second_at_most(start: Start) -> None:
    run = start(HOLDER)
    until(lambda: not alive(run.agent))
    begun = time.monotonic()
    facts = run.wait()
    assert time.monotonic() - begun < 3.0
    assert (facts["code"], facts["stop_reason"]) == (4, None)
    assert run.read() == b"the end\n"
    assert len(facts["left_behind"]) == 1
    assert run.marked() == []


def test_what_is_left_behind_is_listed_and_ended(start: Start, tmp_path: Path) -> None:
    run = start(DAEMON.replace("DEAF", "False"), program=UNHURRIED)
    facts = run.wait()
    pid = int((tmp_path / "daemon").read_text())
    assert [item["pid"] for item in facts["left_behind"]] == [pid]
    assert "-c" in facts["left_behind"][0]["command"]
    assert len(facts["left_behind"][0]["command"]) <= 200
    assert (facts["kept"], facts["survivors"], facts["code"]) == (False, 0, 0)
    assert not alive(pid)
    assert run.kinds() == ["started", "left_behind", "signalled", "exited"]
    assert run.record("left_behind")["processes"] == facts["left_behind"]


@pytest.mark.row("faults", "agent ends and leaves a daemon", "listed and ended")
def test_what_is_left_behind_and_deaf_is_killed(start: Start, tmp_path: Path) -> None:
    run = start(DAEMON.replace("DEAF", "True"))
    run.wait()
    assert not alive(int((tmp_path / "daemon").read_text()))
    assert [record.get("signal") for record in run.records() if record["kind"] == "signalled"] == ["SIGTERM", "SIGKILL"]


@pytest.mark.row("faults", "agent ends and leaves a daemon that is to be kept", "kept and listed")
def test_what_is_to_be_kept_lives_on(start: Start, tmp_path: Path) -> None:
    run = start(DAEMON.replace("DEAF", "False"), keep_background=True)
    facts = run.wait()
    pid = int((tmp_path / "daemon").read_text())
    try:
        assert alive(pid)
        assert (facts["kept"], facts["survivors"]) == (True, 1)
        assert [item["pid"] for item in facts["left_behind"]] == [pid]
        assert run.kinds() == ["started", "left_behind", "exited"]
        assert run.record("exited")["survivors"] == 1
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_cancel_ends_what_would_have_been_kept(start: Start, tmp_path: Path) -> None:
    run = start(DAEMON.replace("DEAF", "False") + "\ntime.sleep(60)", keep_background=True)
    until(lambda: run.read() == b"done\n")
    run.ask(op="cancel")
    facts = run.wait()
    assert (facts["kept"], facts["survivors"], facts["left_behind"]) == (False, 0, [])
    assert not alive(int((tmp_path / "daemon").read_text()))


# A shim with more patience than a busy machine needs to let a helper end.
PATIENT = f"""
import sys
sys.path.append({str(SHIM.parents[2])!r})
from cc_executor.shim import loop, start
loop.SETTLE = loop.LAST_DRAIN = 20.0
start.main()
"""


def test_helpers_that_end_with_their_agent_are_not_called_leftovers(start: Start) -> None:
    run = start(("/bin/sh", "-c", "(sleep 0.03) >/dev/null 2>&1 & echo done"), program=("-c", PATIENT))
    facts = run.wait()
    assert facts["left_behind"] == []
    assert run.kinds() == ["started", "exited"]


@pytest.mark.row(
    "faults", "cancel after the agent has ended, what it left is to be kept", "ended all the same, at once if that was asked for"
)
def test_a_cancel_after_the_agent_s_end_ends_what_would_have_been_kept(start: Start, tmp_path: Path) -> None:
    run = start(DAEMON.replace("DEAF", "True"), keep_background=True, program=("-c", PATIENT))
    until(lambda: run.ask(op="status")["state"] == "stopping")
    run.ask(op="cancel", now=True)
    facts = run.wait(10)
    assert not alive(int((tmp_path / "daemon").read_text()))
    assert (facts["kept"], facts["survivors"], facts["code"]) == (False, 0, 0)
    assert [record["signal"] for record in run.records() if record["kind"] == "signalled"] == ["SIGKILL"]


def test_what_is_to_be_kept_may_hold_the_output_and_nothing_of_it_is_lost(start: Start) -> None:
    run = start(HOLDER.replace(r"the end\n", "the end sk-ant-"), keep_background=True, secrets=["sk-ant-canary-0123456789"])
    (left,) = run.wait()["left_behind"]
    os.kill(left["pid"], signal.SIGKILL)
    assert run.read() == b"the end sk-ant-"


def test_a_helper_that_reads_standard_input_is_told_of_the_end(start: Start) -> None:
    code = "import os\nif os.fork() == 0:\n    os.close(1), os.close(2)\n    while os.read(0, 100): pass\n    os._exit(0)\nos._exit(0)"
    run = start(code, stdin="open", program=("-c", PATIENT))
    assert run.wait()["left_behind"] == []


def test_what_a_helper_writes_soon_after_its_agent_is_kept(start: Start) -> None:
    # Later than a helper is waited for: what it writes comes when its agent is long gone.
    code = "import os, time\nif os.fork() == 0:\n    time.sleep(0.3)\n    os.write(1, b'late')\n    os._exit(0)\nos._exit(0)"
    run = start(code, program=("-c", PATIENT.replace("loop.SETTLE = ", "")))
    run.wait()  # it may be seen once more, on its way out: its output ends before it does
    assert run.read() == b"late"


def test_orphans_are_waited_for(start: Start) -> None:
    code = """
import os, time
for _ in range(20):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.wait()
os.write(1, b"done")
time.sleep(60)
"""
    run = start(code)
    until(lambda: run.read() == b"done")

    def children() -> list[str]:
        found: list[str] = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # somebody's process that has just ended
                state, parent, *_ = path.read_text().rpartition(")")[2].split()
                found += [state] if parent == str(run.process.pid) else []
        return found

    until(lambda: children() == ["S"])
    run.ask(op="cancel", now=True)
    run.wait()


def test_the_exit_facts_add_up(start: Start) -> None:
    run = start("import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\nbytearray(50 * 2**20)")
    facts = run.wait()
    assert 0.3 <= facts["cpu"] < 5
    assert 50 * 2**20 <= facts["max_rss"] < 2**30
    assert abs(facts["ended_at"] - facts["started_at"] - facts["elapsed"]) < 1.0
    assert facts["run_id"] == run.run_id
    assert facts["host"] == os.uname().nodename
