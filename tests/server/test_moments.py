"""What meets at one moment: two who withdraw a run that waits, a start and its cancel, a server that comes up and a request, a watcher who goes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest

from cc_executor.api import make_request
from cc_executor.errors import ControlFailed, InvalidRequest, StateUnusable
from cc_executor.model.outcome import OutcomeKind
from cc_executor.model.request import RunId, RunRequest
from cc_executor.policy.ask import Place
from cc_executor.runtime import login
from cc_executor.runtime.run import Run
from cc_executor.runtime.summary import RunSummary, summary
from cc_executor.server import attendance
from cc_executor.server.activity import AtWork
from cc_executor.server.line import Line
from cc_executor.server.owners import Owners
from cc_executor.server.policy import Admission, Rules
from cc_executor.server.service import Service
from cc_executor.server.session import CALLS, SUBSCRIPTIONS, Session
from cc_executor.shim import records
from cc_executor.store.home import StateHome, new_run_id
from cc_executor.store.journal import RunFolder, RunStanding
from support.runs import eventually

pytestmark = pytest.mark.anyio

BOUND: Final = 90.0


@pytest.fixture
async def service(state_folder: Path, tmp_path: Path) -> AsyncIterator[Service]:
    home = StateHome(state_folder)
    home.prepare()
    service = Service(
        home=home, environ=dict(os.environ), owners=Owners(home.root, by_name=False), rules=Rules(running=9, queued=9), root=tmp_path
    )
    yield service
    for status in ("queued", "starting", "running"):
        for row in service.lookup.executions(who="", limit=100, status=status)[0]:
            with contextlib.suppress(ControlFailed):  # it has just ended
                await service.control(row.id, "kill", who="")
    await eventually(
        lambda: not any(service.lookup.executions(who="", limit=100, status=status)[0] for status in ("starting", "running", "ended"))
    )
    await service.aclose()


async def queued(service: Service, count: int = 1) -> list[RunId]:
    """Runs that wait, and that nobody begins: the line does not know of them."""
    ids = [new_run_id(time.time() + number) for number in range(count)]
    for run_id in ids:
        await service.line.queue.add(run_id, make_request("sleep 600", agent="shell", cwd=service.root), "")
    return ids


@pytest.mark.row(
    "faults", "a run that waits is withdrawn twice, or while runs are begun", "it is not begun, is one run, and does not come back"
)
async def test_who_withdraws_a_run_second_hears_that_it_was_and_it_stays_withdrawn(service: Service) -> None:
    (run_id,) = await queued(service)
    entry = service.line.queue.find(run_id)
    assert entry is not None
    assert await service.line.withdrawn(entry, "cancel")
    with pytest.raises(ControlFailed, match="cancelled while it waited"):  # has seen it waiting, as the first one has
        await service.line.withdrawn(entry, "kill")
    assert (await service.lookup.status(run_id, who=""))["status"] == "cancelled"


@pytest.mark.row(
    "faults", "a run that waits is withdrawn twice, or while runs are begun", "it is not begun, is one run, and does not come back"
)
async def test_a_run_that_is_withdrawn_while_others_are_begun_is_not_begun_and_does_not_come_back(service: Service) -> None:
    """Each start takes its time, and the line has seen the run waiting before the first."""
    begun: list[str] = []

    async def start(request: RunRequest, run_id: RunId) -> Run:
        begun.append(run_id)
        await service.control(second, "cancel", who="")
        raise InvalidRequest("not today")

    first, second = await queued(service, 2)
    line = Line(service.home, Owners(service.home.root, by_name=False), service.admission, start=start)
    await line.resume()
    await eventually(lambda: not line.is_moving)
    assert begun == [first]
    told = [await service.lookup.status(run_id, who="") for run_id in (first, second)]
    assert [(each["status"], each["why"]) for each in told] == [
        ("refused", "not today"),
        ("cancelled", "It was cancelled while it waited for its turn."),
    ]


async def test_what_no_disk_has_room_for_waits_in_its_place_until_one_has(service: Service) -> None:
    begun: list[str] = []

    async def start(request: RunRequest, run_id: RunId) -> Run:
        begun.append(run_id)
        raise StateUnusable("no space left") if len(begun) == 1 else InvalidRequest("not today")

    first, second = await queued(service, 2)
    line = Line(service.home, Owners(service.home.root, by_name=False), service.admission, start=start)
    await line.resume()
    await eventually(lambda: not line.is_moving)
    assert begun == [first, first, second]


@pytest.mark.usefixtures("noon")
async def test_a_run_waits_while_what_is_left_of_the_day_is_promised_to_another(service: Service) -> None:
    begun: list[str] = []

    async def start(request: RunRequest, run_id: RunId) -> Run:
        begun.append(run_id)
        raise InvalidRequest("not today")

    owners = Owners(service.home.root, by_name=True)
    admission = Admission(service.home, owners, Rules(day_cost=1.0, queued=9))
    line = Line(service.home, owners, admission, start=start)
    request = make_request("x", cwd=service.root)
    held, of_ada, of_bob = (new_run_id(time.time() + number) for number in range(3))
    await admission.reserve(held, request, "ada")
    await line.queue.add(of_ada, request, "ada")
    await line.queue.add(of_bob, request, "bob")
    await line.resume()
    await eventually(lambda: begun == [of_bob])
    admission.release(held)
    await eventually(lambda: not line.is_moving)
    assert begun == [of_bob, of_ada]


async def test_a_check_keeps_its_server_alive(service: Service) -> None:
    run_id, _ = await service.execute({"prompt": "true", "agent": "shell", "verify": "sleep 600"}, who="")
    await eventually(lambda: service.home.folder(run_id).exit_facts() is not None)
    at_work = AtWork(service.home.root, most=BOUND, clock=time.monotonic, checked=service.checked)
    await eventually(lambda: service.checked() == [run_id])
    assert at_work.look()
    await service.control(run_id, "cancel", who="")
    await eventually(lambda: not at_work.look())
    assert (await service.lookup.results(run_id, who=""))["done"]


def test_whose_questions_a_later_server_looks_after_stands_in_the_run_s_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert attendance.kept(folder) is None, "nobody's duty"
    attendance.keep(folder, Place.CALLBACK)
    assert attendance.kept(folder) is not None
    for damage in (b"", b"nobody", b"\xff", b"x" * 200):
        (tmp_path / "attendance").write_bytes(damage)
        assert attendance.kept(folder) is None


async def test_a_run_whose_request_is_not_written_down_yet_can_be_ended(service: Service, tmp_path: Path) -> None:
    """For some milliseconds after its folder was made; here until it has ended."""
    run = await Run.start(make_request("sleep 600", agent="shell", cwd=tmp_path), home=service.home, environ=service.environ)
    request = run.folder.path / records.REQUEST
    request.rename(tmp_path / "request")
    try:
        assert (await service.control(run.run_id, "cancel", who=""))["status"] == "stopping"
    finally:
        (tmp_path / "request").rename(request)
        await run.end(reason="cancel", by="test", now=True)


@pytest.mark.row(
    "faults", "a run that waits is withdrawn twice, or while runs are begun", "it is not begun, is one run, and does not come back"
)
async def test_a_run_that_is_withdrawn_while_it_is_being_started_is_ended_and_is_one_run(service: Service) -> None:
    starting, go = asyncio.Event(), asyncio.Event()

    async def start(request: RunRequest, run_id: RunId) -> Run:
        starting.set()
        await go.wait()
        return await Run.start(request, home=service.home, environ=service.environ, run_id=run_id)

    (run_id,) = await queued(service)
    line = Line(service.home, Owners(service.home.root, by_name=False), service.admission, start=start)
    await line.resume()
    async with asyncio.timeout(BOUND):
        await starting.wait()
        assert (await service.control(run_id, "cancel", who=""))["status"] == "cancelled"
        go.set()
        await eventually(lambda: service.home.folder(run_id).exit_facts())
        await line.aclose()
    await service.lookup.receipt(run_id, who="")  # has it made, and waits for a second alone
    await eventually(lambda: service.home.folder(run_id).has_receipt)
    assert (await service.lookup.results(run_id, who=""))["status"] == "cancelled"
    rows, _ = service.lookup.executions(who="", limit=10)
    assert [row.id for row in rows] == [run_id], "what was begun after all is no longer one that was never started"


async def test_what_was_withdrawn_by_a_server_that_died_in_between_is_not_begun_by_the_next(service: Service) -> None:
    (run_id,) = await queued(service)
    (entry,) = (service.home.root / "server" / "queue").glob("*.json")
    kept, waiting = entry.read_bytes(), service.line.queue.find(run_id)
    assert waiting is not None
    await service.control(run_id, "cancel", who="")
    entry.write_bytes(kept)
    assert not service.line.queue.is_wanted(waiting)
    await service.resume()
    assert (await service.lookup.status(run_id, who=""))["status"] == "cancelled"


@pytest.mark.parametrize("is_over", [True, False])
async def test_an_entry_whose_run_has_been_at_work_does_not_outlast_it(service: Service, is_over: bool) -> None:
    (run_id,) = await queued(service)
    request = make_request("true" if is_over else "sleep 600", agent="shell", cwd=service.root)
    run = await Run.start(request, home=service.home, environ=service.environ, run_id=run_id)
    if is_over:
        await run.finish()
    else:
        await eventually(lambda: run.folder.standing(time.time()) is RunStanding.RUNNING)
    await service.resume()
    assert not list((service.home.root / "server" / "queue").glob("*.json")), "pruned, it would be begun once more"


async def test_a_request_that_is_sent_again_on_another_day_waits_from_that_day_on(service: Service) -> None:
    """Its id is from the first day: it was promised then, and there was no room."""
    run_id = new_run_id(time.time() - 3 * 24 * 3600)
    request = make_request("true", agent="shell", cwd=service.root)
    await service.line.add(run_id, request, "")
    await eventually(lambda: service.home.folder(run_id).receipt() or service.line.queue.over())
    assert (await service.lookup.results(run_id, who=""))["status"] == "ok"


async def test_a_run_that_is_begun_while_the_server_comes_up_is_followed_once(service: Service) -> None:
    told: list[str] = []
    service.tell = lambda event, about: told.append(event)
    async with asyncio.timeout(BOUND), asyncio.TaskGroup() as tasks:
        starting = tasks.create_task(service.execute({"prompt": "sleep 0.2", "agent": "shell"}, who=""))
        while not starting.done():
            await service.resume()
    # A second follower would tell of the end after it has seen the receipt of the first, and then be gone.
    await eventually(lambda: "ended" in told and not any("cc_executor" in task.get_name() for task in asyncio.all_tasks()))
    assert told == ["started", "ended"]


async def test_to_list_what_is_at_work_no_ended_run_is_read(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are kept: their folders are looked at, and their files are not."""
    for _ in range(3):
        run_id, _ = await service.execute({"prompt": "true", "agent": "shell"}, who="")
        await eventually(lambda run_id=run_id: service.home.folder(run_id).receipt())
    going, _ = await service.execute({"prompt": "sleep 600", "agent": "shell"}, who="")
    read: list[str] = []

    def noted(folder: RunFolder, *, now: float, mask: Callable[[str], str]) -> RunSummary:
        read.append(folder.run_id)
        return summary(folder, now=now, mask=mask)

    monkeypatch.setattr("cc_executor.server.lookup.summary", noted)
    rows, following = service.lookup.executions(who="", limit=10, status="running")
    assert ([row.id for row in rows], following, read) == ([going], "", [going])
    assert [row.status for row in service.lookup.executions(who="", limit=10, status="ok")[0]] == ["ok"] * 3


