"""What the view of a task list is told, and when: rows out of states and events, and only what has changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cc_executor.model.event import Event, StderrWritten, TextWritten, ToolCalled
from cc_executor.model.inert import NO_MATH
from cc_executor.model.listrecord import (
    Begun,
    Capped,
    Closed,
    Edited,
    Ended,
    ListState,
    ListStatus,
    Paused,
    Record,
    SkipAsked,
    Skipped,
    Stopped,
    advance,
)
from cc_executor.model.state import RunState
from cc_executor.model.taskcard import CARD_BYTES, EndedList, list_bundle, list_card
from cc_executor.model.tasklist import OnFailure, Task, TaskKind, TaskList
from cc_executor.model.taskrows import LINE_CHARS, LastLine, TaskBoard
from cc_executor.wire.pace import HEARTBEAT_SECONDS, UNANSWERED
from cc_executor.wire.taskfeed import FRAME_ROWS, TaskFeed

TICK = 0.04


def shell(task_id: str, *needs: str, **more: Any) -> Task:
    return Task(id=task_id, kind=TaskKind.SHELL, text="true", needs=needs, **more)


class Wire:
    """A list, its board and feed, and what was sent. `acks`: whether a view acknowledges at once."""

    def __init__(self, *tasks: Task, acks: bool = True, **more: Any) -> None:
        self.board = TaskBoard(TaskList(tasks=tasks, cwd="/", **more), list_id="l")
        self.state = ListState()
        self.sent: list[tuple[float, dict[str, Any], list[dict[str, Any]]]] = []
        self.now = 100.0
        self.acks = acks
        self.feed = TaskFeed(self.board, self._send, wall=lambda: self.now)

    def _send(self, content: dict[str, Any], buffers: list[bytes]) -> None:
        json.dumps(content)
        self.sent.append((self.now, content, json.loads(buffers[0])["rows"]))
        if self.acks and content.get("ask"):
            self.feed.on_message({"op": "ack", "view": "v", "seq": content["seq"]})

    def add(self, *records: Record) -> list[str]:
        for record in records:
            self.state = advance(self.state, record)
        return self.board.show(self.state)

    def write(self, task_id: str, *events: Event, **state: Any) -> None:
        self.board.apply(task_id, list(events), RunState(**state), self.now)

    def run(self, seconds: float = 1.0, *, each: Any = None) -> list[list[dict[str, Any]]]:
        """Tick for so long; the rows that were sent, frame by frame."""
        before = len(self.sent)
        for _ in range(round(seconds / TICK)):
            if each is not None:
                each()
            self.feed.tick(self.now)
            self.now += TICK
        return [rows for _, _, rows in self.sent[before:]]


def begun(task_id: str, attempt: int = 1, at: float = 100.0) -> Begun:
    return Begun(at=at, task=task_id, attempt=attempt, run_id=f"{task_id}-{attempt}")


def ended(task_id: str, outcome: str = "ok", attempt: int = 1, **more: Any) -> Ended:
    return Ended(at=101.0, task=task_id, attempt=attempt, outcome=outcome, **more)


def text(value: str) -> Event:
    return TextWritten(block="b", text=value)


def test_every_row_is_sent_whole_once_and_then_only_what_has_changed() -> None:
    wire = Wire(shell("a"), shell("b", "a"), shell("c"))
    (rows,) = wire.run()
    assert [(row["number"], row["id"], row["status"], row["line"]) for row in rows] == [
        (1, "a", "waiting", "waits for its turn"), (2, "b", "waiting", "waits for a"), (3, "c", "waiting", "waits for its turn"),
    ]  # fmt: skip
    assert wire.run(HEARTBEAT_SECONDS / 2) == [], "nothing has changed"
    assert wire.add(begun("a")) == ["a"]
    (rows,) = wire.run()
    assert rows == [
        {
            "id": "a",
            "status": "running",
            "attempt": 1,
            "run_id": "a-1",
            "phase": "starting",
            "line": "",
            "is_ticking": True,
            "can": ["stop", "skip"],
            "elapsed": 2.0,
        }
    ]
    wire.add(ended("a", text="one\ntwo\n", seconds=2.5))
    (rows,) = wire.run()
    assert [row["id"] for row in rows] == ["a", "b"]
    assert (rows[0]["line"], rows[0]["elapsed"], rows[0]["can"]) == ("two", 2.5, [])
    assert rows[1] == {"id": "b", "line": "waits for its turn", "elapsed": 0.0}


def test_a_flood_becomes_at_most_25_frames_a_second_with_the_last_line_alone() -> None:
    wire = Wire(*(shell(f"t{number}", group="g") for number in range(50)), parallel=64)
    wire.add(*(begun(f"t{number}") for number in range(50)))
    wire.run()
    count = 0

    def flood() -> None:
        nonlocal count
        count += 1
        for number in range(50):
            wire.write(f"t{number}", *(text(f"line {count}.{part} {'x' * 1000}\n") for part in range(30)))

    frames = wire.run(2.0, each=flood)
    assert 40 <= len(frames) <= 51
    assert max(len(json.dumps(rows)) for rows in frames) < 50 * (LINE_CHARS + 200)
    assert frames[-1][0]["line"].startswith(f"line {count}.29 x")
    assert set(frames[-1][0]) == {"id", "line", "elapsed"}


def test_a_view_that_does_not_paint_gets_one_frame_a_second() -> None:
    wire = Wire(shell("a"), acks=False)
    wire.add(begun("a"))
    numbers = iter(range(1000))
    frames = wire.run(10.0, each=lambda: wire.write("a", text(f"{next(numbers)}\n")))
    assert len(frames) < UNANSWERED * 6 + 12
    assert not wire.feed.is_watched


def test_a_view_that_asks_gets_everything() -> None:
    wire = Wire(shell("a"), shell("b"))
    wire.run()
    wire.feed.on_message({"op": "sync", "view": "new"})
    (rows,) = wire.run()
    assert wire.sent[-1][1]["reset"] == ["new"]
    assert [row["number"] for row in rows] == [1, 2]
    wire.feed.on_message({"op": "nonsense"})
    wire.feed.on_message(7)
    assert wire.run() == []


def test_ten_thousand_tasks_come_in_frames_of_a_bounded_size() -> None:
    wire = Wire(*(shell(f"t{number}") for number in range(10_000)))
    frames = wire.run(2.0)
    assert [len(rows) for rows in frames] == [FRAME_ROWS] * 25
    assert max(len(json.dumps(rows)) for rows in frames) < 200_000
    wire.add(begun("t0"))
    wire.feed.finish(wire.now)
    assert wire.sent[-1][1]["done"] is True
    assert [row["id"] for row in wire.sent[-1][2]] == ["t0"]


def test_where_nobody_looks_the_end_of_a_long_list_is_one_frame() -> None:
    wire = Wire(*(shell(f"t{number}") for number in range(3 * FRAME_ROWS)), acks=False)
    wire.run(3 * HEARTBEAT_SECONDS)
    assert not wire.feed.is_watched
    wire.board.dirty.update(dict.fromkeys(task.id for task in wire.board.order))
    before = len(wire.sent)
    wire.feed.finish(wire.now)
    assert [content.get("done") for _, content, _ in wire.sent[before:]] == [True]


def test_what_a_row_says_and_takes_in_every_state() -> None:
    wire = Wire(
        Task(id="a", text="do", title="A"), shell("b", "a"), shell("c"), shell("d"), shell("e"), on_failure=OnFailure.CONTINUE, max_cost=2.0
    )
    wire.add(begun("a"))
    wire.write("a", ToolCalled(tool_id="t", name="Bash", input='{"command": "ls -l"}'), cost=0.5, is_paused=True)
    row = wire.board.row("a")
    assert (row.line, row.cost, row.phase, row.is_ticking) == ("Bash(ls -l)", 0.5, "paused", False)
    assert wire.board.totals().spent == 0.5
    wire.add(ended("a", "failed", summary="no\x1b[31m luck", cost=0.75), SkipAsked(at=1, task="b"), Skipped(at=1, task="b", because="so"))
    wire.add(begun("c"), ended("c", attempt=1), begun("d"), Stopped(at=1, task="d"), Edited(at=1, task="e", text="false"))
    rows = {task: wire.board.row(task) for task in "abcde"}
    assert {task: (row.status, row.line, row.wish, row.can) for task, row in rows.items()} == {
        "a": ("failed", "no luck", "", ("retry",)),
        "b": ("skipped", "so", "", ("retry",)),
        "c": ("ok", "", "", ()),
        "d": ("running", "", "stop", ()),
        "e": ("waiting", "waits for its turn", "", ("edit", "skip")),
    }
    assert rows["e"].is_edited
    totals = wire.board.totals()
    assert (totals.ok, totals.failed, totals.skipped, totals.running, totals.count) == (1, 1, 1, 1, 5)
    assert (totals.spent, totals.max_cost) == (0.75, 2.0)
    wire.add(Paused(at=1))
    assert wire.board.totals().is_paused
    wire.add(Closed(at=1, status=ListStatus.FAILED, summary="1 of 5 tasks ended well"))
    assert [wire.board.row(task).can for task in "abcde"] == [(), (), (), (), ()]
    assert wire.board.row("e").line == "was not begun"


def test_a_list_that_was_given_another_bound_shows_that_one_at_once() -> None:
    wire = Wire(Task(id="a", text="do"), max_cost=2.0)
    wire.run()
    wire.add(Capped(at=1, max_cost=9.5))
    wire.run(2 * TICK)
    assert wire.sent[-1][1]["totals"]["max_cost"] == 9.5
    wire.add(begun("a"), ended("a", cost=3.0))
    wire.add(Closed(at=1, status=ListStatus.OK, summary="1 of 1 tasks ended well"))
    made = EndedList(list_id="l", tasks=wire.board.tasks, state=wire.state, receipts=())
    assert " · $3.00 of $9.50 · " in list_bundle(made)[0]["text/plain"]
    wire.add(Capped(at=1))
    assert wire.board.totals().max_cost is None, "somebody has lifted it"


@pytest.mark.parametrize(
    ("events", "line"),
    [
        ([text("one\ntw"), text("o")], "two"),
        ([text("one\n\n")], "one"),
        ([text('{\n "rows": 5\n}\n')], '"rows": 5'),
        ([text("}\n)\n")], ")"),
        ([text("10%\r20%\r30%")], "30%"),
        ([text("out"), StderrWritten(text="err\n")], "err"),
        ([text("\x1b]0;title\x07\x1b[31mred\x1b[0m")], "red"),
        ([text("x" * 10_000_000)], "x" * (LINE_CHARS - 1) + "…"),
        ([ToolCalled(tool_id="t", name="Read", input="no JSON")], "Read()"),
    ],
)
def test_the_last_line_of_whatever_is_written(events: list[Event], line: str) -> None:
    last = LastLine()
    last.feed(events)
    assert str(last) == line


def test_the_table_that_stays_is_bounded_inert_and_has_no_formulas() -> None:
    wire = Wire(*(Task(id=f"t{number}", text="do", title="<i>$x$</i>") for number in range(500)), name="$1 & $2 \\(x\\)")
    wire.add(
        *(
            record
            for number in range(500)
            for record in (begun(f"t{number}"), ended(f"t{number}", text="<script>1</script>\n" * 200, cost=0.5))
        )
    )
    wire.add(Closed(at=1, status=ListStatus.OK, summary="500 of 500 tasks ended well"))
    made = EndedList(list_id="l", tasks=wire.board.tasks, state=wire.state, receipts=({"run_id": "r", "digest": "d", "status": "ok"},))
    page = list_card(made)
    assert len(page) < 4 * CARD_BYTES
    assert "<script" not in page
    assert "<i>" not in page
    assert page.startswith(f'<div class="{NO_MATH}"')
    assert "and 400 more" in page
    data, metadata = list_bundle(made)
    assert metadata == {"cc_executor": {"list_id": "l", "status": "ok", "receipts": [{"run_id": "r", "digest": "d", "status": "ok"}]}}
    assert data["text/plain"].startswith("✓ $1 & $2 \\(x\\): ok, 500 of 500 tasks ended well · $250.00 · list l")
