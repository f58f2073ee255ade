"""What becomes of a question that an MCP client was given: who is asked, what the form means, and who waits when none comes back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import anyio
import httpx2
import mcp_types as types
import pytest
from mcp.client.client import Client
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ResourceUpdated

from cc_executor.model.ask import Answer, Ask, Decision
from cc_executor.model.event import Option, PermissionAsked, Question, QuestionAsked
from cc_executor.runtime.answers import give, open_asks
from cc_executor.server.attendance import NOBODY
from cc_executor.server.mcpasks import answer_of, form_of
from support.mcp import BOUND, LOOKS, PATH, asked, ended, message, opened, people, said_in, tool
from support.served import TOKEN, Server, control, get, results, serving

LEAVE = PermissionAsked(ask_id="q", tool_id="t", name="Bash", input='{"command": "make"}')
PARTS = Question(text="Which parts?", multiple=True, options=(Option(label="Tables"), Option(label="Plots")))
QUESTIONS = QuestionAsked(ask_id="q", tool_id="t", questions=(Question(text="Which data?"), PARTS))


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        ({"decision": "allow", "reason": "typed, and then thought better of"}, Answer(decision=Decision.ALLOW)),
        ({"decision": "allow_run"}, Answer(decision=Decision.ALLOW_RUN)),
        ({"decision": "deny", "reason": "not now"}, Answer(decision=Decision.DENY, text="not now")),
        ({"decision": "Allow once"}, Answer(decision=Decision.DENY)),  # what is none of the words allows nothing
        ({"decision": ["allow"]}, Answer(decision=Decision.DENY)),
        ({"decision": True}, Answer(decision=Decision.DENY)),
        ({}, Answer(decision=Decision.DENY)),
        (None, Answer(decision=Decision.DENY)),
    ],
)
def test_only_the_words_of_the_form_give_leave(content: Any, answer: Answer) -> None:
    assert answer_of(LEAVE, types.ElicitResult.model_construct(action="accept", content=content)) == answer


def test_answers_come_in_the_order_of_the_questions() -> None:
    content = {"answer_2": ["Tables", "Plots"], "answer_1": 2025}
    said = answer_of(QUESTIONS, types.ElicitResult.model_construct(action="accept", content=content))
    assert said == Answer(decision=Decision.ANSWER, answers=("2025", "Tables, Plots"))
    half = answer_of(QUESTIONS, types.ElicitResult(action="accept", content={"answer_1": "2025"}))
    assert half.answers == ("2025", ""), "which no agent is told"


@pytest.mark.parametrize("ask", [LEAVE, QUESTIONS])
def test_declined_is_no_and_closed_is_nobodys_answer(ask: Ask) -> None:
    content = {"decision": "allow", "answer_1": "2025", "answer_2": "Tables"}
    assert answer_of(ask, types.ElicitResult.model_construct(action="decline", content=content)) == Answer(decision=Decision.DENY)
    assert answer_of(ask, types.ElicitResult.model_construct(action="cancel", content=content)) is NOBODY
    assert NOBODY.decision is Decision.REFUSED


# --- a real server and its clients --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("asks")
    with serving(folder, *people(folder)) as found:
        yield found


def receipt_of(server: Server, folder: Path, answer: Any) -> dict[str, Any]:
    """The receipt of a run that asks, started and followed by a client whose user does `answer`."""

    async def work(session: ClientSession) -> dict[str, Any]:
        options = {"rehearse": "question", "ask": True, "cwd": str(folder), "timeout": 60}
        run_id = (await tool(session, "execute", prompt="Ask.", **options))["id"]
        await ended(session, run_id)
        (content,) = (await session.read_resource(f"cc-executor://runs/{run_id}/receipt")).contents
        assert isinstance(content, types.TextResourceContents)
        return json.loads(content.text)

    return asked(server, work, elicitation_callback=answer)


def test_a_question_that_is_answered_elsewhere_is_taken_back_from_the_client(server: Server, tmp_path: Path) -> None:
    forms: list[types.ElicitRequestFormParams] = []

    async def elsewhere(_: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        assert isinstance(params, types.ElicitRequestFormParams)
        forms.append(params)
        (folder,) = [run for run in server.home.runs() if run.run_id in params.message]
        (ask,) = await asyncio.to_thread(open_asks, folder)
        answer = Answer(decision=Decision.ANSWER, answers=("All years", "Plots"))
        await asyncio.to_thread(lambda: give(folder, ask, answer, by="terminal"))
        return await asyncio.Future()  # whoever sits there never says anything

    receipt = receipt_of(server, tmp_path, elsewhere)
    assert [(each["decision"], each["by"]) for each in receipt["asked"]] == [("answer", "terminal")]
    assert (receipt["outcome"]["kind"], len(forms)) == ("ok", 1)


@pytest.mark.parametrize(
    ("said", "decision", "note"),
    [
        (types.ElicitResult(action="accept", content={"answer_1": "2025 only", "answer_2": []}), "deny", "No answer was given."),
        (types.ErrorData(code=-32603, message="no window"), "refused", ""),
    ],
    ids=["half a form", "failed"],
)
def test_a_form_that_is_no_answer_leaves_nobody_waiting(
    server: Server, tmp_path: Path, said: types.ElicitResult | types.ErrorData, decision: str, note: str
) -> None:
    async def answer(*_: Any) -> types.ElicitResult | types.ErrorData:
        return said

    (question,) = receipt_of(server, tmp_path, answer)["asked"]
    assert (question["decision"], question["by"]) == (decision, "mcp")
    assert note in question["note"]


def test_a_client_that_follows_in_two_calls_is_asked_once(server: Server, tmp_path: Path) -> None:
    forms: list[types.ElicitRequestFormParams] = []

    async def work(session: ClientSession) -> None:
        run_id = (await tool(session, "execute", prompt="Ask.", rehearse="question", ask=True, cwd=str(tmp_path), timeout=60))["id"]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(tool(session, "status", id=run_id, offset=10**12, wait=40))
            await asyncio.wait_for(is_asked.wait(), BOUND)
            assert (await tool(session, "status", id=run_id, offset=10**12))["asks"] == 1
            assert (await tool(session, "monitor", id=run_id, after=10**6))["asks"] == 1
            may_answer.set()
        await ended(session, run_id)

    is_asked, may_answer = asyncio.Event(), asyncio.Event()

    async def answer(_: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        assert isinstance(params, types.ElicitRequestFormParams)
        forms.append(params)
        is_asked.set()
        await may_answer.wait()
        return types.ElicitResult(action="accept", content={"answer_1": "2025 only", "answer_2": ["Tables"]})

    asked(server, work, elicitation_callback=answer)
    assert len(forms) == 1


def test_a_client_that_can_ask_nobody_says_nothing_for_the_person_who_is_asked_elsewhere(server: Server, tmp_path: Path) -> None:
    options = {"prompt": "Ask.", "rehearse": "question", "ask": True, "cwd": str(tmp_path), "timeout": 60}
    run_id = server.client.post("/cc-executor/api/v1/execute", json=options).json()["id"]
    folder = server.home.find(run_id)

    async def work(session: ClientSession) -> None:
        while not (await tool(session, "status", id=run_id, offset=10**12, wait=1))["asks"]:
            pass
        assert (await tool(session, "monitor", id=run_id, after=10**6))["asks"] == 1
        (ask,) = await asyncio.to_thread(open_asks, folder)
        answer = Answer(decision=Decision.ANSWER, answers=("All years", "Plots"))
        await asyncio.to_thread(lambda: give(folder, ask, answer, by="view"))
        await ended(session, run_id)

    asked(server, work)
    receipt = folder.receipt()
    assert receipt is not None
    assert [(one.decision, one.by) for one in receipt.asked] == [("answer", "view")]


@pytest.mark.parametrize("is_new", [True, False])
def test_what_an_agents_form_does_not_require_the_clients_does_not_either(is_new: bool) -> None:
    form = form_of((Question(text="Who?"), Question(text="Team?", optional=True)), is_new=is_new)
    assert (list(form["properties"]), form["required"]) == (["answer_1", "answer_2"], ["answer_1"])


def test_a_client_that_has_given_up_its_call_is_asked_anew_when_it_follows_again(server: Server, tmp_path: Path) -> None:
    forms: list[types.ElicitRequestFormParams] = []

    async def work(session: ClientSession) -> None:
        run_id = (await tool(session, "execute", prompt="Ask.", rehearse="question", ask=True, cwd=str(tmp_path), timeout=60))["id"]
        with anyio.CancelScope() as given_up:
            scopes.append(given_up)
            await tool(session, "status", id=run_id, offset=10**12, wait=40)
        assert given_up.cancelled_caught
        await ended(session, run_id)

    scopes: list[anyio.CancelScope] = []

    async def answer(_: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        assert isinstance(params, types.ElicitRequestFormParams)
        forms.append(params)
        if len(forms) == 1:
            scopes[0].cancel()
            return await asyncio.Future()
        return types.ElicitResult(action="accept", content={"answer_1": "2025 only", "answer_2": ["Tables"]})

    asked(server, work, elicitation_callback=answer)
    assert len(forms) == 2


# --- who is asked ---


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
    with opened(server, elicitation={}) as client:  # it is gone without a word: its session stays
        with client.stream("POST", PATH, json=message("tools/call", 1, name="execute", arguments=options)) as answer:
            run_id = next(said_in(answer))["result"]["structuredContent"]["id"]
        call = message("tools/call", 2, name="status", arguments={"id": run_id, "offset": 10**12, "wait": 40})
        with client.stream("POST", PATH, json=call) as answer:
            assert next(said_in(answer))["method"] == "elicitation/create"

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
                results(second, run_id)
                receipt = get(second, run_id, "receipt")
                assert [(each["decision"], each["note"]) for each in receipt["asked"]] == [("refused", "client")]
        finally:
            control(second, run_id, "kill")


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
