from __future__ import annotations

import json
from typing import Any

import pytest

from cc_executor.model.event import Event, MessageStarted, TextWritten, ThinkingWritten, ToolCalled, ToolReturned
from cc_executor.model.item import Item, Kind
from cc_executor.model.pager import Page
from cc_executor.model.transcript import Bounds, Transcript
from cc_executor.wire.feed import FRAME_LINES, ViewFeed, ViewStatus
from cc_executor.wire.pace import HEARTBEAT_SECONDS, UNANSWERED

TICK = 0.04


class Wire:
    """A feed, its transcript, and what it has sent. `acks`: whether a view acknowledges at once."""

    def __init__(self, *, acks: bool = True, bounds: Bounds | None = None, **options: Any) -> None:
        self.transcript = Transcript(bounds)
        self.sent: list[tuple[float, dict[str, Any], dict[str, Any]]] = []
        self.now = 100.0
        self.acks = acks
        self.feed = ViewFeed(self.transcript, self._send, **options)

    def _send(self, content: dict[str, Any], buffers: list[bytes]) -> None:
        json.dumps(content)
        self.sent.append((self.now, content, json.loads(buffers[0])))
        if self.acks and content.get("ask"):
            self.say(op="ack", view="v", seq=content["seq"])

    def say(self, **content: Any) -> None:
        self.feed.on_message(content)

    def run(self, seconds: float, *, each: Any = None) -> list[dict[str, Any]]:
        """Tick for so long; the bodies that were sent."""
        before = len(self.sent)
        for _ in range(round(seconds / TICK)):
            if each is not None:
                self.transcript.feed(each())
            self.feed.tick(self.now)
            self.now += TICK
        return [body for _, _, body in self.sent[before:]]


def text(value: str, block: str = "m:0", *, whole: bool = False) -> Event:
    return TextWritten(block=block, text=value, whole=whole)


class View:
    """What a browser would hold: the frames of a wire applied in order, as `view.js` does."""

    def __init__(self) -> None:
        self.items: dict[int, dict[str, Any]] = {}

    def apply(self, wire: Wire) -> View:
        for _, content, body in wire.sent:
            if content["op"] != "f":
                continue
            if "reset" in content:
                self.items.clear()
            for number in [*body.get("withdrawn", []), *body.get("elided", [])]:
                self.items.pop(number, None)
            for item in body["items"]:
                if "append" in item:
                    known = self.items[item["number"]]
                    known |= {"text": known.get("text", "") + item["append"], "lines": item["lines"]}
                else:
                    self.items[item["number"]] = item
        return self

    def texts(self) -> list[str]:
        return [item.get("text", item.get("html", "")) for _, item in sorted(self.items.items())]


def test_nothing_is_sent_while_nothing_happens() -> None:
    wire = Wire()
    wire.run(1)
    count = len(wire.sent)
    wire.run(HEARTBEAT_SECONDS - 1.5)
    assert len(wire.sent) == count


def test_a_heartbeat_lets_a_view_find_out_what_it_lost() -> None:
    wire = Wire()
    wire.run(1)
    assert len(wire.run(3 * HEARTBEAT_SECONDS)) in {2, 3}


def test_streaming_text_is_sent_as_it_grows_and_as_html_when_it_is_whole() -> None:
    wire = Wire()
    for piece in ("Hel", "lo ", "**w**"):
        wire.transcript.feed([text(piece)])
        wire.run(TICK)
    wire.transcript.feed([text("Hello **w**", whole=True)])
    wire.run(TICK)
    items = [body["items"][0] for _, _, body in wire.sent]
    assert items[0] == {"number": 0, "kind": "text", "state": "open", "text": "Hel"}
    assert items[1:3] == [{"number": 0, "append": piece, "state": "open", "lines": 1} for piece in ("lo ", "**w**")]
    assert items[3] == {"number": 0, "kind": "text", "html": "<p>Hello <strong>w</strong></p>\n"}


def test_at_most_25_frames_a_second_whatever_the_output() -> None:
    wire = Wire()
    for number in range(4000):  # ticks every 2.5 ms, each with news
        wire.transcript.feed([text(f"line {number}\n" * 30, block="stdout")])
        wire.feed.tick(wire.now)
        wire.now += 0.0025
    times = [at for at, _, _ in wire.sent]
    assert len(times) <= 25 * 10 + 1
    assert max(sum(start <= at < start + 1 for at in times) for start in times) <= 26
    assert len(times) >= 240


def test_ticks_that_jitter_lose_no_frame() -> None:
    wire = Wire()
    for index in range(250):
        wire.transcript.feed([text("x")])
        wire.feed.tick(wire.now + (0.015 if index % 2 else 0.0))
        wire.now += TICK
    assert len(wire.sent) == 250


