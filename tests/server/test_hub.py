"""Several people at a real JupyterHub with the configuration that the docs show: whose a run is, who may do what, and that a run keeps its server.

alice, bob and dora may run agents, root oversees them, and carol is somebody who can log in.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import pytest
import websocket
from playwright.sync_api import Browser, BrowserContext, Page

from support.environments import CHECKOUT
from support.hub import PASSWORD, Hub, serving_hub
from support.looks import eventually

pytestmark = pytest.mark.timeout(300)

API: Final = "/cc-executor/api/v1"
MCP: Final = "/cc-executor/mcp"
BOUND: Final = 60.0
CACHED: Final = 1  # seconds for which a server believes what the hub has said; 60 in the docs
# Seconds: the culler's patience, and for how long a run counts. The long variant has the figures that were measured first; here are the same ones smaller.
CULL_AFTER, MOST = (20, 70) if os.environ.get("CC_EXECUTOR_TEST_LONG") else (6, 14)
COUNTS: Final = "n=0; until [ -e go ]; do echo line $n; n=$((n+1)); sleep 0.1; done; echo line $n last"
Saw = Callable[[str], None]
ACCESS: Final = "access:servers!server=alice/"
EXECUTE: Final = "custom:cc-executor:execute!server=alice/"


@dataclass(frozen=True)
class LongRun:
    """A run that goes on at dora's server, which is begun with the hub."""

    run_id: str
    begun: float
    folder: Path
    culler: subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def hub(place: Path) -> Iterator[Hub]:
    arguments = {"--HubOAuth.cache_max_age": str(CACHED), "--CCExecutorServer.max_activity": str(MOST)}
    own = place / "home" / "bob" / ".jupyter"
    own.mkdir(parents=True)
    (own / "jupyter_server_config.json").write_text(json.dumps({"HubAuthorizer": {"open_to_guests": False}}))
    with serving_hub(
        place, agents=["alice", "bob", "dora"], culled="dora", arguments=arguments, interval=1, cull_after=CULL_AFTER
    ) as found:
        found.api.post("/users/carol").raise_for_status()
        for name in ("alice", "bob", "carol"):
            found.begin(name)
        for name in ("alice", "bob", "carol"):
            found.await_server(name)
        yield found


@pytest.fixture(scope="module")
def shared(hub: Hub) -> Hub:
    """alice has let bob onto her server, to run agents of his own."""
    share(hub, "bob", ACCESS, EXECUTE)
    return hub


@pytest.fixture(scope="module", autouse=True)
def long_run(hub: Hub, place: Path) -> Iterator[LongRun]:
    """Begun first, so that the other tests pass while it goes on."""
    hub.begin("dora")
    hub.await_server("dora")
    folder = place / "long"
    folder.mkdir()
    begun = time.monotonic()
    with hub.at("dora", hub.token("dora")) as dora:
        run_id = execute(dora, COUNTS, cwd=str(folder))
    with hub.culling(CULL_AFTER) as culler:
        try:
            yield LongRun(run_id, begun, folder, culler)
        finally:
            (folder / "go").touch()


def share(hub: Hub, guest: str, *scopes: str) -> None:
    with httpx.Client(
        base_url=f"{hub.url}/hub/api", headers={"Authorization": f"token {hub.token('alice')}"}, trust_env=False, timeout=BOUND
    ) as alice:
        assert alice.post("/shares/alice/", json={"user": guest, "scopes": scopes}).status_code == 200


def execute(client: httpx.Client, script: str, **more: Any) -> str:
    answer = client.post(f"{API}/execute", json={"prompt": script, "agent": "shell", "shell": "bash", **more})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def listed(client: httpx.Client, path: str = "/executions") -> dict[str, str]:
    """Ids of runs, and their owners where they are told."""
    answer = client.get(f"{API}{path}", params={"limit": 500})
    assert answer.status_code == 200, answer.text
    return {row["id"]: row.get("owner", "") for row in answer.json()["executions"]}


def results(client: httpx.Client, run_id: str) -> Any:
    def ended() -> Any:
        answer = client.get(f"{API}/executions/{run_id}/results")
        return answer.is_success and answer.json()["done"] and answer.json()

    return eventually(ended, within=BOUND, what="the run ends")


def written(client: httpx.Client, run_id: str, offset: int) -> tuple[str, int]:
    piece = client.get(f"{API}/executions/{run_id}/events", params={"offset": offset}).raise_for_status().json()
    return piece["data"], piece["next_offset"]


