"""The live view of a task list as a Jupyter widget, and the runs that somebody has opened in it. Knows anywidget and the journal of a run.

The rows are `cc_executor.wire.taskfeed`'s, an opened run is shown by the very view of a cell (`static/view.js`), whose messages travel inside ours:
``{"op": "run", "run": ID, "content": …}`` in both directions. A run is read when somebody opens it, from its journal, whether it goes on or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, cast

import anywidget
import traitlets

from cc_executor.errors import CCExecutorError, InvalidRequest, RunNotFound
from cc_executor.kernel.loop import own
from cc_executor.kernel.widgets import COMMANDS, answered, carried_out, obeyed, place_now
from cc_executor.kernel.widgets import script as run_script
from cc_executor.model.listrecord import TaskState, TaskStatus
from cc_executor.model.taskrows import TaskBoard
from cc_executor.runtime.run import Run
from cc_executor.runtime.runpage import RunPage
from cc_executor.store.home import StateHome
from cc_executor.taskcommands import LIST_COMMANDS, TASK_COMMANDS, TaskCommands
from cc_executor.wire.feed import ViewFeed
from cc_executor.wire.taskfeed import TaskFeed

logger = logging.getLogger(__name__)

# What the list's module uses of the run's.
EXPORTS: Final = (
    "{ initialize, render, element, button, uniqueId, setText, disable, yieldFocus, clockText, shortNumber, "
    "Bell, Channel, Guard, keepKeys, keepPlace, LIST_ID, ANSWER_MS, KERNEL_MS, SHOWN_MS };"
)
LOOK: Final = 0.2  # seconds between looks for a run that is opened before it is there
OPENED_LIMIT: Final = 8  # runs that are open at once in all views; each holds at most 5,000 lines. The one that was opened first makes room

_STATIC: Final = Path(__file__).parent / "static"


def script() -> str:
    """The view's module: that of a run, the picture of the needs, and the list's around them. anywidget takes one text, and there is no front-end build."""
    run_view = run_script().replace("export default { initialize, render };", f"return {EXPORTS}")
    graph = f"{(_STATIC / 'graph.js').read_text(encoding='utf-8')}\nreturn {{ Graph }};"
    return f"const RunView = (() => {{\n{run_view}\n}})();\nconst TaskGraph = (() => {{\n{graph}\n}})();\n{(_STATIC / 'tasks.js').read_text(encoding='utf-8')}"


def style() -> str:
    """The style sheet: that of a run, and what the list has besides."""
    return "\n".join((_STATIC / name).read_text(encoding="utf-8") for name in ("view.css", "tasks.css", "graph.css"))


class TaskListView(anywidget.AnyWidget):
    """The live view of one list.

    Parameters
    ----------
    board : TaskBoard
        Somebody else feeds it.
    commands : TaskCommands
    home : StateHome
        Where the runs are that somebody opens.
    title : str
        What the view is called for people who do not see it.
    save_on_start : bool
        Ask JupyterLab to save the notebook once when the view first appears, so that a tab that is opened again finds it.
    bell : str
        As for `RunView`.
    """

    _esm = script()
    _css = style()

    title = traitlets.Unicode("Task list").tag(sync=True)
    save_on_start = traitlets.Bool(default_value=True).tag(sync=True)
    notify = traitlets.Unicode("").tag(sync=True)
    state = traitlets.Unicode("{}").tag(sync=True)  # JSON: {"seq", "done"}
    place = traitlets.Unicode("").tag(sync=True, to_json=place_now)
    shown_at = ""  # as for `RunView`

    def __init__(
        self,
        board: TaskBoard,
        *,
        commands: TaskCommands,
        home: StateHome,
        title: str = "Task list",
        save_on_start: bool = True,
        bell: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._board = board
        self._commands = commands
        self._home = home
        self._clock = clock
        self._opened: dict[str, _Opened] = {}
        self._turn = 0
        self._clicked: asyncio.Task[None] | None = None  # the newest
        self._loop: asyncio.AbstractEventLoop | None = None
        with contextlib.suppress(RuntimeError):  # made where no loop runs: nothing can be opened
            self._loop = asyncio.get_running_loop()
        self.feed = TaskFeed(board, self._transmit, wall=time.time, begun=time.time())
        super().__init__(title=title, save_on_start=save_on_start, notify=bell)
        self.on_msg(self._receive)  # pyright: ignore[reportUnknownMemberType] - ipywidgets is untyped

    def tick(self, now: float | None = None) -> None:
        """Send what is due, at most one message, the list and the opened runs in turn. Call it every 40 ms, always from the same thread."""
        now = self._clock() if now is None else now
        feeds: list[TaskFeed | ViewFeed] = [self.feed, *(opened.feed for opened in self._opened.values() if opened.feed is not None)]
        for step in range(len(feeds)):
            if feeds[(self._turn + step) % len(feeds)].tick(now):
                self._turn += step + 1
                return

    @property
    def is_settled(self) -> bool:
        """Whether every page has all that there is of the list, and of the runs that are opened."""
        return self.comm is None or (self.feed.is_settled and all(opened.is_settled for opened in self._opened.values()))

    def finish(self, now: float | None = None) -> None:
        """Send what is left. What views ask for afterwards is answered by further ticks."""
        self.feed.finish(self._clock() if now is None else now)
        self.state = json.dumps({"seq": self.feed.seq, "done": True})

    def _transmit(self, content: dict[str, Any], buffers: list[bytes]) -> None:
        if self.comm is not None:  # closed
            self.send(content, buffers)  # pyright: ignore[reportUnknownMemberType] - ipywidgets is untyped

    # --- what views say; in whatever thread the message arrives, which changes from click to click ------------------

    def _receive(self, _widget: object, content: object, _buffers: object) -> None:
        match content:
            case {"op": "command", "command": str(command), "task": str(task), "text": str(text)}:
                self._command(command, task, text, cast("Mapping[str, object]", content).get("click"))
            case {"op": "detail", "task": str(task)}:
                self._detail(task)
            case {"op": "open", "run": str(run_id), "view": str(view)}:
                self._later(lambda: self._open(run_id, view))
            case {"op": "close", "run": str(run_id), "view": str(view)}:
                self._later(lambda: self._leave(run_id, view))
            case {"op": "run", "run": str(run_id)}:
                self._pass_on(run_id, cast("dict[str, object]", content).get("content"))
            case _:
                self.feed.on_message(content)

    def _command(self, command: str, task: str, text: str, click: object) -> None:
        """Obey, and say that it was taken: a view that hears nothing looks for another way."""
        about = {"task": task, "click": click}

        def obey() -> None:
            if command not in (TASK_COMMANDS if task else LIST_COMMANDS):
                raise InvalidRequest(f"There is no command {command!r}.")
            self._commands.obey(command, task=task, text=text, click=click if isinstance(click, str) else "")

        def told(text: str | None) -> None:
            self._transmit({"op": "taken", **about} if text is None else {"op": "refused", **about, "text": text}, [])

        # In their order, but for the last resort: a text is changed before the list that stood still goes on.
        if command == "kill":
            carried_out(obey, told)
        else:
            self._clicked = carried_out(obey, told, after=self._clicked)

    def _detail(self, task: str) -> None:
        try:
            self._transmit({"op": "detail", **self._commands.detail(task)}, [])
        except CCExecutorError as error:
            self._transmit({"op": "refused", "task": task, "text": str(error)}, [])

    def _pass_on(self, run_id: str, inner: object) -> None:
        opened = self._opened.get(run_id)
        if opened is not None:
            opened.receive(inner)
        elif run_id:  # its `open` may be on the way to the loop

            def later() -> None:
                if (opened := self._opened.get(run_id)) is not None:
                    opened.receive(inner)

            self._later(later)

    def _later(self, act: Callable[[], None]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # that loop is gone; so is whoever could read the run
                self._loop.call_soon_threadsafe(act)

    # --- opened runs ------------------------------------------------------------------------------------------------

    def _open(self, run_id: str, view: str) -> None:
        """Begin to read a run of this list for whoever opens its row."""
        if run_id in self._opened:
            self._opened[run_id].views.add(view)
        elif self._tasks_of(run_id):
            while len(self._opened) >= OPENED_LIMIT:
                oldest = next(iter(self._opened))
                self._opened.pop(oldest).close()
                self._transmit({"op": "closed", "run": oldest}, [])

            def is_coming() -> bool:
                return any(known.status is TaskStatus.RUNNING for known in self._tasks_of(run_id))

            opened = self._opened[run_id] = _Opened(run_id, self._home, self._transmit, is_coming=is_coming)
            opened.views.add(view)
            opened.follow()

    def _tasks_of(self, run_id: str) -> list[TaskState]:
        return [known for known in self._board.state.tasks.values() if known.run_id == run_id]

    def _leave(self, run_id: str, view: str) -> None:
        opened = self._opened.get(run_id)
        if opened is not None:
            opened.views.discard(view)
            if not opened.views:
                self._opened.pop(run_id).close()

    def close(self) -> None:
        """Let go of the page and of every opened run."""
        for run_id in list(self._opened):
            self._opened.pop(run_id).close()
        super().close()
        self.layout.close()  # pyright: ignore[reportUnknownMemberType] - ipywidgets is untyped, and keeps every widget that is not closed


class _Opened:
    """One run that somebody looks at: read from its beginning, and on until it ends."""

    def __init__(
        self, run_id: str, home: StateHome, transmit: Callable[[dict[str, Any], list[bytes]], None], *, is_coming: Callable[[], bool]
    ) -> None:
        self._run_id = run_id
        self._home = home
        self._transmit = transmit
        self._is_coming = is_coming  # whether it may be launched still
        self._page: RunPage | None = None
        self._waiting: list[object] = []  # what the view says before the run is there
        self._task: asyncio.Task[None] | None = None
        self.feed: ViewFeed | None = None
        self.views: set[str] = set()  # who looks at it; a page that was reloaded does not say that it no longer does

    @property
    def is_settled(self) -> bool:
        """Whether the views have all of it, as far as it goes."""
        return self._task is not None and self._task.done() and (self.feed is None or self.feed.is_settled)

    def follow(self) -> None:
        self._task = own(self._follow(), name=f"cc_executor opened {self._run_id}")

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _follow(self) -> None:
        try:
            await self._read(await self._found())
        except CCExecutorError as error:
            self._send({"op": "refused", "text": str(error)}, [])

    async def _read(self, run: Run) -> None:
        page = self._page = RunPage(run)
        feed = self.feed = ViewFeed(page.transcript, self._send, read_page=page.read_page, run_id=run.run_id)
        for content in self._waiting:
            feed.on_message(content)
        async with aclosing(run.follow()) as batches:
            async for batch in batches:
                page.apply(batch)
                feed.show(page.status(batch.state), time.monotonic())
        receipt = run.folder.receipt()  # whoever runs the list seals it; a moment later, mostly
        said = f"{receipt.outcome.kind.value}: {receipt.outcome.summary}" if receipt is not None else "ended"
        feed.show(page.status(run.state, detail=said), time.monotonic())

    async def _found(self) -> Run:
        """The run. A row names it before it is launched, which a hook may hold up for long."""
        while True:
            try:
                return await Run.attach(self._home, self._run_id, environ=os.environ)
            except RunNotFound:
                if not self._is_coming():
                    raise
            await asyncio.sleep(LOOK)

    def receive(self, content: object) -> None:
        """Take what the run's view says."""
        match content:
            case {"op": "command", "command": str(command)} if command in COMMANDS and self._page is not None:
                obeyed(cast("Mapping[str, object]", content), command, self._page.command, self._send)
            case {"op": "answer", "ask": str(ask)} if self._page is not None:
                answered(cast("Mapping[str, object]", content), ask, self._page.answer, self._send)
            case _ if self.feed is not None:
                self.feed.on_message(content)
            case _:
                self._waiting = [*self._waiting[-9:], content]

    def _send(self, content: dict[str, Any], buffers: list[bytes]) -> None:
        self._transmit({"op": "run", "run": self._run_id, "content": content}, buffers)
