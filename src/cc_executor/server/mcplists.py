"""Tools over task lists, for agents: start, follow, command, read. Knows the service; what a list is, is `cc_executor.server.lists`'s.

A list goes on without whoever has started it, and equal lists are one: what ended well before is not done again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Final

from cc_executor.errors import InvalidRequest
from cc_executor.server.lists import OPS, TASK_OPS
from cc_executor.server.mcptools import (
    DATA_LIMIT,
    KEY,
    MAYBE,
    NUMBER,
    OBJECT,
    TEXT,
    TEXT_LIMIT,
    WAIT_LIMIT,
    WHOLE,
    YES,
    Answer,
    Call,
    Tool,
    several,
    thing,
)
from cc_executor.server.optionwords import OF_LIST
from cc_executor.store.tasklists import LIST_ID

PAGE: Final = 20  # tasks in one answer
PAGE_LIMIT: Final = 100
TASK_TEXT: Final = TEXT_LIMIT // 10  # characters of one task's text, fewer where more than ten are told of; all of it is its run's
LOOK: Final = 0.5  # seconds between two looks at a list
_ID: Final = {"id": {"type": "string", "description": "what execute_list has answered"}}
_WAIT: Final = {"type": "number", "minimum": 0, "maximum": WAIT_LIMIT, "description": "seconds"}
_AT: Final = {"offset": {"type": "integer", "minimum": 0}, "limit": {"type": "integer", "minimum": 1, "maximum": PAGE_LIMIT}}
LIST: Final = {
    "tasks": {"type": "array", "description": "Prompts, and objects with prompt or run, id, needs, group, retry and options of execute."},
    "name": TEXT, "cwd": TEXT, "parallel": {"type": "integer", "minimum": 1}, "max_cost": NUMBER, "max_cost_per_day": NUMBER,
    "on_failure": {"enum": ["stop", "skip", "continue"]}, "on_limit": {"enum": ["stop", "wait"]}, "limit_wait_max": NUMBER,
    "defaults": OBJECT, "timeout_per_task": NUMBER,
}  # fmt: skip
# Said once, where a list is started: a model reads all tools in every session.
_STARTED: Final = {
    name: {"description": OF_LIST[name], **schema} if name in OF_LIST else schema for name, schema in {**LIST, "fresh": YES}.items()
}
_HEAD: Final = {
    "id": TEXT, "name": TEXT, "started": NUMBER, "status": TEXT, "done": YES, "summary": TEXT, "progress": TEXT, "cost": NUMBER,
    "next_offset": {"type": ["integer", "null"]},
}  # fmt: skip
_COMMANDS: Final = tuple(dict.fromkeys((*OPS, *TASK_OPS)))
_RESULT: Final = ("task", "status", "outcome", "attempts", "seconds", "cost", "run_id", "summary", "data", "standing", "digest")


async def _execute(call: Call) -> Answer:
    key = call.text("idempotency_key")
    if not isinstance(call.given.get("tasks"), list):
        raise InvalidRequest("tasks must be an array of prompts and objects.")
    body = {name: value for name, value in call.given.items() if name != "idempotency_key"}
    list_id, is_new = await call.service.execute(body, who=call.who, key=key)
    return {"id": list_id, "new": is_new}


def _page(call: Call) -> dict[str, int]:
    return {"offset": int(call.number("offset", 0)), "limit": max(1, int(call.number("limit", PAGE, most=PAGE_LIMIT)))}


def _list_id(call: Call) -> str:
    list_id = call.id()
    if not LIST_ID.match(list_id):  # else the service takes it for a run's
        raise InvalidRequest("This is no id of a task list: give the one that execute_list has answered.")
    return list_id


async def _status(call: Call) -> Answer:
    list_id, page = _list_id(call), _page(call)
    until = time.monotonic() + call.number("wait", 0, most=WAIT_LIMIT)
    before: object = None
    while True:
        told = await call.service.lookup.status(list_id, who=call.who, **page)
        now = [(task["task"], task["status"], task["attempts"]) for task in told["tasks"]]
        if told["done"] or (before is not None and now != before) or call.is_due(until):
            return told
        before = now
        await _progress(call, told, until)
        await call.rest(LOOK)


async def _results(call: Call) -> Answer:
    list_id, page = _list_id(call), _page(call)
    until = time.monotonic() + call.number("wait", 0, most=WAIT_LIMIT)
    while True:
        told = await call.service.lookup.results(list_id, who=call.who, **page)
        if told["done"] or call.is_due(until):
            count = max(1, len(told["results"]))
            return told | {"results": [_short(each, count) for each in told["results"]]}
        await _progress(call, told, until)
        await call.rest(LOOK)


async def _progress(call: Call, told: Mapping[str, Any], until: float) -> None:
    """Say that the list goes on, to who has asked to be told so."""
    await call.ctx.session.report_progress(round(WAIT_LIMIT - (until - time.monotonic()), 1), message=told["progress"])


def _short(result: Mapping[str, Any], count: int) -> dict[str, Any]:
    """A task's result without what its run says at length. `count`: how many share the answer."""
    kept = {name: result[name] for name in _RESULT}
    text, room = result["text"], min(TASK_TEXT, TEXT_LIMIT // count)
    if len(json.dumps(kept["data"])) > min(TEXT_LIMIT, DATA_LIMIT // count):
        kept |= {"data": None, "data_left_out": True}
    return kept | {
        "text": text[:room],
        "text_left_out": max(0, len(text) - room),
        "files": [file["path"] if isinstance(file, dict) else file for file in result["files"]],
    }


async def _control(call: Call) -> Answer:
    task, text = (call.text(name) if name in call.given else "" for name in ("task", "text"))
    return await call.service.control(_list_id(call), call.op(_COMMANDS), who=call.who, task=task, text=text)


def list_tools() -> dict[str, Tool]:
    """The tools over task lists."""
    task = {
        "title": TEXT,
        "task": TEXT,
        "status": TEXT,
        "run_id": TEXT,
        "seconds": MAYBE,
        "cost": MAYBE,
        "summary": TEXT,
        "attempts": WHOLE,
    }
    return {
        "execute_list": Tool(
            title="Run a task list",
            about="Start a list of tasks, each with a fresh agent or a command; needs orders them. Answers at once with the list's id. An equal list is the "
            "same one: what ended well is not done again.",
            takes={**_STARTED, "idempotency_key": KEY},
            required=("tasks",),
            gives={"id": TEXT, "new": YES},
            always=("id", "new"),
            call=_execute,
            needs="execute",
            is_open=True,
        ),
        "list_status": Tool(
            title="Follow a task list",
            about="How a list stands, task by task. With wait, answers when a task has changed, or after so many seconds (50 at most).",
            takes={**_ID, **_AT, "wait": _WAIT},
            required=("id",),
            gives={**_HEAD, "current_task": TEXT, "notes": several(TEXT), "tasks": several(thing(task, "task", "status"))},
            always=("id", "status", "done", "tasks"),
            call=_status,
        ),
        "list_results": Tool(
            title="Results of a task list",
            about="What the tasks of a list that are over have made; run_id names the run, for results and verify. With wait, answers when the list is over, "
            "or after so many seconds.",
            takes={**_ID, **_AT, "wait": _WAIT},
            required=("id",),
            gives={
                **_HEAD, "total_tasks": WHOLE, "completed_tasks": WHOLE, "failed_tasks": WHOLE,
                "results": several(thing({**task, "text": TEXT, "text_left_out": WHOLE, "files": several(TEXT)}, "task", "status")),
            },
            always=("id", "done", "results"),
            call=_results,
        ),
        "list_control": Tool(
            title="Command a task list",
            about="Pause, resume, cancel or kill a list; or with task: skip, retry, cancel, run it now, or edit its prompt (text) while it waits.",
            takes={**_ID, "op": {"type": "string", "enum": list(_COMMANDS)}, "task": TEXT, "text": TEXT},
            required=("id", "op"),
            gives={"id": TEXT, "op": TEXT, "task": TEXT, "status": TEXT},
            always=("id", "op", "status"),
            call=_control,
            needs="execute",
            is_final=True,
            is_repeatable=False,
        ),
    }  # fmt: skip
