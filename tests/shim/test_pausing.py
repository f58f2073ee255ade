"""A pause holds the whole tree, and no clock runs meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import cc_executor.shim.records as fmt
from support.agents import HOPPERS, TICKER
from support.shims import LONG_GRACES, UNHURRIED, Client, Run, changed, state, until, watch

Start = Callable[..., Run]


def ticks(tmp_path: Path) -> int:
    path = tmp_path / "ticks"
    return path.stat().st_size if path.exists() else 0


def test_not_one_tick_while_paused_and_then_it_goes_on(start: Start, tmp_path: Path) -> None:
    run = start(TICKER)
    until(lambda: ticks(tmp_path) > 5 and len(run.read()) > 5)
    reply = run.ask(op="pause", by="test")
    assert reply["ok"]
    assert reply["state"] == "paused"
    assert reply["processes"] == 2
    until(lambda: run.ask(op="status")["written"]["stdout"] == len(run.read()))  # what was in the pipe has arrived
    before = (ticks(tmp_path), len(run.read()))
    watch(0.5)
    assert (ticks(tmp_path), len(run.read())) == before
    for pid in run.marked():
        assert state(pid) == "T"
    assert run.ask(op="pause")["state"] == "paused"
    reply = run.ask(op="resume", by="test")
    assert reply["state"] == "running"
    assert reply["paused"] >= 0.5
    assert run.ask(op="resume")["ok"]
    until(lambda: ticks(tmp_path) > before[0] + 5 and len(run.read()) > before[1] + 5)
    run.ask(op="cancel")
    facts = run.wait()
    assert run.kinds()[:3] == ["started", "paused", "resumed"]
    assert run.record("paused")["processes"] == 2
    assert run.record("paused")["by"] == run.record("resumed")["by"] == "test"
    assert 0.5 <= run.record("resumed")["paused"] <= facts["paused"] + 0.001
    assert abs(facts["elapsed"] - facts["paused"] - facts["frozen"] - facts["active"]) < 0.01


def test_a_command_that_comes_late_or_twice_changes_nothing(start: Start, tmp_path: Path) -> None:
    run = start(TICKER)
    until(lambda: ticks(tmp_path) > 2)
    assert run.ask(op="pause", pauses=0)["state"] == "paused"
    assert run.ask(op="pause", pauses=0)["state"] == "paused"
    assert run.ask(op="resume", pauses=0)["state"] == "paused", "asked for before that pause"
    assert run.ask(op="resume", pauses=1)["state"] == "running"
    assert run.ask(op="pause", pauses=0)["state"] == "running", "the first one again, as a busy kernel hands it on"
    assert run.ask(op="pause", pauses=1)["state"] == "paused"
    assert run.ask(op="resume", pauses=1)["state"] == "paused", "it would undo a later pause"
    for odd in ("2", 2.0, True, None, -1):
        assert run.ask(op="status")["state"] == "paused", odd
        run.ask(op="pause", pauses=odd)
    assert run.ask(op="resume")["state"] == "running", "who names no pause means the one that there is"
    run.ask(op="cancel")
    run.wait()
    assert [kind for kind in run.kinds() if kind in {"paused", "resumed"}] == ["paused", "resumed", "paused", "resumed"]


def test_a_tree_that_hops_from_process_to_process_stands_still(start: Start) -> None:
    run = start(HOPPERS)
    until(lambda: run.read() == b"hopping\n")
    assert run.ask(op="pause")["state"] == "paused"
    before = sorted(run.marked())
    watch(0.3)
    assert sorted(run.marked()) == before
    assert {state(pid) for pid in before} == {"T"}
    run.ask(op="cancel")
    run.wait()
    assert run.marked() == []


@pytest.mark.row("faults", "somebody else continues a paused process", "it stands again")
def test_what_somebody_else_continues_is_stopped_again(start: Start, tmp_path: Path) -> None:
    run = start(TICKER)
    until(lambda: ticks(tmp_path) > 5)
    run.ask(op="pause")
    os.kill(run.agent, signal.SIGCONT)
    until(lambda: state(run.agent) == "T")
    assert run.ask(op="status")["state"] == "paused"
    run.ask(op="cancel", now=True)
    run.wait()


def test_an_agent_that_is_paused_can_be_cancelled(start: Start, tmp_path: Path) -> None:
    run = start(TICKER, program=UNHURRIED)
    until(lambda: ticks(tmp_path) > 5)
    run.ask(op="pause")
    run.ask(op="cancel", by="test")
    facts = run.wait(3)
    assert facts["signal"] == "SIGINT"
    assert run.kinds() == ["started", "paused", "resumed", "stop_requested", "signalled", "signalled", "exited"]
    assert run.marked() == []


@pytest.mark.row("faults", "agent killed while paused", "the run ends, its tools with it")
def test_an_agent_that_is_killed_while_paused_has_ended(start: Start, tmp_path: Path) -> None:
    run = start(TICKER)
    until(lambda: ticks(tmp_path) > 5)
    run.ask(op="pause")
    os.kill(run.agent, signal.SIGKILL)
    facts = run.wait()
    assert facts["signal"] == "SIGKILL"
    assert facts["stop_reason"] is None
    assert len(facts["left_behind"]) == 1
    assert run.kinds()[:4] == ["started", "paused", "resumed", "left_behind"]
    assert run.marked() == []


def test_what_is_to_be_kept_does_not_stand_still_for_ever(start: Start, tmp_path: Path) -> None:
    run = start(TICKER, keep_background=True)
    until(lambda: ticks(tmp_path) > 5)
    run.ask(op="pause")
    os.kill(run.agent, signal.SIGKILL)
    (left,) = run.wait()["left_behind"]
    before = ticks(tmp_path)
    try:
        until(lambda: ticks(tmp_path) > before + 5)
    finally:
        os.kill(left["pid"], signal.SIGKILL)


def never_stands(patience: float) -> tuple[str, str]:
    """A shim whose tree never stands, as one in which somebody else's process (sudo) goes on."""
    patched = ("loop.Tree.stop = lambda self: (False, 1)", f"loop.STAND_STILL_PATIENCE = {patience}")
    return changed(*LONG_GRACES, "from cc_executor.shim import loop", *patched)


def test_a_pause_of_what_never_stands_is_answered_all_the_same(start: Start) -> None:
    run = start(("/bin/sleep", "60"), program=never_stands(0.3))
    assert run.ask(op="pause")["state"] == "paused"
    run.ask(op="cancel", now=True)
    run.wait()


def test_who_waits_for_a_pause_is_told_when_the_run_goes_on_instead(start: Start) -> None:
    run = start(("/bin/sleep", "60"), program=never_stands(60.0))
    for op in ("resume", "cancel"):
        client = Client(run.folder)
        before = run.ask(op="status")["paused"]
        client.send(op="pause")
        until(lambda before=before: run.ask(op="status")["paused"] > before)
        assert run.ask(op=op)["ok"]
        reply = client.receive()
        assert reply is not None
        assert "went on before it stood" in reply["error"]
        client.close()
    run.wait()
    assert run.kinds() == ["started", "stop_requested", "signalled", "exited"]


def test_a_client_that_leaves_while_its_pause_is_carried_out_changes_nothing(start: Start, tmp_path: Path) -> None:
    run = start(TICKER)
    until(lambda: ticks(tmp_path) > 5)
    client = Client(run.folder)
    client.send(op="pause")
    client.close()
    until(lambda: run.ask(op="status")["state"] == "paused")
    run.ask(op="resume")
    run.ask(op="cancel", now=True)
    run.wait()
    assert run.read(fmt.LOG) == b""
