"""A list whose journal is more than one look takes in: whoever asks for all of it gets all of it."""

from __future__ import annotations

import os
import time

import pytest

from cc_executor.model.listrecord import Begun, Closed, Ended, ListStatus, TaskStatus
from cc_executor.model.notify import notify_from
from cc_executor.runtime.history import in_lists
from cc_executor.runtime.listhooks import keep_notify
from cc_executor.runtime.notices import tell_of_list, wish_for_runs
from cc_executor.runtime.report import told_list
from cc_executor.runtime.undo import runs_of_list
from cc_executor.store import tasklists
from cc_executor.store.historyrow import HistoryRow
from cc_executor.store.home import StateHome, new_run_id
from cc_executor.store.tasklists import ListFolder, ListHome
from policy.listplay import listed, task
from support.receiver import receiving

TASKS = 9


@pytest.fixture
def runs(home: StateHome) -> list[str]:
    return [str(home.create(new_run_id(time.time() + number)).run_id) for number in range(TASKS)]


@pytest.fixture
def folder(home: StateHome, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> ListFolder:
    """A list that has ended, each of whose tasks has written more than one look takes in."""
    monkeypatch.setattr(tasklists, "READ_LIMIT", 2_000)
    folder = ListHome(home).open(listed(*(task(f"t{number}") for number in range(TASKS))))
    for number, run_id in enumerate(runs):
        folder.append(Begun(at=1000.0 + 100 * number, task=f"t{number}", attempt=1, run_id=run_id))
        folder.append(Ended(at=1050.0 + 100 * number, task=f"t{number}", attempt=1, outcome="ok", text="x" * 1_500))
    folder.append(Closed(at=2000.0, status=ListStatus.OK))
    return folder


async def test_its_end_is_told_with_how_long_it_took(folder: ListFolder) -> None:
    with receiving() as receiver:
        keep_notify(folder, notify_from([receiver.url()], after=999.0, environ={}))
        wish = wish_for_runs(folder, "n")
        assert wish is not None
        await tell_of_list(folder, folder.state(), "n", environ=os.environ)
        assert [each.data["seconds"] for each in receiver.received] == [1000.0]


def test_all_of_its_runs_are_undone(folder: ListFolder, home: StateHome, runs: list[str]) -> None:
    assert runs_of_list(home, folder) == runs[::-1]
    assert runs_of_list(home, folder, since="t7") == runs[:6:-1]


def test_the_history_knows_of_all_of_its_runs_that_they_are_its_own(folder: ListFolder, home: StateHome, runs: list[str]) -> None:
    rows = [HistoryRow(run_id=run_id, started=0.0, agent="claude", outcome="ok") for run_id in runs]
    assert [row.task_id for row in in_lists(home, rows)] == [f"t{number}" for number in range(TASKS)]


def test_its_report_tells_of_all_tasks(folder: ListFolder, home: StateHome) -> None:
    told = told_list(folder, home)
    assert told.state.status is ListStatus.OK
    assert {told.state.task(row.task.id).status for row in told.rows} == {TaskStatus.OK}
