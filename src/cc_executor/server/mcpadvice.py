"""Tools that start nothing and spend nothing: what is known of a prompt or a list before it runs, and of runs after. Knows the service; asks no model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from cc_executor.errors import InvalidRequest
from cc_executor.policy.predict import LEAST, spread_words
from cc_executor.runtime.verification import transcript_roots, verify
from cc_executor.server.foresight import WORDS
from cc_executor.server.hookstatus import hook_status
from cc_executor.server.mcplists import LIST
from cc_executor.server.mcptools import ID, MAYBE, NUMBER, OBJECT, TEXT, WHOLE, YES, Answer, Call, Tool, several, thing
from cc_executor.server.refusal import Refused

HISTORY: Final = 50  # rows that are given if nobody says
HISTORY_LIMIT: Final = 200
_COLUMNS: Final = (
    "run_id", "started", "agent", "model", "outcome", "standing", "label", "prompt_line", "category", "complexity", "active", "cost", "turns",
    "tools", "list_id", "task_id", "p50", "p90",
)  # fmt: skip
_PROMPT: Final = {
    "prompt": {"type": "string", "description": "the prompt; of agent shell, the command"},
    "agent": TEXT, "model": TEXT, "cwd": TEXT, "label": TEXT, "rehearse": TEXT, "verify": TEXT,
}  # fmt: skip
_RANGE: Final = {
    "anyOf": [
        {"type": "null"},
        thing({"p50": NUMBER, "p90": NUMBER, "unit": TEXT, "based_on": WHOLE, "confidence": TEXT}, "p50", "p90", "unit", "based_on"),
    ]
}
_FINDING: Final = thing(
    {"rule": TEXT, "severity": TEXT, "line": WHOLE, "column": WHOLE, "excerpt": TEXT, "message": TEXT, "why": TEXT, "suggestion": TEXT},
    "rule",
)
_TOKENS: Final = {"anyOf": [{"type": "null"}, thing({"least": WHOLE, "likely": WHOLE, "most": WHOLE}, "least", "likely", "most")]}


# --- before ------------------------------------------------------------------------------------------------------------


async def _complexity(call: Call) -> Answer:
    return await asyncio.to_thread(_known, call)


def _known(call: Call) -> dict[str, Any]:
    """What history and rules say of a prompt. Blocking."""
    if not call.text("prompt").strip():
        raise InvalidRequest("prompt is missing: give the text that an agent would get.")
    expected = call.service.foresight.estimate(call.given, who=call.who)
    looked = call.service.foresight.validate(call.given, who=call.who)
    notes = [
        *expected["notes"],
        *([] if expected["seconds"] else [f"There is no estimate: fewer than {LEAST} runs like it have ended well."]),
    ]
    return {**expected, "notes": notes, "findings": looked["findings"], "tokens": looked["tokens"]}


async def _validate_list(call: Call) -> Answer:
    if "tasks" not in call.given:
        raise InvalidRequest("tasks is missing: give an array of prompts and objects.")
    return await asyncio.to_thread(call.service.foresight.validate, call.given, who=call.who)


async def _suggest_strategy(call: Call) -> Answer:
    if ("tasks" in call.given) == ("prompt" in call.given):
        raise InvalidRequest("Give either a prompt or tasks.")
    return await asyncio.to_thread(_of_list if "tasks" in call.given else _of_prompt, call)


def _of_prompt(call: Call) -> dict[str, Any]:
    known = _known(call)
    return {"suggestions": [*_of_rules(known["findings"]), *_of_ranges(known)], "notes": known["notes"]}


def _of_list(call: Call) -> dict[str, Any]:
    known = call.service.foresight.validate(call.given, who=call.who)
    if not known["ok"]:
        return {"suggestions": [_suggestion("Mend the list.", problem, "validation") for problem in known["problems"]], "notes": []}
    expected, count = known["expected"], len(known["order"])
    missing = count - expected["estimated"]
    notes = [f"There is no estimate for {missing} of {count} tasks: too few runs like them have ended well."] if missing else []
    return {"suggestions": [*_of_rules(known["hints"]), *_of_ranges(expected)], "notes": notes}


def _of_rules(findings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        _suggestion(each["suggestion"], f"{each['place']}: {each['message']}" if "place" in each else each["message"], each["rule"])
        for each in findings
    ]


def _of_ranges(expected: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What past runs say about limits: facts to choose by, for nobody but the user knows what may be spent."""
    found: list[dict[str, Any]] = []
    for name, option in (("seconds", "timeout"), ("cost", "max_cost")):
        given = expected[name]
        if given is not None:
            words = spread_words(given["p50"], given["p90"], given["unit"])
            what = f"If you bound it by {option}, do not go below {given['p90']:.4g}: one of ten such runs would be ended early."
            found.append(
                _suggestion(what, f"Half of past runs like it, and nine of ten, stayed below: {words} (n={given['based_on']}).", "history")
            )
    return found


