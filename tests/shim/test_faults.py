"""Faults inside the shim itself: never an agent without an owner."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import cc_executor.shim.records as fmt
from support.agents import STUBBORN
from support.shims import SHIM, UNHURRIED, Run, alive, memory, until

Start = Callable[..., Run]

# A shim with a fault: what it names raises from the moment at which the agent has written "fault".
FAULTY = """
import os, sys
sys.path.append({source!r})
from cc_executor.shim import journal, ledger, loop, start
def broken(*args, **options):
    raise RuntimeError("a fault for the test")
original = journal.Journal.drain
def drain(self, stream):
    size = original(self, stream)
    if os.path.exists({sign!r}):
        setattr({owner}, {name!r}, broken)
    return size
journal.Journal.drain = drain
start.main()
"""
FAULTS = [
    ("loop.Shim", "_step"), ("journal.Journal", "drain"), ("loop.Limits", "next"), ("loop.Poller", "wait"), ("loop.Door", "tell"), ("loop.Tree", "count"),
]  # fmt: skip
NOISY = STUBBORN.replace("deaf()\nif", 'deaf()\nsign = os.environ["FOLDER"] + "/sign"\nif', 1).replace(
    "\nlive()\n",
    '\nwhile len(os.listdir(os.environ["FOLDER"])) < 4: time.sleep(0.01)\nopen(sign, "w").close()\nwhile True: os.write(1, b"x"); time.sleep(0.05)\n',
)


@pytest.mark.row("faults", "fault inside the supervisor", "the tree is ended, and it is told")
@pytest.mark.parametrize(("owner", "name"), FAULTS)
def test_a_fault_in_the_shim_ends_the_tree_and_is_told(start: Start, tmp_path: Path, owner: str, name: str) -> None:
    code = FAULTY.format(source=str(SHIM.parents[2]), sign=str(tmp_path / "sign"), owner=owner, name=name)
    run = start(NOISY, program=("-c", code), stall=50.0)
    if name == "count":
        until((tmp_path / "sign").exists)
        until(lambda: run.process.poll() is not None or not run.try_ask(op="status"))
    facts = run.wait()
    assert run.marked() == []
    assert not alive(run.agent)
    assert (facts["signal"], facts["stop_reason"], facts["survivors"]) == ("SIGKILL", "shim_error", 0)
    assert run.kinds()[-1] == "exited"
    assert b"a fault for the test" in run.read(fmt.LOG)


@pytest.mark.row("faults", "the run's folder is removed", "the tree can be ended all the same")
def test_a_folder_that_is_removed_during_a_run_does_not_keep_the_tree_alive(start: Start, tmp_path: Path) -> None:
    run = start(("/bin/sleep", "60"))
    away = tmp_path / "away"
    run.folder.rename(away)
    for path in away.iterdir():
        path.unlink()
    away.rmdir()
    run.process.terminate()
    run.process.wait(10)
    assert not alive(run.agent)


# A shim whose wall clock is somewhere else: as many seconds off as the sign says.
JUMPING = """
import os, sys, time
sys.path.append({source!r})
real = time.time
time.time = lambda: real() + (float(open({sign!r}).read() or 0) if os.path.exists({sign!r}) else 0)
from cc_executor.shim import start
start.main()
"""
MONTH = 30 * 86400.0


@pytest.mark.row("faults", "wall clock set 30 days on, then 60 back", "order, durations and limits are right")
def test_a_wall_clock_that_jumps_changes_what_is_shown_and_nothing_else(start: Start, tmp_path: Path) -> None:
    sign = tmp_path / "sign"
    code = JUMPING.format(source=str(SHIM.parents[2]), sign=str(sign))
    run = start(("/bin/sleep", "60"), program=("-c", code), wall=5.0, stall=55.0)  # far longer, and far shorter than a jump
    for jump in (MONTH, -MONTH):
        sign.write_text(str(jump))
        assert run.ask(op="pause")["ok"]
        assert run.ask(op="resume")["ok"]
    facts = run.wait()
    assert facts["stop_reason"] == "timeout"
    assert 5.0 <= facts["active"] <= facts["elapsed"] - facts["frozen"] < 20
    assert facts["ended_at"] < facts["started_at"] - MONTH / 2
    records = run.records()
    assert [record["seq"] for record in records] == list(range(len(records)))
    assert [record["t"] for record in records] == sorted(record["t"] for record in records)
    assert max(record["at"] for record in records) - min(record["at"] for record in records) > 1.9 * MONTH


@pytest.mark.row("faults", "agent stopped by somebody else for ever", "stalled: continued, told to end, and ended")
def test_an_agent_that_somebody_stops_for_ever_has_stalled(start: Start) -> None:
    # It stops itself: anybody else might come when it has stalled already, without having been stopped.
    run = start(("/bin/sh", "-c", "kill -STOP $$; exit 7"), stall=1.0, program=UNHURRIED)
    facts = run.wait()
    assert facts["stop_reason"] == "stalled"
    assert not alive(run.agent)
    assert [record["signal"] for record in run.records() if record["kind"] == "signalled"] == ["SIGINT"]  # it was let go on, and took it


HUGE = 100 * 2**20
ONE_LINE = f"""
import os, time
block = b"x" * 2**20
for _ in range({HUGE} // 2**20):
    left = block
    while left: left = left[os.write(1, left):]
os.write(1, b"\\nthe last line\\n")
os.write(2, b"done")
time.sleep(60)
"""


@pytest.mark.row("faults", "a line of 100 MB", "the supervisor's memory is bounded, every byte and the last line are kept")
def test_a_line_of_any_length_costs_no_memory(start: Start, saw: Callable[[str], None]) -> None:
    run = start(ONE_LINE)
    until(lambda: run.read(fmt.STDERR) == b"done", 60)
    peak = memory(run.process.pid)
    saw(f"{peak:.0f} MB at most")
    assert peak < 40
    run.ask(op="cancel", now=True)
    facts = run.wait()
    assert facts["written"]["stdout"] == HUGE + len("\nthe last line\n")
    with (run.folder / fmt.STDOUT).open("rb") as file:
        file.seek(HUGE)
        assert file.read() == b"\nthe last line\n"


@pytest.mark.row("faults", "the same run started by many at once", "started once")
def test_of_many_who_start_the_same_run_at_once_one_does(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir(mode=0o700)
    with ThreadPoolExecutor(8) as many:
        agent = ("/bin/sh", "-c", f"echo $$ >> {tmp_path}/born; exec sleep 60")
        runs = list(many.map(lambda _: start(agent, folder=folder), range(8)))
    (one,) = [run for run in runs if run.answer["ok"]]
    until(lambda: (tmp_path / "born").exists() and (tmp_path / "born").read_text().endswith("\n"))
    assert all("started before" in run.answer["error"] or "another shim" in run.answer["error"] for run in runs if run is not one)
    one.ask(op="cancel", now=True)
    one.wait()
    assert (tmp_path / "born").read_text().split() == [str(one.agent)]
    assert one.kinds().count("started") == 1
