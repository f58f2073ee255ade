"""What a live view is told, and when. Knows the transcript and the view's protocol; knows no widget, no loop and no clock: times are parameters.

The protocol
------------
To the views, at most 25 messages a second: ``{"op": "f", "seq", "floor", "elided", …}`` with one binary buffer (JSON in UTF-8), or
``{"op": "p", "to", "first", …}`` with an older page. From a view: ``{"op": "sync", "view"}``, ``{"op": "ack", "view", "seq"}``,
``{"op": "page", "view", "before"}``; commands are not for the feed.

`seq` counts without a gap. A view that misses one (the server drops messages when a user's own cell floods) or that is new asks for `sync`, and the next
frame is a `reset` for it: the run's id (``"run"``) and everything, newest first, over as many frames as it takes. A frame that asks (``"ask"``) is
acknowledged when it was painted; while `UNANSWERED` of them are not, nobody looks, or somebody cannot keep up, and one frame a second has to do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from cc_executor.model.ask import ShownAsk
from cc_executor.model.item import Item, ItemState, Kind
from cc_executor.model.markdown import markdown_html
from cc_executor.model.pager import Page
from cc_executor.model.transcript import Transcript

FRAME_SECONDS: Final = 0.04  # 25 frames a second: smooth to the eye, and a fortieth of the server's limit of 1,000 messages a second
SLOW_SECONDS: Final = 1.0
ASK_SECONDS: Final = 0.2  # so at most 5 acknowledgements a second: each is a message that the kernel handles beside its work
UNANSWERED: Final = 3
HEARTBEAT_SECONDS: Final = (
    2.0  # a view that lost the last frame learns it from the next one, and one that hears nothing that the kernel is busy or gone
)
FRAME_LINES: Final = 400
FRAME_CHARS: Final = 64 * 1024
RENDER_CHARS: Final = 32 * 1024  # Markdown becomes HTML on the kernel's loop: some 2 ms for each KB of the worst text
INBOX: Final = 1000  # messages between two ticks; a view sends some ten a second
EVERYBODY: Final = "*"
RESETS: Final = 50  # views that wait for a reset at once

PageReader = Callable[[int, Callable[[Page], None]], None]


class ViewStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The status line.

    Attributes
    ----------
    phase : str
        A word of `cc_executor.model.state.Phase`.
    elapsed : float
        Seconds that the run's clock shows now.
    is_ticking : bool
        Whether that clock runs on.
    tool : str
        The running tool and what it is about.
    detail : str
        What else to say: why it waits, how it ended.
    estimate : str
        How long it usually takes.
    pauses : int
        How often the run was paused; what a Pause or a Resume names, so that one which comes late or twice changes nothing.
    asks : tuple of ShownAsk
        What the agent waits for somebody to say.
    """

    phase: str = "starting"
    elapsed: float = 0.0
    is_ticking: bool = False
    tool: str = ""
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    detail: str = ""
    estimate: str = ""
    rehearsal: bool = False
    pauses: int = 0
    asks: tuple[ShownAsk, ...] = ()


