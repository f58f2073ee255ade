"""The runs over a WebSocket at a real `jupyter server` on loopback."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import websocket

from cc_executor.store.notebook import stored_list_bundles
from cc_executor.store.tasklists import ListHome
from support.looks import eventually
from support.served import TOKEN, Server, prune, serving

BOUND: Final = 90.0
COUNTER = itertools.count(1)


class Socket:
    """A client that keeps notifications apart from answers."""

    def __init__(self, server: Server, **more: Any) -> None:
        url = f"ws://{server.client.base_url.host}:{server.client.base_url.port}/cc-executor/ws"
        options = {"header": {"Authorization": f"token {TOKEN}"}, "timeout": BOUND, "suppress_origin": True, **more}
        self.socket = websocket.create_connection(url, **options)
        self.told: list[dict[str, Any]] = []

    def receive(self) -> Any:
        return json.loads(self.socket.recv())

    def call(self, method: str, **params: Any) -> Any:
        number = next(COUNTER)
        self.socket.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}))
        while True:
            message = self.receive()
            if message.get("id") == number:
                return message
            self.told.append(message)

    def ok(self, method: str, **params: Any) -> Any:
        answer = self.call(method, **params)
        assert "result" in answer, answer
        return answer["result"]

    def code(self, method: str, **params: Any) -> int:
        answer = self.call(method, **params)
        assert "error" in answer, answer
        return answer["error"]["code"]

    def notification(self) -> Any:
        return self.told.pop(0) if self.told else self.receive()

    def run(self, script: str) -> str:
        return self.ok("execute", prompt=script, agent="shell", shell="bash")["id"]  # noqa: S604 - an option of a run, not of subprocess

    def results(self, run_id: str) -> Any:
        return eventually(lambda: (found := self.ok("results", id=run_id))["done"] and found, within=BOUND, what="the run ends")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CC_EXECUTOR_HOOKS", json.dumps({"after_run": {"run": "true", "name": "noted"}}))
        yield from _served(tmp_path_factory)


def _served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("socket"), "--CCExecutorServer.ping_interval=0.2") as found:
        yield found


@contextlib.contextmanager
def connected(server: Server, **more: Any) -> Iterator[Socket]:
    client = Socket(server, **more)
    try:
        yield client
    finally:
        client.socket.close()


def bytes_of(piece: dict[str, Any]) -> bytes:
    return base64.b64decode(piece["data"]) if piece["encoding"] == "base64" else piece["data"].encode()


def test_a_run_from_its_request_to_its_end(server: Server) -> None:
    with connected(server) as client:
        run_id = client.run("echo one; sleep 0.3; echo two")
        number = client.ok("subscribe", id=run_id)["subscription"]
        seen, sequence = b"", []
        while (message := client.notification())["method"] == "output":
            piece = message["params"]
            assert (piece["subscription"], piece["id"], piece["offset"]) == (number, run_id, len(seen))
            seen += bytes_of(piece)
            sequence.append(piece["seq"])
        assert message["method"] == "end"
        assert [*sequence, message["params"]["seq"]] == list(range(1, len(sequence) + 2)), "no gap and no repeat"
        assert seen == b"one\ntwo\n"
        assert client.results(run_id)["status"] == "ok"
        assert run_id in {row["id"] for row in client.ok("list", limit=10)["executions"]}


def test_who_comes_back_goes_on_where_he_was(server: Server) -> None:
    script = "for i in $(seq 3000); do echo line $i; done; sleep 0.5; echo the end"
    with connected(server) as client:
        run_id = client.run(script)
        client.ok("subscribe", id=run_id)
        first = client.notification()["params"]
    seen = bytes_of(first)
    with connected(server) as client:
        client.ok("subscribe", id=run_id, offset=first["next_offset"])
        while (message := client.notification())["method"] == "output":
            assert message["params"]["offset"] == len(seen)
            seen += bytes_of(message["params"])
    assert seen == b"".join(b"line %d\n" % number for number in range(1, 3001)) + b"the end\n"


def test_commands(server: Server) -> None:
    with connected(server) as client:
        run_id = client.run("echo up; sleep 600")
        assert client.ok("control", id=run_id, op="pause")["status"] == "paused"
        assert client.ok("status", id=run_id)["status"] == "paused"
        assert client.ok("control", id=run_id, op="resume")["status"] == "running"
        client.ok("control", id=run_id, op="kill")
        assert client.results(run_id)["status"] == "cancelled"
        assert client.code("control", id=run_id, op="pause") == -32001


def test_the_errors_have_their_codes(server: Server) -> None:
    with connected(server) as client:
        assert client.code("nothing") == -32601
        assert client.code("status") == -32602
        assert client.code("status", id=5) == -32602
        assert client.code("status", id="0" * 26) == -32003
        assert client.code("subscribe", id="0" * 26) == -32003
        assert client.code("execute") == -32602
        assert client.code("execute", prompt="x", agent="shell", cli="/bin/sh") == -32602
        assert client.code("unsubscribe", subscription=99) == -32602
        for method in ("status", "results", "list", "hook_status", "subscribe", "unsubscribe", "watch", "page", "answer", "detail"):
            message = client.call(method, ofset=5)["error"]
            assert (message["code"], f"{method} takes no 'ofset', but" in message["message"]) == (-32602, True), message
        client.socket.send("{")
        assert client.receive()["error"]["code"] == -32700
        client.socket.send(json.dumps([{"jsonrpc": "2.0", "id": 1, "method": "list"}, 1, {"jsonrpc": "2.0", "method": "list"}]))
        answers = client.receive()
        assert [("result" in answer, answer["id"]) for answer in answers] == [(True, 1), (False, None)], "a notification is not answered"


def test_who_comes_back_to_what_was_removed_is_told(server: Server) -> None:
    with connected(server) as client:
        run_id = client.run("echo hello")
        client.results(run_id)
        prune(server, run_id)
        wrong = client.call("subscribe", id=run_id, offset=6)["error"]
        assert (wrong["data"]["kind"], "by `history prune`" in wrong["message"]) == ("JournalRemoved", True), wrong
        assert client.ok("results", id=run_id)["text"] == "hello\n"


def test_a_socket_has_so_many_subscriptions_and_no_more(server: Server) -> None:
    with connected(server) as client:
        run_id = client.run("sleep 600")
        try:
            numbers = [client.ok("subscribe", id=run_id)["subscription"] for _ in range(32)]
            assert client.code("subscribe", id=run_id) == -32000
            client.ok("unsubscribe", subscription=numbers[0])
            eventually(lambda: "result" in client.call("subscribe", id=run_id), within=BOUND, what="there is room again")
        finally:
            client.ok("control", id=run_id, op="kill")


def test_a_message_that_is_too_large_closes_the_socket(server: Server) -> None:
    with connected(server) as client, pytest.raises((websocket.WebSocketException, OSError)):  # noqa: PT012 - the server may close while it is still being sent
        client.socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "list", "params": {"before": "x" * 2**21}}))
        if client.socket.recv() == "":  # what the library gives for a closing frame
            raise websocket.WebSocketConnectionClosedException


def test_a_socket_on_which_nothing_happens_is_kept_open_by_pings(server: Server) -> None:
    """A job that says nothing for ten minutes is not cut off by a proxy: pings come at the interval of the setting, 20 s if nobody has set it."""
    with connected(server) as client:
        run_id = client.run("sleep 600")
        try:
            client.ok("subscribe", id=run_id)
            pings = [client.socket.recv_data(control_frame=True)[0] for _ in range(3)]
            assert pings == [websocket.ABNF.OPCODE_PING] * 3
            assert client.ok("status", id=run_id)["status"] == "running", "and is answered as before"
        finally:
            client.ok("control", id=run_id, op="kill")


def test_pieces_are_64_kib_and_none_is_lost(server: Server) -> None:
    with connected(server) as client:
        run_id = client.run("seq 100000")
        client.results(run_id)
        client.ok("subscribe", id=run_id)
        pieces = []
        while (message := client.notification())["method"] == "output":
            pieces.append(bytes_of(message["params"]))
        assert [len(piece) for piece in pieces[:-1]] == [64 * 1024] * (len(pieces) - 1)
        assert b"".join(pieces) == b"".join(b"%d\n" % number for number in range(1, 100001))


def test_hooks_are_told_of_while_they_wait_and_after(server: Server, tmp_path: Path) -> None:
    with connected(server) as client:
        run_id = client.run(f"until [ -e {tmp_path}/go ]; do sleep 0.1; done")
        told = client.ok("hook_status", id=run_id)["hooks"]
        (tmp_path / "go").touch()
        assert [(each["hook"], each["moment"], each["status"]) for each in told] == [("noted", "after_run", "waiting")]
        client.results(run_id)
        (report,) = client.ok("hook_status", id=run_id)["hooks"]
        assert (report["hook"], report["status"]) == ("noted", "ok")
        assert client.code("hook_status", id="0" * 26) == -32003


def test_a_list_is_a_request_like_any_other(server: Server) -> None:
    with connected(server) as client:
        list_id = client.ok("execute", tasks=[{"id": "a", "run": "echo one"}])["id"]
        assert client.results(list_id)["results"][0]["text"] == "one\n"
        wrong = client.call("execute", tasks=[{"id": "a", "run": "echo one", "needs": ["b"]}, {"prompt": ""}])["error"]
        assert wrong["code"] == -32602
        problems = wrong["data"]["problems"]
        assert len(problems) == 2, problems
        assert all(problem in wrong["message"] for problem in problems)


def test_a_list_is_commanded_task_by_task_and_told_page_by_page(server: Server, tmp_path: Path) -> None:
    with connected(server) as client:
        tasks = [
            {"id": "long", "run": f"touch {tmp_path}/up; sleep 600"},
            {"id": "left", "run": "echo never"},
            {"id": "next", "run": "echo next"},
        ]
        list_id = client.ok("execute", tasks=tasks, on_failure="continue")["id"]
        eventually((tmp_path / "up").exists, within=BOUND, what="it runs")
        assert client.ok("control", id=list_id, op="skip", task="left")["task"] == "left"
        assert client.code("control", id=list_id, op="cancel", tsk="long") == -32602, "what is misspelled is not the whole list's end"
        assert client.ok("control", id=list_id, op="cancel", task="long")["task"] == "long"
        assert client.results(list_id)["status"] == "failed"
        page = client.ok("status", id=list_id, offset=1, limit=1)
        assert ([(row["task"], row["status"]) for row in page["tasks"]], page["next_offset"]) == ([("left", "skipped")], 2)
        page = client.ok("results", id=list_id, offset=2)
        assert ([(row["task"], row["text"]) for row in page["results"]], page["next_offset"]) == ([("next", "next\n")], None)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", -32700),
        ("", -32700),
        ("[]", -32600),
        ("1", -32600),
        ('{"jsonrpc": "1.0", "id": 1, "method": "list"}', -32600),
        ('{"jsonrpc": "2.0", "id": 1, "method": 5}', -32600),
        ('{"jsonrpc": "2.0", "id": {}, "method": "list"}', -32600),
        ('{"jsonrpc": "2.0", "id": true, "method": "list"}', -32600),
        ('{"jsonrpc": "2.0", "id": 1, "method": "List"}', -32601),
        ('{"jsonrpc": "2.0", "id": 1, "method": "list", "params": [1]}', -32602),
        ('{"jsonrpc": "2.0", "id": 1, "method": "list", "params": {"limit": 0}}', -32602),
        ('{"jsonrpc": "2.0", "id": 1, "method": "list", "params": {"status": "done"}}', -32602),
        ('{"jsonrpc": "2.0", "id": 1, "method": "list", "params": {"state": "ok"}}', -32602),
        ('{"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": {"id": "x", "offset": -1}}', -32602),
        ('{"jsonrpc": "2.0", "id": 1, "method": "control", "params": {"id": "00000000000000000000000000", "op": "pause"}}', -32003),
        ('{"jsonrpc": "2.0", "id": 1, "method": "execute", "params": {"prompt": "x", "agent": "nobody"}}', -32602),
        ('{"jsonrpc": "2.0", "id": 1, "method": "execute", "params": {"prompt": "x", "cli": "/bin/sh"}}', -32602),
        ("[" * 100_000, -32700),
    ],
)
def test_every_wrong_message_has_its_code(server: Server, message: str, code: int) -> None:
    with connected(server) as client:
        client.socket.send(message)
        answer = client.receive()
        assert answer["error"]["code"] == code, answer
        assert (answer["jsonrpc"], answer["id"]) == ("2.0", 1 if code not in {-32700, -32600} or '"id": 1' in message else None)


@pytest.mark.parametrize(
    "more",
    [
        {"header": {}},
        {"header": {"Authorization": "token wrong"}},
        {"header": {}, "origin": "http://evil.example", "suppress_origin": False},
    ],
    ids=["nobody", "wrong", "foreign"],
)
def test_nobody_gets_in_without_the_token(server: Server, more: dict[str, Any]) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
        Socket(server, **more)


def test_ten_thousand_odd_messages_do_no_harm(server: Server) -> None:
    chance = random.Random(7)  # noqa: S311 - the same messages on every run
    parts: list[Any] = [
        None,
        True,
        0,
        -1,
        1.5,
        "",
        "x",
        "0" * 26,
        [],
        {},
        "2.0",
        "status",
        "subscribe",
        "control",
        {"id": "0" * 26},
        {"offset": -1},
        [1],
    ]
    names = ["jsonrpc", "id", "method", "params", "op", "offset", "stream"]
    with connected(server) as client:
        for _ in range(100):
            batch = [
                {name: chance.choice(parts) for name in chance.sample(names, chance.randrange(len(names)))} | {"jsonrpc": "2.0"}
                for _ in range(100)
            ]
            client.socket.send(json.dumps(batch))
            for answer in client.receive():
                assert answer.get("error", {}).get("code") != -32603, answer
        assert client.ok("list", limit=1)
    assert "Traceback" not in server.log


def frame(client: Socket) -> tuple[dict[str, Any], dict[str, Any]]:
    """The next frame of a view: what is told, and its items."""
    message = client.notification()
    assert message["method"] == "frame", message
    return message["params"]["content"], json.loads(message["params"]["body"])


def test_a_live_view_is_sent_from_its_beginning_to_the_receipt(server: Server) -> None:
    with connected(server) as client:
        run_id = client.run("for i in $(seq 40); do echo line $i; sleep 0.02; done")
        number = client.ok("watch", id=run_id)["subscription"]
        content, body = frame(client)
        assert (content["op"], content["seq"], content["reset"], content["run"]) == ("f", 1, ["*"], run_id)
        items: dict[int, str] = {}
        last = 0
        while True:
            assert content["seq"] == (last := last + 1)
            for item in body["items"]:
                items[item["number"]] = items[item["number"]] + item["append"] if "append" in item else item.get("text", "")
            if content.get("done"):
                break
            content, body = frame(client)
        assert "".join(items.values()).startswith("".join(f"line {number}\n" for number in range(1, 41)))
        assert content["status"]["detail"].startswith("ok: ")
        assert client.results(run_id)["status"] == "ok"
        client.ok("page", subscription=number, view="mine", before=1)
        while (page := frame(client)[0])["op"] != "p":
            pass
        assert page["to"] == "mine", "older lines can be asked for when it has ended, too"
        client.ok("unsubscribe", subscription=number)
        eventually(
            lambda: client.code("page", subscription=number, view="mine", before=1) == -32602, within=BOUND, what="the view is closed"
        )
        assert client.code("watch", id="0" * 26) == -32003


@pytest.mark.usefixtures("claude_cli")
def test_a_question_is_answered_in_a_view(server: Server) -> None:
    with connected(server) as client:
        options = {"ask": True, "timeout": 60, "permission_mode": "default", "rehearse": "approval"}
        run_id = client.ok("execute", prompt="Write the plan, then begin.", **options)["id"]
        number = client.ok("watch", id=run_id)["subscription"]
        while not (asks := frame(client)[0]["status"].get("asks")):
            pass
        assert client.code("answer", subscription=number, ask="another", decision="allow") == -32001
        assert client.code("answer", subscription=number, ask=asks[0]["id"], decision="perhaps") == -32602
        assert client.code("answer", subscription=number + 1, ask=asks[0]["id"], decision="allow") == -32602
        for wrong in ({"text": ["no"]}, {"answers": [None]}, {"answers": ["x", 5]}):
            assert client.code("answer", subscription=number, ask=asks[0]["id"], decision="deny", **wrong) == -32602
        answered: set[str] = set()
        calls: dict[str, str] = {}
        told: list[str] = []
        while True:
            if new := {ask["id"] for ask in asks} - answered:
                client.ok("answer", subscription=number, ask=min(new), decision="allow")
                answered.add(min(new))
            content, body = frame(client)
            asks = content["status"].get("asks", [])
            calls |= {item["title"]: item["summary"] for item in body["items"] if "summary" in item}
            told += [item["text"] for item in body["items"] if item.get("kind") == "notice"]
            if content.get("done"):
                break
        assert calls == {"Write": "plan.md", "Bash": "touch approved.txt; rm -f draft.txt"}
        assert any(text.endswith(": Write: plan.md") for text in told), told
        assert client.results(run_id)["status"] == "ok"


ELSEWHERE: Final = (
    "import sys; from cc_executor.tasks import cc_execute_task_list as run; run(eval(sys.argv[1]), state=sys.argv[2], cwd=sys.argv[3])"
)


@contextlib.contextmanager
def run_elsewhere(server: Server, tasks: str, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A process that runs a list, as a kernel does, and the list's id."""
    known = {each.list_id for each in ListHome(server.home).folders()}
    process = subprocess.Popen([sys.executable, "-c", ELSEWHERE, tasks, str(server.home.root), str(folder)])
    try:
        new = eventually(lambda: {each.list_id for each in ListHome(server.home).folders()} - known, within=BOUND, what="the list is there")
        yield process, new.pop()
    finally:
        process.kill()
        process.wait()


