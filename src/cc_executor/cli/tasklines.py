"""The tasks of a list as lines in a terminal, and as rows of JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cc_executor.model.listrecord import TaskState, TaskStatus
from cc_executor.model.notice import duration, money
from cc_executor.model.table import flat
from cc_executor.store.localtime import local

MARKS: Final[Mapping[TaskStatus, str]] = {
    TaskStatus.WAITING: "·",
    TaskStatus.RUNNING: "▶",
    TaskStatus.OK: "✓",
    TaskStatus.FAILED: "✗",
    TaskStatus.SKIPPED: "–",
    TaskStatus.STOPPED: "■",
}


def line_of(task_id: str, title: str, known: TaskState) -> str:
    """How a task stands."""
    parts = [f"{MARKS[known.status]} {task_id:<20} {known.status.value:<8}"]
    if known.status not in {TaskStatus.WAITING, TaskStatus.RUNNING, TaskStatus.SKIPPED}:
        parts.append(f"{duration(known.seconds):>8}")
        if known.spent:
            parts.append(money(known.spent))
    if known.status is TaskStatus.WAITING and known.until is not None:
        return "  ".join([*parts, f"until {local(known.until):%H:%M:%S} ({flat(known.why)})"])
    said = flat(title) if known.status in {TaskStatus.OK, TaskStatus.WAITING, TaskStatus.RUNNING} else flat(known.summary)
    return "  ".join([*parts, said]).rstrip()


def rows_of(tasks: Mapping[str, TaskState]) -> list[dict[str, Any]]:
    """The same with `--json`."""
    from cc_executor.tasks import row  # here: a list is looked at more often without --json, and needs nothing of what runs one

    return [{"task": name, **row(known)} for name, known in tasks.items()]
