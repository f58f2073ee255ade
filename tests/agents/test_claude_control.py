"""The control protocol: what the CLI has asked in recordings, and lines that answer it; the real CLI takes them in tests/runtime/test_answers.py."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_executor.agents.claude import control
from cc_executor.agents.claude.command import ClaudeAgent
from cc_executor.agents.claude.decode import ClaudeDecoder
from cc_executor.model.ask import Answer, Decision
from cc_executor.model.event import AskWithdrawn, HostAsked, Option, PermissionAsked, Question, QuestionAsked
from cc_executor.model.request import RunRequest
from cc_executor.shim.door import REQUEST_LIMIT
from support.recordings import Recording

Json = dict[str, Any]
SESSION = "00000000-0000-4000-8000-000000000000"


def events_of(data: bytes) -> list[Any]:
    decoder = ClaudeDecoder()
    return [*decoder.feed(data), *decoder.close()]


def request(subtype: str, **fields: Any) -> bytes:
    return json.dumps({"type": "control_request", "request_id": "q1", "request": {"subtype": subtype, **fields}}).encode() + b"\n"


def permission(**fields: Any) -> PermissionAsked:
    (event,) = events_of(request("can_use_tool", **({"tool_name": "Bash", "tool_use_id": "t1", "input": {"command": "make"}} | fields)))
    assert isinstance(event, PermissionAsked)
    return event


def test_a_tool_with_questions_in_its_input_is_asked_about_as_every_tool() -> None:
    source = {"questions": [{"question": "Which?", "header": "h", "options": [], "multiSelect": False}]}
    assert permission(tool_name="mcp__x__publish", input=source).name == "mcp__x__publish"


def response(line: str) -> Json:
    assert "\n" not in line, "a line that is none ends the CLI"
    told = json.loads(line)
    assert told["type"] == "control_response"
    assert (told["response"]["subtype"], told["response"]["request_id"]) == ("success", "q1")
    return told["response"]["response"]


QUESTIONS = QuestionAsked(
    ask_id="q1",
    tool_id="t1",
    questions=(Question(text="Which?", options=(Option(label="A"),)), Question(text="How many?", multiple=True)),
    input='{"questions": [{"question": "Which?"}], "more": 1}',
)


def test_the_lines_that_ask_in_every_recording_begin_with_the_marks_and_the_id() -> None:
    asks = 0
    for name in (
        "10a-can-use-tool",
        "10e-interrupt-with-pending-permission",
        "10m-v329-can-use-tool-interrupt-state",
        "12e-hook-callbacks",
    ):
        for line in Recording(name).stdout.decode().splitlines():
            for kind, marks in (("control_request", control.ASKED), ("control_cancel_request", control.WITHDRAWN)):
                if json.loads(line)["type"] == kind:
                    asks += 1
                    (mark,) = marks
                    assert line.startswith(f'{mark}{json.loads(line)["request_id"]}"')
    assert asks >= 6


def test_a_recorded_request_keeps_what_is_needed_to_answer_it() -> None:
    asked = [event for event in events_of(Recording("10a-can-use-tool").stdout) if isinstance(event, PermissionAsked)]
    assert [ask.name for ask in asked] == ["Write", "Bash", "Bash"]
    assert [control.scope_words(ask) for ask in asked] == [
        "all edits in this folder", "Bash(touch b.txt), Bash(rm -f nothing)", "Bash(touch c.txt)",
    ]  # fmt: skip
    withdrawn = [event for event in events_of(Recording("10e-interrupt-with-pending-permission").stdout) if isinstance(event, AskWithdrawn)]
    assert [event.ask_id for event in withdrawn] == ["7ddd78b0-92e9-4094-9fb8-a491f9c50d25"]
    hosts = {event.what for event in events_of(Recording("12e-hook-callbacks").stdout) if isinstance(event, HostAsked)}
    assert hosts == {"hook_callback"}


def test_its_own_questions_are_told_whole_and_an_input_that_holds_none_is_a_call_like_others() -> None:
    option = {"label": "A", "description": "the first"}
    asked = {"question": "Which?", "header": "W", "options": [option, {"label": "B"}], "multiSelect": True}
    fields = {"tool_name": "AskUserQuestion", "tool_use_id": "t1"}
    (event,) = events_of(request("can_use_tool", **fields, input={"questions": [asked] * (control.QUESTIONS_LIMIT + 1)}))
    assert (event.ask_id, event.tool_id) == ("q1", "t1")
    options = (Option(label="A", description="the first"), Option(label="B"))
    assert event.questions == (Question(text="Which?", header="W", options=options, multiple=True),) * control.QUESTIONS_LIMIT
    for source in ({"questions": []}, {"questions": "Which?"}, {}):
        assert permission(**fields, input=source).name == "AskUserQuestion"


def test_leave_for_once_sends_the_very_input_back() -> None:
    ask = permission(input={"command": "make", "n": 1.50, "text": "ü\u2028"})
    told = response(control.answer_line(ask, Answer(decision=Decision.ALLOW)))
    assert told == {"behavior": "allow", "updatedInput": {"command": "make", "n": 1.50, "text": "ü\u2028"}}


@pytest.mark.parametrize(
    "source",
    [{"command": "curl -H [masked]"}, {"command": "x" * control.ECHO_LIMIT}, {"command": "語" * (control.ECHO_LIMIT // 2)}, ["make"]],
)
def test_an_input_that_is_not_the_one_that_was_asked_about_or_no_object_is_not_sent_back(source: Any) -> None:
    assert response(control.answer_line(permission(input=source), Answer(decision=Decision.ALLOW))) == {"behavior": "allow"}


@pytest.mark.parametrize("letter", ["a", '"', "é", "語", "😀"])
@pytest.mark.parametrize("size", [60_000, 85_000, 130_000, 260_000])
def test_leave_fits_into_a_request_to_the_supervisor_whatever_its_input_is_written_in(letter: str, size: int) -> None:
    ask = PermissionAsked(ask_id="q1", tool_id="t", name="Write", input=json.dumps({"content": letter * size}, ensure_ascii=False))
    line = control.answer_line(ask, Answer(decision=Decision.ALLOW))
    assert len(json.dumps({"op": "answer", "data": line})) < REQUEST_LIMIT


@pytest.mark.parametrize(
    ("name", "suggestions", "rules", "scope"),
    [
        ("WebFetch", [], [{"type": "addRules", "rules": [{"toolName": "WebFetch"}], "behavior": "allow"}], "every WebFetch"),
        ("WebFetch", "none", [{"type": "addRules", "rules": [{"toolName": "WebFetch"}], "behavior": "allow"}], "every WebFetch"),
        ("Write", [{"type": "setMode", "mode": "acceptEdits", "destination": "session"}], [{"type": "setMode", "mode": "acceptEdits"}],
         "all edits in this folder"),
        # The mode is the wider leave.
        ("Write", [{"type": "setMode", "mode": "acceptEdits"}, {"type": "addRules", "rules": [{"toolName": "Write", "ruleContent": "a"}], "behavior": "allow"}],
         [{"type": "addRules", "rules": [{"toolName": "Write", "ruleContent": "a"}], "behavior": "allow"}], "Write(a)"),
        # A mode that allows more than this tool, or a rule that would be kept for good, is not what "for this run" means.
        ("Bash", [{"type": "setMode", "mode": "acceptEdits"}], [{"type": "addRules", "rules": [{"toolName": "Bash"}], "behavior": "allow"}], "every Bash"),
        ("Write", [{"type": "setMode", "mode": "bypassPermissions"}], [{"type": "addRules", "rules": [{"toolName": "Write"}], "behavior": "allow"}],
         "every Write"),
        ("Bash", [{"type": "replaceRules", "rules": [{"toolName": "Bash"}], "behavior": "allow"}],
         [{"type": "addRules", "rules": [{"toolName": "Bash"}], "behavior": "allow"}], "every Bash"),
        (
            "Bash",
            [
                {"type": "addRules", "rules": [{"toolName": "Bash", "ruleContent": "make"}], "behavior": "allow", "destination": "localSettings"},
                {"type": "addDirectories", "directories": ["/"], "destination": "session"},
                {"type": "addRules", "rules": [{"toolName": "Read"}], "behavior": "deny"},
            ],
            [{"type": "addRules", "rules": [{"toolName": "Bash", "ruleContent": "make"}], "behavior": "allow"}],
            "Bash(make)",
        ),
    ],
)  # fmt: skip
def test_leave_for_the_run_is_the_rule_that_the_agent_proposes_and_ends_with_its_session(
    name: str, suggestions: Any, rules: Any, scope: str
) -> None:
    ask = permission(tool_name=name, permission_suggestions=suggestions)
    told = response(control.answer_line(ask, Answer(decision=Decision.ALLOW_RUN)))
    session = [{**rule, "destination": "session"} for rule in rules]
    assert told == {"behavior": "allow", "updatedInput": {"command": "make"}, "updatedPermissions": session}
    assert control.scope_words(ask) == scope, "people are told what it allows"


def test_no_says_why() -> None:
    assert response(control.answer_line(permission(), Answer(decision=Decision.DENY, text="Not on Fridays"))) == {
        "behavior": "deny", "message": "Not on Fridays",
    }  # fmt: skip
    assert response(control.answer_line(permission(), Answer(decision=Decision.DENY)))["message"] == control.NO_REASON


def test_answers_go_by_their_questions() -> None:
    told = response(control.answer_line(QUESTIONS, Answer(decision=Decision.ANSWER, answers=("A", "two"))))
    assert told == {
        "behavior": "allow",
        "updatedInput": {"questions": [{"question": "Which?"}], "more": 1, "answers": {"Which?": "A", "How many?": "two"}},
    }
    assert response(control.answer_line(QUESTIONS, Answer(decision=Decision.DENY)))["behavior"] == "deny"


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (QUESTIONS, Answer(decision=Decision.ANSWER, answers=("A",))),
        (QUESTIONS, Answer(decision=Decision.ANSWER, answers=("A", " "))),
        (QUESTIONS, Answer(decision=Decision.ALLOW)),
        (PermissionAsked(ask_id="q1", tool_id="t", name="Bash"), Answer(decision=Decision.ANSWER, answers=("yes",))),
    ],
)
def test_what_does_not_answer_the_question_is_refused(ask: Any, answer: Answer) -> None:
    with pytest.raises(ValueError, match=r"it asks"):
        control.answer_line(ask, answer)


def test_the_choices_of_a_form_have_their_names_and_several_may_be_taken() -> None:
    titled = [{"const": "s", "title": "Small"}, {"const": "l"}, "odd"]
    schema = {
        "properties": {
            "one": {"type": "string", "oneOf": titled},
            "old": {"type": "string", "enum": ["a", "b"], "enumNames": ["First", "Second"]},
            "many": {"type": "array", "items": {"anyOf": titled}},
            "sizes": {"type": "array", "items": {"enum": [1, 2, 12]}},
            "words": {"type": "array", "items": {"type": "string"}},
            "commas": {"type": "array", "items": {"type": "string", "enum": ["x", "y", "x, y"]}},
        }
    }
    (ask,) = events_of(request("elicitation", message="Which?", requested_schema=schema))
    assert isinstance(ask, QuestionAsked)
    assert [[(option.label, option.description) for option in question.options] for question in ask.questions] == [
        [("s", "Small"), ("l", "")], [("a", "First"), ("b", "Second")], [("s", "Small"), ("l", "")], [("1", ""), ("2", ""), ("12", "")], [],
        [("x", ""), ("y", ""), ("x, y", "")],
    ]  # fmt: skip
    assert [question.multiple for question in ask.questions] == [False, False, True, True, False, True]
    said = control.answer_line(ask, Answer(decision=Decision.ANSWER, answers=("l", "b", "l, s", "12, 1", "any", "x, y, x")))
    assert response(said)["content"] == {
        "one": "l",
        "old": "b",
        "many": ["l", "s"],
        "sizes": [12, 1],
        "words": "any",
        "commas": ["x, y", "x"],
    }
    with pytest.raises(ValueError, match=r"it asks for one or more of: 1, 2, 12"):
        control.answer_line(ask, Answer(decision=Decision.ANSWER, answers=("l", "b", "l", "3", "any", "x")))


def test_a_form_of_an_mcp_server_is_a_set_of_questions() -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "title": "Your name"},
            "sure": {"type": "boolean"},
            "n": {"enum": ["1", "2"]},
            "zip": {"type": "string", "description": "Where?"},
            "share": {"type": "number"},
            "size": {"enum": [1, 2]},
        },
    }
    (ask,) = events_of(request("elicitation", mcp_server_name="calendar", message="Who are you?", requested_schema=schema))
    assert isinstance(ask, QuestionAsked)
    assert ask.source == "calendar"
    assert [question.text for question in ask.questions] == ["Who are you? — Your name", "sure", "n", "Where?", "share", "size"]
    labels = [[option.label for option in question.options] for question in ask.questions]
    assert labels == [[], ["true", "false"], ["1", "2"], [], [], ["1", "2"]]
    told = response(control.answer_line(ask, Answer(decision=Decision.ANSWER, answers=("Ada", "true", "2", "10115", "0.5", "2"))))
    assert told == {"action": "accept", "content": {"name": "Ada", "sure": True, "n": "2", "zip": "10115", "share": 0.5, "size": 2}}
    deep = "[" * 2000  # as many characters as an answer may have
    said = control.answer_line(ask, Answer(decision=Decision.ANSWER, answers=("1", "yes", "1", "true", deep, "[1]")))
    assert response(said)["content"] == {"name": "1", "sure": "yes", "n": "1", "zip": "true", "share": deep, "size": "[1]"}
    assert response(control.answer_line(ask, Answer(decision=Decision.DENY))) == {"action": "decline"}

    (link,) = events_of(request("elicitation", mcp_server_name="calendar", message="Log in", mode="url", url="https://example.org/login"))
    assert [option.description for option in link.questions[0].options] == ["https://example.org/login"]
    assert response(control.answer_line(link, Answer(decision=Decision.ANSWER, answers=("Yes",)))) == {"action": "accept", "content": {}}


def test_what_a_form_does_not_require_may_be_left_empty() -> None:
    schema = {"properties": {"name": {"type": "string"}, "team": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name"]}
    (ask,) = events_of(request("elicitation", message="Who?", requested_schema=schema))
    assert isinstance(ask, QuestionAsked)
    assert [question.optional for question in ask.questions] == [False, True, True]
    told = response(control.answer_line(ask, Answer(decision=Decision.ANSWER, answers=("Ada", "", " "))))
    assert told == {"action": "accept", "content": {"name": "Ada"}}
    with pytest.raises(ValueError, match=r"it asks 3: give one answer for each, an empty one where it is optional"):
        control.answer_line(ask, Answer(decision=Decision.ANSWER, answers=("", "red", "7")))
    with pytest.raises(ValueError, match=r"it asks 3"):
        control.answer_line(ask, Answer(decision=Decision.ANSWER, answers=("Ada",)))


@pytest.mark.parametrize("schema", [{"properties": ["name"]}, {"properties": 1}, {"properties": {}}, [], None])
def test_a_form_without_fields_asks_for_a_yes(schema: Any) -> None:
    (ask,) = events_of(request("elicitation", message="May I?", requested_schema=schema))
    assert (ask.source, [(question.text, [option.label for option in question.options]) for question in ask.questions]) == (
        "an MCP server", [("May I?", ["Yes"])],
    )  # fmt: skip
    (torn,) = events_of(request("elicitation", message="May I?", requested_schema={"title": "ABC"}).replace(b"ABC", b"\xff"))
    assert isinstance(torn, QuestionAsked)
    assert torn.questions[0].options[0].label == "Yes"
    (odd,) = events_of(request("elicitation", message="Who?", requested_schema={"properties": {"name": "text"}}))
    assert [(question.text, question.name) for question in odd.questions] == [("Who? — name", "name")]


def test_what_nobody_can_answer_is_said_to_be_so() -> None:
    (ask,) = events_of(request("request_user_dialog", dialog="x"))
    assert isinstance(ask, HostAsked)
    told = json.loads(control.unsupported_line(ask))["response"]
    assert (told["subtype"], told["request_id"]) == ("error", "q1")
    assert "request_user_dialog" in told["error"]


@given(st.text())
def test_any_prompt_is_one_line_of_stdin(prompt: str) -> None:
    line = control.prompt_line(prompt.encode("utf-8", "replace").decode())
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line)["message"] == {"role": "user", "content": prompt.encode("utf-8", "replace").decode()}


def test_only_a_run_that_asks_gets_another_command_line() -> None:
    plain = ClaudeAgent().command(RunRequest(prompt="/hi", cwd="/"), executable="/claude", session_id=SESSION)
    asking = ClaudeAgent().command(RunRequest(prompt="/hi", cwd="/", ask=True), executable="/claude", session_id=SESSION)
    assert (plain.talk, plain.stdin) == (None, b"\n/hi")
    assert set(asking.argv) - set(plain.argv) == {control.INPUT, control.ASKS}
    assert asking.stdin == control.prompt_line("\n/hi")
    assert asking.talk is not None
    waiting = ClaudeAgent().command(RunRequest(prompt="/hi", cwd="/"), executable="/claude", session_id=SESSION, waits=True)
    assert set(waiting.argv) - set(plain.argv) == {control.INPUT}
    assert (waiting.stdin, waiting.talk) == (asking.stdin, asking.talk)
