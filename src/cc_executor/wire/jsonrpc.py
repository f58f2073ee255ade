"""JSON-RPC 2.0 as text: requests out of a message, answers into one. Knows the specification (jsonrpc.org, 2013-01-04); does nothing."""

from __future__ import annotations

import json
import math
from enum import IntEnum
from typing import Any, Final, cast

import msgspec

BATCH_LIMIT: Final = 100  # requests in one message


class Code(IntEnum):
    """What went wrong. Those from -32000 on are ours."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL_ERROR = -32603
    REFUSED = -32000  # against the server's rules: too many, too large, not allowed
    NOT_NOW = -32001  # the run has ended, or does not answer
    NOT_POSSIBLE = -32002  # no agent, no room
    NOT_FOUND = -32003  # no such execution, or somebody else's


class RpcError(Exception):
    """An answer that is an error."""

    def __init__(self, code: Code, message: str, data: Any = None) -> None:
        self.code, self.data = code, data
        super().__init__(message)

    def as_dict(self) -> dict[str, Any]:
        """The error object."""
        told: dict[str, Any] = {"code": int(self.code), "message": str(self)}
        return told if self.data is None else {**told, "data": self.data}


class Call(msgspec.Struct, frozen=True):
    """One request. `is_notification`: nobody waits for an answer. `error`: it is none, and this is what to answer."""

    method: str = ""
    params: dict[str, Any] = {}
    id: str | int | float | None = None
    is_notification: bool = False
    error: RpcError | None = None


class Message(msgspec.Struct, frozen=True):
    """What came at once. A batch is answered by a batch."""

    calls: tuple[Call, ...]
    is_batch: bool = False


def parse(text: str | bytes) -> Message:
    """The requests of a message. Never raises: what is wrong is a call with an error."""
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return Message((Call(error=RpcError(Code.PARSE_ERROR, "Parse error: the message is not JSON")),))
    if not isinstance(value, list):
        return Message((_call(value),))
    items = cast("list[Any]", value)
    if not items or len(items) > BATCH_LIMIT:
        words = "is empty" if not items else f"holds more than {BATCH_LIMIT} requests"
        return Message((Call(error=RpcError(Code.INVALID_REQUEST, f"Invalid Request: the batch {words}")),))
    return Message(tuple(map(_call, items)), is_batch=True)


def _call(value: Any) -> Call:
    if not isinstance(value, dict):
        return Call(error=RpcError(Code.INVALID_REQUEST, "Invalid Request: it is not an object"))
    request = cast("dict[str, Any]", value)
    call_id: Any = request.get("id")
    # Python reads NaN, and 1e400 as infinite: an answer that repeated them would be no JSON.
    is_unfit = isinstance(call_id, bool) or (isinstance(call_id, float) and not math.isfinite(call_id))
    if is_unfit or not isinstance(call_id, str | int | float | None):
        return Call(error=RpcError(Code.INVALID_REQUEST, "Invalid Request: id must be a string, a number or null"))
    method, params = request.get("method"), request.get("params", {})
    if request.get("jsonrpc") != "2.0" or not isinstance(method, str):
        return Call(id=call_id, error=RpcError(Code.INVALID_REQUEST, 'Invalid Request: jsonrpc must be "2.0" and method a string'))
    is_notification = "id" not in request
    if not isinstance(params, dict):
        wrong = RpcError(Code.INVALID_PARAMS, "Invalid params: give them by name, as an object")
        return Call(method=method, id=call_id, is_notification=is_notification, error=wrong)
    return Call(method=method, params=cast("dict[str, Any]", params), id=call_id, is_notification=is_notification)


def result(call: Call, value: Any) -> dict[str, Any]:
    """The answer to a call that went well."""
    return {"jsonrpc": "2.0", "id": call.id, "result": value}


def error(call: Call, wrong: RpcError) -> dict[str, Any]:
    """The answer to one that did not."""
    return {"jsonrpc": "2.0", "id": call.id, "error": wrong.as_dict()}


def notification(method: str, params: dict[str, Any]) -> str:
    """A message that nobody answers, as text."""
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params})


def notification_with(method: str, params: dict[str, Any], more: bytes) -> bytes:
    """The same with the members of a JSON object that is text already, because many are sent it. `params` is not empty."""
    return notification(method, params).removesuffix("}}").encode() + b", " + more[1:] + b"}"
