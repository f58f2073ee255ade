"""Many who watch one run at a real `jupyter server` on loopback, some of whom do not read."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import hashlib
import http.client
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import websocket

from cc_executor.shim import records
from floods.memory import begin, peak
from support.looks import eventually
from support.served import TOKEN, Server, serving

API: Final = "/cc-executor/api/v1"
BOUND: Final = 90.0
WATCHERS: Final = 20
SILENT: Final = (0, 1, 10)  # two sockets and a stream of events
LINES: Final = 900_000  # 6 MB
# Bytes; 8 MiB were seen. A server that does not wait for the silent ones keeps what they have not taken, and grows by 30 or more.
GROWTH: Final = 16 * 2**20
BATCHES: Final = 64 * 2**20  # bytes; 32 batches that were all answered at once took 700 MiB and more
BUFFER: Final = 2**20  # bytes that the machine keeps of what comes for a client that does not read


class Ended(Exception):
    """The server has ended a subscription and said why."""


class Watcher:
    """Somebody who has begun to watch; `pieces` come when they are asked for."""

    def __init__(self, pieces: Iterator[Any], close: Callable[[], object]) -> None:
        self.pieces, self.close = pieces, close

    def whole(self) -> bytes:
        """Everything to the end, without a gap or a repeat."""
        seen = bytearray()
        for piece in self.pieces:
            assert piece["offset"] == len(seen)
            seen += base64.b64decode(piece["data"]) if piece["encoding"] == "base64" else piece["data"].encode()
        return bytes(seen)


def by_socket(server: Server, run_id: str) -> Watcher:
    url = server.client.base_url
    client = websocket.create_connection(
        f"ws://{url.host}:{url.port}/cc-executor/ws",
        header={"Authorization": f"token {TOKEN}"},
        suppress_origin=True,
        sockopt=((socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER),),
        timeout=BOUND,
        skip_utf8_validation=True,  # which this client does letter by letter in Python
    )
    client.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": {"id": run_id}}))
    assert "result" in json.loads(client.recv())

    def pieces() -> Iterator[Any]:
        for number, message in enumerate(iter(lambda: json.loads(client.recv()), None), 1):
            assert message["params"]["seq"] == number
            if message["method"] == "end":
                if "error" in message["params"]:
                    raise Ended(message["params"]["error"])
                return
            yield message["params"]

    return Watcher(pieces(), client.close)


def by_events(server: Server, run_id: str) -> Watcher:
    url = server.client.base_url
    connection = http.client.HTTPConnection(url.host, url.port or 0, timeout=BOUND)
    connection.connect()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    headers = {"Authorization": f"token {TOKEN}", "Accept": "text/event-stream"}
    connection.request("GET", f"{API}/executions/{run_id}/events", headers=headers)

    def pieces() -> Iterator[Any]:
        answer = connection.getresponse()
        while not (line := answer.readline()).startswith(b"event: end"):
            assert line, "it broke off"
            if line.startswith(b"data: "):
                yield json.loads(line[6:])

    return Watcher(pieces(), connection.close)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("watchers")) as found:
        yield found


def start(server: Server, script: str) -> str:
    answer = server.client.post(f"{API}/execute", json={"prompt": script, "agent": "shell", "shell": "bash"})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def ended(server: Server, run_id: str) -> None:
    url = f"{API}/executions/{run_id}/results"
    eventually(lambda: server.client.get(url).json()["done"], within=BOUND, what="the run ends")


@contextlib.contextmanager
def watching(server: Server, run_id: str) -> Iterator[list[Watcher]]:
    with contextlib.ExitStack() as stack:
        watchers = [(by_socket if number < WATCHERS // 2 else by_events)(server, run_id) for number in range(WATCHERS)]
        for watcher in watchers:
            stack.callback(watcher.close)
        yield watchers


@pytest.mark.row(
    "floods",
    "20 watchers of one run at a server, 3 of whom do not read",
    "each has every byte in order; the server grows by at most 16 MiB",
)
def test_those_who_do_not_read_cost_nothing_and_miss_nothing(server: Server, tmp_path: Path, saw: Callable[[str], None]) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    ended(server, start(server, "echo what all later runs use is imported"))
    run_id = start(server, f"read x < {gate}; seq {LINES}")
    with watching(server, run_id) as watchers, concurrent.futures.ThreadPoolExecutor(WATCHERS) as threads:
        before = begin(server.process.pid)
        os.close(os.open(gate, os.O_WRONLY))
        wanted = hashlib.sha256(b"".join(b"%d\n" % number for number in range(1, LINES + 1))).digest()
        fast = [threads.submit(watcher.whole) for number, watcher in enumerate(watchers) if number not in SILENT]
        for each in fast:
            assert hashlib.sha256(each.result(BOUND)).digest() == wanted
        grown = peak(server.process.pid) - before
        saw(f"+{grown / 2**20:.1f} MiB")
        assert grown <= GROWTH
        for number in SILENT:
            assert hashlib.sha256(watchers[number].whole()).digest() == wanted
    ended(server, run_id)


def test_a_caller_who_does_not_read_costs_one_batch_of_answers_and_one_that_is_too_large_is_told(server: Server) -> None:
    tasks = [{"id": f"t{number}", "run": "head -c 31000 /dev/zero | tr '\\0' x"} for number in range(8)]
    name = server.client.post(f"{API}/execute", json={"tasks": tasks}).json()["id"]
    ended(server, name)
    calls = [{"jsonrpc": "2.0", "id": number, "method": "results", "params": {"id": name}} for number in range(99)]
    calls.append({"jsonrpc": "2.0", "id": 99, "method": "execute", "params": {"prompt": "true", "agent": "shell", "label": "too late"}})
    url = server.client.base_url
    before = begin(server.process.pid)
    client = websocket.create_connection(
        f"ws://{url.host}:{url.port}/cc-executor/ws",
        header={"Authorization": f"token {TOKEN}"},
        suppress_origin=True,
        sockopt=((socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16),),
        timeout=BOUND,
        skip_utf8_validation=True,
    )
    try:
        for _ in range(32):
            client.send(json.dumps(calls))
        assert client.sock is not None  # it is connected
        client.sock.recv(1, socket.MSG_PEEK)  # the first batch is answered
        assert peak(server.process.pid) - before <= BATCHES
        answers = json.loads(client.recv())
    finally:
        client.close()
    assert [answer["id"] for answer in answers] == list(range(100))
    assert len(answers[0]["result"]["results"]) == len(tasks)
    assert (answers[99]["error"]["code"], answers[99]["error"]["data"]["kind"]) == (-32000, "TooLarge")
    assert "in parts" in answers[99]["error"]["message"]
    rows = server.client.get(f"{API}/executions").json()["executions"]
    assert "too late" not in {row["label"] for row in rows}, "what is refused is not done"


@pytest.mark.parametrize("far", ["begun", "done"])
def test_who_watches_a_run_whose_folder_is_removed_is_told(server: Server, tmp_path: Path, far: str) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    run_id = start(server, f"echo up; read x < {gate}")
    watcher = by_socket(server, run_id)
    try:
        assert next(watcher.pieces)["data"] == "up\n"
        folder = server.home.runs_path / run_id
        if far == "done":
            shutil.rmtree(folder)
        else:
            (folder / records.LOCK).unlink()
        with pytest.raises(Ended, match="no such execution"):
            next(watcher.pieces)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        watcher.close()
        os.close(os.open(gate, os.O_WRONLY))
