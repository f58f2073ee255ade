"""An agent that is started before there is a run for it: it takes one run, or it is ended. Real shims, Linux only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import cc_executor.shim.records as fmt
from support.shims import PYTHON, SHIM, alive, changed, marked, until

# It says at once what it is, hears what it is to do, and ends when nothing more comes.
WAITER: Final = """
import os, subprocess, sys
subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True)
print("waiting", flush=True)
for line in sys.stdin:
    print("done", line.strip(), flush=True)
os.system("pkill -P %d" % os.getpid())
"""
DEAF: Final = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("waiting", flush=True)
while True:
    time.sleep(100)  # it is an agent that nothing but SIGKILL ends
"""


class Holder:
    """A shim that holds an agent, spoken to as a launcher does."""

    def __init__(self, folder: Path, agent: str, *, program: tuple[str, ...] = (str(SHIM),), **fields: object) -> None:
        self.mark = f"spare-{os.getpid()}-{folder.name}"
        self.spec: dict[str, Any] = {
            "version": fmt.FORMAT_VERSION,
            "run_dir": "/",
            "run_id": self.mark,
            "argv": [*PYTHON, agent],
            "env": {"PATH": os.environ["PATH"], fmt.RUN_MARK: self.mark},
            "cwd": str(folder),
            "stdin": "talk",
            "wall": None,
            "stall": None,
            "lease_pid": os.getpid(),
            "on_lease_end": "cancel",
            "secrets": [],
            "keep_background": False,
            fmt.SPEC_LINGER: {"done": ["done"], "anew": [], "seconds": 60},
            fmt.SPEC_TALK: {"asked": ["?"], "withdrawn": ["!"]},
        }
        self.run_dir = folder / "run"
        self.run_dir.mkdir(mode=0o700)
        (self.run_dir / fmt.PROMPT).write_text("this\n")
        self.shim = subprocess.Popen([sys.executable, "-I", "-S", *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.answer = self.say(**{fmt.SPEC_HOLD: 60.0} | fields)

    def say(self, **fields: object) -> dict[str, Any]:
        """One line of spec, and the answer."""
        assert self.shim.stdin is not None
        assert self.shim.stdout is not None
        self.shim.stdin.write(json.dumps(self.spec | fields).encode() + b"\n")
        return json.loads(self.shim.stdout.readline() or b"{}")

    def run(self, **fields: object) -> dict[str, Any]:
        """Give it its run."""
        return self.say(**{"run_dir": str(self.run_dir), "run_id": "the-run"} | fields)

    def is_gone(self) -> bool:
        """Whether neither the shim nor any process of the agent is left."""
        return self.shim.poll() is not None and not marked(self.mark)

    def exit(self) -> dict[str, Any]:
        """How the run ended."""
        until((self.run_dir / fmt.EXIT).exists)
        return json.loads((self.run_dir / fmt.EXIT).read_bytes())


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Callable[..., Holder]]:
    held: list[Holder] = []

    def start(agent: str = WAITER, *, program: tuple[str, ...] = (str(SHIM),), **fields: object) -> Holder:
        folder = tmp_path / str(len(held))
        folder.mkdir()
        held.append(Holder(folder, agent, program=program, **fields))
        return held[-1]

    yield start
    for each in held:
        for pipe in (each.shim.stdin, each.shim.stdout):
            assert pipe is not None
            pipe.close()
        each.shim.terminate()
        each.shim.wait(40)
        until(each.is_gone)


Hold = Callable[..., Holder]


def test_an_agent_that_waits_takes_one_run_with_all_that_it_has_said(hold: Hold) -> None:
    held = hold()
    agent = held.answer["agent_pid"]
    until(lambda: len(marked(held.mark)) == 2)
    assert os.listdir(held.run_dir) == [fmt.PROMPT], "there is no run yet"
    begun = time.time()
    assert held.run()["agent_pid"] == agent
    ended = held.exit()
    assert (ended["code"], ended["stop_reason"], ended["run_id"]) == (0, None, "the-run")
    assert ended["started_at"] >= begun - 1, "its clocks begin with the run"
    assert (held.run_dir / fmt.STDOUT).read_text() == "waiting\ndone this\n"
    until(held.is_gone)


@pytest.mark.parametrize(
    "what", ["nobody wants it", "its time is over", "it is told to end", "the agent ends", "whoever wanted it is gone"]
)
@pytest.mark.parametrize("agent", [WAITER, DEAF], ids=["hears", "deaf"])
@pytest.mark.row("faults", "an agent that waits for its run, and none comes", "nothing of it is left, and there is no run")
def test_an_agent_that_gets_no_run_is_ended_with_all_that_it_has_started(hold: Hold, agent: str, what: str) -> None:
    sleeper = subprocess.Popen(["/bin/sleep", "1000"])
    try:
        held = hold(agent, **{fmt.SPEC_HOLD: 1.0 if what == "its time is over" else 60.0}, lease_pid=sleeper.pid)
        assert held.answer["ok"]
        match what:
            case "nobody wants it":
                assert held.shim.stdin is not None
                held.shim.stdin.close()
            case "it is told to end":
                held.shim.terminate()
            case "the agent ends":
                os.kill(held.answer["agent_pid"], signal.SIGKILL)
            case "whoever wanted it is gone":
                sleeper.kill()
                sleeper.wait()
            case _:
                pass
        until(held.is_gone)
        assert os.listdir(held.run_dir) == [fmt.PROMPT]
    finally:
        sleeper.kill()
        sleeper.wait()


def test_an_agent_that_is_not_wanted_hears_the_end_of_its_input_before_it_is_killed(hold: Hold, tmp_path: Path) -> None:
    """It may have hooks that run when a session ends. Here they have as long as they take."""
    patient = changed("from cc_executor.shim import hold", "hold.PATIENCE = 60.0")
    held = hold(program=patient, argv=["/bin/sh", "-c", "echo > ready; read -r line || echo > farewell"])
    until((tmp_path / "0" / "ready").exists)
    held.shim.terminate()
    until(held.is_gone)
    assert (tmp_path / "0" / "farewell").exists()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"argv": [*PYTHON, "print('another')"]}, "another agent"),
        ({"cwd": "/"}, "another agent"),
        ({"env": {}}, "another agent"),
        ({fmt.SPEC_HOLD: 5.0}, "another agent"),
        ({"run_dir": "/dev/null/run"}, "cannot be used"),
        ({"wall": "soon"}, "wall must be"),
    ],
)
def test_a_run_that_it_cannot_take_is_refused_and_the_agent_ended(hold: Hold, fields: dict[str, object], says: str) -> None:
    held = hold()
    until(lambda: len(marked(held.mark)) > 1)  # the agent, and what it has started
    answer = held.run(**fields)
    assert (answer["ok"], says in answer["error"]) == (False, True), answer
    until(held.is_gone)
    assert os.listdir(held.run_dir) == [fmt.PROMPT]


def test_an_agent_that_has_ended_takes_no_run(hold: Hold) -> None:
    held = hold(DEAF)
    os.kill(held.shim.pid, signal.SIGSTOP)  # it notices nothing until the run is there
    os.kill(held.answer["agent_pid"], signal.SIGKILL)
    until(lambda: not alive(held.answer["agent_pid"]))
    assert held.shim.stdin is not None
    held.shim.stdin.write(json.dumps(held.spec | {"run_dir": str(held.run_dir), "run_id": "the-run"}).encode() + b"\n")
    os.kill(held.shim.pid, signal.SIGCONT)
    assert held.shim.stdout is not None
    assert "is gone; run it again" in json.loads(held.shim.stdout.readline())["error"]
    until(held.is_gone)


def test_only_an_agent_that_is_talked_to_can_wait(hold: Hold) -> None:
    held = hold(stdin="none", **{fmt.SPEC_TALK: None})
    assert "hold needs talk" in held.answer["error"]
    assert "kept" not in held.answer
    held = hold("", argv=["/dev/null/agent"])
    assert "cannot be started" in held.answer["error"]
