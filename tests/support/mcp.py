"""The official client of the Model Context Protocol at a served endpoint, and people who are told apart there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import httpx2
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp_types import TextContent

from support.served import TOKEN, Server

PATH: Final = "/cc-executor/mcp"
BOUND: Final = 60.0
BOB: Final = "the-token-of-bob"
# A real identity provider, as far as the extension can tell: it knows people by name, and each has a token.
PEOPLE: Final = f"""
from jupyter_server.auth.identity import IdentityProvider, User

class People(IdentityProvider):
    def get_user_token(self, handler):
        name = {{{TOKEN!r}: "alice", {BOB!r}: "bob"}}.get(self.get_token(handler))
        return User(name) if name else None
"""


def people(folder: Path) -> str:
    """Write the provider where the server finds it; returns the option that names it."""
    (folder / "people.py").write_text(PEOPLE, encoding="utf-8")
    return "--ServerApp.identity_provider_class=people.People"


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


async def tool(session: ClientSession, name: str, **arguments: Any) -> dict[str, Any]:
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