@contextlib.contextmanager
def going(client: httpx.Client) -> Iterator[str]:
    run_id = execute(client, "echo up; sleep 600")
    try:
        yield run_id
    finally:
        client.post(f"{API}/executions/{run_id}/control", json={"op": "kill"})
        results(client, run_id)


@contextlib.contextmanager
def overseen(hub: Hub) -> Iterator[tuple[httpx.Client, httpx.Client, httpx.Client, str]]:
    """alice, bob and root at the server of alice, and a run of hers that goes on."""
    with (
        hub.at("alice", hub.token("alice")) as alice,
        hub.at("alice", hub.token("bob")) as bob,
        hub.at("alice", hub.token("root")) as root,
        going(alice) as of_alice,
    ):
        yield alice, bob, root, of_alice


def mcp_session(client: httpx.Client) -> str:
    """Open an MCP session; its id."""
    about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "tests", "version": "0"}}
    opened = mcp_call(client, "", "initialize", about)
    assert opened.status_code == 200, opened.text
    return opened.headers["mcp-session-id"]


def mcp_call(client: httpx.Client, session: str, method: str, params: dict[str, Any]) -> httpx.Response:
    headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}
    headers |= {"Mcp-Session-Id": session} if session else {}
    return client.post(MCP, json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, headers=headers)


