"""What somebody sends as a task list, checked: the project's own form, and an earlier system's. Knows the server's rules; starts nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from cc_executor.errors import InvalidTaskList
from cc_executor.model.care import Validation
from cc_executor.model.request import Limits, RunRequest
from cc_executor.model.tasklist import Task, TaskKind, TaskList, place_of
from cc_executor.server.refusal import Refused
from cc_executor.store.named import is_folder
from cc_executor.taskplan import Plan, plan, request_of

if TYPE_CHECKING:
    from cc_executor.model.notify import Notify

# Fields of a request that have another name where users write them.
_OPTIONS: Final = {"output_schema": "schema"}
_LIMITS: Final = {
    "wall": "timeout",
    "stall": "stall_timeout",
    "cost": "max_cost",
    "turns": "max_turns",
    "linger": "linger",
    "journal": "journal_limit",
}
# What stands beside tasks and cannot.
_NOT_HERE: Final = {
    "prompt": "stands beside tasks: send a prompt, or tasks that have one each.",
    "hooks": "are nothing that comes over a network.",
    "execution_id": "is given by the server. A header Idempotency-Key makes a request that is sent again the same one.",
}


class ListRequests(msgspec.Struct, frozen=True, kw_only=True):
    """What a server takes for a task list.

    Attributes
    ----------
    root : Path
        Where tasks work when a request names no folder.
    unfit : collection of str
        Options that a request over a network has not.
    allowed : callable
        A request under the server's rules; raises `Refused`.
    told : callable
        Takes out of options who is told; see `Notices.take`.
    """

    root: Path
    unfit: Collection[str]
    allowed: Callable[[RunRequest], RunRequest]
    told: Callable[[dict[str, Any]], Notify | None] = lambda _: None

    def plan(self, body: Mapping[str, Any]) -> Plan:
        """A checked list under the server's rules. Blocking.

        Parameters
        ----------
        body : mapping
            ``tasks`` and what else a list has. ``timeout_per_task``: seconds, for tasks that name no timeout. ``fresh``: looked at, and obeyed by whoever
            runs the list.

        Raises
        ------
        InvalidTaskList
            Everything that is wrong, each with its place.
        Refused
            Everything that is against the rules, likewise.
        """
        return self.under_rules(self.asked(body))

    def asked(self, body: Mapping[str, Any]) -> Plan:
        """The same, whatever the rules say of it. Blocking. Raises as `plan`: where messages may be sent is looked at here."""
        given = dict(body)
        self.told(given)
        found = [f"{name}: {words}" for name, words in _NOT_HERE.items() if given.pop(name, None) is not None]
        if not isinstance(given.pop("fresh", False), bool):
            found.append("fresh: must be true or false.")
        if (where := given.get("cwd")) is None or isinstance(where, str):
            given["cwd"] = os.path.join(self.root, os.path.expanduser(where or ""))
            if not is_folder(given["cwd"]):
                found.append(f"cwd: there is no folder {given['cwd'][:1000]}. Make it, or name another.")
        found += self._unfit_options(given)
        timeout, defaults = given.pop("timeout_per_task", None), cast("object", given.get("defaults") or {})
        if timeout is not None and isinstance(defaults, dict):
            given["defaults"] = {"timeout": timeout, **cast("dict[str, Any]", defaults)}
        try:
            planned = plan(given, cwd=self.root)
            planned.tasks.digest()
            planned.tasks.model_dump_json()
        except InvalidTaskList as error:
            raise InvalidTaskList([*found, *error.problems]) from error
        except (ValueError, OverflowError) as error:  # NaN, half a surrogate pair: JSON has them, and nothing that is kept
            raise InvalidTaskList([*found, f"tasks: hold what is no text or no number ({str(error).splitlines()[0][:200]})."]) from error
        if found:
            raise InvalidTaskList(found)
        return planned

    def under_rules(self, planned: Plan) -> Plan:
        """What was asked for under the server's rules. Raises `Refused`, with everything that is against them."""
        return replace(planned, tasks=self._under_rules(planned))

    def _unfit_options(self, given: Mapping[str, Any]) -> list[str]:
        places: list[tuple[str, object]] = [("defaults", given.get("defaults"))]
        items: Any = given.get("tasks")
        for number, item in enumerate(cast("list[object]", items) if isinstance(items, list) else ()):
            name: object = cast("dict[str, Any]", item).get("id", number + 1) if isinstance(item, dict) else ""
            places.append((place_of(number, str(name)), cast("object", item)))
        return [
            f"{place}: {name} is not an option of a request."
            for place, options in places
            if isinstance(options, dict)
            for name in sorted(cast("dict[str, Any]", options).keys() & set(self.unfit))
        ]

    def _under_rules(self, planned: Plan) -> TaskList:
        tasks = planned.tasks
        found: list[str] = []
        changed: list[Task] = []
        for number, task in enumerate(tasks.tasks):
            options = dict(task.options)
            try:
                if task.kind is not TaskKind.CALL:
                    wanted = request_of(tasks, task, task.text, None, "")
                    options |= _options_between(wanted, self.allowed(wanted), tasks, task)
                validation = task.validation and self._validation(task.validation, tasks.cwd)
            except Refused as refused:
                found.append(f"{place_of(number, task.id, planned.places)}: {refused}")
                continue
            changed.append(task.model_copy(update={"options": options, "validation": validation}))
        if found:
            raise Refused(403, "NotAllowed", "\n".join(found))
        return tasks.model_copy(update={"tasks": tuple(changed)})

    def _validation(self, wanted: Validation, cwd: str) -> Validation:
        """What a fresh agent looks at, and may cost, under the rules."""
        named = wanted.max_cost if "max_cost" in wanted.model_fields_set else None
        granted = self.allowed(RunRequest(prompt="-", cwd=cwd, limits=Limits(cost=named), rehearse=wanted.rehearse)).limits.cost
        return wanted if granted is None else wanted.model_copy(update={"max_cost": min(granted, wanted.max_cost)})


def as_asked(cwd: object) -> str:
    """The folder that a request names, as it names it: what it is seen from is the server's own affair."""
    return os.path.normpath(cwd) if isinstance(cwd, str) else "."


def _options_between(before: RunRequest, after: RunRequest, tasks: TaskList, task: Task) -> dict[str, Any]:
    """What the rules have changed of a request, as options of its task."""
    said = after.model_dump(mode="json", exclude={"limits"})
    changed: dict[str, Any] = {
        _OPTIONS.get(name, name): value for name, value in said.items() if getattr(after, name) != getattr(before, name)
    }
    for name, option in _LIMITS.items():
        if (value := getattr(after.limits, name)) != getattr(before.limits, name):
            changed[option] = value
    # A task without a bound of its own gets what is left of the list's, which is less.
    is_bounded = tasks.max_cost is not None and "max_cost" in changed and tasks.max_cost <= changed["max_cost"]
    if is_bounded or task.kind is TaskKind.SHELL:
        changed.pop("max_cost", None)
    return changed
