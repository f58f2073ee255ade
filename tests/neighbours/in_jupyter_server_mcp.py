"""Our tools in the real jupyter-server-mcp, which needs an environment of its own: `make neighbours`. The test of two users has to be root's."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from support.looks import eventually
from support.runs import wait_for
from support.served import TOKEN, Json, Server, serving

_fastmcp: Final[Any] = importlib.import_module("fastmcp")  # it is in the environment of `make neighbours` alone
_transports: Final[Any] = importlib.import_module("fastmcp.client.transports")
NOBODY: Final = 65534  # uid


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("both"), "--MCPExtensionApp.mcp_port=0") as served:
        yield served


@pytest.fixture(scope="module")
def address(server: Server) -> str:
    """Where the neighbour listens, as it tells its own clients."""
    runtime = server.root.parent / "runtime"

    def told() -> str:
        for file in runtime.glob("jpserver-mcp-*.json"):
            with suppress(ValueError):  # it is being written
                return str(json.loads(file.read_text())["url"])
        return ""

    return str(eventually(told, within=60, what="the neighbour has said where it listens"))


async def called(client: Any, name: str, **arguments: Any) -> Json:
    answer = await client.call_tool_mcp(name, arguments)
    assert not answer.is_error, answer
    assert answer.structured_content is not None
    return answer.structured_content


async def finished(client: Any, name: str, which: str) -> Json:
    """Results, when they are there."""
    while not (found := await called(client, name, id=which))["done"]:  # noqa: ASYNC110 - there is nothing to wait for on this side
        await anyio.sleep(0.05)
    return found


@asynccontextmanager
async def both(server: Server, address: str) -> AsyncIterator[tuple[Any, Any]]:
    """A client of the neighbour, and one of our own endpoint."""
    ours = str(server.client.base_url.join("/cc-executor/mcp"))
    async with _fastmcp.Client(address) as there, _fastmcp.Client(ours, auth=TOKEN) as here:
        yield there, here


async def test_the_tools_are_those_of_our_own_endpoint(server: Server, address: str) -> None:
    async with both(server, address) as (there, here):
        theirs = {tool.name.removeprefix("cc_"): tool for tool in await there.list_tools() if tool.name.startswith("cc_")}
        ours = {tool.name: tool for tool in await here.list_tools()}
    assert theirs.keys() == ours.keys()
    for name, tool in theirs.items():
        assert tool.description == ours[name].description
        assert tool.input_schema.get("required", []) == ours[name].input_schema.get("required", [])
        assert tool.input_schema["properties"].keys() == ours[name].input_schema["properties"].keys()
        assert not tool.input_schema["additionalProperties"]


async def test_a_run_has_the_same_results_here_and_there(server: Server, address: str, claude_cli: Path) -> None:
    async with both(server, address) as (there, here):
        run = (await called(there, "cc_execute", prompt="hello", rehearse="hello"))["id"]
        offset, told = 0, {"done": False}
        with anyio.fail_after(90):
            while not told["done"]:
                told = await called(there, "cc_status", id=run, offset=offset, wait=20)
                offset = told["output"]["next_offset"]
            found = await finished(there, "cc_results", run)
        assert found["status"] == "ok"
        assert found == await called(here, "results", id=run)
        assert (await called(there, "cc_verify", id=run))["verdict"] == "verified"
        assert run in [row["id"] for row in (await called(there, "cc_executions"))["executions"]]


async def test_a_run_can_be_cancelled(server: Server, address: str) -> None:
    async with both(server, address) as (there, _):
        run = (await called(there, "cc_execute", prompt="sleep 600", agent="shell"))["id"]
        await called(there, "cc_control", id=run, op="kill")
        with anyio.fail_after(60):
            found = await finished(there, "cc_results", run)
    assert found["status"] == "cancelled"


async def test_a_list_goes_through(server: Server, address: str) -> None:
    async with both(server, address) as (there, _):
        made = await called(there, "cc_execute_list", tasks=[{"id": "one", "run": "true"}])
        with anyio.fail_after(60):
            found = await finished(there, "cc_list_results", made["id"])
    assert found["status"] == "ok"


async def test_what_is_wrong_is_said_as_over_our_own_endpoint(server: Server, address: str) -> None:
    async with both(server, address) as (there, here):
        for name, arguments in (
            ("results", {"id": "nothing"}),
            ("execute", {"prompt": "x", "agent": "nobody"}),
            ("status", {"id": "x", "wait": -1}),
        ):
            theirs, ours = await there.call_tool_mcp(f"cc_{name}", arguments), await here.call_tool_mcp(name, arguments)
            assert theirs.is_error
            assert theirs.structured_content == ours.structured_content


async def test_a_page_in_a_browser_may_not_call(address: str) -> None:
    origin = address.rpartition("/")[0]
    async with _fastmcp.Client(_transports.StreamableHttpTransport(address, headers={"Origin": origin})) as page:
        answer = await page.call_tool_mcp("cc_execute", {"prompt": "true", "agent": "shell"})
    assert answer.is_error
    assert "browser" in str(answer.structured_content)


@pytest.fixture
def as_nobody() -> Iterator[Callable[[], None]]:
    """Makes the connections that this process opens from then on those of another user. Nobody but root can."""
    yield lambda: os.seteuid(NOBODY)
    os.seteuid(0)


async def test_another_user_of_the_machine_may_not_call(server: Server, address: str, as_nobody: Callable[[], None]) -> None:
    before = len(server.client.get("/cc-executor/api/v1/executions").json()["executions"])
    async with _fastmcp.Client(address) as client:
        await called(client, "cc_executions")
    as_nobody()
    async with _fastmcp.Client(address) as client:
        answer = await client.call_tool_mcp("cc_execute", {"prompt": "true", "agent": "shell"})
        looked = await client.call_tool_mcp("cc_executions", {})
    assert answer.is_error
    assert looked.is_error
    assert "/cc-executor/mcp" in str(answer.structured_content)
    assert len(server.client.get("/cc-executor/api/v1/executions").json()["executions"]) == before


def test_where_people_are_told_apart_the_tools_are_not_offered(tmp_path: Path) -> None:
    with serving(tmp_path, "--MCPExtensionApp.mcp_port=0", "--CCExecutorServer.owner_mode=user") as server:
        wait_for(lambda: list((tmp_path / "runtime").glob("jpserver-mcp-*.json")))
        assert "not in the server of jupyter-server-mcp" in server.log
        assert "cc_execute" not in server.log
