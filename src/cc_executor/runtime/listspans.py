"""A task list and its attempts as spans, around the runs' own; see `cc_executor.runtime.telemetry`. These are made while the list is run: its runs are theirs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from cc_executor.model.listrecord import Ended, ListState, ListStatus, Validated, Validating
from cc_executor.runtime.telemetry import spanning

if TYPE_CHECKING:
    from cc_executor.model.spans import Value
    from cc_executor.model.tasklist import Task, TaskList

L = TypeVar("L")


async def list_in_span(list_id: str, tasks: TaskList, drive: Callable[[], Awaitable[ListState]], *, environ: Mapping[str, str]) -> None:
    """Run a list, as far as it goes in this process. One that is taken up again is another span."""
    about: dict[str, Value] = {"gen_ai.operation.name": "invoke_workflow", "cc_executor.list.id": list_id}
    if tasks.name:
        about["gen_ai.workflow.name"] = tasks.name
    with spanning(f"invoke_workflow {tasks.name}".strip(), about, environ=environ) as ended:
        state = await drive()
        ended(
            {"cc_executor.list.status": state.status.value}, "" if state.status in {ListStatus.OK, ListStatus.OPEN} else state.status.value
        )


def task_in_span(
    work: Callable[[Task, L], Awaitable[Ended | Validated | Validating]], *, environ: Mapping[str, str]
) -> Callable[[Task, L], Awaitable[Ended | Validated | Validating]]:
    """The same work on a task (an attempt, or a look at one), as a span that its run is within."""

    async def worked(task: Task, live: L) -> Ended | Validated | Validating:
        about: dict[str, Any] = {"cc_executor.task.id": task.id, "cc_executor.task.kind": task.kind.value}
        with spanning(f"task {task.id}", about, environ=environ) as ended:
            done = await work(task, live)
            if isinstance(done, Validating):  # nothing was done: the look is owed again
                return done
            outcome = done.verdict if isinstance(done, Validated) else done.outcome
            is_well = done.accepted if isinstance(done, Validated) else outcome == "ok"
            ended({"cc_executor.task.attempt": done.attempt, "cc_executor.task.outcome": outcome}, "" if is_well else outcome)
            return done

    return worked
