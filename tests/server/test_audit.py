"""Who wanted what, and what was decided; what people have used; runs as events of the server; logs as JSON. And no secret in any of it."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import websocket
from jupyter_events import EventLogger

from cc_executor.policy.redact import MASK
from cc_executor.server.audit import FILE, FILE_LIMIT, OLDER, Audit
from cc_executor.server.eventlog import RunEvents
from cc_executor.server.strangers import ADDRESSES, EACH, HOUR, OTHERS, Strangers
from support.looks import eventually
from support.receipts import code_cell, live_output, notebook
from support.served import API, TOKEN, Server, results, serving

BOUND: Final = 90.0
CANARY: Final = "canary-3f9ad07b51"
PROMPT: Final = "canary-in-the-prompt-77"
NOBODY: Final = "0" * 26
# What an administrator would set up: a file of events, and a listener of his own.
CONFIG: Final = """
import json, logging, sys

handler = logging.FileHandler({events!r})
c.EventLogger.handlers = [handler]
c.CCExecutorServer.max_running = 2
c.CCExecutorServer.allowed_agents = ["shell"]
c.CCExecutorServer.json_logs = True
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("audit")
    (folder / "config.py").write_text(textwrap.dedent(CONFIG.format(events=str(folder / "events.jsonl"))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MY_SECRET", CANARY)
        with serving(folder, f"--config={folder / 'config.py'}") as found:
            yield found


def audited(server: Server, **query: Any) -> list[dict[str, Any]]:
    return server.client.get(f"{API}/admin/audit", params={"limit": 1000, **query}).raise_for_status().json()["rows"]


def post(server: Server, request: str, **body: Any) -> httpx.Response:
    body = {"agent": "shell", "shell": "bash", "prompt": "true", **body}
    return server.client.post(f"{API}/execute", json=body, headers={"X-Request-Id": request})


def of(rows: list[dict[str, Any]], request: str) -> dict[str, Any]:
    (row,) = [row for row in rows if row["request"] == request]
    return row


def events(server: Server) -> list[dict[str, Any]]:
    told = (server.root.parent / "events.jsonl").read_text().splitlines(keepends=True)
    return [json.loads(line) for line in told if line.endswith("\n")]


def test_what_was_started_refused_and_looked_for_is_noted_and_nothing_else(server: Server) -> None:
    started = post(server, "r-started", prompt=f"echo {PROMPT}", label=CANARY)
    run_id = started.json()["id"]
    assert started.headers["X-Request-Id"] == "r-started"
    post(server, "r-agent", agent="claude")
    post(server, "r-bad", prompt="")
    server.client.get(f"{API}/executions/{run_id}/status", headers={"X-Request-Id": "r-look"})
    for what in ("validate", "estimate"):
        server.client.post(
            f"{API}/{what}", json={"prompt": "true", "agent": "shell"}, headers={"X-Request-Id": "r-look"}
        ).raise_for_status()
    server.client.get(f"{API}/executions/{NOBODY}/status", headers={"X-Request-Id": "r-foreign"})
    server.client.post(f"{API}/executions/{run_id}/control", json={"op": "dance"}, headers={"X-Request-Id": "r-dance"})
    httpx.post(f"{server.client.base_url}{API}/execute", json={}, headers={"X-Request-Id": "r-nobody"}, trust_env=False, timeout=BOUND)
    results(server, run_id)
    rows = audited(server)
    told = {"door": "rest", "what": "POST /execute", "who": "", "run": "", "status": 202, "decision": "allowed", "reason": ""}
    assert of(rows, "r-started") == {**told, "run": run_id, "request": "r-started", "at": of(rows, "r-started")["at"]}
    refused = of(rows, "r-agent")
    assert (refused["decision"], refused["status"], refused["run"]) == ("refused", 403, "")
    assert refused["reason"] == "NotAllowed: The agent 'claude' is not allowed here. Choose one of shell."
    assert of(rows, "r-bad")["reason"] == "InvalidRequest", "what somebody has written wrongly is not quoted"
    assert (of(rows, "r-foreign")["what"], of(rows, "r-foreign")["run"]) == ("GET /executions/{id}/status", NOBODY)
    assert of(rows, "r-dance")["decision"] == "refused"
    assert (of(rows, "r-nobody")["who"], of(rows, "r-nobody")["reason"]) == (None, "NotLoggedIn")
    assert not [row for row in rows if row["request"] == "r-look"], "looking at one's own is nobody's business, nor is what starts nothing"
    assert [row["request"] for row in audited(server, decision="allowed") if row["request"].startswith("r-")] == ["r-started"]
    # Times have milliseconds, and two requests may be noted in one: these have three others between them.
    assert of(audited(server, before=of(rows, "r-dance")["at"]), "r-agent")
    assert not [row for row in audited(server, before=of(rows, "r-agent")["at"]) if row["request"] == "r-bad"]
    file = server.home.root / "server" / FILE
    assert file.stat().st_mode & 0o777 == 0o600
    assert PROMPT not in file.read_text()


def test_the_other_doors_are_noted_too(server: Server) -> None:
    url = f"ws://{server.client.base_url.host}:{server.client.base_url.port}/cc-executor/ws"
    with pytest.raises(websocket.WebSocketBadStatusException):
        websocket.create_connection(url, header={"X-Request-Id": "w-nobody"}, timeout=BOUND, suppress_origin=True)
    header = {"Authorization": f"token {TOKEN}", "X-Request-Id": "w-1"}
    socket = websocket.create_connection(url, header=header, timeout=BOUND, suppress_origin=True)
    assert (socket.headers or {})["x-request-id"] == "w-1"
    told: list[Any] = []
    for number, (method, params) in enumerate(
        [("execute", {"prompt": "true", "agent": "shell"}), ("execute", {"prompt": "x"}), ("status", {"id": NOBODY}), ("list", {})]
    ):
        socket.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}))
        told.append(json.loads(socket.recv()))
    socket.close()
    run_id = told[0]["result"]["id"]
    assert told[1]["error"]["data"] == {"kind": "NotAllowed"}
    rows = [row for row in audited(server) if row["request"] == "w-1"]
    assert [(row["what"], row["status"], row["run"]) for row in reversed(rows)] == [
        ("execute", 200, run_id), ("execute", 403, ""), ("status", 404, NOBODY),
    ]  # fmt: skip
    assert of(audited(server), "w-nobody")["status"] == 403
    answer = server.client.post("/cc-executor/mcp", content=b"{}", headers={"Authorization": "token wrong", "X-Request-Id": "m-nobody"})
    assert answer.status_code == 401
    assert of(audited(server), "m-nobody")["door"] == "mcp"
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "execute", "arguments": {"prompt": "x"}}}
    accept = {"Accept": "application/json, text/event-stream", "X-Request-Id": "m-0", "MCP-Protocol-Version": "2025-11-25"}
    about = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "tests", "version": "0"}}
    opened = server.client.post(
        "/cc-executor/mcp", json={"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": about}, headers=accept
    )
    accept |= {"Mcp-Session-Id": opened.headers["Mcp-Session-Id"], "X-Request-Id": "m-1"}
    answer = server.client.post("/cc-executor/mcp", json=call, headers=accept)
    assert (answer.status_code, answer.headers["X-Request-Id"]) == (200, "m-1"), answer.text
    row = of(audited(server), "m-1")
    assert (row["door"], row["what"], row["status"]) == ("mcp", "execute", 403)
    results(server, run_id)


