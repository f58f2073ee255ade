"""Made-up instances of schemas."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from cc_executor.rehearsal.example import instance

TREE: dict[str, Any] = {
    "$ref": "#/$defs/Node",
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}, "maxItems": 1}},
            "required": ["name"],
        }
    },
}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        True,
        {"type": "null"},
        {"const": {"a": [1, None]}},
        {"enum": ["b", "c"]},
        {"type": "string", "minLength": 40, "maxLength": 50},
        {"type": "string", "maxLength": 2},
        {"type": "string", "format": "date-time"},
        {"type": "string", "pattern": "^[A-Z]{3}$", "examples": ["ABC"]},
        {"type": "integer", "minimum": 5, "maximum": 7},
        {"type": "integer", "exclusiveMinimum": 5},
        {"type": "integer", "maximum": -3},
        {"type": "integer", "minimum": 7, "multipleOf": 5},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.25},
        {"type": "number", "minimum": 0, "exclusiveMaximum": 0.1},
        {"type": "number", "exclusiveMinimum": 0.9, "maximum": 1},
        {"type": "number", "minimum": 5, "exclusiveMinimum": 0},
        {"type": "number", "minimum": -5, "exclusiveMaximum": -1},
        {"type": "integer", "minimum": 0, "maximum": 4, "multipleOf": 5},
        {"type": "integer", "minimum": 5, "exclusiveMinimum": 0},
        {"type": "integer", "maximum": -3, "multipleOf": 5},
        {"type": ["null", "boolean"]},
        {"type": "array", "items": {"type": "integer"}, "minItems": 3, "maxItems": 4},
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False},
        {"type": "object", "required": ["undeclared"]},
        {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False},
        {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        {"oneOf": [{"type": "string"}, {"type": "integer"}]},
        {
            "allOf": [
                {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
                {"properties": {"b": {"type": "string"}}, "required": ["b"]},
            ]
        },
        {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/A"}},
            "required": ["a"],
            "$defs": {"A": {"type": "integer", "minimum": 3}},
        },
        TREE,
    ],
    ids=lambda schema: str(schema)[:60],
)
def test_the_instance_meets_its_schema(schema: Any) -> None:
    jsonschema.validate(instance(schema), schema)


@pytest.mark.parametrize(
    "schema",
    [
        None,
        3,
        [],
        {"$ref": "#/nowhere"},
        {"$ref": "http://127.0.0.1:9/x"},
        {"$ref": "#"},
        {"type": 7},
        {"items": 3},
        {"type": "integer", "maximum": 10**400},
        {"type": "integer", "minimum": float("inf")},
        {"type": "number", "multipleOf": "2"},
    ],
)
def test_an_odd_schema_is_no_error(schema: Any) -> None:
    instance(schema)


def test_a_schema_that_demands_itself_without_end_is_cut() -> None:
    names = [f"part{number}" for number in range(20)]
    endless = {"type": "object", "properties": {name: {"$ref": "#"} for name in names}, "required": names}
    assert len(str(instance(endless))) < 1_000_000
