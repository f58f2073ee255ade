"""What a live view is told, and when. Knows the transcript and the view's protocol; knows no widget, no loop and no clock: times are parameters.

The protocol
------------
To the views, at most 25 messages a second: ``{"op": "f", "seq", "floor", "elided", …}`` with one binary buffer (JSON in UTF-8), or
``{"op": "p", "to", "first", …}`` with an older page. From a view: ``sync`` and ``ack``, as every feed has them (`cc_executor.wire.pace`), and
``{"op": "page", "view", "before"}``; commands are not for the feed. A reset names the run (``"run"``), and everything follows, newest first, over as many
frames as it takes.
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
from cc_executor.wire.pace import EVERYBODY, RESETS, PacedFeed, Send

FRAME_LINES: Final = 400
FRAME_CHARS: Final = 64 * 1024
RENDER_CHARS: Final = 32 * 1024  # Markdown becomes HTML on the kernel's loop: some 2 ms for each KB of the worst text

PageReader = Callable[[int, Callable[[Page], None]], None]


class ViewStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The status line.

    Attributes
    ----------
    phase : str
        A word of `cc_executor.model.phase.Phase`.
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


class ViewFeed(PacedFeed):
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
        send: Send,
        *,
        read_page: PageReader | None = None,
        html: Callable[[str], str] = markdown_html,
        run_id: str = "",
    ) -> None:
        super().__init__(send)
        self._transcript = transcript
        self._read_page = read_page
        self._html = html
        self._run_id = run_id
        self._status = ViewStatus()
        self._status_at = 0.0
        self._status_is_new = True
        self._version = 0
        self._pending: dict[int, None] = {}  # items that the views lack
        self._withdrawn: list[int] = []
        self._elided: list[int] = []
        self._sent: dict[int, str] = {}  # texts of open items, as the views have them
        self._rendered: dict[int, tuple[Item, str]] = {}
        self._reading: set[str] = set()
        self._pages: deque[tuple[str, Page]] = deque()

    # --- the owner's side -------------------------------------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """Whether the views were sent everything that there is, as of the last tick, or there is none."""
        is_sent = not (self._pages or self._reading) and self._version == self._transcript.version
        return self.has_nobody or (super().is_settled and is_sent)

    def show(self, status: ViewStatus, now: float) -> None:
        """Set the status line; `status.elapsed` is that of `now`."""
        if msgspec.structs.replace(status, elapsed=0.0) != msgspec.structs.replace(self._status, elapsed=0.0):
            self._status_is_new = True
        self._status = status
        self._status_at = now

    def on_message(self, content: object) -> None:
        """Take what a view says, as `PacedFeed.on_message`."""
        match content:
            case {"op": "page", "view": str(view), "before": int(before)}:
                self._inbox.append(("page", (view, before)))
            case _:
                super().on_message(content)

    def finish(self, now: float) -> None:
        """Send what is left, and that this is all. If nobody looks, one frame."""
        self._read_inbox()
        self._collect()
        while self.is_watched and len(self._pending) > 1:
            self._send_frame(now)
        self._is_done = True
        self._send_frame(now)

    def status_at(self, now: float) -> dict[str, Any]:
        """The status line as of `now`."""
        elapsed = self._status.elapsed + (now - self._status_at if self._status.is_ticking else 0.0)
        return msgspec.to_builtins(msgspec.structs.replace(self._status, elapsed=round(elapsed, 2)))

    # --- messages ---------------------------------------------------------------------------------------------------

    def _take_message(self, what: str, value: Any) -> None:
        if what == "page":
            self._begin_page(*value)
        elif what == "read":
            self._pages.append(value)
        else:
            super()._take_message(what, value)

    def _begin_page(self, view: str, before: int) -> None:
        if self._read_page is None or view in self._reading or len(self._reading) >= RESETS or before <= 0:
            return
        self._reading.add(view)
        self._read_page(before, lambda page: self._inbox.append(("read", (view, page))))

    def _send_page(self, view: str, page: Page) -> None:
        body = msgspec.json.encode({"items": [self._shown(item) for item in page.items]})
        self._send({"op": "p", "to": view, "first": page.first}, [body])

    # --- frames -----------------------------------------------------------------------------------------------------

    def _send_due(self, now: float) -> bool:
        if self._pages:
            view, page = self._pages.popleft()
            self._reading.discard(view)
            self._send_page(view, page)
            return True
        return super()._send_due(now)

    def _frame_is_due(self, now: float) -> bool:
        if not self._is_held_back(now):
            self._collect()
        return super()._frame_is_due(now)

    def _has_news(self) -> bool:
        return bool(self._pending or self._withdrawn or self._elided or self._status_is_new)

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

    def _send_frame(self, now: float) -> None:
        content = self._begin_frame("f", now)
        content |= {"floor": self._transcript.floor, "elided": self._transcript.elided_lines, "status": self.status_at(now)}
        if "reset" in content:
            content["run"] = self._run_id
            self._sent.clear()
            self._pending = dict.fromkeys(item.number for item in self._transcript.items)
        body: dict[str, Any] = {"items": self._take()}
        for name in ("withdrawn", "elided"):
            numbers: list[int] = getattr(self, f"_{name}")
            if numbers:
                body[name] = list(numbers)
                numbers.clear()
        self._status_is_new = False
        self._send(content, [msgspec.json.encode(body)])

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