def test_events_say_that_runs_were_started_ended_and_refused_and_nothing_of_what_is_in_them(server: Server) -> None:
    run_id = post(server, "e-1", prompt=f"echo {PROMPT} $MY_SECRET; exit 3", label=PROMPT, env_names=["MY_SECRET"]).json()["id"]
    results(server, run_id)
    post(server, "e-2", agent="claude", prompt=PROMPT)
    mine = eventually(
        lambda: len(found := [event for event in events(server) if event.get("run_id") == run_id]) == 2 and found,
        within=BOUND,
        what="both events",
    )
    base = "https://events.jupyter.org/cc_executor"
    assert [event["__schema__"] for event in mine] == [f"{base}/run_started/v1", f"{base}/run_ended/v1"]
    assert (mine[1]["status"], mine[1]["agent"], mine[1]["cost"]) == ("failed", "shell", None)
    schema = f"{base}/run_refused/v1"

    def refused() -> list[dict[str, Any]]:
        told = [event for event in events(server) if event["__schema__"] == schema]
        return [{name: value for name, value in event.items() if not name.startswith("__")} for event in told]

    # It is told when its answer has gone.
    wanted = {"door": "rest", "status": 403, "kind": "NotAllowed"}
    eventually(lambda: wanted in refused(), within=BOUND, what="the refusal")
    assert PROMPT not in (server.root.parent / "events.jsonl").read_text()


