"""Lines that several write to one file."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from cc_executor.store.plain import append_line


def test_a_line_that_a_killed_writer_left_unfinished_is_ended_first(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append_line(path, b"whole\n")
    path.write_bytes(path.read_bytes() + b"to")
    append_line(path, b"next\n")
    assert path.read_bytes() == b"whole\nto\nnext\n"
    assert path.stat().st_mode & 0o777 == 0o600


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


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lines").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="lines"):
        append_line(tmp_path / "lines", b"x\n")
    assert os.listdir(tmp_path) == ["lines"]
