"""An attempt at a task, and a look at one: where and at what, at the moment in which its run comes up, and with a key that is refused."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from cc_executor.model.hook import HookReport
from cc_executor.model.listrecord import Begun, Ended
from cc_executor.model.request import RunId
from cc_executor.model.tasklist import Task
from cc_executor.runtime.attempt import Live, TaskAttempts, Watcher
from cc_executor.runtime.listhooks import ListHooks
from cc_executor.runtime.listjournal import ListJournal
from cc_executor.runtime.run import Run
from cc_executor.store.home import StateHome
from cc_executor.store.tasklists import ListHome
from cc_executor.taskplan import plan, request_of
from cc_executor.tasks import cc_execute_list
from support.runs import BOUND

pytestmark = pytest.mark.usefixtures("claude_cli")


async def nobody(_: HookReport, __: str) -> None:
    """Who is told of hooks."""


def attempts_of(home: StateHome, cwd: Path, task: dict[str, Any], done: bool) -> tuple[TaskAttempts, Task]:
    """What is done for the one task of a list; `done`: which has ended well, and is to be looked at."""
    planned = plan([task], cwd=cwd).tasks
    folder = ListHome(home).open(planned)
    if done:
        folder.append(Begun(at=time.time(), task=task["id"], attempt=1))
        folder.append(Ended(at=time.time(), task=task["id"], attempt=1, outcome="ok", to_validate=True))
    journal = ListJournal(folder, lambda _: None)
    journal.read()
    attempts = TaskAttempts(
        folder,
        tasks=planned,
        journal=journal,
        hooks=ListHooks((), folder=folder, tasks=planned, environ=os.environ, tell=nobody),
        home=home,
        environ=os.environ,
        request_of=partial(request_of, planned),
        calls={},
        watcher=Watcher(),
    )
    return attempts, planned.task(task["id"])


@pytest.mark.parametrize("what", ["attempt", "look"])
async def test_what_is_cancelled_in_the_instant_in_which_its_run_has_come_up_leaves_nothing_running(
    what: str, tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts, task = attempts_of(home, tmp_path, {"id": "a", "run": "sleep 1000", "validate": "it is so"}, done=what == "look")
    live, runs, start = Live(), list[Run](), Run.start

    async def start_and_cancel(*given: Any, **more: Any) -> Run:
        runs.append(await start(*given, **more))
        live.is_cancelled = True  # as the runner of the list does it, which knows of no run yet
        live.scope.cancel()
        return runs[0]

    monkeypatch.setattr(Run, "start", start_and_cancel)
    begin = partial(attempts.attempt, max_cost=None, run_id=attempts.new_run(), session="", say="") if what == "attempt" else attempts.look
    with anyio.fail_after(BOUND):
        with live.scope:
            await begin(task, live)
        assert live.scope.cancelled_caught
        receipt = await runs[0].finish()
    assert (receipt.outcome.kind, receipt.exit.stopped_for) == ("cancelled", "cancel")


@pytest.mark.parametrize(
    "task",
    [{"prompt": "x", "rehearse": "bad-key"}, {"run": "true", "validate": {"prompt": "it is so", "rehearse": "bad-key"}}],
    ids=["attempt", "look"],
)
async def test_an_agent_of_a_list_whose_key_is_refused_is_ended_at_once(task: dict[str, Any], tmp_path: Path, home: StateHome) -> None:
    with anyio.fail_after(BOUND):  # the CLI alone tries for 180 s
        await cc_execute_list([{"id": "a", **task}], cwd=tmp_path)
    (receipt,) = [kept for folder in home.runs() if (kept := folder.receipt()) is not None and kept.agent == "claude"]
    assert (receipt.outcome.kind, receipt.exit.stopped_for) == ("auth", "auth")


@pytest.mark.parametrize("kind", ["agent", "shell", "callable"])
async def test_who_looks_at_a_task_s_work_looks_where_it_was_done_and_is_told_what_was_wanted(
    kind: str, tmp_path: Path, home: StateHome
) -> None:
    (tmp_path / "elsewhere").mkdir()
    work: dict[str, Any] = {
        "agent": {"prompt": "make {{ needs.before }}", "rehearse": "hello", "cwd": "elsewhere"},
        "shell": {"run": "echo made", "cwd": "elsewhere"},
        "callable": {"call": count_sheep},
    }[kind]
    planned = plan(
        [
            {"id": "before", "run": "printf 40 sheep"},
            {"id": "a", "needs": "before", "validate": {"prompt": "it is so", "rehearse": "hello"}, **work},
        ],
        cwd=tmp_path,
    )
    result = await cc_execute_list(planned)
    (folder,) = [folder for folder in home.runs() if folder.run_id == result.tasks["a"].validator]
    assert folder.request().cwd == str(tmp_path if kind == "callable" else tmp_path / "elsewhere")
    told = folder.request().prompt
    assert {"agent": "make 40", "shell": "echo made", "callable": "count_sheep"}[kind] in told
    assert "it is so" in told


def count_sheep() -> str:
    return "done"


async def test_what_a_task_needs_is_there_when_the_run_that_made_it_is_kept_no_more(tmp_path: Path, home: StateHome) -> None:
    planned = plan(
        [{"id": "before", "run": "echo made"}, {"id": "a", "run": "test -e go && cat $CC_NEEDS/before.txt", "needs": "before"}],
        cwd=tmp_path,
    )
    first = await cc_execute_list(planned)
    assert first.status == "failed"
    home.discard(RunId(first.tasks["before"].run_id))
    (tmp_path / "go").touch()
    again = await cc_execute_list(planned)
    assert (again.status, again["a"]) == ("ok", "made\n")
