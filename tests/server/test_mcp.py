"""The runs as tools, asked for by the protocol's own client at a real `jupyter server` on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import httpx2
import mcp_types as types
import pytest
from mcp.client.client import Client
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ResourceUpdated
from mcp.shared.exceptions import MCPError

from cc_executor.policy.predict import LEAST
from cc_executor.server.mcphttp import SHARE
from cc_executor.shim import records
from support.looks import eventually
from support.mcp import BOB, BOUND, LOOKS, PATH, asked, claude_uses, ended, people, tool
from support.served import TOKEN, Server, control, get, prune, serving
from support.served import results as ended_results

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
        started = await tool(session, "execute", prompt="echo one; sleep 0.3; echo two", agent="shell", shell="bash")  # noqa: S604 - an option of a run, no call of a process
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
            told = await tool(session, "status", id=run_id)
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
    assert "from the inner run" in results["text"], "it has read what the other agent has written"
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
        run_id = (await tool(session, "execute", prompt=script, agent="shell", shell="bash"))["id"]  # noqa: S604 - an option of a run, no call of a process
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
        run_id = (await tool(session, "execute", prompt="seq 60000; printf '\\303\\251'", agent="shell", shell="bash"))["id"]  # noqa: S604 - an option of a run, no call of a process
        await ended(session, run_id)
        (content,) = (await session.read_resource(f"cc-executor://runs/{run_id}/journal")).contents
        assert isinstance(content, types.TextResourceContents)
        whole = "".join(f"{number}\n" for number in range(1, 60001)) + "é"
        meta = content.meta or {}
        assert meta["cc-executor/size"] == len(whole.encode())
        assert content.text == whole[meta["cc-executor/offset"] :], "the end, and it is said where that begins"

    asked(server, work)


def test_what_was_removed_is_not_told_as_nothing(server: Server) -> None:
    async def work(session: ClientSession) -> None:
        run_id = (await tool(session, "execute", prompt="echo hello", agent="shell", shell="bash"))["id"]  # noqa: S604 - an option of a run, no call of a process
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


# --- questions ---------------------------------------------------------------------------------------------------------


def _answering(forms: list[types.ElicitRequestFormParams]) -> Any:
    async def answer(_: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        assert isinstance(params, types.ElicitRequestFormParams)
        forms.append(params)
        if "decision" in params.requested_schema["properties"]:
            is_file = "plan.md" in params.message
            return types.ElicitResult(action="accept", content={"decision": "allow" if is_file else "deny", "reason": "not now"})
        return types.ElicitResult(action="accept", content={"answer_1": "2025 only", "answer_2": ["Tables", "Plots"]})

    return answer


async def _receipt(session: ClientSession, run_id: str) -> dict[str, Any]:
    await ended(session, run_id)
    (content,) = (await session.read_resource(f"cc-executor://runs/{run_id}/receipt")).contents
    assert isinstance(content, types.TextResourceContents)
    return json.loads(content.text)


def test_what_an_agent_asks_is_put_to_the_person_behind_the_client(server: Server, tmp_path: Path) -> None:
    forms: list[types.ElicitRequestFormParams] = []

    async def work(session: ClientSession) -> dict[str, Any]:
        options = {"rehearse": "approval", "permission_mode": "default", "ask": True, "cwd": str(tmp_path), "timeout": 60}
        return await _receipt(session, (await tool(session, "execute", prompt="Ask.", **options))["id"])

    receipt = asked(server, work, elicitation_callback=_answering(forms))
    assert [(each["decision"], each["by"]) for each in receipt["asked"]] == [("allow", "mcp"), ("deny", "mcp"), ("deny", "mcp")]
    assert (tmp_path / "plan.md").exists()
    assert len(forms) == 3, "each is put once"
    assert "touch approved.txt" in forms[1].message
    assert not (tmp_path / "approved.txt").exists()


def test_the_newest_protocol_is_asked_and_told_in_its_own_way(server: Server, tmp_path: Path) -> None:
    """From 2026-07-28 on a server sends no requests: an answer asks for input, and a subscription is a request whose answer is a stream."""
    forms: list[types.ElicitRequestFormParams] = []

    async def work() -> dict[str, Any]:
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=BOUND, trust_env=False) as http:
            transport = streamable_http_client(f"{server.client.base_url}{PATH}", http_client=http)
            async with Client(transport, mode="2026-07-28", elicitation_callback=_answering(forms)) as client:
                arguments = {"prompt": "Ask.", "rehearse": "question", "ask": True, "cwd": str(tmp_path), "timeout": 60}
                run_id = ((await client.call_tool("execute", arguments)).structured_content or {})["id"]
                uri = f"cc-executor://runs/{run_id}/receipt"
                async with client.listen(resource_subscriptions=[uri]) as events:
                    told: dict[str, Any] = {"done": False}
                    while not told["done"]:
                        answer = await client.call_tool("status", {"id": run_id, "offset": 10**12, "wait": 20})
                        told = answer.structured_content or {}
                    assert await anext(aiter(events)) == ResourceUpdated(uri)
                (content,) = (await client.read_resource(uri)).contents
                assert isinstance(content, types.TextResourceContents)
                return json.loads(content.text)

    (question,) = asyncio.run(asyncio.wait_for(work(), BOUND))["asked"]
    assert (question["decision"], question["note"]) == ("answer", "2025 only · Tables, Plots")
    assert len(forms) == 1


def test_a_client_that_cannot_ask_anybody_has_it_refused_at_once(server: Server, tmp_path: Path) -> None:
    async def work(session: ClientSession) -> dict[str, Any]:
        options = {"rehearse": "question", "ask": True, "cwd": str(tmp_path), "timeout": 60}
        return await _receipt(session, (await tool(session, "execute", prompt="Ask.", **options))["id"])

    (question,) = asked(server, work)["asked"]
    assert (question["decision"], question["note"]) == ("refused", "client")


def test_a_question_that_a_client_has_left_open_is_put_to_the_next_one(server: Server, tmp_path: Path) -> None:
    forms: list[types.ElicitRequestFormParams] = []
    options = {"prompt": "Ask.", "rehearse": "question", "ask": True, "cwd": str(tmp_path), "timeout": 60}
    with _opened(server, elicitation={}) as client:  # it is gone without a word: its session stays
        with client.stream("POST", PATH, json=_message("tools/call", 1, name="execute", arguments=options)) as answer:
            run_id = next(_results(answer))["result"]["structuredContent"]["id"]
        call = _message("tools/call", 2, name="status", arguments={"id": run_id, "offset": 10**12, "wait": 40})
        with client.stream("POST", PATH, json=call) as answer:
            assert next(_results(answer))["method"] == "elicitation/create"

    async def follow(session: ClientSession) -> dict[str, Any]:
        return await _receipt(session, run_id)

    (question,) = asked(server, follow, elicitation_callback=_answering(forms))["asked"]
    assert (question["decision"], question["by"], len(forms)) == ("answer", "mcp", 1)


ASKS_LATER: Final = """
description = "waits for a file, then asks"

