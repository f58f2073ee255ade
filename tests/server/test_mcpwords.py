"""What a model that has our tools reads of them: what an option is, what to do about an error, and how to wait without paying for each look."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp.client.session import ClientSession

from cc_executor.server.mcptools import TEXT_LIMIT
from support.mcp import asked, ended, tool
from support.served import Server, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("words"), "--CCExecutorServer.trusted_folders=/") as found:
        yield found


@pytest.mark.parametrize("name", ["execute", "execute_list"])
def test_each_option_of_what_starts_something_says_what_it_is(server: Server, name: str) -> None:
    async def work(session: ClientSession) -> dict[str, Any]:
        (found,) = (each for each in (await session.list_tools()).tools if each.name == name)
        return found.input_schema["properties"]

    options = asked(server, work)
    assert [option for option, schema in options.items() if not schema.get("description")] == []
    assert [option for option, schema in options.items() if not schema.keys() & {"type", "enum", "anyOf"}] == []


def test_a_client_that_sends_every_default_asks_for_the_same_run(server: Server) -> None:
    async def work(session: ClientSession) -> None:
        (found,) = (each for each in (await session.list_tools()).tools if each.name == "execute")
        defaults = {name: each["default"] for name, each in found.input_schema["properties"].items() if "default" in each}
        bare = {"prompt": "Greet.", "rehearse": "hello", "idempotency_key": "the same one"}
        first = await tool(session, "execute", **bare)
        again = await tool(session, "execute", **{**defaults, **bare})
        assert (again.get("id"), again.get("new")) == (first["id"], False), again
        await ended(session, first["id"])

    asked(server, work)


def test_an_argument_that_there_is_not_names_the_one_that_was_meant(server: Server) -> None:
    async def work(session: ClientSession) -> None:
        for name, arguments, says in (
            ("execute", {"prompt": "x", "timout": 3}, "execute takes no 'timout'. Did you mean timeout?"),
            ("execute", {"prompt": "x", "bogus": 3}, "execute takes no 'bogus'. It takes add_dirs, agent, "),
            ("execute", {"prompt": "x", "env": ["A"]}, "execute takes no 'env'. Did you mean env_names?"),
            ("execute_list", {"tasks": ["x"], "paralel": 2}, "Did you mean parallel?"),
            ("execute_list", {"tasks": "x"}, "tasks must be an array of prompts and objects."),
            ("results", {"id": "0" * 26, "wait": "50"}, 'wait must be a number from 0 on (given: "50").'),
            ("status", {"run": "x"}, "status takes no 'run'. It takes id, offset, wait."),
            ("control", {"id": "0" * 26}, "op is missing. Choose one of pause, resume, cancel, kill."),
            ("list_control", {"id": "0" * 20 + "-1"}, "op is missing. Choose one of pause, "),
        ):
            answer = await tool(session, name, **arguments)
            assert says in answer["error"]["message"], answer

    asked(server, work)


def test_an_error_about_an_id_names_the_tool_that_helps(server: Server) -> None:
    async def work(session: ClientSession) -> None:
        started = (await tool(session, "execute", prompt="true", agent="shell"))["id"]
        await ended(session, started)
        listed = (await tool(session, "execute_list", tasks=[{"run": "true"}]))["id"]
        for name, given, says in (
            ("status", "0199", "`executions` lists"),
            ("results", "0" * 26, "`executions` lists"),
            ("list_status", "0" * 20 + "-1", "`executions` lists"),
            ("status", listed, "list_status"),
            ("monitor", listed, "list_status"),
            ("verify", listed, "list_status"),
            ("list_results", started, "execute_list"),
        ):
            said = (await tool(session, name, id=given))["error"]["message"]
            assert says in said, (name, said)
        said = (await tool(session, "control", id=started, op="cancel"))["error"]["message"]
        assert "has ended" in said, said
        assert "`results`" in said, said
        assert "%cc" not in said, "there is no cell where tools are called"
        while not (await tool(session, "list_results", id=listed, wait=20))["done"]:
            pass

    asked(server, work)


async def killed_while_waited_for(session: ClientSession, its_id: str, *, prefix: str = "") -> str:
    """The status that one call for the results gives that waits, while another call ends the run or list."""
    found: list[dict[str, Any]] = []

    async def wait() -> None:
        found.append(await tool(session, f"{prefix}results", id=its_id, wait=50))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await tool(session, f"{prefix}control", id=its_id, op="kill")
    (told,) = found
    assert told["done"]
    return str(told["status"])


def test_who_waits_for_results_needs_one_call(server: Server) -> None:
    async def work(session: ClientSession) -> None:
        assert "results with wait" in (session.instructions or "")
        run_id = (await tool(session, "execute", prompt="sleep 600", agent="shell"))["id"]
        told = await tool(session, "results", id=run_id)
        assert (told["done"], told["asks"]) == (False, 0)
        assert told["status"] in {"starting", "running"}
        assert await killed_while_waited_for(session, run_id) == "cancelled"

    asked(server, work)


def test_who_waits_for_a_lists_results_needs_one_call(server: Server) -> None:
    async def work(session: ClientSession) -> None:
        listed = (await tool(session, "execute_list", tasks=[{"run": "sleep 600"}]))["id"]
        assert not (await tool(session, "list_results", id=listed))["done"]
        assert await killed_while_waited_for(session, listed, prefix="list_") == "stopped"

    asked(server, work)


def test_the_results_of_many_tasks_are_no_longer_than_those_of_one_run(server: Server) -> None:
    async def work(session: ClientSession) -> None:
        tasks = [{"run": f"head -c 5000 /dev/zero | tr '\\0' {number % 10}", "id": f"t{number}"} for number in range(20)]
        listed = (await tool(session, "execute_list", tasks=tasks, parallel=4))["id"]
        while not (told := await tool(session, "list_results", id=listed, wait=50))["done"]:
            pass
        assert [(each["status"], len(each["text"]) + each["text_left_out"]) for each in told["results"]] == [("ok", 5000)] * 20
        assert sum(len(each["text"]) for each in told["results"]) == TEXT_LIMIT
        alone = (await tool(session, "list_results", id=listed, offset=3, limit=1))["results"]
        assert [(each["task"], len(each["text"])) for each in alone] == [("t3", 2000)]

    asked(server, work)


def test_who_waits_for_results_is_asked_what_the_agent_asks(server: Server, tmp_path: Path) -> None:
    forms: list[types.ElicitRequestParams] = []

    async def answer(_: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        forms.append(params)
        return types.ElicitResult(action="accept", content={"answer_1": "2025 only", "answer_2": ["Tables"]})

    async def work(session: ClientSession) -> dict[str, Any]:
        run_id = (await tool(session, "execute", prompt="Ask.", rehearse="question", ask=True, cwd=str(tmp_path), timeout=60))["id"]
        while not (told := await tool(session, "results", id=run_id, wait=50))["done"]:
            pass
        return told

    assert asked(server, work, elicitation_callback=answer)["status"] == "ok"
    assert len(forms) == 1
