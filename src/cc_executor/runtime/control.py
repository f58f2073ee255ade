"""Speaking to a run's shim: one command and its answer, or a stream of status objects. Knows the socket; decides nothing."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, NewType, cast

import anyio
import anyio.abc

from cc_executor.errors import ControlFailed
from cc_executor.model.ansi import clean
from cc_executor.model.toolcall import one_line
from cc_executor.shim import records
from cc_executor.store.journal import RunFolder, RunStanding

Status = NewType("Status", dict[str, Any])

ANSWER_BUDGET: Final = 5.0  # seconds; a pause answers when the whole tree stands, 2-50 ms in the measurements
_CALL_AGAIN: Final = 0.01  # seconds
_REASON_CHARS: Final = 300
_LINE_LIMIT: Final = 1 << 20  # bytes; a status object has some 300


@contextmanager
def _short_path(folder: Path) -> Generator[str]:
    """The socket's path, however deep the state folder lies: a Unix socket's name holds 107 bytes (unix(7))."""
    path = os.path.join(folder, records.SOCKET)
    if len(os.fsencode(path)) <= 100:  # noqa: PLR2004 - 104 on macOS, 108 on Linux, less the final NUL
        yield path
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{records.SOCKET}"
    finally:
        os.close(descriptor)


def command(folder: RunFolder, op: str, **fields: object) -> Status:
    """Give one command and wait for the answer. Blocking, and safe in any thread.

    Raises
    ------
    ControlFailed
        The run has ended, does not answer in time, or refuses.
    """
    request = json.dumps({"op": op, **fields}).encode() + b"\n"
    deadline = time.monotonic() + ANSWER_BUDGET
    while True:
        try:
            answer = _ask(folder, request, deadline)
        except (ConnectionResetError, BrokenPipeError):
            answer = b""
        except OSError as error:
            raise ControlFailed(_out_of_reach(folder, error)) from error
        # A shim with its 64 places taken hangs up on who calls next. Every command can be given twice, but for what goes to the agent's stdin.
        if answer or op == "stdin" or time.monotonic() >= deadline:
            return _checked(answer, folder, op)
        time.sleep(_CALL_AGAIN)


def _out_of_reach(folder: RunFolder, error: OSError) -> str:
    match folder.standing(time.time()):
        case RunStanding.ENDED:
            return f"Run {folder.run_id} has ended; `%cc show` or `cc-executor show` shows how."
        case RunStanding.STARTING:
            return f"Run {folder.run_id} is just being started: try again in a moment."
        case RunStanding.RUNNING | RunStanding.LOST:
            return (
                f"Run {folder.run_id} cannot be reached ({error.strerror or error}): its supervisor is gone or does not listen. "
                "`%cc list` or `cc-executor list` says what became of it."
            )


def _ask(folder: RunFolder, request: bytes, deadline: float) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, _short_path(folder.path) as path:
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
            time.sleep(_CALL_AGAIN)


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
        with _short_path(folder.path) as path, anyio.fail_after(ANSWER_BUDGET):
            stream = await anyio.connect_unix(path)
    except OSError as error:
        raise ControlFailed(f"Run {folder.run_id} cannot be reached ({error.strerror or error}).") from error
    async with stream:
        try:
            await stream.send(b'{"op": "follow"}\n')
        except anyio.BrokenResourceError as error:  # it ended between the two steps
            raise ControlFailed(f"Run {folder.run_id} has ended.") from error
        yield stream
