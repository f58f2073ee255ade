"""What becomes of a question that an MCP client was given: what its form means, and who waits when none comes back. What is put to whom: test_mcp.py."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp.client.session import ClientSession

from cc_executor.model.ask import Answer, Ask, Decision
from cc_executor.model.event import Option, PermissionAsked, Question, QuestionAsked
from cc_executor.runtime.answers import give, open_asks
from cc_executor.server.attendance import NOBODY
from cc_executor.server.mcpasks import answer_of
from support.mcp import BOUND, asked, ended, tool
from support.served import Server, serving

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
    with serving(tmp_path_factory.mktemp("mcp")) as found:
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
