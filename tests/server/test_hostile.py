"""Whatever is sent, and whatever is broken under it, the answer is JSON with a word for programs and a sentence for people; and nobody gets in unknown."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import content_type_conformance, not_a_server_error, response_schema_conformance, status_code_conformance
from tornado.web import RequestHandler

from cc_executor.server.app import CCExecutorServer
from cc_executor.server.mcphttp import MANIFEST
from cc_executor.server.openapi import execute_schema
from cc_executor.server.rest import ROUTES
from cc_executor.store.history import HistoryIndex
from support.disks import on_small_disk
from support.environments import CHECKOUT
from support.lab import free_port
from support.served import API, TOKEN, Server, results, serving

BOUND: Final = 90.0
NOBODY: Final = "0" * 26
# One of each kind that JSON has, empty ones, and what has broken parsers.
WRONG: Final = (
    None, True, 5, -1, 1e308, "", "\0", "\ud800", "nothing of the sort", "-x", "x" * 70_000, "../../../etc/passwd", [], [5], [None], [""], ["\0"], ["\ud800"],
    [[]], {}, {"a": {}}, {"type": "nothing"}, {"$ref": "file:///etc/passwd"},
)  # fmt: skip
BODIES: Final[tuple[dict[str, Any], ...]] = (
    {"prompt": "true", "agent": "shell"},
    {"prompt": "x", "agent": "claude", "rehearse": "hello"},
)
SLOW: Final = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
METHODS: Final = ("get", "post", "put", "patch", "delete")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With room for one run, and a history that is shared by a Redis server which is not there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CC_EXECUTOR_REDIS", f"redis://127.0.0.1:{free_port()}/0")
        with serving(tmp_path_factory.mktemp("hostile"), "--CCExecutorServer.max_running=1") as found:
            yield found


def post(server: Server, body: Any, **more: Any) -> httpx.Response:
    return server.client.post(f"{API}/execute", content=json.dumps(body), timeout=BOUND, **more)


@pytest.fixture
def full(server: Server) -> Iterator[Server]:
    """The one place is taken, so that whatever can be started is not."""
    run_id = post(server, {"prompt": "sleep 600", "agent": "shell"}).json()["id"]
    yield server
    server.client.post(f"{API}/executions/{run_id}/control", json={"op": "kill"})
    results(server, run_id)


def error_of(answer: httpx.Response) -> dict[str, str]:
    """The error that was answered, in its form."""
    assert answer.headers["Content-Type"].partition(";")[0] == "application/json", answer.text[:500]
    assert answer.headers["X-Request-Id"]
    (error,) = answer.json().values()
    assert set(error) == {"kind", "message"}
    assert re.fullmatch(r"[A-Z][A-Za-z]+", error["kind"]), error
    assert error["message"].strip(), error
    assert "Traceback" not in error["message"]
    assert len(error["message"]) < 100_000
    return error


@pytest.mark.row(
    "threats", "every field of a request wrong in turn", "refused in a sentence with a word for programs; never a server error"
)
def test_every_field_wrong_in_turn_is_refused_in_a_sentence(full: Server) -> None:
    wrong: list[tuple[str, Any, int]] = []
    fields = [*execute_schema()["properties"], "cli", "environ", "limits", "nothing"]
    for number, (name, value) in enumerate(itertools.product(fields, WRONG)):
        answer = post(full, {**BODIES[number % 2], name: value})
        if answer.status_code not in {400, 429}:  # 429: it is a request, and the one place is taken
            wrong.append((name, value, answer.status_code))
        else:
            error_of(answer)
    assert wrong == []


@pytest.mark.parametrize(
    "more",
    [
        {"permission_mode": "nothing"}, {"model": " "}, {"tools": ["\0"]}, {"tools": [" "]}, {"cwd": "x" * 5000}, {"cwd": "/dev/null"},
        {"add_dirs": ["/not/there"]}, {"env_names": ["A=B"]}, {"env_names": ["\0"]}, {"append_system_prompt": "x" * 200_000}, {"label": "\ud800"},
    ],
    ids=lambda more: json.dumps(more)[:40],
)  # fmt: skip
def test_what_is_found_out_at_the_start_is_refused_in_a_sentence_too(server: Server, more: dict[str, Any]) -> None:
    answer = post(server, {"prompt": "x", "rehearse": "hello", **more})
    assert answer.status_code == 400, answer.text
    error_of(answer)


def test_what_is_only_odd_is_a_run_with_an_outcome(server: Server) -> None:
    odd = {"prompt": "\ud800", "verify": "\ud800", "fallback_model": "\ud800", "expect": ["x" * 5000], "schema": {"type": "nothing"}}
    answer = post(server, {"rehearse": "hello", **odd})
    assert answer.status_code == 202, answer.text
    assert results(server, answer.json()["id"])["status"] in {"schema", "failed", "crashed"}


@pytest.mark.parametrize(
    ("size", "status", "kind"), [(10_000_000, 429, "TooManyRuns"), (10_000_001, 400, "InvalidRequest"), (25 * 2**20, 413, "TooLarge")]
)
def test_large_bodies(full: Server, size: int, status: int, kind: str) -> None:
    answer = post(full, {"prompt": "x" * size, "agent": "shell"})
    assert (answer.status_code, error_of(answer)["kind"]) == (status, kind)


@pytest.mark.row("threats", "path as a run id", "an id is 26 hex digits or a part of one; nothing else names a run")
@pytest.mark.parametrize(
    "run_id",
    ["%2e%2e", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e%2f" * 8, "%252e%252e%252f", "%00", "0" * 26 + "%00", "0" * 26 + "%0a", "A" * 26, "%ff%fe", ";ls", "0" * 5000],
)  # fmt: skip
@pytest.mark.parametrize("what", ["/status", "/events", ""])
def test_what_is_no_id_reaches_nothing(server: Server, run_id: str, what: str) -> None:
    url = f"{server.client.base_url}{API}/executions/{run_id}{what}"
    answer = server.client.send(server.client.build_request("GET" if what else "DELETE", url))
    assert answer.status_code == 404
    assert error_of(answer)["kind"] == "NotFound"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("PUT", "/execute", 405), ("GET", "/execute", 405), ("GET", "/nothing", 404), ("POST", "", 404)]
)
def test_what_is_nowhere_is_said_in_the_same_form(server: Server, method: str, path: str, status: int) -> None:
    answer = server.client.request(method, f"{API}{path}")
    assert answer.status_code == status
    error_of(answer)


@pytest.mark.parametrize("address", ["/executions?status=%ff", "/executions?before=%c3%28", "/history?text=%ff"])
def test_an_address_that_is_no_text_is_refused_with_its_cure(server: Server, address: str) -> None:
    answer = server.client.get(f"{API}{address}")
    assert (answer.status_code, error_of(answer)["kind"]) == (400, "InvalidRequest")
    assert "UTF-8" in error_of(answer)["message"]


def test_the_time_that_jupyterlab_adds_to_an_address_is_no_filter(server: Server) -> None:
    assert server.client.get(f"{API}/history?1795359101890").status_code == 200
    assert server.client.get(f"{API}/history?nothing=1").status_code == 400


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("/executions?status=done", "cancelled, "),
        ("/executions?status=OK", "ok, "),
        ("/executions?before=yesterday", "next"),
        ("/executions?state=failed", "before, limit, status"),
        ("/history?before=yesterday", "next"),
        ("/history?outcome=done", "cancelled, "),
        ("/admin/executions?status=failed", "before, limit"),
        ("/admin/executions?before=yesterday", "next"),
        ("/admin/audit?decision=forbidden", "allowed, failed, refused"),
        ("/admin/audit?before=yesterday", "the form of `at`"),
        ("/admin/usage?day=3", "days"),
        (f"/executions/{'0' * 20}-1/status?page=2", "limit, offset"),
        (f"/executions/{'0' * 26}/receipt?page=2", "takes none"),
    ],
)
def test_a_filter_that_nobody_knows_is_refused_with_those_that_there_are(server: Server, address: str, says: str) -> None:
    answer = server.client.get(f"{API}{address}")
    assert (answer.status_code, error_of(answer)["kind"]) == (400, "InvalidRequest"), answer.text
    assert says in error_of(answer)["message"]


def test_every_word_that_a_filter_takes_is_in_the_document_and_taken(server: Server) -> None:
    document = server.client.get(f"{API}/openapi.json").json()
    (status,) = (each for each in document["paths"]["/executions"]["get"]["parameters"] if each["name"] == "status")
    words = status["schema"]["enum"]
    assert {"ok", "failed", "queued", "running", "paused", "lost", "interrupted", "stopped", "refused", "unreadable"} <= set(words)
    for word in words:
        assert server.client.get(f"{API}/executions", params={"status": word, "token": TOKEN}).status_code == 200


@pytest.mark.parametrize("method", ["TRACE", "PROPFIND"])
def test_a_method_that_nobody_knows_is_refused_and_noted(server: Server, method: str) -> None:
    answer = server.client.request(method, f"{API}/execute")
    assert (answer.status_code, error_of(answer)["kind"]) == (405, "MethodNotAllowed")
    rows = server.client.get(f"{API}/admin/audit").json()["rows"]
    assert f"{method} /execute" in {row["what"] for row in rows}
    assert "Uncaught exception" not in server.log


def test_the_document_has_what_is_answered_of_a_list(server: Server) -> None:
    paths = server.client.get(f"{API}/openapi.json").json()["paths"]
    name = post(server, {"tasks": [{"run": "false"}]}).json()["id"]
    results(server, name)
    taken = post(server, {"prompt": "sleep 600", "agent": "shell"}).json()["id"]
    try:
        for method, path, body, status in (
            ("get", "/receipt", None, 400),
            ("get", "/events", None, 400),
            ("post", "/control", {"op": "resume"}, 429),
            ("post", "/control", {"op": "pause"}, 409),
        ):
            answer = server.client.request(method, f"{API}/executions/{name}{path}", json=body)
            assert answer.status_code == status, answer.text
            assert str(status) in paths[f"/executions/{{id}}{path}"][method]["responses"]
    finally:
        server.client.post(f"{API}/executions/{taken}/control", json={"op": "kill"})
        results(server, taken)


# --- what is broken below ---


@pytest.mark.row("faults", "history locked", "runs and reads go on, what was missed is caught up")
@pytest.mark.row("faults", "Redis down", "runs go on")
def test_a_locked_history_and_a_dead_redis_cost_no_request(server: Server) -> None:
    results(server, post(server, {"prompt": "true", "agent": "shell"}).json()["id"])
    with HistoryIndex(server.home.root).writing() as other:
        other.execute("BEGIN EXCLUSIVE")
        answer = post(server, {"prompt": "echo on", "agent": "shell"})
        assert answer.status_code == 202, answer.text
        assert results(server, answer.json()["id"])["text"] == "on\n"
        for path in ("/executions", "/health", "/admin/usage", "/admin/audit"):
            assert server.client.get(f"{API}{path}").status_code == 200
        other.execute("ROLLBACK")


FULL_DISK: Final = """
import sys
from pathlib import Path
from server.test_hostile import error_of, post
from support.looks import eventually
from support.served import API, results, serving

