"""What is known before a run and of those before it: estimates, validation, history. Knows runs and owners; starts nothing. Blocking."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from cc_executor.errors import InvalidRequest, InvalidTaskList
from cc_executor.model.request import RunRequest
from cc_executor.policy import tokens
from cc_executor.policy.lint import ids_of, lint
from cc_executor.runtime.forecast import estimate
from cc_executor.runtime.past import filters_of, past
from cc_executor.runtime.reconcile import LIST_PATIENCE, reconcile
from cc_executor.server.listrequest import ListRequests
from cc_executor.server.owners import Owners
from cc_executor.server.refusal import Refused
from cc_executor.server.statuses import check_before
from cc_executor.store.home import StateHome
from cc_executor.taskplan import Plan
from cc_executor.tasks import forecast_of

PAGE: Final = 50  # runs
WORDS: Final = ("agent", "model", "outcome", "label", "cwd", "category", "list", "text", "since", "until")  # filters of a history, as text
REHEARSED: Final = {"": None, "true": True, "false": False}


class Foresight(msgspec.Struct, frozen=True, kw_only=True):
    """For one server.

    Attributes
    ----------
    home : StateHome
    environ : mapping of str to str
        Its secrets are masked.
    owners : Owners
    lists : ListRequests
    request : callable
        A checked request under the server's rules out of a body.
    """

    home: StateHome
    environ: Mapping[str, str]
    owners: Owners
    lists: ListRequests
    request: Callable[[Mapping[str, Any]], RunRequest]

    def estimate(self, body: Mapping[str, Any], *, who: str) -> dict[str, Any]:
        """What a request, or a list, is expected to take and cost, by the caller's own runs. `body`: as for `execute`.

        Raises
        ------
        InvalidRequest, InvalidTaskList, Refused, StateUnusable
        """
        if "tasks" in body:
            planned = self.lists.plan(body)
            return self._expected(planned, who) | {"order": [task.id for task in planned.tasks.in_order()]}
        prediction, notes = estimate(self.home, self.request(body), environ=self.environ, only=self.owners.only(who))
        return {**asdict(prediction), "notes": notes}

    def _expected(self, planned: Plan, who: str) -> dict[str, Any]:
        return forecast_of(planned.tasks, self.home, only=self.owners.only(who)).as_dict()

    def validate(self, body: Mapping[str, Any], *, who: str) -> dict[str, Any]:
        """Everything that is wrong with a request or a list, and what may be. `body`: as for `execute`, with ``lint_off`` for rules that are not asked.

        Returns
        -------
        dict
            ``ok`` and ``problems``, each with its place; for a prompt ``findings`` and ``tokens``, for a list ``hints``, ``order`` and ``expected``.

        Raises
        ------
        StateUnusable
        """
        try:
            return {"ok": True, "problems": [], **(self._list if "tasks" in body else self._prompt)(body, who)}
        except InvalidTaskList as error:
            return {"ok": False, "problems": list(error.problems)}
        except InvalidRequest as error:
            return {"ok": False, "problems": [str(error)]}
        except Refused as refused:
            return {"ok": False, "problems": str(refused).splitlines()}

    def _prompt(self, body: Mapping[str, Any], who: str) -> dict[str, Any]:
        given = dict(body)
        off = _ids(given.pop("lint_off", None))
        request = self.request(given)
        if request.agent != "claude":
            return {"findings": [], "tokens": None}
        is_checked, resumes = bool(request.verify or request.expect), request.resume is not None
        found = lint(request.prompt, model=request.model, is_checked=is_checked, resumes=resumes, off=off)
        size = asdict(tokens.count(request.prompt, request.model))
        return {"findings": [each.as_dict() for each in found], "tokens": size}

    def _list(self, body: Mapping[str, Any], who: str) -> dict[str, Any]:
        planned = self.lists.plan(body)
        return {
            "order": [task.id for task in planned.tasks.in_order()],
            "expected": self._expected(planned, who),
            "hints": [hint.as_dict() for hint in planned.hints()],
        }

    def history(self, filters: Mapping[str, str], *, who: str, limit: int = PAGE, before: str = "") -> dict[str, Any]:
        """The caller's own runs that have ended, newest first.

        Parameters
        ----------
        filters : mapping of str to str
            Any of `WORDS`, and ``rehearsed``: ``true`` or ``false``.
        limit : int
        before : str
            Only runs before this one: the ``next`` of the page before.

        Raises
        ------
        InvalidRequest, StateUnusable
        """
        if unknown := sorted(filters.keys() - {*WORDS, "rehearsed"}):
            raise InvalidRequest(f"There is no filter {unknown[0][:100]!r}. There are {', '.join((*WORDS, 'rehearsed'))}.")
        if before:
            check_before(before)
        rehearsed = filters.get("rehearsed", "")
        if rehearsed not in REHEARSED:
            raise InvalidRequest(f"rehearsed must be true or false (given: {rehearsed[:40]!r}).")
        words: dict[str, Any] = {name: filters[name] for name in WORDS if filters.get(name)}
        if "list" in words:
            words["list_id"] = words.pop("list")
        if "cwd" in words:
            words["cwd"] = Path(self.lists.root, os.path.expanduser(words["cwd"]))
        wanted = filters_of(**words, rehearsed=REHEARSED[rehearsed], limit=limit + 1, before=before, now=time.time())
        reconcile(self.home, environ=self.environ, patience=LIST_PATIENCE)
        found = past(self.home, wanted, environ=self.environ, only=self.owners.only(who))
        rows = found.to_dicts()
        following = rows[limit - 1]["run_id"] if len(rows) > limit else ""
        return {"runs": rows[:limit], "next": following, "calibration": found.calibration.words(), "notes": list(found.notes)}


def _ids(given: object) -> tuple[str, ...]:
    if given is None:
        return ()
    texts = [given] if isinstance(given, str) else cast("list[object]", given) if isinstance(given, list) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise InvalidRequest("lint_off must be the id of a rule, or a list of them.")
    return ids_of(cast("list[str]", texts))
