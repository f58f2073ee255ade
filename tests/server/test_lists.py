"""Task lists over HTTP, at a real `jupyter server` on loopback; and what is known before a run and of those before it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import anyio
import httpx
import psutil
import pytest

from cc_executor.errors import InvalidTaskList, LaunchFailed
from cc_executor.model.event import StopRequested
from cc_executor.model.listrecord import Closed, ListState, ListStatus, Stopped
from cc_executor.model.request import RunRequest
from cc_executor.policy.schedule import bounded
from cc_executor.rehearsal import scripts
from cc_executor.runtime.detached import RUNNER
from cc_executor.server.listcare import Kept
from cc_executor.server.listrequest import ListRequests
from cc_executor.server.owners import Owners
from cc_executor.server.refusal import Refused
from cc_executor.server.service import Rules, Service
from cc_executor.store.home import StateHome, new_run_id
from cc_executor.store.tasklists import ListFolder, ListHome
from cc_executor.taskplan import plan
from cc_executor.tasks import carry_on
from support import runs
from support.environments import CHECKOUT
from support.looks import eventually
from support.served import API, TOKEN, Server, control, get, results, serving

BOUND: Final = 60.0
Json = dict[str, Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Here a name is a cookie's: each client is somebody else."""
    with serving(tmp_path_factory.mktemp("lists"), "--CCExecutorServer.max_running=3", "--CCExecutorServer.owner_mode=user") as found:
        yield found


@pytest.fixture
def bob(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=server.client.base_url, headers={"Authorization": f"token {TOKEN}"}, timeout=BOUND, trust_env=False
    ) as client:
        client.get(f"{API}/health")
        yield client


def post(server: Server, tasks: list[Any], *, key: str = "", **more: Any) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return server.client.post(f"{API}/execute", json={"tasks": tasks, **more}, headers=headers)


def start(server: Server, tasks: list[Any], **more: Any) -> str:
    answer = post(server, tasks, **more)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def states(server: Server, name: str) -> dict[str, str]:
    return {task["task"]: task["status"] for task in get(server, name, "status")["tasks"]}


def await_state(server: Server, name: str, **wanted: str) -> Json:
    def reached() -> Json | None:
        told = get(server, name, "status")
        known = {"list": told["status"], **{task["task"]: task["status"] for task in told["tasks"]}}
        return told if all(known[key] == value for key, value in wanted.items()) else None

    return eventually(reached, within=BOUND, what=f"{name} is {wanted}")


def runner_of(name: str) -> psutil.Process:
    def found() -> psutil.Process | None:
        for process in psutil.process_iter(["cmdline"]):
            if {RUNNER, name} <= set(process.info["cmdline"] or ()):
                return process
        return None

    return eventually(found, within=BOUND, what="the list has a runner")


def gate(path: Path) -> str:
    """A command that waits for a file."""
    return f"until [ -e {path} ]; do sleep 0.05; done"


@contextlib.contextmanager
def ended(server: Server, name: str) -> Iterator[None]:
    try:
        yield
    finally:
        control(server, name, "kill")
        results(server, name)


def test_a_server_whose_names_mean_nobody_says_so_in_its_log(server: Server) -> None:
    (line,) = [line for line in server.log.splitlines() if "owner_mode" in line]
    assert "W" in line.split()[0]
    with httpx.Client(
        base_url=server.client.base_url, headers={"Authorization": f"token {TOKEN}"}, timeout=BOUND, trust_env=False
    ) as nobody:
        run_id = nobody.post(f"{API}/execute", json={"prompt": "true", "agent": "shell"}).json()["id"]
        nobody.cookies.clear()
        assert nobody.get(f"{API}/executions/{run_id}/status").status_code == 404, "as the line says"


def test_a_list_from_its_request_to_its_receipts(server: Server) -> None:
    log = server.root / "order.txt"
    tasks: list[Json] = [
        {"id": "last", "title": "Count them", "run": "wc -w < $CC_NEEDS/first.txt; echo last >> order.txt", "needs": ["first", "second"]},
        {"id": "first", "run": "echo one two; echo first >> order.txt"},
        {"id": "second", "run": "echo second >> order.txt"},
    ]
    answer = post(server, tasks, name="three")
    name = answer.json()["id"]
    assert (answer.status_code, answer.json()) == (202, {"id": name, "execution_id": name, "new": True})
    assert answer.headers["Location"] == f"{API}/executions/{name}/status"
    told = results(server, name)
    assert (told["status"], told["completed_tasks"], told["failed_tasks"], told["next_offset"]) == ("ok", 3, 0, None)
    assert log.read_text().split() == ["first", "second", "last"]
    last = told["results"][0]
    assert (last["task"], last["text"].strip(), last["standing"]) == ("last", "2", "claimed")
    receipt = get(server, last["run_id"], "receipt")
    assert receipt["digest"] == last["digest"]
    status = get(server, name, "status")
    assert {task["task"]: task["run_id"] for task in status["tasks"]}["last"] == last["run_id"]
    assert get(server, name, "status", offset=1, limit=1) | {"tasks": []} == status | {"tasks": [], "next_offset": 2}
    again = post(server, tasks, name="three").json()
    assert (again["id"], again["new"]) == (name, False)
    assert log.read_text().split() == ["first", "second", "last"], "what ended well is not done again"
    fresh = start(server, tasks, name="three", fresh=True)
    assert fresh != name
    assert results(server, fresh)["status"] == "ok"
    assert len(log.read_text().split()) == 6


def test_the_answer_comes_before_the_list_begins(server: Server) -> None:
    took: list[float] = []
    while len(took) < 3 or (min(took) >= 0.2 and len(took) < 10):  # once more when the machine had something else to do
        number = len(took)
        began = time.monotonic()
        name = start(server, [f"{number}"], defaults={"rehearse": "hello"})
        took.append(time.monotonic() - began)
        assert control(server, name, "cancel").status_code == 200
        assert results(server, name)["status"] == "stopped"
    assert min(took) < 0.2, took


