"""Who is told of runs and lists, with real runs, real commands and a real server: of what, once whoever watches or dies, and with nothing that is secret."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from cc_executor import Result, cc_execute, cc_execute_list, hook, unhook
from cc_executor.errors import ControlFailed, InvalidRequest
from cc_executor.model.ask import Ask
from cc_executor.model.event import PermissionAsked
from cc_executor.model.listrecord import HookTold
from cc_executor.model.notify import Notify, NotifyOn, notify_from
from cc_executor.policy.redact import MASK
from cc_executor.runtime import notices as telling
from cc_executor.runtime.control import command
from cc_executor.runtime.errand import in_thread
from cc_executor.runtime.lost import settle
from cc_executor.runtime.run import Run
from cc_executor.shim import records
from cc_executor.store import notices
from cc_executor.store.home import StateHome
from cc_executor.store.place import WISH
from cc_executor.store.tasklists import ListHome
from support.environments import CHECKOUT
from support.receiver import Receiver, receiving
from support.runs import BASH, eventually, run_folders, shell, started, to_end, until

CANARY: Final = "c4n4ry-9f31"
BOUND: Final = 60.0

needs_cli = pytest.mark.usefixtures("claude_cli")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


async def ran(command: str = "true", **more: Any) -> Result:
    return await cc_execute(command, **BASH, **{"notify_after": 0, **more})


async def received(receiver: Receiver, count: int = 1) -> list[str]:
    await in_thread(lambda: receiver.wait(count))
    return receiver.events


def wish(*targets: str, **more: Any) -> Notify:
    return notify_from(list(targets), environ={}, **{"after": 0, **more})


async def told_nobody_else(receiver: Receiver, count: int = 1) -> None:
    """What comes once more comes with what is sent after it: one server takes both in their order."""
    await ran(notify=receiver.url("/last"))
    await eventually(lambda: receiver.received and receiver.received[-1].path == "/last")
    assert len(receiver.received) == count + 1, receiver.events


# --- runs -------------------------------------------------------------------------------------------------------------


async def test_an_end_is_told_to_a_server_and_to_a_command_in_the_same_words(receiver: Receiver, tmp_path: Path) -> None:
    place = tmp_path / "a b'c.json"
    command = f'command:sh -c "cat > \\"$1\\"; echo $CC_RUN_ID $(pwd) > {tmp_path}/names" - "{place}"'
    result = await ran(f"echo {CANARY}; exit 3", notify=[receiver.url(), command], label=CANARY, cwd=tmp_path)
    await received(receiver)
    await eventually(lambda: (tmp_path / "names").exists() and (tmp_path / "names").read_text())
    [got] = receiver.received
    assert json.loads(place.read_text()) == got.json
    assert got.json["type"] == "run.failed"
    assert got.data == {
        "event": "failed", "run_id": result.receipt.run_id, "list_id": None, "name": None, "outcome": "failed", "ask": None,
        "seconds": result.receipt.times.elapsed, "cost": None, "rehearsed": False,
    }  # fmt: skip
    assert (tmp_path / "names").read_text().split() == [result.receipt.run_id, os.environ["HOME"]], (
        "not in the folder where the agent works"
    )
    assert got.headers["webhook-id"] == f"msg_{result.receipt.run_id}-end-0"
    assert result.status == "failed"
    assert result.receipt.hooks == ()


async def test_a_run_that_is_sealed_cannot_be_cancelled_while_somebody_is_still_told(tmp_path: Path, home: StateHome) -> None:
    os.mkfifo(tmp_path / "gate")
    run = await Run.start(
        shell("true", cwd=tmp_path, verify="true"), home=home, environ=os.environ, notify=wish(f"command:cat {tmp_path}/gate")
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run.finish)
        await eventually(lambda: run.folder.has_receipt)
        with pytest.raises(ControlFailed, match="has ended"):
            await run.cancel()
        await anyio.Path(tmp_path / "gate").write_text("go\n")


async def test_what_was_short_and_what_nobody_wants_to_hear_of_is_not_told(receiver: Receiver) -> None:
    await ran(notify=receiver.url(), notify_after=30)
    await ran(notify=receiver.url(), notify_after=None)  # not given: 30
    await ran(notify=receiver.url(), notify_on="failed,input")
    await ran("exit 1", notify=receiver.url(), notify_on=["done"])
    await told_nobody_else(receiver, count=0)


async def test_bad_wishes_start_nothing(state_folder: Path) -> None:
    bad: list[dict[str, Any]] = [{"notify": "http://example.org/x"}, {"notify": "nonsense"}, {"notify_on": "never"}, {"notify_after": -1}]
    for more in bad:
        with pytest.raises(InvalidRequest):
            await ran(**more)
    assert run_folders(state_folder) == []


async def test_the_environment_names_targets_and_a_word_of_the_call_wins(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEAM_HOOK", receiver.url("/team"))
    monkeypatch.setenv("CC_EXECUTOR_NOTIFY", '["env:TEAM_HOOK"]')
    monkeypatch.setenv("CC_EXECUTOR_NOTIFY_AFTER", "0")
    await cc_execute("true", **BASH)
    await received(receiver)
    await cc_execute("true", **BASH, notify="none")
    await cc_execute("true", **BASH, notify_on="failed")
    await cc_execute_list([{"id": "a", "run": "true"}], cwd=tmp_path)
    await received(receiver, 2)
    assert [(each.path, each.json["type"]) for each in receiver.received] == [("/team", "run.done"), ("/team", "list.done")]
    monkeypatch.setenv("CC_EXECUTOR_NOTIFY", f"[{CANARY}")
    with pytest.raises(InvalidRequest, match="CC_EXECUTOR_NOTIFY is no JSON") as caught:
        await cc_execute("true", **BASH)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "given"),
    [
        ("CC_EXECUTOR_NOTIFY_ON", "ended", "notify"),
        ("CC_EXECUTOR_NOTIFY_ON", "ended", "CC_EXECUTOR_NOTIFY"),
        ("CC_EXECUTOR_NOTIFY_AFTER", "-3", "CC_EXECUTOR_NOTIFY"),
        ("CC_EXECUTOR_NOTIFY_AFTER", "soon", "notify"),
        ("CC_EXECUTOR_NOTIFY_SECRET", "whsec_c2hvcnQ=", "notify"),
    ],
)
def test_what_is_wrong_in_the_environment_is_told_by_the_variable_s_name(variable: str, value: str, given: str) -> None:
    environ = {variable: value, "CC_EXECUTOR_NOTIFY": "command:true"}
    with pytest.raises(InvalidRequest, match=rf"{variable}\b"):
        telling.wish_of("command:true" if given == "notify" else None, environ=environ)
    for option in ("after", "on"):
        with pytest.raises(InvalidRequest, match=f"notify_{option} "):
            telling.wish_of(None, **{option: "never"}, environ={"CC_EXECUTOR_NOTIFY": "command:true"})


@pytest.mark.row(
    "faults", "nobody can be told: a webhook is refused, a command fails", "it is told in the view and kept; the run and its verdict stand"
)
async def test_who_cannot_be_told_is_told_of_and_changes_nothing(
    receiver: Receiver, home: StateHome, caplog: pytest.LogCaptureFixture, saw: Any
) -> None:
    receiver.answers = [404]
    targets = wish(receiver.url(f"/{CANARY}"), f"command:sh -c 'echo no {CANARY[:4]} >&2; exit 7'", f"command:/no/such/{CANARY}")
    run = await Run.start(shell("true"), home=home, environ=os.environ, notify=targets)
    with caplog.at_level(logging.WARNING, "cc_executor"):
        receipt = await run.finish()
        said: list[str] = []
        await eventually(lambda: said.extend(run.told()) or len(said) == 3)
    assert receipt.outcome.ok
    assert receipt.is_intact
    host = f"http://127.0.0.1:{receiver.port}"
    assert f"{host} could not be told: it answered 404" in said
    assert "command sh could not be told: exit code 7: no c4n4" in said
    assert any(each.startswith(f"command {CANARY} could not be told: exit code 127") for each in said)
    assert len(caplog.records) == 3
    mark = (run.folder.path / "told.end").read_text().splitlines()
    assert f"done {host}: it answered 404" in mark
    saw("3 of 3 told of, outcome ok")


@pytest.mark.row(
    "threats", "the secret part of a webhook's address", "nowhere on the disk, in no log, receipt or error when the run has ended"
)
async def test_neither_prompt_nor_output_is_sent_and_no_address_stays(
    receiver: Receiver, home: StateHome, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    os.mkfifo(tmp_path / "gate")
    run = await Run.start(
        shell(f"echo out-{CANARY}; read x < gate", cwd=tmp_path, label=f"label-{CANARY}"),
        home=home,
        environ=os.environ,
        notify=wish(receiver.url(f"/services/tok-{CANARY}?sig=tok-{CANARY}"), "command:true"),
    )
    held = run.folder.path / WISH
    assert held.stat().st_mode & 0o777 == 0o600
    await anyio.Path(tmp_path / "gate").write_text("x\n")
    receipt = await run.finish()
    await received(receiver)
    assert not held.exists()
    [got] = receiver.received
    assert CANARY.encode() not in got.body
    assert str(tmp_path).encode() not in got.body
    assert CANARY not in "".join(value for name, value in got.headers.items())
    for path in home.root.rglob("*"):
        with suppress(FileNotFoundError):  # the history may still be being written
            assert not path.is_file() or f"tok-{CANARY}".encode() not in path.read_bytes(), path
    assert f"tok-{CANARY}" not in receipt.model_dump_json() + caplog.text


# --- once -------------------------------------------------------------------------------------------------------------

WATCHER: Final = """
import asyncio, os, sys
from cc_executor.runtime.run import Run
from cc_executor.store.home import StateHome, state_path
async def main():
    run = await Run.attach(StateHome(state_path(os.environ)), sys.argv[1], environ=os.environ)
    print("watches", flush=True)
    await run.finish()
