"""Answers of the Messages API as events: pure. Knows blocks, deltas and usage; knows no socket, no clock and no script order."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from cc_executor.rehearsal.example import instance
from cc_executor.rehearsal.scripts import Block, Fault, Turn

_PLACES: Final = re.compile(r"\{(cwd|python|session|turn|run|n)\}")
_SIGNATURE: Final = "cmVoZWFyc2Fs"  # opaque to the CLI, which sends thinking back only with one
_DELTA_FIELD: Final = {"text": "text", "thinking": "thinking", "input_json": "partial_json"}
_CHARACTERS_PER_TOKEN: Final = 4  # a rule of thumb; nobody pays for these


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What an answer needs to know of the request. `mark` is like no other answer's; it makes the ids."""

    mark: str
    model: str
    places: Mapping[str, str]
    tool_schemas: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """One event of the stream, `delay` seconds after the one before. `is_delta`: the script's faults count it."""

    delay: float
    event: dict[str, Any]
    is_delta: bool = False


def steps(turn: Turn, scene: Scene) -> Iterator[Step]:
    """The events of a streamed answer, from message_start to message_stop."""
    yield Step(0.0, {"type": "message_start", "message": {**_head(scene), "content": [], "stop_reason": None, "usage": _usage(turn, 1)}})
    written = 0
    for index, block in enumerate(turn.blocks):
        yield Step(0.0, {"type": "content_block_start", "index": index, "content_block": _opening(block, index, scene)})
        delay = turn.delay if block.delay is None else block.delay
        for kind, piece in _deltas(block, scene):
            written += len(piece)
            yield Step(delay, _delta(index, {"type": f"{kind}_delta", _DELTA_FIELD[kind]: piece}), is_delta=True)
        if block.thinking is not None:
            yield Step(0.0, _delta(index, {"type": "signature_delta", "signature": _SIGNATURE}))
        yield Step(0.0, {"type": "content_block_stop", "index": index})
    delta = {"stop_reason": stop_reason(turn), "stop_sequence": None}
    yield Step(0.0, {"type": "message_delta", "delta": delta, "usage": _usage(turn, written // _CHARACTERS_PER_TOKEN + 1)})
    yield Step(0.0, {"type": "message_stop"})


def whole(turn: Turn, scene: Scene) -> dict[str, Any]:
    """The same answer in one piece, for a request without `stream`."""
    content: list[dict[str, Any]] = []
    written = 0
    for index, block in enumerate(turn.blocks):
        text = "".join(piece for _, piece in _deltas(block, scene))
        written += len(text)
        opening = _opening(block, index, scene)
        if block.tool is not None:
            opening["input"] = json.loads(text)
        elif block.thinking is not None:
            opening |= {"thinking": text, "signature": _SIGNATURE}
        else:
            opening["text"] = text
        content.append(opening)
    usage = _usage(turn, written // _CHARACTERS_PER_TOKEN + 1)
    return {**_head(scene), "content": content, "stop_reason": stop_reason(turn), "usage": usage}


def stop_reason(turn: Turn) -> str:
    """The script's, or what the blocks imply."""
    if turn.stop_reason is not None:
        return turn.stop_reason
    return "tool_use" if any(block.tool is not None for block in turn.blocks) else "end_turn"


def sse(event: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode("utf-8", "surrogatepass")


def error(fault: Fault) -> dict[str, Any]:
    """The body of an API error."""
    return {"type": "error", "error": {"type": fault.error, "message": fault.message}}


def _delta(index: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def _head(scene: Scene) -> dict[str, Any]:
    return {"id": f"msg_rehearsal_{scene.mark}", "type": "message", "role": "assistant", "model": scene.model, "stop_sequence": None}


def _usage(turn: Turn, output_tokens: int) -> dict[str, int]:
    usage = turn.usage
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": output_tokens if usage.output_tokens is None else usage.output_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "cache_creation_input_tokens": usage.cache_creation_input_tokens,
    }


def _opening(block: Block, index: int, scene: Scene) -> dict[str, Any]:
    if block.tool is not None:
        return {"type": "tool_use", "id": f"toolu_rehearsal_{scene.mark}_{index}", "name": block.tool, "input": {}}
    if block.thinking is not None:
        return {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "text", "text": ""}


def _deltas(block: Block, scene: Scene) -> Iterator[tuple[str, str]]:
    if block.tool is not None:
        text, kind = json.dumps(_input(block, scene), ensure_ascii=False), "input_json"
    elif block.thinking is not None:
        text, kind = _repeated(block.thinking, block.repeat, scene), "thinking"
    else:
        text, kind = _repeated(block.text or "", block.repeat, scene), "text"
    if block.lines and block.tool is None:
        yield from ((kind, line) for line in re.findall(r"[^\n]*\n|[^\n]+", text))
    else:
        yield from ((kind, text[start : start + block.piece]) for start in range(0, len(text), block.piece))


def _input(block: Block, scene: Scene) -> Any:
    if block.input_from_schema:
        return instance(scene.tool_schemas.get(block.tool or "", {"type": "object"}))
    return {key: _filled(value, block.repeat_input.get(key, 1), scene) for key, value in block.input.items()}


def _filled(value: Any, times: int, scene: Scene) -> Any:
    match value:
        case str():
            return _repeated(value, times, scene)
        case dict():
            return {key: _filled(item, 1, scene) for key, item in cast("dict[str, Any]", value).items()}
        case list():
            return [_filled(item, 1, scene) for item in cast("list[Any]", value)]
        case _:
            return value


def _repeated(text: str, times: int, scene: Scene) -> str:
    filled = _PLACES.sub(lambda place: scene.places.get(place[1], place[0]), text)
    if "{n}" not in filled:
        return filled * times
    return "".join(filled.replace("{n}", str(number)) for number in range(1, times + 1))
