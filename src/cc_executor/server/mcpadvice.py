"""Tools that start nothing and spend nothing: what is known of a prompt or a list before it runs, and of runs after. Knows the service; asks no model."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import asdict
from functools import partial
from typing import Any, Final, cast

from cc_executor.api import make_request
from cc_executor.errors import InvalidRequest, InvalidTaskList
from cc_executor.model.request import RunRequest
from cc_executor.model.tasklist import Task, TaskKind
from cc_executor.policy import tokens
from cc_executor.policy.lint import Finding, lint
from cc_executor.policy.predict import LEAST, spread_words
from cc_executor.runtime.forecast import ListForecast, estimate, forecast_list
from cc_executor.runtime.past import filters_of, past
from cc_executor.runtime.verification import transcript_roots, verify
from cc_executor.server.hookstatus import hook_status
from cc_executor.server.mcptools import ID, MAYBE, NUMBER, OBJECT, TEXT, WHOLE, YES, Answer, Call, Tool, several, thing
from cc_executor.server.refusal import Refused
from cc_executor.tasks import Plan, plan, request_of

HISTORY: Final = 50  # rows that are given if nobody says
HISTORY_LIMIT: Final = 200
LOOKED_AT: Final = 5_000  # rows, of which those are given that are the caller's
_FILTERS: Final = ("agent", "model", "outcome", "label", "category", "text", "since", "until")
_COLUMNS: Final = (
    "run_id", "started", "agent", "model", "outcome", "standing", "label", "prompt_line", "category", "complexity", "active", "cost", "turns",
    "tools", "list_id", "task_id", "p50", "p90",
)  # fmt: skip

_PROMPT: Final = {
    "prompt": {"type": "string", "description": "the prompt; of agent shell, the command"},
    "agent": TEXT, "model": TEXT, "cwd": TEXT, "label": TEXT, "rehearse": TEXT,
}  # fmt: skip
_LIST: Final = {
    "tasks": {"description": "tasks as an array of prompts and objects (prompt or run, id, needs, group, …)", "type": "array"},
    "text": {"type": "string", "description": "instead: a list in YAML or Markdown"},
    "cwd": TEXT, "parallel": {"type": "integer", "minimum": 1}, "max_cost": NUMBER,
}  # fmt: skip
_RANGE: Final = {
    "anyOf": [{"type": "null"}, thing({"p50": NUMBER, "p90": NUMBER, "unit": TEXT, "based_on": WHOLE, "confidence": TEXT}, "p50", "p90")]
}
_FINDING: Final = thing(
    {"rule": TEXT, "severity": TEXT, "line": WHOLE, "column": WHOLE, "excerpt": TEXT, "message": TEXT, "why": TEXT, "suggestion": TEXT},
    "rule",
)
_EXPECTED: Final = {
    "category": TEXT, "complexity": TEXT, "tokens": thing({"least": WHOLE, "likely": WHOLE, "most": WHOLE}, "least", "likely", "most"),
    "too_long": {"type": ["string", "null"]}, "seconds": _RANGE, "cost": _RANGE, "findings": several(_FINDING), "notes": several(TEXT),
}  # fmt: skip


async def _complexity(call: Call) -> Answer:
    return await asyncio.to_thread(_known, call)


def _known(call: Call) -> dict[str, Any]:
    """What history and rules say of a prompt."""
    prompt, model = call.text("prompt"), call.text("model") or None
    if not prompt.strip():
        raise InvalidRequest("prompt is missing: give the text that an agent would get.")
    given: dict[str, Any] = {name: call.text(name) for name in ("agent", "label", "rehearse") if name in call.given}
    counted, too_long = tokens.count(prompt, model), tokens.over(prompt, model)
    findings: tuple[Finding, ...] = () if given.get("agent") == "shell" else lint(prompt, model=model)
    told: dict[str, Any] = {
        "tokens": {"least": counted.least, "likely": counted.likely, "most": counted.most},
        "too_long": too_long,
        "findings": [each.as_dict() for each in findings],
        "notes": [],
        "seconds": None,
        "cost": None,
    }
    if too_long:
        return told
    request = make_request(prompt, model=model, cwd=_folder(call), **given)
    prediction, said = estimate(call.service.home, request, environ=call.service.environ)
    notes = [*said, *([] if prediction.seconds else [f"There is no estimate: fewer than {LEAST} runs like it have ended well."])]
    return told | _plain(asdict(prediction)) | {"notes": notes}


def _folder(call: Call) -> str:
    return os.path.join(call.service.root, os.path.expanduser(call.text("cwd")))


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Enumerations as their words."""
    return {
        name: _plain(cast("dict[str, Any]", each)) if isinstance(each, dict) else getattr(each, "value", each)
        for name, each in value.items()
    }


