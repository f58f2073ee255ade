"""What a person sees of a task list: one row for each task, and the totals. Pure: a list, its state and what runs have written in, rows out."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Final

import msgspec

from cc_executor.model import toolcall
from cc_executor.model.ansi import clean
from cc_executor.model.ask import what_of
from cc_executor.model.event import Event, StderrWritten, TextWritten, ToolCalled
from cc_executor.model.graph import Graph, graph_of
from cc_executor.model.listrecord import OWED, ListState, ListStatus, TaskState, TaskStatus
from cc_executor.model.paths import Roots
from cc_executor.model.phase import Phase
from cc_executor.model.receipt import Receipt
from cc_executor.model.state import RunState
from cc_executor.model.table import flat
from cc_executor.model.tasklist import Task, TaskKind, TaskList

LINE_CHARS: Final = 200  # one line of a row
TAIL_CHARS: Final = 2_000  # of what a task writes, to find its last line in
_WORD: Final = re.compile(r"\w")
EVENTS_LOOKED_AT: Final = 200  # of one batch, the newest: a flood's batch holds thousands
NEEDS_SHOWN: Final = 12
_UNSETTLED: Final = frozenset({TaskStatus.WAITING, TaskStatus.RUNNING})


class TaskRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row.

    Attributes
    ----------
    number : int
        Place in the order in which tasks start, from 1.
    needs : tuple of str
        Ids, at most `NEEDS_SHOWN`; `more_needs` counts the rest.
    status : str
        A word of `TaskStatus`.
    phase : str
        While it runs, a word of `cc_executor.model.phase.Phase`.
    line : str
        What it writes, has written, or waits for.
    cost : float or None
        US dollars; None when nobody said.
    estimate : str
        How long it usually takes, until it has ended.
    can : tuple of str
        The commands that make sense now.
    """

    number: int
    id: str
    title: str = ""
    kind: str = "agent"
    group: str = ""
    needs: tuple[str, ...] = ()
    more_needs: int = 0
    status: str = "waiting"
    phase: str = ""
    wish: str = ""  # what somebody has asked for and has not happened yet: stop, skip
    attempt: int = 0
    run_id: str = ""
    line: str = ""
    is_ticking: bool = False
    tokens: int = 0
    cost: float | None = None
    rehearsal: bool = False
    is_edited: bool = False
    until: float | None = None  # it waits till then; seconds since the epoch
    is_validated: bool = False  # a fresh agent looks at what it has done
    estimate: str = ""
    can: tuple[str, ...] = ()


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """The head of the view."""

    name: str = ""
    list_id: str = ""
    status: str = "open"
    summary: str = ""
    is_paused: bool = False
    until: float | None = None  # the list waits till then; nothing runs
    is_stopping: bool = False
    count: int = 0
    ok: int = 0
    failed: int = 0
    skipped: int = 0
    stopped: int = 0
    running: int = 0
    tokens: int = 0
    spent: float = 0.0
    max_cost: float | None = None
    rehearsal: bool = False  # every agent is rehearsed
    note: str = ""  # the newest sentence about a hook that did not end well
    alone: str = ""  # why nobody runs the list, and what can be done about it
    can_continue: bool = False  # somebody else can run it on


class LastLine:
    """The last line of what a run writes, whatever it writes and however much. `roots`: from where its paths are seen."""

    __slots__ = ("_block", "_line", "_tail", "roots")

    def __init__(self, roots: Roots = ()) -> None:
        self.roots = roots
        self._block = ""
        self._tail = ""
        self._line = ""

    def feed(self, events: list[Event]) -> None:
        """Take what happened; the newest of it is enough."""
        for event in events[-EVENTS_LOOKED_AT:]:
            match event:
                case TextWritten(block=block, text=text, whole=whole):
                    self._tail = (text if whole or block != self._block else self._tail + text)[-TAIL_CHARS:]
                    self._block = block
                case StderrWritten(text=text):
                    self._tail = ((self._tail if self._block == "stderr" else "") + text)[-TAIL_CHARS:]
                    self._block = "stderr"
                case ToolCalled(name=name, input=call, whole=True):
                    known = toolcall.fields(call, self.roots)
                    about = toolcall.summary(known) if known is not None else ""
                    self._block, self._tail, self._line = "", "", f"{name}({about})"
                case _:
                    pass

    def __str__(self) -> str:
        return last_line(self._tail) or self._line


