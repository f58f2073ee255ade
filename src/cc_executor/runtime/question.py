"""Asking a program for a few words: bounded in time and in size, and nothing of it is left. Knows processes; knows no answer's meaning."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

ANSWER_LIMIT: Final = 64 * 1024  # bytes; the longest answer that is asked for is `claude auth status` with 300
LOOK: Final = 0.01  # seconds between two looks at a program that has closed its output and not ended


class NoAnswer(Exception):
    """The time is over."""


def ask(argv: Sequence[str], *, env: Mapping[str, str], budget: float) -> tuple[int, bytes]:
    """The exit code of a program and what it wrote on standard output. Blocking.

    Not `subprocess.run`: its time limit ends the program alone and then waits for ever for a child of it that holds the pipe.

    Raises
    ------
    NoAnswer
        It did not end within `budget` seconds, and was ended with everything that it had started and that had not left its session.
    OSError
        It cannot be started.
    """
    deadline = time.monotonic() + budget
    program = subprocess.Popen(
        list(argv), env=dict(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert program.stdout is not None  # it was asked for
    try:
        with program.stdout as pipe:
            answer = _read(pipe.fileno(), program, deadline)
        while (code := program.poll()) is None:
            if time.monotonic() >= deadline:
                raise NoAnswer
            time.sleep(LOOK)
        return code, answer
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()


def _read(pipe: int, program: subprocess.Popen[bytes], deadline: float) -> bytes:
    """What is written until the program has ended or says no more; the rest of a longer answer is read and dropped."""
    poll = select.poll()  # select() cannot watch descriptors over 1023
    poll.register(pipe, select.POLLIN)
    answer = bytearray()
    while True:
        ended = program.poll() is not None
        left = deadline - time.monotonic()
        if left <= 0 and not ended:
            raise NoAnswer
        if poll.poll(0 if ended else min(left, 5 * LOOK) * 1000):
            chunk = os.read(pipe, 65536)
            if not chunk:
                return bytes(answer)
            answer += chunk[: ANSWER_LIMIT - len(answer)]
        elif ended:  # a child of it may hold the pipe for ever
            return bytes(answer)
