"""What one line of Claude Code says of a message, in the same words for both places where the CLI says it: its stream and its transcript.

Measured with 2.1.197 and 2.1.329: the `uuid` of an `assistant` or `user` line of the stream is that of the transcript's line, with equal content,
`message.id` and `request_id` (there `requestId`). What the CLI makes up itself (`<synthetic>`, `isSynthetic`, `isReplay`) is in only one of them, or
in another shape, and is no statement here.
"""

from __future__ import annotations

from typing import Any, Final, cast

import msgspec

SYNTHETIC_MODEL: Final = "<synthetic>"


class _Message(msgspec.Struct, frozen=True, gc=False):
    id: str | None = None
    model: str | None = None
    content: Any = None


class _Line(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    type: str = ""
    uuid: str = ""
    message: _Message | None = None
    request_id: str | None = None  # the transcript's spelling
    is_synthetic: bool = False
    is_replay: bool = False
    stream_request_id: str | None = msgspec.field(default=None, name="request_id")
    parent_tool_use_id: str | None = msgspec.field(default=None, name="parent_tool_use_id")


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """One message, or one block of it.

    Attributes
    ----------
    uuid : str
        The name that both places have for it.
    kind : str
        ``"assistant"`` or ``"user"``.
    content : Any
        The blocks as JSON; a bare text as the block that it stands for.
    parent : str or None
        Tool id of the call whose subagent wrote it.
    """

    uuid: str
    kind: str
    message_id: str | None
    request_id: str | None
    content: Any
    parent: str | None


_line = msgspec.json.Decoder(_Line)


def statement(line: bytes) -> Statement | None:
    """The statement in a line of the stream or of the transcript; None when it holds none."""
    # Nine of ten lines of a stream are deltas: they are told by their bytes, without being parsed.
    if b'"assistant"' not in line and b'"user"' not in line:
        return None
    try:
        found = _line.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    message = found.message
    if message is None or not found.uuid or found.type not in {"assistant", "user"}:
        return None
    if message.model == SYNTHETIC_MODEL or found.is_synthetic or found.is_replay:
        return None
    content = [{"type": "text", "text": message.content}] if isinstance(message.content, str) else message.content
    return Statement(
        uuid=found.uuid,
        kind=found.type,
        message_id=message.id,
        request_id=found.request_id or found.stream_request_id,
        content=content,
        parent=found.parent_tool_use_id,
    )


def difference(stream: Statement, transcript: Statement, *, mask: str) -> str | None:
    """What of a statement the transcript tells otherwise, in a word; None when both agree.

    Parameters
    ----------
    mask : str
        What stands in the stream in place of a secret; it stands for any text.
    """
    if stream.kind != transcript.kind:
        return "kind"
    if stream.message_id != transcript.message_id:
        return "message id"
    if stream.request_id is not None and transcript.request_id is not None and stream.request_id != transcript.request_id:
        return "request id"
    return None if agrees(stream.content, transcript.content, mask=mask) else "content"


def agrees(masked: Any, plain: Any, *, mask: str) -> bool:
    """Whether two JSON values are equal, where `mask` in a text of the first stands for any text."""
    pending = [(masked, plain)]  # not a call for each level: a tool's input may be nested deeper than calls may be
    while pending:
        ours, theirs = pending.pop()
        if isinstance(ours, str) and isinstance(theirs, str):
            if ours != theirs and not (mask in ours and _fits(ours.split(mask), theirs)):
                return False
        elif isinstance(ours, dict) and isinstance(theirs, dict):
            said, told = cast("dict[str, Any]", ours), cast("dict[str, Any]", theirs)
            if said.keys() != told.keys():
                return False
            pending += [(value, told[name]) for name, value in said.items()]
        elif isinstance(ours, list) and isinstance(theirs, list):
            items, others = cast("list[Any]", ours), cast("list[Any]", theirs)
            if len(items) != len(others):
                return False
            pending += zip(items, others, strict=True)
        elif ours != theirs:
            return False
    return True


def _fits(parts: list[str], plain: str) -> bool:
    """Whether the parts stand in `plain` in this order, the first at its beginning and the last at its end."""
    # Not a regular expression: with several masks in a long text it may take for ever.
    first, *middle, last = parts
    if not plain.startswith(first) or not plain.endswith(last) or len(plain) < len(first) + len(last):
        return False
    place, end = len(first), len(plain) - len(last)
    for part in middle:
        found = plain.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return True
