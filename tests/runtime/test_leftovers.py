"""Ending what carries a mark: at whatever moment of its life a process is met, and however often the system has to be asked."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from cc_executor.runtime import leftovers
from cc_executor.runtime.leftovers import end_marked
from cc_executor.shim import records
from support.runs import BOUND, wait_for
from support.shims import environment, state

MARK = "a-mark-of-these-tests"


@pytest.fixture
def marked() -> Iterator[subprocess.Popen[bytes]]:
    """A process that carries the mark, and shows it."""
    with subprocess.Popen(("/bin/sleep", "1000"), env={records.RUN_MARK: MARK}) as process:
        assert environment(process.pid).startswith(records.RUN_MARK.encode())
        yield process
        process.kill()


@pytest.mark.row("faults", "a lost run's tool is just executing another program", "it is ended all the same")
def test_a_process_in_the_midst_of_its_execve_is_ended_as_soon_as_it_shows_its_mark(
    marked: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, looks = leftovers._read, list[str]()

    def early(pid: int, name: str) -> bytes:
        """As Linux answers from the moment at which the old program is gone until the new one's arguments and environment stand."""
        if pid == marked.pid and name in {"environ", "cmdline"} and len(looks) < 6:
            looks.append(name)
            return b""
        return read(pid, name)

    monkeypatch.setattr(leftovers, "_read", early)
    assert end_marked(MARK) == 1
    assert marked.wait(BOUND) == -signal.SIGKILL
    assert looks == ["environ", "cmdline"] * 3


def test_nobody_waits_for_a_zombie_or_for_one_that_has_cleared_its_environment() -> None:
    with subprocess.Popen("true") as zombie, subprocess.Popen(("/bin/sleep", "1000"), env={}) as bare:
        wait_for(lambda: state(zombie.pid) == "Z")
        wait_for(lambda: leftovers._read(bare.pid, "cmdline"))
        assert [leftovers._carries(pid, frozenset({MARK.encode()})) for pid in (zombie.pid, bare.pid)] == [False, False]
        bare.kill()


def test_who_has_another_mark_or_is_this_process_is_left_alone(marked: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(records.RUN_MARK, "another")
    assert end_marked("another", "a-third") == 0
    assert end_marked() == 0
    assert marked.poll() is None
    assert os.getpid() not in leftovers._marked(frozenset({f"{records.RUN_MARK}={MARK}".encode()}))[0]
