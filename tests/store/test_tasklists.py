"""Task lists at rest: what a killed writer leaves behind is in nobody's way, and what a command may read is what was made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cc_executor.errors import StateUnusable
from cc_executor.model.listrecord import ListState, Paused, Resumed
from cc_executor.model.tasklist import TaskList
from cc_executor.store.home import StateHome
from cc_executor.store.tasklists import FOLDER, JOURNAL, ListFolder, ListHome
from policy.listplay import listed, task


@pytest.fixture
def tasks() -> TaskList:
    return listed(task("a"), task("b", "a"))


def test_a_list_that_was_half_made_by_a_process_of_the_same_number_is_made(tmp_path: Path, tasks: TaskList) -> None:
    lists = ListHome(StateHome(tmp_path))
    name = lists.open(tasks).list_id
    (lists.path / name).rename(lists.path / f".{name}.{os.getpid()}")  # killed before it had its name; numbers of processes come again
    assert lists.open(tasks).tasks() == tasks


def test_a_command_finds_nothing_that_was_made_before_and_is_not_made_now(tmp_path: Path) -> None:
    folder = ListFolder(tmp_path)
    folder.write_needs("b", {"a.txt": b"old", "a.json": b"1"})
    where = folder.write_needs("b", {"a.txt": b"new"})
    assert {path.name: path.read_bytes() for path in where.iterdir()} == {"a.txt": b"new"}


def test_a_record_that_was_decided_by_what_is_known_is_not_added_to_more(tmp_path: Path) -> None:
    folder = ListFolder(tmp_path)
    folder.append(Paused(at=0.0))
    state, offset = folder.advanced(ListState(), 0)
    end = folder.append_after(Resumed(at=1.0), offset)
    assert state.is_paused
    assert end == (tmp_path / JOURNAL).stat().st_size
    assert folder.append_after(Paused(at=2.0), offset) is None
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"kind":"pau')  # torn by a kill: nobody's wish
    assert folder.append_after(Paused(at=3.0), end or 0) is not None
    assert [type(record) for record in folder.records()] == [Paused, Resumed, Paused]


def test_a_folder_of_lists_that_cannot_be_read_is_said_with_its_cure(home: StateHome) -> None:
    home.prepare()
    (home.root / FOLDER).touch()
    with pytest.raises(StateUnusable, match=r"lists cannot be read: Not a directory\. Mend it, or move it away"):
        list(ListHome(home).folders())
