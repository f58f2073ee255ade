"""`cc-executor mcp`: the protocol's own client and the real Claude Code CLI over standard input and output."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import psutil
import pytest
from mcp.client.session import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client

from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunStanding
from support.environments import CHECKOUT
from support.mcp import BOUND, claude_uses, ended, tool
from support.served import TOKEN, Server, serving

ABOUT: Final = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}}
COMMAND: Final = ("-m", "cc_executor.cli", "mcp")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("relayed")) as found:
        yield found


def environ(state: Path, **more: str) -> dict[str, str]:
    return os.environ | {"CC_EXECUTOR_STATE": str(state), "PYTHONPATH": str(CHECKOUT / "src"), **more}


@contextlib.asynccontextmanager
async def opened(*arguments: str, env: dict[str, str]) -> AsyncGenerator[ClientSession]:
    command = StdioServerParameters(command=sys.executable, args=[*COMMAND, *arguments], env=env)
    async with stdio_client(command) as (reading, writing), ClientSession(reading, writing) as session:
        await session.initialize()
        yield session


def called(*arguments: str, env: dict[str, str], said: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *COMMAND, *arguments]
    return subprocess.run(command, input=said, env=env, capture_output=True, text=True, timeout=BOUND, check=False)


def bounded(work: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(work(), BOUND))


def test_runs_of_this_machine_without_any_server(tmp_path: Path) -> None:
    async def work() -> tuple[str, str]:
        async with opened("--cwd", str(tmp_path), env=environ(tmp_path / "state")) as session:
            assert len((await session.list_tools()).tools) > 10
            first = (await tool(session, "execute", prompt="touch here", agent="shell"))["id"]
            assert (await ended(session, first))["status"] == "ok"
            assert (tmp_path / "here").exists(), "it works where --cwd says"
            return first, (await tool(session, "execute", prompt="sleep 600", agent="shell"))["id"]

    first, second = bounded(work)
    home = StateHome(tmp_path / "state")
    assert home.find(first).receipt() is not None
    assert home.find(second).standing(0.0) is RunStanding.RUNNING, "what was started goes on without the client"

    async def end() -> None:
        async with opened(env=environ(tmp_path / "state")) as session:
            await tool(session, "control", id=second, op="kill")
            assert (await ended(session, second))["status"] == "cancelled", "the next one finds it, and seals its receipt"

    bounded(end)


def test_standard_output_is_the_protocols_alone(tmp_path: Path) -> None:
    lines = ["no message", json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": ABOUT})]
    done = called(env=environ(tmp_path), said="\n".join(lines) + "\n")
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer.get("id") for answer in answers if "result" in answer] == [1]


def test_a_relay_hands_on_what_a_server_says_and_shows_its_token_to_nobody(server: Server, tmp_path: Path) -> None:
    async def work() -> None:
        env = environ(tmp_path, CC_EXECUTOR_TOKEN=TOKEN)
        async with opened("--url", str(server.client.base_url), env=env) as session:
            assert len((await session.list_tools()).tools) > 10
            run_id = (await tool(session, "execute", prompt="echo hello", agent="shell"))["id"]
            assert (await ended(session, run_id))["text"] == "hello\n"
            uri = f"cc-executor://runs/{run_id}/receipt"
            assert (await session.read_resource(uri)).contents[0].uri == uri
            said: list[str] = []
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):  # the run's own end
                    said.append(" ".join(process.cmdline()))
            assert any("cc_executor.server.stdio" in line and str(server.client.base_url) in line for line in said)
            assert TOKEN not in "".join(line for line in said if "stdio" in line)
        assert run_id in {row["id"] for row in server.client.get("/cc-executor/api/v1/executions").json()["executions"]}
        assert not list(StateHome(tmp_path).runs()), "nothing was started here"

    bounded(work)


@pytest.mark.parametrize(
    ("arguments", "more", "says"),
    [
        (("--url", "127.0.0.1:8888"), {"CC_EXECUTOR_TOKEN": "x"}, "http://HOST:PORT/"),
        (("--url", "http://127.0.0.1:1/"), {"JUPYTER_TOKEN": ""}, "CC_EXECUTOR_TOKEN"),
        (("--url", "http://127.0.0.1:99999/"), {"CC_EXECUTOR_TOKEN": "x"}, "http://HOST:PORT/"),
        (("--url", "http://[::1/"), {"CC_EXECUTOR_TOKEN": "x"}, "http://HOST:PORT/"),
        (("--url", "http://127.0.0.1:1/"), {"CC_EXECUTOR_TOKEN": "a–b"}, "CC_EXECUTOR_TOKEN"),
        (("--cwd", "/nowhere/at/all"), {}, "is no folder"),
    ],
)
def test_a_wrong_call_is_told_in_one_sentence(tmp_path: Path, arguments: tuple[str, ...], more: dict[str, str], says: str) -> None:
    done = called(*arguments, env=environ(tmp_path, **more))
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert says in done.stderr


def test_a_server_that_is_not_there_or_does_not_know_the_token_is_told(server: Server, tmp_path: Path) -> None:
    for url, token, says in (
        (str(server.client.base_url), "wrong", "does not take the token"),
        (f"{server.client.base_url}/elsewhere", TOKEN, "no cc-executor"),
        ("http://127.0.0.1:1/", "x", "cannot be reached"),
    ):
        done = called("--url", url, env=environ(tmp_path, CC_EXECUTOR_TOKEN=token))
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1), done.stderr
        assert says in done.stderr


def test_the_real_claude_code_is_a_client_over_stdio(server: Server, tmp_path: Path) -> None:
    env = {"CC_EXECUTOR_STATE": str(tmp_path / "state"), "PYTHONPATH": str(CHECKOUT / "src")}
    entry = {"type": "stdio", "command": sys.executable, "args": list(COMMAND), "env": env}
    results = claude_uses(server, entry, tmp_path)
    assert results["status"] == "ok", results
    assert "41-42-43" in results["text"]
    (folder,) = StateHome(tmp_path / "state").runs()
    assert folder.request().label == "the inner run"


@contextlib.contextmanager
def begun(*arguments: str, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that has answered the handshake."""
    command = [sys.executable, *COMMAND, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": ABOUT}) + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == 1
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once(tmp_path: Path, number: signal.Signals) -> None:
    with begun(env=environ(tmp_path)) as process:
        process.send_signal(number)
        assert process.wait(BOUND) == -number


def test_a_client_that_is_gone_before_its_answer_is_no_error(tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, *COMMAND], stdin=pipe, stdout=pipe, stderr=pipe, env=environ(tmp_path / "state")) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        opening = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": ABOUT}
        process.stdin.write(f"{json.dumps(opening)}\n".encode())
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == 1
        process.stdout.close()
        process.stdin.write(b'{"jsonrpc": "2.0", "id": 2, "method": "ping"}\n')
        process.stdin.close()
        assert process.wait(BOUND) == 0
        assert process.stderr.read() == b""


def test_a_relay_whose_server_dies_or_is_started_anew_ends_and_says_why(server: Server, tmp_path: Path) -> None:
    """The last of this module, for it ends the server."""
    env = environ(tmp_path, CC_EXECUTOR_TOKEN=TOKEN)
    with begun("--url", str(server.client.base_url), env=env) as first, begun("--url", str(server.client.base_url), env=env) as second:
        server.process.kill()
        server.process.wait(BOUND)
        ends(first, "cannot be reached")
        with serving(tmp_path, port=server.client.base_url.port):
            ends(second, "start this command again")


def ends(process: subprocess.Popen[str], says: str) -> None:
    assert process.stdin is not None
    assert process.stderr is not None
    with contextlib.suppress(BrokenPipeError):  # it has seen for itself
        process.stdin.write(json.dumps({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}) + "\n")
        process.stdin.flush()
    assert process.wait(BOUND) == 1
    assert says in process.stderr.read()
