"""The runs as tools, asked for by the protocol's own client at a real `jupyter server` on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import httpx2
import pytest
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp_types import TextContent

from support.lab import eventually
from support.served import TOKEN, Server, serving

PATH: Final = "/cc-executor/mcp"
BOUND: Final = 60.0
CLIENT: Final = """
description = "an agent that starts another one"

[[turn]]
[[turn.block]]
tool = "mcp__runs__execute"
[turn.block.input]
prompt = "echo inner"
agent = "shell"
label = "from the inner run"

[[turn]]
[[turn.block]]
text = "It runs."
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("mcp"), "--CCExecutorServer.max_running=3") as found:
        yield found


def asked(server: Server, work: Callable[[ClientSession], Awaitable[Any]]) -> Any:
    """What `work` gives with a session of the official client."""

    async def whole() -> Any:
        async with (
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=BOUND, trust_env=False) as http,
            streamable_http_client(f"{server.client.base_url}{PATH}", http_client=http) as (reading, writing),
            ClientSession(reading, writing) as session,
        ):
            await session.initialize()
            return await work(session)

    return asyncio.run(asyncio.wait_for(whole(), BOUND))


async def tool(session: ClientSession, name: str, **arguments: Any) -> dict[str, Any]:
    answer = await session.call_tool(name, arguments)
    (content,) = answer.content
    assert isinstance(content, TextContent)
    assert json.loads(content.text) == answer.structured_content, "clients without structured output see the same"
    assert answer.is_error == ("error" in answer.structured_content)
    return answer.structured_content


def test_an_agent_starts_a_run_follows_it_and_reads_its_result(server: Server) -> None:
    async def work(session: ClientSession) -> None:
        tools = {each.name: each for each in (await session.list_tools()).tools}
        assert set(tools) == {"execute", "status", "results", "control", "executions"}
        assert tools["status"].annotations is not None
        assert tools["status"].annotations.read_only_hint
        assert "cli" not in tools["execute"].input_schema["properties"]
        started = await tool(session, "execute", prompt="echo one; sleep 0.3; echo two", agent="shell", shell="bash")  # noqa: S604 - an option of a run
        seen, offset = "", 0
        while True:
            told = await tool(session, "status", id=started["id"], offset=offset, wait=10)
            assert told["output"]["offset"] == offset
            seen, offset = seen + told["output"]["data"], told["output"]["next_offset"]
            if told["done"] and not told["output"]["data"]:
                break
        assert seen == "one\ntwo\n"
        results = await tool(session, "results", id=started["id"])
        assert (results["done"], results["status"], results["text"]) == (True, "ok", "one\ntwo\n")
        rows = await tool(session, "executions", limit=5)
        assert started["id"] in {row["id"] for row in rows["executions"]}

    asked(server, work)


def test_what_is_wrong_is_told_and_breaks_nothing(server: Server) -> None:
    async def work(session: ClientSession) -> None:
        for name, arguments, says in (
            ("nothing", {}, "There is no tool"),
            ("execute", {}, "prompt is missing"),
            ("execute", {"prompt": "x", "cli": "/bin/sh"}, "'cli'"),
            ("execute", {"prompt": "x", "agent": "nobody"}, "nobody"),
            ("status", {}, "id is missing"),
            ("status", {"id": "0" * 26}, "no such execution"),
            ("status", {"id": "../../etc"}, "no such execution"),
            ("control", {"id": "0" * 26, "op": "pause"}, "no such execution"),
            ("status", {"id": "0" * 26, "offset": -1}, "offset"),
        ):
            answer = await tool(session, name, **arguments)
            assert says in answer["error"]["message"], answer

    asked(server, work)


def test_a_run_is_ended_by_who_started_it(server: Server) -> None:
    async def work(session: ClientSession) -> None:
        started = await tool(session, "execute", prompt="sleep 600", agent="shell")
        assert (await tool(session, "control", id=started["id"], op="pause"))["status"] == "paused"
        await tool(session, "control", id=started["id"], op="kill")
        told = await tool(session, "status", id=started["id"], wait=20)
        while not told["done"]:
            told = await tool(session, "status", id=started["id"], wait=1)
        assert told["status"] == "cancelled"

    asked(server, work)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
def test_nobody_gets_in_without_the_token(server: Server, headers: dict[str, str]) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    answer = httpx.post(f"{server.client.base_url}{PATH}", json=body, headers=headers, trust_env=False)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "execute" not in answer.text


def test_neither_a_cookie_nor_a_foreign_page_gets_in(server: Server) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    with httpx.Client(base_url=server.client.base_url, trust_env=False) as browser:
        browser.get("/lab", params={"token": TOKEN})  # which gives the cookie
        assert browser.post(PATH, json=body, headers={"X-XSRFToken": browser.cookies.get("_xsrf") or ""}).status_code == 401
    assert server.client.post(PATH, json=body, headers={"Origin": "http://evil.example"}).status_code == 403


def test_a_name_in_a_header_is_nobody(server: Server) -> None:
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "executions", "arguments": {}, "_meta": {"user": "alice"}},
    }
    headers = {"X-Forwarded-User": "alice", "Remote-User": "alice", "Accept": "application/json, text/event-stream"}
    assert httpx.post(f"{server.client.base_url}{PATH}", json=body, headers=headers, trust_env=False).status_code == 401


def test_it_can_be_found(server: Server) -> None:
    found = httpx.get(f"{server.client.base_url}/.well-known/mcp/cc-executor.json", trust_env=False)
    assert found.status_code == 200
    assert found.json()["transport"] == {"type": "streamable-http", "url": f"{server.client.base_url}{PATH}"}


def test_the_real_claude_code_is_a_client(server: Server, tmp_path: Path) -> None:
    """The CLI, with a scripted model that calls the tools, starts a run here and reads what it wrote."""
    script = tmp_path / "client.toml"
    script.write_text(CLIENT, encoding="utf-8")
    (tmp_path / ".mcp.json").write_text(
        json.dumps(
            {
                "mcpServers": {
                    "runs": {"type": "http", "url": f"{server.client.base_url}{PATH}", "headers": {"Authorization": f"Bearer {TOKEN}"}}
                }
            }
        )
    )
    answer = server.client.post(
        "/cc-executor/api/v1/execute",
        json={"prompt": "Use the tools.", "rehearse": str(script), "cwd": str(tmp_path), "trust_workspace": True, "tools": "mcp__runs"},
    )
    assert answer.status_code == 202, answer.text
    run = answer.json()["id"]
    results = eventually(
        lambda: (found := server.client.get(f"/cc-executor/api/v1/executions/{run}/results").json())["done"] and found,
        within=BOUND,
        what="it ends",
    )
    assert results["status"] == "ok", results
    rows = server.client.get("/cc-executor/api/v1/executions").json()["executions"]
    assert "from the inner run" in [row["label"] for row in rows], results
