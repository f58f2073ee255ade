"""Processes by the mark that they carry: what is left of a run whose supervisor is gone, or of a check. Reads /proc; elsewhere it finds nothing.

The shim owns a run's tree and ends it. This is for the two trees that no shim owns. A process that has cleared its environment is not found.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from cc_executor.shim import records

BUDGET: Final = 3.0  # seconds; what then still lives is stuck in the kernel
PACE: Final = 0.01


def end_marked(*marks: str) -> int:
    """End every process whose `CC_EXECUTOR_RUN` is one of `marks`, until none is found. Blocking. Returns how many were met; at most `BUDGET` seconds."""
    wanted = frozenset(f"{records.RUN_MARK}={mark}".encode() for mark in marks)
    deadline = time.monotonic() + BUDGET
    met: set[int] = set()
    while wanted and time.monotonic() < deadline:
        found = list(_marked(wanted))
        if not found:
            break
        met.update(found)
        for pid in found:
            _kill(pid, wanted)
        time.sleep(PACE)
    return len(met)


def _marked(wanted: frozenset[bytes]) -> Iterator[int]:
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    for name in names:
        if name.isdecimal() and int(name) != os.getpid() and _carries(int(name), wanted):
            yield int(name)


def _carries(pid: int, wanted: frozenset[bytes]) -> bool:
    """Whether a living process has one of the marks: a zombie's environment is empty."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environment = file.read()
    except OSError:  # it has ended, or is somebody else's
        return False
    return not wanted.isdisjoint(environment.split(b"\0"))


def _kill(pid: int, wanted: frozenset[bytes]) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except OSError:  # ENOSYS before Linux 5.3, EPERM under some seccomp filters
        if _carries(pid, wanted):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        return
    try:
        if _carries(pid, wanted):  # looked at again: the number may be another process's by now, the handle stays with this one
            with suppress(OSError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
    finally:
        os.close(handle)