class ViewFeed:
    """Decides what to send to the views of one run.

    Parameters
    ----------
    transcript : Transcript
        Read at each tick; somebody else feeds it.
    send : callable
        Called with the message and its buffers, from `tick` and `finish` only.
    read_page : callable or None
        ``read_page(before, done)`` makes the page before a number and calls ``done(page)``, at once or later, from any thread.
    html : callable
        Makes clean HTML of Markdown.
    run_id : str
        Told with every reset: a view that no longer hears this feed asks a server for that run. It is in no saved state, so that a view knows it only
        from whoever has the run.
    """

    def __init__(
        self,
        transcript: Transcript,
        send: Callable[[dict[str, Any], list[bytes]], None],
        *,
        read_page: PageReader | None = None,
        html: Callable[[str], str] = markdown_html,
        run_id: str = "",
    ) -> None:
        self._transcript = transcript
        self._send = send
        self._read_page = read_page
        self._html = html
        self._run_id = run_id
        self._inbox: deque[tuple[str, Any]] = deque(maxlen=INBOX)  # appending is atomic: messages may come in any thread
        self._status = ViewStatus()
        self._status_at = 0.0
        self._status_is_new = True
        self._version = 0
        self._pending: dict[int, None] = {}  # items that the views lack
        self._withdrawn: list[int] = []
        self._elided: list[int] = []
        self._sent: dict[int, str] = {}  # texts of open items, as the views have them
        self._rendered: dict[int, tuple[Item, str]] = {}
        self._resets: dict[str, None] = {}
        self._reading: set[str] = set()
        self._pages: deque[tuple[str, Page]] = deque()
        self._next_due = float("-inf")
        self._last_frame = float("-inf")
        self._last_ask = float("-inf")
        self._asked: list[int] = []
        self._is_done = False
        self.seq = 0

    # --- the owner's side -------------------------------------------------------------------------------------------

    @property
    def is_watched(self) -> bool:
        """Whether views keep up; else one frame a second is sent."""
        return len(self._asked) < UNANSWERED

    @property
    def is_settled(self) -> bool:
        """Whether the views were sent everything that there is, as of the last tick."""
        return not (
            self._inbox
            or self._pages
            or self._reading
            or self._resets
            or self._pending
            or self._withdrawn
            or self._elided
            or self._status_is_new
        ) and (self._version == self._transcript.version)

    def show(self, status: ViewStatus, now: float) -> None:
        """Set the status line; `status.elapsed` is that of `now`."""
        if msgspec.structs.replace(status, elapsed=0.0) != msgspec.structs.replace(self._status, elapsed=0.0):
            self._status_is_new = True
        self._status = status
        self._status_at = now

    def on_message(self, content: object, now: float) -> None:
        """Take what a view says at `now`. May be called in any thread; answered at the next tick. What is not understood is ignored."""
        match content:
            case {"op": "sync", "view": str(view)}:
                self._inbox.append(("sync", view))
            case {"op": "ack", "seq": int(seq)}:
                self._inbox.append(("ack", seq))
            case {"op": "page", "view": str(view), "before": int(before)}:
                self._inbox.append(("page", (view, before)))
            case _:
                pass

    def tick(self, now: float) -> bool:
        """Send what is due at `now`, at most one message; whether something was sent. Call it every 40 ms."""
        self._read_inbox()
        if now < self._next_due:
            return False
        if self._pages:
            view, page = self._pages.popleft()
            self._reading.discard(view)
            self._send_page(view, page)
        elif self._frame_is_due(now):
            self._send_frame(now)
        else:
            return False
        self._next_due = max(self._next_due, now - FRAME_SECONDS / 2) + FRAME_SECONDS  # a tick may come half a frame early or late
        return True

    def finish(self, now: float) -> None:
        """Send what is left, and that this is all. If nobody looks, one frame."""
        self._read_inbox()
        self._collect()
        while self.is_watched and len(self._pending) > 1 and self._send_frame(now):
            pass
        self._is_done = True
        self._send_frame(now)

    def status_at(self, now: float) -> dict[str, Any]:
        """The status line as of `now`."""
        elapsed = self._status.elapsed + (now - self._status_at if self._status.is_ticking else 0.0)
        return msgspec.to_builtins(msgspec.structs.replace(self._status, elapsed=round(elapsed, 2)))

    # --- messages ---------------------------------------------------------------------------------------------------

    def _read_inbox(self) -> None:
        while self._inbox:
            what, value = self._inbox.popleft()
            match what:
                case "sync":
                    if len(self._resets) < RESETS:
                        self._resets[value] = None
                case "ack":
                    self._asked = [seq for seq in self._asked if seq > value]
                case "page":
                    self._begin_page(*value)
                case _:
                    self._pages.append(value)

    def _begin_page(self, view: str, before: int) -> None:
        if self._read_page is None or view in self._reading or len(self._reading) >= RESETS or before <= 0:
            return
        self._reading.add(view)
        self._read_page(before, lambda page: self._inbox.append(("read", (view, page))))

    def _send_page(self, view: str, page: Page) -> None:
        body = msgspec.json.encode({"items": [self._shown(item) for item in page.items]})
        self._send({"op": "p", "to": view, "first": page.first}, [body])

    # --- frames -----------------------------------------------------------------------------------------------------

    def _frame_is_due(self, now: float) -> bool:
        if not self.is_watched and not self._resets and now - self._last_frame < SLOW_SECONDS:
            return False
        self._collect()
        has_news = self._pending or self._withdrawn or self._elided or self._resets or self._status_is_new
        return bool(has_news) or now - self._last_frame >= HEARTBEAT_SECONDS

    def _collect(self) -> None:
        """Add what became of the transcript since the last time to what the views lack."""
        changes = self._transcript.changes_since(self._version)
        self._version = changes.version
        if changes.reset and self.seq:  # the transcript no longer knows what it removed since
            self._resets[EVERYBODY] = None
            self._rendered.clear()
        self._forget(changes.withdrawn, self._withdrawn)
        self._forget(changes.elided, self._elided)
        for item in changes.items:
            self._pending[item.number] = None

    def _forget(self, numbers: Iterable[int], said: list[int]) -> None:
        for number in numbers:
            self._pending.pop(number, None)
            self._sent.pop(number, None)
            self._rendered.pop(number, None)
            said.append(number)  # even if the views never saw it: to know that would cost more than to say it

    def _send_frame(self, now: float) -> int:
        """Send one frame; how many items are still pending."""
        self.seq += 1
        content: dict[str, Any] = {
            "op": "f", "seq": self.seq, "floor": self._transcript.floor, "elided": self._transcript.elided_lines, "status": self.status_at(now),
        }  # fmt: skip
        if self._resets:
            content["reset"] = list(self._resets)
            content["run"] = self._run_id
            self._resets.clear()
            self._sent.clear()
            self._pending = dict.fromkeys(item.number for item in self._transcript.items)
        if self._is_done:
            content["done"] = True
        if self._is_done or now - self._last_ask >= ASK_SECONDS:
            content["ask"] = True
            self._last_ask = now
            self._asked = [*self._asked[-UNANSWERED:], self.seq]
        body: dict[str, Any] = {"items": self._take()}
        for name in ("withdrawn", "elided"):
            numbers: list[int] = getattr(self, f"_{name}")
            if numbers:
                body[name] = list(numbers)
                numbers.clear()
        self._last_frame = now
        self._status_is_new = False
        self._send(content, [msgspec.json.encode(body)])
        return len(self._pending)

    def _take(self) -> list[dict[str, Any]]:
        """The newest of what the views lack, as much as one frame may hold; at least one item."""
        taken: list[dict[str, Any]] = []
        lines, chars, rendered = FRAME_LINES, FRAME_CHARS, RENDER_CHARS
        for number in sorted(self._pending, reverse=True):
            item = self._transcript.get(number)
            if item is None:
                del self._pending[number]
                continue
            is_rendered = _is_rendered(item)
            if taken and (item.lines > lines or len(item.text) + len(item.input) > chars or (is_rendered and len(item.text) > rendered)):
                break
            del self._pending[number]
            taken.append(self._entry(item))
            lines -= item.lines
            chars -= len(item.text) + len(item.input)
            rendered -= len(item.text) if is_rendered else 0
        return taken[::-1]

    def _entry(self, item: Item) -> dict[str, Any]:
        """An item for the views that have all that was sent so far: of a text that has only grown, what is new."""
        known = self._sent.get(item.number)
        if item.kind is not Kind.TOOL and not _is_rendered(item):
            self._sent[item.number] = item.text
            if known and item.text.startswith(known):
                return {"number": item.number, "append": item.text[len(known) :], "state": item.state.value, "lines": item.lines}
        else:
            self._sent.pop(item.number, None)
        return self._shown(item)

    def _shown(self, item: Item) -> dict[str, Any]:
        entry: dict[str, Any] = msgspec.to_builtins(item)
        if _is_rendered(item):
            entry["html"] = self._html_of(item)
            del entry["text"]
        return entry

    def _html_of(self, item: Item) -> str:
        known = self._rendered.get(item.number)
        if known is not None and known[0] is item:
            return known[1]
        html = self._html(item.fence + item.text)
        if self._transcript.get(item.number) is item:  # not for the items of an older page
            self._rendered[item.number] = (item, html)
        return html


def _is_rendered(item: Item) -> bool:
    return item.kind is Kind.TEXT and item.state is not ItemState.OPEN and bool(item.text)
