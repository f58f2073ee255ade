"""The process table, from /proc and from `ps`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cc_executor.shim import tree as rows
from cc_executor.shim.tree import Process, Tree, command_of
from support.shims import PYTHON, alive, state, until

NESTED = ("/bin/sh", "-c", "setsid sh -c 'sleep 61 & sleep 62' & sleep 63")
THREADED = "import os, _thread, time, ctypes\n_thread.start_new_thread(time.sleep, (60,))\nctypes.CDLL(None).pthread_exit(None)"


@pytest.fixture
def owner() -> Iterator[subprocess.Popen[bytes]]:
    """A process with three generations below it."""
    with subprocess.Popen(NESTED, start_new_session=True) as process:
        yield process
        for item in Tree(process.pid).scan():
            os.kill(item.pid, 9)
        process.kill()


@pytest.mark.parametrize("portable", [False, True])
def test_all_descendants_are_found_stopped_continued_and_killed(owner: subprocess.Popen[bytes], portable: bool) -> None:
    tree = Tree(owner.pid, portable=portable)
    members = until(lambda: found if len(found := tree.scan()) == 4 else [])
    assert len({process.session for process in members}) == 2
    until(lambda: {"sleep 61", "sleep 62", "sleep 63"} < {command_of(process.pid) for process in members})  # `exec` takes a moment
    until(lambda: tree.stop() == (True, 4))
    assert {state(process.pid) for process in members} == {"T"}
    assert tree.resume() == 4
    until(lambda: {process.state for process in tree.scan()} == {"S"})
    assert tree.kill() == 4
    until(lambda: not any(alive(process.pid) for process in members))
    owner.wait(10)


@pytest.mark.parametrize("portable", [False, True])
def test_the_count_is_reused_for_a_while(owner: subprocess.Popen[bytes], portable: bool) -> None:
    tree = Tree(owner.pid, portable=portable)
    members = until(lambda: found if len(found := tree.scan()) == 4 else [])
    assert tree.count(100.0, 1.0) == 4
    for process in members:
        os.kill(process.pid, signal.SIGKILL)
    until(lambda: not any(alive(process.pid) for process in members))
    assert tree.count(100.5, 1.0) == 4
    assert tree.count(101.5, 1.0) == 0


def test_more_children_than_the_system_tells_at_a_time_are_counted() -> None:
    code = "import os, time\nfor _ in range(1000):\n    if os.fork() == 0: time.sleep(60), os._exit(0)\nprint('up', flush=True)\ntime.sleep(60)"
    with subprocess.Popen((*PYTHON, code), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        tree = Tree(process.pid)
        count = tree.count(100.0, 1.0)
        tree.kill()
        process.kill()
    assert count == 1000


@pytest.mark.parametrize("portable", [False, True])
def test_a_tree_that_stands_has_as_many_as_stand_whatever_was_counted_before(portable: bool) -> None:
    code = "import os, time\ninput()\nfor _ in range(3):\n    if os.fork() == 0: break\nprint('up', flush=True)\ntime.sleep(60)"
    with subprocess.Popen((*PYTHON, code), stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        tree = Tree(process.pid, portable=portable)
        assert tree.count(100.0, 1.0) == 0
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert [process.stdout.readline() for _ in range(4)] == [b"up\n"] * 4
        until(lambda: tree.stop() == (True, 3))
        assert tree.count(100.01, 1.0) == 3
        tree.kill()
        process.kill()


def test_a_process_whose_first_thread_has_ended_is_alive() -> None:
    with subprocess.Popen((*PYTHON, THREADED)) as process:
        until(lambda: state(process.pid) == "Z")
        until(lambda: [item.state for item in Tree(os.getpid()).scan() if item.pid == process.pid] == ["S"])
        process.kill()


def test_without_proc_an_orphan_that_was_seen_is_remembered() -> None:
    code = "import os, time\nif os.fork() == 0:\n    time.sleep(60)\ntime.sleep(60)"
    shell = subprocess.Popen((sys.executable, "-I", "-S", "-c", code), start_new_session=True)
    tree = Tree(os.getpid(), portable=True)
    members = until(lambda: found if len(found := [item for item in tree.scan() if item.group == shell.pid]) == 2 else [])
    orphan = next(item.pid for item in members if item.pid != shell.pid)
    shell.kill()
    shell.wait(10)
    assert orphan in {item.pid for item in tree.scan()}
    os.kill(orphan, 9)
    until(lambda: orphan not in {item.pid for item in tree.scan()})


def test_a_name_with_brackets_and_spaces_confuses_nobody() -> None:
    code = "import ctypes, time\nctypes.CDLL(None).prctl(15, b') S 1 (x')\nprint(flush=True)\ntime.sleep(60)"
    with subprocess.Popen((*PYTHON, code), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (row,) = [item for item in rows._rows([process.pid]) if isinstance(item, Process)]
        assert (row.pid, row.parent, row.session) == (process.pid, os.getpid(), os.getsid(0))
        process.kill()


@pytest.mark.parametrize(("age", "seconds"), [(b"00:07", 7), (b"12:34", 754), (b"1:00:00", 3600), (b"2-03:04:05", 183845)])
def test_ages_as_ps_tells_them(age: bytes, seconds: int) -> None:
    assert rows._seconds(age) == seconds
