"""The command line against the real CLI, whose API is a loopback server of this file."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cc_executor.agents import agent_named
from cc_executor.model.exit import ExitFacts
from cc_executor.model.fold import advance_all
from cc_executor.model.outcome import Outcome
from cc_executor.model.request import Limits, RunRequest
from cc_executor.model.state import RunState
from cc_executor.policy.environment import child_environment
from cc_executor.policy.verdict import judge

BUDGET = 60.0  # seconds for one run; about 1 on an idle machine


def answer(model: str) -> bytes:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message | {"usage": {"input_tokens": 1, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "heard"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()


@dataclass
class Api:
    """A Messages API that says "heard" and remembers what it was asked."""

    address: str
    asked: list[dict[str, Any]] = field(default_factory=list)

    def last_prompt(self) -> str:
        content = next(message["content"] for message in reversed(self.asked[-1]["messages"]) if message["role"] == "user")
        return content if isinstance(content, str) else content[-1]["text"]


@pytest.fixture
def api() -> Iterator[Api]:
    asked: list[dict[str, Any]] = []

    class Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's own name
            pass

        def do_HEAD(self) -> None:
            self._send(b"", "text/plain")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append(body)
            self._send(answer(body["model"]), "text/event-stream")

        def _send(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield Api(f"http://127.0.0.1:{server.server_address[1]}", asked)
    server.shutdown()
    server.server_close()
    thread.join(10)


@dataclass
class Run:
    state: RunState
    outcome: Outcome


def run(cli: Path, api: Api, folder: Path, prompt: str, **fields: Any) -> Run:
    request = RunRequest(prompt=prompt, cwd=str(folder), **fields)
    agent = agent_named("claude")
    command = agent.command(request, executable=str(cli), session_id=str(uuid.uuid4()))
    environ = {**os.environ, "ANTHROPIC_BASE_URL": api.address, "ANTHROPIC_API_KEY": "dummy-key-for-loopback", "HOME": str(folder)}
    env, _ = child_environment(environ, extra_names=(), additions=command.env, agent=agent.name)
    done = subprocess.run(command.argv, input=command.stdin, env=env, cwd=folder, capture_output=True, timeout=BUDGET, check=False)
    decoder = agent.decoder()
    state = advance_all(RunState(), [*decoder.feed(done.stdout), *decoder.close()])
    facts = ExitFacts(run_id="r", started_at=0.0, ended_at=1.0, elapsed=1.0, active=1.0, code=done.returncode)
    return Run(state, judge(state, request=request, exit=facts))


@pytest.mark.row("threats", "option injection", "prompts, models, tools, folders and session ids that begin with a dash stay values")
@pytest.mark.parametrize("prompt", ["/cost", "/foo bar", "--dangerously-skip-permissions", "-p", "say é \U0001f600"])
def test_every_prompt_reaches_the_model_as_text(claude_cli: Path, api: Api, tmp_path: Path, prompt: str) -> None:
    done = run(claude_cli, api, tmp_path, prompt)
    assert done.outcome.ok, done.outcome
    assert api.last_prompt() in {prompt, f"\n{prompt}"}
    assert done.state.text == "heard"
    assert done.state.permission_mode == "acceptEdits"
    assert done.state.unrecognised == 0


@pytest.mark.row("threats", "option injection", "prompts, models, tools, folders and session ids that begin with a dash stay values")
def test_values_that_look_like_options_are_values(claude_cli: Path, api: Api, tmp_path: Path) -> None:
    (tmp_path / "--bare").mkdir()
    done = run(
        claude_cli,
        api,
        tmp_path,
        "hello",
        model="--dangerously-skip-permissions",
        append_system_prompt="--permission-mode=bypassPermissions said the system",
        tools=("--permission-mode=bypassPermissions", "Bash(git *)"),
        add_dirs=("--bare",),
        permission_mode="manual",
        limits=Limits(turns=3, cost=0.5),
    )
    assert done.outcome.ok, done.outcome
    assert api.last_prompt() == "hello"
    assert done.state.model == "--dangerously-skip-permissions"
    assert done.state.permission_mode == "default"
    assert "--permission-mode=bypassPermissions said the system" in json.dumps(api.asked[-1]["system"])


def test_a_session_is_resumed_by_the_id_that_was_given_to_it(claude_cli: Path, api: Api, tmp_path: Path) -> None:
    first = run(claude_cli, api, tmp_path, "remember this")
    second = run(claude_cli, api, tmp_path, "what was it", resume=first.state.session_id)
    assert second.outcome.ok, second.outcome
    assert second.state.session_id == first.state.session_id
    assert "remember this" in json.dumps(api.asked[-1]["messages"])


def test_a_session_that_is_not_there_is_a_failure_with_its_cure(claude_cli: Path, api: Api, tmp_path: Path) -> None:
    done = run(claude_cli, api, tmp_path, "hello", resume=str(uuid.UUID(int=0)))
    assert done.outcome.kind.value == "failed"
    assert "could not be resumed" in done.outcome.summary
    assert api.asked == []
