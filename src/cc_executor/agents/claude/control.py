"""The CLI's control protocol, as far as a person takes part in it: what it asks on stdout as events, and prompts and answers as lines for its stdin.

The CLI asks with ``control_request`` and waits, without a limit of its own, for the ``control_response`` of the same id (2.1.197 and 2.1.329, recordings
10a, 10e, 10f, 10m). One malformed line on its stdin ends it (10i), so every line is made here, by an encoder. Its stdin has to be closed when it has said
its last word; else it waits for another prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Final, cast

import msgspec

from cc_executor.agents.claude import frames
from cc_executor.agents.claude.closing import json_text
from cc_executor.model import toolcall
from cc_executor.model.ask import ASK_USER, REASON_CHARS, Answer, Ask, Decision
from cc_executor.model.event import AgentEvent, HostAsked, Option, PermissionAsked, Question, QuestionAsked

INPUT: Final = "--input-format=stream-json"
ASKS: Final = "--permission-prompt-tool=stdio"
# How the lines begin that ask, and that take a question back; its id follows. So in every one of the recordings.
ASKED: Final = ('{"type":"control_request","request_id":"',)
WITHDRAWN: Final = ('{"type":"control_cancel_request","request_id":"',)

QUESTIONS_LIMIT: Final = 20  # of one ask; the CLI's own tool takes four
# Bytes of a tool's input that are sent back with a leave. 2.1.329 does without, 2.1.197's schema wants it; and a request to the supervisor holds 1 MiB, in
# which a letter beyond ASCII takes up to three times as much.
ECHO_LIMIT: Final = 256 * 1024
# What the supervisor writes in the place of a secret: an input with that in it is not the one that was asked about.
MASK: Final = "[masked]"
# The tools that `acceptEdits` is about.
EDITS: Final = frozenset({"Write", "Edit", "MultiEdit", "NotebookEdit"})
# The types of a form's fields that take no text. A text of digits is left as it is: a postal code is no number.
_TYPED: Final = ("boolean", "integer", "number")
NO_REASON: Final = "The user did not allow this. Go on without it, or ask what to do instead."

_MODE_WORDS: Final[Mapping[str, str]] = MappingProxyType({"acceptEdits": "all edits in this folder"})

# Made while the module is imported: two threads that are the first to need one at the same time crash msgspec 0.22 (41 of 60 processes).
_QUESTIONS: Final = msgspec.json.Decoder(frames.UserQuestions)


def prompt_line(prompt: str) -> bytes:
    """The prompt as the CLI takes it where its stdin stays open."""
    message = {"type": "user", "message": {"role": "user", "content": prompt}, "parent_tool_use_id": None, "session_id": ""}
    return msgspec.json.encode(message) + b"\n"


# --- what it asks -------------------------------------------------------------------------------------------------------


def asked(frame: frames.ControlRequestLine) -> AgentEvent:
    """The event of a request; one that nobody here can meet is a `HostAsked`."""
    ask, ask_id = frame.request, frame.request_id
    if ask.subtype == "elicitation":
        questions = _fields(ask.message, ask.requested_schema, url=ask.url)
        return QuestionAsked(ask_id=ask_id, questions=questions, source=ask.mcp_server_name or "an MCP server")
    if ask.subtype != "can_use_tool":
        return HostAsked(ask_id=ask_id, what=ask.subtype)
    source = json_text(ask.input)
    if ask.tool_name == ASK_USER and (questions := _questions(source)):
        return QuestionAsked(ask_id=ask_id, tool_id=ask.tool_use_id, questions=questions, input=source)
    suggestions = json_text(ask.permission_suggestions)
    return PermissionAsked(ask_id=ask_id, tool_id=ask.tool_use_id, name=ask.tool_name, input=source, suggestions=suggestions)


def _questions(source: str) -> tuple[Question, ...]:
    try:
        asked = _QUESTIONS.decode(source).questions
    except (msgspec.DecodeError, RecursionError):
        return ()
    return tuple(
        Question(
            text=one.question,
            header=one.header,
            options=tuple(Option(label=option.label, description=option.description) for option in one.options),
            multiple=one.multiSelect,
        )
        for one in asked[:QUESTIONS_LIMIT]
    )


def _choices(field: Mapping[str, object]) -> list[tuple[object, str]]:
    """The values that a field of a form may have, each with what it is called (modelcontextprotocol.io, 2025-06-18 and 2025-11-25)."""
    if field.get("type") == "boolean":
        return [("true", ""), ("false", "")]
    values, names = _listed(field.get("enum")), _listed(field.get("enumNames"))
    if len(names) != len(values):
        names = [""] * len(values)
    titled = [cast("dict[str, object]", each) for key in ("oneOf", "anyOf") for each in _listed(field.get(key)) if isinstance(each, dict)]
    return [
        *((value, str(name)) for value, name in zip(values, names, strict=True)),
        *((each["const"], str(each.get("title", ""))) for each in titled if "const" in each),
    ]


def _listed(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []


def _fields(message: str, schema: msgspec.Raw, *, url: str) -> tuple[Question, ...]:
    """What an MCP server wants to know: a flat form, each field of which is a question; or nothing but a yes."""
    form: dict[str, Any] = {}
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # no schema, or one that is none
        form = msgspec.json.decode(schema, type=dict[str, Any])
    properties, required = form.get("properties"), _listed(form.get("required"))
    fields = cast("dict[str, object]", properties) if isinstance(properties, dict) else {}
    if not fields:
        yes = Option(label="Yes", description=url)
        return (Question(text=message, options=(yes,)),)
    found: list[Question] = []
    for name, field in list(fields.items())[:QUESTIONS_LIMIT]:
        known = cast("dict[str, object]", field) if isinstance(field, dict) else {}
        about = str(known.get("title") or known.get("description") or name)
        items = known.get("items")
        several = _choices(cast("dict[str, object]", items)) if known.get("type") == "array" and isinstance(items, dict) else []
        choices = several or _choices(known)
        found.append(
            Question(
                text=f"{message} — {about}" if not found else about,
                name=name,
                optional=name not in required,
                typed=known.get("type") in _TYPED or any(not isinstance(value, str) for value, _ in choices),
                options=tuple(Option(label=str(value), description=title) for value, title in choices),
                multiple=bool(several),
            )
        )
    return tuple(found)


# --- what it is told ----------------------------------------------------------------------------------------------------


def answer_line(ask: Ask, answer: Answer) -> str:
    """The line that answers `ask`.

    Raises
    ------
    ValueError
        `answer` is none to this question; the message says what would be.
    """
    return _success(ask.ask_id, _permitted(ask, answer) if isinstance(ask, PermissionAsked) else _told(ask, answer))


def unsupported_line(ask: HostAsked) -> str:
    """The line that says that there is no answer to such a request."""
    error = f"cc_executor does not offer {ask.what}"
    return _line({"subtype": "error", "request_id": ask.ask_id, "error": error})


def _permitted(ask: PermissionAsked, answer: Answer) -> dict[str, Any]:
    match answer.decision:
        case Decision.ALLOW:
            return {"behavior": "allow", **_echo(ask.input)}
        case Decision.ALLOW_RUN:
            return {"behavior": "allow", **_echo(ask.input), "updatedPermissions": rules_for_run(ask)}
        case Decision.DENY | Decision.REFUSED:
            return _denied(answer)
        case Decision.ANSWER:
            raise ValueError("it asks for leave: allow, allow it for this run, or deny it")


def _told(ask: QuestionAsked, answer: Answer) -> dict[str, Any]:
    is_form = not ask.tool_id
    match answer.decision:
        case Decision.DENY | Decision.REFUSED:
            return {"action": "decline"} if is_form else _denied(answer)
        case Decision.ALLOW | Decision.ALLOW_RUN:
            raise ValueError("it asks a question: answer it, or deny it")
        case Decision.ANSWER:
            pass
    pairs = list(zip(ask.questions, answer.answers, strict=False))
    if len(answer.answers) != len(ask.questions) or not all(text.strip() or question.optional for question, text in pairs):
        empty = ", an empty one where it is optional" if any(question.optional for question in ask.questions) else ""
        raise ValueError(f"it asks {len(ask.questions)}: give one answer for each{empty}")
    if is_form:
        content = {question.name: _content(question, text) for question, text in pairs if question.name and text.strip()}
        return {"action": "accept", "content": content}
    known = toolcall.fields(ask.input) or {}
    return {"behavior": "allow", "updatedInput": {**known, "answers": {question.text: text for question, text in pairs}}}


def _content(question: Question, text: str) -> object:
    """What a field of a form is given for an answer. Several choices stand in it as in the agent's own questions, with a comma and a space between them."""
    if question.multiple:
        return [_typed(each) if question.typed else each for each in _chosen(question, text)]
    return _typed(text) if question.typed else text


