"""Views of a task list that miss frames, come late and reload: in the end each shows every row and the head as they are, whatever has happened to the list."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any, Final

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cc_executor.model.event import Event, Exited, StderrWritten, TextWritten, ToolCalled
from cc_executor.model.listrecord import (
    INTERRUPTED,
    Begun,
    Capped,
    Closed,
    Edited,
    Ended,
    HookTold,
    Hurried,
    ListState,
    ListStatus,
    Paused,
    Record,
    Resumed,
    RetryAsked,
    SkipAsked,
    Skipped,
    Stopped,
    Validated,
    Validating,
    Waiting,
    advance,
)
from cc_executor.model.state import RunState
from cc_executor.model.tasklist import Task, TaskKind, TaskList
from cc_executor.model.taskrows import TaskBoard
from cc_executor.wire.pace import FRAME_SECONDS, HEARTBEAT_SECONDS, PacedFeed
from cc_executor.wire.taskfeed import FRAME_ROWS, TaskFeed
from wire.test_lost_frames import LAST_LOST, LOST, TICK, Channel, Way

TASKS: Final = TaskList(
    cwd="/",
    max_cost=5.0,
    tasks=(
        Task(id="a", text="do", title="A"),
        Task(id="b", kind=TaskKind.SHELL, text="true", needs=("a",)),
        Task(id="c", text="do", needs=("a", "b"), options={"rehearse": "hello"}),
        Task(id="d", kind=TaskKind.SHELL, text="true"),
    ),
)


class View(Channel):
    """The view of a list, as `tasks.js` has it: it never forgets a row, and a row that is new to it must come whole."""

    def __init__(self, name: str, feed: PacedFeed, lost: set[int]) -> None:
        super().__init__(name, feed, lost)
        self.rows: dict[str, dict[str, Any]] = {}
        self.totals: dict[str, Any] = {}
        self.is_done = False

    def show(self, content: dict[str, Any], body: dict[str, Any], *, is_reset: bool) -> None:
        del is_reset
        self.totals, self.is_done = content["totals"], bool(content.get("done"))
        for row in body["rows"]:
            assert row["id"] in self.rows or "number" in row, "a piece of a row that is not here"
            self.rows.setdefault(row["id"], {}).update(row)


def shown(board: TaskBoard) -> dict[str, dict[str, Any]]:
    """Every row as it is now, as a view has it. Their clocks stand still here."""
    return {task.id: json.loads(msgspec.json.encode(board.row(task.id))) | {"elapsed": 0.0} for task in board.order}


def still(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {task_id: row | {"elapsed": 0.0} for task_id, row in rows.items()}


IDS: Final = st.sampled_from("abcd")
ATTEMPTS: Final = st.integers(1, 3)
AT: Final = st.sampled_from([0.0, 90.0, 110.0])
RUNS: Final = st.sampled_from(["", "r1", "r2"])
WORDS: Final = st.sampled_from(["", "word", "two\nlines", "\x1b[31m$x$"])
COSTS: Final = st.sampled_from([None, 0.0, 0.5])
RECORDS: Final[st.SearchStrategy[Record]] = st.one_of(
    st.builds(Begun, at=AT, task=IDS, attempt=ATTEMPTS, run_id=RUNS),
    st.builds(
        Ended,
        at=AT,
        task=IDS,
        attempt=ATTEMPTS,
        outcome=st.sampled_from(["ok", "failed", INTERRUPTED]),
        summary=WORDS,
        text=WORDS,
        cost=COSTS,
        seconds=st.sampled_from([0.0, 2.5]),
        to_validate=st.booleans(),
        launched=st.booleans(),
    ),
    st.builds(Waiting, at=AT, task=IDS, until=AT, why=WORDS, cause=st.sampled_from(["retry", "usage_limit"])),
    st.builds(Hurried, at=AT, task=IDS),
    st.builds(Validating, at=AT, task=IDS, attempt=ATTEMPTS, run_id=RUNS),
    st.builds(Validated, at=AT, task=IDS, attempt=ATTEMPTS, verdict=st.sampled_from(["accepted", "rejected"]), accepted=st.booleans()),
    st.builds(Capped, at=AT, max_cost=COSTS),
    st.builds(Skipped, at=AT, task=IDS, because=WORDS),
    st.builds(Closed, at=AT, status=st.sampled_from(ListStatus), summary=WORDS),
    st.builds(Paused, at=AT),
    st.builds(Resumed, at=AT),
    st.builds(Stopped, at=AT, task=IDS | st.just("")),
    st.builds(SkipAsked, at=AT, task=IDS),
    st.builds(RetryAsked, at=AT, tasks=st.lists(IDS, max_size=2).map(tuple)),
    st.builds(Edited, at=AT, task=IDS, text=WORDS),
    st.builds(HookTold, at=AT, task=IDS | st.just(""), text=WORDS),
)
EVENTS: Final[st.SearchStrategy[Event]] = st.one_of(
    st.builds(TextWritten, block=st.sampled_from(["b", "c"]), text=WORDS),
    st.builds(StderrWritten, text=WORDS),
    st.just(ToolCalled(tool_id="t", name="Bash", input='{"command": "make"}')),
    st.just(Exited(code=0)),
)
WRITTEN: Final = st.tuples(IDS, st.lists(EVENTS, max_size=2), st.builds(RunState, cost=COSTS, is_paused=st.booleans()))
ALONE: Final = st.sampled_from(["", "nobody runs it"])
STEPS: Final = st.lists(st.tuples(RECORDS | WRITTEN | ALONE, st.sampled_from([0, 1, 2, 30])), max_size=15)


# The message that is lost is a frame: a hundred lists of random lengths need not have one.
@example(
    steps=[(Begun(at=0.0, task="a", attempt=1), 30), (Begun(at=0.0, task="a", attempt=1), 1), (Stopped(at=0.0), 0)],
    lost=set(),
    lost_too={6},
    late=0,
    is_ended=False,
)
@given(STEPS, LOST, LOST, st.integers(0, 12), st.booleans())
def test_whatever_is_lost_each_view_of_a_list_shows_what_there_is(
    steps: list[tuple[Any, int]], lost: set[int], lost_too: set[int], late: int, is_ended: bool
) -> None:
    board, state = TaskBoard(TASKS, list_id="l"), ListState()
    way = Way()
    feed = TaskFeed(board, way.send, wall=lambda: way.now)
    early, other = View("early", feed, lost), View("late", feed, lost_too)
    way.views.append(early)
    for number, (step, ticks) in enumerate(steps):
        if number == late:
            way.views.append(other)
        if isinstance(step, str):
            board.leave(step, can_continue=bool(step))
        elif isinstance(step, tuple):
            task_id, events, seen = step
            board.apply(task_id, events, seen, way.now)
        else:
            state = advance(state, step)
            board.show(state)
        way.run(feed, ticks)
    if other not in way.views:
        way.views.append(other)
    assert all(later - earlier >= FRAME_SECONDS / 2 for earlier, later in pairwise(way.sent_at))
    if is_ended:
        feed.finish(way.now)
    way.run(feed, round((LAST_LOST + 3) * HEARTBEAT_SECONDS / TICK))  # each of them may be the only one between two heartbeats
    feed.tick(way.now)
    assert feed.is_settled
    for view in (early, other):
        assert still(view.rows) == shown(board), view.name
        assert view.totals == msgspec.to_builtins(board.totals()), view.name
        assert view.is_done == is_ended


@settings(max_examples=20)
@given(st.integers(1, 3 * FRAME_ROWS), st.sets(st.integers(0, 3 * FRAME_ROWS - 1), max_size=5))
def test_a_list_of_any_length_ends_with_every_row_and_each_frame_is_bounded(count: int, skipped: set[int]) -> None:
    tasks = tuple(Task(id=f"t{number}", kind=TaskKind.SHELL, text="true") for number in range(count))
    board = TaskBoard(TaskList(cwd="/", tasks=tasks))
    frames: list[tuple[dict[str, Any], dict[str, Any]]] = []
    feed = TaskFeed(board, lambda content, buffers: frames.append((content, json.loads(buffers[0]))), wall=lambda: 0.0)
    view = View("v", feed, set())
    view.tick(0.0)
    feed.tick(0.0)
    view.hear(0.0, *frames[0])
    state = ListState()
    for number in skipped:
        if number < count:
            state = advance(state, Skipped(at=0.0, task=f"t{number}", because="so"))
    board.show(state)
    feed.finish(TICK)
    for content, body in frames[1:]:
        assert not view.is_done, "what says that this is all comes last"
        view.hear(TICK, content, body)
    assert view.is_done
    assert still(view.rows) == shown(board)
    for _, body in frames:
        numbers = [board.number(row["id"]) for row in body["rows"]]
        assert numbers == sorted(numbers)
        assert len(numbers) <= FRAME_ROWS
