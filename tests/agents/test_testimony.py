from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_executor.agents.claude.testimony import agrees, difference, statement
from support.environments import CHECKOUT

RECORDINGS = CHECKOUT / "tests" / "recordings"


def line(**changes: Any) -> bytes:
    told: dict[str, Any] = {
        "type": "assistant",
        "uuid": "u-1",
        "request_id": "req-1",
        "parent_tool_use_id": None,
        "message": {"id": "msg-1", "model": "claude-opus-4-8", "role": "assistant", "content": [{"type": "text", "text": "Hello."}]},
    }
    return json.dumps(told | changes).encode()


def as_transcript(stream: bytes, **changes: Any) -> bytes:
    """The same line as the CLI writes it in the transcript."""
    told = json.loads(stream)
    told["requestId"] = told.pop("request_id", None)
    told |= {"parentUuid": "u-0", "isSidechain": False, "sessionId": "s"}
    return json.dumps(told | changes).encode()


def test_stream_and_transcript_are_understood_alike() -> None:
    said, told = statement(line()), statement(as_transcript(line()))
    assert said is not None
    assert told is not None
    assert said.request_id == told.request_id == "req-1"
    assert difference(said, told, mask="[masked]") is None


def test_a_bare_text_is_the_block_that_it_stands_for() -> None:
    said = statement(line(type="user", message={"role": "user", "content": [{"type": "text", "text": "[Request interrupted by user]"}]}))
    told = statement(as_transcript(line(type="user", message={"role": "user", "content": "[Request interrupted by user]"})))
    assert said is not None
    assert told is not None
    assert difference(said, told, mask="[masked]") is None


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"message": {"id": "msg-1", "content": [{"type": "text", "text": "Hello!"}]}}, "content"),
        ({"message": {"id": "msg-2", "content": [{"type": "text", "text": "Hello."}]}}, "message id"),
        ({"requestId": "req-2"}, "request id"),
        ({"type": "user"}, "kind"),
    ],
)
def test_a_difference_is_named(changes: dict[str, Any], what: str) -> None:
    said, told = statement(line()), statement(as_transcript(line(), **changes))
    assert said is not None
    assert told is not None
    assert difference(said, told, mask="[masked]") == what


@pytest.mark.parametrize(
    "made_up",
    [
        line(message={"id": "u", "model": "<synthetic>", "content": [{"type": "text", "text": "Not logged in"}]}),
        line(type="user", isSynthetic=True),
        line(type="user", isReplay=True),
        line(type="result"),
        line(uuid=""),
        line(message=None),
        b"",
        b"{",
        b'{"type": "assistant"',
        b"[" * 10_000 + b'"assistant"',
        line().replace(b"Hello.", b"Hello \xff"),  # a transcript after a power cut
        line().replace(b"msg-1", b"msg-\xff"),
    ],
)
def test_what_the_cli_makes_up_and_what_is_no_message_is_no_statement(made_up: bytes) -> None:
    assert statement(made_up) is None


def test_every_recorded_message_is_a_statement() -> None:
    found = 0
    for path in sorted(RECORDINGS.glob("0*.jsonl")):
        for raw in path.read_bytes().split(b"\n"):
            try:
                told = json.loads(raw)
            except ValueError:
                continue
            if told.get("type") != "assistant" or told["message"].get("model") == "<synthetic>":
                continue
            said = statement(raw)
            assert said is not None, path.name
            assert (said.uuid, said.message_id, said.request_id) == (told["uuid"], told["message"]["id"], told.get("request_id")), path.name
            found += 1
    assert found > 50


@given(parts=st.lists(st.text(max_size=5), min_size=2, max_size=4), secrets=st.lists(st.text(max_size=5), min_size=4, max_size=4))
def test_a_mask_stands_for_any_text(parts: list[str], secrets: list[str]) -> None:
    plain = parts[0] + "".join(secret + part for secret, part in zip(secrets, parts[1:], strict=False))
    assert agrees({"a": ["[masked]".join(parts)]}, {"a": [plain]}, mask="[masked]")


def test_around_a_mask_the_text_must_be_the_same() -> None:
    assert agrees("key=[masked], end", "key=sk-ant-123, end", mask="[masked]")
    assert not agrees("key=[masked], end", "kez=sk-ant-123, end", mask="[masked]")
    assert not agrees("key=[masked], end", "key=sk-ant-123, END", mask="[masked]")
    assert not agrees("ab[masked]bc", "abc", mask="[masked]")
    assert not agrees("key=sk-ant-123", "key=[masked]", mask="[masked]")


@pytest.mark.parametrize(
    ("said", "other"),
    [
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, [1]),
        ([1], {"a": 1}),
        ([1], [1, 2]),
        ([1, 2], [1]),
        ([1], "1"),
        ("1", [1]),
        ("1", 1),
        (1, "1"),
        (1, 2),
        (None, 0),
        ("a[masked]b[masked]c", "a x c"),
    ],
)
def test_what_is_not_the_same_does_not_agree(said: Any, other: Any) -> None:
    assert agrees(said, said, mask="[masked]")
    assert not agrees(said, other, mask="[masked]")
    assert not agrees([{"deep": said}], [{"deep": other}], mask="[masked]")


def test_however_deep_two_values_are_they_are_compared() -> None:
    def nested(inmost: str) -> Any:
        value: Any = inmost
        for _ in range(5_000):
            value = [{"in": value}]
        return value

    assert agrees(nested("[masked]"), nested("sk-ant-123"), mask="[masked]")
    assert not agrees(nested("a"), nested("b"), mask="[masked]")