def test_the_payload_of_an_earlier_system(server: Server) -> None:
    name = start(server, ["Say hello.", "Say it again."], timeout_per_task=300, defaults={"rehearse": "hello"})
    told = results(server, name)
    assert (told["execution_id"], told["total_tasks"], told["progress"]) == (name, 2, "2/2 tasks completed")
    first, second = told["results"]
    assert {key: first[key] for key in ("task_number", "task_description", "exit_code", "stderr")} == {
        "task_number": 1, "task_description": "Say hello.", "exit_code": 0, "stderr": "",
    }  # fmt: skip
    assert first["stdout"] == first["text"]
    assert "rehearsal" in first["text"]
    times = [get(server, each["run_id"], "receipt")["times"] for each in (first, second)]
    assert times[1]["started"] >= times[0]["ended"], "one after the other"
    assert first["completed_at"] == times[0]["ended"].replace("Z", "+00:00")
    assert server.home.find(first["run_id"]).request().limits.wall == 300


def test_a_failure_skips_only_what_needs_it(server: Server) -> None:
    tasks: list[Json] = [
        {"id": "bad", "run": "echo why >&2; exit 3"},
        {"id": "after", "run": "true", "needs": "bad"},
        {"id": "apart", "run": "echo fine"},
    ]
    name = start(server, tasks, on_failure="skip")
    told = results(server, name)
    assert (told["status"], told["completed_tasks"], told["failed_tasks"]) == ("failed", 1, 1)
    assert told["progress"] == "1/3 tasks completed"
    assert states(server, name) == {"bad": "failed", "after": "skipped", "apart": "ok"}
    assert [row["exit_code"] for row in told["results"]] == [3, 1, 0]
    (server.root / "mended").touch()
    assert control(server, name, "retry", task="bad").status_code == 200
    assert results(server, name)["results"][0]["attempts"] == 2