def tool(client: httpx.Client, session: str, name: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool over MCP."""
    answer = mcp_call(client, session, "tools/call", {"name": name, "arguments": arguments})
    assert answer.status_code == 200, answer.text
    (said,) = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")] or [answer.text]
    return json.loads(said)["result"]["structuredContent"]


def socket_of(hub: Hub, server: str, token: str = "", **more: Any) -> websocket.WebSocket:
    url = hub.url.replace("http", "ws") + f"/user/{server}/cc-executor/ws"
    header = [f"Authorization: Bearer {token}"] if token else []
    return websocket.create_connection(url, timeout=BOUND, header=header, suppress_origin="origin" not in more, **more)


def refused(hub: Hub, server: str, token: str = "", **more: Any) -> int:
    """The status with which a WebSocket is refused."""
    with pytest.raises(websocket.WebSocketBadStatusException) as told:
        socket_of(hub, server, token, **more)
    return told.value.status_code


def call(socket: websocket.WebSocket, method: str, **params: Any) -> dict[str, Any]:
    socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
    return json.loads(socket.recv())


def listening(process: psutil.Process) -> set[int]:
    """The ports on which a server and all that it has started listen, as `ss -ltn` shows them."""
    ports: set[int] = set()
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # a run's own end
            ports |= {each.laddr.port for each in one.net_connections("inet") if each.status == psutil.CONN_LISTEN}
    return ports


@pytest.mark.row("threats", "another hub user, without a share", "403 everywhere")
def test_nobody_gets_onto_a_server_that_is_not_shared_with_them(hub: Hub) -> None:
    body = {"prompt": "true", "agent": "shell"}
    for token in ("", "nonsense", hub.token("bob"), hub.token("carol")):
        with hub.at("alice", token) as client:
            assert client.post(f"{API}/execute", json=body).status_code == 403
            assert client.get(f"{API}/executions").status_code == 403
            assert client.post(MCP, json={}).status_code == 401
        assert refused(hub, "alice", token) == 403


def test_a_token_in_the_address_opens_nothing_but_a_websocket(hub: Hub) -> None:
    token = hub.token("alice")
    with hub.at("alice") as anybody:
        assert anybody.get(f"{API}/executions", params={"token": token}).status_code == 403
    url = hub.url.replace("http", "ws") + f"/user/alice/cc-executor/ws?token={token}"
    with contextlib.closing(websocket.create_connection(url, timeout=BOUND, header=["Sec-Fetch-Mode: websocket"])) as socket:
        assert "result" in call(socket, "list")


def test_who_may_not_run_agents_runs_none_and_has_the_rest_of_their_server(hub: Hub) -> None:
    with hub.at("carol", hub.token("carol")) as carol:
        assert carol.post(f"{API}/execute", json={"prompt": "true", "agent": "shell"}).status_code == 403
        assert carol.get(f"{API}/executions").status_code == 403
        assert carol.post(MCP, json={}).status_code == 403
        assert carol.get("/api/contents").status_code == 200
    assert refused(hub, "carol", hub.token("carol")) == 403


@pytest.mark.row("threats", "a guest on a shared server", "somebody else's run is not there, and nothing is done to it")
def test_a_run_belongs_to_who_called_and_is_not_there_for_others(shared: Hub) -> None:
    hub = shared
    with (
        hub.at("alice", hub.token("alice")) as alice,
        hub.at("alice", hub.token("bob")) as bob,
        hub.at("bob", hub.token("bob")) as elsewhere,
    ):
        with going(alice) as of_alice:
            assert of_alice not in listed(bob)
            for answer in (
                *(bob.get(f"{API}/executions/{of_alice}/{what}") for what in ("status", "results", "receipt", "events")),
                *(bob.post(f"{API}/executions/{of_alice}/control", json={"op": op}) for op in ("pause", "cancel", "kill")),
                bob.delete(f"{API}/executions/{of_alice}"),
                elsewhere.get(f"{API}/executions/{of_alice}/status"),
            ):
                assert answer.status_code == 404, answer.request.url
            assert alice.get(f"{API}/executions/{of_alice}/status").json()["status"] == "running", "and nothing was done to it"
        of_bob = execute(bob, "echo by bob")
        assert results(bob, of_bob)["text"] == "by bob\n"
        assert alice.get(f"{API}/executions/{of_bob}/status").status_code == 404
        assert of_bob in listed(bob)
        assert of_bob not in listed(alice)
        assert bob.get(f"{API}/admin/executions").status_code == 403
        assert alice.get(f"{API}/admin/executions").status_code == 403


def test_an_admin_sees_everybody_s_runs_and_ends_them(shared: Hub) -> None:
    with overseen(shared) as (alice, bob, root, of_alice):
        of_bob = execute(bob, "true")
        owners = listed(root, "/admin/executions")
        assert (owners[of_alice], owners[of_bob]) == ("alice", "bob")
        own = execute(root, "true")
        assert listed(root) == {own: ""}, "their own list is theirs"
        assert root.delete(f"{API}/executions/{of_alice}").status_code == 202
        assert results(alice, of_alice)["status"] == "cancelled"
        for run_id, client in ((of_bob, bob), (own, root)):
            results(client, run_id)


def test_an_admin_reads_who_was_refused_what_and_who_has_used_what(shared: Hub) -> None:
    with overseen(shared) as (alice, bob, root, of_alice):
        assert bob.post(f"{API}/executions/{of_alice}/control", json={"op": "kill"}).status_code == 404
        results(bob, execute(bob, "true"))

        def noted() -> list[tuple[str, str]]:
            rows = root.get(f"{API}/admin/audit", params={"who": "bob", "decision": "refused"}).raise_for_status().json()["rows"]
            return [(row["run"], row["what"]) for row in rows]

        eventually(lambda: (of_alice, "POST /executions/{id}/control") in noted(), within=BOUND, what="the refusal")
        assert "bob" in {row["who"] for row in root.get(f"{API}/admin/usage").json()["usage"]}
        for page in ("audit", "usage"):
            assert [client.get(f"{API}/admin/{page}").status_code for client in (alice, bob)] == [403, 403]


def test_a_server_can_be_closed_to_guests_but_for_the_runs(hub: Hub) -> None:
    with hub.at("bob", hub.token("root")) as guest, hub.at("bob", hub.token("bob")) as bob:
        for path in ("/api/contents", "/api/kernels", "/api/terminals"):
            assert guest.get(path).status_code == 403, path
            assert bob.get(path).status_code == 200, path
        assert guest.get(f"{API}/executions").status_code == 200


@pytest.mark.row("threats", "a token that may only look", "it starts and ends nothing")
def test_a_share_or_a_token_that_may_only_look_starts_and_ends_nothing(hub: Hub) -> None:
    looks = hub.token("alice", "access:servers!user=alice", "custom:cc-executor:read!user=alice")
    with hub.at("alice", looks) as reader, hub.at("alice", hub.token("alice")) as alice, going(alice) as run_id:
        assert run_id in listed(reader)
        assert reader.post(f"{API}/execute", json={"prompt": "true"}).status_code == 403
        assert reader.delete(f"{API}/executions/{run_id}").status_code == 403
        told = tool(reader, mcp_session(reader), "control", id=run_id, op="kill")
        assert told["error"]["kind"] == "NotAllowed"
        with contextlib.closing(socket_of(hub, "alice", looks)) as socket:
            assert call(socket, "control", id=run_id, op="kill")["error"]["code"] == -32000
        assert alice.get(f"{API}/executions/{run_id}/status").json()["status"] == "running"


@pytest.mark.row("threats", "a guest on a shared server", "somebody else's run is not there, and nothing is done to it")
def test_over_a_websocket_somebody_else_s_run_is_not_there(shared: Hub) -> None:
    hub = shared
    with (
        hub.at("alice", hub.token("alice")) as alice,
        going(alice) as run_id,
        contextlib.closing(socket_of(hub, "alice", hub.token("bob"))) as bob,
    ):
        for method in ("subscribe", "status", "results"):
            assert call(bob, method, id=run_id)["error"]["code"] == -32003
        assert call(bob, "control", id=run_id, op="kill")["error"]["code"] == -32003
        assert run_id not in {row["id"] for row in call(bob, "list")["result"]["executions"]}


@pytest.mark.row("threats", "a guest on a shared server", "somebody else's run is not there, and nothing is done to it")
def test_over_mcp_somebody_else_s_run_and_session_are_not_there(shared: Hub) -> None:
    with shared.at("alice", shared.token("alice")) as alice, shared.at("alice", shared.token("bob")) as bob, going(alice) as run_id:
        hers, his = mcp_session(alice), mcp_session(bob)
        assert run_id in {row["id"] for row in tool(alice, hers, "executions")["executions"]}
        assert run_id not in {row["id"] for row in tool(bob, his, "executions")["executions"]}
        for name, more in (("status", {}), ("results", {}), ("control", {"op": "kill"})):
            assert "no such execution" in tool(bob, his, name, id=run_id, **more)["error"]["message"]
        taken = mcp_call(bob, hers, "tools/call", {"name": "status", "arguments": {"id": run_id}})
        assert taken.status_code == 404
        assert run_id not in taken.text


class Blank(BaseHTTPRequestHandler):
    """A page of somebody else."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass


@contextlib.contextmanager
def foreign_page() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Blank)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def logged_in(browser: Browser, hub: Hub, name: str) -> Page:
    """A page of alice's server, where somebody has logged in by the hub's form."""
    page = browser.new_context().new_page()
    page.set_default_timeout(1000 * BOUND)
    page.goto(f"{hub.url}/hub/login?next=/hub/home")
    page.fill("#username_input", name)
    page.fill("#password_input", PASSWORD)
    page.click("#login_submit")
    page.wait_for_url("**/hub/home")
    page.goto(f"{hub.url}/user/alice/files/nothing")  # a page that sends who is not known there to the hub, and back
    if name != "alice":
        page.click("form button[type=submit]")  # whether alice's server may know who they are
        page.wait_for_url("**/files/nothing")
    page.goto(f"{hub.url}/user/alice/")  # one that is no sandbox
    return page