async def test_a_listener_hears_a_run_that_was_refused_and_one_that_fails_costs_nothing() -> None:
    log, heard = EventLogger(), asyncio.Queue[dict[str, Any]]()
    told = RunEvents(log)

    async def hear(logger: Any, schema_id: str, data: dict[str, Any]) -> None:
        heard.put_nowait(data)

    log.add_listener(schema_id="https://events.jupyter.org/cc_executor/run_refused/v1", listener=hear)
    told.audited({"door": "mcp", "what": "execute", "status": 429, "decision": "refused", "reason": "QueueFull: more words"})
    told.audited({"door": "mcp", "what": "control", "status": 404, "decision": "refused", "reason": "RunNotFound"})
    told.tell("refused", {"unfit": 1})
    assert await asyncio.wait_for(heard.get(), BOUND) == {"door": "mcp", "status": 429, "kind": "QueueFull"}
    assert heard.empty()


@pytest.mark.parametrize(
    ("door", "what"),
    [
        ("rest", "POST /execute"),
        ("websocket", "execute"),
        ("mcp", "execute"),
        ("mcp", "execute_list"),
        ("queue", "execute"),
        ("jupyter-ai", "execute"),
    ],
)
def test_a_refusal_is_told_whichever_door_it_was_at(door: str, what: str) -> None:
    log, written = EventLogger(), io.StringIO()
    log.register_handler(logging.StreamHandler(written))
    RunEvents(log).audited({"door": door, "what": what, "status": 429, "decision": "refused", "reason": "TooManyRuns: more words"})
    told = json.loads(written.getvalue() or "{}")
    assert {name: told.get(name) for name in ("door", "status", "kind")} == {"door": door, "status": 429, "kind": "TooManyRuns"}


def test_logs_are_json_with_the_requests_ids(server: Server) -> None:
    def lines(part: str) -> list[dict[str, Any]]:
        told = [json.loads(line) for line in server.log.splitlines(keepends=True) if line.startswith('{"at"') and line.endswith("\n")]
        return [line for line in told if part in line["message"]]

    run_id = post(server, "l-1").json()["id"]
    server.client.get(f"{API}/health", headers={"X-Request-Id": "a b"})
    # A line is written when its answer has gone.
    own = eventually(lambda: [line["request"] for line in lines("/health")], within=BOUND, what="the line of the second request")
    assert "a b" not in own, "what is no id is replaced"
    (row,) = [line for line in lines("POST /execute") if line["request"] == "l-1"]
    assert row["message"].startswith("POST /execute 202 ")
    assert (row["level"], row["logger"]) == ("info", "cc_executor.server.trace")
    results(server, run_id)


