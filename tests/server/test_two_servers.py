"""Two servers of one user on one state folder (named servers of a hub, or JupyterLab started twice): what is promised by one holds for both."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from cc_executor.runtime.control import command
from cc_executor.server.places import Place, Places
from cc_executor.store import roll
from cc_executor.store.home import StateHome
from support.environments import CHECKOUT
from support.looks import eventually

BOUND: Final = 90.0
RUNNING: Final = 3
QUEUED: Final = 20
# A server's service, commanded by lines: what to do, and how often at once. It answers how many times that was taken, and lives until its input ends.
SERVICE: Final = f"""
import asyncio, json, os, sys, time
from pathlib import Path
from cc_executor.api import make_request
from cc_executor.server.owners import Owners
from cc_executor.server.policy import Rules
from cc_executor.server.refusal import Refused
from cc_executor.server.service import Service
from cc_executor.store.home import StateHome, new_run_id

async def main():
    home, root = StateHome(Path(sys.argv[1])), Path(sys.argv[2])
    rules = Rules(running={RUNNING}, queued={QUEUED} if "queue" in sys.argv else 0, day_cost=1.0)
    service = Service(home=home, environ=dict(os.environ), owners=Owners(home.root, by_name=False), rules=rules, root=root)
    request = make_request("true", agent="shell", cwd=root)
    waits = {{
        "reserve": lambda: service.admission.reserve(new_run_id(time.time()), request, ""),
        "spend": lambda: service.admission.reserve(new_run_id(time.time()), make_request("x", cwd=root, max_cost=0.4), ""),
        "execute": lambda: service.execute({{"prompt": "sleep 600", "agent": "shell"}}, who=""),
        "queue": lambda: service.line.queue.add(new_run_id(time.time()), request, ""),
    }}
    async def taken(what):
        try:
            await waits[what]()
        except Refused as refused:
            return refused.kind
        return ""
    print("up", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        what, count = line.split()
        print(json.dumps(await asyncio.gather(*(taken(what) for _ in range(int(count))))), flush=True)

asyncio.run(main())
"""


class Other:
    """A process with a service of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def say(self, what: str, count: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what} {count}\n")
        self.process.stdin.flush()

    def hear(self) -> list[str]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def taken(self, what: str, count: int) -> int:
        self.say(what, count)
        return self.hear().count("")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(BOUND)


@pytest.fixture
def home(state_folder: Path) -> StateHome:
    home = StateHome(state_folder)
    home.prepare()
    return home


@pytest.fixture
def two(home: StateHome, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Other, Other]]:
    """Both are up. The indirect parameter is a further argument."""
    argv = [sys.executable, "-c", SERVICE, str(home.root), str(tmp_path), *getattr(request, "param", ())]
    environ = os.environ | {"PYTHONPATH": str(CHECKOUT / "src")}
    with contextlib.ExitStack() as stack:
        found: list[Other] = []
        for _ in range(2):
            process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ)
            found.append(Other(stack.enter_context(process)))
            stack.callback(process.kill)
        for other in found:
            assert other.process.stdout is not None
            assert other.process.stdout.readline() == "up\n"
        yield found[0], found[1]


@pytest.mark.row(
    "faults", "two servers on one state folder", "the limits hold for both together; what a dead one had promised is free again"
)
def test_what_one_server_has_promised_the_other_has_no_room_for_until_the_first_is_dead(two: tuple[Other, Other]) -> None:
    first, second = two
    assert first.taken("reserve", 12) == RUNNING
    assert second.taken("reserve", 12) == 0
    first.kill()
    assert second.taken("reserve", 12) == RUNNING, "what a dead server had promised blocks nobody"


def test_the_days_money_is_promised_once(two: tuple[Other, Other]) -> None:
    first, second = two
    assert first.taken("spend", 1) == 1
    second.say("spend", 2)
    assert sorted(second.hear()) == ["", "DayReserved"], "0.4 of 1.0 are the other's, and twice 0.4 is more than what is left"


@pytest.mark.row(
    "faults", "two servers on one state folder", "the limits hold for both together; what a dead one had promised is free again"
)
def test_of_twelve_at_each_of_two_servers_three_are_at_work(two: tuple[Other, Other], home: StateHome) -> None:
    try:
        for other in two:
            other.say("execute", 12)
        answers = [answer for other in two for answer in other.hear()]
        assert sorted(set(answers)) == ["", "TooManyRuns"]
        assert answers.count("") == RUNNING
        assert len(roll.going(home.root)) == RUNNING
        assert two[0].taken("reserve", 1) == 0, "what is at work counts for both"
        assert not Places(home.root).all(), "nothing is held for what is at work"
    finally:
        for run_id in roll.going(home.root):
            command(home.folder(run_id), "cancel", now=True)
        eventually(lambda: not roll.going(home.root), within=BOUND, what="all have ended")


@pytest.mark.parametrize("two", [("queue",)], indirect=True)
def test_so_many_wait_at_both_servers_together_each_in_a_place_of_its_own(two: tuple[Other, Other], home: StateHome) -> None:
    for other in two:
        other.say("queue", QUEUED)
    answers = [answer for other in two for answer in other.hear()]
    assert (answers.count(""), answers.count("QueueFull")) == (QUEUED, QUEUED)
    numbers = [path.name.partition("-")[0] for path in (home.root / "server" / "queue").glob("*.json")]
    assert sorted(map(int, numbers)) == list(range(1, QUEUED + 1))


def test_a_place_is_seen_by_others_and_gone_when_it_is_let_go(home: StateHome) -> None:
    mine, theirs = Places(home.root), Places(home.root)
    with mine.turn():
        mine.hold("one", Place("ada\ud800", None))
    with theirs.turn():
        assert theirs.all() == {"one": Place("ada\ud800", None)}
    theirs.release("one")
    assert mine.is_mine("one")
    assert theirs.all(), "nobody lets go of what is another's"
    mine.release("one")
    assert not theirs.all()
    assert not list((home.root / "server" / "places").iterdir())
