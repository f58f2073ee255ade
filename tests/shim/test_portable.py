"""A shim on a system with POSIX alone: no prctl, no process descriptors, no fallocate, no pipe sizes, and `ps` for /proc."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import cc_executor.shim.records as fmt
from cc_executor.shim.tree import command_of
from support.agents import POLITE, TICKER
from support.shims import SHIM, Run, alive, state, until, watch

Start = Callable[..., Run]

POSIX_ONLY = f"""
import fcntl, os, sys
sys.path.append({str(SHIM.parents[2])!r})
for owner, name in ((os, "pidfd_open"), (os, "posix_fallocate"), (os, "fdatasync"), (fcntl, "F_SETPIPE_SZ")):
    delattr(owner, name)
import _socket
del _socket.SO_PEERCRED
from cc_executor.shim import ladder, native, tree
for rung in (*ladder.STOP[1:], *ladder.SWEEP): rung.grace = 60.0  # `ps` takes its time
native._prctl = native._fallocate = None
tree.HAS_PROC = False
from cc_executor.shim.start import main
main()
"""
PROGRAM = ("-c", POSIX_ONLY)


def test_output_limits_and_records_are_the_same(start: Start) -> None:
    run = start(("/bin/sh", "-c", "echo one; printf two >&2; exec sleep 60"), program=PROGRAM, wall=3.0)
    facts = run.wait()
    assert run.read() == b"one\n"
    assert run.read(fmt.STDERR) == b"two"
    assert facts["stop_reason"] == "timeout"
    assert run.kinds() == ["started", "limit_reached", "stop_requested", "signalled", "exited"]
    assert run.read(fmt.LOG) == b"no subreaper: descendants that leave the tree cannot be found\n"


def test_a_tree_that_stays_a_tree_is_paused_and_ended(start: Start, tmp_path: Path) -> None:
    run = start(TICKER, program=PROGRAM)
    until((tmp_path / "ticks").exists)
    assert run.ask(op="pause")["state"] == "paused"
    members = run.marked()
    assert {state(pid) for pid in members} == {"T"}
    before = (tmp_path / "ticks").stat().st_size
    watch(0.3)
    assert (tmp_path / "ticks").stat().st_size == before
    run.ask(op="resume")
    until(lambda: (tmp_path / "ticks").stat().st_size > before)
    run.ask(op="cancel")
    assert run.wait()["survivors"] == 0
    assert not any(alive(pid) for pid in members)


def test_the_lease_is_looked_at(start: Start) -> None:
    with subprocess.Popen(("/bin/sleep", "100")) as kernel:
        run = start(POLITE, program=PROGRAM, lease_pid=kernel.pid)
        until(lambda: run.read() == b"ready\n")
        kernel.kill()
    assert run.wait()["stop_reason"] == "kernel_exit"


def test_leftovers_that_were_seen_are_listed_and_ended(start: Start) -> None:
    run = start(("/bin/sh", "-c", "setsid sleep 61 >/dev/null 2>&1 & read line"), stdin="open", program=PROGRAM)
    until(lambda: run.ask(op="status")["processes"] == 2)
    until(lambda: "sleep 61" in map(command_of, run.marked()))  # `exec` takes a moment
    run.ask(op="stdin", data="end\n")
    facts = run.wait()
    assert [item["command"] for item in facts["left_behind"]] == ["sleep 61"]
    assert run.marked() == []
