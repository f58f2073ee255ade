"""The live view of one run as a Jupyter widget. Knows anywidget; what to send and when is `cc_executor.wire.feed`'s, what it means is `static/view.js`'s.

The view holds nothing that is needed later: the journal has the run, the transcript its page. So any number of views, in any tab, at any time, is the
same easy case.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import anywidget
import traitlets

from cc_executor.errors import CCExecutorError
from cc_executor.kernel.loop import own
from cc_executor.model.transcript import Transcript
from cc_executor.runtime.errand import in_thread
from cc_executor.wire.feed import PageReader, ViewFeed, ViewStatus

OnCommand = Callable[[str, int | None], None]
COMMANDS: Final = frozenset({"pause", "resume", "cancel", "kill"})
STATE_SECONDS: Final = 1.0  # the trait is for new pages and lost messages; a second of age does not matter there

_STATIC: Final = Path(__file__).parent / "static"


def script() -> str:
    """The view's module: the way past the kernel, what comes by both ways, the bell, the notebook around it, and the view.

    anywidget takes one text; there is no front-end build.
    """
    return "\n".join(
        (_STATIC / name).read_text(encoding="utf-8") for name in ("server.js", "channel.js", "notify.js", "notebook.js", "view.js")
    )


def carried_out(
    act: Callable[[], object], told: Callable[[str | None], None], *, after: asyncio.Task[None] | None = None
) -> asyncio.Task[None] | None:
    """Do what a click asks for, and tell what became of it: None, or the sentence with which it was refused.

    In a thread, for whoever is to obey may stand still, and is waited for up to 5 s; what this loop shows goes on meanwhile. `after`: the click before
    this one, where their order counts.
    """
    if asyncio._get_running_loop() is None:  # then nothing is shown meanwhile that could be held up
        told(_refusal(act))
        return None

    async def work() -> None:
        if after is not None and after.get_loop() is asyncio.get_running_loop():
            await asyncio.wait({after})
        # Without waiting for a place, as for any command.
        told(await in_thread(partial(_refusal, act), takes_long=True))

    return own(work(), name="cc_executor click")


def _refusal(act: Callable[[], object]) -> str | None:
    try:
        act()
    except CCExecutorError as error:
        return str(error)
    return None


def obeyed(content: Mapping[str, object], command: str, obey: OnCommand, transmit: Callable[[dict[str, Any], list[bytes]], None]) -> None:
    """Hand a view's command on, and tell it what became of it: a view that hears nothing looks for another way."""
    pauses, about = content.get("pauses"), {"command": command, "click": content.get("click")}
    carried_out(
        lambda: obey(command, pauses if type(pauses) is int else None),
        lambda text: transmit({"op": "taken", **about} if text is None else {"op": "refused", **about, "text": text}, []),
    )


def answered(
    content: Mapping[str, object],
    ask: str,
    answer: Callable[[Mapping[str, object]], None],
    transmit: Callable[[dict[str, Any], list[bytes]], None],
) -> None:
    """Hand a view's answer on, and tell it if that is refused."""

    def told(text: str | None) -> None:
        if text is not None:
            transmit({"op": "unanswered", "ask": ask, "text": text}, [])

    carried_out(lambda: answer(content), told)


def place_now(_value: str, view: Any) -> str:
    """Where a view is shown, for a page that fetches it; not for those that are there: the trait itself never changes, so no message tells of it."""
    return view.shown_at


