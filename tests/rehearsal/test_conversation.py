"""Which request is which, and which turn it asks for."""

from __future__ import annotations

from typing import Any

from cc_executor.rehearsal.conversation import Conversations, Kind, Place, read

SYSTEM = [
    {"type": "text", "text": "You are a Claude agent, built on Anthropic's Claude Agent SDK."},
    {"type": "text", "text": "You are an agent"},
]
TOOLS = [{"name": "Bash", "input_schema": {"type": "object"}}]
SESSION = {"x-claude-code-session-id": "one"}


def body(*texts: str, **more: Any) -> dict[str, Any]:
    """A main conversation: user and assistant in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[index % 2], "content": [{"type": "text", "text": text}]} for index, text in enumerate(texts)]
    return {"model": "m", "stream": True, "system": SYSTEM, "tools": TOOLS, "thinking": {"type": "adaptive"}, "messages": messages, **more}


def place(conversations: Conversations, request: dict[str, Any], **headers: str) -> Place:
    return conversations.place(read(request, SESSION | {name.replace("_", "-"): value for name, value in headers.items()}))


def test_a_turn_is_known_by_the_answers_that_the_request_holds() -> None:
    conversations = Conversations()
    assert place(conversations, body("p")) == Place(Kind.MAIN, 0, 1)
    assert place(conversations, body("p", "a", "r")) == Place(Kind.MAIN, 1, 1)
    assert place(conversations, body("p", "a", "r", "b", "s")) == Place(Kind.MAIN, 2, 1)


def test_a_repeated_request_is_another_attempt_at_the_same_turn() -> None:
    conversations = Conversations()
    assert [place(conversations, body("p")).attempt for _ in range(3)] == [1, 2, 3]
    assert place(conversations, body("p", stream=False)) == Place(Kind.MAIN, 0, 4)
    assert place(conversations, body("p", "a", "r")) == Place(Kind.MAIN, 1, 1)


def test_a_resumed_session_begins_the_script_again_on_a_new_server() -> None:
    assert place(Conversations(), body("p", "a", "next")) == Place(Kind.MAIN, 0, 1)


def test_sessions_do_not_share_turns() -> None:
    conversations = Conversations()
    place(conversations, body("p"))
    other = read(body("p"), {"x-claude-code-session-id": "two"})
    assert conversations.place(other) == Place(Kind.MAIN, 0, 1)


def test_helpers_of_the_cli_consume_no_turn() -> None:
    conversations = Conversations()
    place(conversations, body("p"))
    searching = {"system": [SYSTEM[0], {"type": "text", "text": "You run a web search"}], "thinking": None}
    helpers = [
        body("title?", output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}}),
        body("choose", tool_choice={"type": "tool", "name": "Bash"}),
        body("classify", stop_sequences=["</block>"]),
        body("Perform a web search", tools=[{"type": "web_search_20250305", "name": "web_search"}], **searching),
    ]
    assert [place(conversations, helper) for helper in helpers] == [Place(Kind.AUXILIARY)] * 4
    assert place(conversations, body("p"), x_claude_code_agent_id="a1") == Place(Kind.SUBAGENT)
    assert place(conversations, body("p"), x_claude_code_request_class="auxiliary") == Place(Kind.AUXILIARY)
    assert place(conversations, body("p", "a", "CRITICAL: Respond with TEXT ONLY. Do NOT call any tools.\n\nSummarise")) == Place(
        Kind.COMPACTION
    )
    assert place(conversations, body("p")) == Place(Kind.MAIN, 0, 2)


def test_a_compacted_conversation_goes_on() -> None:
    conversations = Conversations()
    place(conversations, body("p"))
    assert place(conversations, body("This session is being continued", "a", "r")) == Place(Kind.MAIN, 1, 1)


def test_the_reminders_before_the_prompt_may_change() -> None:
    conversations = Conversations()
    place(conversations, body("p"))
    reminded = body("p", system="other")
    reminded["messages"][0]["content"].insert(0, {"type": "text", "text": "<system-reminder>x</system-reminder>"})
    assert place(conversations, reminded) == Place(Kind.MAIN, 0, 2)


def test_an_odd_request_is_still_understood() -> None:
    for odd in ({}, {"messages": 3, "tools": [1], "system": 7, "tool_choice": []}, {"messages": [None, {"role": "assistant"}]}):
        assert read(odd, {}).kind is Kind.MAIN


def test_a_thousand_sessions_do_not_pile_up() -> None:
    conversations = Conversations()
    for number in range(1000):
        conversations.place(read(body("p"), {"x-claude-code-session-id": str(number)}))
    assert conversations.place(read(body("p"), {"x-claude-code-session-id": "999"})) == Place(Kind.MAIN, 0, 2)
    assert conversations.place(read(body("p"), {"x-claude-code-session-id": "0"})) == Place(Kind.MAIN, 0, 1)
