"""A bare page with `view.js` on one side, the real `RunView` on the other, and between them what a Jupyter server would carry: comm messages.

Only the transport is made up: it is a list in each direction, and it can lose messages, as the server's rate limiter does.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from weakref import WeakKeyDictionary

import comm
import pytest
from comm.base_comm import BaseComm
from playwright.sync_api import Browser, BrowserContext, Dialog, Error, Locator, Page, Route, WebSocketRoute

import cc_executor.kernel
from cc_executor.kernel.widgets import RunView, script
from cc_executor.model.event import Event
from cc_executor.model.transcript import Transcript
from cc_executor.wire.feed import PageReader, ViewStatus

STATIC: Final = Path(cc_executor.kernel.__file__).parent / "static"
SITE: Final = "http://view.test/"
GUARD: Final = 600  # ms, after which a button that has just come takes clicks
WAIT: Final = 30.0  # seconds; what is waited for takes some tens of milliseconds
PAGES: Final = "CrRendererMain"  # what Chromium calls the thread in which a page does everything
CLICK: Final = "cc_executor click"  # the name of the task that carries one out, see `cc_executor.kernel.widgets.carried_out`

# What JupyterLab's light and dark themes define, where the view looks for it (JupyterLab 4.6, packages/theme-*-extension/style/variables.css).
LAB_LIGHT: Final = (
    "--jp-layout-color1:#fff;--jp-layout-color2:#eee;--jp-border-color2:#e0e0e0;--jp-content-font-color1:rgba(0,0,0,.87);"
    "--jp-content-font-color2:rgba(0,0,0,.54);--jp-brand-color1:#1976d2;--jp-success-color0:#1b5e20;--jp-warn-color0:#e65100;--jp-error-color1:#d32f2f"
)
LAB_DARK: Final = (
    "--jp-layout-color1:#111;--jp-layout-color2:#424242;--jp-border-color2:#616161;--jp-content-font-color1:#fff;"
    "--jp-content-font-color2:rgba(255,255,255,.7);--jp-brand-color1:#2196f3;--jp-success-color0:#1b5e20;--jp-warn-color0:#e65100;--jp-error-color1:#d32f2f"
)

HTML: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><title>view</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="/view.css"><style>body { margin: 12px; font-family: sans-serif }</style><body><script type="module">
import view from "/view.js";
class Model {
  constructor(state) {
    this.state = state; this.changed = {}; this.handlers = {}; this.saves = 0;
    this.widget_manager = { context: { save: async () => { this.saves += 1; } } };
  }
  get(name) { return this.state[name]; }
  set(name, value) { this.state[name] = value; this.changed[name] = value; }
  save_changes() { fromView({ method: "update", state: this.changed, buffer_paths: [] }); this.changed = {}; }
  send(content) { fromView({ method: "custom", content }); }
  on(name, handler) { (this.handlers[name] ||= new Set()).add(handler); }
  off(name, handler) { this.handlers[name]?.delete(handler); }
  emit(name, ...values) { for (const handler of [...this.handlers[name] || []]) handler(...values); }
}
window.views = [];
window.open_view = (state) => {
  const model = new Model(structuredClone(state));
  const el = document.body.appendChild(document.createElement("div"));
  const entry = { model, el };
  views.push(entry);
  entry.close = view.render({ model, el });
  return views.length - 1;
};
window.deliver = (messages) => {
  for (const { state, content, buffers } of messages) {
    for (const { model } of views) {
      if (state) { Object.assign(model.state, state); for (const name of Object.keys(state)) model.emit(`change:${name}`); }
      else model.emit("msg:custom", content, buffers.map((text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer)));
    }
  }
};
window.ready = true;
</script></body></html>"""


_CONTEXTS: Final[WeakKeyDictionary[Browser, dict[str, BrowserContext]]] = WeakKeyDictionary()


def context_of(browser: Browser, scheme: str) -> BrowserContext:
    """The context of all bare pages of a browser. An empty page of the site stays in it, and with it the process that draws them, whose start costs most."""
    contexts = _CONTEXTS.setdefault(browser, {})
    if scheme not in contexts:
        context = browser.new_context(color_scheme=scheme, viewport={"width": 1000, "height": 700}, reduced_motion="reduce")  # pyright: ignore[reportArgumentType] - one of Playwright's words
        stays = context.new_page()
        stays.route("**/*", lambda route: route.fulfill(body="", content_type="text/html"))
        stays.goto(SITE)
        contexts[scheme] = context
    return contexts[scheme]


