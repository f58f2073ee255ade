"""The runs as tools, asked for by the protocol's own client at a real `jupyter server` on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import mcp_types as types
import pytest
from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError

from cc_executor.policy.predict import LEAST
from cc_executor.shim import records
from support.mcp import BOB, BOUND, PATH, asked, claude_uses, ended, in_bash, people, tool
from support.served import TOKEN, Server, prune, serving

READS: Final = {
    "list_status",
    "list_results",
    "status",
    "monitor",
    "results",
    "executions",
    "complexity",
    "suggest_strategy",
    "validate_list",
    "history",
    "hook_status",
    "verify",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("mcp")
    with serving(folder, *people(folder), "--CCExecutorServer.max_running=3", "--CCExecutorServer.trusted_folders=/") as found:
        yield found


def test_an_agent_starts_a_run_follows_it_and_reads_its_result(server: Server) -> None:
    async def work(session: ClientSession) -> None:
        tools = {each.name: each for each in (await session.list_tools()).tools}
        hints = {name: each.annotations for name, each in tools.items() if each.annotations is not None}
        assert hints.keys() == tools.keys(), "a client is told of each whether it changes anything"
        assert {name for name, each in hints.items() if each.read_only_hint} == READS
        assert {name for name, each in hints.items() if each.destructive_hint} == {"control", "list_control"}
        assert not hints["execute"].idempotent_hint
        assert all(each.output_schema and each.output_schema["required"] for each in tools.values())
        assert "cli" not in tools["execute"].input_schema["properties"]
        assert "$ref" not in str([tool.input_schema for tool in tools.values()])  # there would be nothing that it names
        run_id = await in_bash(session, "echo one; sleep 0.3; echo two")
        seen, offset = "", 0
        while True:
            told = await tool(session, "status", id=run_id, offset=offset, wait=10)
            assert told["output"]["offset"] == offset
            seen, offset = seen + told["output"]["data"], told["output"]["next_offset"]
            if told["done"] and not told["output"]["data"]:
                break
        assert seen == "one\ntwo\n"
        results = await tool(session, "results", id=run_id)
        assert (results["done"], results["status"], results["text"]) == (True, "ok", "one\ntwo\n")
        rows = await tool(session, "executions", limit=5)
        assert run_id in {row["id"] for row in rows["executions"]}

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
            ("executions", {"status": "done"}, "cancelled, "),
            ("executions", {"before": "yesterday"}, "next"),
            ("history", {"outcome": "done"}, "cancelled, "),
            ("history", {"before": "yesterday"}, "next"),
        ):
            answer = await tool(session, name, **arguments)
            assert says in answer["error"]["message"], answer

    asked(server, work)


def test_what_nobody_has_thought_of_is_told_without_our_insides(server: Server) -> None:
    async def work(session: ClientSession) -> None:
        run_id = (await tool(session, "execute", prompt="sleep 600", agent="shell"))["id"]
        lock = server.home.folder(run_id).path / records.LOCK
        lock.rename(lock.with_suffix(".aside"))
        lock.symlink_to("nowhere")  # as its agent could do it, which runs as the same user
        try:
            told = await tool(session, "monitor", id=run_id, after=0)
        finally:
            lock.unlink()
            lock.with_suffix(".aside").rename(lock)
        assert told["error"] == {"kind": "InternalError", "message": "Something went wrong here. The server's log has it."}
        await tool(session, "control", id=run_id, op="kill")
        await ended(session, run_id)

    asked(server, work)
    assert "a symbolic link stands there" in server.log


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
    answer = httpx.post(f"{server.client.base_url}{PATH}", json=body, headers=headers, trust_env=False, timeout=BOUND)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "execute" not in answer.text


def test_neither_a_cookie_nor_a_foreign_page_gets_in(server: Server) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    with httpx.Client(base_url=server.client.base_url, trust_env=False, timeout=BOUND) as browser:
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
    assert httpx.post(f"{server.client.base_url}{PATH}", json=body, headers=headers, trust_env=False, timeout=BOUND).status_code == 401


def test_it_can_be_found(server: Server) -> None:
    found = httpx.get(f"{server.client.base_url}/.well-known/mcp/cc-executor.json", trust_env=False, timeout=BOUND)
    assert found.status_code == 200
    assert found.json()["transport"] == {"type": "streamable-http", "url": f"{server.client.base_url}{PATH}"}


def test_the_real_claude_code_is_a_client(server: Server, tmp_path: Path) -> None:
    entry = {"type": "http", "url": f"{server.client.base_url}{PATH}", "headers": {"Authorization": f"Bearer {TOKEN}"}}
    results = claude_uses(server, entry, tmp_path)
    assert results["status"] == "ok", results
    assert "41-42-43" in results["text"], "it has read what the other agent has written"
    rows = server.client.get("/cc-executor/api/v1/executions").json()["executions"]
    assert "the inner run" in [row["label"] for row in rows], results


# --- what is known before and after ------------------------------------------------------------------------------------


def test_prompts_and_lists_are_looked_over_before_anything_is_spent(server: Server) -> None:
    async def work(session: ClientSession) -> None:
        known = await tool(session, "complexity", prompt="Fix it.")
        assert known["tokens"]["least"] <= known["tokens"]["likely"] <= known["tokens"]["most"]
        assert known["findings"], "the rules know a prompt that names nothing"
        assert known["seconds"] is None
        assert "no estimate" in known["notes"][-1]
        found = await tool(session, "suggest_strategy", prompt="Fix it.")
        assert {each["source"] for each in found["suggestions"]} == {each["rule"] for each in known["findings"]}
        right = [{"id": "a", "run": "echo 1"}, {"id": "b", "run": "echo 2", "needs": ["a"]}]
        checked = await tool(session, "validate_list", tasks=right)
        assert (checked["ok"], checked["order"]) == (True, ["a", "b"])
        wrong = await tool(session, "validate_list", tasks=[{"id": "a", "run": "echo 1", "needs": ["b"]}])
        assert not wrong["ok"]
        assert "'b'" in wrong["problems"][0]
        assert "tasks is missing" in (await tool(session, "validate_list"))["error"]["message"]
        assert "no estimate for 2 of 2" in (await tool(session, "suggest_strategy", tasks=right))["notes"][0]
        assert "either" in (await tool(session, "suggest_strategy"))["error"]["message"]

    asked(server, work)


def test_what_was_run_is_remembered_estimated_and_verified(server: Server) -> None:
    async def work(session: ClientSession) -> None:
        for _ in range(LEAST):
            run_id = (await tool(session, "execute", prompt="echo the same", agent="shell", label="alike"))["id"]
            assert (await ended(session, run_id))["status"] == "ok"
        rows = (await tool(session, "history", label="alike"))["runs"]
        assert [row["outcome"] for row in rows] == ["ok"] * LEAST
        assert rows[0]["run_id"] == run_id
        known = await tool(session, "complexity", prompt="echo the same", agent="shell", label="alike")
        assert known["seconds"]["based_on"] >= LEAST
        (hint,) = (await tool(session, "suggest_strategy", prompt="echo the same", agent="shell", label="alike"))["suggestions"][-1:]
        assert "timeout" in hint["what"]
        verified = await tool(session, "verify", id=run_id)
        assert verified["verdict"] == "verified", verified
        assert (await tool(session, "hook_status", id=run_id)) == {"id": run_id, "hooks": []}

    asked(server, work)


def test_a_list_is_started_followed_commanded_and_read(server: Server) -> None:
    async def work(session: ClientSession) -> None:
        tasks = [{"id": "a", "run": "echo one"}, {"id": "b", "run": "echo two; sleep 600", "needs": ["a"]}]
        list_id = (await tool(session, "execute_list", tasks=tasks, name="by tools"))["id"]
        told: dict[str, Any] = {"tasks": [{}, {"status": ""}]}
        while told["tasks"][1]["status"] != "running":
            told = await tool(session, "list_status", id=list_id, wait=20)
        await tool(session, "list_control", id=list_id, op="cancel", task="b")
        while not told["done"]:
            told = await tool(session, "list_status", id=list_id, wait=20)
        results = await tool(session, "list_results", id=list_id)
        first = results["results"][0]
        assert (first["task"], first["status"], first["text"]) == ("a", "ok", "one\n")
        assert (await tool(session, "verify", id=first["run_id"]))["verdict"] == "verified"
        assert (await tool(session, "list_status", id="0" * 26))["error"]["kind"] == "InvalidRequest"
        assert "nothing was started" in (await tool(session, "execute_list", tasks=[{"id": "a", "needs": ["c"]}]))["error"]["message"]

    asked(server, work)


# --- following ---------------------------------------------------------------------------------------------------------


def test_who_monitors_a_run_is_told_what_happens_and_that_it_goes_on(server: Server, tmp_path: Path) -> None:
    logged: list[types.LoggingMessageNotificationParams] = []
    amounts: list[list[float]] = []  # of each call
    said: list[str | None] = []

    async def log(params: types.LoggingMessageNotificationParams) -> None:
        logged.append(params)

    async def went_on(progress: float, total: float | None, message: str | None) -> None:
        amounts[-1].append(progress)
        said.append(message)
        (tmp_path / "go").touch()

    async def work(session: ClientSession) -> None:
        await session.send_ping()
        await session.set_logging_level("info")
        script = f"until [ -e {tmp_path}/go ]; do sleep 0.05; done"
        run_id = await in_bash(session, script)
        kinds, after, done = [], 0, False
        while not done:
            amounts.append([])
            answer = await session.call_tool("monitor", {"id": run_id, "after": after, "wait": 20}, progress_callback=went_on)
            told: dict[str, Any] = answer.structured_content or {}
            kinds += [event["kind"] for event in told["events"]]
            after, done = told["next"], told["done"]
        assert kinds[0] == "started"
        assert kinds[-1] == "exited"
        assert (await tool(session, "monitor", id=run_id, after=1, limit=1))["events"][0]["kind"] == kinds[1], "from any place again"
        assert amounts == [sorted(each) for each in amounts]
        assert (said[0] or "").startswith("running"), "the run waited for this"
        while len(logged) <= len(kinds):  # noqa: ASYNC110 - what is told beside an answer comes by itself; the whole is bounded
            await asyncio.sleep(0.02)
        assert [params.data["kind"] for params in logged] == [*kinds, kinds[1]]
        await session.set_logging_level("error")
        logged.clear()
        await tool(session, "monitor", id=run_id)
        await session.set_logging_level("info")
        await tool(session, "monitor", id=run_id, after=1, limit=1)
        while not logged:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)
        assert [params.data["kind"] for params in logged] == [kinds[1]], "and nothing before it"

    asked(server, work, logging_callback=log)


def test_resources_are_listed_read_completed_and_watched(server: Server) -> None:
    updated: asyncio.Queue[str] = asyncio.Queue()

    async def told(message: Any) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            updated.put_nowait(message.params.uri)

    async def text(session: ClientSession, uri: str) -> str:
        (content,) = (await session.read_resource(uri)).contents
        assert isinstance(content, types.TextResourceContents)
        return content.text

    async def work(session: ClientSession) -> None:
        names = {each.uri_template for each in (await session.list_resource_templates()).resource_templates}
        assert "cc-executor://runs/{id}/receipt" in names
        config = json.loads(await text(session, "cc-executor://config"))
        assert (config["running"], config["trusted"]) == (3, ["/"])
        run_id = (await tool(session, "execute", prompt="sleep 600", agent="shell"))["id"]
        uri = f"cc-executor://runs/{run_id}/receipt"
        with pytest.raises(MCPError, match="not ended"):
            await session.read_resource(uri)
        await session.subscribe_resource(uri)
        reference = types.ResourceTemplateReference(type="ref/resource", uri="cc-executor://runs/{id}/receipt")
        assert run_id in (await session.complete(reference, {"name": "id", "value": run_id[:4]})).completion.values
        assert (await session.complete(reference, {"name": "id", "value": "x"})).completion.values == []
        await tool(session, "control", id=run_id, op="kill")
        assert await asyncio.wait_for(updated.get(), BOUND) == uri
        assert json.loads(await text(session, uri))["run_id"] == run_id
        assert run_id in await text(session, f"cc-executor://runs/{run_id}/report")
        listed = {each.uri for each in (await session.list_resources()).resources}
        assert {uri, "cc-executor://config"} <= listed
        for wrong in (f"cc-executor://runs/{'0' * 26}/receipt", f"cc-executor://runs/{run_id}/journal/request.json", "file:///etc/passwd"):
            with pytest.raises(MCPError, match="no such resource"):
                await session.read_resource(wrong)
            with pytest.raises(MCPError, match="no such resource"):
                await session.subscribe_resource(wrong)

    asked(server, work, message_handler=told)


def test_the_journal_is_a_resource_byte_for_byte(server: Server) -> None:
    async def work(session: ClientSession) -> None:
        run_id = await in_bash(session, "seq 60000; printf '\\303\\251'")
        await ended(session, run_id)
        (content,) = (await session.read_resource(f"cc-executor://runs/{run_id}/journal")).contents
        assert isinstance(content, types.TextResourceContents)
        whole = "".join(f"{number}\n" for number in range(1, 60001)) + "é"
        meta = content.meta or {}
        assert meta["cc-executor/size"] == len(whole.encode())
        assert content.text == whole[meta["cc-executor/offset"] :], "the end, and it is said where that begins"

    asked(server, work)


def test_the_end_of_a_long_journal_begins_with_a_whole_character(server: Server) -> None:
    """262,144 bytes of 300,001, in characters of three."""

    async def work(session: ClientSession) -> None:
        script = "printf x; printf '\\342\\202\\254%.0s' $(seq 100000)"
        run_id = await in_bash(session, script)
        await ended(session, run_id)
        (content,) = (await session.read_resource(f"cc-executor://runs/{run_id}/journal")).contents
        assert isinstance(content, types.TextResourceContents), content.mime_type
        assert set(content.text) == {"€"}
        meta = content.meta or {}
        assert meta["cc-executor/size"] - meta["cc-executor/offset"] == 3 * len(content.text)

    asked(server, work)


def test_what_was_removed_is_not_told_as_nothing(server: Server) -> None:
    async def work(session: ClientSession) -> None:
        run_id = await in_bash(session, "echo hello")
        await ended(session, run_id)
        prune(server, run_id)
        for name in ("status", "monitor"):
            wrong = (await tool(session, name, id=run_id))["error"]
            assert (wrong["kind"], "by `history prune`: the run's results" in wrong["message"]) == ("JournalRemoved", True), name
        with pytest.raises(MCPError, match="by `history prune`: the run's results"):
            await session.read_resource(f"cc-executor://runs/{run_id}/journal")
        assert (await tool(session, "results", id=run_id))["text"] == "hello\n"

    asked(server, work)


def test_a_run_that_waits_is_followed_from_before_it_begins(tmp_path: Path) -> None:
    updated: asyncio.Queue[str] = asyncio.Queue()

    async def told(message: Any) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            updated.put_nowait(message.params.uri)

    async def work(session: ClientSession) -> None:
        first = (await tool(session, "execute", prompt="sleep 600", agent="shell"))["id"]
        last, left = [(await tool(session, "execute", prompt="echo hello", agent="shell"))["id"] for _ in range(2)]
        waiting = await tool(session, "monitor", id=last)
        assert (waiting["status"], waiting["done"], waiting["events"]) == ("queued", False, [])
        for name in (last, left):
            await session.subscribe_resource(f"cc-executor://runs/{name}/receipt")
        assert "waits for its turn" in (await tool(session, "hook_status", id=last))["error"]["message"]
        await tool(session, "control", id=left, op="cancel")
        assert await asyncio.wait_for(updated.get(), BOUND) == f"cc-executor://runs/{left}/receipt"
        await tool(session, "control", id=first, op="kill")
        kinds: list[str] = []
        while not (heard := await tool(session, "monitor", id=last, after=len(kinds), wait=20))["done"]:
            kinds += [event["kind"] for event in heard["events"]]
        assert (kinds[0], kinds[-1]) == ("started", "exited")
        assert await asyncio.wait_for(updated.get(), BOUND) == f"cc-executor://runs/{last}/receipt"

    with serving(tmp_path, "--CCExecutorServer.max_running=1", "--CCExecutorServer.max_queued=2") as server:
        asked(server, work, message_handler=told)


def test_a_prompt_tells_an_agent_how_to_hand_on_a_task(server: Server) -> None:
    async def work(session: ClientSession) -> None:
        (prompt,) = (await session.list_prompts()).prompts
        assert prompt.name == "cc_execute"
        (message,) = (await session.get_prompt("cc_execute", {"task": "Count the files.", "agent": "shell"})).messages
        assert isinstance(message.content, types.TextContent)
        assert "Count the files." in message.content.text
        reference = types.PromptReference(type="ref/prompt", name="cc_execute")
        assert (await session.complete(reference, {"name": "agent", "value": "c"})).completion.values == ["claude"]
        with pytest.raises(MCPError, match="task is missing"):
            await session.get_prompt("cc_execute")

    asked(server, work)


def test_somebody_elses_runs_are_not_there(server: Server) -> None:
    run_id = server.client.post("/cc-executor/api/v1/execute", json={"prompt": "echo mine", "agent": "shell", "label": "hers"}).json()["id"]

    async def work(session: ClientSession) -> None:
        for name in ("status", "monitor", "results", "hook_status", "verify"):
            assert "no such execution" in (await tool(session, name, id=run_id))["error"]["message"]
        assert (await tool(session, "control", id=run_id, op="kill"))["error"]["kind"] == "RunNotFound"
        assert (await tool(session, "executions"))["executions"] == []
        assert (await tool(session, "history"))["runs"] == []
        assert [each.uri for each in (await session.list_resources()).resources] == ["cc-executor://config"]
        with pytest.raises(MCPError, match="no such resource"):
            await session.read_resource(f"cc-executor://runs/{run_id}/journal")
        reference = types.ResourceTemplateReference(type="ref/resource", uri="cc-executor://runs/{id}/receipt")
        assert (await session.complete(reference, {"name": "id", "value": ""})).completion.values == []

    asked(server, work, token=BOB)