folder = Path(sys.argv[1])
with serving(folder, "--CCExecutorServer.max_running=1", "--CCExecutorServer.max_queued=2") as server:
    shell = {"prompt": "true", "agent": "shell"}
    first = post(server, shell).json()["id"]
    results(server, first)
    # Until its end its supervisor holds room that it gives back.
    eventually(lambda: not server.home.folder(first).is_supervised(), within=90, what="nobody owns the run any more")
    def fill():
        with (folder / "state" / "filler").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
    fill()
    keyed = post(server, shell, headers={"Idempotency-Key": "one"})
    for answer in (post(server, shell), keyed):
        error = error_of(answer)
        print(answer.status_code, error["kind"], "make room" in error["message"].lower(), "Errno" in error["message"])
    for path in ("/executions", "/health", "/admin/usage", "/admin/audit"):
        print(server.client.get(f"{API}{path}").status_code)
    (folder / "state" / "filler").unlink()
    run = post(server, {"prompt": "until [ -e go ]; do sleep 0.05; done", "agent": "shell", "shell": "bash"}).json()["id"]
    fill()
    answer = post(server, shell)
    print(answer.status_code, error_of(answer)["kind"])
    (folder / "state" / "filler").unlink()
    waiting = post(server, shell, headers={"Idempotency-Key": "one"}).json()
    print(waiting["status"], waiting["place"])
    (server.root / "go").touch()
    print(results(server, run)["status"], results(server, waiting["id"])["status"])
    assert "Traceback" not in server.log, server.log