async def test_a_run_whose_lock_was_replaced_hides_no_other_and_holds_up_nobody(service: Service) -> None:
    ids = [(await service.execute({"prompt": "sleep 600", "agent": "shell"}, who=""))[0] for _ in range(2)]
    lock = service.home.folder(ids[0]).path / records.LOCK
    lock.rename(lock.with_suffix(".aside"))
    lock.symlink_to("nowhere")
    try:
        rows, _ = service.lookup.executions(who="", limit=10)
        assert {row.id: row.status for row in rows} == {ids[0]: "unreadable", ids[1]: "running"}
        assert AtWork(service.home.root, most=BOUND, clock=time.monotonic).look(), "the other one keeps the server alive"
        third, _ = await service.execute({"prompt": "true", "agent": "shell"}, who="")
        await eventually(lambda: service.home.folder(third).receipt())
    finally:
        lock.unlink()
        lock.with_suffix(".aside").rename(lock)


async def test_who_asks_for_a_run_whose_lock_was_replaced_is_told_why_there_is_no_answer(service: Service) -> None:
    answers: list[Any] = []

    async def may(_: str) -> bool:
        return True

    async def send(text: str | bytes) -> None:
        answers.append(json.loads(text))

    request = make_request("sleep 600", agent="shell", cwd=service.root)
    run = await Run.start(request, home=service.home, environ=os.environ)  # which the server does not follow
    run_id = run.run_id
    session = Session(service, who="", may=may, send=send)
    lock = service.home.folder(run_id).path / records.LOCK
    lock.rename(lock.with_suffix(".aside"))
    lock.symlink_to("nowhere")
    try:
        with pytest.raises(StateUnusable, match="cannot be read: a symbolic link stands there"):
            await service.lookup.results(run_id, who="")
        with pytest.raises(StateUnusable, match="cannot be read: a symbolic link stands there"):
            service.lookup.piece(run_id, who="", stream="stdout", offset=0, limit=9)
        await session.take(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "watch", "params": {"id": run_id}}))
        await eventually(lambda: answers and answers[-1].get("method") == "end")
        assert "a symbolic link stands there" in answers[-1]["params"]["error"]
    finally:
        session.close()
        lock.unlink()
        lock.with_suffix(".aside").rename(lock)
        await run.end(reason="cancel", by="test", now=True)


