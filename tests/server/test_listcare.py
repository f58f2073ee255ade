"""Lists that are seen through to their ends: real lists and real runners, one after another; and runners that die."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from cc_executor.errors import LaunchFailed
from cc_executor.model.listrecord import Begun, Closed, Ended, ListStatus, Paused, Resumed, Stopped
from cc_executor.server import listcare
from cc_executor.server.listcare import Care, Kept
from cc_executor.store.home import StateHome
from cc_executor.store.tasklists import ListFolder, ListHome
from cc_executor.taskplan import plan
from support.runs import BOUND, eventually

pytestmark = pytest.mark.anyio

# A runner that cannot begin: it reads its hooks first.
DYING: Final = {**os.environ, "CC_EXECUTOR_HOOKS": "{"}


@pytest.fixture
async def care(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Care]:
    monkeypatch.setattr(listcare, "LOOK", 0.02)
    made = Care(os.environ, lambda _: "ada")
    yield made
    await made.aclose()


def listed(folder: Path, *tasks: Any) -> ListFolder:
    return ListHome(StateHome(folder / "state")).open(plan(list(tasks), cwd=folder).tasks)


def kept(folder: ListFolder) -> Kept:
    return Kept(folder, folder.tasks(), "")


def died(one: Kept) -> None:
    """Its newest runner has ended, and that was seen."""
    assert one.runner is not None
    assert one.runner.wait(BOUND) == 1
    assert not one.look()


# --- one list ---------------------------------------------------------------------------------------------------------


def test_a_runner_that_is_not_up_yet_runs_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, go, python = kept(listed(tmp_path, {"run": "true"})), tmp_path / "go", tmp_path / "python"
    python.write_text(f"#!/bin/sh\nuntil [ -e {go} ]; do sleep 0.02; done; exit 1\n")
    python.chmod(0o700)
    assert not one.look()
    monkeypatch.setattr(sys, "executable", str(python))
    one.start(os.environ)
    try:
        assert one.look(), "else another one would be started beside it"
    finally:
        go.touch()
    died(one)


def test_runners_that_die_are_followed_more_and_more_slowly_until_a_task_ends(tmp_path: Path) -> None:
    folder = listed(tmp_path, {"id": "a", "run": "true"}, {"id": "b", "run": "true"})
    one = kept(folder)
    for wait in (0, 1, 10):
        assert one.is_wanted
        began = time.monotonic()
        one.start(DYING)
        assert began + wait <= one.not_before <= time.monotonic() + wait
        died(one)
        assert one.complaint() == "", "there is another one to come"
    one.start(DYING)
    died(one)
    assert (one.is_wanted, one.is_given_up) == (False, True)
    assert one.complaint().startswith("Whoever ran this list has died 4 times, and no task came to its end. Its last word: ")
    with folder.claimed():
        assert one.complaint() == "", "somebody else runs it"
    (folder.path / listcare.LOG).unlink()
    assert one.complaint().endswith("came to its end. The command resume starts it once more.")
    folder.append(Begun(at=0.0, task="a", attempt=1))
    assert not one.look()
    assert not one.is_wanted, "it is where others have died"
    folder.append(Ended(at=0.0, task="a", attempt=1, outcome="failed"))
    assert not one.look()
    assert (one.is_wanted, one.started) == (True, 0), "it gets somewhere"


def test_only_a_list_that_is_to_go_on_wants_a_runner(tmp_path: Path) -> None:
    one = kept(listed(tmp_path, {"run": "true"}))
    wanted: list[bool] = []
    for record in (Paused(at=0.0), Stopped(at=0.0), Closed(at=0.0, status=ListStatus.STOPPED)):
        one.folder.append(record)
        one.look()
        wanted.append(one.is_wanted)
    assert wanted == [False, True, False], "one that is stopped while it is paused has to be told so"


# --- the lists of a server --------------------------------------------------------------------------------------------


async def test_a_list_is_run_once_however_many_take_it_and_let_go_of_at_its_end(tmp_path: Path, care: Care) -> None:
    folder = listed(tmp_path, {"run": "echo ran >> runs; until [ -e go ]; do sleep 0.02; done", "timeout": BOUND})
    await asyncio.gather(*(care.take(folder, starts=True) for _ in range(5)))
    (one,) = care.kept.values()
    assert (one.asked, one.started, one.owner) == (5, 0, "ada")
    assert one.runner is not None
    assert len([task for task in asyncio.all_tasks() if task.get_name() == f"cc_executor list {folder.list_id}"]) == 1
    await eventually((tmp_path / "runs").exists)
    (tmp_path / "go").touch()
    await eventually(lambda: care.kept == {})
    assert folder.state().status is ListStatus.OK
    assert (tmp_path / "runs").read_text() == "ran\n"


async def test_a_list_that_somebody_else_runs_is_taken_up_when_he_lets_go(tmp_path: Path, care: Care) -> None:
    folder = listed(tmp_path, {"run": "true"})
    with folder.claimed():
        await care.take(folder, starts=True)
        (one,) = care.kept.values()
        folder.append(Resumed(at=0.0, click="seen"))
        await eventually(lambda: one.state.clicks == ("seen",))  # it has been looked at
        assert (one.started, one.runner) == (0, None)
    await eventually(lambda: care.kept == {})
    assert folder.state().status is ListStatus.OK


async def test_a_list_that_is_taken_without_haste_is_begun_all_the_same(tmp_path: Path, care: Care) -> None:
    folder = listed(tmp_path, {"run": "true"})
    await care.take(folder)
    await eventually(lambda: care.kept == {})
    assert folder.state().status is ListStatus.OK


async def test_a_list_that_nobody_can_run_is_closed_and_can_be_taken_again(
    tmp_path: Path, care: Care, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = listed(tmp_path, {"run": "true"})
    with monkeypatch.context() as without:
        without.setattr(sys, "executable", str(tmp_path / "no-python"))
        with pytest.raises(LaunchFailed):
            await care.take(folder, starts=True)
    assert care.kept == {}
    assert (folder.state().status, folder.state().summary) == (ListStatus.STOPPED, "nobody could be started who runs it")
    await care.take(folder)
    await eventually(lambda: care.kept == {})


async def test_runners_that_cannot_be_started_later_count_as_those_that_died(
    tmp_path: Path, care: Care, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listcare, "WAITS", (0.0, 0.0))
    folder = listed(tmp_path, {"run": "true"})
    with monkeypatch.context() as without:
        without.setattr(sys, "executable", str(tmp_path / "no-python"))
        await care.take(folder)
        (one,) = care.kept.values()
        await eventually(lambda: one.is_given_up)
        assert "has died 3 times" in one.complaint()
    await care.take(folder)
    await eventually(lambda: care.kept == {})
    assert folder.state().status is ListStatus.OK, "who asks for it gives it as many runners again"


async def test_after_a_runner_that_died_the_next_one_has_its_time_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listcare, "LOOK", 0.02)
    monkeypatch.setattr(listcare, "WAITS", (0.0, BOUND))
    care, folder = Care(DYING, lambda _: None), listed(tmp_path, {"run": "true"})
    await care.take(folder)
    (one,) = care.kept.values()
    await eventually(lambda: one.started == 2 and one.runner is None)
    for click in ("first", "second"):
        folder.append(Resumed(at=0.0, click=click))
        await eventually(lambda click=click: click in one.state.clicks)  # it has been looked at
    assert one.started == 2
    await care.aclose()


async def test_a_server_that_ends_lets_go_of_its_lists_and_they_go_on(tmp_path: Path, care: Care) -> None:
    folder = listed(tmp_path, {"run": "touch begun; until [ -e go ]; do sleep 0.02; done", "timeout": BOUND})
    await care.take(folder, starts=True)
    await eventually((tmp_path / "begun").exists)
    (one,) = care.kept.values()
    assert one.task is not None
    await care.aclose()
    assert one.task.done()
    assert care.kept == {}
    (tmp_path / "go").touch()
    await eventually(lambda: folder.state().status is ListStatus.OK)
    assert one.runner is not None
    assert one.runner.wait(BOUND) == 0


async def test_a_list_that_cannot_be_read_any_more_is_let_go_of_and_said_to_be(
    tmp_path: Path, care: Care, caplog: pytest.LogCaptureFixture
) -> None:
    folder = listed(tmp_path, {"run": "true"})
    folder.append(Paused(at=0.0))
    await care.take(folder)
    (folder.path / "journal.jsonl").write_bytes(b"\x93\xff\x00garbage" * 300)
    await eventually(lambda: care.kept == {})
    assert [each.levelname for each in caplog.records] == ["WARNING"]
    assert folder.list_id in caplog.text