TASK: Final[Json] = {"id": "one", "run": "true"}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"tasks": []}, "tasks: is empty"),
        ({"tasks": "one"}, "tasks: is missing, or no list"),
        ({"tasks": None}, "tasks: is missing, or no list"),
        ({"tasks": [5]}, "tasks[0] '1': must be a prompt"),
        ({"tasks": [None]}, "tasks[0] '1': must be a prompt"),
        ({"tasks": [[]]}, "tasks[0] '1': must be a prompt"),
        ({"tasks": [{}]}, "tasks[0] '1': has nothing to do"),
        ({"tasks": [{"id": "x"}]}, "tasks[0] 'x': has nothing to do"),
        ({"tasks": [{"prompt": "p", "run": "r"}]}, "tasks[0] '1': has prompt and run"),
        ({"tasks": ["  "]}, "tasks[0] '1': has nothing to do"),
        ({"tasks": [{"prompt": 5}]}, "tasks[0] '1': prompt must be a valid string"),
        ({"tasks": [{"call": "os.system"}]}, "only Python code can give a callable"),
        ({"tasks": [TASK | {"id": "a b"}]}, "tasks[0] 'a b': id must be letters"),
        ({"tasks": [TASK | {"id": 7}, TASK | {"id": 7}]}, "stands 2 times"),
        ({"tasks": [TASK | {"needs": "two"}]}, "tasks[0] 'one': needs 'two', and there is no such task"),
        ({"tasks": [TASK | {"needs": 5}]}, "tasks[0] 'one': needs '5', and there is no such task"),
        ({"tasks": [TASK | {"needs": "one"}]}, "need each other in a circle"),
        ({"tasks": [TASK | {"group": 5}]}, "tasks[0] 'one': group must be"),
        ({"tasks": [TASK | {"on_failure": "die"}]}, "tasks[0] 'one': on_failure must be"),
        ({"tasks": [TASK | {"retry": -1}]}, "tasks[0] 'one': retry must be"),
        ({"tasks": [TASK | {"timeout": "soon"}]}, "tasks[0] 'one': timeout"),
        ({"tasks": [TASK | {"retries": 3}]}, "retries"),
        ({"tasks": [TASK | {"agent": "shell"}]}, "has the option 'agent'"),
        ({"tasks": [TASK | {"cwd": 5}]}, "tasks[0] 'one'"),
        ({"tasks": [{"prompt": "p", "model": 5}]}, "tasks[0] '1': model"),
        ({"tasks": [{"prompt": "p", "rehearse": 5}]}, "tasks[0] '1'"),
        ({"tasks": [{"prompt": "p", "schema": 5}]}, "tasks[0] '1'"),
        ({"tasks": [{"prompt": "p", "tools": 5}]}, "tasks[0] '1'"),
        ({"tasks": [{"prompt": "p", "limits": {}}]}, "tasks[0] '1': limits"),
        ({"tasks": [{"prompt": "p", "cli": "/bin/sh"}]}, "tasks[0] '1': cli is not an option of a request"),
        ({"tasks": [{"prompt": "p", "validate": 5}]}, "tasks[0] '1': validate"),
        ({"tasks": [{"prompt": "{{ needs.two.text }}"}]}, "there is no task 'two'"),
        ({"tasks": [TASK], "defaults": 5}, "defaults: must be a mapping"),
        ({"tasks": [TASK], "defaults": {"environ": {}}}, "defaults: environ is not an option of a request"),
        ({"tasks": [TASK], "defaults": {"timeout": -1}}, "tasks[0] 'one': timeout"),
        ({"tasks": [TASK], "timeout_per_task": "long"}, "tasks[0] 'one': timeout"),
        ({"tasks": [TASK], "parallel": 0}, "parallel: must be"),
        ({"tasks": [TASK], "name": 5}, "name: must be"),
        ({"tasks": [TASK], "max_cost": -1}, "max_cost: must be"),
        ({"tasks": [TASK], "on_failure": "die"}, "on_failure: must be"),
        ({"tasks": [TASK], "on_limit": "hope"}, "on_limit: must be"),
        ({"tasks": [TASK], "cwd": 5}, "cwd: must be a path"),
        ({"tasks": [TASK], "cwd": "nowhere"}, "cwd: there is no folder"),
        ({"tasks": [TASK], "hooks": {"after_list": "x"}}, "hooks: are nothing that comes over a network"),
        ({"tasks": [TASK], "prompt": "p"}, "prompt: stands beside tasks"),
        ({"tasks": [TASK], "execution_id": "mine"}, "execution_id: is given by the server"),
        ({"tasks": [TASK], "fresh": "yes"}, "fresh: must be true or false"),
        ({"tasks": [TASK], "lint": 5}, "lint must be on or off"),
        ({"tasks": [TASK], "name_of": 5}, "name_of: is nothing that a list has"),
        ({"tasks": [TASK], "items": 5}, "items: is nothing that a list has"),
        ({"tasks": [{"prompt": "half a character: \ud800"}]}, "no text or no number"),
        ({"tasks": [{"prompt": "p", "schema": {"minimum": float("nan")}}]}, "schema cannot be written as JSON"),
        ({"tasks": [TASK | {"timeout": float("inf")}]}, "tasks[0] 'one': timeout"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(server: Server, body: Json, says: str) -> None:
    answer = server.client.post(f"{API}/execute", content=json.dumps(body))
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["kind"] == "InvalidTaskList"
    assert any(says in problem for problem in error["problems"]), error["problems"]
    validated = server.client.post(f"{API}/validate", content=json.dumps(body))
    assert (validated.status_code, validated.json()) == (200, {"ok": False, "problems": error["problems"]})


def test_all_that_is_wrong_is_told_at_once(server: Server) -> None:
    tasks: list[Any] = [{"id": "a", "run": "x", "timeout": -1}, {"id": "a", "run": "y", "needs": "z"}, 5, {"prompt": "p", "cli": "/x"}]
    problems = post(server, tasks, parallel=0, cwd="nowhere", hooks={}, bogus=1).json()["error"]["problems"]
    assert [problem.partition(" ")[0].rstrip(":") for problem in problems] == [
        "hooks", "cwd", "tasks[3]", "tasks[2]", "bogus", "parallel", "tasks[0]", "tasks[1]", "tasks[1]", "tasks[0]",
    ], problems  # fmt: skip
    assert not [folder for folder in ListHome(server.home).folders() if folder.tasks().tasks[0].text == "x"], "nothing is kept of it"


@pytest.mark.row("threats", "somebody else's run or list on a server", "is not found, by whatever address")
def test_somebody_elses_list_is_not_there(server: Server, bob: httpx.Client) -> None:
    tasks: list[Json] = [{"id": "mine", "run": "echo of alice", "label": "x"}]
    del tasks[0]["label"]
    name = start(server, tasks, name="private")
    run_id = results(server, name)["results"][0]["run_id"]
    for execution in (name, run_id, name[:-1] + "9"):
        for what in ("status", "results"):
            assert bob.get(f"{API}/executions/{execution}/{what}").status_code == 404
        assert bob.post(f"{API}/executions/{execution}/control", json={"op": "cancel"}).status_code == 404
        assert bob.delete(f"{API}/executions/{execution}").status_code == 404
    assert bob.get(f"{API}/executions/{name}/events").status_code == 404
    assert server.client.get(f"{API}/executions/{name}/events").status_code == 400, "a list has no output of its own"
    listed = [row["id"] for row in server.client.get(f"{API}/executions", params={"limit": 500}).json()["executions"]]
    assert {name, run_id} <= set(listed)
    assert bob.get(f"{API}/executions").json()["executions"] == []
    his = bob.post(f"{API}/execute", json={"tasks": tasks, "name": "private"}).json()
    assert his["new"], "an equal list of somebody else is another one"
    assert his["id"] != name
    eventually(lambda: bob.get(f"{API}/executions/{his['id']}/results").json()["done"], within=BOUND, what="his list ends")
    assert [row["kind"] for row in bob.get(f"{API}/executions").json()["executions"]] == ["run", "list"]
    assert server.client.get(f"{API}/executions/{his['id']}/status").status_code == 404
    mine, theirs = (each.get(f"{API}/history", params={"text": "mine"}).json()["runs"] for each in (server.client, bob))
    assert [[row["run_id"]] for row in mine] == [[run_id]]
    assert len(theirs) == 1
    assert theirs[0]["run_id"] != run_id


def test_one_key_is_one_list(server: Server) -> None:
    (server.root / "once.txt").unlink(missing_ok=True)
    tasks: list[Json] = [{"run": "echo once >> once.txt"}]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(server, tasks, key="k-1", fresh=True), range(8)))
    assert {answer.status_code for answer in answers} == {202}
    name = answers[0].json()["id"]
    assert {answer.json()["id"] for answer in answers} == {name}
    assert sum(answer.json()["new"] for answer in answers) == 1
    assert results(server, name)["status"] == "ok"
    assert post(server, tasks, key="k-1", fresh=True).json()["new"] is False
    assert (server.root / "once.txt").read_text() == "once\n"
    other = post(server, [{"run": "true"}], key="k-1")
    assert (other.status_code, other.json()["error"]["kind"]) == (409, "KeyReused")