def test_a_frame_is_bounded_and_the_newest_comes_first() -> None:
    wire = Wire()
    wire.transcript.feed([text("".join(f"line {n}\n" for n in range(50_000)), block="stdout")])
    first = wire.run(TICK)[0]
    assert sum(item["lines"] for item in first["items"]) <= FRAME_LINES
    assert "line 49999" in first["items"][-1]["text"]
    bodies = wire.run(2)
    assert all(sum(item.get("lines", 1) for item in body["items"]) <= FRAME_LINES for body in bodies)
    assert "".join(View().apply(wire).texts()) == "".join(item.text for item in wire.transcript.items)


def test_a_flood_costs_no_more_than_frames() -> None:
    wire = Wire()
    wire.run(20, each=lambda: [text("a line of forty characters, more or less\n" * 200, block="stdout")])
    sent = sum(len(json.dumps(body)) for _, _, body in wire.sent)
    assert len(wire.sent) <= 501
    assert sent / len(wire.sent) < 40_000


@pytest.mark.row(
    "faults", "a client that reads nothing for minutes beside 200 live views", "a view that no page has opened sends it one frame each 10 s"
)
def test_where_no_view_has_spoken_little_is_sent() -> None:
    wire = Wire(acks=False)
    wire.run(10, each=lambda: [text("x")])
    count = len(wire.sent)
    assert count < 25
    assert wire.feed.is_settled
    wire.run(600, each=lambda: [text("x")])
    assert 58 <= len(wire.sent) - count <= 62
    wire.say(op="sync", view="late")
    assert not wire.feed.is_settled
    wire.run(TICK)
    assert wire.sent[-1][1]["reset"] == ["late"]
    assert View().apply(wire).texts() == [item.text for item in wire.transcript.items]


def test_who_does_not_acknowledge_gets_one_frame_a_second() -> None:
    wire = Wire(acks=False)
    wire.say(op="sync", view="v")
    wire.run(20, each=lambda: [text("x")])
    times = [at for at, _, _ in wire.sent]
    late = [at for at in times if at > 101]
    assert len(late) in {18, 19, 20}
    assert not wire.feed.is_watched
    wire.say(op="ack", view="v", seq=wire.feed.seq)
    wire.acks = True
    assert len(wire.run(1, each=lambda: [text("x")])) >= 24
    assert wire.feed.is_watched


def test_at_most_five_acknowledgements_a_second_are_asked_for() -> None:
    wire = Wire()
    wire.run(10, each=lambda: [text("x")])
    assert sum("ask" in content for _, content, _ in wire.sent) <= 51


def test_a_sync_brings_everything_again() -> None:
    wire = Wire()
    wire.transcript.feed([text(f"text {n}", block=f"m:{n}", whole=True) for n in range(30)])
    wire.transcript.feed([text("grow", block="m:30")])
    wire.run(1)
    wire.transcript.feed([text("n", block="m:30")])
    wire.sent.clear()
    wire.say(op="sync", view="new")
    wire.run(1)
    assert wire.sent[0][1]["reset"] == ["new"]
    assert View().apply(wire).texts() == [*(f"<p>text {n}</p>\n" for n in range(30)), "grown"]


def test_a_new_view_is_answered_at_once_though_nobody_looked_before() -> None:
    wire = Wire(acks=False)
    wire.run(10, each=lambda: [text("x")])
    wire.acks = True
    wire.sent.clear()
    wire.say(op="sync", view="new")
    wire.run(0.2)
    assert wire.sent[0][0] - wire.now < 0.1
    assert wire.sent[0][1]["reset"] == ["new"]


def test_sequence_numbers_have_no_gap() -> None:
    wire = Wire()
    wire.run(2, each=lambda: [text("x")])
    wire.say(op="sync", view="a")
    wire.run(2, each=lambda: [text("y")])
    wire.feed.finish(wire.now)
    assert [content["seq"] for _, content, _ in wire.sent] == list(range(1, len(wire.sent) + 1))
    assert wire.sent[-1][1]["done"] is True


def test_the_end_brings_all_that_is_left() -> None:
    wire = Wire()
    wire.run(0.2)
    wire.transcript.feed([text("".join(f"line {n}\n" for n in range(4000)), block="stdout")])
    wire.feed.finish(wire.now)
    assert "".join(View().apply(wire).texts()) == "".join(item.text for item in wire.transcript.items)


def test_the_end_is_one_frame_if_nobody_looks() -> None:
    wire = Wire(acks=False)
    wire.run(10, each=lambda: [text("x\n" * 100, block="stdout")])
    count = len(wire.sent)
    wire.transcript.feed([text("line\n" * 4000, block="stdout")])
    wire.feed.finish(wire.now)
    assert len(wire.sent) == count + 1


