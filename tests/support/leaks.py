"""Processes of runs that outlived the tests which started them. Linux only: reads /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cc_executor.shim.records import RUN_MARK
from support.looks import pause_since
from support.shims import environment

_SHIM: Final = b"/cc_executor/shim/__main__.py"
GRACE: Final = 5.0  # seconds; a run that has just been cancelled has this long to end (the promise is 3 s)


@dataclass(frozen=True, slots=True)
class MarkedProcess:
    """A living process of a run: an agent, what it started, or its shim."""

    pid: int
    run_id: str
    command: str


def marked_processes(roots: Sequence[Path]) -> list[MarkedProcess]:
    """The living processes of runs whose environment or command names one of `roots`, or that work below one; other people's runs do not."""
    needles = [os.fsencode(root) for root in roots]
    mark = os.fsencode(RUN_MARK) + b"="
    found: list[MarkedProcess] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            names = environment(int(entry.name))
            command = (entry / "cmdline").read_bytes()
            # An agent may name its folder nowhere, and a shim, which works in its run's, has no environment.
            if _SHIM in command or mark in names:
                names += b"\0" + os.fsencode((entry / "cwd").readlink())
        except OSError:  # it has ended, or it is somebody else's
            continue
        runs = [item.removeprefix(mark).decode(errors="replace") for item in names.split(b"\0") if item.startswith(mark)]
        if _SHIM in command:  # it carries no mark itself; it is there as long as anything of its run is
            runs.append("(shim)")
        if runs and any(needle in names or needle in command for needle in needles):
            text = command.replace(b"\0", b" ").decode(errors="replace").strip()
            found.append(MarkedProcess(int(entry.name), runs[0], text[:200]))
    return found


def await_none(roots: Sequence[Path], *, budget: float = GRACE) -> list[MarkedProcess]:
    """Wait until no run of these tests is alive, at most `budget` seconds; what is still alive is returned."""
    begun = time.monotonic()
    while True:
        is_last = (
            time.monotonic() >= begun + budget
        )  # asked before the look: what was seen before a machine stood still is not what is alive now
        found = marked_processes(roots)
        if not found or is_last:
            return found
        time.sleep(pause_since(begun, 0.05))  # there is no event to wait for: the processes are nobody's children here
