"""Whoever runs a list is killed at every kind of point of the list's journal, again and again; the list ends as if nothing had happened.

`CC_EXECUTOR_TEST_LONG=1` kills a thousand times. A seed gives the same points again; how the machine mixes them with what runs it does not decide.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio
import pytest

from cc_executor.model.listrecord import Begun, Closed, Ended, ListState, advance_all
from cc_executor.store.home import StateHome
from cc_executor.store.tasklists import ListHome
from cc_executor.taskplan import plan
from cc_executor.tasks import cc_execute_list

LONG: Final = os.environ.get("CC_EXECUTOR_TEST_LONG") == "1"
KILLS: Final = 1000 if LONG else 12
OF_ONE_LIST: Final = 4
SIDE_BY_SIDE: Final = 3
WAYS: Final = ("before", "torn", "after", "later")

# Dies at its n-th record: before it is written, in the midst of it, right after it, or a moment later.
RUNNER: Final = """
import json, os, signal, sys, threading
import msgspec
from cc_executor.store.tasklists import JOURNAL, ListFolder
from cc_executor.tasks import cc_execute_task_list

tasks, folder, left, way, delay = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], float(sys.argv[5])
append = ListFolder._append

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def append_or_die(self, record, *, after):
    global left
    left -= 1
    if left == 0 and way == "before":
        die()
    if left == 0 and way == "torn":
        line = msgspec.json.encode(record)
        with open(self.path / JOURNAL, "ab", buffering=0) as file:
            file.write(line[: len(line) // 2])
        die()
    if left == 0 and way == "later":
        threading.Timer(delay, die).start()
    end = append(self, record, after=after)
    if left == 0 and way == "after":
        die()
    return end

ListFolder._append = append_or_die
print(cc_execute_task_list(tasks, cwd=folder).status)
"""


def task(number: int) -> dict[str, object]:
    return {"id": f"t{number}", "run": f"echo t{number} >> begun; sleep 0.05; echo {number}", "group": "g" if number in {2, 3} else ""}


TASKS: Final = [task(number) for number in range(1, 6)]


async def one_list(folder: Path, home: StateHome, seed: int, dealt: Counter[str]) -> None:
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be kept secret
    for _ in range(OF_ONE_LIST):
        way = chance.choice(WAYS)
        argv = [
            sys.executable,
            "-X",
            "faulthandler",
            "-c",
            RUNNER,
            json.dumps(TASKS),
            str(folder),
            str(chance.randint(1, 8)),
            way,
            str(chance.uniform(0, 0.2)),
        ]
        process = await anyio.run_process(argv, check=False, stderr=subprocess.PIPE)
        if process.returncode != -signal.SIGKILL and process.stdout != b"ok\n":
            raise RuntimeError(process.stderr.decode())
        dealt[way if process.returncode else "none: the list had ended"] += 1
    result = await cc_execute_list(TASKS, cwd=folder)
    assert result.ok, result
    assert sorted((folder / "begun").read_text().split()) == [f"t{number}" for number in range(1, 6)], "each task ran once"
    records = ListHome(home).open(plan(TASKS, cwd=folder).tasks).read()[0]
    begun = [(record.task, record.attempt) for record in records if isinstance(record, Begun)]
    assert len(begun) == len(set(begun)), "each attempt was begun once"
    assert {(record.task, record.attempt) for record in records if isinstance(record, Ended)} == set(begun)
    assert isinstance(records[-1], Closed)
    assert dict(advance_all(ListState(), records).tasks) == result.tasks, "the journal tells the same"


@pytest.mark.row(
    "faults", "whoever runs a task list killed at points of its journal", "each task runs once, each attempt begins once, the list ends"
)
@pytest.mark.timeout(5 * KILLS if LONG else 120)
async def test_wherever_its_runner_is_killed_a_list_ends_as_if_nothing_had_happened(
    tmp_path: Path, state_folder: Path, saw: Callable[[str], None]
) -> None:
    places = anyio.Semaphore(SIDE_BY_SIDE)
    dealt: Counter[str] = Counter()
    failures: dict[int, str] = {}

    async def one(seed: int) -> None:
        async with places:
            folder = tmp_path / str(seed)
            folder.mkdir()
            try:
                with anyio.fail_after(300 if LONG else 100):
                    await one_list(folder, StateHome(state_folder), seed, dealt)
            except Exception as problem:  # noqa: BLE001 - told below, with the seed
                failures[seed] = f"{type(problem).__name__}: {problem}"

    async with anyio.create_task_group() as lists:
        for seed in range(KILLS // OF_ONE_LIST):
            lists.start_soon(one, seed)
    assert not failures, "\n".join(f"seed {seed}: {problem}" for seed, problem in failures.items())
    saw(f"{KILLS // OF_ONE_LIST} lists, {', '.join(f'{count} {way}' for way, count in sorted(dealt.items()))}")
