"""How long a list has lasted, for whoever is told of long ones alone: its newest round, with what it was held for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_executor.model.listrecord import Begun, Closed, ListStatus, Paused, Record, Resumed, RetryAsked
from cc_executor.model.notify import Notify, notify_from
from cc_executor.runtime.listhooks import keep_notify
from cc_executor.runtime.notices import tell_of_list, wish_for_runs
from cc_executor.store.home import StateHome
from cc_executor.store.place import WISH
from cc_executor.store.tasklists import ListFolder, ListHome
from policy.listplay import listed, task
from support.receiver import Receiver, receiving

OPEN = [Begun(at=1000.0, task="a", attempt=1), Begun(at=1050.0, task="b", attempt=1)]
FIRST = [*OPEN, Closed(at=1100.0, status=ListStatus.FAILED)]
SECOND = [Begun(at=2000.0, task="b", attempt=2), Begun(at=2008.0, task="c", attempt=1), Closed(at=2010.0, status=ListStatus.OK)]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def folder_with(home: StateHome, records: list[Record], wish: Notify) -> ListFolder:
    folder = ListHome(home).open(listed(task("a"), task("b"), task("c")))
    for record in records:
        folder.append(record)
    keep_notify(folder, wish)
    return folder


@pytest.mark.parametrize(
    ("records", "seconds"),
    [
        (FIRST, 100.0),
        ([*FIRST, RetryAsked(at=1900.0, tasks=("b",)), *SECOND], 10.0),
        ([*FIRST, Resumed(at=1900.0), *SECOND], 10.0),
        ([*OPEN, Paused(at=1060.0), Resumed(at=1500.0), RetryAsked(at=1500.0, tasks=("a",)), *SECOND], 1010.0),
        ([Closed(at=1100.0, status=ListStatus.FAILED)], 0.0),
    ],
)
@pytest.mark.parametrize("is_long", [True, False])
async def test_the_end_of_a_list_is_told_when_its_newest_round_was_long(
    home: StateHome, receiver: Receiver, records: list[Record], seconds: float, is_long: bool
) -> None:
    receiver.received.clear()
    folder = folder_with(home, records, notify_from([receiver.url()], after=seconds + (0 if is_long else 0.001), environ={}))
    for _ in range(2):  # by two who saw the end
        await tell_of_list(folder, folder.state(), "n", environ=os.environ)
    assert [each.data["seconds"] for each in receiver.received] == ([seconds] if is_long else [])
    assert not (folder.path / WISH).exists()


async def test_of_a_list_that_goes_on_no_end_is_told_and_its_runs_know_since_when(
    home: StateHome, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.received.clear()
    folder = folder_with(
        home, [*FIRST, RetryAsked(at=1900.0, tasks=("b",)), *SECOND[:2]], notify_from([receiver.url()], after=0, environ={})
    )
    await tell_of_list(folder, folder.state(), "n", environ=os.environ)
    assert receiver.received == []
    wish = wish_for_runs(folder, "n")
    assert wish is not None
    assert (wish.since, wish.list_id, wish.name, [on.value for on in wish.on]) == (2000.0, folder.list_id, "n", ["input"])
    keep_notify(folder, notify_from([receiver.url()], on=["done"], environ={}))
    assert wish_for_runs(folder, "n") is None
