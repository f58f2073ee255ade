"""Idempotency keys of two `jupyter server` processes on one state folder; and what a server forgets of runs that are gone."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from cc_executor.errors import StateUnusable
from cc_executor.server import keys, leftovers
from cc_executor.server.keys import Keys
from cc_executor.server.leftovers import KEPT_FOR
from cc_executor.server.places import Places
from cc_executor.server.refusal import Refused
from cc_executor.store import owners
from cc_executor.store.home import StateHome, new_run_id
from cc_executor.store.lock import taken
from cc_executor.store.owners import claim, owner_of
from support.looks import eventually
from support.served import Server, results, serving

API: Final = "/cc-executor/api/v1"
BOUND: Final = 60.0
LONG_AGO: Final = KEPT_FOR + 3600
# These tests hold the turn of all servers until what they wait for is there: for as long as a busy machine takes, and not for the 5 s that it is waited for.
PATIENT: Final = f"from cc_executor.store import lock; lock.PATIENCE = {BOUND}"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """On one state folder; the first has a run that is gone in it, and one that is not."""
    folder = tmp_path_factory.mktemp("keys")
    home = StateHome(folder / "one" / "state")
    home.prepare()
    (home.runs_path / KEPT).mkdir(mode=0o700)
    for run_id in (GONE, KEPT):
        claim(home.root, run_id, "ada")
        _aged(home.root / owners.FOLDER / run_id)
    for name in ("one", "two"):
        (folder / name / "config").mkdir(parents=True)
        (folder / name / "config" / "jupyter_server_config.py").write_text(PATIENT)
    with (
        serving(folder / "one", "--CCExecutorServer.max_running=64") as first,
        serving(folder / "two", "--CCExecutorServer.max_running=64", "--CCExecutorServer.max_cost=3", state=first.home.root) as second,
    ):
        yield first, second


GONE: Final = new_run_id(time.time() - LONG_AGO)
KEPT: Final = new_run_id(time.time() - LONG_AGO)


def _aged(path: Path) -> None:
    then = time.time() - LONG_AGO
    os.utime(path, (then, then))


def body(server: Server, **more: Any) -> dict[str, Any]:
    return {"prompt": "true", "agent": "shell", "cwd": str(server.root), **more}


def kept(server: Server) -> list[Path]:
    """The files of keys."""
    return [path for path in (server.home.root / "server" / "keys").glob("*") if len(path.name) == 64]


def test_what_is_kept_of_a_run_that_is_gone_goes_when_a_server_starts(two: tuple[Server, Server]) -> None:
    root = two[0].home.root
    eventually(lambda: owner_of(root, GONE) is None, within=BOUND, what="the server has looked")
    assert owner_of(root, KEPT) == "ada"


@pytest.mark.row(
    "faults", "two servers on one state folder", "the limits hold for both together; what a dead one had promised is free again"
)
@pytest.mark.parametrize(("what", "count"), [("run", 6), ("list", 2)])
def test_one_key_is_one_run_whichever_server_gets_it(two: tuple[Server, Server], what: str, count: int) -> None:
    before, known = {path.name for path in two[0].home.runs_path.iterdir()}, len(kept(two[0]))

    def post(number: int, server: Server) -> httpx.Response:
        tasks = {"tasks": [{"id": f"t{number}", "run": "true"}], "cwd": str(two[0].root), "fresh": True}
        asked = body(two[0]) if what == "run" else tasks
        return server.client.post(f"{API}/execute", json=asked, headers={"Idempotency-Key": f"{what} {number}"})

    with concurrent.futures.ThreadPoolExecutor(4 * count) as pool:
        with Places(two[0].home.root).turn():  # nothing begins before all have been asked
            asked = [[pool.submit(post, number, server) for server in two for _ in range(2)] for number in range(count)]
            if what == "run":
                eventually(lambda: len(kept(two[0])) == known + count, within=BOUND, what="each key has its run")
        answers = [[future.result(BOUND) for future in each] for each in asked]
    for each in answers:
        assert [answer.status_code for answer in each] == [202] * 4, [answer.text for answer in each]
        assert len({answer.json()["id"] for answer in each}) == 1
        assert sum(answer.json()["new"] for answer in each) == 1
    assert len({each[0].json()["id"] for each in answers}) == count
    if what == "run":
        assert len({path.name for path in two[0].home.runs_path.iterdir()} - before) == count
    assert [post(0, server).json() | {"new": False} for server in two] == [answers[0][0].json() | {"new": False}] * 2, "and later"
    assert not list((two[0].home.root / "server" / "keys").glob("*.lock"))
    other = two[1].client.post(f"{API}/execute", json=body(two[0], prompt="false"), headers={"Idempotency-Key": f"{what} 0"})
    assert (other.status_code, other.json()["error"]["kind"]) == (409, "KeyReused")


GREETING: Final = {"prompt": "Greet.", "rehearse": "hello"}


@pytest.mark.parametrize("asked", [GREETING, {"tasks": [GREETING], "fresh": True}], ids=["run", "list"])
def test_a_key_is_of_what_was_asked_for_and_not_of_what_a_server_makes_of_it(two: tuple[Server, Server], asked: dict[str, Any]) -> None:
    """They have other folders and other rules."""

    def post(server: Server) -> httpx.Response:
        return server.client.post(f"{API}/execute", json=asked, headers={"Idempotency-Key": f"of both: {sorted(asked)}"})

    first = post(two[1]).raise_for_status().json()
    again = post(two[0])
    assert (again.status_code, again.json().get("id"), again.json().get("new")) == (202, first["id"], False), again.text
    results(two[1], first["id"])


def test_what_a_server_had_promised_that_was_killed_is_made_by_the_other_and_once(two: tuple[Server, Server]) -> None:
    first, second = two
    known = {path.name for path in kept(first)}

    def post(server: Server) -> httpx.Response:
        return server.client.post(f"{API}/execute", json=body(first), headers={"Idempotency-Key": "of the dead"})

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        with Places(first.home.root).turn():
            broken = pool.submit(post, first)
            (place,) = eventually(lambda: [path for path in kept(first) if path.name not in known], within=BOUND, what="a run is promised")
            os.killpg(first.process.pid, signal.SIGKILL)
            first.process.wait(BOUND)
        assert isinstance(broken.exception(BOUND), httpx.TransportError)
        answer = pool.submit(post, second).result(BOUND)
    assert answer.json()["new"], answer.text
    assert answer.json()["id"] == json.loads(place.read_text())["id"]
    assert not post(second).json()["new"]


async def test_who_waits_too_long_for_another_server_is_told_to_ask_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Keys(tmp_path).held("one", who="ada", digest="d") as held:
        held.keep("an id")
        monkeypatch.setattr(keys, "PATIENCE", 0.05)
        with pytest.raises(Refused, match="with the same key") as refused:
            async with Keys(tmp_path).held("one", who="ada", digest="d"):
                pass
        assert (refused.value.status, refused.value.kind) == (409, "KeyInUse")
        async with Keys(tmp_path).held("one", who="bob", digest="d") as his:
            assert not his.id
    async with Keys(tmp_path).held("one", who="ada", digest="d") as held:
        assert held.id == "an id"


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"id": "an id"}', b"\xff"])
async def test_a_key_that_cannot_be_read_starts_nothing_a_second_time(tmp_path: Path, damage: bytes) -> None:
    async with Keys(tmp_path).held("one", who="ada", digest="d") as held:
        held.keep("an id")
        assert held.place is not None
        held.place.write_bytes(damage)
    with pytest.raises(StateUnusable, match="Use another one"):
        async with Keys(tmp_path).held("one", who="ada", digest="d"):
            pass
    Keys(tmp_path).sweep(lambda run_id: True, before=time.time() + 1)
    assert held.place.exists(), "nobody knows what it stands for"


async def test_a_key_whose_run_is_made_while_somebody_tidies_up_is_kept(tmp_path: Path) -> None:
    async with Keys(tmp_path).held("one", who="ada", digest="d") as held:
        held.keep("an id")
    answers = [True, False]  # it is gone; and when the key is held, it is there
    Keys(tmp_path).sweep(lambda run_id: answers.pop(0), before=time.time() + 1)
    assert answers == []
    async with Keys(tmp_path).held("one", who="ada", digest="d") as held:
        assert held.id == "an id"


def test_a_lock_that_its_holder_has_removed_is_nobodys(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "one.lock"
    with taken(path) as mine:
        assert mine
        with taken(path) as theirs:
            assert not theirs
        assert path.exists(), "who has not got it removes nothing"
    assert not path.exists()


# --- what is kept of runs that are gone ---


class Kept:
    """A state folder, and which ids it has keys and owners of."""

    def __init__(self, root: Path) -> None:
        self.home, self.keys = StateHome(root), Keys(root)
        self.home.prepare()

    async def add(self, run_id: str, *, is_old: bool = True) -> str:
        claim(self.home.root, run_id, "ada")
        async with self.keys.held(run_id, who="ada", digest="d") as held:
            held.keep(run_id)
            assert held.place is not None
            if is_old:
                _aged(held.place)
        if is_old:
            _aged(self.home.root / owners.FOLDER / run_id)
        return run_id

    def left(self) -> tuple[set[str], set[str]]:
        leftovers.sweep(self.home, self.keys, now=time.time())
        folder = self.home.root / "server"
        return (
            {path.name for path in (folder / "owners").iterdir()},
            {json.loads(path.read_text())["id"] for path in (folder / "keys").iterdir() if path.suffix != ".lock"},
        )


def _id() -> str:
    return new_run_id(time.time() - LONG_AGO)


async def test_nothing_is_forgotten_of_what_is_there_waits_or_was_asked_for_lately(state_folder: Path) -> None:
    state = Kept(state_folder)
    run, going, waits, withdrawn, new, gone = _id(), _id(), _id(), _id(), _id(), _id()
    here, away = "0123456789abcdef0123-1", "0123456789abcdef0123-2"
    for name in (run, going, waits, withdrawn, gone, here, away):
        await state.add(name)
    await state.add(new, is_old=False)
    queue = state_folder / "server" / "queue"
    (queue / "ended").mkdir(parents=True)
    (queue / f"000000000001-{waits}.json").touch()
    (queue / "ended" / withdrawn).touch()
    (state_folder / "runs" / run).mkdir()
    (state_folder / "runs" / f".{going}.going").mkdir()
    (state_folder / "lists" / here).mkdir(parents=True)
    wanted = {run, going, waits, withdrawn, new, here}
    assert state.left() == (wanted, wanted)
    # Of folders that were moved away for a while, nothing is gone.
    (state_folder / "lists").rename(state_folder / "elsewhere")
    (state_folder / "runs").rename(state_folder / "runs elsewhere")
    assert state.left() == (wanted, wanted)


async def test_nothing_is_forgotten_where_nobody_can_tell_what_waits(state_folder: Path) -> None:
    state = Kept(state_folder)
    gone = await state.add(_id())
    queue = state_folder / "server" / "queue"
    queue.write_text("no folder")
    assert state.left() == ({gone}, {gone})
    queue.unlink()  # where nothing was ever queued, nothing waits
    assert state.left() == (set(), set())


async def test_a_run_that_is_promised_anew_or_started_at_this_moment_keeps_its_owner_and_its_key(state_folder: Path) -> None:
    state = Kept(state_folder)
    again, now = await state.add(_id()), await state.add(_id())
    claim(state_folder, again, "ada")
    with pytest.raises(StateUnusable):
        claim(state_folder, again, "bob")
    async with state.keys.held(now, who="ada", digest="d"):
        assert state.left() == ({again}, {now})
    assert state.left() == ({again}, set())
