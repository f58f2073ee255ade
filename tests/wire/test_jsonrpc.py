"""The whole error matrix of JSON-RPC 2.0, and anything at all as a message."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_executor.wire.jsonrpc import BATCH_LIMIT, Code, error, notification, parse, result

CALL = {"jsonrpc": "2.0", "id": 1, "method": "status", "params": {"id": "x"}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda part: st.lists(part) | st.dictionaries(st.text(), part),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("message", "code", "call_id"),
    [
        ("", Code.PARSE_ERROR, None),
        ("{", Code.PARSE_ERROR, None),
        ("[" * 100_000, Code.PARSE_ERROR, None),
        ("[]", Code.INVALID_REQUEST, None),
        ("1", Code.INVALID_REQUEST, None),
        ('"x"', Code.INVALID_REQUEST, None),
        ("null", Code.INVALID_REQUEST, None),
        (json.dumps({**CALL, "jsonrpc": "1.0"}), Code.INVALID_REQUEST, 1),
        (json.dumps({**CALL, "method": 5}), Code.INVALID_REQUEST, 1),
        (json.dumps({"id": 7}), Code.INVALID_REQUEST, 7),
        (json.dumps({**CALL, "id": [1]}), Code.INVALID_REQUEST, None),
        (json.dumps({**CALL, "id": True}), Code.INVALID_REQUEST, None),
        (json.dumps({**CALL, "id": float("nan")}), Code.INVALID_REQUEST, None),
        ('{"jsonrpc": "2.0", "id": 1e400, "method": "status"}', Code.INVALID_REQUEST, None),
        (json.dumps({**CALL, "id": 10**400, "params": 1}), Code.INVALID_PARAMS, 10**400),
        (json.dumps({**CALL, "params": [1, 2]}), Code.INVALID_PARAMS, 1),
        (json.dumps({**CALL, "params": "x"}), Code.INVALID_PARAMS, 1),
        (json.dumps([CALL] * (BATCH_LIMIT + 1)), Code.INVALID_REQUEST, None),
    ],
)
def test_what_is_wrong_has_its_code(message: str, code: Code, call_id: Any) -> None:
    (call,) = parse(message).calls
    assert call.error is not None
    assert error(call, call.error) == {"jsonrpc": "2.0", "id": call_id, "error": {"code": int(code), "message": str(call.error)}}


def test_a_call_a_notification_and_a_batch() -> None:
    (call,) = parse(json.dumps(CALL)).calls
    assert (call.method, call.params, call.id, call.is_notification, call.error) == ("status", {"id": "x"}, 1, False, None)
    assert result(call, {"a": 1}) == {"jsonrpc": "2.0", "id": 1, "result": {"a": 1}}
    (told,) = parse(json.dumps({"jsonrpc": "2.0", "method": "status"})).calls
    assert (told.is_notification, told.params) == (True, {})
    (answered,) = parse(json.dumps({"jsonrpc": "2.0", "method": "status", "id": None})).calls
    assert not answered.is_notification, "an id that is null is an id"
    batch = parse(json.dumps([CALL, 5, {**CALL, "id": "two"}]))
    assert batch.is_batch
    assert [(each.id, each.error is None) for each in batch.calls] == [(1, True), (None, False), ("two", True)]
    assert json.loads(notification("output", {"seq": 1})) == {"jsonrpc": "2.0", "method": "output", "params": {"seq": 1}}


CALLS = st.dictionaries(
    st.sampled_from(["jsonrpc", "id", "method", "params", "x"]),
    st.sampled_from(["2.0", "status", "\ud800", {}, [], 1, 1.5, 10**400, float("nan"), float("inf")]) | JSON,
    max_size=4,
).map(lambda given_: {"jsonrpc": "2.0", "method": "status"} | given_)
MESSAGES = st.text() | st.binary() | (JSON | CALLS | st.lists(JSON | CALLS, max_size=4)).map(json.dumps)


@given(MESSAGES | MESSAGES.map(lambda message: message[: len(message) // 2]))
def test_nothing_raises_and_every_answer_is_json(message: str | bytes) -> None:
    parsed = parse(message)
    assert parsed.calls
    for call in parsed.calls:
        assert call.error is not None or isinstance(call.method, str)
        answer = result(call, None) if call.error is None else error(call, call.error)
        json.dumps(answer, allow_nan=False)
        assert isinstance(answer["id"], str | int | float | None)
