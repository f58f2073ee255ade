"""What the view of a task list is told, and when. Knows rows and the view's protocol; knows no widget, no loop and no clock: times are parameters.

The protocol
------------
To the views: ``{"op": "t", "seq", "totals", …}`` with one binary buffer (JSON in UTF-8: ``{"rows": […]}``), each row whole the first time and then only what
has changed of it; with a reset ``"graph"``, too (`cc_executor.model.graph`). `seq`, `reset` and `ask` mean what they mean in `cc_executor.wire.feed`. From
a view: ``{"op": "sync", "view"}`` and ``{"op": "ack", "view", "seq"}``; commands, and what the opened runs say, are not for this feed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from cc_executor.kernel.taskrows import TaskBoard, TaskRow
from cc_executor.wire.feed import ASK_SECONDS, EVERYBODY, FRAME_SECONDS, HEARTBEAT_SECONDS, INBOX, RESETS, SLOW_SECONDS, UNANSWERED

FRAME_ROWS: Final = 400  # some 100 KB at the most


class TaskFeed:
    """Decides what to send to the views of one list.

    Parameters
    ----------
    board : TaskBoard
        Read at each tick; somebody else feeds it.
    send : callable
        Called with the message and its buffers, from `tick` and `finish` only.
    wall : callable
        Seconds since the epoch, for the clocks of the rows.
    """

    def __init__(
        self, board: TaskBoard, send: Callable[[dict[str, Any], list[bytes]], None], *, wall: Callable[[], float] = time.time
    ) -> None:
        self._board = board
        self._send = send
        self._wall = wall
        self._begun = wall()
        self._inbox: deque[tuple[str, Any]] = deque(maxlen=INBOX)  # appending is atomic: messages may come in any thread
        self._sent: dict[str, TaskRow] = {}
        self._resets: dict[str, None] = {}
        self._next_due = float("-inf")
        self._last_frame = float("-inf")
        self._last_ask = float("-inf")
        self._asked: list[int] = []
        self._is_done = False
        self.seq = 0

    @property
    def is_watched(self) -> bool:
        """Whether views keep up; else one frame a second is sent."""
        return len(self._asked) < UNANSWERED

    @property
    def is_settled(self) -> bool:
        """Whether the views were sent everything that there is, as of the last tick."""
        return not (self._inbox or self._resets or self._board.dirty)

    def on_message(self, content: object) -> None:
        """Take what a view says. May be called in any thread; answered at the next tick. What is not understood is ignored."""
        match content:
            case {"op": "sync", "view": str(view)}:
                self._inbox.append(("sync", view))
            case {"op": "ack", "seq": int(seq)}:
                self._inbox.append(("ack", seq))
            case _:
                pass

    def tick(self, now: float) -> bool:
        """Send what is due at `now` (monotonic seconds), at most one message; whether something was sent. Call it every 40 ms."""
        self._read_inbox()
        if now < self._next_due or not self._is_due(now):
            return False
        self._send_frame(now)
        self._next_due = max(self._next_due, now - FRAME_SECONDS / 2) + FRAME_SECONDS  # a tick may come half a frame early or late
        return True

    def finish(self, now: float) -> None:
        """Send what is left, and that this is all."""
        self._read_inbox()
        while len(self._board.dirty) > FRAME_ROWS and self.is_watched:
            self._send_frame(now)
        self._is_done = True
        self._send_frame(now)

    def _read_inbox(self) -> None:
        while self._inbox:
            what, value = self._inbox.popleft()
            if what == "ack":
                self._asked = [seq for seq in self._asked if seq > value]
            elif len(self._resets) < RESETS:
                self._resets[value] = None

    def _is_due(self, now: float) -> bool:
        if not self.is_watched and not self._resets and now - self._last_frame < SLOW_SECONDS:
            return False
        if self._resets or self._board.dirty:
            return True
        return now - self._last_frame >= HEARTBEAT_SECONDS

    def _send_frame(self, now: float) -> None:
        self.seq += 1
        more: dict[str, Any] = {}
        content: dict[str, Any] = {
            "op": "t",
            "seq": self.seq,
            "totals": msgspec.to_builtins(self._board.totals()),
            "elapsed": round(self._wall() - self._begun, 1),
            "now": round(self._wall(), 2),
        }
        if self._resets:
            content["reset"] = [*self._resets] if len(self._resets) < RESETS else [EVERYBODY]
            self._resets.clear()
            self._sent.clear()
            if self._board.graph is not None:
                more["graph"] = self._board.graph.as_dict()
            self._board.dirty.update(dict.fromkeys(task.id for task in self._board.order))
        if self._is_done:
            content["done"] = True
        if self._is_done or now - self._last_ask >= ASK_SECONDS:
            content["ask"] = True
            self._last_ask = now
            self._asked = [*self._asked[-UNANSWERED:], self.seq]
        self._last_frame = now
        self._send(content, [msgspec.json.encode({"rows": self._take(), **more})])

    def _take(self) -> list[dict[str, Any]]:
        """What has changed of the rows, in their order, as much as one frame may hold."""
        rows: list[dict[str, Any]] = []
        wall = self._wall()
        for task_id in sorted(self._board.dirty, key=self._board.number)[:FRAME_ROWS]:
            del self._board.dirty[task_id]
            row, known = self._board.row(task_id), self._sent.get(task_id)
            if row == known:
                continue
            whole: dict[str, Any] = msgspec.to_builtins(row)
            if known is not None:
                before: dict[str, Any] = msgspec.to_builtins(known)
                whole = {name: value for name, value in whole.items() if name == "id" or value != before[name]}
            self._sent[task_id] = row
            rows.append({**whole, "elapsed": round(self._board.elapsed(task_id, wall), 2)})
        return rows
