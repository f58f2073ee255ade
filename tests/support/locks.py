"""A lock of ours that another process holds: one that was stopped in the midst of what it does, and does not go on."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cc_executor.shim import records
from cc_executor.store.journal import RunFolder

HOLD: Final = (
    "import fcntl, sys; file = open(sys.argv[1], 'a+'); fcntl.flock(file, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
)


@contextmanager
def held_by_a_stopped_process(path: Path) -> Generator[Callable[[], object]]:
    """Have a stopped process (SIGSTOP) hold the lock of a file, which is made if need be, to the end of the block or until what this gives is called."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        process.send_signal(signal.SIGSTOP)

        def release() -> None:
            process.kill()  # which a stopped process obeys
            process.wait(60)

        try:
            yield release
        finally:
            release()


@contextmanager
def as_its_last_sync(folder: RunFolder) -> Generator[None]:
    """Hold the lock of a run that has ended, as its supervisor does while a busy disk takes what was written."""
    with open(folder.path / records.LOCK, "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # when that has gone
        yield
