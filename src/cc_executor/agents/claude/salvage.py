"""The slow road for a line that the typed decoder refuses: take what can be read, field by field. Knows types; knows no meaning.

A field that changed its type in a new version of the CLI costs that field, never the line: a `result` whose `num_turns` became a string still ends
a run. Invalid UTF-8 and lone surrogates become U+FFFD, so that everything that leaves here can be encoded again.
"""

from __future__ import annotations

import json
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, Union, cast, get_args, get_origin

import msgspec

from cc_executor.agents.claude import frames
from cc_executor.model.ansi import encodable

_T = TypeVar("_T")

# What msgspec raises for bytes that it cannot decode to a type. RecursionError: brackets nested some thousand deep.
REFUSED: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Hopeless(Exception):
    """Nothing of the value fits the type; the caller keeps the raw line."""


def parsed(line: bytes) -> dict[str, Any] | None:
    """The line as a JSON object with its encoding repaired; None when it is none."""
    try:
        value = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):  # ValueError also: a number of more than 4300 digits
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def word(value: Any) -> str:
    """A type's name, bounded and such that it can be encoded."""
    return encodable(str(value))[:100]


def kind_of(value: dict[str, Any]) -> str:
    """The line's type as one word, with the types inside that decide: ``system/init``, ``stream_event/content_block_delta/text_delta``."""
    words = [str(value.get("type", "?"))]
    if words[0] == "system":
        words.append(str(value.get("subtype", "?")))
    event = value.get("event")
    if words[0] == "stream_event" and isinstance(event, dict):
        event = cast("dict[str, Any]", event)
        inner = event.get("delta", event.get("content_block"))
        words.append(str(event.get("type", "?")))
        if isinstance(inner, dict):
            words.append(str(cast("dict[str, Any]", inner).get("type", "?")))
    return word("/".join(words))


def salvaged(kind: type[_T], value: Any) -> _T:
    """`value` as `kind`, with the default for every field that does not fit.

    Raises
    ------
    Hopeless
        When not even that is possible.
    """
    return cast("_T", _salvaged(kind, value))


def _salvaged(kind: Any, value: Any) -> Any:
    try:
        return _decoder(kind).decode(_encoded(value))
    except REFUSED:
        pass
    arms = get_args(kind) if isinstance(kind, UnionType) or get_origin(kind) is Union else (kind,)
    if isinstance(value, dict):
        return _struct(arms, cast("dict[str, Any]", value))
    if isinstance(value, list):
        return _list(arms, cast("list[Any]", value))
    if value is None and NoneType in arms:
        return None
    raise Hopeless


def _struct(arms: tuple[Any, ...], value: dict[str, Any]) -> Any:
    structs = [arm for arm in arms if isinstance(arm, type) and issubclass(arm, msgspec.Struct)]
    tag = word(value.get("type", "?"))
    tagged = {arm.__struct_config__.tag: arm for arm in structs}
    found = tagged.get(None) or tagged.get(tag)
    if found is None:
        if frames.OtherBlock in structs:
            return frames.OtherBlock(of=tag)
        raise Hopeless
    fields: dict[str, Any] = {}
    for field in msgspec.structs.fields(found):
        try:
            if field.encode_name in value:
                fields[field.name] = _salvaged(field.type, value[field.encode_name])
            elif field.required:
                raise Hopeless
        except Hopeless:
            if field.required:
                raise
    return found(**fields)


def _list(arms: tuple[Any, ...], values: list[Any]) -> list[Any]:
    for arm in arms:
        if get_origin(arm) is list:
            (item,) = get_args(arm)
            kept: list[Any] = []
            for value in values:
                try:
                    kept.append(_salvaged(item, value))
                except Hopeless:
                    continue
            return kept
    raise Hopeless


def _encoded(value: Any) -> bytes:
    return encodable(json.dumps(value, ensure_ascii=False)).encode()


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)