def test_a_list_is_commanded(server: Server, tmp_path: Path) -> None:
    tasks: list[Json] = [
        {"id": "long", "run": f"while true; do echo tick >> {tmp_path}/ticks; sleep 0.05; done"},
        {"id": "left", "run": "echo never"},
        {"id": "next", "run": "echo next", "needs": []},
    ]
    name = start(server, tasks, on_failure="continue")
    with ended(server, name):
        eventually((tmp_path / "ticks").exists, within=BOUND, what="it runs")
        assert control(server, name, "edit", task="long", text="true").status_code == 409, "it has begun"
        assert control(server, name, "skip", task="left").json()["task"] == "left"
        assert control(server, name, "edit", task="next", text="echo edited").status_code == 200
        assert control(server, name, "edit", task="next", text=" ").status_code == 400
        assert control(server, name, "pause").json()["status"] == "paused"
        eventually(lambda: _stands(server, name), within=BOUND, what="its run stands still")
        assert control(server, name, "resume").json()["status"] == "running"
        ticks = (tmp_path / "ticks").stat().st_size
        eventually(lambda: (tmp_path / "ticks").stat().st_size > ticks, within=BOUND, what="it goes on")
        assert control(server, name, "cancel", task="long").status_code == 200
        told = results(server, name)
        assert states(server, name) == {"long": "stopped", "left": "skipped", "next": "ok"}
        assert (told["status"], told["results"][2]["text"]) == ("failed", "edited\n")
    late: list[tuple[str, dict[str, str]]] = [
        ("pause", {}), ("cancel", {}), ("skip", {"task": "long"}), ("retry", {"task": "next"}), ("edit", {"task": "next", "text": "true"}),
    ]  # fmt: skip
    for op, more in late:
        refused = control(server, name, op, **more)
        assert (refused.status_code, refused.json()["error"]["kind"]) == (409, "ControlFailed"), op
    for op, more in (("explode", {}), ("skip", {}), ("pause", {"task": "long"}), ("skip", {"task": "none"})):
        assert control(server, name, op, **more).status_code == 400, op


def test_what_is_null_was_not_said_and_what_is_no_text_is_no_command(server: Server) -> None:
    name = start(server, [{"id": "long", "run": "sleep 600"}, {"id": "next", "run": "echo next"}])

    def said(**command: Any) -> httpx.Response:
        return server.client.post(f"{API}/executions/{name}/control", json=command)

    with ended(server, name):
        await_state(server, name, list="running", long="running")
        nothing = {"task": None, "text": None, "click": None, "pauses": None}
        for op, status in (("pause", "paused"), ("resume", "running"), ("pause", "paused")):
            assert said(op=op, **nothing).json()["status"] == status, "each is a press of its own"
        for wrong in (
            {"op": 5},
            {"op": "edit", "task": "next", "text": ["x"]},
            {"op": "edit", "task": "next", "text": None},
            {"op": "cancel", "tsk": "long"},
        ):
            answer = said(**wrong)
            assert (answer.status_code, answer.json()["error"]["kind"]) == (400, "InvalidRequest"), answer.text
        assert said(op="resume").json()["status"] == "running"
        assert said(op="cancel", task="long").status_code == 200
    assert results(server, name)["results"][0]["status"] == "stopped"


def _stands(server: Server, name: str) -> bool:
    run_id = get(server, name, "status")["tasks"][0]["run_id"]
    return get(server, run_id, "status")["status"] == "paused"


def test_what_is_said_before_the_runner_is_up_holds(tmp_path: Path) -> None:
    up, python, config = tmp_path / "up", tmp_path / "python", tmp_path / "served" / "config"
    python.write_text(f'#!/bin/sh\nuntil [ -e {up} ]; do sleep 0.05; done\nexec {sys.executable} "$@"\n')
    python.chmod(0o700)
    config.mkdir(parents=True)
    (config / "jupyter_server_config.py").write_text(f"import sys; sys.executable = {str(python)!r}  # of what the server starts")
    with serving(tmp_path / "served") as server:
        name = start(server, [{"run": f"touch {tmp_path}/begun"}])
        try:
            assert control(server, name, "pause").json()["status"] == "paused"
            assert not ListHome(server.home).find(name).is_run()
        finally:
            up.touch()
        eventually(lambda: ListHome(server.home).find(name).is_run(), within=BOUND, what="the runner is up")
        assert get(server, name, "status")["status"] == "paused"
        gone = server.client.delete(f"{API}/executions/{name}")
        assert gone.status_code == 202
        told = results(server, name)
        assert (told["status"], told["results"], (tmp_path / "begun").exists()) == ("stopped", [], False)
        assert control(server, name, "resume").status_code == 200, "who wants it to go on says so"
        assert results(server, name)["status"] == "ok"
        assert control(server, name, "resume").status_code == 409


def test_a_list_counts_as_what_it_runs_at_once(server: Server, tmp_path: Path) -> None:
    wide: list[Json] = [{"run": "true", "group": "all"} for _ in range(4)]
    refused = post(server, wide)
    assert (refused.status_code, refused.json()["error"]["kind"]) == (429, "TooManyRuns")
    assert "`parallel: 3`" in refused.json()["error"]["message"]
    assert results(server, start(server, wide, parallel=3))["status"] == "ok"
    two: list[Json] = [{"id": "first", "run": gate(tmp_path / "go")}, *({"run": "true", "group": "pair"} for _ in range(2))]
    name = start(server, two)
    with ended(server, name):
        run: Json = {"prompt": gate(tmp_path / "go"), "agent": "shell", "shell": "bash"}
        one = server.client.post(f"{API}/execute", json=run)
        assert one.status_code == 202, one.text
        assert server.client.post(f"{API}/execute", json=run).status_code == 429, "two places are the list's"
        assert post(server, ["x"], defaults={"rehearse": "hello"}).status_code == 429
        assert post(server, two).json()["new"] is False, "what goes on needs no other place"
        assert control(server, name, "pause").status_code == 200
        assert control(server, name, "resume").status_code == 200, "what it runs counts once"
        (tmp_path / "go").touch()
        assert results(server, name)["status"] == "ok"


def test_a_task_that_was_begun_and_is_not_launched_yet_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC_EXECUTOR_HOOKS", json.dumps({"before_task": {"run": gate(tmp_path / "go"), "name": "slow"}}))
    (tmp_path / "served").mkdir()
    with serving(tmp_path / "served", "--CCExecutorServer.max_running=1") as server:
        name = start(server, [{"id": "only", "run": "true"}])
        with ended(server, name):
            await_state(server, name, only="running")
            assert post(server, [{"run": "true"}]).status_code == 429
            (tmp_path / "go").touch()
            assert results(server, name)["status"] == "ok"