def last_line(text: str) -> str:
    """The last line of `text` that holds a letter or a digit (the bracket that closes a JSON text says nothing), or that is not empty."""
    tail = clean(text[-TAIL_CHARS:]).rstrip()
    telling = next((line for line in reversed(tail.split("\n")) if _WORD.search(line)), tail.rsplit("\n", 1)[-1])
    return toolcall.one_line(telling, LINE_CHARS)


def first_line(text: str) -> str:
    """The first line of `text` that is not empty."""
    return toolcall.one_line(clean(text[:TAIL_CHARS]).lstrip().split("\n", 1)[0], LINE_CHARS)


class _Run(msgspec.Struct):
    """What is known of a task's newest run beyond the list's own state."""

    line: LastLine
    phase: Phase = Phase.STARTING
    tokens: int = 0
    cost: float | None = None
    settled: float = 0.0  # seconds that it was at work, as of `at`
    at: float = 0.0
    run_id: str = ""
    asks: str = ""  # what it waits for somebody to say


class TaskBoard:
    """The rows of one list. Fed with its state and its runs; tells which rows have changed.

    Parameters
    ----------
    tasks : TaskList
    list_id : str
    roots : callable
        From where the paths of a task's runs are seen: each may have a folder of its own.
    """

    def __init__(self, tasks: TaskList, *, list_id: str = "", roots: Callable[[Task], Roots] = lambda _: ()) -> None:
        self.tasks = tasks
        self.order: tuple[Task, ...] = tasks.in_order()
        self.state = ListState()
        self.dirty: dict[str, None] = {task.id: None for task in self.order}
        self._list_id, self._roots = list_id, roots
        self._numbers = {task.id: number for number, task in enumerate(self.order, start=1)}
        self._runs: dict[str, _Run] = {}
        self._estimates: Mapping[str, str] = {}
        self._alone, self._can_continue = "", False
        self._needed_by: defaultdict[str, list[str]] = defaultdict(list)
        for task in self.order:
            for need in task.all_needs:
                self._needed_by[need].append(task.id)
        agents = [task for task in tasks.tasks if task.kind is TaskKind.AGENT]
        self._is_rehearsal = bool(agents) and all(is_rehearsed(task) for task in agents)

    def expect(self, estimates: Mapping[str, str]) -> None:
        """Take how long tasks usually take, in words."""
        self._estimates = estimates
        self.dirty.update(dict.fromkeys(estimates))

    def leave(self, why: str, *, can_continue: bool) -> None:
        """Take why nobody runs the list; empty when somebody does. `can_continue`: whether the one who shows it can have it run on."""
        if (why, can_continue) != (self._alone, self._can_continue):
            self._alone, self._can_continue = why, can_continue
            self.dirty.update(dict.fromkeys(self._numbers))  # what can be asked of a row depends on it

    @cached_property
    def graph(self) -> Graph | None:
        """The picture of the needs, if there is one."""
        return graph_of(self.order)

    def show(self, state: ListState) -> list[str]:
        """Take the list's state; the ids of the tasks whose status has changed, in order."""
        before, self.state = self.state, state
        changed: list[str] = []
        for task_id in state.tasks.keys() | before.tasks.keys():
            was, known = before.task(task_id), state.task(task_id)
            if was is known or task_id not in self._numbers:
                continue
            self.dirty[task_id] = None
            if (was.status, was.begun, was.until) != (known.status, known.begun, known.until):
                changed.append(task_id)
                self.dirty.update(dict.fromkeys(self._needed_by[task_id]))
        for task_id in state.texts.keys() - before.texts.keys():
            self.dirty[task_id] = None
        if (before.status, before.is_paused, before.is_stopped) != (state.status, state.is_paused, state.is_stopped):
            self.dirty.update(dict.fromkeys(self._numbers))  # what can be asked of a row depends on it
        if (before.notes, before.caps) != (state.notes, state.caps) and self.order:
            self.dirty[self.order[0].id] = None  # the head says it, and comes with any row
        return sorted(changed, key=self._numbers.__getitem__)

    def apply(self, task_id: str, events: list[Event], state: RunState, now: float) -> None:
        """Take what a task's run has written; `now` in seconds since the epoch."""
        run = self._run(task_id)
        run.line.feed(events)
        run.phase, run.tokens, run.cost = state.phase, state.usage.input_tokens + state.usage.output_tokens, state.cost
        run.asks = what_of(state.asks[0], run.line.roots) if state.asks else ""
        if state.started is not None:
            until = state.exited.at if state.exited is not None else now
            run.settled, run.at = max(0.0, until - state.started.at - state.paused - state.frozen), now
        self.dirty[task_id] = None

    def receive(self, task_id: str, receipt: Receipt) -> None:
        """Take the receipt of a run that nobody has followed here."""
        run = self._run(task_id)
        usage = receipt.usage
        run.tokens = run.tokens or usage.input_tokens + usage.output_tokens
        self.dirty[task_id] = None

    def _run(self, task_id: str) -> _Run:
        run_id = _newest(self.state.task(task_id))
        run = self._runs.get(task_id)
        if run is None or run.run_id != run_id:
            run = self._runs[task_id] = _Run(LastLine(self._roots(self.tasks.task(task_id))), run_id=run_id)
        return run

    def elapsed(self, task_id: str, now: float) -> float:
        """Seconds that the newest attempt was at work; `now` in seconds since the epoch."""
        known = self.state.task(task_id)
        if known.status is not TaskStatus.RUNNING:
            return known.seconds
        run = self._runs.get(task_id)
        if run is not None and run.run_id == _newest(known) and run.at:
            return run.settled + (0.0 if run.phase in {Phase.PAUSED, Phase.ENDED} else max(0.0, now - run.at))
        return max(0.0, now - known.started_at) if known.started_at is not None else 0.0

    def number(self, task_id: str) -> int:
        """The task's place in the order, from 1."""
        return self._numbers[task_id]

    def row(self, task_id: str) -> TaskRow:
        """The row as of now."""
        task, known = self.tasks.task(task_id), self.state.task(task_id)
        run = self._runs.get(task_id)
        if run is not None and run.run_id != _newest(known):
            run = None
        is_running = known.status is TaskStatus.RUNNING
        is_paid = known.validation == OWED  # the task's own run is over; that of the look at it has not begun
        phase = run.phase if run is not None and is_running else Phase.STARTING
        wish = "stop" if known.is_stopped else "skip" if known.is_unwanted else ""
        spent = known.spent + (run.cost or 0.0 if run is not None and is_running and not is_paid and not is_rehearsed(task) else 0.0)
        return TaskRow(
            number=self._numbers[task_id],
            id=task.id,
            title=flat(task.title),
            kind=task.kind.value,
            group=task.group,
            needs=task.all_needs[:NEEDS_SHOWN],
            more_needs=max(0, len(task.all_needs) - NEEDS_SHOWN),
            status=known.status.value,
            phase=phase.value if is_running and task.kind is not TaskKind.CALL else "",
            wish=wish if known.status in _UNSETTLED and self.state.status is ListStatus.OPEN else "",
            attempt=known.begun,
            run_id=known.run_id,
            line=self._line(task, known, run),
            is_ticking=is_running and phase not in {Phase.PAUSED, Phase.ENDED},
            tokens=run.tokens if run is not None else 0,
            cost=spent if spent or (task.kind is TaskKind.AGENT and not is_rehearsed(task) and known.status not in _UNSETTLED) else None,
            rehearsal=is_rehearsed(task),
            is_edited=task_id in self.state.texts,
            until=known.until if known.status is TaskStatus.WAITING and self.state.status is ListStatus.OPEN else None,
            is_validated=bool(known.validation) and is_running,
            estimate=self._estimates.get(task_id, "") if known.status in _UNSETTLED else "",
            can=self._can(task, known),
        )

    def _line(self, task: Task, known: TaskState, run: _Run | None) -> str:
        match known.status:
            case TaskStatus.RUNNING:
                if known.validation:
                    return f"validation: {run.line if run is not None and known.validator else 'about to begin'}"
                if run is not None and run.asks:
                    return toolcall.one_line(clean(f"asks: {run.asks}"), LINE_CHARS)
                return str(run.line) if run is not None else ""
            case TaskStatus.OK:
                return (first_line if task.kind is TaskKind.AGENT else last_line)(known.text) or toolcall.one_line(clean(known.summary))
            case TaskStatus.WAITING:
                open_needs = [need for need in task.all_needs if self.state.task(need).status in _UNSETTLED]
                if self.state.status is not ListStatus.OPEN:
                    return f"was waiting: {known.why}" if known.why else "was not begun"
                if known.until is not None:
                    return toolcall.one_line(clean(known.why), LINE_CHARS)
                return f"waits for {toolcall.one_line(', '.join(open_needs), LINE_CHARS) or 'its turn'}"
            case _:
                said = toolcall.one_line(clean(known.summary), LINE_CHARS)
                return said or known.outcome.replace("_", " ")

    def _can(self, task: Task, known: TaskState) -> tuple[str, ...]:
        if self._alone:
            return ()
        if self.state.status is not ListStatus.OPEN or self.state.is_stopped or known.is_stopped:
            return ("retry",) if known.status is TaskStatus.STOPPED and self._is_open() else ()
        match known.status:
            case TaskStatus.WAITING if known.until is not None and not known.is_unwanted:
                return ("now", "skip", "stop")
            case TaskStatus.WAITING:
                return () if known.is_unwanted else ("edit", "skip") if task.kind is not TaskKind.CALL else ("skip",)
            case TaskStatus.RUNNING:
                return () if known.is_unwanted else ("stop", "skip")
            case TaskStatus.FAILED | TaskStatus.STOPPED:
                return ("retry",)
            case TaskStatus.SKIPPED:
                return ("retry",) if known.is_unwanted else ()  # else its need is what is to be tried again
            case TaskStatus.OK:
                return ()

    def _until(self, running: list[str]) -> float | None:
        """When the list goes on, if it only waits."""
        times = [task.until for task in self.state.tasks.values() if task.status is TaskStatus.WAITING and task.until is not None]
        return min(times) if times and not running and self.state.status is ListStatus.OPEN else None

    def _is_open(self) -> bool:
        return self.state.status is ListStatus.OPEN and not self.state.is_stopped

    def totals(self) -> Totals:
        """The head as of now."""
        counts = dict.fromkeys(TaskStatus, 0)
        running: list[str] = []
        for task in self.order:
            status = self.state.task(task.id).status
            counts[status] += 1
            if status is TaskStatus.RUNNING:
                running.append(task.id)
        live = {task_id: self._runs[task_id] for task_id in running if task_id in self._runs and not is_rehearsed(self.tasks.task(task_id))}
        return Totals(
            name=self.tasks.name,
            list_id=self._list_id,
            status=self.state.status.value,
            summary=self.state.summary,
            is_paused=self.state.is_paused,
            until=self._until(running),
            is_stopping=self.state.is_stopped and self.state.status is ListStatus.OPEN and not self._alone,
            count=len(self.order),
            ok=counts[TaskStatus.OK],
            failed=counts[TaskStatus.FAILED],
            skipped=counts[TaskStatus.SKIPPED],
            stopped=counts[TaskStatus.STOPPED],
            running=counts[TaskStatus.RUNNING],
            tokens=sum(run.tokens for run in self._runs.values()),
            spent=self.state.spent + sum(run.cost or 0.0 for run in live.values()),
            max_cost=self.state.cap(self.tasks.max_cost),
            rehearsal=self._is_rehearsal,
            note=toolcall.one_line(clean(self.state.notes[-1]), LINE_CHARS) if self.state.notes else "",
            alone=self._alone if self.state.status is ListStatus.OPEN else "",
            can_continue=self._can_continue,
        )


def _newest(known: TaskState) -> str:
    """The run that works for a task now, or did last."""
    return known.validator or known.run_id


def is_rehearsed(task: Task) -> bool:
    """Whether a script speaks in the model's place, and nothing is spent."""
    return bool(task.options.get("rehearse"))


def run_ids(state: ListState, ids: Iterable[str]) -> Mapping[str, str]:
    """The newest run of each of these tasks that has ended."""
    known = {task_id: state.task(task_id) for task_id in ids}
    return {task_id: task.run_id for task_id, task in known.items() if task.run_id and task.status not in _UNSETTLED}
