"""The official client of the Model Context Protocol at a served endpoint, and people who are told apart there."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import httpx2
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp_types import TextContent

from support.looks import eventually
from support.served import TOKEN, Server

PATH: Final = "/cc-executor/mcp"
BOUND: Final = 60.0
BOB: Final = "the-token-of-bob"
LOOKS: Final = "a-token-of-alice-that-may-only-look"
# A real identity provider, as far as the extension can tell: it knows people by name, and each has a token.
PEOPLE: Final = f"""
from jupyter_server.auth.authorizer import Authorizer
from jupyter_server.auth.identity import IdentityProvider, User

class People(IdentityProvider):
    def get_user_token(self, handler):
        name = {{{TOKEN!r}: "alice", {LOOKS!r}: "alice", {BOB!r}: "bob"}}.get(self.get_token(handler))
        return User(name) if name else None

class Scopes(Authorizer):
    def is_authorized(self, handler, user, action, resource):
        return action == "read" or self.identity_provider.get_token(handler) != {LOOKS!r}
"""

# What a model says that starts a run by the tools, follows it and reads its result.
CLIENT: Final = """
description = "an agent that starts another one"

[[turn]]
[[turn.block]]
tool = "mcp__runs__execute"
[turn.block.input]
prompt = "seq -s- 41 43"
agent = "shell"
label = "the inner run"

[[turn]]
[[turn.block]]
tool = "mcp__runs__monitor"
input = { id = "{run}", wait = 20 }

[[turn]]
[[turn.block]]
tool = "mcp__runs__status"
input = { id = "{run}", wait = 20 }

[[turn]]
[[turn.block]]
tool = "mcp__runs__results"
input = { id = "{run}" }

[[turn]]
[[turn.block]]
text = "I have read the result."
"""


def claude_uses(server: Server, entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Results of a run of the real CLI, with a scripted model, that has the MCP server `entry`; and as `text` what its tools have answered."""
    script = folder / "client.toml"
    script.write_text(CLIENT, encoding="utf-8")
    (folder / ".mcp.json").write_text(json.dumps({"mcpServers": {"runs": entry}}))
    options = {"rehearse": str(script), "cwd": str(folder), "trust_workspace": True, "tools": "mcp__runs"}
    answer = server.client.post("/cc-executor/api/v1/execute", json={"prompt": "Use the tools.", **options})
    assert answer.status_code == 202, answer.text
    run = f"/cc-executor/api/v1/executions/{answer.json()['id']}"
    results = eventually(lambda: (found := server.client.get(f"{run}/results").json())["done"] and found, within=BOUND, what="it ends")
    return results | {"text": server.client.get(f"{run}/events", params={"limit": 2**20}).json()["data"]}


def people(folder: Path) -> tuple[str, str]:
    """Write the provider where the server finds it; returns the options that name it."""
    (folder / "people.py").write_text(PEOPLE, encoding="utf-8")
    return "--ServerApp.identity_provider_class=people.People", "--ServerApp.authorizer_class=people.Scopes"


def asked(server: Server, work: Callable[[ClientSession], Awaitable[Any]], *, token: str = TOKEN, **options: Any) -> Any:
    """What `work` gives with a session of the official client. `options`: its callbacks."""

    async def whole() -> Any:
        async with (
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=BOUND, trust_env=False) as http,
            streamable_http_client(f"{server.client.base_url}{PATH}", http_client=http) as (reading, writing),
            ClientSession(reading, writing, **options) as session,
        ):
            await session.initialize()
            return await work(session)

    return asyncio.run(asyncio.wait_for(whole(), BOUND))


async def in_bash(session: ClientSession, script: str) -> str:
    """The id of a run of this script, which has just been started."""
    return (await tool(session, "execute", prompt=script, agent="shell", shell="bash"))["id"]  # noqa: S604 - an option of a run, no call of a process


async def tool(session: ClientSession, name: str, /, **arguments: Any) -> dict[str, Any]:
    """The structured answer of a tool, which its text says, too."""
    answer = await session.call_tool(name, arguments)
    (content,) = answer.content
    assert isinstance(content, TextContent)
    assert json.loads(content.text) == answer.structured_content, "clients without structured output see the same"
    assert answer.is_error == ("error" in answer.structured_content)
    return answer.structured_content


async def ended(session: ClientSession, run_id: str) -> dict[str, Any]:
    """The results of a run, when it has ended."""
    while not (told := await tool(session, "status", id=run_id, offset=10**12, wait=20))["done"]:
        pass
    assert told["done"]
    while not (results := await tool(session, "results", id=run_id))["done"]:
        pass
    return results


# --- the protocol by hand ---


def message(method: str, number: int = 1, **params: Any) -> dict[str, Any]:
    """A request."""
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def opening(client: httpx.Client, capabilities: dict[str, Any] | None = None, /, **headers: str) -> httpx.Response:
    """The answer to a client that wants a session."""
    about = {"protocolVersion": "2025-11-25", "capabilities": capabilities or {}, "clientInfo": {"name": "test", "version": "0"}}
    return client.post(PATH, json=message("initialize", **about), headers=headers)


@contextlib.contextmanager
def opened(server: Server, **capabilities: Any) -> Iterator[httpx.Client]:
    """A client with a session, by hand."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Accept": "application/json, text/event-stream"}
    with httpx.Client(base_url=server.client.base_url, headers=headers, timeout=BOUND, trust_env=False) as client:
        answer = opening(client, capabilities)
        assert answer.status_code == 200, answer.text
        client.headers.update({"Mcp-Session-Id": answer.headers["mcp-session-id"], "MCP-Protocol-Version": "2025-11-25"})
        assert client.post(PATH, json={"jsonrpc": "2.0", "method": "notifications/initialized"}).status_code == 202
        yield client


def events_of(answer: httpx.Response) -> Iterator[tuple[str, str]]:
    """Ids and data of server-sent events."""
    number = ""
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if name == "id":
            number = value
        elif name == "data":
            yield number, value


def said_in(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    """What is said in a stream, without signs of life and what is told by the way."""
    messages = (json.loads(data) for _, data in events_of(answer) if data)
    return (each for each in messages if not each.get("method", "").startswith("notifications/"))