def test_a_runner_is_alone_and_one_that_is_killed_is_followed_by_another(server: Server, tmp_path: Path) -> None:
    tasks: list[Json] = [
        {"id": "first", "run": f"echo first >> {tmp_path}/log; {gate(tmp_path / 'go')}; echo through"},
        {"id": "second", "run": f"echo second >> {tmp_path}/log"},
    ]
    name = start(server, tasks)
    with ended(server, name):
        await_state(server, name, first="running", list="running")
        eventually((tmp_path / "log").exists, within=BOUND, what="the task's own process is there")
        runner = runner_of(name)
        assert os.getsid(runner.pid) == runner.pid
        assert b"CC_EXECUTOR_STATE" not in Path(f"/proc/{runner.pid}/environ").read_bytes(), "the environment goes by pipe"
        of_server = {connection.laddr.port for connection in psutil.Process(server.process.pid).net_connections() if connection.laddr}
        assert not {connection.laddr.port for connection in runner.net_connections() if connection.laddr} & of_server
        runner.kill()
        eventually(lambda: runner_of(name).pid != runner.pid, within=BOUND, what="another one runs it")
        await_state(server, name, list="running", first="running")
        (tmp_path / "go").touch()
        told = results(server, name)
        assert (told["status"], told["results"][0]["attempts"], told["results"][0]["text"]) == ("ok", 1, "through\n")
    assert (tmp_path / "log").read_text().split() == ["first", "second"], "the run went on, and was not made again"


def test_a_runner_that_always_dies_is_not_started_without_end(tmp_path: Path) -> None:
    tasks = plan([{"run": "true"}], cwd=tmp_path).tasks
    kept = Kept(ListHome(StateHome(tmp_path / "state")).open(tasks), tasks, "")
    assert not kept.look()
    while kept.is_wanted:
        kept.start({**os.environ, "CC_EXECUTOR_HOOKS": "{"})
        assert kept.runner is not None
        assert kept.runner.wait(BOUND) == 1
        assert not kept.look()
    assert kept.started == 4
    assert "CC_EXECUTOR_HOOKS is not JSON" in kept.complaint()
    assert "The command resume" in kept.complaint()


async def test_a_list_that_nobody_could_run_is_made_anew_by_the_same_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owners = Owners(tmp_path / "state", by_name=False)
    service = Service(home=StateHome(tmp_path / "state"), environ=dict(os.environ), owners=owners, rules=Rules(), root=tmp_path)
    body: Json = {"tasks": [{"run": "echo made"}]}
    with monkeypatch.context() as without:
        without.setattr(sys, "executable", str(tmp_path / "no-python"))
        with pytest.raises(LaunchFailed, match="could not be started"):
            await service.execute(body, who="", key="k")
    assert list(ListHome(service.home).folders()) == []
    name, is_new = await service.execute(body, who="", key="k")
    assert is_new
    with anyio.fail_after(BOUND):
        await carry_on(ListHome(service.home).find(name), home=service.home, environ=os.environ)  # watches whoever runs it
    told = await service.lookup.results(name, who="")
    assert (told["status"], told["results"][0]["text"]) == ("ok", "made\n")
    assert await service.execute(body, who="", key="k") == (name, False)
    await service.aclose()


async def test_a_list_that_is_opened_anew_while_its_end_is_looked_at_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look, is_seen, go = Kept.look, threading.Event(), threading.Event()

    def linger(kept: Kept) -> bool:
        is_run = look(kept)
        if not is_run and kept.state.status is not ListStatus.OPEN and not is_seen.is_set():
            is_seen.set()
            assert go.wait(BOUND)
        return is_run

    monkeypatch.setattr(Kept, "look", linger)
    owners = Owners(tmp_path / "state", by_name=False)
    service = Service(home=StateHome(tmp_path / "state"), environ=dict(os.environ), owners=owners, rules=Rules(), root=tmp_path)
    name, _ = await service.execute({"tasks": [{"id": "a", "run": "echo a >> runs; exit 3"}]}, who="")
    await runs.eventually(is_seen.is_set)
    await service.control(name, "retry", who="", task="a")
    go.set()
    await runs.eventually(lambda: ListHome(service.home).find(name).state().task("a").begun == 2)
    with anyio.fail_after(BOUND):
        await carry_on(ListHome(service.home).find(name), home=service.home, environ=os.environ)  # watches whoever runs it
    assert (tmp_path / "runs").read_text() == "a\na\n"
    await service.aclose()


async def test_a_list_is_done_when_its_last_hook_has_had_its_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owners = Owners(tmp_path / "state", by_name=False)
    service = Service(home=StateHome(tmp_path / "state"), environ=dict(os.environ), owners=owners, rules=Rules(), root=tmp_path)
    lists = service.lists
    name, _ = await service.execute({"tasks": [{"id": "a", "run": "true"}]}, who="")
    folder = ListHome(service.home).find(name)
    # Whoever looks whether it is run holds its lock for that moment, and the server looks until the list is over.
    await runs.eventually(
        lambda: folder.state().status is ListStatus.OK and not any("list" in each.get_name() for each in asyncio.all_tasks())
    )
    read, runner = ListFolder.state, contextlib.ExitStack()

    def then_the_hook_refuses(told: ListFolder) -> ListState:
        before = read(told)
        if before.status is ListStatus.OK:
            told.append(Closed(at=time.time(), status=ListStatus.FAILED, summary="a gate"))
            runner.close()
        return before

    monkeypatch.setattr(ListFolder, "state", then_the_hook_refuses)
    for ask in (lists.status, lists.results):
        folder.append(Closed(at=time.time(), status=ListStatus.OK))
        assert runner.enter_context(folder.claimed())
        told = [await ask(name, who="") for _ in range(2)]
        assert [(each["status"], each["done"]) for each in told] == [("ok", False), ("failed", True)]
    await service.aclose()


