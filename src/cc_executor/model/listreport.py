"""What there is to report of a task list, from its journal and the reports of its runs. Pure, as the report of a run is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from cc_executor.model.ansi import clean
from cc_executor.model.listrecord import Begun, Ended, ListState, ListStatus, Record, TaskState, TaskStatus, advance_all
from cc_executor.model.receipt import Receipt, TokenUsage
from cc_executor.model.report import RunReport
from cc_executor.model.tasklist import Task, TaskList


class Span(msgspec.Struct, frozen=True):
    """One attempt of a task in time: seconds since the list began. `end` None: it has not ended."""

    task: str
    begin: float
    end: float | None


class TaskReport(msgspec.Struct, frozen=True, kw_only=True):
    """One task. `run` is the report of its newest run, if that is kept; `seconds` of all attempts; `next_step` says what a person can do."""

    task: Task
    state: TaskState
    run: RunReport | None = None
    usage: TokenUsage = msgspec.field(default_factory=TokenUsage)
    seconds: float = 0.0
    rehearsed: bool = False
    next_step: str = ""

    @property
    def is_bad(self) -> bool:
        """Whether it did not end well."""
        return self.state.status in {TaskStatus.FAILED, TaskStatus.STOPPED, TaskStatus.SKIPPED}


class ListReport(msgspec.Struct, frozen=True, kw_only=True):
    """One list.

    Attributes
    ----------
    wall : float
        Seconds from the first attempt's beginning to the last one's end.
    work : float
        Seconds of all tasks together, with every attempt.
    path : tuple of str
        The critical path: the chain of needs that took longest, likewise. No list with these times ends earlier, whatever runs beside it.
    path_seconds : float
    usage : TokenUsage
        Of all runs that are kept, also of attempts that were made again.
    """

    list_id: str
    tasks: TaskList
    state: ListState
    rows: tuple[TaskReport, ...]
    spans: tuple[Span, ...] = ()
    started_at: float | None = None
    wall: float = 0.0
    work: float = 0.0
    path: tuple[str, ...] = ()
    path_seconds: float = 0.0
    usage: TokenUsage = msgspec.field(default_factory=TokenUsage)
    next_steps: tuple[str, ...] = ()

    def count(self, status: TaskStatus) -> int:
        """Tasks that stand so."""
        return sum(row.state.status is status for row in self.rows)


def list_report(
    list_id: str, tasks: TaskList, records: Sequence[Record], runs: Mapping[str, RunReport], receipts: Mapping[str, Receipt]
) -> ListReport:
    """The report of a list.

    Parameters
    ----------
    records : sequence of Record
        The list's journal.
    runs : mapping of str to RunReport
        By run id; those of newest attempts that are kept.
    receipts : mapping of str to Receipt
        By run id; those of all attempts that are kept.
    """
    state = advance_all(ListState(), records)
    begun = [record for record in records if isinstance(record, Begun)]
    started = min((record.at for record in begun), default=None)
    spans = _spans(records, started or 0.0)
    by_task: dict[str, list[Receipt]] = {}
    for record in begun:
        if record.run_id in receipts:
            by_task.setdefault(record.task, []).append(receipts[record.run_id])
    seconds = _seconds(records)
    rows = tuple(
        _row(list_id, task, state.task(task.id), runs, by_task.get(task.id, []), seconds=seconds.get(task.id, 0.0))
        for task in tasks.in_order()
    )
    path, path_seconds = critical_path(tasks, seconds)
    return ListReport(
        list_id=list_id,
        tasks=tasks,
        state=state,
        rows=rows,
        spans=spans,
        started_at=started,
        wall=round(max((span.end for span in spans if span.end is not None), default=0.0), 3),
        work=round(sum(row.seconds for row in rows), 3),
        path=path,
        path_seconds=round(path_seconds, 3),
        usage=_sum(receipt.usage for several in by_task.values() for receipt in several),
        next_steps=_next_steps(list_id, state, rows),
    )


def critical_path(tasks: TaskList, seconds: Mapping[str, float]) -> tuple[tuple[str, ...], float]:
    """The chain of needs that took longest, and its seconds; from the seconds of each task that took any."""
    ends: dict[str, float] = {}
    before: dict[str, str] = {}  # the need that ends last; whole paths would grow with the square of a long chain
    for task in tasks.in_order():
        need = max((each for each in task.all_needs if each in ends), key=ends.__getitem__, default="")
        ends[task.id] = ends.get(need, 0.0) + seconds.get(task.id, 0.0)
        before[task.id] = need
    last = max(ends, key=ends.__getitem__, default="")
    longest, path = ends.get(last, 0.0), list[str]()
    while last:
        path.append(last)
        last = before[last]
    return tuple(reversed(path)), longest


def _seconds(records: Sequence[Record]) -> dict[str, float]:
    """How long each task was worked at, over all attempts: what was tried again took its time as well."""
    attempts = {(record.task, record.attempt): record.seconds for record in records if isinstance(record, Ended)}
    found: dict[str, float] = {}
    for (task, _), took in attempts.items():
        found[task] = found.get(task, 0.0) + took
    return found


def _spans(records: Sequence[Record], started: float) -> tuple[Span, ...]:
    open_: dict[tuple[str, int], float] = {}
    found: list[Span] = []
    for record in records:
        if isinstance(record, Begun):
            open_[record.task, record.attempt] = record.at - started
        elif isinstance(record, Ended) and (begin := open_.pop((record.task, record.attempt), None)) is not None:
            found.append(Span(record.task, round(begin, 3), round(max(begin, record.at - started), 3)))
    found += [Span(task, round(begin, 3), None) for (task, _), begin in open_.items()]
    return tuple(sorted(found, key=lambda span: (span.begin, span.task)))


def _row(
    list_id: str, task: Task, known: TaskState, runs: Mapping[str, RunReport], receipts: Sequence[Receipt], *, seconds: float
) -> TaskReport:
    run = runs.get(known.run_id)
    return TaskReport(
        task=task,
        state=known,
        run=run,
        usage=_sum(receipt.usage for receipt in receipts),
        seconds=seconds,
        rehearsed=bool(receipts) and receipts[-1].rehearsed is not None,
        next_step=_cure(list_id, task, known, run),
    )


def _cure(list_id: str, task: Task, known: TaskState, run: RunReport | None) -> str:
    match known.status:
        case TaskStatus.FAILED:
            said = clean(run.receipt.outcome.cure) if run is not None else ""
            return said or f"Look at what it says, mend the cause, and do it again: `cc-executor tasks retry {task.id} {list_id}`."
        case TaskStatus.STOPPED:
            return "Somebody stopped it; run the list again to do it."
        case TaskStatus.SKIPPED:
            return "It is done when what it needs has ended well." if "needs" in known.summary else ""
        case _:
            return ""


def _next_steps(list_id: str, state: ListState, rows: Sequence[TaskReport]) -> tuple[str, ...]:
    if state.status is ListStatus.OK:
        return ()
    found = [f"{row.task.id}: {row.next_step}" for row in rows if row.state.status is TaskStatus.FAILED]
    if state.status is ListStatus.OPEN:
        return (*found, f"The list has not ended: `cc-executor tasks show {list_id}` says how it stands.")
    return (*found, f"`cc-executor tasks run {list_id}` goes on from here; what ended well is not done again.")


def _sum(usages: Iterable[TokenUsage]) -> TokenUsage:
    total = TokenUsage()
    for usage in usages:
        total = TokenUsage(**{name: getattr(total, name) + getattr(usage, name) for name in TokenUsage.model_fields})
    return total