# --- one watcher who asks for much at once, and goes ---


def subscribe(run_id: str) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": {"id": run_id}})


async def test_nothing_is_begun_for_a_watcher_who_is_gone(service: Service) -> None:
    asked, allowed = asyncio.Event(), asyncio.Event()
    questions = 0

    async def may(_: str) -> bool:
        nonlocal questions
        questions += 1
        if questions == CALLS:
            asked.set()
        await allowed.wait()
        return True

    async def send(_: str | bytes) -> None:
        raise AssertionError("nobody is there")

    run_id, _ = await service.execute({"prompt": "sleep 600", "agent": "shell"}, who="")
    session = Session(service, who="", may=may, send=send)
    for _ in range(CALLS):
        await session.take(subscribe(run_id))
    async with asyncio.timeout(BOUND), asyncio.TaskGroup() as tasks:
        await asked.wait()
        tasks.create_task(session.take(subscribe(run_id)))  # stands in line for the first that is answered
        await asyncio.sleep(0)
        session.close()
        allowed.set()
    assert questions == CALLS


async def test_a_run_that_is_just_being_started_is_started_though_its_watcher_goes(service: Service) -> None:
    async def may(_: str) -> bool:
        return True

    async def send(_: str | bytes) -> None:
        return

    session = Session(service, who="", may=may, send=send)
    options = {"prompt": "sleep 600", "agent": "shell", "idempotency_key": "one"}
    await session.take(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "execute", "params": options}))
    while not (folders := list(service.home.runs())):  # noqa: ASYNC110 - files
        await asyncio.sleep(0)
    session.close()
    await eventually(lambda: folders[0].standing(time.time()) is not RunStanding.STARTING)
    del options["idempotency_key"]
    assert await service.execute(options, who="", key="one") == (folders[0].run_id, False), "who asks again is given it"
    assert (await service.lookup.status(folders[0].run_id, who=""))["status"] == "running"