[[turn]]
[[turn.block]]
tool = "Bash"
input = {{ command = "until [ -e {go} ]; do sleep 0.05; done" }}

[[turn]]
[[turn.block]]
tool = "AskUserQuestion"
[[turn.block.input.questions]]
question = "Go on?"
header = "On"
options = [{{ label = "2025 only", description = "on" }}, {{ label = "no", description = "off" }}]

[[turn]]
[[turn.block]]
text = "I know now."
"""


@pytest.mark.parametrize("can_ask", [False, True])
def test_questions_that_come_after_a_restart_of_the_server_are_looked_after_as_before(tmp_path: Path, *, can_ask: bool) -> None:
    """Nobody else would: the run has no wall clock."""
    go, script = tmp_path / "go", tmp_path / "asks-later.toml"
    script.write_text(ASKS_LATER.format(go=go), encoding="utf-8")
    options = {"prompt": "Ask.", "rehearse": str(script), "ask": True, "cwd": str(tmp_path), "tools": "Bash"}
    forms: list[types.ElicitRequestFormParams] = []
    answers = {"elicitation_callback": _answering(forms)} if can_ask else {}

    async def begin(session: ClientSession) -> str:
        return (await tool(session, "execute", **options))["id"]

    with serving(tmp_path / "first") as first:
        run_id = asked(first, begin, **answers)
        os.killpg(first.process.pid, signal.SIGKILL)
        first.process.wait(BOUND)
    with serving(tmp_path / "second", state=first.home.root) as second:
        go.touch()
        try:
            if can_ask:  # the person who follows it is not answered for
                receipt = asked(second, lambda session: _receipt(session, run_id), **answers)
                assert [(each["decision"], each["by"]) for each in receipt["asked"]] == [("answer", "mcp")]
                assert len(forms) == 1
            else:  # nobody follows it
                ended_results(second, run_id)
                receipt = get(second, run_id, "receipt")
                assert [(each["decision"], each["note"]) for each in receipt["asked"]] == [("refused", "client")]
        finally:
            control(second, run_id, "kill")


def test_a_server_that_ends_complains_of_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as server, _opened(server) as client, client.stream("GET", PATH) as listening:
        assert listening.status_code == 200
        assert client.post(PATH, json=_message("tools/list")).status_code == 200
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(BOUND)
        assert not [line for line in server.log.splitlines() if "Traceback" in line or "Task was destroyed" in line], server.log


# --- sessions ----------------------------------------------------------------------------------------------------------


def _message(method: str, number: int = 1, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def _open(client: httpx.Client, capabilities: dict[str, Any] | None = None, /, **headers: str) -> httpx.Response:
    about = {"protocolVersion": "2025-11-25", "capabilities": capabilities or {}, "clientInfo": {"name": "test", "version": "0"}}
    return client.post(PATH, json=_message("initialize", **about), headers=headers)


@contextlib.contextmanager
def _opened(server: Server, **capabilities: Any) -> Iterator[httpx.Client]:
    """A client with a session, by hand."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Accept": "application/json, text/event-stream"}
    with httpx.Client(base_url=server.client.base_url, headers=headers, timeout=BOUND, trust_env=False) as client:
        answer = _open(client, capabilities)
        assert answer.status_code == 200, answer.text
        client.headers.update({"Mcp-Session-Id": answer.headers["mcp-session-id"], "MCP-Protocol-Version": "2025-11-25"})
        assert client.post(PATH, json={"jsonrpc": "2.0", "method": "notifications/initialized"}).status_code == 202
        yield client


