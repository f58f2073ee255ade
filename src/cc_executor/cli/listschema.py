"""The JSON Schema of task lists as people write them in YAML or JSON, made from the code: what a list and a task say, and every option of a run.

Editors complete and check a list by it. What it cannot say (ids that exist, circles, references) `cc-executor tasks check` says.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import typer
from pydantic import BaseModel

from cc_executor.api import make_request
from cc_executor.model.hook import Moment
from cc_executor.model.request import Limits, RunRequest
from cc_executor.model.tasklist import ID_PATTERN, NOT_OPTIONS, OnFailure, Task, TaskList
from cc_executor.policy.lint import EVERY
from cc_executor.policy.rules import RULES

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
PLACE: Final = "https://raw.githubusercontent.com/cc-executor/cc-executor/main/docs/task-list.schema.json"

Schema = dict[str, Any]

# Made by the library itself, or values that no file can hold.
_NOT_WRITTEN: Final = NOT_OPTIONS | {"limits", "output_schema", "amended"}
# Where the command line calls an option otherwise.
_FLAGS: Final[Mapping[str, str]] = {"add_dirs": "add_dir", "env_names": "env"}
# A field that people write by another name.
_WRITTEN: Final[Mapping[str, str]] = {"validation": "validate"}
# What `defaults` cannot say for all tasks.
_SAID_BY_EACH: Final = frozenset({"id", "kind", "text", "title", "needs", "group", "on_failure", "retry", "options"})
_POSITIVE: Final = frozenset({"timeout", "max_cost", "linger"})
_SHELLS: Final = ("bash", "sh", "zsh")


def list_schema() -> Schema:
    """The whole schema."""
    return {
        "$schema": DIALECT,
        "$id": PLACE,
        "title": "A task list of cc_executor",
        "description": "Dependent tasks, each with a fresh context. A list of tasks alone is a list, too.",
        "anyOf": [{"$ref": "#/$defs/list"}, {"$ref": "#/$defs/tasks"}],
        "$defs": {
            "list": _list(),
            "tasks": {"type": "array", "minItems": 1, "items": {"anyOf": [{"$ref": "#/$defs/task"}, _text("A prompt.")]}},
            "task": _task(),
            "defaults": {
                "type": "object",
                "description": "Options for every run; those that mean nothing to a command are for agents alone.",
                "properties": {**_others(Task, but=_SAID_BY_EACH), **options()},
                "additionalProperties": False,
            },
            "hooks": _hooks(),
        },
    }


def _list() -> Schema:
    fields = TaskList.model_json_schema()["properties"]
    return {
        "type": "object",
        "required": ["tasks"],
        "additionalProperties": False,
        "properties": {
            "$schema": _text("Where this schema is; for editors."),
            "name": {**_plain(fields["name"]), "description": "A name for the list."},
            "cwd": _text("Where the tasks work, relative to the current folder."),
            "parallel": {**_plain(fields["parallel"]), "description": "How many tasks of one group run at the same time."},
            "max_cost": {"type": "number", "exclusiveMinimum": 0, "description": "US dollars for the whole list."},
            "on_failure": _on_failure("What a task that did not end well does to the others."),
            **_others(TaskList, but={"name", "cwd", "parallel", "max_cost", "on_failure", "tasks"}),
            "defaults": {"$ref": "#/$defs/defaults"},
            "hooks": {"$ref": "#/$defs/hooks"},
            **_lint(),
            "tasks": {"$ref": "#/$defs/tasks"},
        },
    }


def _task() -> Schema:
    fields = Task.model_json_schema()["properties"]
    name = {
        "type": ["string", "integer"],
        "pattern": ID_PATTERN,
        "description": "Letters, digits, _ and -; made of the title if not given, or its number.",
    }
    needs = {"description": "Tasks that have to end well before.", **_several({"type": ["string", "integer"], "pattern": ID_PATTERN})}
    return {
        "type": "object",
        "oneOf": [{"required": ["prompt"]}, {"required": ["run"]}],
        "additionalProperties": False,
        "properties": {
            "id": name,
            "title": {**_plain(fields["title"]), "description": "Words for people."},
            "prompt": _text("What a fresh agent is told. {{ needs.ID.text }} takes in what a task has made."),
            "run": _text("A command. It finds what it needs as files in the folder $CC_NEEDS."),
            "needs": needs,
            "group": _text("Tasks of one group run side by side."),
            "on_failure": _on_failure("What it does to the others when it does not end well; what the list says if not given."),
            "retry": {**_plain(fields["retry"]), "description": "How many more times it is tried when it did not end well."},
            **_others(Task, but={"id", "kind", "text", "title", "needs", "group", "on_failure", "retry", "options"}),
            **_lint(),
            **options(),
        },
    }


def _others(model: type[BaseModel], *, but: Collection[str]) -> dict[str, Schema]:
    """The other fields of a list or a task, by the names that people write, with the words of the class about them."""
    whole = model.model_json_schema()
    words = _attributes(model)
    found: dict[str, Schema] = {}
    for name, schema in whole["properties"].items():
        if name not in but:
            plain = _plain(schema, whole.get("$defs", {}))
            said = words.get(name, "")
            # What is written by another name may also be written as a text alone.
            shown = {"anyOf": [{"type": "string"}, plain]} if name in _WRITTEN else plain
            found[_WRITTEN.get(str(name), str(name))] = {**shown, **({"description": said} if said else {})}
    return found


def _attributes(model: type) -> dict[str, str]:
    """What the docstring of a class says of each attribute."""
    lines = (inspect.getdoc(model) or "").splitlines()
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        if match := re.match(r"(\w+) : ", line):
            name = str(match.group(1))
        elif name and line.startswith("    "):
            found[name] = f"{found.get(name, '')} {line.strip()}".strip()
        elif not line.startswith(" "):
            name = ""
    return found


def options() -> dict[str, Schema]:
    """The options of a run that a task may have, by the names that `cc_execute` takes."""
    words = _help()
    found: dict[str, Schema] = {}
    hints = get_type_hints(make_request)
    for name, parameter in inspect.signature(make_request).parameters.items():
        if parameter.kind is not parameter.VAR_KEYWORD:
            found[name] = {"type": "object"} if name == "schema" else _of_type(hints[name])
    whole = RunRequest.model_json_schema()
    for name, schema in whole["properties"].items():
        if name not in found:
            found[name] = _plain(schema, whole.get("$defs", {}))
    for name in found.keys() & _POSITIVE:
        found[name]["exclusiveMinimum"] = 0
    found["max_turns"]["minimum"] = 1
    found["stall_timeout"]["minimum"] = 0
    found["shell"]["enum"] = list(_SHELLS)
    for name, schema in found.items():
        if said := words.get(_FLAGS.get(name, name)):
            schema["description"] = said
    return {name: schema for name, schema in sorted(found.items()) if name not in _NOT_WRITTEN and name not in Limits.model_fields}


def _help() -> dict[str, str]:
    """What the command line says of each option of a run."""
    from cc_executor.cli.commands import app  # it has this command, too

    command: Any = typer.main.get_command(app)
    return {item.name: str(item.help) for item in command.commands["run"].params if getattr(item, "help", None)}


def _of_type(annotation: Any) -> Schema:
    """The schema of an annotation, as far as a file can hold it."""
    if annotation in (str, Path):
        return {"type": "string"}
    simple = {bool: "boolean", int: "integer", float: "number"}.get(annotation)
    if simple is not None:
        return {"type": simple}
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [_of_type(part) for part in get_args(annotation) if part is not type(None)]
        unique = [part for number, part in enumerate(parts) if part not in parts[:number]]
        return unique[0] if len(unique) == 1 else {"anyOf": unique}
    if get_origin(annotation) is not None and get_args(annotation):
        return {"type": "array", "items": _of_type(get_args(annotation)[0])}
    return {}


def _plain(schema: Schema, defs: Mapping[str, Schema] | None = None) -> Schema:
    """A field's schema without what pydantic says of itself, and without null: nobody writes that."""
    if "$ref" in schema:
        return _plain((defs or {}).get(schema["$ref"].rpartition("/")[2], {}), defs)
    kept = {name: value for name, value in schema.items() if name not in {"title", "default", "anyOf", "description"}}
    if "properties" in kept:
        kept["properties"] = {name: _plain(part, defs) for name, part in kept["properties"].items()}
    parts = [_plain(part, defs) for part in schema.get("anyOf", ()) if part.get("type") != "null"]
    if len(parts) == 1:
        return kept | parts[0]
    return kept | ({"anyOf": parts} if parts else {})


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


def _several(item: Schema) -> Schema:
    return {"anyOf": [item, {"type": "array", "items": item}]}


def _on_failure(description: str) -> Schema:
    return {"enum": [word.value for word in OnFailure], "description": description}


def _lint() -> dict[str, Schema]:
    rule = {"enum": [EVERY, *(rule.id for rule in RULES)]}
    return {
        "lint": {"enum": [True, False, "on", "off"], "description": "off: the prompt is not looked over."},
        "lint_off": {"description": "Lint rules that are not asked.", **_several(rule)},
    }


def _hooks() -> Schema:
    moments = [moment.value for moment in Moment]
    work = {"anyOf": [{"type": "string"}, {"type": "object"}]}
    return {
        "description": "Commands that are called at moments of the list.",
        "anyOf": [
            {"type": "object", "propertyNames": {"enum": moments}, "additionalProperties": _several(work)},
            {"type": "array", "items": {"type": "object", "required": ["when", "run"]}},
        ],
    }
