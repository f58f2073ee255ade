"""The queue by itself: what two servers of one state folder see of it, and what is kept of those that were never started."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import psutil
import pytest

from cc_executor.api import make_request
from cc_executor.model.request import RunRequest
from cc_executor.runtime.telemetry import carried, within
from cc_executor.server import queue as room
from cc_executor.server.owners import Owners
from cc_executor.server.queue import Queue, Waiting
from cc_executor.store.home import StateHome, new_run_id
from cc_executor.store.lock import locked
from support.runs import eventually
from support.spans import recorded

TRACE = {"TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


@pytest.fixture(autouse=True)
def prepared(home: StateHome) -> None:
    home.prepare()


@pytest.fixture
def request_(tmp_path: Path) -> RunRequest:
    return make_request("true", agent="shell", cwd=tmp_path)


def queue_of(home: StateHome, most: int = 9) -> Queue:
    """As a server that has just come up has it."""
    return Queue(home, Owners(home.root, by_name=True, server_owner="olga"), most)


async def added(queue: Queue, request: RunRequest, count: int, who: str = "ada") -> list[Waiting]:
    return [await queue.add(new_run_id(time.time() + number), request, who) for number in range(count)]


async def test_what_another_server_has_started_or_withdrawn_is_not_wanted_here(home: StateHome, request_: RunRequest) -> None:
    mine, other = queue_of(home), queue_of(home)
    started, withdrawn, waits = await added(mine, request_, 3)
    assert other.started(started)
    assert other.withdraw(withdrawn, status="cancelled", why="not today")
    assert [mine.is_wanted(entry) for entry in (started, withdrawn, waits)] == [False, False, True]
    assert not mine.withdraw(withdrawn, status="refused", why="too late"), "what was said first stands"
    found = mine.find(withdrawn.run_id)
    assert found is not None
    assert (found.status, found.why, found.owner) == ("cancelled", "not today", "ada")
    assert mine.find(started.run_id) is None


async def test_a_server_that_comes_up_goes_on_with_what_was_promised(home: StateHome, request_: RunRequest) -> None:
    with recorded(), within(TRACE):
        before = await added(queue_of(home), request_, 2)
        assert carried({})
    after = queue_of(home)
    assert [(each.run_id, each.owner, dict(each.trace)) for each in after.entries()] == [
        (each.run_id, "ada", dict(each.trace)) for each in before
    ]
    assert TRACE["TRACEPARENT"][:35] in str(before[0].trace), "it is part of the trace in which it was asked for"
    assert after.request(before[0]) == request_
    (third,) = await added(after, request_, 1)
    assert [after.place(each) for each in (*before, third)] == [1, 2, 3]


async def test_a_request_that_is_called_off_while_it_is_put_in_line_does_not_wait_there(home: StateHome, request_: RunRequest) -> None:
    queue, lock = queue_of(home), home.root / "server" / "queue.lock"

    def at_the_lock() -> int:
        return sum(each.path == str(lock) for each in psutil.Process().open_files())

    async with asyncio.TaskGroup() as tasks:
        with locked(lock):  # another server adds one at this moment
            adding = tasks.create_task(queue.add(new_run_id(time.time()), request_, "ada"))
            await eventually(lambda: at_the_lock() > 1)
            adding.cancel()
            await asyncio.sleep(0)
    assert adding.cancelled()
    await eventually(lambda: at_the_lock() == 0)
    assert queue.entries() == []
    assert [each.status for each in queue.over()] in ([], ["cancelled"])


async def test_what_was_begun_while_it_was_withdrawn_is_none_of_those_that_were_never_started(
    home: StateHome, request_: RunRequest
) -> None:
    queue = queue_of(home)
    (entry,) = await added(queue, request_, 1)
    home.create(entry.run_id)
    assert queue.withdraw(entry, status="cancelled", why="x")
    assert queue.over() == []


async def test_of_those_that_were_never_started_the_newest_are_kept(
    home: StateHome, request_: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "ENDED", 3)
    queue = queue_of(home)
    entries = await added(queue, request_, 5)
    for entry in reversed(entries):
        assert queue.withdraw(entry, status="cancelled", why="x")
    assert sorted(each.run_id for each in queue.over()) == [each.run_id for each in entries[2:]]
