"""What the view of a task list is told, and when. Knows rows and the view's protocol; knows no widget, no loop and no clock: times are parameters.

The protocol
------------
To the views: ``{"op": "t", "seq", "totals", …}`` with one binary buffer (JSON in UTF-8: ``{"rows": […]}``), each row whole the first time and then only what
has changed of it; with a reset ``"graph"``, too (`cc_executor.model.graph`). From a view: ``sync`` and ``ack``, as every feed has them
(`cc_executor.wire.pace`); commands, and what the opened runs say, are not for this feed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from cc_executor.model.taskrows import TaskBoard, TaskRow
from cc_executor.wire.pace import PacedFeed, Send

FRAME_ROWS: Final = 400  # some 100 KB at the most


class TaskFeed(PacedFeed):
    """Decides what to send to the views of one list.

    Parameters
    ----------
    board : TaskBoard
        Read at each tick; somebody else feeds it.
    send : callable
        Called with the message and its buffers, from `tick` and `finish` only.
    wall : callable
        Seconds since the epoch, for the clocks of the rows.
    begun : float or None
        When the list's clock began, in seconds since the epoch; None: the views go on with theirs.
    """

    def __init__(self, board: TaskBoard, send: Send, *, wall: Callable[[], float], begun: float | None = None) -> None:
        super().__init__(send)
        self._board = board
        self._wall = wall
        self._begun = begun
        self._sent: dict[str, TaskRow] = {}

    def finish(self, now: float) -> None:
        """Send what is left, and that this is all."""
        self._read_inbox()
        while len(self._board.dirty) > FRAME_ROWS and self.is_watched:
            self._send_frame(now)
        self._is_done = True
        self._send_frame(now)

    def _has_news(self) -> bool:
        return bool(self._board.dirty)

    def _send_frame(self, now: float) -> None:
        wall = self._wall()
        content = self._begin_frame("t", now)
        content |= {"totals": msgspec.to_builtins(self._board.totals()), "now": round(wall, 2)}
        if self._begun is not None:
            content["elapsed"] = round(wall - self._begun, 1)
        body: dict[str, Any] = {}
        if "reset" in content:
            self._sent.clear()
            if self._board.graph is not None:
                body["graph"] = self._board.graph.as_dict()
            self._board.dirty.update(dict.fromkeys(task.id for task in self._board.order))
        self._send(content, [msgspec.json.encode({"rows": self._take(wall), **body})])

    def _take(self, wall: float) -> list[dict[str, Any]]:
        """What has changed of the rows, in their order, as much as one frame may hold."""
        rows: list[dict[str, Any]] = []
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