def _events(answer: httpx.Response) -> Iterator[tuple[str, str]]:
    """Ids and data of server-sent events."""
    number = ""
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if name == "id":
            number = value
        elif name == "data":
            yield number, value


def _results(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    """What is said in a stream, without signs of life and what is told by the way."""
    messages = (json.loads(data) for _, data in _events(answer) if data)
    return (message for message in messages if not message.get("method", "").startswith("notifications/"))


def _missed(client: httpx.Client, number: str) -> dict[str, Any]:
    """What was said on a stream after one event. Who hears nothing comes back for it.

    What is said in the very moment in which a stream is taken up again the SDK (2.3) keeps, and does not send to that one.
    """

    def asked_for() -> dict[str, Any] | None:
        patience = httpx.Timeout(BOUND, read=5)
        with (
            contextlib.suppress(httpx.ReadTimeout),
            client.stream("GET", PATH, headers={"Last-Event-ID": number}, timeout=patience) as answer,
        ):
            return next(_results(answer), None)
        return None

    return eventually(asked_for, within=BOUND, what="the answer is given again")


def test_an_answer_that_was_missed_is_given_again(server: Server) -> None:
    with _opened(server) as client:
        run_id = server.client.post("/cc-executor/api/v1/execute", json={"prompt": "sleep 1", "agent": "shell"}).json()["id"]
        call = _message("tools/call", 7, name="status", arguments={"id": run_id, "wait": 20})
        with client.stream("POST", PATH, json=call) as answer:
            number, data = next(_events(answer))
        assert data == "", "an event to come back to, before there is an answer; then the connection breaks"
        told = _missed(client, number)
        assert told["id"] == 7
        assert told["result"]["structuredContent"]["id"] == run_id


@pytest.mark.parametrize("name", ["status", "monitor", "list_status"])
def test_a_call_whose_client_has_left_waits_for_nothing_and_ends_no_run(server: Server, name: str) -> None:
    body = {"tasks": [{"run": "sleep 600"}]} if name == "list_status" else {"prompt": "sleep 600", "agent": "shell"}
    started = server.client.post("/cc-executor/api/v1/execute", json=body).raise_for_status().json()["id"]
    try:
        for each in ("tasks", "status") if name == "list_status" else ("status",):
            eventually(lambda each=each: "running" in str(get(server, started)[each]), within=BOUND, what="it runs")
        with _opened(server) as client:
            more = {"after": 100} if name == "monitor" else {}  # what has happened until now would be told at once
            call = _message("tools/call", 7, name=name, arguments={"id": started, "wait": 50, **more})
            with client.stream("POST", PATH, json=call) as answer:
                number, data = next(_events(answer))
            assert data == ""
            left_at = time.monotonic()
            told = _missed(client, number)
            assert time.monotonic() - left_at < 25, "it has not waited for all of its 50 s"
            assert not told["result"]["structuredContent"]["done"]
        assert get(server, started)["status"] == "running"
    finally:
        control(server, started, "kill")


def test_nobody_takes_over_somebody_elses_session_or_hears_its_answers(server: Server) -> None:
    with _opened(server) as client, _opened(server) as other:
        assert client.post(PATH, json=_message("tools/list", 5)).status_code == 200
        stolen = {"Authorization": f"Bearer {BOB}"}
        assert client.post(PATH, json=_message("tools/list"), headers=stolen).status_code == 404
        assert client.get(PATH, headers=stolen).status_code == 404
        assert client.delete(PATH, headers=stolen).status_code == 404
        assert client.post(PATH, json=_message("tools/list"), headers={"Authorization": ""}).status_code == 401
        assert client.post(PATH, json=_message("tools/list")).status_code == 200, "it is still its owner's"
        with other.stream("POST", PATH, json=_message("tools/list", 5)) as answer:
            own = [number for number, _ in _events(answer)]
        with other.stream("GET", PATH, headers={"Last-Event-ID": own[0]}) as answer:
            told = next(json.loads(data) for number, data in _events(answer) if data and number in own)
        assert told["id"] == 5
        assert client.delete(PATH).status_code == 200
        assert client.post(PATH, json=_message("tools/list")).status_code == 404


@pytest.mark.row(
    "threats", "one person who opens MCP sessions without end", "others get theirs; of one's own, the one that is idle for longest goes"
)
def test_nobody_takes_all_sessions(server: Server) -> None:
    accept = {"Accept": "application/json, text/event-stream"}
    with contextlib.ExitStack() as stack:
        own = [stack.enter_context(_opened(server)) for _ in range(SHARE)]
        assert own[0].post(PATH, json=_message("tools/list")).status_code == 200, "this one is not the idle one any more"
        more = stack.enter_context(_opened(server))
        gone = [client for client in own if client.post(PATH, json=_message("tools/list")).status_code == 404]
        assert gone == [own[1]]
        in_use = [client for client in [*own, more] if client is not own[1]]
        streams = [stack.enter_context(client.stream("GET", PATH)) for client in in_use]
        assert [stream.status_code for stream in streams] == [200] * SHARE
        refused = _open(server.client, **accept)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "10")
        assert "End a client" in refused.json()["error"]["message"]
        assert _open(server.client, **accept, Authorization=f"Bearer {BOB}").status_code == 200, "somebody else gets one"
        streams[5].close()
        eventually(
            lambda: _open(server.client, **accept).status_code == 200, within=BOUND, what="a session that nobody uses any more makes room"
        )
        assert in_use[5].post(PATH, json=_message("tools/list")).status_code == 404
        assert in_use[4].post(PATH, json=_message("tools/list")).status_code == 200


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


def test_who_may_only_look_starts_nothing_and_gives_no_leave(server: Server, tmp_path: Path) -> None:
    forms: list[types.ElicitRequestFormParams] = []
    options = {"rehearse": "question", "ask": True, "cwd": str(tmp_path), "timeout": 60}
    run_id = server.client.post("/cc-executor/api/v1/execute", json={"prompt": "Ask.", **options}).json()["id"]

    async def work(session: ClientSession) -> None:
        for name, arguments in (
            ("execute", {"prompt": "x"}),
            ("control", {"id": run_id, "op": "kill"}),
            ("execute_list", {"tasks": ["x"]}),
        ):
            assert (await tool(session, name, **arguments))["error"]["kind"] == "NotAllowed"
        told: dict[str, Any] = {"asks": 0}
        while not told["asks"]:
            told = await tool(session, "status", id=run_id, offset=10**12, wait=1)
        await tool(session, "monitor", id=run_id, after=10**6)

    try:
        asked(server, work, token=LOOKS, elicitation_callback=_answering(forms))
        assert not forms, "nobody was asked whose answer would not count"
    finally:
        server.client.post(f"/cc-executor/api/v1/executions/{run_id}/control", json={"op": "kill"})