def _suggestion(what: str, because: str, source: str) -> dict[str, Any]:
    return {"what": what, "because": because, "source": source}


# --- after -------------------------------------------------------------------------------------------------------------


async def _history(call: Call) -> Answer:
    limit = max(1, int(call.number("limit", HISTORY, most=HISTORY_LIMIT)))
    filters = {name: call.text(name) for name in (*WORDS, "rehearsed") if name in call.given}
    look = partial(call.service.foresight.history, filters, who=call.who, limit=limit, before=call.text("before"))
    told = await asyncio.to_thread(look)
    return told | {"runs": [{name: value for name, value in row.items() if name in _COLUMNS} for row in told["runs"]]}


async def _hook_status(call: Call) -> Answer:
    folder = await asyncio.to_thread(call.service.lookup.find, call.run_id(), who=call.who)
    return await asyncio.to_thread(hook_status, folder)


async def _verify(call: Call) -> Answer:
    receipt = await call.service.lookup.receipt(call.run_id(), who=call.who)
    if receipt is None:
        raise Refused(409, "NotEnded", "The run has not ended yet: there is no receipt to verify.")
    roots = transcript_roots(call.service.environ)
    found = await asyncio.to_thread(partial(verify, receipt, home=call.service.home, transcript_roots=roots))
    return {"id": receipt.run_id, "verdict": found.verdict.value, "reasons": list(found.reasons)}


def advice_tools() -> dict[str, Tool]:
    """The tools that only look."""
    suggestion = thing({"what": TEXT, "because": TEXT, "source": TEXT}, "what", "because", "source")
    row = thing({"run_id": TEXT, "outcome": TEXT, "started": NUMBER, "active": NUMBER, "cost": MAYBE}, "run_id", "outcome")
    hook = thing({"hook": TEXT, "moment": TEXT, "status": TEXT, "detail": TEXT, "seconds": NUMBER}, "hook", "moment", "status")
    return {
        "complexity": Tool(
            title="Estimate a prompt",
            about="What is known of a prompt before it runs: kind and complexity by its words, tokens, what past runs like it took and cost, and what may "
            "be wrong with it. Starts nothing.",
            takes=_PROMPT,
            required=("prompt",),
            gives={
                "category": TEXT, "complexity": TEXT, "tokens": _TOKENS, "seconds": _RANGE, "cost": _RANGE, "findings": several(_FINDING),
                "notes": several(TEXT),
            },
            always=("category", "complexity", "tokens", "seconds", "cost", "findings", "notes"),
            call=_complexity,
        ),
        "suggest_strategy": Tool(
            title="Suggestions for a prompt or a list",
            about="What the prompt rules and the history of runs suggest for a prompt, or for a task list, each with its reason. No model is asked.",
            takes={**_PROMPT, **LIST},
            gives={"suggestions": several(suggestion), "notes": several(TEXT)},
            always=("suggestions", "notes"),
            call=_suggest_strategy,
        ),
        "validate_list": Tool(
            title="Check a task list",
            about="Everything that is wrong with a task list, hints about its prompts, and what it is expected to take. Starts nothing.",
            takes=LIST,
            required=("tasks",),
            gives={
                "ok": YES, "problems": several(TEXT), "order": several(TEXT), "hints": several(OBJECT),
                "expected": thing({"tasks": OBJECT, "seconds": _RANGE, "cost": _RANGE, "estimated": WHOLE}),
            },
            always=("ok", "problems"),
            call=_validate_list,
        ),
        "history": Tool(
            title="Past runs",
            about="Runs that have ended, newest first: how they ended, how long they took, what they cost, and what had been predicted (p50, p90). "
            "since and until take 7d, 36h or 2026-01-31; before takes next of the last answer.",
            takes={
                **dict.fromkeys((*WORDS, "before"), TEXT), "rehearsed": {"enum": ["true", "false"]},
                "limit": {"type": "integer", "minimum": 1, "maximum": HISTORY_LIMIT},
            },
            gives={"runs": several(row), "next": TEXT, "calibration": TEXT, "notes": several(TEXT)},
            always=("runs", "next"),
            call=_history,
        ),
        "hook_status": Tool(
            title="Hooks of a run",
            about="What became of the hooks of a run: waiting, called, ok, failed, hung, refused or not_run, with what they said.",
            takes=ID,
            required=("id",),
            gives={"id": TEXT, "hooks": several(hook)},
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
    }  # fmt: skip