"""


@pytest.mark.row("faults", "disk full before the start", "refused, nothing is started")
@pytest.mark.timeout(300)  # a server, and what it is waited for
def test_a_full_disk_is_said_and_when_there_is_room_again_all_goes_on(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    script = tmp_path / "script.py"
    script.write_text(FULL_DISK)
    done = subprocess.run(
        [*on_small_disk(state, "1m"), sys.executable, str(script), str(tmp_path)],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": f"{CHECKOUT / 'tests'}:{CHECKOUT / 'src'}"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    refused = "503 StateUnusable True False"
    assert done.stdout.splitlines() == [refused, refused, *["200"] * 4, "503 StateUnusable", "queued 1", "ok ok"]


# --- who gets in ---


def routes() -> Iterator[tuple[str, type[RequestHandler], str]]:
    """Every route that the extension registers: its pattern, who answers, and an address that it matches."""
    app = CCExecutorServer()
    app.initialize_handlers()
    for pattern, handler, *_ in app.handlers:
        fills = (re.sub(r"\([^)]*\)\??", fill, pattern) for fill in (NOBODY, "", "0", "0" * 32))
        yield pattern, handler, next(path for path in fills if re.fullmatch(pattern, path))


def methods(handler: type[RequestHandler]) -> list[str]:
    return [method for method in METHODS if getattr(handler, method) is not getattr(RequestHandler, method)]


ALL: Final = [(method, path) for _, handler, path in routes() for method in methods(handler) if path != MANIFEST]


def test_the_walk_has_every_route() -> None:
    assert {("get", "/cc-executor/ws"), ("post", "/cc-executor/mcp"), ("post", f"{API}/execute"), ("get", f"{API}/admin/audit")} < set(ALL)
    assert len({path for _, path in ALL}) > len(ROUTES) + 3


@pytest.mark.row("threats", "a request without a token", "401 or 403 at every route that there is")
@pytest.mark.parametrize(("method", "path"), ALL)
def test_nobody_gets_in_without_a_token(server: Server, method: str, path: str) -> None:
    for headers in ({}, {"Authorization": "token wrong"}, {"Authorization": "Bearer wrong"}, {"Cookie": "_xsrf=1", "X-XSRFToken": "1"}):
        answer = httpx.request(method, f"{server.client.base_url}{path}", headers=headers, trust_env=False, timeout=BOUND)
        assert answer.status_code in {401, 403}, (headers, answer.text)


@pytest.fixture(scope="module")
def browser(server: Server) -> Iterator[httpx.Client]:
    """Has the cookie, as after a login."""
    with httpx.Client(base_url=server.client.base_url, trust_env=False, timeout=BOUND) as client:
        client.get("/lab", params={"token": TOKEN})
        assert client.get(f"{API}/health", headers={"Referer": str(server.client.base_url)}).status_code == 200
        yield client


@pytest.mark.row("threats", "a page of another origin with the user's cookie", "refused at every route that changes something")
@pytest.mark.parametrize(("method", "path"), [each for each in ALL if each[0] != "get"])
def test_a_foreign_page_changes_nothing(server: Server, browser: httpx.Client, method: str, path: str) -> None:
    before = server.client.get(f"{API}/executions").json()
    xsrf = {"X-XSRFToken": browser.cookies.get("_xsrf") or ""}
    body = json.dumps({"prompt": "true", "agent": "shell", "op": "kill"})
    for headers in ({}, {"X-XSRFToken": "forged"}, {**xsrf, "Origin": "http://evil.example"}, {**xsrf, "Origin": "null"}):
        answer = browser.request(method, path, content=body, headers=headers)
        assert answer.status_code in ({401, 403, 404} if "Origin" in headers else {401, 403}), (headers, answer.text)
    assert server.client.get(f"{API}/executions").json() == before


# --- a state folder that cannot be the same everywhere ---


def test_a_relative_state_folder_is_refused_at_every_door(tmp_path: Path) -> None:
    with serving(tmp_path, state=Path("kept")) as server:
        body = {"prompt": "true", "agent": "shell"}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        for answer in (
            server.client.get(f"{API}/health"),
            server.client.get(f"{API}/executions"),
            server.client.post(f"{API}/execute", json=body),
            server.client.get("/cc-executor/ws", headers={"Upgrade": "websocket", "Connection": "Upgrade"}),
            server.client.post("/cc-executor/mcp", json=message, headers={"Authorization": f"Bearer {TOKEN}"}),
        ):
            assert (answer.status_code, error_of(answer)["kind"]) == (503, "StateUnusable"), answer.text
            assert "absolute path" in error_of(answer)["message"]
        assert server.client.get("/api/status").status_code == 200, "the rest of the server is well"
        assert "CC_EXECUTOR_STATE is relative (kept)" in server.log
    assert not list(tmp_path.rglob("kept"))


# --- whatever the document allows ---


def test_the_document_holds_for_whatever_is_generated_from_it(full: Server) -> None:
    document = full.client.get(f"{API}/openapi.json").json()
    base, seen = f"{str(full.client.base_url).rstrip('/')}{API}", Counter[int]()
    schema: Any = schemathesis.openapi.from_dict(document)
    for found in schema.get_all_operations():
        operation = found.ok()
        modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
        cases = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes))

        @settings(max_examples=5, deadline=None, database=None, derandomize=True, phases=[Phase.generate], suppress_health_check=SLOW)
        @given(case=cases)
        def holds(case: Any) -> None:
            answer = case.call(base_url=base, headers={"Authorization": f"token {TOKEN}"}, timeout=BOUND)
            seen[answer.status_code] += 1
            checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
            case.validate_response(answer, checks=checks)

        holds()
    assert {200, 400, 404} <= set(seen), "what is wrong and what is right has been sent"
