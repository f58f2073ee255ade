"""How a task list is shown where: a widget in a notebook, lines in a terminal, a table at the end everywhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import Any, Final, Protocol

from IPython.core.displaypub import CapturingDisplayPublisher

from cc_executor.kernel.config import CCExecutor
from cc_executor.kernel.display import Bundle, replace_mime, show_mime
from cc_executor.kernel.shell_pump import takes_input
from cc_executor.kernel.standin import LINES, StandIn, needed_version
from cc_executor.model.listrecord import TaskStatus
from cc_executor.model.notice import duration
from cc_executor.model.taskcard import MARKS, EndedList, cost_words, list_bundle, list_text
from cc_executor.model.taskrows import TaskBoard, is_rehearsed
from cc_executor.runtime.narrow import has_a_cursor
from cc_executor.store.home import StateHome
from cc_executor.store.localtime import local
from cc_executor.store.place import process_mark
from cc_executor.taskcommands import TaskCommands

LISTS_KEPT: Final = 10  # a tab that is opened again after the end finds its view as long as the kernel keeps it

_kept: Final[deque[Any]] = deque()


class ListDisplay(Protocol):
    """One way of showing one list."""

    def changed(self, task_ids: list[str]) -> None:
        """Tasks have begun or ended."""
        ...

    def tick(self, now: float) -> None:
        """Show what is due. Called some 25 times a second; `now` in monotonic seconds."""
        ...

    def show_here(self) -> None:
        """Show what is shown once more, as an output of whatever request is the parent now."""
        ...

    def finish(self, ended: EndedList) -> Bundle:
        """Put the table in the place of the live view, and return it."""
        ...

    def leave(self, note: str) -> None:
        """Stop watching a list of which nothing further is known here."""
        ...


def make_list_display(
    shell: Any, board: TaskBoard, *, commands: TaskCommands, home: StateHome, list_id: str, settings: CCExecutor, bell: str = ""
) -> ListDisplay:
    """The display that fits this shell and these settings."""
    if isinstance(shell.display_pub, CapturingDisplayPublisher):
        return StaticListDisplay()
    if settings.view == "widget" or (settings.view == "auto" and hasattr(shell, "kernel")):
        return WidgetListDisplay(
            board,
            commands=commands,
            home=home,
            list_id=list_id,
            save_on_start=settings.save_on_start,
            is_read=takes_input(getattr(shell, "kernel", None)),
            bell=bell,
        )
    return TextListDisplay(board, in_notebook=hasattr(shell, "kernel"))


class StaticListDisplay:
    """Nothing until the end."""

    def changed(self, task_ids: list[str]) -> None:
        """Nothing is shown before the end."""

    def tick(self, now: float) -> None:
        """Nothing is due before the end."""

    def show_here(self) -> None:
        """Nothing is shown before the end."""

    def finish(self, ended: EndedList) -> Bundle:
        """Display the table."""
        bundle = list_bundle(ended)
        show_mime(*bundle)
        return bundle

    def leave(self, note: str) -> None:
        """Nothing was shown."""


class TextListDisplay:
    """A line when a task begins and one when it ends; the table at the end."""

    def __init__(self, board: TaskBoard, *, in_notebook: bool) -> None:
        self._board = board
        self._in_notebook = in_notebook
        self._has_begun: dict[str, int] = {}  # attempts that were said
        self._look_at = 0.0
        self._is_counting = False

    def changed(self, task_ids: list[str]) -> None:
        """Say what has become of each."""
        for task_id in task_ids:
            self._say(task_id)
        sys.stdout.flush()

    def _say(self, task_id: str) -> None:
        row, known = self._board.row(task_id), self._board.state.task(task_id)
        name = f"{row.number}/{len(self._board.order)} {task_id}"
        if known.begun > self._has_begun.get(task_id, 0):
            self._has_begun[task_id] = known.begun
            again = f" (attempt {known.begun})" if known.begun > 1 else ""
            title = f": {row.title}" if row.title and row.title != task_id else ""
            self._write(f"▶ {name}{title}{again}")
        if known.status is TaskStatus.WAITING and known.until:
            self._write(f"… {name} waits until {local(known.until):%H:%M:%S}: {row.line}")
        if known.status in {TaskStatus.WAITING, TaskStatus.RUNNING}:
            return
        mark, word, _ = MARKS[known.status]
        task = self._board.tasks.task(task_id)
        cost = "rehearsal" if is_rehearsed(task) else cost_words(known.spent, is_known=known.spent > 0)
        parts = (duration(known.seconds) if known.seconds else "", cost, row.line)
        self._write(f"{mark} {name} {word}{''.join(f' · {part}' for part in parts if part)}")

    def _write(self, text: str) -> None:
        if self._is_counting:
            text, self._is_counting = f"\r\x1b[K{text}", False
        print(text)  # noqa: T201 - this display is a terminal

    def tick(self, now: float) -> None:
        """Lines are written when something begins or ends; a terminal counts down, while the list waits."""
        until = self._board.totals().until if now >= self._look_at else None
        self._look_at = max(self._look_at, now + 1.0 if now >= self._look_at else 0.0)
        if until and not self._in_notebook and has_a_cursor(sys.stdout):
            print(f"\r\x1b[K  in {duration(max(0, round(until - time.time())))}", end="", flush=True)  # noqa: T201 - as below
            self._is_counting = True

    def show_here(self) -> None:
        """Lines are not written twice."""

    def finish(self, ended: EndedList) -> Bundle:
        """Write the table."""
        bundle = list_bundle(ended)
        if self._in_notebook:
            show_mime(*bundle)
        else:
            self._write(f"\n{list_text(ended)}")
        return bundle

    def leave(self, note: str) -> None:
        """What was written stays."""


def _lines(board: TaskBoard) -> str:
    """The rows as text; of many those that have begun."""
    lines: list[str] = []
    for task in board.order:
        row, known = board.row(task.id), board.state.task(task.id)
        mark, word, _ = MARKS[known.status]
        if known.status is not TaskStatus.WAITING or len(board.order) <= LINES:
            lines.append(f"{mark} {row.number}/{len(board.order)} {task.id} {word}{f' · {row.line}' if row.line else ''}")
    return "\n".join(lines)


class WidgetListDisplay:
    """A widget while the list goes on, and the table in its place at the end."""

    def __init__(
        self,
        board: TaskBoard,
        *,
        commands: TaskCommands,
        home: StateHome,
        list_id: str,
        save_on_start: bool,
        is_read: bool = False,
        bell: str = "",
    ) -> None:
        from cc_executor.kernel.live import WIDGET_MIME, Audience
        from cc_executor.kernel.taskview import TaskListView

        self._view = TaskListView(
            board, commands=commands, home=home, title=f"Task list {board.tasks.name or list_id}", save_on_start=save_on_start, bell=bell
        )
        self._audience = Audience(self._view, save_on_start=save_on_start)
        self._display_id = f"cc-executor-{list_id}-{id(self):x}"
        words = f"The task list {list_id} is going on. Run this cell again to see it live; what ended well is not done again."
        data = {WIDGET_MIME: {"model_id": self._view.model_id, "version_major": 2, "version_minor": 0}, "text/plain": words}
        self._mark = {"list_id": list_id, "status": "running"}  # lets a save put the end in place if the page missed it
        metadata = {"cc_executor": {**self._mark, "kernel": process_mark(), "view": self._view.model_id}}
        self._live: Bundle = (data, metadata)
        self.show_here()
        self._stand_in = (
            StandIn(
                self._live,
                display_id=self._display_id,
                is_heard=lambda: self._audience.has_model,
                words=lambda: _lines(board),
                needs=needed_version(self._view),
                steered="To stop the list: interrupt its cell (I, I).",
            )
            if is_read
            else None
        )

    def changed(self, task_ids: list[str]) -> None:
        """The next tick shows it."""

    def tick(self, now: float) -> None:
        """Send what is due to the views."""
        self._view.tick(now)
        if self._stand_in is not None:
            self._stand_in.tick(now)

    def show_here(self) -> None:
        """Show the view as a new output; what replaces the others replaces this one, too."""
        show_mime(*self._live, display_id=self._display_id)
        self._audience.shown(self._live)

    def finish(self, ended: EndedList) -> Bundle:
        """Replace the live view by the table."""
        bundle = list_bundle(ended)
        self._end()
        if self._audience.has_lost_it:
            show_mime(*bundle)
        else:
            replace_mime(*bundle, display_id=self._display_id)
        return bundle

    def leave(self, note: str) -> None:
        """Say so in the place of the live view."""
        self._end()
        replace_mime({"text/plain": note}, {"cc_executor": self._mark}, display_id=self._display_id)

    def _end(self) -> None:
        from cc_executor.kernel.live import NO_CODE, answer_later

        self._audience.ended()
        self._view.finish(time.monotonic())
        if not self._audience.was_there:  # as for a run: nobody will, and the view's code is some 60 KB
            self._view.set_trait("_esm", NO_CODE)
            self._view.set_trait("_css", "")
        self._view.on_msg(answer_later(self._view))  # pyright: ignore[reportUnknownMemberType] - ipywidgets is untyped
        _kept.append(self._view)
        if len(_kept) > LISTS_KEPT:
            _kept.popleft().close()
