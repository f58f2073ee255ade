"""Speaking to a run's shim: one command and its answer, or a stream of status objects. Knows the socket; decides nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NewType, cast

import anyio
import anyio.abc

from cc_executor.errors import ControlFailed, StateUnusable
from cc_executor.model.ansi import clean
from cc_executor.model.event import Started
from cc_executor.model.toolcall import one_line
from cc_executor.shim import records
from cc_executor.store import underway
from cc_executor.store.filesystem import socket_path
from cc_executor.store.journal import RunFolder, RunStanding

Status = NewType("Status", dict[str, Any])

ANSWER_BUDGET: Final = 5.0  # seconds; a pause answers when the whole tree stands, 2-50 ms in the measurements
WOKEN_BUDGET: Final = 1.0  # seconds for one that was just told to go on
_CALL_AGAIN: Final = 0.01  # seconds
_REASON_CHARS: Final = 300
_GOES_ON: Final = frozenset({RunStanding.STARTING, RunStanding.RUNNING})
_NOT_THERE: Final = (FileNotFoundError, ConnectionRefusedError)  # no socket, or nobody listens at it
_PROCESSES: Final = range(2, 2**22 + 1)  # numbers of single processes (proc(5), pid_max); 0 and those below it name many
_LINE_LIMIT: Final = 1 << 20  # bytes; a status object has some 300


def command(folder: RunFolder, op: str, **fields: object) -> Status:
    """Give one command and wait for the answer. Blocking, and safe in any thread. A supervisor that stands still is told to go on for a `cancel`.

    Raises
    ------
    ControlFailed
        The run has ended, does not answer in time, or refuses. One that is being started is waited for, but for its status. When the agent has ended, a
        person's `cancel` ends its check.
    """
    request = json.dumps({"op": op, **fields}).encode() + b"\n"
    deadline = time.monotonic() + ANSWER_BUDGET
    is_woken = False
    while True:
        try:
            answer = _ask(folder, request, deadline)
        except (ConnectionResetError, BrokenPipeError):
            answer = b""
        except OSError as error:
            standing = _standing(folder)
            # Its supervisor listens some milliseconds after it has come; what is said until then, a cancel above all, is not lost.
            is_early = standing in _GOES_ON and isinstance(error, _NOT_THERE) and op != "status"
            if standing is RunStanding.ENDED and is_woken:
                return Status({"ok": True, "state": "exited", "processes": 0})  # what it was told before it was woken was obeyed first
            if standing is RunStanding.ENDED and fields.get("reason") == "cancel" and _ends_check(folder):
                return Status({"ok": True, "state": "exited", "processes": 0})
            if standing is RunStanding.ENDED:
                raise ControlFailed(f"Run {folder.run_id} has ended; `%cc show` or `cc-executor show` shows how.") from error
            if op == "cancel" and not is_woken and not isinstance(error, _NOT_THERE):
                is_woken = True
                wake(folder)
                deadline = time.monotonic() + WOKEN_BUDGET
                continue
            if not is_early or time.monotonic() >= deadline:
                raise ControlFailed(
                    f"Run {folder.run_id} cannot be reached ({error.strerror or error}): {_why(folder, standing, error)}."
                ) from error
            time.sleep(_CALL_AGAIN)  # the socket is made at its supervisor's own time, and this call is a blocking one
            continue
        # A shim with its 64 places taken hangs up on who calls next. Every command can be given twice, but for what goes to the agent's stdin.
        if answer or op == "stdin" or time.monotonic() >= deadline:
            return _checked(answer, folder, op)
        time.sleep(_CALL_AGAIN)  # for a place to become free, of which nobody tells


def _ends_check(folder: RunFolder) -> bool:
    """When the agent has ended and its check is still to be made or goes on, in whatever process: have it ended, as a person wants. False if there is none."""
    with suppress(StateUnusable, OSError):
        if not folder.has_receipt and folder.request().verify is not None:
            underway.unwant(folder.path)
            return True
    return False


def _why(folder: RunFolder, standing: RunStanding, error: OSError) -> str:
    """Why nobody answers, and what can be done."""
    if standing is RunStanding.STARTING:
        return "it is still being started; try again in a moment"
    if standing is not RunStanding.RUNNING:
        return "its supervisor is gone; `%cc list` or `cc-executor list` says what became of it"
    if not isinstance(error, _NOT_THERE):
        cure = f", or let it go on with `kill -CONT {supervisor}`" if (supervisor := _supervisor(folder)) is not None else ""
        return f"its supervisor lives and does not answer, for it stands still or the machine is busy; try again{cure}"
    if (supervisor := _supervisor(folder)) is not None:
        return f"somebody has removed its socket, and it goes on; `kill {supervisor}` ends it as a cancel does"
    return "it goes on, and somebody has removed its socket"


def _supervisor(folder: RunFolder) -> int | None:
    """The process number of a run's supervisor, as its first record names it."""
    with suppress(StateUnusable, StopIteration):
        return next(record.shim_pid for record in folder.control_records()[0] if isinstance(record, Started))
    return None


