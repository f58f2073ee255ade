"""A tool call in words: one line, and its input to read. Knows the field names of common tools; an unknown tool is shown by its first words."""

from __future__ import annotations

from typing import Any, Final, cast

import msgspec

from cc_executor.model.paths import Roots, below

SUMMARY_CHARS: Final = 120  # one line of a cell

# The field that says what a call is about, most telling first (Claude Code 2.1's own tools, and what MCP servers commonly call theirs).
_TELLING: Final = (
    "command", "file_path", "notebook_path", "pattern", "path", "query", "url", "description", "skill", "name", "prompt", "question",
)  # fmt: skip
_PATHS: Final = frozenset({"file_path", "notebook_path", "path"})  # of these, those that are a path and nothing else
_TODO_MARKS: Final = {"completed": "☑", "in_progress": "◐"}

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


def fields(source: str, roots: Roots = ()) -> dict[str, Any] | None:
    """The input of a call as an object; None while it is incomplete or no object.

    With `roots`, for people: its paths are seen from there, for where the run's folder is on the machine is nobody's business who reads a page. A command
    stays as it is run.
    """
    try:
        call = _decode(source)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):  # the last: half a pair of surrogates
        return None
    for name in _PATHS & call.keys() if roots else ():
        if isinstance(call[name], str):
            call[name] = below(call[name], roots)
    return call


def summary(call: dict[str, Any]) -> str:
    """One line that says what the call is about, or an empty text."""
    todos = call.get("todos")
    if isinstance(todos, list):
        return f"{len(cast('list[object]', todos))} items"
    for name in _TELLING:
        value = call.get(name)
        if isinstance(value, str) and value.strip():
            return one_line(value)
    return next((one_line(value) for value in call.values() if isinstance(value, str) and value.strip()), "")


def one_line(text: str, limit: int = SUMMARY_CHARS) -> str:
    """`text` on one line of at most `limit` characters."""
    line = " ".join(text[: limit * 4].split())
    return line if len(line) <= limit and len(text) <= limit * 4 else line[: limit - 1].rstrip() + "…"


def readable(call: dict[str, Any]) -> str:
    """The input as a person reads it: one field a line, long texts below their names, an edit as removed and added lines."""
    todos = call.get("todos")
    if len(call) == 1 and isinstance(todos, list):
        return "\n".join(_todo(each) for each in cast("list[object]", todos))
    if list(call) == ["command"] or list(call) == ["command", "description"]:
        return str(call["command"])
    rows: list[str] = []
    for name, value in call.items():
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        if name == "old_string":
            rows += [f"- {row}" for row in text.split("\n")]
        elif name == "new_string":
            rows += [f"+ {row}" for row in text.split("\n")]
        elif "\n" in text:
            rows += [f"{name}:", text]
        else:
            rows.append(f"{name}: {text}")
    return "\n".join(rows)


def _todo(todo: object) -> str:
    if not isinstance(todo, dict):
        return f"☐ {todo}"
    known = cast("dict[str, object]", todo)
    return f"{_TODO_MARKS.get(str(known.get('status')), '☐')} {known.get('content', '')}"
