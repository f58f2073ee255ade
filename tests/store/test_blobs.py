"""Contents by their digest: few in files of their own, many in a pack, and none of them torn."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from cc_executor.store.blobs import INDEX, LOOSE, PACK, WHOLE, Blobs, Damaged


def taken(blobs: Blobs, content: bytes) -> bytes:
    return b"".join(blobs.blocks(content))


@pytest.mark.parametrize("count", [1, LOOSE - 1, LOOSE, 5 * LOOSE])
def test_what_was_put_is_there_for_everybody_once(tmp_path: Path, count: int) -> None:
    every = [str(number).encode() * 7 for number in range(count)]
    for _ in range(2):
        blobs = Blobs(tmp_path / "contents")
        names = [blobs.put(data) for data in every]
        blobs.flush()
        assert names == [hashlib.sha256(data).digest() for data in every]
        other = Blobs(tmp_path / "contents")
        assert [taken(other, name) for name in names] == every
        assert all(map(other.has, names))
    files = [path for path in (tmp_path / "contents").rglob("*") if path.is_file()]
    assert len(files) == (count if count < LOOSE else 2)
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "contents").rglob("*"))


@pytest.mark.parametrize("size", [0, 1, WHOLE - 1, WHOLE, WHOLE + 1, 3 * 2**20])
def test_a_file_of_any_size_is_kept_whole(tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(os.urandom(size))
    blobs = Blobs(tmp_path / "contents")
    for most, kept in ((None, True), (size, True), *([(size - 1, False)] if size else [])):
        descriptor = os.open(tmp_path / "file", os.O_RDONLY)
        content, seen = blobs.put_file(descriptor, most=most)
        os.close(descriptor)
        assert bool(content) is kept
        if kept:
            assert seen == size
            assert taken(blobs, content) == (tmp_path / "file").read_bytes()


def test_what_nobody_wants_is_removed_and_a_pack_is_thinned(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "contents")
    names = [blobs.put(str(number).encode() * 100) for number in range(4 * LOOSE)]
    blobs.flush()
    (tmp_path / "contents" / "torn.pack").write_bytes(b"whoever wrote this was killed")
    assert blobs.keep_only(set(names[: 3 * LOOSE]))[0] == 1  # the torn one; more than half of the other is wanted
    assert all(map(blobs.has, names))
    blobs.keep_only(set(names[:3]))
    assert not list((tmp_path / "contents").glob(f"*{PACK}"))
    assert not list((tmp_path / "contents").glob(f"*{INDEX}"))
    assert [taken(blobs, name) for name in names[:3]] == [str(number).encode() * 100 for number in range(3)]
    assert not any(map(blobs.has, names[3:]))
    blobs.keep_only(set())
    assert not [path for path in (tmp_path / "contents").rglob("*") if path.is_file()]


def test_a_pack_whose_index_cannot_be_read_now_is_kept(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "contents")
    names = [blobs.put(str(number).encode() * 100) for number in range(2 * LOOSE)]
    blobs.flush()
    (index,) = (tmp_path / "contents").glob(f"*{INDEX}")
    aside = index.rename(tmp_path / "aside")
    index.symlink_to(aside)
    with pytest.raises(OSError, match="symbolic link"):
        Blobs(tmp_path / "contents").keep_only(set(names))
    aside.replace(index)
    assert all(taken(Blobs(tmp_path / "contents"), name) for name in names)


@pytest.mark.parametrize("count", [1, 2 * LOOSE])
def test_a_torn_content_is_never_taken_for_whole(tmp_path: Path, count: int) -> None:
    blobs = Blobs(tmp_path / "contents")
    names = [blobs.put(str(number).encode() * 100) for number in range(count)]
    blobs.flush()
    for path in (tmp_path / "contents").rglob("*"):
        if path.is_file() and path.suffix != INDEX:
            path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(Damaged, match="damaged"):
        taken(blobs, names[-1])
    with pytest.raises(Damaged, match="not kept"):
        taken(blobs, hashlib.sha256(b"never").digest())


@pytest.mark.parametrize("again", [1, 2 * LOOSE])
@pytest.mark.parametrize("count", [1, 2 * LOOSE])
def test_what_a_power_cut_has_torn_is_kept_anew_when_it_comes_again(tmp_path: Path, count: int, again: int) -> None:
    every = [str(number).encode() * 100 for number in range(max(count, again))]
    blobs = Blobs(tmp_path / "contents")
    for data in every[:count]:
        blobs.put(data)
    blobs.flush()
    for path in (tmp_path / "contents").rglob("*"):
        if path.is_file() and path.suffix != INDEX:
            os.truncate(path, path.stat().st_size // 2)  # the names were on the disk, and not all of what they name
    blobs = Blobs(tmp_path / "contents")
    names = [blobs.put(data) for data in every[:again]]
    blobs.flush()
    assert [taken(Blobs(tmp_path / "contents"), name) for name in names] == every[:again]


def test_a_large_file_that_a_power_cut_has_torn_is_kept_anew_when_it_comes_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(2 * WHOLE))
    for is_torn in (True, False):
        descriptor = os.open(tmp_path / "file", os.O_RDONLY)
        content, _ = Blobs(tmp_path / "contents").put_file(descriptor)
        os.close(descriptor)
        if is_torn:
            os.truncate(next(path for path in (tmp_path / "contents").rglob("*") if path.is_file()), 0)
    assert taken(Blobs(tmp_path / "contents"), content) == (tmp_path / "file").read_bytes()