@pytest.mark.row(
    "faults", "server killed in the midst of a list", "the list goes on or is taken up, nothing is done twice, the next server knows it"
)
@pytest.mark.timeout(300)  # two servers
def test_a_list_goes_on_when_its_server_is_killed(tmp_path: Path) -> None:
    go = tmp_path / "go"

    def five(log: str) -> list[Json]:
        return [
            {"id": str(number), "run": f"echo {number} >> {tmp_path}/{log}{f'; {gate(go)}' if number == 3 else ''}"}
            for number in range(1, 6)
        ]

    with serving(tmp_path) as first:
        lives, dies = start(first, five("lives")), start(first, five("dies"))
        for name in (lives, dies):
            await_state(first, name, **{"2": "ok", "3": "running"})
        for log in ("lives", "dies"):
            eventually(lambda log=log: "3" in (tmp_path / log).read_text().split(), within=BOUND, what="the task's own process is there")
        living, dying = runner_of(lives), runner_of(dies)
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait(BOUND)
        dying.kill()
        dying.wait(BOUND)
        assert living.is_running()
        go.touch()
        folder = ListHome(first.home).find(lives)
        eventually(lambda: folder.state().status is ListStatus.OK, within=BOUND, what="the list ends without a server")
    with serving(tmp_path) as second:
        assert {lives, dies} <= {row["id"] for row in second.client.get(f"{API}/executions").json()["executions"]}
        for name in (lives, dies):
            told = results(second, name)
            assert (told["status"], [row["attempts"] for row in told["results"]]) == ("ok", [1] * 5)
        assert post(second, five("lives")).json() == {"id": lives, "execution_id": lives, "new": False}
    for log in ("lives", "dies"):
        assert (tmp_path / log).read_text().split() == ["1", "2", "3", "4", "5"]


def test_a_list_that_cannot_be_read_hides_no_other(server: Server) -> None:
    name = start(server, [{"run": "echo soon unreadable"}])
    results(server, name)
    (server.home.root / "lists" / name / "list.json").write_text("{")
    rows = server.client.get(f"{API}/executions", params={"limit": 500}).raise_for_status().json()["executions"]
    assert [row["status"] for row in rows if row["id"] == name] == ["unreadable"]
    refused = server.client.get(f"{API}/executions/{name}/status")
    assert (refused.status_code, refused.json()["error"]["kind"]) == (503, "StateUnusable")
    assert server.client.get(f"{API}/history", params={"list": name}).raise_for_status().json()["runs"]


def test_rules_hold_for_every_task(tmp_path: Path) -> None:
    def allowed(request: RunRequest) -> RunRequest:
        if request.agent == "shell":
            raise Refused(403, "NotAllowed", "no commands here.")
        wanted = request.limits.cost or 2.0
        return request.model_copy(update={"limits": request.limits.model_copy(update={"cost": wanted}), "permission_mode": "plan"})

    requests = ListRequests(root=tmp_path, unfit={"cli"}, allowed=allowed)
    with pytest.raises(Refused) as refused:
        requests.plan({"tasks": [{"id": "a", "run": "x"}, {"id": "b", "prompt": "y"}, {"id": "c", "run": "z"}]})
    assert str(refused.value).splitlines() == ["tasks[0] 'a': no commands here.", "tasks[2] 'c': no commands here."]
    free, bounded = requests.plan({"tasks": ["a", {"prompt": "b", "max_cost": 1}]}).tasks.tasks
    assert free.options == {"max_cost": 2.0, "permission_mode": "plan"}
    assert bounded.options == {"max_cost": 1, "permission_mode": "plan"}
    of_list = requests.plan({"tasks": ["a"], "max_cost": 1.5}).tasks.tasks[0]
    assert of_list.options == {"permission_mode": "plan"}, "what is left of the list's is less"
    with pytest.raises(InvalidTaskList):
        requests.plan({"tasks": [{"prompt": "x", "cli": "y"}]})


@pytest.mark.parametrize(
    ("rules", "validation", "says"),
    [
        (Rules(max_cost=0.25), {"prompt": "v", "max_cost": 1}, "tasks[0] 'a': max_cost may be $0.25 at most here (given: $1.00)."),
        (Rules(agents=("shell",)), "v", "tasks[0] 'a': The agent 'claude' is not allowed here."),
        (
            Rules(folders=(CHECKOUT / "tests",)),
            {"prompt": "v", "rehearse": f"{scripts.FOLDER}/hello.toml"},
            "lies in no folder that is allowed here",
        ),
    ],
)
def test_rules_hold_for_a_validator(rules: Rules, validation: Any, says: str) -> None:
    requests = ListRequests(root=CHECKOUT / "tests", unfit=(), allowed=rules.applied)
    with pytest.raises(Refused) as refused:
        requests.plan({"tasks": [{"id": "a", "run": "true", "validate": validation}]})
    assert says in str(refused.value)


@pytest.mark.parametrize(("most", "granted"), [(0.25, 0.25), (2.0, 0.5), (None, 0.5)])
def test_a_validator_that_names_no_cost_may_spend_what_the_rules_leave(most: float | None, granted: float, tmp_path: Path) -> None:
    requests = ListRequests(root=tmp_path, unfit=(), allowed=Rules(max_cost=most).applied)
    validation = requests.plan({"tasks": [{"id": "a", "run": "true", "validate": "v"}]}).tasks.tasks[0].validation
    assert validation is not None
    assert validation.max_cost == granted


# --- foresight ------------------------------------------------------------------------------------------------------------


