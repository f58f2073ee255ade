"""The process that supervises a run, as its launcher sees it: starting it, one line of question and answer, and its end. Knows no request."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

import anyio

from cc_executor.errors import LaunchFailed
from cc_executor.runtime.leftovers import CALL_MARK
from cc_executor.shim import records

START_BUDGET: Final = 20.0  # seconds for the shim's answer: 25-60 ms in the measurements, more on a machine that swaps
REAP_BUDGET: Final = 0.5  # seconds; a shim ends some milliseconds after its last record, or when a slow disk has it all
# What a supervisor gets of our own environment, whose secrets it must not show in /proc to every process of this user: what finds the libraries of a Python
# that was built or loaded as a module, and the marks of the run, and of the hook, within which this one is started. The agent's environment comes with the spec.
SHIM_NEEDS: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", records.RUN_MARK, CALL_MARK)
_SHIM: Final = Path(__file__).resolve().parents[1] / "shim" / "__main__.py"

# Shims started by this process, kept until they are reaped: an unreaped child is a zombie for as long as the kernel lives.
_shims: Final[dict[str, subprocess.Popen[bytes]]] = {}


def started() -> subprocess.Popen[bytes]:
    """A supervisor that waits for its spec.

    Raises
    ------
    LaunchFailed
        There are no processes, or is no memory.
    """
    # -I: no user site, no PYTHON* variables; -S: no site packages, whose .pth files may run anything. The spec carries secrets, so it goes by pipe.
    argv = [sys.executable, "-I", "-S", str(_SHIM)]
    try:
        # start_new_session keeps vfork (0.1 ms); preexec_fn would fork a 2 GB kernel and block it for 60 ms. Out of the kernel's group, no signal
        # that Jupyter sends there reaches the shim.
        return subprocess.Popen(
            argv,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env={name: os.environ[name] for name in SHIM_NEEDS if name in os.environ},
        )
    except OSError as error:
        raise LaunchFailed(
            f"The run's supervisor could not be started ({error.strerror}). If the machine is out of processes or memory, end some, and try again."
        ) from error


def answer_to(spec: dict[str, Any], shim: subprocess.Popen[bytes]) -> dict[str, Any] | None:
    """What the supervisor says to a spec; empty if it died, None if it does not answer in `START_BUDGET`. Not `communicate`, which waits for its end."""
    raw = _exchanged(json.dumps(spec).encode() + b"\n", shim)
    if raw is None:
        return None
    answer: object = None
    with suppress(ValueError):  # no answer: the supervisor died, and its log says why
        answer = json.loads(raw)
    return cast("dict[str, Any]", answer) if isinstance(answer, dict) else {}


def _exchanged(line: bytes, shim: subprocess.Popen[bytes]) -> bytes | None:
    assert shim.stdin is not None  # both were asked for
    assert shim.stdout is not None
    deadline = time.monotonic() + START_BUDGET
    answer = bytearray()
    rest = memoryview(line)
    poll = select.poll()  # select() cannot watch descriptors over 1023, which a long-lived kernel may have
    os.set_blocking(shim.stdin.fileno(), False)  # a large environment is more than a pipe holds
    poll.register(shim.stdin, select.POLLOUT)
    poll.register(shim.stdout, select.POLLIN)
    while not answer.endswith(b"\n"):
        ready = dict(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
        if not ready:
            return None
        if rest and shim.stdin.fileno() in ready:
            rest = _written(rest, shim.stdin.fileno())
            if not rest:
                poll.unregister(shim.stdin)
        elif shim.stdout.fileno() in ready:
            chunk = os.read(shim.stdout.fileno(), 65536)
            if not chunk:
                break
            answer += chunk
    return bytes(answer)


def _written(rest: memoryview, pipe: int) -> memoryview:
    """What is still to be written; nothing, if nobody reads any more: its silence tells."""
    try:
        return rest[os.write(pipe, rest) :]
    except BlockingIOError:
        return rest
    except BrokenPipeError:
        return rest[:0]


def close(shim: subprocess.Popen[bytes]) -> None:
    """Nothing more is said to it, and nothing more heard from it."""
    for pipe in (shim.stdin, shim.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def keep(run_id: str, shim: subprocess.Popen[bytes]) -> None:
    """It has a run; `reap` collects it when that is over."""
    _shims[run_id] = shim


def reap() -> None:
    """Collect the exit status of shims that have ended."""
    for run_id, shim in list(_shims.items()):
        if shim.poll() is not None:
            _shims.pop(run_id, None)


def terminate(run_id: str) -> bool:
    """Tell the shim of a run to end it, where its socket is gone with its folder. False when it was not started here, or has ended."""
    shim = _shims.get(run_id)
    if shim is None or shim.poll() is not None:
        return False
    shim.terminate()
    return True


async def reaped(run_id: str) -> None:
    """Wait, a moment at most, until the shim of a run that has ended is gone and reaped, if it was started here."""
    with anyio.move_on_after(REAP_BUDGET):
        while (shim := _shims.get(run_id)) is not None and shim.poll() is None:  # noqa: ASYNC110 - a process, which has no event
            await anyio.sleep(REAP_BUDGET / 100)
    reap()
