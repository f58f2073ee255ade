"""What a list costs beyond its runs: milliseconds per task for Python and shell steps, and whether that grows with the length of the list.

python -m benchmarks.tasklist            some minutes: 1,000 shell steps
python -m benchmarks.tasklist --quick    100 shell steps
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import machine
from benchmarks.place import remove_runs, scratch
from benchmarks.table import QUICK, USUAL, Bench, Row, markdown, spread
from cc_executor.api import cc_execute_sync
from cc_executor.model.listrecord import Begun, Ended, ListState, advance
from cc_executor.model.tasklist import Task, TaskKind, TaskList
from cc_executor.policy.schedule import Start, due
from cc_executor.tasks import cc_execute_task_list

GOAL = 20.0  # milliseconds of a task beyond its run
SIZES = (100, 300, 1000)


def nothing() -> None:
    """A step that takes no time."""


def chain(count: int, work: dict[str, Any]) -> list[dict[str, Any]]:
    """So many steps, each needing the one before."""
    return [{"id": f"t{number}", **work, **({"needs": f"t{number - 1}"} if number else {})} for number in range(count)]


def took(items: list[dict[str, Any]]) -> tuple[float, float]:
    """Milliseconds of a list for each task, by the clock and of this process's CPU."""
    began, cpu = time.monotonic(), time.process_time()
    result = cc_execute_task_list(items, fresh=True)
    assert result.ok, result.summary
    return (time.monotonic() - began) / len(items) * 1e3, (time.process_time() - cpu) / len(items) * 1e3


def calls(bench: Bench) -> list[Row]:
    """Python steps: all of it is the list's own."""
    found: dict[int, list[tuple[float, float]]] = {size: [] for size in SIZES}
    for _ in range(2 if bench.scale.name == "quick" else 3):
        for size, times in found.items():
            times.append(took(chain(size, {"call": nothing})))
    growth = median([cpu for _, cpu in found[SIZES[-1]]]) / median([cpu for _, cpu in found[SIZES[0]]])
    rows = [
        Row(
            f"a list of {size:,} Python steps, each needing the one before (ms a task)",
            f"{spread([clock for clock, _ in times], '.1f')}; CPU {spread([cpu for _, cpu in times], '.1f')}",
            f"≤ {GOAL:.0f}",
            median([clock for clock, _ in times]) <= GOAL,
            {"clock": [clock for clock, _ in times], "cpu": [cpu for _, cpu in times]},
        )
        for size, times in found.items()
    ]
    return [
        *rows,
        Row(f"CPU of a task in a list of {SIZES[-1]:,}, in one of {SIZES[0]} = 1", f"{growth:.1f}", "≤ 3", growth <= 3),
    ]


def commands(bench: Bench) -> list[Row]:
    """Shell steps, against the same runs one after the other without a list."""
    count = 30

    def alone() -> float:
        began = time.monotonic()
        for _ in range(count):  # a list looks at the folder before and after each step, to undo it
            assert cc_execute_sync("true", agent="shell", shell="bash", undo=True).ok
        return (time.monotonic() - began) / count * 1e3

    def listed() -> float:
        return took(chain(count, {"run": "true"}))[0]

    contestants: dict[str, Callable[[], float]] = {"alone": alone, "list": listed}
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(bench.scale.rounds):
        for name, measure in contestants.items():
            found[name].append(measure())
        remove_runs(bench.folder)
    more = [a - b for a, b in zip(found["list"], found["alone"], strict=True)]
    rows = [
        Row(
            "a shell step in a list beyond the same run without one (ms)",
            f"{spread(more, '.1f')}; the run alone {spread(found['alone'], '.0f')}",
            f"≤ {GOAL:.0f}",
            median(more) <= GOAL,
            found,
        )
    ]
    many = 100 if bench.scale.name == "quick" else 1000
    clock, cpu = took(chain(many, {"run": "true"}))
    remove_runs(bench.folder)
    rows.append(
        Row(
            f"a list of {many:,} shell steps (ms a task)",
            f"{clock:.0f}, {clock * many / 1e3:.0f} s in all; CPU {cpu:.1f}",
            samples={"clock": [clock]},
        )
    )
    return rows


def decisions(_: Bench) -> list[Row]:
    """Deciding and folding alone, without disk and loop."""
    rows: list[Row] = []
    for size in SIZES:
        tasks = TaskList(
            tasks=tuple(
                Task(id=f"t{number}", kind=TaskKind.SHELL, text="true", needs=(f"t{number - 1}",) if number else ())
                for number in range(size)
            ),
            cwd="/",
        )
        state, began = ListState(), time.process_time()
        while actions := due(tasks, state, now=0.0):
            for action in actions:
                if not isinstance(action, Start):
                    break
                state = advance(state, Begun(at=0, task=action.task, attempt=1))
                state = advance(state, Ended(at=0, task=action.task, attempt=1, outcome="ok"))
            else:
                continue
            break
        each = (time.process_time() - began) / size * 1e3
        rows.append(Row(f"deciding and folding, {size:,} tasks (ms of CPU a task)", f"{each:.2f}", samples={"cpu": [each]}))
    return rows


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="Measure what a list costs beyond its runs.")
    parser.add_argument("--quick", dest="scale", action="store_const", const=QUICK, default=USUAL)
    parser.add_argument("--only", action="append", choices=["calls", "commands", "decisions"])
    chosen = parser.parse_args()
    suites = {"calls": calls, "commands": commands, "decisions": decisions}
    rows: list[Row] = []
    for name in chosen.only or suites:
        with scratch() as folder, contextlib.chdir(folder / "home"):  # an empty folder: looking at it costs what it holds
            rows += suites[name](Bench(chosen.scale, folder))
    print(markdown(machine(), chosen.scale, rows))


if __name__ == "__main__":
    main()
