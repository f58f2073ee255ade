"""When frames are due, whoever's they are. Knows views that ask, acknowledge and fall behind; knows no run, no list and no clock: times are parameters.

`seq` counts the frames of a feed without a gap. A view that misses one (the server drops messages when a user's own cell floods) or that is new says
``{"op": "sync", "view"}``, and the next frame is a ``"reset"`` for it, with everything. A frame that asks (``"ask"``) is acknowledged when it was painted,
``{"op": "ack", "view", "seq"}``; while `UNANSWERED` of them are not, nobody looks, or somebody cannot keep up, and one frame a second has to do. Where no view
has ever said anything, each pause is twice as long, up to `QUIET_SECONDS`: a client without views that reads nothing between its cells would have them pile
up, and where ZeroMQ has no more room it drops what comes next, the end of a cell as well (200 runs: after a minute). Not never: a view may be unable to speak.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Final

FRAME_SECONDS: Final = 0.04  # 25 frames a second: smooth to the eye, and a fortieth of the server's limit of 1,000 messages a second
SLOW_SECONDS: Final = 1.0
QUIET_SECONDS: Final = 10.0
ASK_SECONDS: Final = 0.2  # so at most 5 acknowledgements a second: each is a message that the kernel handles beside its work
UNANSWERED: Final = 3
HEARTBEAT_SECONDS: Final = (
    2.0  # a view that lost the last frame learns it from the next one, and one that hears nothing that the kernel is busy or gone
)
INBOX: Final = 1000  # messages between two ticks; a view sends some ten a second
EVERYBODY: Final = "*"
RESETS: Final = 50  # views that wait for a reset at once; beyond, everybody gets one

Send = Callable[[dict[str, Any], list[bytes]], None]


class PacedFeed(ABC):
    """A feed of frames to views that may come, go, miss some or not keep up.

    Parameters
    ----------
    send : callable
        Called with the message and its buffers, from `tick` and `finish` only.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._inbox: deque[tuple[str, Any]] = deque(maxlen=INBOX)  # appending is atomic: messages may come in any thread
        self._resets: dict[str, None] = {}
        self._next_due = float("-inf")
        self._last_frame = float("-inf")
        self._last_ask = float("-inf")
        self._asked: list[int] = []
        self._was_spoken_to = False
        self._pause = SLOW_SECONDS  # between two frames, while nobody keeps up
        self._is_done = False
        self.seq = 0

    @property
    def is_watched(self) -> bool:
        """Whether views keep up; else one frame a second is sent."""
        return len(self._asked) < UNANSWERED

    @property
    def is_settled(self) -> bool:
        """Whether the views were sent everything that there is, as of the last tick, or there is none."""
        return self.has_nobody or not (self._inbox or self._resets or self._has_news())

    @property
    def has_nobody(self) -> bool:
        """Whether no view has ever said anything, not even to the first frames that asked."""
        return not (self.is_watched or self._was_spoken_to or self._inbox)

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
        if now < self._next_due or not self._send_due(now):
            return False
        self._next_due = max(self._next_due, now - FRAME_SECONDS / 2) + FRAME_SECONDS  # a tick may come half a frame early or late
        return True

    def _send_due(self, now: float) -> bool:
        """Send what is due; whether there was something."""
        if not self._frame_is_due(now):
            return False
        self._send_frame(now)
        return True

    def _read_inbox(self) -> None:
        while self._inbox:
            self._was_spoken_to, self._pause = True, SLOW_SECONDS
            self._take_message(*self._inbox.popleft())

    def _take_message(self, what: str, value: Any) -> None:
        if what == "ack":
            self._asked = [seq for seq in self._asked if seq > value]
        elif what == "sync":
            self._resets[value if len(self._resets) < RESETS else EVERYBODY] = None

    def _frame_is_due(self, now: float) -> bool:
        if self._is_held_back(now):
            return False
        return bool(self._resets) or self._has_news() or now - self._last_frame >= HEARTBEAT_SECONDS

    def _is_held_back(self, now: float) -> bool:
        return not (self.is_watched or self._resets or now - self._last_frame >= self._pause)

    def _begin_frame(self, op: str, now: float) -> dict[str, Any]:
        """What every frame begins with; with ``"reset"``, whoever sends it forgets what the views had."""
        self.seq += 1
        self._last_frame = now
        if self.has_nobody:
            self._pause = min(2 * self._pause, QUIET_SECONDS)
        content: dict[str, Any] = {"op": op, "seq": self.seq}
        if self._resets:
            content["reset"] = [EVERYBODY] if EVERYBODY in self._resets else list(self._resets)
            self._resets.clear()
        if self._is_done:
            content["done"] = True
        if self._is_done or now - self._last_ask >= ASK_SECONDS:
            content["ask"] = True
            self._last_ask = now
            self._asked = [*self._asked[-UNANSWERED:], self.seq]
        return content

    @abstractmethod
    def _has_news(self) -> bool:
        """Whether the views lack something. Called often: cheap."""

    @abstractmethod
    def _send_frame(self, now: float) -> None:
        """Make a frame, beginning with `_begin_frame`, and send it."""
