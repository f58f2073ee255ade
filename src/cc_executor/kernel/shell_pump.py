"""Answers that a kernel gives while a cell awaits, on versions that would keep them for later.

Buttons are comm messages. ipykernel 7.4 handles them while a cell awaits; 6.x and 7.0-7.3 queue them behind the cell (7.0-7.3 only if the
front end does not use subshells). A reloaded page asks `kernel_info` and `comm_info`, which every version queues. While a run is awaited, the
pump answers these at once and leaves every other message exactly where it was.

Who presses Shift+Enter in a cell that runs, queues it once more; the front end clears what the cell shows and listens to the new request alone. The pump
sees that request come, so that the view of what still runs can be shown as an output of it.

It uses private names of ipykernel (read in 6.29-6.31 and 7.0-7.4). Each is looked up first: where one is missing, the pump does nothing, and the
buttons work as far as the kernel lets them; `cc-executor cancel` always does.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any, Final, NamedTuple

from IPython.core.getipython import get_ipython

from cc_executor.kernel.loop import awaiting_cell

logger = logging.getLogger(__name__)

LONGEST_CODE: Final = 100_000  # characters
QUESTIONS: Final = frozenset({"kernel_info_request", "comm_info_request"})
COMMS: Final = frozenset({"comm_open", "comm_msg", "comm_close"})


def takes_input(kernel: Any) -> bool:
    """Whether the front end of the cell that runs says that it can ask somebody: JupyterLab and consoles do, nbclient and papermill do not."""
    return bool(getattr(kernel, "_allow_stdin", False))


class _Pump(NamedTuple):
    """One way to take messages before the kernel queues them, and the way back to where all of them are queued."""

    answers: _Answers
    install: Callable[[], object]
    remove: Callable[[], object]


# What is awaited together (`asyncio.gather`), or in one cell beside another, has one each; the newest works.
_pumps: Final[list[_Pump]] = []


def is_pumping() -> bool:
    """Whether the messages of pages are taken while a cell awaits."""
    return bool(_pumps)


@contextmanager
def shell_pump(kernel: Any, *, again: Callable[[], object] = lambda: None) -> Generator[None]:
    """Keep the kernel answering for as long as the block is awaited in.

    Parameters
    ----------
    kernel
        The shell's `kernel`, or None in a terminal.
    again : callable, optional
        Called when this cell is queued once more; what it displays is an output of that request.
    """
    pump = _pump_of(kernel, again)
    if pump is None:
        yield
        return
    _pumps.append(pump)
    pump.install()
    try:
        yield
    finally:
        _pumps[:] = [each for each in _pumps if each is not pump]
        if _pumps:
            _pumps[-1].install()
        else:
            pump.remove()


def _pump_of(kernel: Any, again: Callable[[], object]) -> _Pump | None:
    # A cell that could not be awaited runs on a loop of its own in another thread; the kernel's loop is blocked then, and answers nobody.
    if kernel is None or threading.current_thread() is not threading.main_thread():
        return None
    if not all(hasattr(kernel, name) for name in ("session", "shell_handlers", "set_parent", "get_parent", "_publish_status")):
        return None
    try:
        kernel.get_parent("shell")
        _parent_idents(kernel)
    except Exception:  # a version that keeps them in another way: to wait behind the cell is better than an answer that is lost
        logger.debug("the pump finds no parent that it could put back", exc_info=True)
        return None
    manager = getattr(getattr(kernel, "shell_channel_thread", None), "manager", None)
    if manager is not None and hasattr(manager, "set_on_recv_callback") and hasattr(kernel, "shell_main"):
        return _on_shell_thread(kernel, manager, again)
    if hasattr(kernel, "msg_queue") and hasattr(kernel, "schedule_dispatch") and hasattr(kernel.shell_stream, "on_recv"):
        return _on_stream(kernel, again)
    return None


def _on_stream(kernel: Any, again: Callable[[], object]) -> _Pump:
    """Version 6: messages come by `shell_stream` and queue in `msg_queue`; ours are answered instead of queued."""
    later = partial(kernel.schedule_dispatch, kernel.dispatch_shell)
    answers = _Answers(kernel, QUESTIONS | COMMS, again)

    def receive(frames: Any) -> None:
        if not answers.take(frames, kernel.shell_stream):
            later(frames)

    listen = partial(kernel.shell_stream.on_recv, copy=False)
    return _Pump(answers, partial(listen, receive), partial(listen, later))


def _on_shell_thread(kernel: Any, manager: Any, again: Callable[[], object]) -> _Pump:
    """Version 7: messages come through a thread to `shell_main`, which holds a lock for as long as a cell runs."""
    handles_comms = "concurrent" in inspect.signature(kernel.dispatch_shell).parameters  # 7.4 and later
    answers = _Answers(kernel, QUESTIONS if handles_comms else QUESTIONS | COMMS, again)
    original = kernel.shell_main

    async def receive(subshell_id: str | None, frames: Any) -> None:
        if subshell_id is None and answers.take(frames, manager.get_subshell_to_shell_channel_socket(None)):
            return
        await original(subshell_id, frames)

    listen = manager.set_on_recv_callback
    return _Pump(answers, partial(listen, receive), partial(listen, original))


class _Answers:
    """Handles messages beside the awaited cell. Never through `dispatch_shell`: its hook resets the SIGINT handler, and an interrupt then ends the kernel."""

    def __init__(self, kernel: Any, types: frozenset[str], again: Callable[[], object]) -> None:
        self._kernel = kernel
        self._types = types
        self.again = again
        self.cell = _cell_of(kernel.get_parent("shell"))
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, frames: Any, stream: Any) -> bool:
        """Begin to answer a message, if it is one of ours."""
        session = self._kernel.session
        try:
            idents, rest = session.feed_identities(frames, copy=False)
            message = session.deserialize(rest, content=False, copy=False)
        except Exception:  # noqa: BLE001 - not a message; the kernel's own handler says so
            return False
        kind = message["header"]["msg_type"]
        if kind == "execute_request" and (meant := _answers_for(_cell_of(message))):
            # Not by `deserialize`: the session takes no message twice, and this one is the kernel's own to take, later.
            with self._as_parent(idents, {**message, "content": session.unpack(message["content"])}):
                for answers in meant:
                    answers.again()
        if kind not in self._types:
            return False
        message = session.deserialize(rest, content=True, copy=False)
        task = asyncio.get_running_loop().create_task(self._answer(idents, message, stream), context=copy_context())
        self._tasks.add(task)  # the loop keeps only weak references
        task.add_done_callback(self._tasks.discard)
        return True

    async def _answer(self, idents: Any, message: dict[str, Any], stream: Any) -> None:
        kernel = self._kernel
        kind = message["header"]["msg_type"]
        handler = kernel.shell_handlers.get(kind)
        with self._as_parent(idents, message):
            try:
                if kind not in COMMS:
                    kernel._publish_status("busy", "shell", parent=message)
                answer = handler(stream, idents, message)
                if inspect.isawaitable(answer):
                    await answer
            except Exception:  # the page is owed its other answers, the developer the trace
                logger.exception("%s could not be answered while a cell was running", kind)
            finally:
                # The page waits for `idle` with its own message as parent; then a cell that is at work is shown as busy again.
                kernel._publish_status("idle", "shell", parent=message)
        # A list that a task of the user's own awaits may outlive its cell: to say busy then would be the last word that the page hears.
        if (parent := kernel.get_parent("shell")) and awaiting_cell() is not None:
            kernel._publish_status("busy", "shell", parent=parent)

    @contextmanager
    def _as_parent(self, idents: Any, message: dict[str, Any]) -> Generator[None]:
        """What is sent meanwhile belongs to `message`, and afterwards to the cell again."""
        kernel = self._kernel
        parent, parent_idents = kernel.get_parent("shell"), _parent_idents(kernel)
        kernel.set_parent(idents, message, channel="shell")
        try:
            yield
        finally:
            kernel.set_parent(parent_idents, parent, channel="shell")


def _answers_for(cell: str) -> list[_Answers]:
    """Those of all that is awaited in this cell."""
    return [pump.answers for pump in _pumps if cell and pump.answers.cell == cell]


def cell_now() -> str:
    """The cell whose output is what is displayed now. Empty where the front end names none."""
    return _cell_of(getattr(get_ipython(), "parent_header", {}))


def code_now() -> str:
    """The text of that cell, by which a notebook without ids of cells knows it. Empty where it is none, or too long to be sent to every page once more."""
    code: object = (getattr(get_ipython(), "parent_header", {}) or {}).get("content", {}).get("code")
    return code if isinstance(code, str) and len(code) <= LONGEST_CODE else ""


def _cell_of(message: dict[str, Any]) -> str:
    """The cell that a request names: JupyterLab, Notebook and VS Code do. Empty where it names none."""
    cell: object = (message or {}).get("metadata", {}).get("cellId")
    return cell if isinstance(cell, str) else ""


def _parent_idents(kernel: Any) -> Any:
    idents: Any = kernel._shell_parent_ident if hasattr(kernel, "_shell_parent_ident") else getattr(kernel, "_parent_ident", {})
    if isinstance(idents, dict):
        return idents.get("shell", b"")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - private names of ipykernel
    look = getattr(kernel, "_get_shell_context_var", None)  # 7.1 and later; 7.0 has the variable alone
    return look(idents) if look is not None else idents.get(b"")