def test_a_prompt_and_a_list_are_validated_and_nothing_runs(server: Server) -> None:
    before = sum(1 for _ in server.home.runs())
    ask: Callable[[Json], Json] = lambda body: server.client.post(f"{API}/validate", json=body).raise_for_status().json()  # noqa: E731 - one use each
    told = ask({"prompt": "Fix it"})
    assert told["ok"]
    assert told["tokens"]["likely"] > 0
    rules = [finding["rule"] for finding in told["findings"]]
    assert rules
    assert rules[0] not in [finding["rule"] for finding in ask({"prompt": "Fix it", "lint_off": rules[0]})["findings"]]
    assert ask({"prompt": "Fix it", "lint_off": ["all"]})["findings"] == []
    assert ask({"prompt": "", "model": "m"})["ok"] is False
    assert "timeout" in ask({"prompt": "x", "timeout": -1})["problems"][0]
    assert ask({"prompt": "x", "lint_off": ["no-such-rule"]})["ok"] is False
    assert ask({"prompt": "x", "lint_off": 5})["ok"] is False
    assert ask({})["problems"] == ["prompt is missing: give the text for the agent as a string."]
    of_list = ask({"tasks": [{"id": "b", "prompt": "Fix it", "needs": "a"}, {"id": "a", "run": "true"}]})
    assert (of_list["ok"], of_list["order"], {hint["task"] for hint in of_list["hints"]}) == (True, ["a", "b"], {"b"})
    assert ask({"tasks": [{"prompt": "Fix it", "lint": "off"}]})["hints"] == []
    assert sum(1 for _ in server.home.runs()) == before


def test_estimates_are_made_of_ones_own_runs(server: Server, bob: httpx.Client) -> None:
    name = start(server, [{"id": f"t{number}", "run": "echo alike"} for number in range(6)])
    assert results(server, name)["status"] == "ok"
    run: Json = {"prompt": "echo alike", "agent": "shell", "shell": "bash"}
    mine = server.client.post(f"{API}/estimate", json=run).raise_for_status().json()
    assert mine["seconds"]["based_on"] >= 5
    assert bob.post(f"{API}/estimate", json=run).raise_for_status().json()["seconds"] is None
    tasks: list[Json] = [{"id": "x", "run": "echo alike"}, {"id": "y", "run": "echo alike", "needs": "x"}]
    whole = server.client.post(f"{API}/estimate", json={"tasks": tasks}).raise_for_status().json()
    assert (whole["estimated"], whole["order"]) == (2, ["x", "y"])
    assert whole["seconds"]["p50"] > 0
    assert bob.post(f"{API}/estimate", json={"tasks": tasks}).raise_for_status().json()["estimated"] == 0
    assert server.client.post(f"{API}/estimate", json={"prompt": ""}).status_code == 400
    assert server.client.post(f"{API}/estimate", json={"tasks": []}).status_code == 400


def test_the_history_is_filtered_and_paged(server: Server) -> None:
    name = start(server, [{"id": f"h{number}", "run": f"exit {number}"} for number in range(3)], on_failure="continue")
    rows = [row["run_id"] for row in results(server, name)["results"]]

    def ask(**query: Any) -> Json:
        return server.client.get(f"{API}/history", params=query).raise_for_status().json()

    first = ask(list=name, limit=2)
    assert [row["run_id"] for row in first["runs"]] == rows[:0:-1]
    second = ask(list=name, limit=2, before=first["next"])
    assert ([row["run_id"] for row in second["runs"]], second["next"]) == (rows[:1], "")
    assert [row["task_id"] for row in ask(list=name, outcome="failed")["runs"]] == ["h2", "h1"]
    assert ask(list=name, until="1d")["runs"] == []
    assert len(ask(list=name, since="1h", cwd="", agent="shell", rehearsed="false")["runs"]) == 3
    assert ask(list=name, rehearsed="true")["runs"] == []
    assert len(ask(list=name, cwd=".")["runs"]) == 3
    for query in (
        {"since": "soon"},
        {"outcome": "great"},
        {"rehearsed": "maybe"},
        {"limit": "x"},
        {"bogus": "1"},
        {"since": f"{'9' * 400}d"},
    ):
        answer = server.client.get(f"{API}/history", params=query)
        assert answer.status_code == 400, query


async def test_a_list_that_goes_on_keeps_the_bounds_that_it_was_given_last(tmp_path: Path) -> None:
    owners = Owners(tmp_path / "state", by_name=False)
    service = Service(home=StateHome(tmp_path / "state"), environ=dict(os.environ), owners=owners, rules=Rules(), root=tmp_path)
    body = {"tasks": [{"id": "a", "run": "test -e go"}]}
    name, _ = await service.execute(body | {"max_cost": 10}, who="")
    folder = ListHome(service.home).find(name)
    await runs.eventually(lambda: folder.state().status is ListStatus.FAILED and not folder.is_run())
    assert await service.execute(body | {"max_cost": 2}, who="") == (name, False)
    await runs.eventually(
        lambda: folder.state().task("a").begun == 2 and folder.state().status is ListStatus.FAILED and not folder.is_run()
    )
    (tmp_path / "go").touch()
    await service.control(name, "resume", who="")
    await runs.eventually(lambda: folder.state().status is ListStatus.OK)
    assert bounded(folder.tasks(), folder.state()).max_cost == 2
    await service.aclose()


async def test_who_has_killed_a_list_is_written_down(tmp_path: Path) -> None:
    owners = Owners(tmp_path / "state", by_name=True)
    service = Service(home=StateHome(tmp_path / "state"), environ=dict(os.environ), owners=owners, rules=Rules(), root=tmp_path)
    name, _ = await service.execute({"tasks": [{"id": "a", "run": "touch up; sleep 600"}]}, who="ada")
    folder = ListHome(service.home).find(name)
    await runs.eventually((tmp_path / "up").exists)
    await service.control(name, "kill", who="ada")
    await runs.eventually(lambda: folder.state().status is not ListStatus.OPEN and not folder.is_run())
    assert [record.by for record in folder.read()[0] if isinstance(record, Stopped)] == ["ada"]
    asked, _ = service.home.find(folder.state().task("a").run_id).control_records()
    assert [record.by for record in asked if isinstance(record, StopRequested)][:1] == ["ada"]
    await service.aclose()


