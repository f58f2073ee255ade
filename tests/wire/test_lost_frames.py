"""Views that miss frames, come late and reload: in the end each shows what there is, and no more than one frame each 40 ms was sent."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st

from cc_executor.model.event import Event, Exited, MessageStarted, StderrWritten, TextWritten, ThinkingWritten, ToolCalled, ToolReturned
from cc_executor.model.transcript import Bounds, Transcript
from cc_executor.wire.feed import ViewFeed
from cc_executor.wire.pace import EVERYBODY, FRAME_SECONDS, HEARTBEAT_SECONDS, PacedFeed

TICK: Final = 0.04
LAST_LOST: Final = 10  # messages, after which nothing is lost any more
UNSAID: Final = {"state": "done", "lines": 1}  # of an item, where an entry does not say it
RETRY: Final = 0.4  # seconds until a view that was not answered asks again


class Channel(ABC):
    """What one view hears, as `channel.js` has it. `lost`: the numbers of the messages, to it or from it, that do not arrive."""

    def __init__(self, name: str, feed: PacedFeed, lost: set[int]) -> None:
        self.name = name
        self._feed = feed
        self._lost = lost
        self._messages = 0
        self._seq: int | None = None
        self._asked_at = float("-inf")

    def _arrives(self) -> bool:
        self._messages += 1
        return self._messages not in self._lost

    def tick(self, now: float) -> None:
        if self._seq is None and now - self._asked_at >= RETRY:
            self._sync(now)

    def _say(self, **content: Any) -> None:
        if self._arrives():
            self._feed.on_message(content)

    def _sync(self, now: float) -> None:
        self._seq, self._asked_at = None, now
        self._say(op="sync", view=self.name)

    def hear(self, now: float, content: dict[str, Any], body: dict[str, Any]) -> None:
        if not self._arrives():
            return
        is_reset = bool({self.name, EVERYBODY} & set(content.get("reset", ())))
        if not is_reset:
            if self._seq is None or content["seq"] <= self._seq:
                return
            if content["seq"] != self._seq + 1:
                self._sync(now)
                return
        self._seq = content["seq"]
        self.show(content, body, is_reset=is_reset)
        if content.get("ask"):
            self._say(op="ack", view=self.name, seq=content["seq"])

    @abstractmethod
    def show(self, content: dict[str, Any], body: dict[str, Any], *, is_reset: bool) -> None: ...


class Way:
    """The way from a feed to its views, with the clock of both."""

    def __init__(self) -> None:
        self.now = 100.0
        self.views: list[Channel] = []
        self.sent_at: list[float] = []
        self._on_the_way: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def send(self, content: dict[str, Any], buffers: Sequence[bytes]) -> None:
        self.sent_at.append(self.now)
        self._on_the_way.append((content, json.loads(buffers[0])))

    def run(self, feed: PacedFeed, ticks: int) -> None:
        for _ in range(ticks):
            for view in self.views:
                view.tick(self.now)
            feed.tick(self.now)
            for content, body in self._on_the_way:
                for view in self.views:
                    view.hear(self.now, content, body)
            self._on_the_way.clear()
            self.now += TICK


class View(Channel):
    """The view of a run, as `view.js` has it."""

    def __init__(self, name: str, feed: PacedFeed, lost: set[int]) -> None:
        super().__init__(name, feed, lost)
        self.items: dict[int, dict[str, Any]] = {}

    def show(self, content: dict[str, Any], body: dict[str, Any], *, is_reset: bool) -> None:
        if is_reset:
            self.items.clear()
        for number in (*body.get("withdrawn", ()), *body.get("elided", ())):
            self.items.pop(number, None)
        for item in body["items"]:
            if "append" in item:
                known = self.items[item["number"]]
                known |= {"text": known.get("text", "") + item["append"], "state": item["state"], "lines": item["lines"]}
            else:
                self.items[item["number"]] = UNSAID | item


BLOCKS: Final = st.sampled_from(["m:0", "m:1", "stdout"])
TEXTS: Final = st.sampled_from(["a", "b\n", "*c*", "\r", "\x1b[1m", "x" * 50 + "\n", "\n" * 150, "\n" * 900])
TOOLS: Final = st.sampled_from(["t1", "t2"])
EVENTS: Final = st.one_of(
    st.builds(TextWritten, block=BLOCKS, text=TEXTS, whole=st.booleans()),
    st.builds(ThinkingWritten, block=st.just("m:2"), text=TEXTS, whole=st.booleans()),
    st.builds(StderrWritten, text=TEXTS),
    st.builds(ToolCalled, tool_id=TOOLS, name=st.just("Bash"), input=st.just('{"command": "make"}'), whole=st.booleans()),
    st.builds(ToolReturned, tool_id=TOOLS, text=TEXTS, is_error=st.booleans()),
    st.builds(MessageStarted, message_id=st.just("m")),
    st.just(Exited(code=0)),
)
# Batches of events, and for how many ticks each is followed by nothing.
SCRIPTS: Final = st.lists(st.tuples(st.lists(EVENTS, max_size=4), st.sampled_from([0, 1, 2, 30])), max_size=12)
LOST: Final = st.sets(st.integers(1, LAST_LOST), max_size=10)


@given(SCRIPTS, LOST, LOST, st.integers(0, 12), st.booleans())
def test_whatever_is_lost_each_view_shows_what_there_is(
    script: list[tuple[list[Event], int]], lost: set[int], lost_too: set[int], late: int, is_small: bool
) -> None:
    transcript = Transcript(Bounds(lines=700, items=6, chars=40_000) if is_small else None)
    way = Way()
    feed = ViewFeed(transcript, way.send)
    early, other = View("early", feed, lost), View("late", feed, lost_too)
    way.views.append(early)
    for step, (events, ticks) in enumerate(script):
        if step == late:
            way.views.append(other)
        transcript.feed(events)
        way.run(feed, ticks)
    if other not in way.views:
        way.views.append(other)
    way.run(feed, round((LAST_LOST + 3) * HEARTBEAT_SECONDS / TICK))  # each of them may be the only one between two heartbeats
    feed.tick(way.now)
    assert feed.is_settled
    fresh = View("fresh", feed, set())
    way.views.append(fresh)
    way.run(feed, round(HEARTBEAT_SECONDS / TICK))
    assert sorted(fresh.items) == [item.number for item in transcript.items]
    for view in (early, other):
        assert view.items == fresh.items, view.name
    assert all(later - earlier >= FRAME_SECONDS / 2 for earlier, later in pairwise(way.sent_at))
