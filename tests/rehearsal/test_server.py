"""The scripted API over HTTP, without the CLI."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest

from cc_executor.rehearsal.loopback import API_KEY, CONNECTIONS_LIMIT
from cc_executor.rehearsal.scripts import Block, Fault, Script, Turn, Usage
from cc_executor.rehearsal.server import BODY_LIMIT, PING_INTERVAL, RehearsalServer, ServedRehearsal, serving

MESSAGES = "/v1/messages?beta=true"
TEXT = Block(text="abcdefgh", piece=2)


def script(*turns: Turn) -> Script:
    return Script(turns=turns)


def broken(fault: Fault) -> Script:
    return script(Turn(blocks=(TEXT,), fault=fault))


@contextmanager
def connected(served: ServedRehearsal) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    try:
        yield connection
    finally:
        connection.close()


def ask(connection: http.client.HTTPConnection, answers: int = 0, *, stream: bool = True, **more: Any) -> http.client.HTTPResponse:
    messages = [{"role": "user", "content": "p"}] + [
        {"role": role, "content": "x"} for _ in range(answers) for role in ("assistant", "user")
    ]
    payload = {"model": "m", "stream": stream, "messages": messages, "thinking": {"type": "adaptive"}, **more}
    connection.request("POST", MESSAGES, json.dumps(payload), {"x-api-key": API_KEY, "content-type": "application/json"})
    return connection.getresponse()


def events(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in data.decode().split("\n") if line.startswith("data: ")]


def text_in(found: list[dict[str, Any]]) -> str:
    return "".join(event["delta"].get("text", "") for event in found if event["type"] == "content_block_delta")


def test_a_text_is_streamed_in_pieces_and_in_the_order_of_the_api() -> None:
    with serving(script(Turn(blocks=(TEXT,)))) as served, connected(served) as connection:
        response = ask(connection)
        found = events(response.read())
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    kinds = ["message_start", "content_block_start", *["content_block_delta"] * 4, "content_block_stop", "message_delta", "message_stop"]
    assert [event["type"] for event in found] == kinds
    assert text_in(found) == "abcdefgh"
    assert found[-2]["delta"]["stop_reason"] == "end_turn"


def test_the_same_answer_comes_whole_for_a_request_without_stream() -> None:
    blocks = (Block(thinking="hm"), TEXT, Block(tool="Write", input={"file_path": "{cwd}/x {n}", "size": 3}, repeat_input={"file_path": 2}))
    with serving(script(Turn(blocks=blocks)), cwd="/w") as served, connected(served) as connection:
        message = json.loads(ask(connection, stream=False).read())
    assert [block["type"] for block in message["content"]] == ["thinking", "text", "tool_use"]
    assert message["content"][1]["text"] == "abcdefgh"
    assert message["content"][2]["input"] == {"file_path": "/w/x 1/w/x 2", "size": 3}
    assert message["stop_reason"] == "tool_use"


def test_usage_and_headers_are_those_of_the_script() -> None:
    usage = Usage(input_tokens=7, output_tokens=11, cache_read_input_tokens=13, cache_creation_input_tokens=17)
    turn = Turn(blocks=(TEXT,), usage=usage, headers={"anthropic-ratelimit-unified-status": "allowed_warning"}, stop_reason="pause_turn")
    with serving(script(turn)) as served, connected(served) as connection:
        response = ask(connection)
        found = events(response.read())
    assert response.headers["anthropic-ratelimit-unified-status"] == "allowed_warning"
    assert found[-2]["usage"] == {"input_tokens": 7, "output_tokens": 11, "cache_read_input_tokens": 13, "cache_creation_input_tokens": 17}
    assert found[-2]["delta"]["stop_reason"] == "pause_turn"


def test_after_its_end_the_script_says_so() -> None:
    with serving("hello", pace=0) as served, connected(served) as connection:
        ask(connection).read()
        assert "script has ended" in text_in(events(ask(connection, answers=1).read()))


def test_a_fault_once_is_met_once_and_the_turn_is_then_played() -> None:
    fault = Fault(kind="status", status=429, error="rate_limit_error", message="slow down", retry_after=7, times=1)
    with serving(broken(fault)) as served, connected(served) as connection:
        refused = ask(connection)
        problem = json.loads(refused.read())
        played = events(ask(connection).read())
        attempts = [(request.turn, request.attempt, request.answer) for request in served.requests]
    assert (refused.status, refused.headers["retry-after"]) == (429, "7")
    assert problem["error"] == {"type": "rate_limit_error", "message": "slow down"}
    assert text_in(played) == "abcdefgh"
    assert attempts == [(0, 1, "429"), (0, 2, "200")]


def read_until_broken(response: http.client.HTTPResponse) -> tuple[bytes, Exception | None]:
    data = b""
    try:
        while piece := response.read1():
            data += piece
    except (OSError, http.client.HTTPException) as error:
        return data, error
    return data, None


def test_a_reset_midway_is_a_reset_after_so_many_deltas() -> None:
    with serving(broken(Fault(kind="reset", after=2))) as served, connected(served) as connection:
        data, error = read_until_broken(ask(connection))
    assert isinstance(error, ConnectionResetError)
    assert "abcd".startswith(text_in(events(data)))  # a reset may overtake what was sent just before it


def test_an_end_midway_is_an_end_without_a_last_chunk() -> None:
    with serving(broken(Fault(kind="eof", after=2))) as served, connected(served) as connection:
        data, error = read_until_broken(ask(connection))
    assert isinstance(error, http.client.IncompleteRead)
    assert text_in(events(data)) == "abcd"


def test_a_fault_later_than_the_answer_still_comes_before_its_end() -> None:
    with serving(broken(Fault(kind="eof", after=99))) as served, connected(served) as connection:
        data, _ = read_until_broken(ask(connection))
    assert text_in(events(data)) == "abcdefgh"
    assert events(data)[-1]["type"] == "content_block_stop"


def test_an_error_event_midway_ends_the_stream_in_good_order() -> None:
    fault = Fault(kind="error_event", after=1, error="overloaded_error", message="Overloaded")
    with serving(broken(fault)) as served, connected(served) as connection:
        found = events(ask(connection).read())
    assert text_in(found[:-1]) == "ab"
    assert found[-1] == {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


def test_a_stall_with_pings_shows_life_and_no_text() -> None:
    with serving(broken(Fault(kind="stall", after=1, pings=True))) as served, connected(served) as connection:
        response, data = ask(connection), b""
        while b'"type": "ping"' not in data:
            data += response.read1()
    assert text_in(events(data)) == "ab"


@pytest.mark.parametrize("stream", [True, False])
def test_a_stall_before_the_headers_is_silent_and_lasts(stream: bool) -> None:
    fault = Fault(kind="stall", at="headers", pings=True, seconds=PING_INTERVAL + 0.2)
    with serving(broken(fault)) as served, connected(served) as connection, pytest.raises(ConnectionResetError) as caught:
        ask(connection, stream=stream)
    assert not isinstance(caught.value, http.client.RemoteDisconnected), "it ended before its time, and not by a reset"


def test_a_stall_of_an_answer_that_is_no_stream_has_no_pings() -> None:
    with serving(broken(Fault(kind="stall", pings=True, seconds=PING_INTERVAL + 0.2))) as served, connected(served) as connection:
        response = ask(connection, stream=False)
        assert read_until_broken(response)[0] == b""


@pytest.mark.parametrize("at", ["headers", "midway"])
def test_a_stall_that_is_over_ends_in_a_reset(at: Any) -> None:
    with (
        serving(broken(Fault(kind="stall", at=at, seconds=0.05, after=0))) as served,
        connected(served) as connection,
        pytest.raises(ConnectionResetError),
    ):
        ask(connection).read()


def test_a_stall_ends_when_the_client_goes() -> None:
    with serving(broken(Fault(kind="stall", at="headers"))) as served:
        with connected(served) as connection:
            connection.request("POST", MESSAGES, json.dumps({"messages": []}))
            served.wait_for_requests(1)
        with connected(served) as other:
            other.request("HEAD", "/")
            assert other.getresponse().status == 200


def test_the_server_closes_at_once_though_a_client_still_waits() -> None:
    with serving(broken(Fault(kind="stall", at="headers"))) as served:
        waiting = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
        waiting.request("POST", MESSAGES, json.dumps({"messages": []}))
        served.wait_for_requests(1)
        port = served.port
    with pytest.raises((ConnectionError, http.client.BadStatusLine)):
        waiting.getresponse()
    waiting.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_everything_else_that_a_cli_asks_is_answered() -> None:
    with serving("hello") as served, connected(served) as connection:
        answers: list[tuple[int, bytes]] = []
        for method, path, payload in [
            ("HEAD", "/", None),
            ("POST", "/v1/messages/count_tokens?beta=true", json.dumps({"messages": [{"role": "user", "content": "x" * 400}]})),
            ("GET", "/api/hello", None),
            ("POST", MESSAGES, "[1]"),
            ("POST", MESSAGES, "{"),
        ]:
            connection.request(method, path, payload)
            response = connection.getresponse()
            answers.append((response.status, response.read()))
        kinds = [(request.kind, request.answer) for request in served.requests]
    assert [status for status, _ in answers] == [200, 200, 404, 400, 400]
    assert json.loads(answers[1][1])["input_tokens"] > 100
    assert kinds == [("probe", "200"), ("count_tokens", "200"), ("other", "404"), ("other", "400"), ("other", "400")]


def test_helpers_get_what_they_ask_for_and_consume_no_turn() -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    tools = [{"name": "pick", "input_schema": schema}]
    with serving(script(Turn(blocks=(TEXT,)))) as served, connected(served) as connection:
        formatted = events(ask(connection, output_config={"format": {"type": "json_schema", "schema": schema}}).read())
        forced = json.loads(ask(connection, stream=False, tools=tools, tool_choice={"type": "tool", "name": "pick"}).read())
        played = events(ask(connection).read())
        kinds = [request.kind for request in served.requests]
    assert json.loads(text_in(formatted)) == {"ok": True}
    assert forced["content"][0]["input"] == {"ok": True}
    assert text_in(played) == "abcdefgh"
    assert kinds == ["auxiliary", "auxiliary", "main"]


def test_a_body_that_is_too_large_is_refused() -> None:
    with serving("hello") as served, connected(served) as connection:
        connection.connect()
        assert connection.sock is not None
        connection.sock.sendall(b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (BODY_LIMIT + 1))

        def send() -> None:
            block = b" " * 2**20
            try:
                for _ in range(BODY_LIMIT // len(block) + 1):
                    connection.sock.sendall(block)
            except OSError:
                pass  # the server has closed: that is what is asked for

        sender = threading.Thread(target=send)
        sender.start()
        answer = connection.sock.recv(12)
        sender.join(20)
    assert answer == b"HTTP/1.1 413"


def test_nonsense_on_the_wire_harms_nobody_else() -> None:
    with serving("hello", pace=0) as served:
        with socket.create_connection(("127.0.0.1", served.port), timeout=30) as raw:
            raw.sendall(b"\x16\x03\x01\x00nonsense\r\n\r\n")
            assert raw.recv(100) == b""
        with connected(served) as connection:
            connection.request("POST", MESSAGES, b"[" * 100_000)
            assert connection.getresponse().status == 400
        with connected(served) as connection:
            assert "Hello" in text_in(events(ask(connection).read()))


def test_connections_are_bounded() -> None:
    with serving("hello") as served:
        held = [socket.create_connection(("127.0.0.1", served.port), timeout=30) for _ in range(CONNECTIONS_LIMIT)]
        try:
            with socket.create_connection(("127.0.0.1", served.port), timeout=30) as one_more:
                assert one_more.recv(1) == b""
        finally:
            for connection in held:
                connection.close()


def test_the_log_says_whose_key_was_shown_and_never_the_key() -> None:
    with serving("hello", pace=0) as served:
        for headers in (
            {},
            {"x-api-key": API_KEY},
            {"authorization": f"Bearer {API_KEY}"},
            {"x-api-key": "sk-canary"},
            {"x-api-key": API_KEY, "authorization": "Bearer canary"},
        ):
            with connected(served) as connection:
                connection.request("HEAD", "/canary-is-a-path"[:1], headers=headers)
                connection.getresponse().read()
        requests = served.requests
    assert [request.key for request in requests] == ["none", "rehearsal", "rehearsal", "other", "other"]
    assert "canary" not in repr(requests)


def test_ids_differ_between_answers_and_between_servers() -> None:
    ids: list[str] = []
    for _ in range(2):
        with serving("hello", pace=0) as served, connected(served) as connection:
            for _ in range(2):
                response = ask(connection)
                ids += [response.headers["request-id"], events(response.read())[0]["message"]["id"]]
    assert len(set(ids)) == len(ids) == 8


async def test_it_serves_inside_a_running_loop_and_its_log_can_be_awaited() -> None:
    logged: list[int] = []
    async with RehearsalServer("hello", pace=0, log=lambda request: logged.append(request.number)) as server:
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(b'POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: 15\r\n\r\n{"messages": []}'[:-1] + b" ")
            (request,) = await server.wait_for_requests(1, kind=None)
        assert request.number == 1
        with pytest.raises(TimeoutError):
            await server.wait_for_requests(2, kind=None, within=0.01)
    assert logged == [1]


async def test_an_error_in_the_body_stays_itself() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with RehearsalServer("hello"):
            raise KeyError("mine")