class WireComm(BaseComm):
    """The kernel's end of the transport."""

    outbox: list[dict[str, Any]]

    def publish_msg(self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **keys: Any) -> None:
        if msg_type != "comm_msg" or data is None:
            return
        if data["method"] == "custom":
            encoded = [base64.b64encode(bytes(buffer)).decode() for buffer in buffers or []]
            self.outbox.append({"content": data["content"], "buffers": encoded})
        elif data["method"] == "update":
            self.outbox.append({"state": data["state"]})


class ViewPage:
    """A run's transcript, its `RunView`, and views of it in a browser."""

    def __init__(self, browser: Browser, monkeypatch: pytest.MonkeyPatch, *, scheme: str = "light") -> None:
        self._monkeypatch = monkeypatch
        self.page: Page = context_of(browser, scheme).new_page()
        self.transcript = Transcript()
        self.commands: list[str] = []
        self.requests: list[str] = []  # of anything but the page itself
        self.sockets: list[str] = []  # that were asked for; none is opened
        self.config = ""  # what a Jupyter server writes into its page
        self.errors: list[str] = []
        self.outbox: list[dict[str, Any]] = []
        self.inbox: list[dict[str, Any]] = []
        self.received: list[dict[str, Any]] = []  # what views said, for good
        self.frames: list[tuple[float, dict[str, Any]]] = []
        self.lose: Callable[[dict[str, Any]], bool] = lambda _: False
        self.on_command: Callable[[str], None] = self.commands.append
        self.is_held = False  # the page's clock, and the kernel's
        self.held_at = 0.0  # what the kernel's shows then
        self.view: RunView

    def __enter__(self) -> Self:
        self.page.route("**/*", self._serve)
        self.page.route_web_socket("**/*", self._refuse)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", self._dismiss)
        self.page.expose_binding("fromView", lambda _, message: self.inbox.append(message))
        self.make_view()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self.is_held:
            self.page.clock.resume()  # it is that of the browser's context, and so of the next page
        self.page.close()
        self.view.close()

    def make_view(self, **options: Any) -> None:
        """The kernel's side anew, before a view is open."""
        outbox = self.outbox

        def create(*arguments: Any, **keys: Any) -> WireComm:
            wire = WireComm(*arguments, **keys)
            wire.outbox = outbox
            return wire

        with self._monkeypatch.context() as patch:
            patch.setattr(comm, "create_comm", create)
            self.view = RunView(self.transcript, on_command=self._obey, clock=self.now, **options)
        self.outbox.clear()

    def _obey(self, command: str, _pauses: int | None) -> None:
        self.on_command(command)

    def _dismiss(self, dialog: Dialog) -> None:
        self.errors.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def _refuse(self, socket: WebSocketRoute) -> None:
        self.sockets.append(socket.url)
        socket.close()

    def _serve(self, route: Route) -> None:
        url = route.request.url
        if url == SITE:
            route.fulfill(body=HTML.replace("<body>", f"<body>{self.config}"), content_type="text/html")
        elif url == f"{SITE}view.js":
            route.fulfill(body=script(), content_type="text/javascript")
        elif url == f"{SITE}view.css":
            route.fulfill(path=STATIC / "view.css")
        else:
            self.requests.append(url)
            route.abort()

    # --- doing ------------------------------------------------------------------------------------------------------

    def open(self) -> int:
        """Open one more view (the page, too, if this is the first); its number."""
        if self.page.url != SITE:
            self.page.goto(SITE)
            self.page.wait_for_function("window.ready")
        state = {name: self.view.get_state(name)[name] for name in ("title", "save_on_start", "notify", "state")}
        return self.page.evaluate("(state) => open_view(state)", state)

    def reload(self) -> None:
        """What a page reload does: every view is gone."""
        self.page.goto(SITE)
        self.page.wait_for_function("window.ready")
        self.inbox.clear()

    def feed(self, *events: Event) -> None:
        self.transcript.feed(events)

    def show(self, phase: str, **fields: Any) -> None:
        self.view.show(ViewStatus(phase=phase, **fields))

    def now(self) -> float:
        """The kernel's clock, in seconds."""
        return self.held_at if self.is_held else time.monotonic()

    def turn(self) -> None:
        """One tick of the kernel, and the messages of both directions. What was clicked is carried out then."""
        inbox, self.inbox = self.inbox, []
        for message in inbox:
            self.received.append(message)
            assert self.view.comm is not None
            self.view.comm.handle_msg({"content": {"data": message}, "buffers": []})
        if inbox:
            self.happens(lambda: not any(task.get_name() == CLICK for task in asyncio.all_tasks()), "a thread does what was clicked")
        now = self.now()
        self.view.tick(now)
        outbox = [message for message in self.outbox if not self.lose(message)]
        self.outbox.clear()
        self.frames += [(now, message["content"]) for message in outbox if "content" in message]
        if outbox:
            self.page.evaluate("(messages) => deliver(messages)", outbox)

    def until(self, look: Callable[[], Any], what: str = "", *, within: float = WAIT) -> Any:
        """Turn until `look` is truthy."""
        end = time.monotonic() + within
        while not (found := look()):
            assert time.monotonic() < end, f"not within {within} s: {what}"
            self.turn()
            if self.is_held:
                self.page.clock.run_for(20)
                self.held_at += 0.02
            else:
                self.page.evaluate("() => new Promise((done) => setTimeout(done, 10))")
        return found

    def settle(self) -> None:
        """Turn until the views have everything and have painted it."""
        self.until(lambda: self.view.feed.is_settled and not self.outbox and not self.inbox, "everything sent")
        self.painted()

    def happens(self, look: Callable[[], Any], what: str) -> None:
        """Wait for what the page does without a kernel: what it asks for comes to us on a way of its own."""
        end = time.monotonic() + WAIT
        while not look():
            assert time.monotonic() < end, f"not within {WAIT} s: {what}"
            self.page.wait_for_timeout(20)

    def smooth(self, work: Callable[[], object], *, below: float) -> None:
        """Work that keeps the page busy for less than so many milliseconds at a time, of a processor's: a machine that does something else does not count."""
        browser = self.page.context.browser
        assert browser is not None
        browser.start_tracing(page=self.page, categories=["toplevel"])
        try:
            work()
        finally:
            events = json.loads(browser.stop_tracing())["traceEvents"]
        pages = {(event["pid"], event["tid"]) for event in events if event["name"] == "thread_name" and event["args"]["name"] == PAGES}
        busy = [event["tdur"] / 1000 for event in events if "tdur" in event and (event["pid"], event["tid"]) in pages]
        assert len(busy) > 10, "the page has done something"
        assert max(busy) < below

    def hold_clock(self) -> None:
        """From now on the page's clock goes as it is told, and both it and the kernel's 20 ms with each turn of `until`.

        A page that is open already has had its clock installed.
        """
        if self.page.url != SITE:
            self.page.clock.install()
            self.page.goto(SITE)
            self.page.wait_for_function("window.ready")
        try:
            self._pause_clock()
        except Error:  # more than that second has passed meanwhile; it stands still all the same, so that this cannot happen again
            self._pause_clock()
        self.is_held, self.held_at = True, max(self.held_at, time.monotonic())

    def _pause_clock(self) -> None:
        self.page.clock.pause_at(self.page.evaluate("Date.now()") / 1000 + 1)

    def painted(self) -> None:
        if self.is_held:
            self.page.clock.run_for(50)
            return
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    # --- looking ----------------------------------------------------------------------------------------------------

    def root(self, view: int = 0) -> Locator:
        return self.page.locator(".ccx").nth(view)

    def items(self, view: int = 0) -> list[str]:
        """Texts of the items of a view, in order."""
        return self.root(view).locator(".ccx-item").all_text_contents()

    def text(self, view: int = 0) -> str:
        return "".join(self.items(view))

    def button(self, name: str, view: int = 0) -> Locator:
        return self.root(view).get_by_role("button", name=name, exact=True)

    def status(self, view: int = 0) -> str:
        return self.root(view).get_by_role("status").inner_text()

    def said(self, op: str) -> list[dict[str, Any]]:
        """What views have said of one kind."""
        return [message["content"] for message in self.received if message["method"] == "custom" and message["content"]["op"] == op]


def reader(events: Iterable[Event], transcript: Transcript) -> PageReader:
    """Pages made from the very beginning."""
    from cc_executor.model.pager import Checkpoints, earlier

    listed = list(events)
    checkpoints = Checkpoints(0, transcript)
    return lambda before, done: done(earlier(checkpoints, lambda position: listed[position:], before=before))
