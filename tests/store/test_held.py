"""Locks of files in a process that forks: whoever is forked takes none of them along."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cc_executor.store import plain
from cc_executor.store.held import held_here

BOUND = 60.0  # seconds
TRY = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"


def is_free(path: Path) -> bool:
    """Whether another process can take the lock."""
    return subprocess.run([sys.executable, "-c", TRY, str(path)], stderr=subprocess.DEVNULL, timeout=BOUND, check=False).returncode == 0


class Fork:
    """A process that lives until it is ended."""

    def __init__(self) -> None:
        reading, self._writing = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            os.close(self._writing)
            os.read(reading, 1)
            os._exit(0)
        os.close(reading)

    def end(self) -> None:
        os.close(self._writing)
        os.waitpid(self._pid, 0)


@pytest.mark.parametrize("before", [True, False], ids=["before the lock was taken", "while it is held"])
def test_a_lock_is_given_back_although_a_forked_process_lives(tmp_path: Path, before: bool) -> None:
    path = tmp_path / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fork = Fork() if before else None
    with held_here(descriptor):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert not is_free(path)
        fork = fork or Fork()
        assert not is_free(path)
    try:
        assert is_free(path)
    finally:
        fork.end()


def test_a_line_can_be_added_after_a_fork_in_the_midst_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forks: list[Fork] = []
    sync = os.fsync

    def fork_and_sync(descriptor: int) -> None:
        forks.append(Fork())
        sync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fork_and_sync)
        plain.append_line(tmp_path / "lines", b"one\n")
    try:
        assert is_free(tmp_path / "lines")
    finally:
        forks[0].end()
