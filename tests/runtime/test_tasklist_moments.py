"""What is wished for at the worst moment: during the first hook, in the instant in which something is decided, while the list is watched by broken code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import anyio
import msgspec
import pytest

from cc_executor.errors import ControlFailed
from cc_executor.model.listrecord import (
    Begun,
    Capped,
    Closed,
    Edited,
    Ended,
    ListState,
    ListStatus,
    Paused,
    Record,
    Resumed,
    RetryAsked,
    SkipAsked,
    Skipped,
    Stopped,
    TaskStatus,
    Waiting,
)
from cc_executor.runtime.attempt import LOOK
from cc_executor.runtime.listjournal import ListJournal
from cc_executor.store import tasklists
from cc_executor.store.home import StateHome
from cc_executor.store.tasklists import ListFolder, ListHome
from cc_executor.taskcommands import TaskCommands
from cc_executor.taskplan import kept, plan
from cc_executor.tasks import cc_execute_list
from support.leaks import await_none
from support.runs import eventually

BUDGET = 60  # seconds


def begun(folder: ListFolder) -> list[str]:
    return [record.task for record in folder.read()[0] if isinstance(record, Begun)]


def just_before(monkeypatch: pytest.MonkeyPatch, decided: Callable[[Record], bool], *records: Record) -> None:
    """Somebody else appends `records` in the instant between a decision of the runner and its being written."""
    write = tasklists.append_line
    left = [msgspec.json.encode(record) + b"\n" for record in records]

    def append(path: Path, line: bytes, **more: int | None) -> int | None:
        if left and decided(msgspec.json.decode(line, type=Record)):
            said, left[:] = list(left), []
            for each in said:
                write(path, each)
        return write(path, line, **more)

    monkeypatch.setattr(tasklists, "append_line", append)


@pytest.mark.parametrize(
    ("wish", "status", "done"),
    [
        (Stopped(at=0.0), ListStatus.STOPPED, []),
        (SkipAsked(at=0.0, task="a"), ListStatus.OK, ["b"]),
    ],
)
async def test_what_is_wished_for_during_the_first_hook_holds_before_anything_is_begun(
    tmp_path: Path, home: StateHome, wish: Record, status: ListStatus, done: list[str]
) -> None:
    planned = plan([{"id": "a", "run": "echo a >> log"}, {"id": "b", "run": "echo b >> log"}], cwd=tmp_path)
    folder = ListHome(home).open(planned.tasks)

    def first(_: object) -> None:
        folder.append(wish)

    with anyio.fail_after(BUDGET):
        result = await cc_execute_list(planned, hooks={"before_list": first})
    assert (result.status, begun(folder)) == (status, done)


async def test_a_list_that_is_held_during_its_first_hook_begins_nothing(tmp_path: Path, home: StateHome) -> None:
    planned = plan([{"id": "a", "run": "true"}], cwd=tmp_path)
    folder = ListHome(home).open(planned.tasks)
    seen: list[list[str]] = []

    def first(_: object) -> None:
        folder.append(Paused(at=0.0))

    def look(state: ListState) -> None:
        if state.is_paused and not seen:
            seen.append(begun(folder))
            threading.Timer(0.5, lambda: (seen.append(begun(folder)), folder.append(Resumed(at=0.0)))).start()

    with anyio.fail_after(BUDGET):
        result = await cc_execute_list(planned, hooks={"before_list": first}, on_state=look)
    assert (result.status, seen) == ("ok", [[], []])


async def test_a_task_that_is_wanted_again_in_the_instant_in_which_the_list_ends_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan([{"id": "a", "run": "echo x >> log; [ $(wc -l < log) -gt 1 ]"}], cwd=tmp_path)
    just_before(monkeypatch, lambda record: isinstance(record, Closed), RetryAsked(at=0.0, tasks=("a",)))
    with anyio.fail_after(BUDGET):
        result = await cc_execute_list(planned)
    assert (result.status, result.tasks["a"].begun) == ("ok", 2)


async def test_a_cap_that_is_raised_in_the_instant_in_which_the_list_ends_for_want_of_money_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan([{"id": "a", "prompt": "x", "rehearse": "hello"}], cwd=tmp_path, max_cost_per_day=0.005)
    just_before(monkeypatch, lambda record: isinstance(record, Closed), Capped(at=0.0, max_cost_per_day=5.0))
    with anyio.fail_after(BUDGET):
        result = await cc_execute_list(planned)
    assert result.ok


@pytest.mark.parametrize("first", ["a", "b"])
async def test_a_list_that_is_stopped_in_the_instant_in_which_a_task_begins_does_not_begin_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    planned = plan([{"id": name, "run": f"echo {name} >> log", "group": "g"} for name in "ab"], cwd=tmp_path)
    just_before(monkeypatch, lambda record: isinstance(record, Begun) and record.task == first, Stopped(at=0.0))
    with anyio.fail_after(BUDGET):
        result = await cc_execute_list(planned)
    assert (result.status, result.tasks[first].begun) == ("stopped", 0)


async def test_a_task_that_is_stopped_in_the_instant_in_which_its_wait_begins_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan([{"id": "a", "prompt": "x", "rehearse": "hello", "expect": "never", "retry": 1}], cwd=tmp_path)
    just_before(monkeypatch, lambda record: isinstance(record, Waiting), Stopped(at=0.0, task="a"))
    with anyio.fail_after(BUDGET):
        result = await cc_execute_list(planned)
    assert (result.status, result.tasks["a"].status, result.tasks["a"].begun) == ("failed", TaskStatus.STOPPED, 1)


@pytest.mark.row(
    "faults", "a slow disk under a list's journal", "the loop goes on while a record is written; nothing begins before its record is there"
)
async def test_the_loop_goes_on_while_the_disk_writes_what_happens(
    tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [
        *({"id": f"t{number}", "run": f"grep -c {number} begun", "group": "g"} for number in range(4)),
        {"id": "bad", "run": "exit 1", "retry": 1},
        *({"id": f"s{number}", "run": "true", "needs": "bad"} for number in range(4)),
    ]
    planned = plan(tasks, cwd=tmp_path, on_failure="skip")
    write, loop, written = tasklists.append_line, asyncio.get_running_loop(), list[Record]()
    is_run = ListHome(home).open(planned.tasks).is_run

    def append(path: Path, line: bytes, **more: int | None) -> int | None:
        turned = threading.Event()
        loop.call_soon_threadsafe(turned.set)
        assert not is_run() or turned.wait(BUDGET / 4), "the loop stands still"
        end = write(path, line, **more)
        record = msgspec.json.decode(line, type=Record)
        if end is not None and isinstance(record, Begun):
            with (tmp_path / "begun").open("a") as file:
                file.write(f"{record.task}\n")
        written.append(record)
        return end

    monkeypatch.setattr(tasklists, "append_line", append)
    with anyio.fail_after(BUDGET):
        result = await cc_execute_list(planned)
    assert [result.tasks[f"t{number}"].status for number in range(4)] == [TaskStatus.OK] * 4
    assert {type(record) for record in written} >= {Begun, Ended, Skipped, Closed}


async def test_after_what_happens_between_two_decisions_the_second_is_made_anew(tmp_path: Path, home: StateHome) -> None:
    folder = ListHome(home).open(plan([{"id": "a", "run": "true"}], cwd=tmp_path).tasks)
    journal = ListJournal(folder, lambda _: None)
    journal.considered()
    assert await journal.decided(Skipped(at=0.0, task="a", because="x"))
    assert await journal.decided(Skipped(at=0.0, task="b", because="x")), "what was decided by the same state is no news to it"
    await journal.add(Ended(at=0.0, task="c", attempt=1, outcome="ok"))  # an attempt that has ended meanwhile
    assert not await journal.decided(Skipped(at=0.0, task="d", because="x"))
    journal.considered()
    assert await journal.decided(Skipped(at=0.0, task="d", because="x"))
    assert [type(record) for record in folder.records()] == [Skipped, Skipped, Ended, Skipped]


async def test_who_is_cancelled_while_something_is_written_waits_for_it(
    tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ListHome(home).open(plan([{"id": "a", "run": "true"}], cwd=tmp_path).tasks)
    journal, at_disk, goes_on, write = ListJournal(folder, lambda _: None), asyncio.Event(), threading.Event(), tasklists.append_line
    loop = asyncio.get_running_loop()

    def slow(path: Path, line: bytes, **more: int | None) -> int | None:
        loop.call_soon_threadsafe(at_disk.set)
        assert goes_on.wait(BUDGET)
        return write(path, line, **more)

    monkeypatch.setattr(tasklists, "append_line", slow)
    async with asyncio.timeout(BUDGET), asyncio.TaskGroup() as tasks:
        adding = tasks.create_task(journal.add(Paused(at=0.0)))
        await at_disk.wait()
        for _ in range(3):  # as somebody who presses Stop again and again
            adding.cancel()
            await anyio.sleep(0.05)
        assert not adding.done()
        goes_on.set()
    assert adding.cancelled()
    assert [type(record) for record in folder.records()] == [Paused]


async def test_a_look_that_cannot_be_made_is_made_once_however_slow_the_disk(
    tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, loop, written = tasklists.append_line, asyncio.get_running_loop(), list[str]()
    planned = plan([{"id": "a", "run": "true", "validate": {"prompt": "Is it so?", "max_cost": 0.005}}], cwd=tmp_path, max_cost=0.006)

    def slow(path: Path, line: bytes, **more: int | None) -> int | None:
        kind = type(msgspec.json.decode(line, type=Record)).__name__
        written.append(kind)
        if kind == "Validated":  # until the list has looked again at what is due, a few times
            has_looked = threading.Event()
            loop.call_soon_threadsafe(loop.call_later, 3 * LOOK, has_looked.set)
            assert has_looked.wait(BUDGET)
        return write(path, line, **more)

    monkeypatch.setattr(tasklists, "append_line", slow)
    with anyio.fail_after(BUDGET):
        result = await cc_execute_list(planned)
    assert result.tasks["a"].verdict == "could_not_check"
    assert written.count("Validated") == 1


async def test_who_watches_and_raises_leaves_nothing_running(tmp_path: Path, home: StateHome) -> None:
    tasks = [
        {"id": "a", "run": "touch begun; sleep 60", "group": "g"},
        {"id": "b", "run": "until [ -e begun ]; do sleep 0.02; done", "group": "g"},
    ]
    planned = plan(tasks, cwd=tmp_path)

    def look(state: ListState) -> None:
        if state.task("b").status is TaskStatus.OK:
            raise ZeroDivisionError

    with anyio.fail_after(BUDGET), pytest.raises(ZeroDivisionError):
        await cc_execute_list(planned, on_state=look)
    state = ListHome(home).open(planned.tasks).state()
    assert (state.status, state.task("a").status) == (ListStatus.STOPPED, TaskStatus.STOPPED)
    assert not await_none([tmp_path])


async def test_a_list_that_is_kept_is_run_by_its_id_and_not_an_equal_one(tmp_path: Path, home: StateHome) -> None:
    planned = plan([{"id": "a", "run": "echo x >> log; test -e go"}], cwd=tmp_path)
    first = await cc_execute_list(planned)
    (tmp_path / "go").touch()
    second = await cc_execute_list(planned, fresh=True)
    assert (first.status, second.status) == ("failed", "ok")
    again = await cc_execute_list(kept(ListHome(home).find(first.list_id)))
    assert (again.list_id, again.status) == (first.list_id, "ok")
    assert (tmp_path / "log").read_text() == "x\n" * 3


async def test_a_list_of_somebody_else_is_not_done_again_by_its_id(tmp_path: Path, home: StateHome) -> None:
    planned = plan([{"id": "a", "run": "echo x >> log"}], cwd=tmp_path)
    folder = ListHome(home).open(planned.tasks, apart="ann")  # as a server of several people keeps it
    with anyio.fail_after(BUDGET):
        for _ in range(2):
            assert (await cc_execute_list(kept(folder))).list_id == folder.list_id
    assert (tmp_path / "log").read_text() == "x\n"


async def test_a_list_that_is_held_while_a_task_s_hook_is_called_starts_nothing(tmp_path: Path, home: StateHome) -> None:
    planned = plan([{"id": "a", "run": "touch begun"}], cwd=tmp_path)
    folder = ListHome(home).open(planned.tasks)
    called = threading.Event()

    def first(_: object) -> None:
        folder.append(Paused(at=0.0))
        called.set()

    async def hold() -> None:
        await eventually(called.is_set)
        await anyio.sleep(1)  # nothing can be waited for: that nothing happens is what is to be seen
        assert not list(home.runs())
        folder.append(Resumed(at=0.0))

    with anyio.fail_after(BUDGET):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold)
            result = await cc_execute_list(planned, hooks={"before_task": first})
    assert result.ok


@pytest.mark.parametrize(
    ("command", "before", "between"),
    [
        ("edit", [], [Begun(at=0.0, task="a", attempt=1)]),
        (
            "retry",
            [Begun(at=0.0, task="a", attempt=1), Ended(at=0.0, task="a", attempt=1, outcome="failed")],
            [RetryAsked(at=0.0, tasks=("a",))],
        ),
        ("pause", [], [Closed(at=0.0, status=ListStatus.OK)]),
    ],
)
def test_who_asks_a_moment_too_late_is_told_so(
    tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch, *, command: str, before: list[Record], between: list[Record]
) -> None:
    planned = plan([{"id": "a", "run": "true"}], cwd=tmp_path)
    folder = ListHome(home).open(planned.tasks)
    for record in before:
        folder.append(record)
    just_before(monkeypatch, lambda record: isinstance(record, Edited | RetryAsked | Paused), *between)
    with pytest.raises(ControlFailed):
        TaskCommands(folder, planned.tasks, home).obey(command, task="" if command == "pause" else "a", text="echo other")


async def test_a_task_that_is_wanted_again_while_the_last_hook_refuses_is_done_again_and_the_end_is_told_once(
    tmp_path: Path, home: StateHome
) -> None:
    planned = plan([{"id": "a", "run": "echo x >> log"}], cwd=tmp_path)
    folder = ListHome(home).open(planned.tasks)

    def last(_: object) -> None:
        if folder.state().task("a").begun == 1:
            folder.append(RetryAsked(at=0.0, tasks=("a",)))
            raise ValueError

    with anyio.fail_after(BUDGET):
        result = await cc_execute_list(
            planned,
            hooks={"after_list": {"call": last, "on_failure": "stop"}},
            notify=f"command:sh -c 'grep -o list.done >> {tmp_path}/told || echo failed >> {tmp_path}/told'",
            notify_after=0,
        )
    assert (result.status, result.tasks["a"].begun) == ("ok", 2)
    assert (tmp_path / "told").read_text().splitlines() == ["list.done"]


@pytest.mark.parametrize("policy", ["stop", "skip"])
async def test_a_list_whose_runner_died_before_it_could_close_it_is_tried_again_by_who_runs_it_again(
    tmp_path: Path, home: StateHome, policy: str
) -> None:
    planned = plan([{"id": "a", "run": "true"}, {"id": "b", "run": "true", "needs": "a"}], cwd=tmp_path, on_failure=policy)
    folder = ListHome(home).open(planned.tasks)
    folder.append(Begun(at=0.0, task="a", attempt=1))
    folder.append(Ended(at=0.0, task="a", attempt=1, outcome="failed"))
    if policy == "skip":
        folder.append(Skipped(at=0.0, task="b", because="it needs a, which did not end well"))
    with anyio.fail_after(BUDGET):
        result = await cc_execute_list(planned)
    assert (result.status, result.tasks["a"].begun) == ("ok", 2)