def _chosen(question: Question, text: str) -> list[str]:
    labels = sorted((option.label for option in question.options), key=len, reverse=True)  # a label may hold a comma itself
    found: list[str] = []
    rest = f"{text}, "
    while rest:
        label = next((each for each in labels if rest.startswith(f"{each}, ")), None)
        if label is None:
            raise ValueError(f"it asks for one or more of: {', '.join(option.label for option in question.options)}")
        found.append(label)
        rest = rest.removeprefix(f"{label}, ")
    return found


def _typed(text: str) -> object:
    """The number or boolean that `text` means; itself, if it means none."""
    try:
        value: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
    return value if isinstance(value, bool | int | float) else text


def _denied(answer: Answer) -> dict[str, Any]:
    return {"behavior": "deny", "message": answer.text[:REASON_CHARS] or NO_REASON}


def _echo(source: str) -> dict[str, Any]:
    if MASK in source or len(source.encode()) > ECHO_LIMIT or toolcall.fields(source) is None:
        return {}
    return {"updatedInput": msgspec.Raw(source.encode())}


def rules_for_run(ask: PermissionAsked) -> list[dict[str, Any]]:
    """What an agent that may do this for the rest of the run is told: the rules that it proposes itself, else the tool as a whole.

    All of them are for its session. As the CLI proposes them, some would be written into the folder's own settings, for good.
    """
    proposed = _proposed(ask)
    rules = [each for each in proposed if each.get("type") == "addRules" and each.get("behavior") == "allow"]
    if not rules and ask.name in EDITS:
        rules = [each for each in proposed if each.get("type") == "setMode" and each.get("mode") in _MODE_WORDS]
    if not rules:
        rules = [{"type": "addRules", "rules": [{"toolName": ask.name}], "behavior": "allow"}]
    return [{**each, "destination": "session"} for each in rules]


def scope_words(ask: PermissionAsked) -> str:
    """What `rules_for_run` allows, for people."""
    said: list[str] = []
    for each in rules_for_run(ask):
        if each.get("type") == "setMode":
            said.append(_MODE_WORDS[str(each.get("mode"))])
        rules = each.get("rules")
        for rule in cast("list[object]", rules) if isinstance(rules, list) else []:
            known = cast("dict[str, object]", rule) if isinstance(rule, dict) else {}
            content = known.get("ruleContent")
            said.append(f"{known.get('toolName', ask.name)}({content})" if content else f"every {known.get('toolName', ask.name)}")
    return ", ".join(said)


def _proposed(ask: PermissionAsked) -> list[dict[str, Any]]:
    try:
        return msgspec.json.decode(ask.suggestions, type=list[dict[str, Any]])
    except (msgspec.DecodeError, RecursionError):
        return []


def _success(ask_id: str, response: dict[str, Any]) -> str:
    return _line({"subtype": "success", "request_id": ask_id, "response": response})


def _line(response: dict[str, Any]) -> str:
    return msgspec.json.encode({"type": "control_response", "response": response}).decode()