@pytest.mark.parametrize("is_late", [False, True], ids=["before it is looked at", "while the batch is answered"])
async def test_a_command_is_obeyed_though_its_sender_goes_at_once(service: Service, *, is_late: bool) -> None:
    async def may(_: str) -> bool:
        if is_late:
            session.close()
        await asyncio.sleep(0)  # as a hub's authorizer, which asks the hub
        return True

    async def send(_: str | bytes) -> None:
        return

    run_id, _ = await service.execute({"prompt": "sleep 600", "agent": "shell"}, who="")
    folder = service.home.folder(run_id)
    await eventually(lambda: folder.standing(time.time()) is RunStanding.RUNNING)
    session = Session(service, who="", may=may, send=send)
    command = {"jsonrpc": "2.0", "method": "control", "params": {"id": run_id, "op": "kill"}}
    watch = {"jsonrpc": "2.0", "id": 1, "method": "watch", "params": {"id": run_id}}
    before = asyncio.all_tasks()
    await session.take(json.dumps([watch, command, watch] if is_late else command))
    if not is_late:
        session.close()
    await eventually(lambda: (receipt := folder.receipt()) is not None and receipt.outcome.kind is OutcomeKind.CANCELLED)
    await eventually(lambda: not asyncio.all_tasks() - before)  # nobody looks on for a watcher who is gone


@pytest.mark.row(
    "threats", "a guest's request that is broken off in the midst of a start", "the run is still the guest's, and nobody else's"
)
async def test_a_run_that_was_ended_in_the_midst_of_its_start_is_still_its_owners(state_folder: Path, tmp_path: Path) -> None:
    home = StateHome(state_folder)
    owners = Owners(home.root, by_name=True, server_owner="alice")
    service = Service(home=home, environ=dict(os.environ), owners=owners, rules=Rules(), root=tmp_path)
    try:
        async with asyncio.timeout(BOUND):
            while not (
                mine := [folder for folder in home.runs() if folder.receipt() is not None]
            ):  # else it had not begun yet, or had already
                async with asyncio.TaskGroup() as tasks:
                    starting = tasks.create_task(service.execute({"prompt": "sleep 600", "agent": "shell"}, who="bob"))
                    while not starting.done() and not any(folder.size(records.CONTROL) for folder in home.runs()):  # noqa: ASYNC110 - files
                        await asyncio.sleep(0)
                    starting.cancel()
                for row in service.lookup.executions(who="bob", limit=9, status="running")[0]:
                    await service.control(row.id, "kill", who="bob")
                    await eventually(lambda row=row: home.folder(row.id).receipt())
                    shutil.rmtree(home.folder(row.id).path)
        assert {owners.owner(folder.run_id) for folder in mine} == {"bob"}
    finally:
        await service.aclose()


