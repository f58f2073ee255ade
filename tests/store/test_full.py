"""A disk that becomes full in the midst of a small file: nothing is left that is taken for the whole later."""

from __future__ import annotations

import resource
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cc_executor.errors import StateUnusable
from cc_executor.store import owners
from cc_executor.store.plain import write_whole
from cc_executor.store.unshared import Unshared


@contextmanager
def no_room() -> Generator[None]:
    """Files can be made, and nothing can be written into them: as on a disk that has no block left."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_claim_that_could_not_be_written_is_nobody_s(tmp_path: Path) -> None:
    with no_room(), pytest.raises(StateUnusable, match="Nothing was started"):
        owners.claim(tmp_path, "list-1", "ann")
    owners.claim(tmp_path, "list-1", "ann")
    assert owners.owner_of(tmp_path, "list-1") == "ann"
    with pytest.raises(StateUnusable):
        owners.claim(tmp_path, "list-1", "bob")
    assert owners.owner_of(tmp_path, "list-1") == "ann"


def test_an_outage_that_could_not_be_written_down_is_told_when_it_can(tmp_path: Path) -> None:
    unshared = Unshared(tmp_path)
    unshared.add(["0" * 26])
    with no_room():
        unshared.tell("It is down.")
    assert unshared.told() == ""
    unshared.tell("It is down.")
    assert unshared.told() == "It is down."
    unshared.tell("It is down.")
    assert unshared.told() == "", "said once"
    unshared.remove(["0" * 26])
    unshared.settle()
    assert list((tmp_path / "unshared").iterdir()) == []


def test_what_is_written_whole_or_not_at_all_leaves_nothing_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"the old one")
    with no_room(), pytest.raises(OSError, match="too large"):
        write_whole(path, b"the new one")
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"the old one", [path])
    write_whole(path, b"the new one", sync=False)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"the new one", 0o600)
