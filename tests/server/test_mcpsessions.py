"""Sessions of MCP clients, by hand: what is missed is given again, nobody takes another's, and nobody takes all."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cc_executor.server.mcphttp import SHARE
from support.looks import eventually
from support.mcp import BOB, BOUND, PATH, events_of, message, opened, opening, people, said_in
from support.served import Server, control, get, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("sessions")
    with serving(folder, *people(folder)) as found:
        yield found


def _missed(client: httpx.Client, number: str) -> dict[str, Any]:
    """What was said on a stream after one event. Who hears nothing comes back for it.

    What is said in the very moment in which a stream is taken up again the SDK (2.3) keeps, and does not send to that one.
    """

    def asked_for() -> dict[str, Any] | None:
        patience = httpx.Timeout(BOUND, read=5)
        with (
            contextlib.suppress(httpx.ReadTimeout),
            client.stream("GET", PATH, headers={"Last-Event-ID": number}, timeout=patience) as answer,
        ):
            return next(said_in(answer), None)
        return None

    return eventually(asked_for, within=BOUND, what="the answer is given again")


def test_an_answer_that_was_missed_is_given_again(server: Server) -> None:
    with opened(server) as client:
        run_id = server.client.post("/cc-executor/api/v1/execute", json={"prompt": "sleep 1", "agent": "shell"}).json()["id"]
        call = message("tools/call", 7, name="status", arguments={"id": run_id, "wait": 20})
        with client.stream("POST", PATH, json=call) as answer:
            number, data = next(events_of(answer))
        assert data == "", "an event to come back to, before there is an answer; then the connection breaks"
        told = _missed(client, number)
        assert told["id"] == 7
        assert told["result"]["structuredContent"]["id"] == run_id


@pytest.mark.parametrize("name", ["status", "monitor", "list_status"])
def test_a_call_whose_client_has_left_waits_for_nothing_and_ends_no_run(server: Server, name: str) -> None:
    body = {"tasks": [{"run": "sleep 600"}]} if name == "list_status" else {"prompt": "sleep 600", "agent": "shell"}
    started = server.client.post("/cc-executor/api/v1/execute", json=body).raise_for_status().json()["id"]
    try:
        for each in ("tasks", "status") if name == "list_status" else ("status",):
            eventually(lambda each=each: "running" in str(get(server, started)[each]), within=BOUND, what="it runs")
        with opened(server) as client:
            more = {"after": 100} if name == "monitor" else {}  # what has happened until now would be told at once
            call = message("tools/call", 7, name=name, arguments={"id": started, "wait": 50, **more})
            with client.stream("POST", PATH, json=call) as answer:
                number, data = next(events_of(answer))
            assert data == ""
            left_at = time.monotonic()
            told = _missed(client, number)
            assert time.monotonic() - left_at < 25, "it has not waited for all of its 50 s"
            assert not told["result"]["structuredContent"]["done"]
        assert get(server, started)["status"] == "running"
    finally:
        control(server, started, "kill")


def test_nobody_takes_over_somebody_elses_session_or_hears_its_answers(server: Server) -> None:
    with opened(server) as client, opened(server) as other:
        assert client.post(PATH, json=message("tools/list", 5)).status_code == 200
        stolen = {"Authorization": f"Bearer {BOB}"}
        assert client.post(PATH, json=message("tools/list"), headers=stolen).status_code == 404
        assert client.get(PATH, headers=stolen).status_code == 404
        assert client.delete(PATH, headers=stolen).status_code == 404
        assert client.post(PATH, json=message("tools/list"), headers={"Authorization": ""}).status_code == 401
        assert client.post(PATH, json=message("tools/list")).status_code == 200, "it is still its owner's"
        with other.stream("POST", PATH, json=message("tools/list", 5)) as answer:
            own = [number for number, _ in events_of(answer)]
        with other.stream("GET", PATH, headers={"Last-Event-ID": own[0]}) as answer:
            told = next(json.loads(data) for number, data in events_of(answer) if data and number in own)
        assert told["id"] == 5
        assert client.delete(PATH).status_code == 200
        assert client.post(PATH, json=message("tools/list")).status_code == 404


@pytest.mark.row(
    "threats", "one person who opens MCP sessions without end", "others get theirs; of one's own, the one that is idle for longest goes"
)
def test_nobody_takes_all_sessions(server: Server) -> None:
    accept = {"Accept": "application/json, text/event-stream"}
    with contextlib.ExitStack() as stack:
        own = [stack.enter_context(opened(server)) for _ in range(SHARE)]
        assert own[0].post(PATH, json=message("tools/list")).status_code == 200, "this one is not the idle one any more"
        more = stack.enter_context(opened(server))
        gone = [client for client in own if client.post(PATH, json=message("tools/list")).status_code == 404]
        assert gone == [own[1]]
        in_use = [client for client in [*own, more] if client is not own[1]]
        streams = [stack.enter_context(client.stream("GET", PATH)) for client in in_use]
        assert [stream.status_code for stream in streams] == [200] * SHARE
        refused = opening(server.client, **accept)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "10")
        assert "End a client" in refused.json()["error"]["message"]
        assert refused.json()["error"]["data"] == {"kind": "TooManySessions", "retry_after": 10}
        assert opening(server.client, **accept, Authorization=f"Bearer {BOB}").status_code == 200, "somebody else gets one"
        streams[5].close()
        eventually(
            lambda: opening(server.client, **accept).status_code == 200, within=BOUND, what="a session that nobody uses any more makes room"
        )
        assert in_use[5].post(PATH, json=message("tools/list")).status_code == 404
        assert in_use[4].post(PATH, json=message("tools/list")).status_code == 200


def test_a_server_that_ends_complains_of_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as server, opened(server) as client, client.stream("GET", PATH) as listening:
        assert listening.status_code == 200
        assert client.post(PATH, json=message("tools/list")).status_code == 200
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(BOUND)
        assert not [line for line in server.log.splitlines() if "Traceback" in line or "Task was destroyed" in line], server.log
