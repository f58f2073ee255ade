"""Programs that call us in other ways than `asyncio.run`: from other loops, from processes that hand on what was raised, with what is no callback."""

from __future__ import annotations

import asyncio
import inspect
import logging
import pickle
import threading
import traceback
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import pytest
import sniffio

from cc_executor import CCExecutionError, cc_execute, cc_execute_list, cc_execute_sync, errors
from cc_executor.errors import CCExecutorError, InvalidRequest, InvalidTaskList, TaskListFailed, UndoRefused
from support.runs import BASH, run_folders

MADE_OF: Final[dict[type[CCExecutorError], tuple[Any, ...]]] = {
    InvalidTaskList: (["tasks[0]: is empty", "tasks[1]: is empty"],),
    TaskListFailed: ("0123-1", "failed", "1 of 2 tasks"),
    UndoRefused: ("No.", [("a.txt", "changed")]),
}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_process_pool_hands_on_why_a_run_failed() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool, pytest.raises(CCExecutionError) as caught:
        pool.submit(cc_execute_sync, "exit 3", **BASH, raise_error=True).result(timeout=60)
    assert caught.value.receipt.outcome.kind.value == "failed"
    assert "exit code 3" in str(caught.value)


@pytest.mark.parametrize("kind", [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, CCExecutorError)])
def test_every_error_is_the_same_on_the_other_side_of_a_process(kind: type[CCExecutorError]) -> None:
    made_of = MADE_OF.get(kind, ("One sentence.",))
    if kind is CCExecutionError:
        made_of = (cc_execute_sync("exit 3", **BASH).receipt,)
    error = kind(*made_of)
    error.add_note("a note")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (type(again), str(again), vars(again)) == (kind, str(error), vars(error))


def test_awaited_on_a_loop_that_is_not_asyncio_s_it_says_what_to_do(state_folder: Path) -> None:
    for work in (cc_execute("echo hello", **BASH), cc_execute_list([{"run": "echo hello"}])):
        with pytest.raises(InvalidRequest, match=r"trio\.to_thread\.run_sync"):
            work.send(None)  # as trio begins a task
    assert run_folders(state_folder) == []


def test_blocking_within_another_library_s_loop_is_done_by_a_thread() -> None:
    told: list[str] = []

    def inside() -> None:
        sniffio.thread_local.name = "trio"  # as trio does in the thread of its loop
        told.append(cc_execute_sync("echo hello", **BASH).text)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join(60)
    assert told == ["hello\n"]


def test_an_error_of_a_blocking_call_is_not_told_as_one_within_another() -> None:
    with pytest.raises(InvalidRequest) as caught:
        cc_execute_sync(" ")
    assert "no running event loop" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("name", ["on_event", "on_ask", "on_state"])
async def test_what_is_no_function_is_no_callback(name: str, state_folder: Path) -> None:
    wrong: dict[str, Any] = {name: "a text"}
    with pytest.raises(InvalidRequest, match=f"{name} must be a function, not str"):
        await (cc_execute_list([{"run": "true"}], **wrong) if name == "on_state" else cc_execute("Go.", rehearse="hello", **wrong))
    assert run_folders(state_folder) == []


async def test_a_callback_that_always_fails_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("mine")

    with caplog.at_level(logging.WARNING, logger="cc_executor"):
        assert (await cc_execute("echo hello", **BASH, on_event=broken)).ok
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]


async def test_a_callback_that_awaits_what_was_cancelled_breaks_no_run(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_: object) -> None:
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        gone.cancel()
        await gone

    with caplog.at_level(logging.WARNING, logger="cc_executor"):
        assert (await cc_execute("echo hello", **BASH, on_event=broken)).ok
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tools": {"Bash": True}}, "tools must be a text or a list of texts, not dict."),
        ({"expect": {"a.txt": 1}}, "expect must be a text or a list of texts, not dict."),
        ({"timeout": True}, "timeout must be a number, not True."),
        ({"max_cost": False}, "max_cost must be a number, not False."),
        ({"max_turns": True}, "max_turns must be a number, not True."),
        ({"stall_timeout": False}, "stall_timeout must be a number, not False."),
    ],
)
async def test_what_only_looks_like_an_option_s_value_is_refused(options: dict[str, Any], says: str, state_folder: Path) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await cc_execute("Go.", rehearse="hello", **options)
    assert str(caught.value) == says
    assert run_folders(state_folder) == []
