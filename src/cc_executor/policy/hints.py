"""The prompts of a task list, looked over before it runs: hints, never problems. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cc_executor.errors import InvalidRequest
from cc_executor.model.tasklist import Problem, TaskKind, TaskList, place_of
from cc_executor.policy.lint import EVERY, Finding, known, lint

WHOLE: Final = ""  # stands for the list where ids of tasks stand


@dataclass(frozen=True, slots=True)
class Hint:
    """What was found in the prompt of a task. `place`: as in `Problem`."""

    task: str
    place: str
    finding: Finding

    def __str__(self) -> str:
        found = self.finding
        excerpt = f" ({found.excerpt})" if found.excerpt else ""
        return f"{self.place}: {found.rule.severity.value} {found.rule.id}: {found.detail or f'its prompt {found.rule.title}'}{excerpt}. {found.rule.suggestion}"

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"task": self.task, "place": self.place, **self.finding.as_dict()}


def hints(tasks: TaskList, *, off: Mapping[str, Sequence[str]] | None = None, places: Mapping[int, str] | None = None) -> tuple[Hint, ...]:
    """What may be wrong with the prompts, task by task in the order of the list.

    Parameters
    ----------
    tasks : TaskList
    off : mapping, optional
        Rules that are not asked, for a task by its id and for all by `WHOLE`.
    places : mapping, optional
        For each task's position words for where it stands.
    """
    off = off or {}
    found: list[Hint] = []
    for number, task in enumerate(tasks.tasks):
        silent = (*off.get(WHOLE, ()), *off.get(task.id, ()))
        if task.kind is not TaskKind.AGENT or EVERY in silent:
            continue
        options = task.options
        findings = lint(
            task.text,
            model=options.get("model"),
            is_checked=bool(options.get("verify") or options.get("expect")),
            resumes="resume" in options,
            off=silent,
        )
        found += [Hint(task.id, place_of(number, task.id, places), finding) for finding in findings]
    return tuple(found)


def unknown_rules(off: Mapping[str, Sequence[str]]) -> list[Problem]:
    """Rules that a list switches off and that there are not."""
    found: list[Problem] = []
    for task_id, ids in off.items():
        try:
            known(ids)
        except InvalidRequest as error:
            found.append(Problem(f"task {task_id!r}" if task_id else "lint_off", str(error)))
    return found