# --- lists before they run ----------------------------------------------------------------------------------------------


def planned(call: Call) -> Plan:
    """The list that is given as `tasks` or `text`. Raises `InvalidRequest`, `InvalidTaskList`. Blocking."""
    given, text = call.given.get("tasks"), call.text("text")
    if (given is None) == (not text):
        raise InvalidRequest("Give the list either as tasks (an array) or as text (YAML or Markdown).")
    more = {name: call.given[name] for name in ("parallel", "max_cost") if name in call.given}
    cwd = _folder(call)
    if given is None:
        return plan(text if "\n" in text else f"{text}\n", cwd=cwd, **more)  # one line would be the name of a file
    if not isinstance(given, list):
        raise InvalidRequest("tasks must be an array of prompts and objects.")
    return plan(cast("list[object]", given), cwd=cwd, **more)


def expected(call: Call, found: Plan) -> ListForecast:
    """What history says of a list. Blocking."""

    def request(task: Task) -> RunRequest | None:
        return None if task.kind is TaskKind.CALL else request_of(found.tasks, task, task.text, None, "")

    return forecast_list(found.tasks, call.service.home.root, request)


async def _validate_list(call: Call) -> Answer:
    def looked() -> dict[str, Any]:
        try:
            found = planned(call)
        except InvalidTaskList as wrong:
            return {"valid": False, "problems": list(wrong.problems), "hints": [], "tasks": []}
        tasks = [
            {"id": each.id, "kind": each.kind.value, "needs": list(each.needs), "group": each.group or ""} for each in found.tasks.tasks
        ]
        forecast = _plain(expected(call, found).as_dict())
        return {
            "valid": True,
            "problems": [],
            "hints": [hint.as_dict() for hint in found.hints()],
            "tasks": tasks,
            "seconds": forecast["seconds"],
            "cost": forecast["cost"],
        }

    return await asyncio.to_thread(looked)


async def _suggest_strategy(call: Call) -> Answer:
    return await asyncio.to_thread(_of_list if "tasks" in call.given or "text" in call.given else _of_prompt, call)


def _of_prompt(call: Call) -> dict[str, Any]:
    known = _known(call)
    found = [_suggestion(each["suggestion"], each["message"], each["rule"]) for each in known["findings"]]
    if known["too_long"]:
        found.insert(0, _suggestion("Shorten the prompt, or name files for the agent to read.", f"It {known['too_long']}.", "tokens"))
    return {"suggestions": found + _of_ranges(known["seconds"], known["cost"]), "notes": known["notes"]}


def _of_list(call: Call) -> dict[str, Any]:
    found = planned(call)
    forecast = expected(call, found)
    suggestions = [_suggestion(str(hint), hint.finding.rule.why, hint.finding.rule.id) for hint in found.hints()]
    missing = forecast.count - forecast.timed
    notes = [f"There is no estimate for {missing} of {forecast.count} tasks: too few runs like them have ended well."] if missing else []
    whole = _plain(forecast.as_dict())
    return {"suggestions": suggestions + _of_ranges(whole["seconds"], whole["cost"]), "notes": notes}


def _of_ranges(seconds: dict[str, Any] | None, cost: dict[str, Any] | None) -> list[dict[str, Any]]:
    """What past runs say about limits: facts to choose by, for nobody knows what may be spent."""
    found: list[dict[str, Any]] = []
    for given, option, what in ((seconds, "timeout", "took"), (cost, "max_cost", "cost")):
        if given is not None:
            words = spread_words(given["p50"], given["p90"], given["unit"])
            why = f"Of past runs like it half {what} up to the first and nine of ten up to the second: {words} ({given['based_on']} runs)."
            found.append(
                _suggestion(f"If you set {option}, a value below {given['p90']:.4g} would end one of ten such runs early.", why, "history")
            )
    return found


def _suggestion(what: str, because: str, source: str) -> dict[str, Any]:
    return {"what": what, "because": because, "source": source}


# --- runs after they were run -------------------------------------------------------------------------------------------


