"""The view of a list with 50 live rows that all write as fast as they can: how long the page could not draw, with and without the picture of the needs.

python -m benchmarks.tasks_view [--quick]

The page is a bare one with the real widget on the other side, as in tests/browser/test_tasks_view.py; only the transport is made up.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import machine
from benchmarks.page import WATCH
from benchmarks.place import scratch
from benchmarks.table import QUICK, USUAL, Bench, Row, markdown, percentile

ROWS = 50
LINE = "x" * 5000
GOAL = 100.0  # milliseconds between two frames, 99 of 100; a page that is looked at while it floods


def rows(bench: Bench) -> list[Row]:
    """Frame gaps of a flood."""
    import pytest
    from playwright.sync_api import sync_playwright

    from browser.test_tasks_view import TasksPage, begun
    from cc_executor.model.tasklist import Task, TaskKind, TaskList
    from support.environments import chromium
    from support.lab import CHROMIUM_ARGUMENTS

    seconds = 3.0 if bench.scale.name == "quick" else 10.0
    lists = {
        "nothing needs anything": lambda _: (),
        "a picture of the needs": lambda number: (f"t{number - 3}", f"t{number - 4}") if number > 3 else (),
    }
    found: list[Row] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium()), args=list(CHROMIUM_ARGUMENTS))
        for words, needs in lists.items():
            gaps: list[float] = []
            longest: list[float] = []
            sent: list[float] = []
            for _ in range(bench.scale.rounds):
                TasksPage.tasks = TaskList(
                    tasks=tuple(Task(id=f"t{n}", kind=TaskKind.SHELL, text="true", group="all", needs=needs(n)) for n in range(ROWS)),
                    cwd="/",
                    parallel=64,
                )
                with pytest.MonkeyPatch.context() as patch, TasksPage(browser, patch) as page:
                    page.open()
                    page.add(*(begun(f"t{number}") for number in range(ROWS)))
                    page.settle()
                    page.frames.clear()
                    page.page.evaluate(WATCH)
                    start, count = time.monotonic(), 0
                    while time.monotonic() < start + seconds:
                        count += 1
                        for number in range(ROWS):
                            page.write(f"t{number}", f"{count} {LINE}\nline {count} of task {number}\n")
                        page.turn()
                    measured: list[float] = page.page.evaluate("() => window.gaps")
                    gaps.append(percentile(measured, 0.99))
                    longest.append(max(measured))
                    sent.append(len(page.frames) / seconds)
            found.append(
                Row(
                    f"{ROWS} rows that write 5 KB lines for {seconds:.0f} s, {words} (ms between two frames of the page)",
                    f"p99 {statistics.median(gaps):.0f}, longest {max(longest):.0f}; {statistics.median(sent):.0f} messages a second",
                    f"p99 ≤ {GOAL:.0f}",
                    statistics.median(gaps) <= GOAL,
                    {"p99": gaps, "longest": longest},
                )
            )
        browser.close()
    return found


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="Measure the view of a list that floods.")
    parser.add_argument("--quick", dest="scale", action="store_const", const=QUICK, default=USUAL)
    chosen = parser.parse_args()
    with scratch() as folder:
        found = rows(Bench(chosen.scale, folder))
    print(markdown(machine(), chosen.scale, found))


if __name__ == "__main__":
    main()