class RunView(anywidget.AnyWidget):
    """The live view of one run.

    Parameters
    ----------
    transcript : Transcript
        Somebody else feeds it.
    on_command : callable
        Called with ``"pause"``, ``"resume"``, ``"cancel"`` or ``"kill"`` and how often the run had been paused when somebody clicked (None: the view did not
        say), in a thread of its own where a loop runs.
        A `CCExecutorError` that it raises is shown in the view.
    on_answer : callable or None
        Called, as `on_command`, with an answer to a question of the agent; see `cc_executor.runtime.runpage.RunPage.answer`.
    read_page : callable or None
        ``read_page(before, done)`` makes the page before a number and calls ``done(page)``; see `ViewFeed`.
    run_id : str
        Of the run, for a view that has to ask a server because the kernel does not answer.
    title : str
        What the view is called for people who do not see it.
    save_on_start : bool
        Ask JupyterLab to save the notebook once when the view first appears, so that a tab that is opened again finds it.
    bell : str
        Whether and of what the view's bell tells; see `cc_executor.kernel.notify.bell_of`.
    clock : callable
        Seconds; the same clock as that of `tick`.
    """

    _esm = script()
    # Not the path: anywidget would keep every view that ever was, to tell it when the file changes.
    _css = (_STATIC / "view.css").read_text(encoding="utf-8")

    title = traitlets.Unicode("Agent run").tag(sync=True)
    save_on_start = traitlets.Bool(default_value=True).tag(sync=True)
    notify = traitlets.Unicode("").tag(sync=True)
    state = traitlets.Unicode("{}").tag(sync=True)  # JSON: {"seq", "status", "done"}
    place = traitlets.Unicode("").tag(sync=True, to_json=place_now)
    shown_at = ""  # see `cc_executor.kernel.live.Audience`

    def __init__(
        self,
        transcript: Transcript,
        *,
        on_command: OnCommand,
        on_answer: Callable[[Mapping[str, object]], None] | None = None,
        read_page: PageReader | None = None,
        run_id: str = "",
        title: str = "Agent run",
        save_on_start: bool = True,
        bell: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_command = on_command
        self._on_answer = on_answer
        self._clock = clock
        self._state_at = float("-inf")
        self._status_word = ""
        self._is_done = False
        self.feed = ViewFeed(transcript, self._transmit, read_page=read_page, run_id=run_id)
        super().__init__(title=title, save_on_start=save_on_start, notify=bell)
        self.on_msg(self._receive)  # pyright: ignore[reportUnknownMemberType] - ipywidgets is untyped

    def show(self, status: ViewStatus, now: float | None = None) -> None:
        """Set the status line; `status.elapsed` is that of `now`."""
        now = self._clock() if now is None else now
        self.feed.show(status, now)
        word = f"{status.phase} {status.is_ticking}"
        if word != self._status_word and now - self._state_at >= STATE_SECONDS:
            self._status_word = word
            self._keep_state(now)

    def tick(self, now: float | None = None) -> None:
        """Send what is due. Call it every 40 ms, always from the same thread."""
        self.feed.tick(self._clock() if now is None else now)

    @property
    def is_settled(self) -> bool:
        """Whether every page has all that there is."""
        return self.comm is None or self.feed.is_settled

    def finish(self, status: ViewStatus, now: float | None = None) -> None:
        """Send what is left and the last status. What views ask for afterwards is answered by further ticks."""
        now = self._clock() if now is None else now
        self._is_done = True
        self.feed.show(status, now)
        self.feed.finish(now)
        self._keep_state(now)

    def close(self) -> None:
        """Give back what the view has of the kernel; ipywidgets keeps every widget that is not closed, its layout as well."""
        super().close()
        self.layout.close()  # pyright: ignore[reportUnknownMemberType] - ipywidgets is untyped

    def _keep_state(self, now: float) -> None:
        self._state_at = now
        self.state = json.dumps({"seq": self.feed.seq, "status": self.feed.status_at(now), "done": self._is_done})

    def _transmit(self, content: dict[str, Any], buffers: list[bytes]) -> None:
        if self.comm is not None:  # closed
            self.send(content, buffers)  # pyright: ignore[reportUnknownMemberType] - ipywidgets is untyped

    def _receive(self, _widget: object, content: object, _buffers: object) -> None:
        match content:
            case {"op": "command", "command": str(command)} if command in COMMANDS:
                obeyed(cast("Mapping[str, object]", content), command, self._on_command, self._transmit)
            case {"op": "answer", "ask": str(ask)} if self._on_answer is not None:
                answered(cast("Mapping[str, object]", content), ask, self._on_answer, self._transmit)
            case _:
                self.feed.on_message(content)
