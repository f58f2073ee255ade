"""Processes by the mark that they carry: what is left of a run whose supervisor is gone, or of a check. Reads /proc; elsewhere it finds nothing.

The shim owns a run's tree and ends it. This is for the two trees that no shim owns. A process that has cleared its environment is not found.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import Final

from cc_executor.shim import records

BUDGET: Final = 3.0  # seconds; what then still lives is stuck in the kernel
# Seconds for programs that are just being executed to show what they are: microseconds, or as long as they wait for a core.
EXEC_BUDGET: Final = 1.0
PACE: Final = 0.01


# What all processes of one call of a hook have in their environment, besides the mark, which those of other calls for the same run or list have, too.
CALL_MARK: Final = "CC_HOOK_CALL"


def end_marked(*marks: str, variable: str = records.RUN_MARK) -> int:
    """End every process whose `variable` is one of `marks`, until none is found. Blocking. Returns how many were met; at most `BUDGET` seconds."""
    wanted = frozenset(f"{variable}={mark}".encode() for mark in marks)
    begun = time.monotonic()
    met: set[int] = set()
    while wanted and time.monotonic() < begun + BUDGET:
        found, is_all = _marked(wanted)
        if not found and (is_all or time.monotonic() >= begun + EXEC_BUDGET):
            break
        met.update(found)
        for pid in found:
            _kill(pid, wanted)
        time.sleep(PACE)
    return len(met)


def _marked(wanted: frozenset[bytes]) -> tuple[list[int], bool]:
    """Who carries one of the marks, and whether these are all: of a process in the midst of its execve(2) it cannot be said yet."""
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdecimal() and int(name) != os.getpid()]
    except OSError:
        return [], True
    carries = {pid: _carries(pid, wanted) for pid in pids}
    return [pid for pid in pids if carries[pid]], None not in carries.values()


def _carries(pid: int, wanted: frozenset[bytes]) -> bool | None:
    """Whether a living process has one of the marks; None: another program takes its place at this moment, so that it shows no environment yet.

    Linux notes where arguments and environment stand at the end of execve(2) (fs/binfmt_elf.c, create_elf_tables), before which a process may wait for a core.
    """
    try:
        environment = _read(pid, "environ")
        if not environment:
            if not _read(pid, "cmdline"):  # a zombie and a thread of the kernel have no memory (statm), and never show any
                return False if _read(pid, "statm").startswith(b"0 ") else None
            environment = _read(pid, "environ")  # it may have got there between the two looks
    except OSError:  # it has ended, or is somebody else's
        return False
    return not wanted.isdisjoint(environment.split(b"\0"))


def _read(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()


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