asyncio.run(main())
"""

STARTER: Final = """
import asyncio, os, sys
from cc_executor import cc_execute
asyncio.run(cc_execute(sys.argv[1], agent="shell", shell="bash", cwd=sys.argv[2], notify=sys.argv[3], notify_after=0, on_kernel_exit=sys.argv[4]))
"""


def python(script: str, *arguments: str) -> subprocess.Popen[str]:
    environ = {**os.environ, "PYTHONPATH": str(CHECKOUT / "src")}
    return subprocess.Popen([sys.executable, "-c", script, *arguments], env=environ, stdout=subprocess.PIPE, text=True)


@pytest.mark.row("faults", "several watch a run to its end, in several processes", "whoever is to be told is told once")
async def test_however_many_watch_it_is_told_once(receiver: Receiver, home: StateHome, tmp_path: Path, saw: Any) -> None:
    os.mkfifo(tmp_path / "gate")
    run = await Run.start(shell("read x < gate", cwd=tmp_path), home=home, environ=os.environ, notify=wish(receiver.url()))
    others = [python(WATCHER, run.run_id) for _ in range(2)]
    for other in others:
        assert other.stdout is not None
        assert await in_thread(other.stdout.readline) == "watches\n"
    second = await Run.attach(home, run.run_id, environ=os.environ)
    await anyio.Path(tmp_path / "gate").write_text("x\n")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run.finish)
        tasks.start_soon(second.finish)
        for other in others:
            tasks.start_soon(in_thread, other.wait)
    for other in others:
        assert other.stdout is not None
        other.stdout.close()
    await (await Run.attach(home, run.run_id, environ=os.environ)).finish()
    await told_nobody_else(receiver)
    saw("4 watched, told 1 time")


@pytest.mark.row(
    "faults", "whoever started a run is killed; it is sealed later by somebody else", "whoever is to be told is told once, by that one"
)
@pytest.mark.parametrize("how", ["adopted", "lost"])
async def test_who_seals_it_later_tells_it_once(how: str, receiver: Receiver, home: StateHome, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    starter = python(STARTER, "read x < gate", str(tmp_path), receiver.url(), "continue")
    await eventually(lambda: any((folder / records.CONTROL).exists() for folder in run_folders(home.root)), within=BOUND)
    folder = home.find(run_folders(home.root)[0].name)
    await eventually(folder.is_supervised, within=BOUND)
    starter.kill()
    await in_thread(starter.wait)
    if how == "lost":
        run = await Run.attach(home, folder.run_id, environ=os.environ)
        state = await until(run, lambda state: state.started)
        assert state.started is not None
        os.kill(state.started.shim_pid, signal.SIGKILL)
        await eventually(lambda: not folder.is_supervised())
        assert await in_thread(lambda: settle(home, environ=os.environ)) == [folder.run_id]
    else:
        await anyio.Path(tmp_path / "gate").write_text("x\n")
        run = await Run.attach(home, folder.run_id, environ=os.environ)
        await to_end(run)
        await run.finish()
    assert starter.stdout is not None
    starter.stdout.close()
    assert await received(receiver) == ["run.failed" if how == "lost" else "run.done"]
    assert receiver.received[0].data["outcome"] == ("lost" if how == "lost" else "ok")
    await told_nobody_else(receiver)


def test_a_mark_is_made_once_whatever_it_is_called(tmp_path: Path) -> None:
    for what in ("end", "ask-1", "../../x/\udc80", "ä" * 300):
        found: list[Path | None] = []

        def claim(what: str = what, found: list[Path | None] = found) -> None:
            found.append(notices.claim(tmp_path, what))

        threads = [threading.Thread(target=claim) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len([each for each in found if each is not None]) == 1
    assert {path.parent for path in tmp_path.rglob("*")} == {tmp_path}
    assert notices.claim(tmp_path / "gone", "end") is None, "where no mark can be made, nobody is told: it might be twice"


async def test_a_full_or_missing_folder_costs_no_run(receiver: Receiver, home: StateHome) -> None:
    run = await started("true", home=home)
    (run.folder.path / WISH).write_text("{torn")
    await to_end(run)
    again = await Run.attach(home, run.run_id, environ=os.environ)
    assert (await again.finish()).outcome.ok
    assert receiver.received == []


# --- questions --------------------------------------------------------------------------------------------------------


@needs_cli
async def test_a_question_that_waits_is_told_once_and_one_that_code_answers_is_not(
    receiver: Receiver, tmp_path: Path, saw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = threading.Event()

    def answer(ask: Ask) -> object:
        if not first.is_set():  # somebody thinks until he is told that he is waited for
            first.set()
            receiver.wait(1, within=BOUND)
            monkeypatch.setattr(
                telling, "GRACE", 2 * BOUND
            )  # what is answered at once is, also where a busy machine needs two seconds for it
        return True

    with anyio.fail_after(2 * BOUND):
        result = await cc_execute(
            f"Go {CANARY}.",
            cwd=tmp_path,
            rehearse="approval",
            permission_mode="default",
            on_ask=answer,
            notify=receiver.url(),
            notify_after=0,
        )
    await received(receiver, 2)
    assert result.ok
    assert receiver.events == ["run.input", "run.done"]
    assert (receiver.received[0].data["ask"], receiver.received[0].data["run_id"]) == ("permission", result.receipt.run_id)
    assert all(CANARY.encode() not in each.body for each in receiver.received)
    assert len(result.receipt.asked) == 3
    assert len(list(result.folder.glob("told.ask-*"))) == 1
    saw("3 asked, 1 waited and was told")


async def test_a_question_that_is_answered_before_its_time_is_told_to_nobody(
    receiver: Receiver, home: StateHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "GRACE", 0.0)

    def listens() -> bool:
        with suppress(ControlFailed):  # not yet
            return bool(command(run.folder, "status"))
        return False

    run = await started("exec sleep 600", home=home)  # it goes on, and asks nothing by now
    told = telling.RunNotices(run.folder, wish(receiver.url()), environ=os.environ, say=str)
    await eventually(listens)
    told.asked((PermissionAsked(ask_id="1", tool_id="t", name="Bash"),))
    for thread in threading.enumerate():
        if thread.name == "cc_executor notify":
            await in_thread(lambda thread=thread: thread.join(BOUND))
    assert receiver.received == []
    assert not list(run.folder.path.glob("told.*"))
    await run.cancel(by="test")
    await run.finish()


@needs_cli
async def test_a_question_is_told_once_by_two_who_watch(receiver: Receiver, home: StateHome, tmp_path: Path) -> None:
    from cc_executor.api import make_request
    from cc_executor.runtime.answers import open_asks

    request = make_request("Go.", cwd=tmp_path, rehearse="approval", permission_mode="default", ask=True)
    run = await Run.start(request, home=home, environ=os.environ, notify=wish(receiver.url(), on=["input"]))
    other = await Run.attach(home, run.run_id, environ=os.environ)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(to_end, run)
        tasks.start_soon(to_end, other)
        assert await received(receiver) == ["run.input"]
        assert len(await in_thread(lambda: open_asks(run.folder))) == 1
        assert len(list(run.folder.path.glob("told.ask-*"))) == 1
        await run.cancel()
    await run.finish()
    await told_nobody_else(receiver)


# --- lists ------------------------------------------------------------------------------------------------------------


async def test_a_secret_in_the_name_of_a_list_is_not_sent(receiver: Receiver, tmp_path: Path) -> None:
    tasks: Any = {"name": "with sk-ant-REDACTED", "tasks": [{"id": "a", "run": "true"}]}
    await cc_execute_list(tasks, cwd=tmp_path, notify=receiver.url(), notify_after=0)
    await received(receiver)
    assert receiver.received[0].data["name"] == f"with {MASK}"


async def test_a_list_tells_once_for_all_and_not_again_when_there_is_nothing_to_do(
    receiver: Receiver, home: StateHome, tmp_path: Path
) -> None:
    tasks = [{"id": name, "run": "true"} for name in "abc"]
    for _ in range(2):
        result = await cc_execute_list(tasks, cwd=tmp_path, name=f"nightly-{CANARY}", notify=receiver.url(), notify_after=0)
    await received(receiver)
    assert receiver.events == ["list.done"]
    data = receiver.received[0].data
    assert (data["list_id"], data["run_id"], data["name"], data["outcome"]) == (result.list_id, None, f"nightly-{CANARY}", "ok")
    assert not (ListHome(home).find(result.list_id).path / WISH).exists()
    await told_nobody_else(receiver)


async def test_each_round_of_a_list_is_told_and_its_failure_to_tell_stands_in_its_journal(
    receiver: Receiver, home: StateHome, tmp_path: Path
) -> None:
    tasks = [{"id": "a", "run": "test -e there"}]
    receiver.answers = [404]
    first = await cc_execute_list(tasks, cwd=tmp_path, notify=receiver.url(f"/{CANARY}"), notify_after=0)
    (tmp_path / "there").touch()
    second = await cc_execute_list(tasks, cwd=tmp_path, notify=receiver.url(), notify_after=0)
    await received(receiver, 2)
    assert (first.status, second.status, first.list_id) == ("failed", "ok", second.list_id)
    assert [(each.json["type"], each.data["outcome"]) for each in receiver.received] == [("list.failed", "failed"), ("list.done", "ok")]

    def told() -> list[str]:
        return [record.text for record in ListHome(home).find(first.list_id).read()[0] if isinstance(record, HookTold)]

    await eventually(told)  # an end waits two seconds for those who tell it, and no longer
    assert told() == [f"http://127.0.0.1:{receiver.port} could not be told: it answered 404"]


LIST: Final = """
import asyncio, json, sys
from cc_executor import cc_execute_list
asyncio.run(cc_execute_list(json.loads(sys.argv[1]), cwd=sys.argv[2], notify=sys.argv[3], notify_after=0))
"""


@pytest.mark.row("faults", "whoever runs a list is killed, and somebody else goes on", "its end is told once, by the one who sees it")
async def test_who_goes_on_with_a_list_tells_its_end_once(receiver: Receiver, home: StateHome, tmp_path: Path) -> None:
    from cc_executor.tasks import carry_on

    os.mkfifo(tmp_path / "gate")
    tasks = [{"id": "a", "run": "read x < gate"}, {"id": "b", "run": "true", "needs": "a"}]
    first = python(LIST, json.dumps(tasks), str(tmp_path), receiver.url())
    await eventually(lambda: any((folder / records.CONTROL).exists() for folder in run_folders(home.root)), within=BOUND)
    first.kill()
    await in_thread(first.wait)
    assert first.stdout is not None
    first.stdout.close()
    [folder] = ListHome(home).folders()
    async with anyio.create_task_group() as both:
        for _ in range(2):
            both.start_soon(lambda: carry_on(folder, home=home, environ=os.environ))
        await anyio.Path(tmp_path / "gate").write_text("x\n")
    assert await received(receiver) == ["list.done"]
    await told_nobody_else(receiver)


@needs_cli
async def test_a_list_tells_what_its_runs_ask_and_no_end_of_theirs(receiver: Receiver, home: StateHome, tmp_path: Path) -> None:
    from cc_executor.policy.ask import Place, answerer
    from cc_executor.runtime.answers import give, open_asks
    from cc_executor.runtime.attempt import Watcher
    from cc_executor.runtime.listhooks import keep_notify
    from cc_executor.runtime.tasklist import run_list
    from cc_executor.taskplan import plan, request_of

    made = plan([{"id": "a", "prompt": "Go.", "rehearse": "approval", "permission_mode": "default", "ask": True}], cwd=tmp_path, name="n")
    folder = ListHome(home).open(made.tasks)
    keep_notify(folder, wish(receiver.url()))

    async def answered() -> None:
        while True:
            for run in run_folders(home.root):
                found = home.find(run.name)
                with suppress(ControlFailed):  # it has not begun to listen, or has ended
                    for ask in await in_thread(lambda found=found: open_asks(found)):
                        if receiver.received:
                            from cc_executor.model.ask import Answer, Decision

                            await in_thread(lambda found=found, ask=ask: give(found, ask, Answer(decision=Decision.ALLOW_RUN), by="test"))
            await anyio.sleep(0.05)

    async with anyio.create_task_group() as beside:
        beside.start_soon(answered)
        with anyio.fail_after(2 * BOUND):
            await run_list(
                folder,
                home=home,
                environ=os.environ,
                request_of=lambda task, text, cost, session: request_of(made.tasks, task, text, cost, session),
                calls={},
                watcher=Watcher(who=lambda: answerer(Place.CALLBACK)),
            )
        beside.cancel_scope.cancel()
    await received(receiver, 2)
    assert (receiver.events[0], receiver.events[-1]) == ("run.input", "list.done")
    assert set(receiver.events) == {"run.input", "list.done"}
    assert (receiver.received[0].data["list_id"], receiver.received[0].data["name"]) == (folder.list_id, "n")


# --- what a command starts --------------------------------------------------------------------------------------------


async def test_what_a_hook_starts_tells_nobody(receiver: Receiver) -> None:
    @hook("after_run")
    async def another(given: dict[str, Any]) -> None:
        await ran("echo inner", notify=receiver.url("/inner"))

    try:
        await ran(notify=receiver.url("/outer"))
    finally:
        unhook(another)
    await received(receiver)
    assert [each.path for each in receiver.received] == ["/outer"]
    assert NotifyOn.DONE in wish().on
