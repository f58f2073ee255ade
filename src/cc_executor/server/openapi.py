"""The interface as an OpenAPI 3.1 document, made from the routes themselves, so that it cannot drift from them. Knows no tornado."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from cc_executor import __version__
from cc_executor.agents import AGENTS
from cc_executor.api import make_request
from cc_executor.model.care import OnLimit
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import OnKernelExit, RunRequest
from cc_executor.model.tasklist import OnFailure, TaskList
from cc_executor.server.audit import DECISIONS
from cc_executor.server.foresight import WORDS
from cc_executor.server.lists import OPS, TASK_OPS
from cc_executor.server.notices import schemas
from cc_executor.server.optionwords import OF_LIST, OF_RUN
from cc_executor.server.statuses import STATUSES

METHODS: Final = ("get", "post", "delete", "put", "patch")
_ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["kind", "message"],
            "properties": {
                "kind": {"type": "string"},
                "message": {"type": "string"},
                "problems": {"type": "array", "items": {"type": "string"}, "description": "Everything that is wrong with a task list."},
            },
        }
    },
}
_ID: Final = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^([0-9a-f]{26}|[0-9a-f]{20}-[0-9]{1,6})$"},  # of a run, of a task list
}
_TASKS_PAGE: Final[list[dict[str, Any]]] = [
    {"name": "offset", "in": "query", "description": "From which task of a list on.", "schema": {"type": "integer", "minimum": 0}},
    {"name": "limit", "in": "query", "description": "How many tasks.", "schema": {"type": "integer", "minimum": 1, "maximum": 500}},
]
# What a request may say besides; the server's own words for where things lie are not among them.
_QUERY: Final[dict[str, list[dict[str, Any]]]] = {
    "/executions": [
        {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 500}},
        {"name": "before", "in": "query", "schema": {"type": "string"}},
        {"name": "status", "in": "query", "schema": {"type": "string", "enum": list(STATUSES)}},
    ],
    "/executions/{id}/status": _TASKS_PAGE,
    "/executions/{id}/results": _TASKS_PAGE,
    "/history": [
        *({"name": name, "in": "query", "schema": {"type": "string"}} for name in (*WORDS, "before")),
        {"name": "rehearsed", "in": "query", "schema": {"type": "boolean"}},
        {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 500}},
    ],
    "/admin/executions": [
        {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 500}},
        {"name": "before", "in": "query", "schema": {"type": "string"}},
    ],
    "/admin/audit": [
        {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 1000}},
        *({"name": name, "in": "query", "schema": {"type": "string"}} for name in ("who", "before")),
        {"name": "decision", "in": "query", "schema": {"type": "string", "enum": list(DECISIONS)}},
    ],
    "/admin/usage": [{"name": "days", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 366}}],
    "/executions/{id}/events": [
        {"name": "offset", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 10**15}},
        {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 1024 * 1024}},
        {"name": "stream", "in": "query", "schema": {"type": "string", "enum": ["stdout", "stderr", "control.jsonl"]}},
    ],
}
_STATUSES: Final[dict[tuple[str, str], tuple[int, ...]]] = {
    ("post", "/execute"): (202, 400, 409, 413, 429, 503),
    ("delete", "/executions/{id}"): (202, 404, 409, 503),
    ("get", "/executions/{id}/receipt"): (200, 400, 404, 409, 503),
    ("post", "/executions/{id}/control"): (200, 400, 404, 409, 413, 429, 503),
    ("get", "/executions"): (200, 400, 503),
    ("post", "/estimate"): (200, 400, 413, 503),
    ("post", "/validate"): (200, 400, 413, 503),
    ("get", "/history"): (200, 400, 503),
    ("get", "/executions/{id}/status"): (200, 400, 404, 503),
    ("get", "/executions/{id}/results"): (200, 400, 404, 503),
    ("get", "/admin/executions"): (200, 400, 503),
    ("get", "/admin/audit"): (200, 400),
    ("get", "/health"): (200, 503),
    ("get", "/auth/status"): (200, 503),
    ("get", "/openapi.json"): (200,),
    ("get", "/admin/usage"): (200, 400, 503),
    ("get", "/executions/{id}/events"): (200, 400, 404, 410, 503),
}
_WORDS: Final = {200: "as asked", 202: "accepted", 400: "not understood; the message says why", 403: "not allowed", 404: "no such execution", 409: "not now",
                 410: "was removed", 413: "too large", 429: "too many at once", 503: "not possible here; the message says why"}  # fmt: skip


def document(handlers: Sequence[type[Any]], *, base: str) -> dict[str, Any]:
    """The whole document.

    Parameters
    ----------
    handlers : sequence of handler classes
        Each with its path as `route`.
    base : str
        The path of the server's URL below which they are.
    """
    paths: dict[str, dict[str, Any]] = {}
    for handler in handlers:
        path = handler.route
        for method in METHODS:
            if method in vars(handler):
                paths.setdefault(path, {})[method] = _operation(method, path, handler)
    return {
        "openapi": "3.1.0",
        "info": {"title": "cc_executor", "version": __version__},
        "servers": [{"url": base}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "Authorization"}},
            "schemas": {"Error": _ERROR, "Execute": execute_schema(), "ExecuteList": execute_list_schema(), "Validate": _validate_schema()},
        },
    }


def query_names(route: str) -> frozenset[str]:
    """What an address takes behind its question mark."""
    return frozenset(each["name"] for each in _QUERY.get(route, ()))


def _operation(method: str, path: str, handler: type[Any]) -> dict[str, Any]:
    parameters = [*([_ID] if "{id}" in path else []), *_QUERY.get(path, [])]
    made: dict[str, Any] = {
        "summary": (inspect.getdoc(handler) or "").splitlines()[0],
        "operationId": f"{method}_{re.sub('[^a-z]+', '_', path.replace('{id}', '')).strip('_')}",
        "responses": {str(status): _response(status, path) for status in (*_STATUSES.get((method, path), (200, 404)), 403)},
    }
    if parameters:
        made["parameters"] = parameters
    if method == "post":
        schema = (
            _control()
            if "{id}" in path
            else {
                "anyOf": [
                    {"$ref": f"#/components/schemas/{name}"} for name in ("Validate" if path == "/validate" else "Execute", "ExecuteList")
                ]
            }
        )
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if (method, path) == ("post", "/execute"):
        made["parameters"] = [{"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 255}}]
    return made


def _response(status: int, path: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"$ref": "#/components/schemas/Error"} if status >= 400 else {"type": "object"}  # noqa: PLR2004 - HTTP's first error
    if status == 200 and path.endswith("/receipt"):  # noqa: PLR2004 - HTTP's ok
        schema = Receipt.model_json_schema(mode="serialization")
    return {"description": _WORDS[status], "content": {"application/json": {"schema": schema}}}


def _control() -> dict[str, Any]:
    properties = {
        "op": {"type": "string", "enum": list(dict.fromkeys((*OPS, *TASK_OPS)))},
        "task": {"type": "string", "description": "Of a list: only this task."},
        "text": {"type": "string", "description": "For edit."},
        "click": {
            "type": "string",
            "description": "Of a list: which press of a button it was. One that was obeyed already changes nothing.",
        },
        "pauses": {"type": "integer", "minimum": 0, "description": "How often the run had been paused when this was wanted."},
    }
    return {"type": "object", "required": ["op"], "properties": properties, "additionalProperties": False}


def _validate_schema() -> dict[str, Any]:
    schema = execute_schema()
    schema["properties"]["lint_off"] = {
        "type": "array",
        "items": {"type": "string"},
        "description": "Rules that are not asked; all for every one.",
    }
    return schema


def execute_list_schema() -> dict[str, Any]:
    """A task list in a request: what docs/task-list.schema.json has, in short."""
    fields = TaskList.model_json_schema()["properties"]
    plain = {name: schema for name, schema in fields.items() if name != "tasks" and "$ref" not in schema}
    needs = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    task = {
        "type": "object",
        "description": "With prompt (for an agent) or run (a command), and options of Execute.",
        "properties": {
            "id": {"type": "string"},
            "title": {"type": "string"},
            "prompt": {"type": "string"},
            "run": {"type": "string"},
            "needs": needs,
        },
    }
    properties = {
        **plain,
        "on_failure": {"enum": [each.value for each in OnFailure]},
        "on_limit": {"enum": [each.value for each in OnLimit]},
        "tasks": {"type": "array", "minItems": 1, "items": {"anyOf": [{"type": "string"}, task]}},
        "defaults": {"type": "object", "description": OF_LIST["defaults"]},
        "fresh": {"type": "boolean", "description": OF_LIST["fresh"]},
        "timeout_per_task": {"type": "number", "exclusiveMinimum": 0, "description": OF_LIST["timeout_per_task"]},
        **schemas(),
        "lint": {"enum": ["on", "off"]},
        "lint_off": {"type": "array", "items": {"type": "string"}},
    }
    return {"type": "object", "required": ["tasks"], "properties": properties, "additionalProperties": False}


def execute_schema() -> dict[str, Any]:
    """The options of `make_request` and the fields of `RunRequest` that go by their names."""
    from cc_executor.server.service import NOT_OVER_HTTP

    whole = RunRequest.model_json_schema(mode="validation")
    fields: dict[str, Any] = {name: _inlined(schema, whole.get("$defs", {})) for name, schema in whole["properties"].items()}
    by_name = {name for name, each in inspect.signature(make_request).parameters.items() if each.kind is inspect.Parameter.KEYWORD_ONLY}
    named = {name: fields.get(name, {}) for name in by_name | (fields.keys() - {"limits", "output_schema"})}
    for name in ("timeout", "max_cost", "linger"):
        named[name] = {"type": "number", "exclusiveMinimum": 0}
    named["stall_timeout"] = {"type": "number", "minimum": 0}
    named["max_turns"] = {"type": "integer", "minimum": 1}
    named["schema"] = {"type": "object"}
    named["journal_limit"] = {"type": ["integer", "string"]}
    named["undo"] = {"type": "boolean"}  # which it is, if nobody says, depends on the agent
    named["agent"] = {**named["agent"], "enum": list(AGENTS)}
    named["on_kernel_exit"] = {**named["on_kernel_exit"], "default": OnKernelExit.CONTINUE.value}  # as the service has it
    properties = {
        name: {**_short(schema), "description": OF_RUN[name]}
        for name, schema in sorted(named.items())
        if name not in NOT_OVER_HTTP | {"limits"}
    } | schemas()
    return {"type": "object", "required": ["prompt"], "properties": properties, "additionalProperties": False}


def _short(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema without what tells nothing: titles that repeat the name, and defaults that mean "not given"."""
    kept = {name: each for name, each in schema.items() if name not in {"title", "anyOf"} and not (name == "default" and each is None)}
    kinds = [each["type"] for each in schema.get("anyOf", ())]  # a kind, or null
    if kinds:
        kept["type"] = kinds
    if kept.get("type") == "array":
        kept["type"] = ["array", "string"]  # one alone, or several
    return kept


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """A schema that stands by itself: it goes into documents that have none of the definitions, or have others at that place."""
    if isinstance(schema, list):
        return [_inlined(each, definitions) for each in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    parts = cast("dict[str, Any]", schema)
    meant: Mapping[str, Any] = definitions[parts["$ref"].rpartition("/")[2]] if "$ref" in parts else {}
    return {name: _inlined(each, definitions) for name, each in {**meant, **parts}.items() if name != "$ref"}