FETCHED: Final = """async ([url, method, headers, mode]) => {
    const body = method == "POST" ? JSON.stringify({prompt: "true", agent: "shell"}) : undefined
    try { return (await fetch(url, {method, headers, body, mode, credentials: "include"})).status } catch (error) { return 0 }
}"""
OPENED: Final = """url => new Promise(done => {
    const socket = new WebSocket(url)
    socket.onopen = () => done(true)
    socket.onerror = () => done(false)
})"""


def cookies_for(context: BrowserContext, url: str) -> dict[str, str]:
    """The cookies that go with a request."""
    return {each.get("name", ""): each.get("value", "") for each in context.cookies(url)}


@pytest.mark.row("threats", "another page in the same browser, on a hub", "it starts nothing, reads nothing, opens no socket")
def test_a_browser_needs_the_page_s_own_word_and_another_page_gets_nothing(hub: Hub, browser: Browser) -> None:
    page = logged_in(browser, hub, "alice")
    with hub.at("alice", hub.token("alice")) as alice, foreign_page() as elsewhere:
        before = listed(alice).keys()
        url, socket = f"{hub.url}/user/alice{API}", f"{hub.url.replace('http', 'ws')}/user/alice/cc-executor/ws"
        word, hub_word = (cookies_for(page.context, f"{hub.url}{path}")["_xsrf"] for path in ("/user/alice/", "/hub/"))

        def fetched(path: str, method: str, said: str = "", mode: str = "cors") -> int:
            return page.evaluate(FETCHED, [f"{url}{path}", method, {"X-XSRFToken": said} if said else {}, mode])

        assert fetched("/execute", "POST") == 403
        assert fetched("/execute", "POST", hub_word) == 403, "the hub's own word is not the server's"
        assert fetched("/executions", "GET") == 403
        assert fetched("/executions", "GET", word) == 200
        assert listed(alice).keys() == before
        assert fetched("/execute", "POST", word) == 202
        (run_id,) = listed(alice).keys() - before
        results(alice, run_id)
        assert page.evaluate(OPENED, f"{socket}?_xsrf={word}")
        assert page.evaluate("async url => (await fetch(url, {method: 'POST', body: '{}'})).status", f"{hub.url}/user/alice{MCP}") == 401

        cookies = "; ".join(f"{name}={value}" for name, value in cookies_for(page.context, url).items())
        with hub.at("alice", Cookie=cookies) as forged:
            said = {"X-XSRFToken": word, "Sec-Fetch-Mode": "cors"}
            assert forged.get(f"{API}/executions", headers=said).status_code == 200, "the cookies are good"
            foreign = forged.post(f"{API}/execute", json={"prompt": "true", "agent": "shell"}, headers=said | {"Origin": elsewhere})
            assert foreign.status_code == 404
        assert refused(hub, "alice", cookie=cookies, origin=elsewhere) == 403

        page.goto(elsewhere)
        for mode in ("cors", "no-cors"):
            for method in ("POST", "GET"):
                assert fetched("/execute" if method == "POST" else "/executions", method, mode=mode) in {0, 403}
        assert not page.evaluate(OPENED, f"{socket}?_xsrf={word}")
        assert listed(alice).keys() == before | {run_id}