async def test_a_list_that_ends_while_it_is_looked_at_is_not_said_to_be_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners = Owners(tmp_path / "state", by_name=False)
    service = Service(home=StateHome(tmp_path / "state"), environ=dict(os.environ), owners=owners, rules=Rules(), root=tmp_path)
    folder = ListHome(service.home).open(plan([{"id": "a", "run": "true"}], cwd=tmp_path).tasks)
    read, runner = ListFolder.state, contextlib.ExitStack()

    def then_it_ends(told: ListFolder) -> ListState:
        before = read(told)
        runner.close()
        return before

    monkeypatch.setattr(ListFolder, "state", then_it_ends)
    for ask in (service.lists.status, service.lists.results):
        assert runner.enter_context(folder.claimed())
        told = await ask(folder.list_id, who="")
        assert (told["status"], told["done"]) == ("running", False)
    assert runner.enter_context(folder.claimed())
    assert service.lists.summary(folder).status == "running"
    await service.aclose()


@pytest.mark.usefixtures("noon")
@pytest.mark.parametrize(("op", "task"), [("resume", ""), ("retry", "a")])
async def test_a_list_that_is_run_on_may_cost_what_is_left_of_its_owners_day(tmp_path: Path, op: str, task: str) -> None:
    home, owners = StateHome(tmp_path / "state"), Owners(tmp_path / "state", by_name=False)
    service = Service(home=home, environ=dict(os.environ), owners=owners, rules=Rules(day_cost=1.0), root=tmp_path)
    name, _ = await service.execute({"tasks": [{"id": "a", "run": "exit 3"}, {"id": "b", "prompt": "x"}]}, who="")
    folder = ListHome(home).find(name)
    await runs.eventually(lambda: folder.state().status is ListStatus.FAILED and not folder.is_run())
    assert bounded(folder.tasks(), folder.state()).max_cost == 1
    spent = home.create(new_run_id(time.time()))
    at = datetime.now(UTC).isoformat()
    (spent.path / "receipt.json").write_text(f'{{"times": {{"ended": "{at}"}}, "cost": 0.75, "rehearsed": null, "usage": {{}}}}')
    await service.control(name, op, who="", task=task)
    assert bounded(folder.tasks(), folder.state()).max_cost == pytest.approx(0.25)
    await runs.eventually(lambda: folder.state().task("a").begun == 2 and not folder.is_run())
    await service.aclose()


HARM: Final[dict[str, Callable[[Path], object]]] = {
    "garbage": lambda journal: journal.write_bytes(b"\x93\xff\x00garbage" * 300),
    "binary first": lambda journal: journal.write_bytes(b"\xff\xfe\x00\n" + journal.read_bytes()),
    "cut at its beginning": lambda journal: journal.write_bytes(journal.read_bytes()[10:]),
    "zeros": lambda journal: journal.write_bytes(bytes(journal.stat().st_size)),
    "a link": lambda journal: (journal.unlink(), journal.symlink_to("/etc/passwd")),
    "a folder": lambda journal: (journal.unlink(), journal.mkdir()),
    "no list": lambda journal: (journal.parent / "list.json").write_bytes(b"\x93" * 9),
}


@pytest.mark.timeout(300)  # two servers
def test_a_list_that_cannot_be_read_is_named_and_hinders_nothing(tmp_path: Path) -> None:
    done, waits = tmp_path / "done", tmp_path / "go"
    ids: dict[str, str] = {}
    with serving(tmp_path / "first") as first:
        state = first.home.root
        for name in HARM:
            ids[name] = start(first, [{"id": "one", "run": f"echo {name} >> {done}; exit 1"}])
        for name in ids.values():
            results(first, name)
        good = start(first, [{"id": "one", "run": gate(waits)}])
        await_state(first, good, one="running")
        runner = runner_of(good)
        os.killpg(first.process.pid, signal.SIGKILL)
        first.process.wait(BOUND)
        runner.kill()
    for name, harm in HARM.items():
        harm(ListHome(StateHome(state)).find(ids[name]).path / "journal.jsonl")
    before = done.read_text()
    waits.touch()
    with serving(tmp_path / "second", state=state) as second:
        assert results(second, good)["status"] == "ok", "the others are seen through"
        listed = second.client.get(f"{API}/executions?limit=100")
        assert listed.status_code == 200, listed.text
        rows = {row["id"]: row["status"] for row in listed.json()["executions"] if row["kind"] == "list"}
        assert rows == dict.fromkeys(ids.values(), "unreadable") | {good: "ok"}
        assert second.client.get(f"{API}/history").status_code == 200
        for name in ids.values():
            told = second.client.get(f"{API}/executions/{name}/status")
            assert (told.status_code, told.json()["error"]["kind"]) == (503, "StateUnusable")
            assert re.search(f"The task list {name} cannot be read: .*{name}.* away", told.json()["error"]["message"]), told.text
            assert control(second, name, "resume").status_code == 503
            assert name in second.log, "whoever reads the log knows, too"
        assert "Traceback" not in second.log
    assert done.read_text() == before, "nothing is done again"
    environ = os.environ | {"CC_EXECUTOR_STATE": str(state)}
    run = functools.partial(subprocess.run, env=environ, capture_output=True, text=True, timeout=BOUND, check=False)
    listing = run([sys.executable, "-m", "cc_executor.cli", "tasks", "list"])
    assert listing.returncode == 0, listing.stderr
    assert listing.stdout.count("unreadable") == len(ids)
    history = run([sys.executable, "-m", "cc_executor.cli", "history"])
    assert history.returncode == 0, history.stderr
    shown = run([sys.executable, "-m", "cc_executor.cli", "tasks", "show", ids["garbage"]])
    assert (shown.returncode, ids["garbage"] in shown.stderr) == (2, True), shown
    assert ids["garbage"] in history.stderr + history.stdout
