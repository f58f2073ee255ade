"""Files of ours: lines that several write to one, what is read whole, and what is on the disk when it is said to be."""

from __future__ import annotations

import fcntl
import os
import threading
import tracemalloc
from pathlib import Path

import pytest

from cc_executor.errors import StateUnusable
from cc_executor.model.listrecord import Stopped
from cc_executor.store import plain
from cc_executor.store.plain import append_line, read_plain, write_whole
from cc_executor.store.tasklists import JOURNAL, ListFolder
from support.locks import held_by_a_stopped_process


def test_a_line_that_a_killed_writer_left_unfinished_is_ended_first(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append_line(path, b"whole\n")
    path.write_bytes(path.read_bytes() + b"to")
    append_line(path, b"next\n")
    assert path.read_bytes() == b"whole\nto\nnext\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_said_to_be_on_the_disk_was_sent_there_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    write_whole(tmp_path / "whole", b"x" * 100)
    write_whole(tmp_path / "quick", b"x" * 100, sync=False)
    append_line(tmp_path / "lines", b"line\n")
    assert synced == [100, 5]


def test_of_two_who_write_the_first_file_of_a_name_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"first", first_stays=True)
    write_whole(path, b"second", first_stays=True)
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"first", [path])


def test_what_is_too_large_or_no_file_is_refused_and_costs_no_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(path)
    before = len(os.listdir("/dev/fd"))
    assert read_plain(path, 5) == b"12345"
    for name, words in (("file", "larger than 4 bytes"), ("pipe", "no plain file"), ("link", "a symbolic link stands there")):
        with pytest.raises(OSError, match=words):
            read_plain(tmp_path / name, 4)
    assert len(os.listdir("/dev/fd")) == before


def test_of_what_is_read_no_more_memory_is_asked_for_than_there_is_and_what_grows_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    tracemalloc.start()
    try:
        assert read_plain(tmp_path / "file", 2**28) == b"12345"
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    status = Path("/proc/self/status")  # whose size is said to be 0
    assert status.stat().st_size == 0
    assert b"Name:" in read_plain(status)
    with pytest.raises(OSError, match="larger than 10 bytes"):
        read_plain(status, 10)


def test_a_writer_waits_for_another_that_is_in_the_midst_of_its_line(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    with open(path, "ab", buffering=0) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(b"first ")
        writer = threading.Thread(target=append_line, args=(path, b"second\n"))
        writer.start()
        writer.join(0.2)  # time enough to write, were it allowed to
        assert path.read_bytes() == b"first "
        other.write(b"half\n")
        fcntl.flock(other, fcntl.LOCK_UN)
        writer.join(10)
    assert path.read_bytes() == b"first half\nsecond\n"


@pytest.mark.row(
    "faults", "a process that writes a list's journal is stopped (SIGSTOP)", "nobody waits for it for longer than 5 s, and is told"
)
@pytest.mark.timeout(60)
def test_a_writer_that_was_stopped_in_the_midst_of_its_line_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plain.PATIENCE == 5
    monkeypatch.setattr(plain, "PATIENCE", 0.1)
    folder = ListFolder(tmp_path)
    with held_by_a_stopped_process(tmp_path / JOURNAL) as release:
        with pytest.raises(StateUnusable, match=r"another process has held it for .* s; let it go on, or end it"):
            folder.append(Stopped(at=1.0))
        assert folder.read() == ([], 0)
        release()
        folder.append(Stopped(at=2.0))
    assert [record.at for record in folder.records()] == [2.0]


@pytest.mark.timeout(60)
def test_who_waits_for_the_line_of_another_need_not_wait_for_its_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, at_disk, goes_on, sync = tmp_path / "lines", threading.Event(), threading.Event(), os.fsync

    def slow(descriptor: int) -> None:
        if not at_disk.is_set():
            at_disk.set()
            assert goes_on.wait(30)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    first = threading.Thread(target=append_line, args=(path, b"first\n"))
    first.start()
    assert at_disk.wait(30)
    append_line(path, b"second\n")
    goes_on.set()
    first.join(30)
    assert path.read_bytes() == b"first\nsecond\n"


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lines").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="lines"):
        append_line(tmp_path / "lines", b"x\n")
    assert os.listdir(tmp_path) == ["lines"]