def test_in_a_browser_an_admin_oversees_and_a_share_gives_no_right_to_run_agents(shared: Hub, browser: Browser) -> None:
    """The hub passes on what somebody's roles give, and of a share the access alone (JupyterHub 6.1): docs/hub.md says so."""
    hub = shared
    for name, status in (("root", 200), ("bob", 403)):
        page = logged_in(browser, hub, name)
        word = {"X-XSRFToken": cookies_for(page.context, f"{hub.url}/user/alice/")["_xsrf"]}
        assert page.evaluate(FETCHED, [f"{hub.url}/user/alice/api/contents", "GET", word, "cors"]) == 200, "both are let in"
        for path in ("/executions", "/admin/executions"):
            assert page.evaluate(FETCHED, [f"{hub.url}/user/alice{API}{path}", "GET", word, "cors"]) == status, (name, path)


def test_the_extension_opens_no_port(hub: Hub) -> None:
    process = hub.await_server("alice")
    (port,) = listening(process)
    with hub.at("alice", hub.token("alice")) as alice, going(alice):
        tool(alice, mcp_session(alice), "executions")
        assert listening(process) == {port}


CLIENT: Final = """
[[turn]]
[[turn.block]]
tool = "mcp__runs__{tool}"
[turn.block.input]
{input}

[[turn]]
[[turn.block]]
text = "Done."
"""


def test_the_real_claude_code_starts_a_run_through_the_hub_follows_it_and_reads_its_result(hub: Hub, tmp_path: Path) -> None:
    token = hub.token("alice", "access:servers!user=alice", "custom:cc-executor:execute!user=alice")
    url = f"{hub.url}/user/alice{MCP}"
    (tmp_path / ".mcp.json").write_text(
        json.dumps({"mcpServers": {"runs": {"type": "http", "url": url, "headers": {"Authorization": f"Bearer {token}"}}}})
    )
    with hub.at("alice", hub.token("alice")) as alice:

        def asked(name: str, **given: str) -> Any:
            """What the tool has answered to the CLI, by the transcript of its run."""
            script = tmp_path / f"{name}.toml"
            script.write_text(CLIENT.format(tool=name, input="\n".join(f"{key} = {json.dumps(value)}" for key, value in given.items())))
            body = {"prompt": "Use it.", "rehearse": str(script), "cwd": str(tmp_path), "trust_workspace": True, "tools": "mcp__runs"}
            run_id = alice.post(f"{API}/execute", json=body).raise_for_status().json()["id"]
            assert results(alice, run_id)["status"] == "ok"
            lines = [json.loads(line) for line in written(alice, run_id, 0)[0].splitlines()]
            (told,) = [
                block for line in lines if line["type"] == "user" for block in line["message"]["content"] if block["type"] == "tool_result"
            ]
            content = told["content"]
            return json.loads(content if isinstance(content, str) else content[0]["text"])

        inner = asked("execute", prompt="echo through the hub", agent="shell", label="inner")["id"]
        assert inner in listed(alice)
        results(alice, inner)
        assert asked("status", id=inner)["output"]["data"] == "through the hub\n"
        assert asked("results", id=inner)["text"] == "through the hub\n"


