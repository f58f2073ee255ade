"""The runs over HTTP, at a real `jupyter server` on loopback."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from cc_executor.model.receipt import Receipt
from cc_executor.rehearsal import scripts
from support.looks import eventually
from support.served import API, Server, control, get, prune, results, serving

BOUND: Final = 90.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("rest"), "--CCExecutorServer.max_running=3") as found:
        yield found


def start(server: Server, script: str, **more: Any) -> str:
    answer = server.client.post(f"{API}/execute", json={"prompt": script, "agent": "shell", "shell": "bash", **more})
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"{API}/executions/{answer.json()['id']}/status"
    return answer.json()["id"]


@contextlib.contextmanager
def going(server: Server, script: str = "echo up; sleep 600") -> Iterator[str]:
    run_id = start(server, script)
    try:
        eventually(lambda: b"up" in raw(server, run_id), within=BOUND, what="the run writes")
        yield run_id
    finally:
        control(server, run_id, "kill")
        results(server, run_id)


def raw(server: Server, run_id: str) -> bytes:
    return get(server, run_id, "events")["data"].encode()


def test_a_run_from_its_request_to_its_receipt(server: Server) -> None:
    run_id = start(server, "echo hello; echo more >&2; echo made > made.txt", label="first", expect="made.txt")
    told = results(server, run_id)
    assert (told["status"], told["text"], told["standing"]) == ("ok", "hello\n", "verified")
    assert (server.root / "made.txt").read_text() == "made\n", "a request that names no folder works in the server's"
    receipt = Receipt.model_validate(get(server, run_id, "receipt"))
    assert receipt.is_intact
    assert receipt.digest == told["digest"]
    assert get(server, run_id, "status") | {"elapsed": None, "started": None} == {
        "id": run_id, "status": "ok", "started": None, "agent": "shell", "model": "", "elapsed": None, "cost": None, "rehearsed": None,
        "label": "first", "prompt": "echo hello; echo more >&2; echo made > made.txt", "kind": "run", "done": True,
    }  # fmt: skip
    assert get(server, run_id, "events") == {"offset": 0, "last": True, "next_offset": 6, "encoding": "utf-8", "data": "hello\n"}
    assert get(server, run_id, "events", stream="stderr")["data"] == "more\n"


def test_a_real_agent_with_a_rehearsal(server: Server) -> None:
    answer = server.client.post(f"{API}/execute", json={"prompt": "Say hello.", "rehearse": "hello"})
    assert answer.status_code == 202, answer.text
    told = results(server, answer.json()["id"])
    assert told["status"] == "ok", told
    assert told["text"]


def test_pause_resume_and_cancel(server: Server) -> None:
    with going(server, "echo up; while true; do echo tick; sleep 0.1; done") as run_id:
        assert control(server, run_id, "pause").json()["status"] == "paused"
        assert get(server, run_id, "status")["status"] == "paused"
        stood = get(server, run_id, "events")["next_offset"]
        assert get(server, run_id, "events")["next_offset"] == stood
        assert control(server, run_id, "resume").json()["status"] == "running"
        eventually(lambda: get(server, run_id, "events")["next_offset"] > stood, within=BOUND, what="it goes on")
        gone = server.client.delete(f"{API}/executions/{run_id}")
        assert gone.status_code == 202
        assert results(server, run_id)["status"] == "cancelled"
    again = control(server, run_id, "pause")
    assert (again.status_code, again.json()["error"]["kind"]) == (409, "ControlFailed")


def test_a_check_is_ended_as_its_run_is(server: Server) -> None:
    run_id = start(server, "echo done", verify="touch checking; sleep 600")
    eventually((server.root / "checking").exists, within=BOUND, what="it is checked")
    assert get(server, run_id, "status")["status"] == "ended"
    gone = server.client.delete(f"{API}/executions/{run_id}")
    assert gone.status_code == 202, gone.text
    assert results(server, run_id)["standing"] != "verified"
    assert server.client.delete(f"{API}/executions/{run_id}").status_code == 409


def test_a_check_that_another_server_makes_is_ended_here_and_nobody_waits_for_it(server: Server, tmp_path: Path) -> None:
    run_id = start(server, "echo done", verify="touch checked-there; sleep 600")
    eventually((server.root / "checked-there").exists, within=BOUND, what="it is checked")
    with serving(tmp_path, state=server.home.root) as other:
        other.client.timeout = 20
        assert get(other, run_id, "status")["status"] == "ended"
        assert get(other, run_id, "results") == {"id": run_id, "done": False}
        assert other.client.get(f"{API}/executions/{run_id}/receipt").status_code == 409
        gone = other.client.delete(f"{API}/executions/{run_id}")
        assert gone.status_code == 202, gone.text
        assert results(other, run_id)["standing"] != "verified"
        assert "was ended" in get(server, run_id, "receipt")["checks"][0]["detail"]
        assert other.client.delete(f"{API}/executions/{run_id}").status_code == 409


def test_a_run_whose_check_goes_on_has_its_place_still(server: Server) -> None:
    checked = [start(server, "true", verify="sleep 600") for _ in range(3)]
    try:
        for run_id in checked:
            eventually(lambda run_id=run_id: get(server, run_id, "status")["status"] == "ended", within=BOUND, what="its agent has ended")
        answer = server.client.post(f"{API}/execute", json={"prompt": "true", "agent": "shell"})
        assert (answer.status_code, answer.json()["error"]["kind"]) == (429, "TooManyRuns")
    finally:
        for run_id in checked:
            server.client.delete(f"{API}/executions/{run_id}")
    for run_id in checked:
        results(server, run_id)
    results(server, start(server, "true"))


def test_a_folder_that_is_null_is_the_servers(server: Server) -> None:
    (server.root / "here").touch()
    assert results(server, start(server, "ls here", cwd=None))["text"] == "here\n"
    (row,) = results(server, server.client.post(f"{API}/execute", json={"tasks": [{"run": "ls here"}], "cwd": None}).json()["id"])[
        "results"
    ]
    assert row["text"] == "here\n"
    refused = server.client.post(f"{API}/execute", json={"prompt": "x", "agent": "shell", "cwd": 5})
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, "cwd must be a path, not int.")


def test_a_stream_of_events_goes_on_where_it_was_left(server: Server) -> None:
    run_id = start(server, "for i in $(seq 200); do echo line $i; done; sleep 0.5; echo äöü; printf '\\377'")
    url, seen, offset, name = f"{API}/executions/{run_id}/events", b"", 0, ""
    for is_cut in (True, False):
        with server.client.stream("GET", url, headers={"Accept": "text/event-stream", "Last-Event-ID": str(offset)}) as answer:
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: ") and not name:
                    told = json.loads(line[6:])
                    assert told["offset"] == offset, "no gap and no repeat"
                    seen += base64.b64decode(told["data"]) if told["encoding"] == "base64" else told["data"].encode()
                    offset = told["next_offset"]
                    if is_cut:
                        break
    assert name == "end"
    assert seen == b"".join(b"line %d\n" % number for number in range(1, 201)) + "äöü\n".encode() + b"\xff"


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_what_was_removed_is_not_told_as_nothing(server: Server, accept: str) -> None:
    run_id = start(server, "echo hello")
    assert results(server, run_id)["text"] == "hello\n"
    prune(server, run_id)
    for stream in ("stdout", "stderr", "control.jsonl"):
        address = f"{API}/executions/{run_id}/events"
        answer = server.client.get(address, params={"stream": stream, "offset": 3}, headers={"Accept": accept})
        assert (answer.status_code, answer.json()["error"]["kind"]) == (410, "JournalRemoved"), answer.text
        assert "by `history prune`: the run's results have the text" in answer.json()["error"]["message"]
    assert get(server, run_id, "results")["text"] == "hello\n"
    assert get(server, run_id, "status")["done"]


def test_the_runs_newest_first_page_by_page(server: Server) -> None:
    ids = [start(server, f"echo {number}") for number in range(3)]
    for run_id in ids:
        results(server, run_id)
    first = server.client.get(f"{API}/executions", params={"limit": 2}).json()
    assert [row["id"] for row in first["executions"]] == ids[:0:-1]
    second = server.client.get(f"{API}/executions", params={"limit": 1, "before": first["next"]}).json()
    assert [row["id"] for row in second["executions"]] == ids[:1]
    failed = start(server, "exit 3")
    results(server, failed)
    rows = server.client.get(f"{API}/executions", params={"status": "failed"}).json()["executions"]
    assert failed in {row["id"] for row in rows}
    assert all(row["status"] == "failed" for row in rows)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "is not JSON. Send an object"),
        (b'{"prompt": "\xe4"}', "in UTF-8"),
        (b"[]", "not a JSON object"),
        (b"{}", "prompt is missing"),
        (b'{"prompt": "  ", "agent": "shell"}', "is empty"),
        (b'{"prompt": "x", "agent": "nobody"}', "nobody"),
        (b'{"prompt": "x", "agent": "shell", "timeout": -1}', "timeout"),
        (b'{"prompt": "x", "agent": "shell", "wat": 1}', "'wat'"),
        (b'{"prompt": "x", "agent": "shell", "cli": "/bin/sh"}', "cli"),
        (b'{"prompt": "x", "agent": "shell", "environ": {"A": "b"}}', "environ"),
        (b'{"prompt": "x", "agent": "shell", "cwd": "/not/there"}', "/not/there"),
        (b'{"prompt": 5}', "prompt is missing"),
        (b'{"prompt": "x", "agent": ["shell"]}', "agent"),
        (b'{"prompt": "x", "agent": "shell", "tools": 5}', "tools"),
        (b"[" * 100_000, "Make it flatter"),
    ],
)
def test_what_cannot_be_run_is_said_in_a_sentence(server: Server, body: bytes, says: str) -> None:
    before = server.client.get(f"{API}/executions").json()["executions"]
    answer = server.client.post(f"{API}/execute", content=body)
    assert answer.status_code == 400, answer.text
    assert says in answer.json()["error"]["message"]
    assert server.client.get(f"{API}/executions").json()["executions"] == before


@pytest.mark.parametrize("what", ["status", "results", "receipt", "events", "control", ""])
@pytest.mark.parametrize("run_id", ["0" * 26, "1" * 26])
def test_a_run_that_is_not_there_is_not_found(server: Server, run_id: str, what: str) -> None:
    path = f"{API}/executions/{run_id}/{what}".rstrip("/")
    answer = (
        server.client.delete(path)
        if not what
        else server.client.post(path, json={"op": "pause"})
        if what == "control"
        else server.client.get(path)
    )
    assert answer.status_code == 404
    assert answer.json() == {"error": {"kind": "RunNotFound", "message": "There is no such execution."}}


@pytest.mark.parametrize("run_id", ["..", "../" * 8 + "etc", "0" * 25, "0" * 27, "%2e%2e", "0" * 25 + "g", "' or 1=1--"])
def test_what_is_no_id_reaches_no_file(server: Server, run_id: str) -> None:
    answer = server.client.get(f"{API}/executions/{run_id}/status")
    assert answer.status_code == 404


def test_only_so_many_at_once_and_each_is_a_whole_run(server: Server) -> None:
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        request = {"prompt": "sleep 600", "agent": "shell"}
        answers = list(pool.map(lambda _: server.client.post(f"{API}/execute", json=request), range(12)))
    started = [answer.json()["id"] for answer in answers if answer.status_code == 202]
    try:
        assert sorted(answer.status_code for answer in answers) == [202] * 3 + [429] * 9
        assert "3 runs" in next(answer for answer in answers if answer.status_code == 429).json()["error"]["message"]
    finally:
        for run_id in started:
            control(server, run_id, "kill")
    for run_id in started:
        assert results(server, run_id)["status"] == "cancelled"


def test_the_paths_of_a_request_are_seen_from_the_servers_folder(server: Server) -> None:
    (server.root / "played.toml").write_text(scripts.FOLDER.joinpath("hello.toml").read_text("utf-8"), "utf-8")
    (server.root / "more").mkdir()
    options = {"prompt": "Greet.", "rehearse": "played.toml", "add_dirs": ["more", "/tmp"]}
    answer = server.client.post(f"{API}/execute", json=options)
    assert answer.status_code == 202, answer.text
    request = server.home.find(answer.json()["id"]).request()
    assert (request.rehearse, request.add_dirs) == (str(server.root / "played.toml"), (str(server.root / "more"), "/tmp"))
    assert results(server, answer.json()["id"])["status"] == "ok"


@pytest.mark.parametrize("wrong", ["", [""], {"more": 1}, 3, [["more"]], [3]])
def test_what_is_no_path_is_refused_and_no_folder_that_nobody_has_meant(server: Server, wrong: Any) -> None:
    said: list[str] = []
    for body in ({"prompt": "true", "agent": "shell", "add_dirs": wrong}, {"tasks": [{"run": "true", "add_dirs": wrong}]}):
        told = server.client.post(f"{API}/validate", json=body).json()
        said += told["problems"]
    assert ["add_dirs" in each for each in said] == [True, True], said


def test_one_key_is_one_run(server: Server) -> None:
    request = {"prompt": "echo once", "agent": "shell", "shell": "bash"}

    def post(body: dict[str, Any]) -> httpx.Response:
        return server.client.post(f"{API}/execute", json=body, headers={"Idempotency-Key": "the same"})

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(request), range(8)))
    assert {answer.status_code for answer in answers} == {202}
    (run_id,) = {answer.json()["id"] for answer in answers}
    assert sum(answer.json()["new"] for answer in answers) == 1
    assert results(server, run_id)["text"] == "once\n"
    other = post({**request, "prompt": "echo twice"})
    assert (other.status_code, other.json()["error"]["kind"]) == (409, "KeyReused")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/execute"), ("GET", "/executions"), ("GET", "/health"), ("GET", "/auth/status"), ("GET", "/openapi.json"),
        *(("GET", f"/executions/{'0' * 26}/{what}") for what in ("status", "results", "receipt", "events")),
        ("POST", f"/executions/{'0' * 26}/control"), ("DELETE", f"/executions/{'0' * 26}"),
    ],
)  # fmt: skip
def test_nobody_gets_in_without_the_token(server: Server, method: str, path: str) -> None:
    for headers in ({}, {"Authorization": "token wrong"}):
        answer = httpx.request(
            method,
            f"{server.client.base_url}{API}{path}",
            headers=headers,
            json={} if method == "POST" else None,
            trust_env=False,
            timeout=BOUND,
        )
        assert answer.status_code == 403, answer.text


def test_a_page_of_another_origin_cannot_start_a_run(server: Server) -> None:
    with httpx.Client(base_url=server.client.base_url, trust_env=False, timeout=BOUND) as browser:
        browser.get("/lab", params={"token": server.client.headers["Authorization"].split()[1]})  # which gives the cookie
        body = {"prompt": "true", "agent": "shell"}
        assert browser.post(f"{API}/execute", json=body).status_code == 403, "no XSRF token"
        xsrf = {"X-XSRFToken": browser.cookies.get("_xsrf") or ""}
        assert browser.post(f"{API}/execute", json=body, headers={**xsrf, "Origin": "http://evil.example"}).status_code in {403, 404}


def test_the_document_names_every_route_and_what_it_says_holds(server: Server) -> None:
    told = server.client.get(f"{API}/openapi.json").json()
    assert told["servers"] == [{"url": API}]
    assert set(told["paths"]) == {
        "/execute", "/executions", "/admin/executions", "/admin/audit", "/admin/usage", "/executions/{id}", "/estimate", "/validate",
        "/history", "/health", "/auth/status", "/openapi.json",
        *(f"/executions/{{id}}/{what}" for what in ("status", "results", "receipt", "events", "control")),
    }  # fmt: skip
    properties = told["components"]["schemas"]["Execute"]["properties"]
    assert {"prompt", "agent", "cwd", "timeout", "max_cost", "schema", "verify", "rehearse"} <= set(properties)
    assert not {"cli", "environ", "state", "limits", "output_schema"} & set(properties)


def test_health_and_login_are_told(server: Server) -> None:
    assert server.client.get(f"{API}/health").json()["ok"]
    login = server.client.get(f"{API}/auth/status")
    assert login.status_code == 200, login.text
    assert not login.json()["logged_in"]
    assert "log in" in login.json()["cure"]


def test_a_run_outlives_its_server_and_the_next_one_seals_it(tmp_path: Path) -> None:
    with serving(tmp_path) as first:
        run_id = start(first, f"echo up; until [ -e {tmp_path / 'go'} ]; do sleep 0.05; done; echo done")
        eventually(lambda: b"up" in raw(first, run_id), within=BOUND, what="the run writes")
        os.killpg(first.process.pid, signal.SIGKILL)
        first.process.wait(BOUND)
        with serving(tmp_path) as second:
            assert get(second, run_id, "status")["status"] == "running"
            (tmp_path / "go").touch()
            told = results(second, run_id)
            assert (told["status"], told["text"]) == ("ok", "up\ndone\n")


def test_what_the_administrator_does_not_allow_is_not_started(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    rules = [
        f"--CCExecutorServer.{rule}"
        for rule in ("max_cost=0.5", "allowed_agents=claude", f"allowed_folders={folder}", "allowed_permission_modes=plan")
    ]
    with serving(tmp_path / "server", *rules) as server:
        for body, says in (
            ({"agent": "shell"}, "'shell' is not allowed"),
            ({"cwd": str(tmp_path)}, "may not work in"),
            ({"cwd": f"{folder}/../../"}, "may not work in"),
            ({"cwd": str(folder), "add_dirs": ["/"]}, "may not work in"),
            ({"cwd": str(folder), "max_cost": 0.51}, "at most"),
            ({"cwd": str(folder), "permission_mode": "bypassPermissions"}, "permission mode"),
        ):
            answer = server.client.post(f"{API}/execute", json={"prompt": "x", "rehearse": "hello", **body})
            assert (answer.status_code, answer.json()["error"]["kind"]) == (403, "NotAllowed"), answer.text
            assert says in answer.json()["error"]["message"]
        assert server.client.get(f"{API}/executions").json()["executions"] == []
        answer = server.client.post(f"{API}/execute", json={"prompt": "x", "rehearse": "hello", "cwd": str(folder)})
        assert answer.status_code == 202, answer.text
        run_id = answer.json()["id"]
        results(server, run_id)
        assert "--max-budget-usd=0.5" in get(server, run_id, "receipt")["argv"]