def test_a_reader_of_frames_holds_what_the_transcript_holds() -> None:
    wire = Wire(bounds=Bounds(lines=300, items=12))
    events: list[Event] = []
    for n in range(120):
        events += [
            MessageStarted(message_id=f"m{n}"),
            text("begun", block=f"m{n}:0"),
            *([] if n % 5 == 0 else [text(f"text {n}", block=f"m{n}:0", whole=True)]),
            ThinkingWritten(block=f"m{n}:1", text=f"think {n}", whole=True),
            ToolCalled(tool_id=str(n), name="Bash", input='{"command": "ls"}'),
            *([] if n % 7 == 0 else [ToolReturned(tool_id=str(n), text="out\n" * n)]),
        ]
    feeding = iter(events)
    wire.run(len(events) * TICK + 1, each=lambda: [event for event in [next(feeding, None)] if event is not None])
    wire.run(1)
    view = View().apply(wire)
    assert sorted(view.items) == [item.number for item in wire.transcript.items]
    for item in wire.transcript.items:
        assert view.items[item.number].get("text", "") == ("" if item.kind is Kind.TEXT and item.state == "done" else item.text)


def test_a_reader_that_is_too_far_behind_is_reset() -> None:
    wire = Wire(bounds=Bounds(items=10))
    wire.run(1)
    for n in range(5000):
        wire.transcript.feed([text(str(n), block=f"m:{n}", whole=True)])
    wire.run(1)
    assert View().apply(wire).texts() == [f"<p>{n}</p>\n" for n in range(4990, 5000)]
    assert any(content.get("reset") == ["*"] for _, content, _ in wire.sent)


def test_the_clock_of_the_status_goes_on_by_itself() -> None:
    wire = Wire()
    wire.feed.show(ViewStatus(phase="writing", elapsed=10.0, is_ticking=True), wire.now)
    assert wire.feed.status_at(wire.now + 2.5)["elapsed"] == 12.5
    wire.feed.show(ViewStatus(phase="paused", elapsed=12.5), wire.now)
    assert wire.feed.status_at(wire.now + 2.5)["elapsed"] == 12.5


def test_time_alone_is_no_news() -> None:
    wire = Wire()
    wire.feed.show(ViewStatus(phase="writing", elapsed=10.0, is_ticking=True), wire.now)
    wire.run(1)
    count = len(wire.sent)
    for second in range(3):
        wire.feed.show(ViewStatus(phase="writing", elapsed=11.0 + second / 4, is_ticking=True), wire.now)
        wire.run(0.25)
    assert len(wire.sent) == count


def test_a_reset_names_the_run_and_nothing_else_does() -> None:
    wire = Wire(run_id="0" * 26)
    wire.say(op="sync", view="a")
    wire.run(1)
    assert [content.get("run") for _, content, _ in wire.sent if "reset" in content] == ["0" * 26]
    assert not any("run" in content for _, content, _ in wire.sent if "reset" not in content)


def test_a_page_goes_to_the_view_that_asked() -> None:
    asked: list[int] = []

    def read(before: int, done: Any) -> None:
        asked.append(before)
        done(Page(items=(Item(number=3, kind=Kind.TEXT, text="**old**"), Item(number=4, kind=Kind.OUTPUT, text="raw")), first=3))

    wire = Wire(read_page=read)
    wire.say(op="page", view="v", before=5)
    wire.say(op="page", view="v", before=5)  # an impatient one
    wire.run(0.5)
    pages = [(content, body) for _, content, body in wire.sent if content["op"] == "p"]
    assert asked == [5]
    assert pages == [
        (
            {"op": "p", "to": "v", "first": 3},
            {
                "items": [
                    {"number": 3, "kind": "text", "html": "<p><strong>old</strong></p>\n"},
                    {"number": 4, "kind": "output", "text": "raw"},
                ]
            },
        )
    ]


@pytest.mark.parametrize(
    "content",
    [None, 3, "sync", [], {}, {"op": "sync"}, {"op": "sync", "view": 3}, {"op": "ack", "seq": "1"}, {"op": "page", "view": "v", "before": "x"},
     {"op": "page", "view": "v", "before": -1}, {"op": "nonsense", "view": "v"}, {"op": ["sync"], "view": "v"}],
)  # fmt: skip
def test_what_is_not_understood_is_ignored(content: object) -> None:
    wire = Wire(read_page=lambda before, done: pytest.fail("read"))
    wire.feed.on_message(content)
    wire.run(0.2)
    assert all(content["op"] == "f" and "reset" not in content for _, content, _ in wire.sent)


def test_a_thousand_views_that_all_want_everything_are_bounded() -> None:
    wire = Wire()
    for view in range(5000):
        wire.say(op="sync", view=str(view))
    wire.run(0.2)
    assert len(wire.sent[0][1]["reset"]) <= 50
    assert UNANSWERED < 10