@pytest.mark.row("faults", "a hub's server killed mid-run", "the next one finds the run, no byte is missing or twice")
def test_a_server_that_is_killed_mid_run_finds_it_again_and_no_byte_is_missing(hub: Hub, tmp_path: Path) -> None:
    with hub.at("bob", hub.token("bob")) as bob:
        run_id = execute(bob, COUNTS, cwd=str(tmp_path))
        text, offset = eventually(lambda: (found := written(bob, run_id, 0))[0] and found, within=BOUND, what="the run writes")
        hub.await_server("bob").kill()
        hub.await_no_server("bob", within=BOUND)
        hub.begin("bob")
        hub.await_server("bob")
        assert run_id in listed(bob)
        assert bob.get(f"{API}/executions/{run_id}/status").json()["status"] == "running"
        (tmp_path / "go").touch()
        assert results(bob, run_id)["status"] == "ok"
        rest, _ = written(bob, run_id, offset)
    whole = (text + rest).splitlines()
    assert whole == [f"line {number}" for number in range(len(whole) - 1)] + [f"line {len(whole) - 1} last"]


@pytest.mark.row(
    "faults",
    "a hub's culler",
    "a run at work keeps its server; what hangs does so for a time, goes on without it, and is found by the next",
)
def test_a_run_keeps_its_server_from_the_culler_but_not_for_ever_and_outlives_it(hub: Hub, long_run: LongRun, saw: Saw) -> None:
    hub.await_no_server("dora", within=MOST + CULL_AFTER + BOUND)
    kept = time.monotonic() - long_run.begun
    saw(f"culled after {kept:.0f} s, with a culler of {CULL_AFTER} s and a maximum of {MOST} s")
    long_run.culler.kill()
    assert kept > MOST, "without a sign of activity it would have been gone after CULL_AFTER"
    folder = hub.home("dora").folder(long_run.run_id)
    offset = folder.size("stdout")
    eventually(lambda: folder.size("stdout") > offset, within=BOUND, what="the run goes on without a server")
    hub.begin("dora")
    hub.await_server("dora")
    with hub.at("dora", hub.token("dora")) as dora:
        assert dora.get(f"{API}/executions/{long_run.run_id}/status").json()["status"] == "running"
        (long_run.folder / "go").touch()
        text = results(dora, long_run.run_id)["text"].splitlines()
    assert text == [f"line {number}" for number in range(len(text) - 1)] + [f"line {len(text) - 1} last"]


@pytest.mark.row("threats", "a share that was revoked", "over when the server asks the hub again, for open sockets, too")
def test_what_is_revoked_is_over_when_the_server_asks_again(shared: Hub) -> None:
    hub = shared
    known = hub.token("bob")
    with hub.at("alice", known) as bob, contextlib.closing(socket_of(hub, "alice", known)) as socket:
        assert bob.get(f"{API}/executions").status_code == 200
        assert "result" in call(socket, "list")
        hub.api.request("DELETE", "/shares/alice/", params={"user": "bob"}).raise_for_status()
        eventually(lambda: bob.get(f"{API}/executions").status_code == 403, within=CACHED + BOUND, what="the share is over")
        # A socket that is open is asked about again, too, when what it was believed for is over.
        eventually(lambda: call(socket, "list").get("error", {}).get("code") == -32000, within=CACHED + BOUND, what="the socket is refused")


def test_the_configuration_of_the_docs_is_the_one_that_was_tested(hub: Hub, place: Path) -> None:
    assert str(CHECKOUT / "docs" / "hub" / "jupyterhub_config.py") in (place / "jupyterhub_config.py").read_text()
    command = hub.await_server("alice").cmdline()
    assert "--ServerApp.authorizer_class=cc_executor.server.authorizer.HubAuthorizer" in command
