"""What an administrator allows: rules for requests, the queue of those that are over the limit, the money and the tokens of a day."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from traitlets import TraitError

from cc_executor.api import make_request
from cc_executor.errors import CCExecutorError, InvalidRequest, StateUnusable
from cc_executor.model.tasklist import TaskList
from cc_executor.policy.ask import Place
from cc_executor.rehearsal import scripts
from cc_executor.server.admin import usage
from cc_executor.server.keys import Keys
from cc_executor.server.owners import Owners
from cc_executor.server.policy import Admission, Rules
from cc_executor.server.queue import Queue
from cc_executor.server.refusal import Refused
from cc_executor.server.service import Service
from cc_executor.server.settings import ServerSettings
from cc_executor.store.home import StateHome, new_run_id
from cc_executor.store.place import LONGEST_WAIT
from support import runs
from support.looks import eventually
from support.served import API, Server, control, get, serving

BOUND: Final = 90.0
LIMITS: Final = ("--CCExecutorServer.max_running=3", "--CCExecutorServer.max_queued=9")


def post(server: Server, script: str = "sleep 600", **more: Any) -> httpx.Response:
    return server.client.post(f"{API}/execute", json={"prompt": script, "agent": "shell", "shell": "bash", **more})


def rows(server: Server, **query: str) -> list[str]:
    return [row["id"] for row in server.client.get(f"{API}/executions", params=query).json()["executions"]]


def empty(server: Server) -> None:
    """Nothing waits and nothing runs."""
    for status in ("queued", "running", "starting"):
        for run_id in rows(server, status=status):
            control(server, run_id, "kill")
    states = ("queued", "running", "starting", "ended")
    eventually(lambda: not any(rows(server, status=status) for status in states), within=BOUND, what="all have ended")


def is_at_work(server: Server, run_id: str) -> bool:
    return get(server, run_id)["status"] == "running"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("policy"), *LIMITS) as found:
        yield found


@pytest.fixture
def server(served: Server) -> Iterator[Server]:
    yield served
    empty(served)


def test_of_twelve_at_once_three_run_and_nine_wait_in_their_order(server: Server) -> None:
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: post(server), range(12)))
    assert [answer.status_code for answer in answers] == [202] * 12
    told = [answer.json() for answer in answers]
    waiting = sorted((each for each in told if "place" in each), key=lambda each: each["place"])
    assert [(each["status"], each["place"]) for each in waiting] == [("queued", place) for place in range(1, 10)]
    running = [each["id"] for each in told if "place" not in each]
    assert all(is_at_work(server, run_id) for run_id in running)
    one_more = post(server)
    assert (one_more.status_code, one_more.json()["error"]["kind"]) == (429, "QueueFull")
    assert int(one_more.headers["Retry-After"]) > 0

    first, second, third = (each["id"] for each in waiting[:3])
    assert (get(server, first)["place"], get(server, first, "results")) == (1, {"id": first, "done": False})
    assert get(server, first, "events") == {"offset": 0, "last": False, "next_offset": 0, "encoding": "utf-8", "data": ""}
    assert server.client.get(f"{API}/executions/{first}/receipt").json()["error"]["kind"] == "NotEnded"
    paused = control(server, first, "pause")
    assert (paused.status_code, paused.json()["error"]["kind"]) == (409, "ControlFailed")
    assert set(rows(server, status="queued")) == {each["id"] for each in waiting}

    assert server.client.delete(f"{API}/executions/{first}").status_code == 202
    assert {name: get(server, first)[name] for name in ("status", "done")} == {"status": "cancelled", "done": True}
    assert {name: get(server, first, "results")[name] for name in ("status", "done", "cost")} == {
        "status": "cancelled", "done": True, "cost": None,
    }  # fmt: skip
    assert server.client.get(f"{API}/executions/{first}/receipt").json()["error"]["kind"] == "NeverStarted"
    assert control(server, first, "cancel").status_code == 409
    assert not server.home.folder(first).path.exists(), "nothing of it was ever started"
    assert first in rows(server, status="cancelled")

    control(server, running[0], "kill")
    eventually(lambda: is_at_work(server, second), within=BOUND, what="the next one is started")
    assert get(server, third)["place"] == 1, "and only that one"
    queue = server.home.root / "server" / "queue"
    eventually(lambda: not list(queue.glob(f"*{second}*")), within=BOUND, what="who is at work waits no more")
    assert {path.stat().st_mode & 0o777 for path in queue.rglob("*") if path.is_file()} == {0o600}


def test_who_comes_later_stands_behind_those_who_wait(server: Server) -> None:
    running = [post(server).json()["id"] for _ in range(3)]
    waiting = [post(server, f"echo {number} >> order; sleep 0.2").json()["id"] for number in range(4)]
    control(server, running[0], "kill")
    waiting.append(post(server, "echo 4 >> order").json()["id"])
    for run_id in waiting:
        eventually(lambda run_id=run_id: get(server, run_id, "results")["done"], within=BOUND, what="those who waited have ended")
    assert (server.root / "order").read_text().split() == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"cwd": "/not/there"}, 400),
        ({"add_dirs": ["/not/there"]}, 400),
        ({"env_names": ["A=B"]}, 400),
        ({"shell": "/not/there/bash"}, 503),
        ({"agent": "claude", "shell": None, "permission_mode": "nothing"}, 400),
    ],
    ids=lambda more: str(more)[:30],
)
def test_what_could_not_be_started_is_not_let_wait(server: Server, more: dict[str, Any], status: int) -> None:
    at_work = [post(server).json()["id"] for _ in range(3)]
    try:
        answer = post(server, "true", **more)
        assert answer.status_code == status, answer.text
        assert rows(server, status="queued") == []
        assert {get(server, run_id)["status"] for run_id in at_work} <= {"starting", "running"}, "there was no room for it"
    finally:
        empty(server)


def test_a_key_is_one_run_that_waits_too(server: Server) -> None:
    for _ in range(3):
        post(server)
    body = {"prompt": "echo once", "agent": "shell"}
    answers = [server.client.post(f"{API}/execute", json=body, headers={"Idempotency-Key": "wait"}).json() for _ in range(3)]
    assert [(each["new"], each["place"]) for each in answers] == [(True, 1), (False, 1), (False, 1)]
    server.client.delete(f"{API}/executions/{answers[0]['id']}")
    again = server.client.post(f"{API}/execute", json=body, headers={"Idempotency-Key": "wait"}).json()
    assert again == {"id": answers[0]["id"], "execution_id": answers[0]["id"], "new": False}, (
        "what was cancelled does not come back by a request that is sent again"
    )


def test_a_queue_outlives_its_server(tmp_path: Path) -> None:
    limits = ("--CCExecutorServer.max_running=1", "--CCExecutorServer.max_queued=2")
    with serving(tmp_path, *limits) as first:
        at_work = post(first, f"until [ -e {tmp_path / 'go'} ]; do sleep 0.05; done").json()["id"]
        waiting = [post(first, f"echo {number}").json()["id"] for number in range(2)]
        os.killpg(first.process.pid, signal.SIGKILL)
        first.process.wait(BOUND)
        with serving(tmp_path, *limits) as second:
            assert [get(second, run_id)["place"] for run_id in waiting] == [1, 2]
            assert post(second).status_code == 429, "their places are taken, after the new start too"
            (tmp_path / "go").touch()
            texts = [
                eventually(lambda run_id=run_id: (told := get(second, run_id, "results"))["done"] and told, within=BOUND, what="it ends")[
                    "text"
                ]
                for run_id in [at_work, *waiting]
            ]
            assert texts == ["", "0\n", "1\n"]
            eventually(lambda: not list((second.home.root / "server" / "queue").glob("*.json")), within=BOUND, what="the queue is empty")


# --- the same without a server: times and receipts that cannot be waited for ---


@pytest.fixture
def home(state_folder: Path) -> StateHome:
    home = StateHome(state_folder)
    home.prepare()
    return home


def by_name(home: StateHome) -> Owners:
    return Owners(home.root, by_name=True, server_owner="olga")


def sealed(home: StateHome, owners: Owners, who: str, *, cost: float = 0.0, tokens: int = 0, ago: float = 1.0, now: float = 0.0) -> None:
    now = now or time.time()
    folder = home.create(new_run_id(now - ago))
    owners.claim(folder.run_id, who)
    at = datetime.fromtimestamp(now - ago, UTC).isoformat()
    usage = f'{{"input_tokens": {tokens - 1}, "output_tokens": 1, "cache_read_tokens": 1000000}}' if tokens else "{}"
    (folder.path / "receipt.json").write_text(f'{{"times": {{"ended": "{at}"}}, "cost": {cost}, "rehearsed": null, "usage": {usage}}}')


async def refusal(admission: Admission, request: Any, who: str) -> Refused:
    with pytest.raises(Refused) as caught:
        await admission.reserve(new_run_id(time.time()), request, who)
    return caught.value


@pytest.mark.usefixtures("noon")
async def test_one_owners_day_of_money_is_not_anothers(home: StateHome, tmp_path: Path) -> None:
    owners = by_name(home)
    admission = Admission(home, owners, Rules(day_cost=1.0))
    sealed(home, owners, "ada", cost=0.7)
    sealed(home, owners, "bob", cost=0.1)
    sealed(home, owners, "ada", cost=64, ago=49 * 3600)
    request = make_request("x", cwd=tmp_path)
    held = new_run_id(time.time())
    assert (await admission.reserve(held, request, "ada")).limits.cost == 0.3, "no run without what is left as its bound"
    assert (await refusal(admission, request, "ada")).kind == "DayReserved"
    admission.release(held)
    cheap = make_request("x", cwd=tmp_path, max_cost=0.2)
    assert (await admission.reserve(new_run_id(time.time()), cheap, "ada")).limits.cost == 0.2
    dear = await refusal(admission, make_request("x", cwd=tmp_path, max_cost=0.31), "ada")
    assert (dear.status, dear.kind) == (429, "DaySpent")
    assert dear.retry_after is not None
    assert 0 < dear.retry_after <= 25 * 3600
    assert (await admission.reserve(new_run_id(time.time()), request, "bob")).limits.cost == 0.9
    for free in (make_request("true", agent="shell", cwd=tmp_path), make_request("x", rehearse="hello", cwd=tmp_path)):
        assert (await admission.reserve(new_run_id(time.time()), free, "ada")).limits.cost is None


def of_olgas_server(home: StateHome) -> Service:
    return Service(home=home, environ=dict(os.environ), owners=by_name(home), rules=Rules(), root=home.root)


@pytest.mark.usefixtures("noon")
async def test_what_was_used_counts_what_nobody_has_sealed(home: StateHome) -> None:
    run = await runs.started("true", home=home)  # as of a kernel that is gone by its end
    await runs.eventually(lambda: run.folder.exit_facts() is not None)
    service = of_olgas_server(home)
    (row,) = usage(service, 1, time.time())
    assert (row["who"], row["runs"], row["cost"]) == ("olga", 1, 0)
    await run.finish()
    assert usage(service, 1, time.time()) == [row], "once"


async def test_what_was_used_is_summed_by_whole_days_also_where_one_has_23_hours(home: StateHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        service, noon = of_olgas_server(home), datetime(2026, 3, 30, 12).astimezone().timestamp()  # clocks were put forward on the 29th
        for hours in (
            1,
            13,
            34.5,
            35.5,
        ):  # the 29th began 35 hours before this noon
            sealed(home, by_name(home), "ada", ago=hours * 3600, now=noon)
        assert [(row["day"], row["runs"]) for row in usage(service, 2, noon)] == [("2026-03-30", 1), ("2026-03-29", 2)]
        assert [(row["day"], row["runs"]) for row in usage(service, 3, noon)] == [("2026-03-30", 1), ("2026-03-29", 2), ("2026-03-28", 1)]
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.usefixtures("noon")
async def test_a_list_gets_what_is_left_of_its_owners_day_as_its_bound(home: StateHome, tmp_path: Path) -> None:
    owners = by_name(home)
    admission = Admission(home, owners, Rules(day_cost=1.0))
    sealed(home, owners, "ada", cost=0.7)
    asks = TaskList.model_validate({"tasks": [{"id": "a", "kind": "agent", "text": "x"}], "cwd": str(tmp_path)})
    async with admission.room("ada", 1, asks, 0.2) as bounded:
        assert bounded.max_cost == pytest.approx(0.5), "what it has cost already counts in its bound, too"
        assert bounded.digest() == asks.digest(), "it is the same list"
    cheap = asks.model_copy(update={"max_cost": 0.1})
    async with admission.room("ada", 1, cheap, 0.0) as bounded:
        assert bounded.max_cost == 0.1
    runs = TaskList.model_validate({"tasks": [{"id": "a", "kind": "shell", "text": "true"}], "cwd": str(tmp_path)})
    sealed(home, owners, "ada", cost=0.3)
    async with admission.room("ada", 1, runs, 0.0) as bounded:
        assert bounded.max_cost is None, "commands cost nothing"
    with pytest.raises(Refused) as caught:
        async with admission.room("ada", 1, asks, 0.0):
            pass
    assert caught.value.kind == "DaySpent"


@pytest.mark.usefixtures("noon")
async def test_tokens_of_a_day(home: StateHome, tmp_path: Path) -> None:
    owners = by_name(home)
    admission = Admission(home, owners, Rules(day_tokens=1000))
    sealed(home, owners, "ada", tokens=999)
    request = make_request("x", cwd=tmp_path)
    await admission.reserve(new_run_id(time.time()), request, "ada")
    sealed(home, owners, "ada", tokens=1)
    assert (await refusal(admission, request, "ada")).kind == "DayTokensSpent"
    await admission.reserve(new_run_id(time.time()), request, "bob")


def test_what_was_claimed_before_a_death_can_be_started_after_it_and_by_nobody_else(home: StateHome) -> None:
    owners = by_name(home)
    run_id = new_run_id(time.time())
    owners.claim(run_id, "ada")
    owners.claim(run_id, "ada")
    with pytest.raises(StateUnusable):
        owners.claim(run_id, "bob")
    assert owners.of(run_id) == "ada"


async def test_a_place_is_held_from_the_look_on(home: StateHome, tmp_path: Path) -> None:
    admission = Admission(home, by_name(home), Rules(running=3))
    request = make_request("x", cwd=tmp_path)

    async def one(number: int) -> bool:
        try:
            await admission.reserve(f"{number:026x}", request, "ada")
        except Refused:
            return False
        return True

    assert sum(await asyncio.gather(*(one(number) for number in range(12)))) == 3


async def test_what_has_waited_for_a_day_and_what_the_rules_forbid_by_now_is_not_started(home: StateHome, tmp_path: Path) -> None:
    owners = by_name(home)
    queue = Queue(home, owners, 9)
    stale, forbidden, fine = (new_run_id(time.time() + number) for number in range(3))
    for run_id, agent, who in ((stale, "claude", "ada"), (forbidden, "claude", "ada"), (fine, "shell", "bob")):
        await queue.add(run_id, make_request("true", agent=agent, cwd=tmp_path), who)
    old, broken = (next((home.root / "server" / "queue").glob(f"*{run_id}.json")) for run_id in (stale, forbidden))
    os.utime(old, (0, time.time() - LONGEST_WAIT - 1))
    service = Service(home=home, environ=dict(os.environ), owners=owners, rules=Rules(agents=("shell",)), root=tmp_path)
    try:
        await service.resume()
        async with asyncio.timeout(BOUND):
            while not (await service.lookup.results(fine, who="bob"))["done"]:  # noqa: ASYNC110 - files
                await asyncio.sleep(0.05)
        assert (await service.lookup.results(fine, who="bob"))["status"] == "ok"
        told = [await service.lookup.results(run_id, who="ada") for run_id in (stale, forbidden)]
        assert [(each["status"], each["done"]) for each in told] == [("refused", True)] * 2
        assert "waited for a day" in told[0]["summary"]
        assert "'claude' is not allowed" in told[1]["summary"]
        assert not broken.exists()
        with pytest.raises(CCExecutorError):
            await service.lookup.results(stale, who="bob")
    finally:
        await service.aclose()


async def test_one_at_a_time_holds_a_key_also_after_one_that_failed(tmp_path: Path) -> None:
    keys, inside, most = Keys(tmp_path), 0, 0

    async def use() -> None:
        nonlocal inside, most
        async with keys.held("k", who="ada", digest="d"):
            inside += 1
            for _ in range(1000):  # turns of the loop in which somebody else could come in
                most = max(most, inside)
                await asyncio.sleep(0)
            inside -= 1

    async def fail_and_ask_again() -> None:
        with contextlib.suppress(InvalidRequest):
            async with keys.held("k", who="ada", digest="d"):
                waiting.set()
                await entered.wait()
                raise InvalidRequest("x")
        await use()  # before the one who waits has been woken

    waiting, entered = asyncio.Event(), asyncio.Event()
    async with asyncio.timeout(BOUND), asyncio.TaskGroup() as tasks:
        tasks.create_task(fail_and_ask_again())
        await waiting.wait()
        tasks.create_task(use())
        await asyncio.sleep(0)  # it stands in line now
        entered.set()
    assert most == 1


async def test_what_cannot_be_written_down_is_nobodys_and_does_not_wait(home: StateHome, tmp_path: Path) -> None:
    owners, run_id = by_name(home), new_run_id(time.time())
    queue = Queue(home, owners, 9)
    (home.root / "server").mkdir()
    (home.root / "server" / "queue").touch()
    with pytest.raises(StateUnusable):
        await queue.add(run_id, make_request("true", agent="shell", cwd=tmp_path), "ada")
    assert owners.of(run_id) is None
    assert queue.entries() == []


async def test_each_owner_has_places_of_their_own(home: StateHome, tmp_path: Path) -> None:
    queue, request = Queue(home, by_name(home), 2), make_request("true", agent="shell", cwd=tmp_path)
    entries = [await queue.add(new_run_id(time.time() + number), request, who) for number, who in enumerate(("ada", "ada", "bob"))]
    assert [queue.place(entry) for entry in entries] == [1, 2, 1]
    with pytest.raises(Refused) as caught:
        await queue.add(new_run_id(time.time() + 3), request, "ada")
    assert (caught.value.status, caught.value.kind) == (429, "QueueFull")
    await queue.add(new_run_id(time.time() + 4), request, "bob")


async def test_what_is_at_work_neither_waits_nor_can_be_withdrawn(home: StateHome, tmp_path: Path) -> None:
    queue, request = Queue(home, by_name(home), 2), make_request("true", agent="shell", cwd=tmp_path)
    begun, other = [await queue.add(new_run_id(time.time() + number), request, "ada") for number in range(2)]
    home.create(begun.run_id)  # its server died before it could remove the entry
    assert queue.entries() == [other]
    assert queue.started(begun)
    assert not queue.withdraw(begun, status="cancelled", why="x")
    assert queue.withdraw(other, status="cancelled", why="x")
    assert not queue.started(other), "it was withdrawn meanwhile"
    shutil.rmtree(home.folder(begun.run_id).path)  # it was pruned
    assert queue.over() == [], "what has been at work is none of those that were never started"


async def test_the_queue_is_looked_at_while_others_enter_it(home: StateHome, tmp_path: Path) -> None:
    queue = Queue(home, by_name(home), 100)
    request = make_request("true", agent="shell", cwd=tmp_path)
    is_over = threading.Event()

    def look() -> int:
        seen = 0
        while not is_over.is_set():
            seen = max(seen, len(queue.of("ada")))
        return seen

    patience = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            looks = [pool.submit(look) for _ in range(4)]
            for number in range(60):
                await queue.add(new_run_id(time.time() + number), request, "ada")
            is_over.set()
            assert all(each.result(BOUND) <= 60 for each in looks)
    finally:
        sys.setswitchinterval(patience)
    assert len(queue.of("ada")) == 60


async def test_what_would_ask_somebody_who_may_be_gone_by_then_does_not_wait(home: StateHome, tmp_path: Path) -> None:
    service = Service(home=home, environ=dict(os.environ), owners=by_name(home), rules=Rules(running=1, queued=9), root=tmp_path)
    asks = {"prompt": "x", "rehearse": "hello", "ask": True}
    try:
        going, _ = await service.execute({"prompt": "sleep 600", "agent": "shell"}, who="ada")
        with pytest.raises(Refused) as caught:
            await service.execute(asks, who="ada", asks=Place.CALLBACK)
        assert (caught.value.status, caught.value.kind) == (429, "TooManyRuns")
        waits, _ = await service.execute(asks, who="ada")
        assert (await service.lookup.status(waits, who="ada"))["status"] == "queued"
        for run_id in (waits, going):
            await service.control(run_id, "kill", who="ada")
        async with asyncio.timeout(BOUND):
            while not (await service.lookup.results(going, who="ada"))["done"]:  # noqa: ASYNC110 - files
                await asyncio.sleep(0.05)
    finally:
        await service.aclose()


ASKED: Final[dict[str, Any]] = {"prompt": "x"}


@pytest.mark.parametrize(
    ("rules", "options", "says"),
    [
        (Rules(agents=("claude",)), {"agent": "shell"}, "'shell' is not allowed"),
        (Rules(agents=("claude",)), {"verify": "rm -rf ~"}, "verify is a command"),
        (Rules(tools=("Read",)), {"tools": "Bash"}, "'Bash' is not allowed"),
        (Rules(tools=("Bash(git log *)",)), {"tools": "Bash(git push *)"}, "is not allowed"),
        (Rules(tools=("Bash(git log *)",)), {"tools": ["Bash"]}, "is not allowed"),
        (Rules(tools=("Read",)), {"tools": ["Read(a),Bash"]}, "is not allowed"),
        (Rules(tools=("Read",)), {"tools": ["Read(a) Bash(b)"]}, "is not allowed"),
        (Rules(tools=("Read",)), {"tools": ["Read Bash"]}, "is not allowed"),
        (Rules(tools=("Read",)), {"permission_mode": "bypassPermissions"}, "'bypassPermissions' is not allowed"),
        (Rules(permission_modes=("plan",)), {"permission_mode": "acceptEdits"}, "'acceptEdits' is not allowed"),
        (Rules(trusted=(Path("/srv"),)), {"cwd": "/srvx", "trust_workspace": True}, "may not be trusted"),
        (Rules(folders=(Path("/srv"),)), {"cwd": "/srv/../etc"}, "may not work in"),
        (Rules(folders=(Path("/srv"),)), {"cwd": "/srv", "add_dirs": ["/"]}, "may not work in"),
        (Rules(folders=(Path("/srv"),)), {"cwd": "/srv", "rehearse": f"{scripts.FOLDER}/hello.toml"}, "in no folder that is allowed"),
        (Rules(max_cost=0.5), {"max_cost": 0.51}, "at most"),
    ],
)
def test_a_request_is_never_wider_than_the_rules(rules: Rules, options: dict[str, Any], says: str) -> None:
    with pytest.raises(Refused, match=says.replace("(", r"\(")) as caught:
        rules.applied(make_request(**ASKED, **options))
    assert (caught.value.status, caught.value.kind) == (403, "NotAllowed")


async def test_a_folder_that_leads_in_a_circle_is_refused_in_a_sentence_and_holds_up_nobody_who_waits(
    home: StateHome, tmp_path: Path
) -> None:
    rules = Rules(running=1, queued=9, folders=(tmp_path,))
    service = Service(home=home, environ=dict(os.environ), owners=by_name(home), rules=rules, root=tmp_path)
    there = tmp_path / "there"
    there.mkdir()
    command: dict[str, Any] = {"agent": "shell", "shell": "bash"}
    try:
        going, _ = await service.execute({"prompt": "sleep 600", **command}, who="ada")
        first, _ = await service.execute({"prompt": "true", "cwd": "there", **command}, who="ada")
        second, _ = await service.execute({"prompt": "true", **command}, who="ada")
        there.rmdir()
        there.symlink_to(there)
        with pytest.raises(InvalidRequest, match="is not a folder"):
            await service.execute({"prompt": "true", "cwd": "there", **command}, who="bob")
        await service.control(going, "kill", who="ada")
        await runs.eventually(lambda: home.folder(second).receipt())
        told = await service.lookup.status(first, who="ada")
        assert (told["status"], "is not a folder" in told["why"]) == ("refused", True), told
    finally:
        await service.aclose()


@pytest.mark.parametrize(
    ("rules", "options", "field", "value"),
    [
        (Rules(permission_modes=("plan", "default")), {}, "permission_mode", "plan"),  # else it is the agent's own, acceptEdits
        (Rules(permission_modes=("plan", "acceptEdits")), {}, "permission_mode", None),
        (Rules(tools=("Read",)), {}, "permission_mode", "default"),
        (Rules(tools=("Read", "Bash(git log *)")), {"tools": "Read(a/*),Bash(git log *)"}, "tools", ("Read(a/*)", "Bash(git log *)")),
        (Rules(trusted=(Path("/srv"),)), {"cwd": "/srv/a", "trust_workspace": True}, "trust_workspace", True),
        (Rules(agents=("claude", "shell")), {"verify": "make"}, "verify", "make"),
        (Rules(), {"permission_mode": "bypassPermissions"}, "permission_mode", "bypassPermissions"),
    ],
)
def test_what_is_allowed_is_taken_as_it_was_asked_for_or_narrower(rules: Rules, options: dict[str, Any], field: str, value: Any) -> None:
    assert getattr(rules.applied(make_request(**ASKED, **options)), field) == value


@pytest.mark.parametrize(
    "wrong", [{"max_cost": 0.0}, {"max_cost": -1.0}, {"max_cost": math.nan}, {"max_cost_per_day": -1.0}, {"max_cost_per_day": math.inf}]
)
def test_a_bound_of_dollars_that_is_none_is_refused_and_no_run_is_started_under_it(wrong: dict[str, float]) -> None:
    """A run under it would spend, and what it was asked could not be read again."""
    with pytest.raises(TraitError, match=r"^max_cost.* US dollars"):
        ServerSettings(**wrong)


def test_bounds_of_dollars_are_taken() -> None:
    rules = ServerSettings(max_cost=0.5, max_cost_per_day=0.0).rules()
    assert (rules.max_cost, rules.day_cost) == (0.5, 0.0)
    assert ServerSettings(max_cost=None).rules().max_cost is None
