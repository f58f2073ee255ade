"""An instance of a JSON Schema, made up. Knows the common keywords; knows nothing of scripts or requests. Bounded in depth and size."""

from __future__ import annotations

import math
from typing import Any, Final, cast

DEPTH_FULL: Final = 5  # a schema may refer to itself: deeper, only what it requires is made
DEPTH_LIMIT: Final = 20  # and what it requires without end is null here
SPARSE: Final = 500
STOP: Final = 5_000
ITEMS_LIMIT: Final = 100
CHARACTERS_LIMIT: Final = 10_000
NUMBER_LIMIT: Final = 1e300  # a bound beyond it, to which nothing could be added, is none

_FORMATS: Final = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "someone@example.org",
    "hostname": "example.org",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uri": "https://example.org/",
    "uri-reference": "/",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
}


def instance(schema: Any, *, name: str = "example") -> Any:
    """A value that meets `schema`, as far as the common keywords go.

    Parameters
    ----------
    schema : dict or bool
        A JSON Schema (2020-12 or draft 7); anything else is read as "everything is allowed".
    name : str
        Used as the text of a string without other demands.

    Returns
    -------
    JSON value
        Examples, defaults, constants and enumerations of the schema come first; then the smallest value of the type, with every declared
        property. `pattern`, `not` and conditions are not solved: such a schema should carry `examples`.
    """
    return _Maker(schema).value(schema, name, 0)


class _Maker:
    """Makes one instance. Once `SPARSE` values are made, what is optional is left out; after `STOP` everything is null."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._made = 0

    def value(self, schema: Any, name: str, depth: int) -> Any:
        self._made += 1
        if not isinstance(schema, dict) or depth > DEPTH_LIMIT or self._made > STOP:
            return None
        s = _merged(cast("dict[str, Any]", schema), self._root)
        if "const" in s:
            return s["const"]
        for key in ("examples", "enum"):
            if isinstance(s.get(key), list) and s[key]:
                return s[key][0]
        if "default" in s:
            return s["default"]
        match _type(s):
            case "object":
                return self._object(s, depth)
            case "array":
                return self._array(s, name, depth)
            case "string":
                return _string(s, name)
            case "integer":
                return int(_number(s, whole=True))
            case "number":
                return _number(s, whole=False)
            case "boolean":
                return True
            case _:
                return None

    def _sparse(self, depth: int) -> bool:
        return depth > DEPTH_FULL or self._made > SPARSE

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        found = schema.get("properties")
        properties = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
        required = [key for key in _list(schema.get("required")) if isinstance(key, str)]
        wanted = [*properties, *(key for key in required if key not in properties)]
        made: dict[str, Any] = {}
        for key in wanted[:ITEMS_LIMIT]:
            if key in required or not self._sparse(depth):
                made[key] = self.value(properties.get(key, {"type": "string"}), key, depth + 1)
        return made

    def _array(self, schema: dict[str, Any], name: str, depth: int) -> list[Any]:
        made = [self.value(item, name, depth + 1) for item in _list(schema.get("prefixItems"))[:ITEMS_LIMIT]]
        items = schema.get("items", {"type": "string"})
        least = max(_int(schema.get("minItems"), 0), 0 if self._sparse(depth) or items is False else 1)
        while len(made) < min(least, _int(schema.get("maxItems"), ITEMS_LIMIT), ITEMS_LIMIT):
            made.append(self.value(items, f"{name} {len(made) + 1}", depth + 1))
        return made


def _merged(schema: dict[str, Any], root: Any) -> dict[str, Any]:
    """`schema` with its reference, its `allOf` and the first of its alternatives folded in."""
    merged = dict(schema)
    for _ in range(DEPTH_LIMIT):
        parts: list[Any] = []
        if isinstance(ref := merged.pop("$ref", None), str):
            parts.append(_at(root, ref))
        parts += _list(merged.pop("allOf", None))
        for key in ("anyOf", "oneOf"):
            parts += _list(merged.pop(key, None))[:1]
        if not parts:
            break
        for part in parts:
            if isinstance(part, dict):
                merged = _both(cast("dict[str, Any]", part), merged)
    return merged


def _both(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    both = {**one, **two}
    if isinstance(one.get("properties"), dict) and isinstance(two.get("properties"), dict):
        both["properties"] = {**one["properties"], **two["properties"]}
    if "required" in one and "required" in two:
        both["required"] = [*_list(one["required"]), *_list(two["required"])]
    return both


def _at(root: Any, ref: str) -> Any:
    """What a local reference (``#/$defs/Name``) names; None when it is not local or not there."""
    if not ref.startswith("#"):
        return None
    here = root
    for step in ref[1:].split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(here, dict) or key not in here:
            return None
        here = cast("dict[str, Any]", here)[key]
    return here


def _type(schema: dict[str, Any]) -> str:
    declared = schema.get("type")
    if isinstance(declared, list):
        declared = next((item for item in cast("list[Any]", declared) if item != "null"), "null")
    if isinstance(declared, str):
        return declared
    if "properties" in schema or "required" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    if "minimum" in schema or "maximum" in schema:
        return "number"
    return "string" if "minLength" in schema or "format" in schema else "null"


def _string(schema: dict[str, Any], name: str) -> str:
    text = _FORMATS.get(str(schema.get("format")), name)
    least, most = _int(schema.get("minLength"), 0), _int(schema.get("maxLength"), CHARACTERS_LIMIT)
    return (text + "x" * (min(least, CHARACTERS_LIMIT) - len(text)))[:most]


def _number(schema: dict[str, Any], *, whole: bool) -> float:
    low, high = _bound(schema, "minimum", -math.inf), _bound(schema, "maximum", math.inf)
    above, below = _bound(schema, "exclusiveMinimum", -math.inf), _bound(schema, "exclusiveMaximum", math.inf)
    step = 1 if whole else min(0.5, abs(min(high, below) - max(low, above)) / 2 or 0.5)
    low, high = max(low, above + step), min(high, below - step)
    value = min(max(1, low), high)
    multiple = _bound(schema, "multipleOf", 0)
    if multiple > 0:
        up = -(-value // multiple) * multiple
        value = up if up <= high else high // multiple * multiple
    return -(-value // 1) if whole else value


def _bound(schema: dict[str, Any], keyword: str, default: float) -> float:
    value = schema.get(keyword)
    return value if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= NUMBER_LIMIT else default


def _list(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def _int(value: Any, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default
