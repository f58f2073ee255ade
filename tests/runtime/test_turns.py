"""Many who follow runs on one loop: between two rounds of it there is one slice of work, however many they are. Counts rounds; measures no time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise
from os import environ
from pathlib import Path

import anyio
import pytest

from cc_executor.api import make_request
from cc_executor.runtime.reader import PIECE
from cc_executor.runtime.run import Run
from cc_executor.runtime.turns import Turns
from cc_executor.store.home import StateHome

RUNS = 8
PIECES = 20  # of each


class Rounds:
    """How often the loop has gone round."""

    def __init__(self) -> None:
        self.now = 0
        self._handle: asyncio.Handle | None = None

    def _next(self) -> None:
        self.now += 1
        self._handle = asyncio.get_running_loop().call_soon(self._next)

    @asynccontextmanager
    async def counted(self) -> AsyncIterator[None]:
        self._next()
        try:
            yield
        finally:
            assert self._handle is not None
            self._handle.cancel()


async def test_in_one_round_of_the_loop_one_run_is_read_and_all_get_on_alike(tmp_path: Path, state_folder: Path) -> None:
    home = StateHome(state_folder)
    source = tmp_path / "source"
    source.write_bytes(b"the quick brown fox\n" * (PIECES * PIECE // 20))
    runs = [await Run.start(make_request(f"cat {source}", agent="shell"), home=home, environ=environ) for _ in range(RUNS)]
    for run in runs:
        assert (await run.finish()).outcome.ok
    rounds = Rounds()
    seen: dict[int, set[int]] = {}  # by round: the runs that were read in it
    read: list[int] = []  # whose turn it was

    async def follow(place: int) -> None:
        async with aclosing(runs[place].follow()) as batches:
            async for _ in batches:
                seen.setdefault(rounds.now, set()).add(place)
                if read[-1:] != [place]:
                    read.append(place)

    async with rounds.counted(), anyio.create_task_group() as tasks:
        for place in range(RUNS):
            tasks.start_soon(follow, place)
    assert {place for places in seen.values() for place in places} == set(range(RUNS))
    assert {len(places) for places in seen.values()} == {1}
    for place in range(RUNS):  # while it is not its turn again, nobody has two
        turns = [at for at, who in enumerate(read) if who == place]
        for before, after in pairwise(turns):
            assert max(Counter(read[before + 1 : after]).values(), default=0) <= 1


@pytest.mark.parametrize("way", ["rest", "tick"])
async def test_of_a_crowd_that_waits_one_is_woken_in_a_round_and_all_are_served_in_turn(way: str) -> None:
    turns, rounds = Turns(), Rounds()
    woken: list[tuple[int, int]] = []  # round, who

    async def wait(who: int) -> None:
        for _ in range(3):
            await (turns.rest() if way == "rest" else turns.tick(0.0))
            woken.append((rounds.now, who))

    async with rounds.counted(), anyio.create_task_group() as tasks:
        for who in range(50):
            tasks.start_soon(wait, who)
    assert len({at for at, _ in woken}) == len(woken) == 150
    assert [who for _, who in woken] == [*range(50)] * 3
