"""Answers that a kernel gives while a cell awaits, on versions that would keep them for later.

Buttons are comm messages. ipykernel 7.4 handles them while a cell awaits; 6.x and 7.0-7.3 queue them behind the cell (7.0-7.3 only if the
front end does not use subshells). A reloaded page asks `kernel_info` and `comm_info`, which every version queues. While a run is awaited, the
pump answers these at once and leaves every other message exactly where it was.

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
from typing import Any, Final

logger = logging.getLogger(__name__)

QUESTIONS: Final = frozenset({"kernel_info_request", "comm_info_request"})
COMMS: Final = frozenset({"comm_open", "comm_msg", "comm_close"})


def takes_input(kernel: Any) -> bool:
    """Whether the front end of the cell that runs says that it can ask somebody: JupyterLab and consoles do, nbclient and papermill do not."""
    return bool(getattr(kernel, "_allow_stdin", False))


_pumps: Final[set[object]] = set()


def is_pumping() -> bool:
    """Whether the messages of pages are taken while a cell awaits."""
    return bool(_pumps)


@contextmanager
def shell_pump(kernel: Any) -> Generator[None]:
    """Keep the kernel answering for as long as the block is awaited in. `kernel`: the shell's `kernel`, or None in a terminal."""
    install = _installer(kernel)
    if install is None:
        yield
        return
    remove = install()
    _pumps.add(pump := object())
    try:
        yield
    finally:
        _pumps.discard(pump)
        remove()


def _installer(kernel: Any) -> Callable[[], Callable[[], None]] | None:
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
        return partial(_install_on_shell_thread, kernel, manager)
    if hasattr(kernel, "msg_queue") and hasattr(kernel, "schedule_dispatch") and hasattr(kernel.shell_stream, "on_recv"):
        return partial(_install_on_stream, kernel)
    return None


def _install_on_stream(kernel: Any) -> Callable[[], None]:
    """Version 6: messages come by `shell_stream` and queue in `msg_queue`; ours are answered instead of queued."""
    later = partial(kernel.schedule_dispatch, kernel.dispatch_shell)
    answers = _Answers(kernel, QUESTIONS | COMMS)

    def receive(frames: Any) -> None:
        if not answers.take(frames, kernel.shell_stream):
            later(frames)

    kernel.shell_stream.on_recv(receive, copy=False)
    return lambda: kernel.shell_stream.on_recv(later, copy=False)


def _install_on_shell_thread(kernel: Any, manager: Any) -> Callable[[], None]:
    """Version 7: messages come through a thread to `shell_main`, which holds a lock for as long as a cell runs."""
    handles_comms = "concurrent" in inspect.signature(kernel.dispatch_shell).parameters  # 7.4 and later
    answers = _Answers(kernel, QUESTIONS if handles_comms else QUESTIONS | COMMS)
    original = kernel.shell_main

    async def receive(subshell_id: str | None, frames: Any) -> None:
        if subshell_id is None and answers.take(frames, manager.get_subshell_to_shell_channel_socket(None)):
            return
        await original(subshell_id, frames)

    manager.set_on_recv_callback(receive)
    return lambda: manager.set_on_recv_callback(original)


class _Answers:
    """Handles messages beside the awaited cell. Never through `dispatch_shell`: its hook resets the SIGINT handler, and an interrupt then ends the kernel."""

    def __init__(self, kernel: Any, types: frozenset[str]) -> None:
        self._kernel = kernel
        self._types = types
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, frames: Any, stream: Any) -> bool:
        """Begin to answer a message, if it is one of ours."""
        session = self._kernel.session
        try:
            idents, rest = session.feed_identities(frames, copy=False)
            header = session.deserialize(rest, content=False, copy=False)["header"]
        except Exception:  # noqa: BLE001 - not a message; the kernel's own handler says so
            return False
        if header["msg_type"] not in self._types:
            return False
        message = session.deserialize(rest, content=True, copy=False)
        task = asyncio.get_running_loop().create_task(self._answer(idents, message, stream), context=copy_context())
        self._tasks.add(task)  # the loop keeps only weak references
        task.add_done_callback(self._tasks.discard)
        return True

    async def _answer(self, idents: Any, message: dict[str, Any], stream: Any) -> None:
        kernel = self._kernel
        parent = kernel.get_parent("shell")
        parent_idents = _parent_idents(kernel)
        handler = kernel.shell_handlers.get(message["header"]["msg_type"])
        quiet = message["header"]["msg_type"] in COMMS
        try:
            kernel.set_parent(idents, message, channel="shell")
            if not quiet:
                kernel._publish_status("busy", "shell", parent=message)
            answer = handler(stream, idents, message)
            if inspect.isawaitable(answer):
                await answer
        except Exception:  # the page is owed its other answers, the developer the trace
            logger.exception("%s could not be answered while a cell was running", message["header"]["msg_type"])
        finally:
            # The page waits for `idle` with its own message as parent; then the cell is shown as busy again.
            kernel._publish_status("idle", "shell", parent=message)
            kernel.set_parent(parent_idents, parent, channel="shell")
            if parent:
                kernel._publish_status("busy", "shell", parent=parent)


def _parent_idents(kernel: Any) -> Any:
    idents: Any = kernel._shell_parent_ident if hasattr(kernel, "_shell_parent_ident") else getattr(kernel, "_parent_ident", {})
    if isinstance(idents, dict):
        return idents.get("shell", b"")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - private names of ipykernel
    look = getattr(kernel, "_get_shell_context_var", None)  # 7.1 and later; 7.0 has the variable alone
    return look(idents) if look is not None else idents.get(b"")