def test_a_list_whose_kernel_is_busy_or_gone_is_shown_commanded_once_and_continued(server: Server, tmp_path: Path) -> None:
    tasks = "[{'id': 'long', 'run': 'while [ ! -e stop ]; do echo tick | tee -a ticks; sleep 0.05; done'}, {'id': 'next', 'run': 'echo through'}]"
    ticks = tmp_path / "ticks"

    def control(op: str, **more: str) -> int:
        return server.client.post(f"/cc-executor/api/v1/executions/{name}/control", json={"op": op, **more}).status_code

    def told(what: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        while not what((content := frame(client)[0])["totals"]):
            pass
        return content["totals"]

    def grows() -> None:
        size = ticks.stat().st_size
        eventually(lambda: ticks.stat().st_size > size, within=BOUND, what="it goes on")

    with run_elsewhere(server, tasks, tmp_path) as (process, name), connected(server) as client:
        eventually(ticks.exists, within=BOUND, what="it runs")
        process.send_signal(signal.SIGSTOP)
        number = client.ok("watch", id=name)["subscription"]
        content, body = frame(client)
        assert (content["op"], content["reset"], content["totals"]["list_id"]) == ("t", ["*"], name)
        assert [row["id"] for row in body["rows"]] == ["long", "next"]
        assert client.ok("detail", subscription=number, task="next")["text"] == "echo through"
        assert client.code("detail", subscription=number, task="none") == -32602
        assert client.code("page", subscription=number, view="v", before=1) == -32602, "that is for runs"
        assert control("pause", click="a 1") == 200
        told(lambda totals: totals["is_paused"])
        assert client.ok("status", id=body["rows"][0]["run_id"])["status"] == "paused"
        assert control("resume", click="a 2") == 200
        grows()
        for op, click in (("pause", "a 1"), ("kill", "a 1"), ("resume", "a 2")):  # late, from whoever was busy
            assert control(op, click=click) == 200
        grows()
        state = ListHome(server.home).find(name).state()
        assert (state.is_paused, state.is_stopped) == (False, False)
        process.kill()
        assert told(lambda totals: totals["alone"])["can_continue"]
        grows()
        assert control("resume", click="a 3") == 200
        (tmp_path / "stop").touch()
        assert told(lambda totals: totals["status"] != "open")["ok"] == 2
    table = eventually(lambda: stored_list_bundles(server.home)(name), within=BOUND, what="the table is kept for the notebook")
    assert "2 of 2 tasks ended well" in table[0]["text/plain"]


def test_python_of_a_kernel_that_is_gone_is_not_run_elsewhere(server: Server, tmp_path: Path) -> None:
    tasks = "[{'id': 'long', 'run': 'touch up; while [ ! -e stop ]; do sleep 0.05; done'}, {'id': 'mine', 'call': lambda: 1}]"
    with run_elsewhere(server, tasks, tmp_path) as (process, name), connected(server) as client:
        eventually((tmp_path / "up").exists, within=BOUND, what="it runs")
        process.kill()
        process.wait()
        client.ok("watch", id=name)
        while not (totals := frame(client)[0]["totals"])["alone"]:
            pass
        assert "Task mine is Python in the notebook: run the cell again" in totals["alone"]
        assert not totals["can_continue"]
        refused = server.client.post(f"/cc-executor/api/v1/executions/{name}/control", json={"op": "resume"})
        assert refused.status_code == 409
        assert "run its cell again" in refused.json()["error"]["message"]
        assert server.client.post(f"/cc-executor/api/v1/executions/{name}/control", json={"op": "kill"}).status_code == 200
        while (totals := frame(client)[0]["totals"])["status"] == "open":
            pass
        assert totals["stopped"] == 1