async def test_many_who_subscribe_at_once_do_not_get_more_than_one_after_the_other(service: Service) -> None:
    answers: list[Any] = []
    has_all = asyncio.Event()

    async def may(_: str) -> bool:
        return True

    async def send(text: str | bytes) -> None:
        answers.append(json.loads(text))
        if len(answers) == 2 * SUBSCRIPTIONS:
            has_all.set()

    run_id, _ = await service.execute({"prompt": "sleep 600", "agent": "shell"}, who="")
    session = Session(service, who="", may=may, send=send)
    for _ in range(2 * SUBSCRIPTIONS):
        await session.take(subscribe(run_id))
    async with asyncio.timeout(BOUND):
        await has_all.wait()
    session.close()
    assert sum("result" in answer for answer in answers) == SUBSCRIPTIONS


# --- many who ask for what takes long ---


async def test_many_who_ask_whether_the_agent_is_logged_in_hold_up_nobody(
    state_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent says nothing until somebody has been answered who asked for something else."""
    monkeypatch.setattr(login, "LOGIN_BUDGET", BOUND)
    home, cli, gate = StateHome(state_folder), tmp_path / "bin" / "claude", tmp_path / "gate"
    cli.parent.mkdir()
    asked = 'echo >> "$0.asked"; until [ -e "$GATE" ]; do sleep 0.05; done; echo \'{"loggedIn": true, "authMethod": "none"}\''
    cli.write_text(f'#!/bin/sh\nGATE="{gate}"\nif [ "$1" = --version ]; then echo "2.1.197 (Claude Code)"; exit; fi\n{asked}\n')
    cli.chmod(0o700)
    home.prepare()
    environ = {**os.environ, "PATH": f"{cli.parent}{os.pathsep}{os.environ['PATH']}"}
    service = Service(home=home, environ=environ, owners=Owners(home.root, by_name=False), rules=Rules(), root=tmp_path)
    async with asyncio.timeout(BOUND), asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(service.login()) for _ in range(40)]  # more than the loop has threads
        await eventually(cli.with_name("claude.asked").exists)
        run_id, _ = await service.execute({"prompt": "true", "agent": "shell"}, who="")
        await eventually(lambda: home.folder(run_id).receipt())
        gate.touch()
    assert [each.result()["method"] for each in asking] == ["none"] * 40
    assert len(cli.with_name("claude.asked").read_text()) == 1, "it was asked once"
    await service.aclose()


# --- what is odd in a request ---


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"journal_limit": 10**400}, r"^journal_limit must be a size such as 20 GB or 500 MB, or none \(given: 10{70,80}…\)\.$"),
        ({"schema": json.loads('{"a": ' * 300 + "1" + "}" * 300)}, "flatter"),
    ],
    ids=["a size of 400 digits", "300 objects within each other"],
)
async def test_what_no_program_can_hold_is_refused_in_a_sentence(service: Service, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        await service.execute({"prompt": "true", "agent": "shell", **options}, who="")


@pytest.mark.usefixtures("claude_cli")
async def test_a_question_whose_person_does_not_come_back_after_a_restart_is_refused(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"prompt": "Ask.", "rehearse": "question", "ask": True, "cwd": str(tmp_path)}
    run_id, _ = await service.execute(body, who="", asks=Place.CALLBACK)
    await eventually(lambda: service.lookup.asks(run_id), within=BOUND)
    await service.aclose()
    monkeypatch.setattr(attendance, "WAIT", 0.1)
    again = Service(
        home=service.home, environ=dict(os.environ), owners=Owners(service.home.root, by_name=False), rules=Rules(), root=tmp_path
    )
    await again.resume()
    try:
        await eventually(lambda: service.home.find(run_id).receipt() is not None, within=BOUND)
    finally:
        await again.aclose()
    receipt = service.home.find(run_id).receipt()
    assert receipt is not None
    assert [(one.decision, one.by) for one in receipt.asked] == [("refused", "mcp")]