async def _history(call: Call) -> Answer:
    limit = max(1, int(call.number("limit", HISTORY, most=HISTORY_LIMIT)))
    wanted: dict[str, Any] = {name: call.text(name) or (None if name in {"since", "until"} else "") for name in _FILTERS}
    filters = filters_of(**wanted, limit=LOOKED_AT, now=time.time())
    found = await asyncio.to_thread(past, call.service.home, filters, environ=call.service.environ)
    mine = [row for row in found if call.service.may_see(row.run_id, who=call.who)]
    rows = [{name: value for name, value in row.as_dict().items() if name in _COLUMNS} for row in mine[:limit]]
    return {"runs": rows, "more": len(mine) > limit, "notes": list(found.notes)}


async def _hook_status(call: Call) -> Answer:
    folder = await asyncio.to_thread(call.service.find, call.id(), who=call.who)
    return await asyncio.to_thread(hook_status, folder)


async def _verify(call: Call) -> Answer:
    receipt = await call.service.receipt(call.id(), who=call.who)
    if receipt is None:
        raise Refused(409, "NotEnded", "The run has not ended yet: there is no receipt to verify.")
    roots = transcript_roots(call.service.environ)
    found = await asyncio.to_thread(partial(verify, receipt, home=call.service.home, transcript_roots=roots))
    return {"id": receipt.run_id, "verdict": found.verdict.value, "reasons": list(found.reasons)}


def advice_tools() -> dict[str, Tool]:
    """The tools that only look."""
    suggestion = thing({"what": TEXT, "because": TEXT, "source": TEXT}, "what", "because", "source")
    return {
        "complexity": Tool(
            title="Estimate a prompt",
            about="What is known of a prompt before it runs: kind and complexity by its words, tokens, what past runs like it took and cost, and what may "
            "be wrong with it. Starts nothing.",
            takes=_PROMPT,
            required=("prompt",),
            gives=_EXPECTED,
            always=("tokens", "findings", "notes"),
            call=_complexity,
        ),
        "suggest_strategy": Tool(
            title="Suggestions for a prompt or a list",
            about="What the prompt rules and the history of runs suggest for a prompt, or for a task list, each with its reason. No model is asked.",
            takes={**_PROMPT, **_LIST},
            gives={"suggestions": several(suggestion), "notes": several(TEXT)},
            always=("suggestions", "notes"),
            call=_suggest_strategy,
        ),
        "validate_list": Tool(
            title="Check a task list",
            about="Everything that is wrong with a task list, hints about its prompts, and what it is expected to take. Starts nothing.",
            takes=_LIST,
            gives={
                "valid": YES,
                "problems": several(TEXT),
                "hints": several(OBJECT),
                "tasks": several(OBJECT),
                "seconds": _RANGE,
                "cost": _RANGE,
            },
            always=("valid", "problems", "hints", "tasks"),
            call=_validate_list,
        ),
        "history": Tool(
            title="Past runs",
            about="Runs that have ended, newest first: how they ended, how long they took, what they cost, and what had been predicted (p50, p90).",
            takes={**dict.fromkeys(_FILTERS, TEXT), "limit": {"type": "integer", "minimum": 1, "maximum": HISTORY_LIMIT}},
            gives={
                "runs": several(thing({"run_id": TEXT, "outcome": TEXT, "started": NUMBER, "cost": MAYBE}, "run_id", "outcome")),
                "more": YES,
                "notes": several(TEXT),
            },
            always=("runs", "more"),
            call=_history,
        ),
        "hook_status": Tool(
            title="Hooks of a run",
            about="What became of the hooks of a run: waiting, called, ok, failed, hung, refused or not_run, with what they said.",
            takes=ID,
            required=("id",),
            gives={
                "id": TEXT,
                "hooks": several(
                    thing({"hook": TEXT, "moment": TEXT, "status": TEXT, "detail": TEXT, "seconds": NUMBER}, "hook", "moment", "status")
                ),
            },
            always=("id", "hooks"),
            call=_hook_status,
        ),
        "verify": Tool(
            title="Verify a receipt",
            about="Whether the receipt of a run that has ended is true: against itself, the journal, and the agent's own transcript.",
            takes=ID,
            required=("id",),
            gives={"id": TEXT, "verdict": {"enum": ["verified", "contradicted", "unverifiable"]}, "reasons": several(TEXT)},
            always=("id", "verdict", "reasons"),
            call=_verify,
        ),
    }
