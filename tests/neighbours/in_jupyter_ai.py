"""Our persona in the real jupyter-ai, which needs an environment of its own: `make neighbours`. The chat is the server's, the agent the real CLI."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import websocket

from cc_executor.rehearsal.loopback import API_KEY
from cc_executor.rehearsal.scripts import Block, Script, Turn
from cc_executor.rehearsal.server import ServedRehearsal
from cc_executor.rehearsal.server import serving as rehearsing
from support.looks import eventually
from support.served import TOKEN, Json, Server, serving

PERSONA: Final = "jupyter-ai-personas::cc_executor::CCExecutorPersona"
WITHIN: Final = 120.0  # seconds
SAYS: Final = "A word, and another one, in the chat."
ROUTES: Final = "/cc-executor/api/v1/executions"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedRehearsal]:
    script = Script(
        turns=(Turn(blocks=(Block(text=SAYS, piece=8, delay=0.1),)), Turn(blocks=(Block(text="word " * 20_000, piece=5, delay=0.05),)))
    )
    with rehearsing(script, cwd=str(tmp_path_factory.mktemp("work")), pace=1) as served:
        yield served


@contextlib.contextmanager
def chatting(folder: Path, model: ServedRehearsal, *arguments: str) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ANTHROPIC_BASE_URL", model.url)
        environment.setenv("ANTHROPIC_API_KEY", API_KEY)
        with serving(folder, "--MCPExtensionApp.mcp_port=0", *arguments) as served:
            yield served


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model: ServedRehearsal, claude_cli: Path) -> Iterator[Server]:
    with chatting(tmp_path_factory.mktemp("chat"), model) as served:
        yield served


class Chat:
    """A browser's side of a chat."""

    def __init__(self, server: Server) -> None:
        base = str(server.client.base_url).replace("http", "ws", 1)
        path = f"{uuid.uuid4().hex}.chat"
        self._socket = websocket.create_connection(f"{base}/api/chat/ws/{path}", header=[f"Authorization: token {TOKEN}"], timeout=WITHIN)
        self.id = self.until(lambda frame: frame["action"] == "connection")["id"]
        self.bodies: dict[str, list[str]] = {}

    def until(self, condition: Callable[[Json], object]) -> Json:
        while True:
            frame: Json = json.loads(self._socket.recv())
            if condition(frame):
                return frame

    def say(self, body: str) -> None:
        metadata = {"to_persona": PERSONA}
        self._socket.send(json.dumps({"type": "client", "action": "send", "id": uuid.uuid4().hex, "body": body, "metadata": metadata}))

    def answer(self, condition: Callable[[str], object]) -> list[str]:
        """What the persona's message was, time after time, until it is so."""
        seen: list[str] = []

        def look(frame: Json) -> bool:
            message: Json = frame.get("message") or {}
            sender: Any = message.get("sender")
            if frame["action"] != "message" or PERSONA not in (sender if isinstance(sender, str) else str(sender)):
                return False
            seen.append(message["body"])
            return bool(condition(message["body"]))

        self.until(look)
        return seen


def test_a_message_is_a_run_and_its_text_comes_as_it_is_written(server: Server) -> None:
    chat = Chat(server)
    chat.say("@cc_executor say a word")
    seen = chat.answer(lambda body: "receipt `" in body)
    text, _, ending = seen[-1].partition("\n\n---\n")
    assert text == SAYS
    assert len({body for body in seen if body and "---" not in body}) > 2  # piece by piece
    assert ending.startswith("ok · ")
    [run] = server.client.get(ROUTES).json()["executions"]
    assert run["id"] in ending
    assert (run["prompt"], run["label"]) == ("say a word", "chat")
    assert server.client.get(f"{ROUTES}/{run['id']}/results").json()["text"] == SAYS


def test_the_stop_button_cancels_the_run(server: Server, model: ServedRehearsal) -> None:
    chat = Chat(server)
    chat.say("and on and on")
    chat.answer(lambda body: len(body) > 0)
    server.client.post("/api/ai/personas/cancel", params={"chat_id": chat.id}).raise_for_status()
    seen = chat.answer(lambda body: "receipt `" in body)
    assert "cancelled · " in seen[-1]


def test_the_stop_button_takes_back_what_waits_for_its_turn(tmp_path: Path, model: ServedRehearsal, claude_cli: Path) -> None:
    with chatting(tmp_path, model, "--CCExecutorServer.max_running=1", "--CCExecutorServer.max_queued=5") as server:
        busy = (
            server.client.post("/cc-executor/api/v1/execute", json={"prompt": "sleep 60", "agent": "shell", "shell": "bash"})
            .raise_for_status()
            .json()["id"]
        )
        chat = Chat(server)
        chat.say("after that")
        eventually(lambda: len(server.client.get(ROUTES).json()["executions"]) == 2, within=WITHIN, what="the message waits for its turn")
        server.client.post("/api/ai/personas/cancel", params={"chat_id": chat.id}).raise_for_status()
        assert "cancelled while it waited" in chat.answer(lambda body: len(body) > 0)[-1]
        server.client.delete(f"{ROUTES}/{busy}").raise_for_status()


def test_what_is_refused_is_said_in_the_chat(tmp_path: Path, model: ServedRehearsal) -> None:
    with chatting(tmp_path, model, "--CCExecutorServer.allowed_agents=['shell']") as server:
        answer = server.client.post("/api/ai/message/cc_executor", json={"message": "say a word"}).raise_for_status().json()["response"]
        assert "claude" in answer
        assert server.client.get(ROUTES).json()["executions"] == []


def test_where_people_are_told_apart_nothing_is_run(tmp_path: Path, model: ServedRehearsal) -> None:
    with chatting(tmp_path, model, "--CCExecutorServer.owner_mode=user") as server:
        answer = server.client.post("/api/ai/message/cc_executor", json={"message": "say a word"}).raise_for_status().json()["response"]
        assert answer.startswith("This server tells people apart")
        assert server.client.get(ROUTES).json()["executions"] == []


def test_the_tools_say_why_they_are_not_in_its_mcp_server(server: Server) -> None:
    assert "they need mcp 2.3 or later" in server.log