def is_deaf(folder: RunFolder) -> bool:
    """Whether a supervisor lives at which calls wait and are not answered. Blocking, as `command`."""
    try:
        command(folder, "status")
    except ControlFailed as error:
        return isinstance(error.__cause__, TimeoutError | BlockingIOError) and _standing(folder) is RunStanding.RUNNING
    return False


def wake(folder: RunFolder) -> None:
    """Let a supervisor go on that somebody has stopped (SIGSTOP, Ctrl-Z): what it was told waits at its socket."""
    with suppress(OSError):  # it has ended; or the number means somebody else's process here, and a process in the container where it lives
        if folder.is_supervised() and (supervisor := _supervisor(folder) or 0) in _PROCESSES:
            os.kill(supervisor, signal.SIGCONT)


def _standing(folder: RunFolder) -> RunStanding:
    try:
        return folder.standing(time.time())
    except OSError:  # what stands in its folder is none of ours
        return RunStanding.LOST


def _ask(folder: RunFolder, request: bytes, deadline: float) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, socket_path(folder.path, records.SOCKET) as path:
        connection.settimeout(max(_CALL_AGAIN, deadline - time.monotonic()))
        _connect(connection, path, deadline)
        connection.sendall(request)
        return _read_line(connection, deadline)


def _connect(connection: socket.socket, path: str, deadline: float) -> None:
    """With a time limit, a socket does not wait for room in the queue of those who call (connect(2): EAGAIN); so this does."""
    while True:
        try:
            return connection.connect(path)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_CALL_AGAIN)  # a full backlog has no event: a socket of this kind refuses at once


def _read_line(connection: socket.socket, deadline: float) -> bytes:
    answer = bytearray()
    while not answer.endswith(b"\n") and len(answer) < _LINE_LIMIT:
        connection.settimeout(max(_CALL_AGAIN, deadline - time.monotonic()))  # for the whole line, however slowly it comes
        part = connection.recv(65536)
        if not part:
            break
        answer += part
    return bytes(answer)


def _checked(answer: bytes, folder: RunFolder, op: str) -> Status:
    try:
        status = json.loads(answer)
    except (ValueError, RecursionError):
        status = None
    if not isinstance(status, dict):
        raise ControlFailed(f"Run {folder.run_id} ended before it answered {op!r}.")
    found = cast("dict[str, Any]", status)
    if not found.get("ok"):
        raise ControlFailed(
            f"Run {folder.run_id} refused {op!r}: {one_line(clean(str(found.get('error', 'no reason given'))), _REASON_CHARS)}."
        )
    return Status(found)


@asynccontextmanager
async def nudges(folder: RunFolder) -> AsyncGenerator[anyio.abc.ByteReceiveStream]:
    """A stream that carries bytes whenever the journal has grown or the state has changed, and ends when the shim does.

    Raises
    ------
    ControlFailed
        Nobody listens.
    """
    try:
        with socket_path(folder.path, records.SOCKET) as path, anyio.fail_after(ANSWER_BUDGET):
            stream = await anyio.connect_unix(path)
    except OSError as error:
        raise ControlFailed(f"Run {folder.run_id} cannot be reached ({error.strerror or error}).") from error
    async with stream:
        try:
            await stream.send(b'{"op": "follow"}\n')
        except anyio.BrokenResourceError as error:  # it ended between the two steps
            raise ControlFailed(f"Run {folder.run_id} has ended.") from error
        yield stream