def test_what_each_person_has_used_on_each_day(server: Server) -> None:
    results(server, post(server, "u-1").json()["id"])
    runs = [each["id"] for each in server.client.get(f"{API}/executions", params={"limit": 500}).json()["executions"]]
    for run_id in runs:  # those of the tests before, too: all have ended when they are counted
        results(server, run_id)
    rows = server.client.get(f"{API}/admin/usage").raise_for_status().json()["usage"]
    assert {(row["who"], row["cost"], row["tokens"]) for row in rows} == {("", 0, 0)}
    assert sum(row["runs"] for row in rows) == len(runs) > 0, "on one day, or on two at midnight"


NAMED: Final = """
from jupyter_server.auth.identity import IdentityProvider, User


class Named(IdentityProvider):
    def get_user(self, handler):
        return User(username=handler.request.headers.get("X-Name", "olga"))


c.ServerApp.identity_provider_class = Named
c.ServerApp.disable_check_xsrf = True
c.CCExecutorServer.owner_mode = "user"
c.CCExecutorServer.max_running = 1
c.CCExecutorServer.max_queued = 1
"""


class People:
    """Several people at one server, whose owner is olga."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def ask(self, who: str, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"X-Name": who, "X-Request-Id": f"{who}-{path[1:5]}"}
        return self.server.client.request(method, path if path.startswith("/api/") else f"{API}{path}", headers=headers, **more)

    def end(self, who: str, run_id: str) -> None:
        self.ask(who, "DELETE", f"/executions/{run_id}")
        eventually(lambda: self.ask(who, "GET", f"/executions/{run_id}/results").json()["done"], within=BOUND, what="the run ends")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    folder = tmp_path_factory.mktemp("people")
    (folder / "config.py").write_text(NAMED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTERHUB_USER", "olga")
        with serving(folder, f"--config={folder / 'config.py'}") as server:
            yield People(server)


def test_where_people_have_names_each_has_a_queue_and_the_servers_owner_alone_sees_the_audit(people: People) -> None:
    sleep = {"prompt": "sleep 600", "agent": "shell"}
    told = {who: [people.ask(who, "POST", "/execute", json=sleep) for _ in range(3)] for who in ("ada", "bob")}
    for answers in told.values():
        assert [answer.status_code for answer in answers] == [202, 202, 429]
        assert [answer.json().get("place") for answer in answers[:2]] == [None, 1]
    waiting = told["ada"][1].json()["id"]
    for method, path in (("GET", "/status"), ("GET", "/results"), ("GET", "/events"), ("DELETE", "")):
        assert people.ask("bob", method, f"/executions/{waiting}{path}").status_code == 404, "it is not there for others"
    assert len(people.ask("bob", "GET", "/executions").json()["executions"]) == 2
    for path in ("/admin/audit", "/admin/usage"):
        assert people.ask("ada", "GET", path).status_code == 403
        assert people.ask("olga", "GET", path).status_code == 200
    rows = people.ask("olga", "GET", "/admin/audit", params={"who": "bob", "decision": "refused"}).json()["rows"]
    assert {(row["what"], row["run"]) for row in rows} >= {("DELETE /executions/{id}", waiting), ("POST /execute", "")}
    assert {row["who"] for row in rows} == {"bob"}
    for who, answers in told.items():
        people.ask(who, "DELETE", f"/executions/{answers[1].json()['id']}")
        people.end(who, answers[0].json()["id"])


@pytest.mark.row("threats", "somebody else on a shared server", "gets no receipt by writing the id of another's run into a notebook")
def test_a_notebook_gets_the_ends_of_runs_of_whoever_opens_or_saves_it(people: People) -> None:
    run_id = people.ask("ada", "POST", "/execute", json={"prompt": "echo hers", "agent": "shell"}).json()["id"]
    eventually(lambda: people.ask("ada", "GET", f"/executions/{run_id}/results").json()["done"], within=BOUND, what="the run ends")
    output = live_output()
    output["metadata"]["cc_executor"]["run_id"] = run_id
    content = notebook(code_cell("a", output))

    def saved_and_opened(who: str) -> str:
        model = {"type": "notebook", "format": "json", "content": content}
        people.ask(who, "PUT", f"/api/contents/of-{who}.ipynb", json=model).raise_for_status()
        return people.ask(who, "GET", f"/api/contents/of-{who}.ipynb").raise_for_status().text

    digest = people.ask("ada", "GET", f"/executions/{run_id}/receipt").json()["digest"]
    assert digest in saved_and_opened("ada")
    taken = saved_and_opened("bob")
    assert digest not in taken
    assert "hers" not in taken


@pytest.mark.row("threats", "secrets in what a server says and keeps of runs", "0 canaries in answers, events, logs and the audit")
def test_no_secret_is_in_what_the_server_says_and_keeps(server: Server) -> None:
    script = f"echo $MY_SECRET; echo $MY_SECRET >&2; env; echo {CANARY}"
    body = {"prompt": script, "env_names": ["MY_SECRET"], "label": f"label {CANARY}", "verify": "echo $MY_SECRET; exit 1"}
    started = post(server, CANARY, **body)
    run_id = started.json()["id"]
    seen: dict[str, str] = {}
    seen["results"] = json.dumps(results(server, run_id))
    for what in ("events", "receipt"):
        seen[what] = server.client.get(f"{API}/executions/{run_id}/{what}").text
    for name, more in (
        ("tool", {"agent": "claude", "tools": CANARY}), ("time", {"timeout": CANARY}), ("folder", {"cwd": f"/{CANARY}"}),
        ("agent", {"agent": CANARY}), ("option", {CANARY: 1}), ("script", {"agent": "claude", "rehearse": f"/{CANARY}"}),
    ):  # fmt: skip
        answer = post(server, f"s-{name}", **more)
        assert answer.status_code >= 400
        seen[name] = answer.text
    for path in (f"executions/{CANARY}/status", CANARY, f"executions/{run_id}/status", "executions"):
        seen[path] = server.client.get(f"{API}/{path}").text
    seen["audit"] = json.dumps(audited(server))
    seen["audit file"] = (server.home.root / "server" / FILE).read_text()
    seen["events of the server"] = (server.root.parent / "events.jsonl").read_text()
    seen["log of the extension"] = "\n".join(line for line in server.log.splitlines() if line.startswith('{"at"'))
    assert [name for name, text in seen.items() if CANARY in text] == []
    assert MASK in seen["executions"]
    assert MASK in seen["events"]
    assert MASK in seen["audit"]
    assert MASK in seen["receipt"]


@pytest.mark.row(
    "threats", "a flood of requests without a login", "pushes out no line of what others did, and is told with its size and origin"
)
def test_who_does_not_get_in_fills_nothing(server: Server) -> None:
    post(server, "before-the-flood", agent="claude")
    file, number = server.home.root / "server" / FILE, 300
    before = max((row["count"] for row in audited(server) if row["who"] is None), default=0)
    with httpx.Client(base_url=server.client.base_url, trust_env=False, timeout=BOUND) as nobody:
        for each in range(number):
            assert nobody.post(f"{API}/execute", json={}, headers={"X-Request-Id": f"f-{each}"}).status_code == 403
    rows = [row for row in audited(server) if row["who"] is None]
    assert (rows[0]["from"], rows[0]["count"], rows[0]["request"]) == ("127.0.0.1", before + number, f"f-{number - 1}")
    assert (rows[0]["what"], rows[0]["status"], rows[0]["reason"]) == ("POST /execute", 403, "NotLoggedIn")
    assert len([row for row in rows if row["request"].startswith("f-")]) < 20
    assert '"f-' not in file.read_text()
    assert of(audited(server), "before-the-flood")
    assert audited(server, before=rows[0]["at"])[0]["at"] < rows[0]["at"]


def test_of_many_addresses_few_are_counted_by_themselves_and_all_together(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "state", environ={}, by_name=True)
    for number in range(3 * ADDRESSES):
        audit.note(who=None, door="rest", what="POST /execute", status=403, origin=f"192.0.2.{number}")
    told = {row["from"]: row["count"] for row in reversed(list(audit.rows()))}
    assert len(told) == ADDRESSES + 1
    assert told[OTHERS] == 2 * ADDRESSES
    assert sum(told.values()) == 3 * ADDRESSES


def test_a_new_hour_is_counted_anew_and_what_was_not_told_of_the_last_one_is() -> None:
    rows: list[dict[str, Any]] = []
    strangers = Strangers(rows.append)
    for number in range(2 * EACH + 5):
        strangers.take({"request": f"{number}"}, "192.0.2.1", now=HOUR + number)
    assert [row["count"] for row in rows] == [*range(1, EACH + 1), 2 * EACH]
    strangers.take({"request": "next"}, "192.0.2.1", now=2 * HOUR + 1)
    assert [(row["count"], row["request"]) for row in rows[-2:]] == [(2 * EACH + 5, f"{2 * EACH + 4}"), (1, "next")]
    strangers.settle()
    assert rows[-1]["request"] == "next", "it is told already"


def test_of_what_stands_in_an_address_only_ids_are_noted(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "state", environ={}, by_name=True)
    ids = ["01a1fe661fc9ad11292534cb4c", "0123456789abcdef0123-1", "../etc/passwd", "A secret"]
    for run in ids:
        audit.note(who="ada", door="rest", what="GET /executions/{id}", status=404, run=run)
    assert [row["run"] for row in audit.rows()] == ["", "", ids[1], ids[0]]


def test_the_trail_is_bounded_and_a_torn_line_costs_one_line(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "state", environ={}, by_name=True)
    line = {"who": "ada", "door": "rest", "what": "POST /execute", "status": 202, "reason": "x" * 280}
    path = tmp_path / "state" / "server" / FILE
    audit.note(**line, request="first")
    with path.open("ab") as file:
        file.write(b'{"at": "20')
    audit.note(**line, request="second")
    assert [row["request"] for row in audit.rows()] == ["second", "first"]
    for number in range(8):  # what it is about is the size, which one long line makes, too
        with path.open("ab") as file:
            file.write(b"x" * (FILE_LIMIT - file.tell()))
        audit.note(**line, request=f"{number}")
    kept = sorted(file.name for file in path.parent.iterdir())
    assert kept == [f"{FILE}.{number}" for number in range(1, OLDER + 1)]
    assert all(file.stat().st_size <= FILE_LIMIT + 1000 for file in path.parent.iterdir())
    assert [row["request"] for row in audit.rows(who="ada")] == ["7", "6", "5", "4"]
    assert list(audit.rows(who="bob")) == []


def test_no_page_of_the_trail_leaves_out_what_was_noted_in_the_same_moment(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "state", environ={}, by_name=True)
    for number in range(12):
        audit.note(who="ada", door="rest", what="POST /execute", status=202, request=f"{number}")
    path = tmp_path / "state" / "server" / FILE
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    # Three in each moment, whatever the machine's speed.
    path.write_text(
        "".join(json.dumps(row | {"at": f"2026-01-01T00:00:00.00{number // 3}+00:00"}) + "\n" for number, row in enumerate(rows))
    )
    seen: list[str] = []
    following = ""
    while following or not seen:
        page, following = audit.page(2, before=following)
        seen += [row["request"] for row in page]
    assert seen == [f"{number}" for number in reversed(range(12))]


def test_what_cannot_be_noted_costs_no_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "server").write_text("")
    seen: list[Any] = []
    audit = Audit(tmp_path / "state", environ={"A_TOKEN": CANARY}, by_name=False, told=seen.append)
    audit.note(who="ada", door="rest", what="POST /execute", status=403, reason=f"NotAllowed: {CANARY}", run="../x")
    assert "could not be audited" in caplog.text
    assert (seen[0]["who"], seen[0]["reason"], seen[0]["run"]) == ("", f"NotAllowed: {MASK}", "")
