"""Faults inside the shim itself, and many at once: never an agent without an owner, never an account that does not add up."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import cc_executor.shim.records as fmt
from support.agents import STUBBORN
from support.shims import SHIM, Run, alive, until

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


NEMESIS = r"""
import os, random, signal, sys, time
choose = random.Random(int(os.environ["SEED"]))
if choose.random() < 0.3: signal.signal(signal.SIGINT, signal.SIG_IGN)
if choose.random() < 0.3: signal.signal(signal.SIGTERM, signal.SIG_IGN)
end = time.monotonic() + choose.random() * 2
while time.monotonic() < end:
    os.write(choose.choice((1, 1, 2)), bytes(choose.randrange(1, 70000)))
    if choose.random() < 0.05 and os.fork() == 0:
        if choose.random() < 0.7: os.setsid()
        if choose.random() < 0.5: os.close(1); os.close(2)
        end = time.monotonic() + choose.random()
        time.sleep(choose.random() * 2)
        os._exit(0)
    time.sleep(choose.random() * 0.01)
os._exit(choose.randrange(3))
"""


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_the_account_adds_up(start: Start, seed: int) -> None:
    choose = random.Random(seed)  # noqa: S311  # a seed, so that a failure can be repeated
    run = start(NEMESIS, env={"SEED": str(seed), "PATH": os.defpath}, wall=choose.choice((None, 1.0)), secrets=["never-written-0"])
    end = time.monotonic() + 20
    while run.process.poll() is None:
        assert time.monotonic() < end
        match choose.randrange(12):
            case 0 | 1:
                run.try_ask(op="pause")
            case 2 | 3 | 4:
                run.try_ask(op="resume")
            case 5 | 6:
                run.try_ask(op="status")
            case 7 if choose.random() < 0.1:
                run.try_ask(op="cancel", now=choose.random() < 0.5)
            case 8 if choose.random() < 0.03:
                run.process.kill()
            case 9 if choose.random() < 0.05 and alive(run.agent):
                os.kill(run.agent, signal.SIGKILL)
            case _:
                run.try_ask(op="resume")
    records = run.records()
    assert [record["seq"] for record in records] == list(range(len(records)))
    if run.process.returncode and "exited" not in run.kinds():  # killed: no last words, and no living agent
        until(lambda: not alive(run.agent), 2)
        return
    facts = run.wait()
    assert run.kinds()[-1] == "exited"
    assert run.kinds().count("exited") == 1
    assert facts["records"] == len(records)
    assert facts["written"] == {"stdout": len(run.read()), "stderr": len(run.read(fmt.STDERR))}
    assert (facts["code"] is None) != (facts["signal"] is None)
    assert run.kinds().count("paused") == run.kinds().count("resumed")
    assert abs(facts["elapsed"] - facts["active"] - facts["paused"] - facts["frozen"]) < 0.001
    assert run.marked() == []
    assert run.read(fmt.LOG) == b""
