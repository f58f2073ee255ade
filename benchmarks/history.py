"""The history of 100,000 runs: how long a question takes, a run's row, an estimate, and making it anew.

python -m benchmarks.history            some two minutes
python -m benchmarks.history --quick    10,000 runs
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import machine
from benchmarks.place import scratch
from benchmarks.table import QUICK, USUAL, Bench, Row, markdown, percentile, spread
from cc_executor.api import cc_execute_sync, make_request
from cc_executor.policy.kind import CATEGORIES, COMPLEXITIES
from cc_executor.policy.redact import Redactor
from cc_executor.runtime.forecast import load_now, predict
from cc_executor.runtime.history import facts_of, rebuild, remember
from cc_executor.runtime.past import history as past
from cc_executor.store import history as store
from cc_executor.store.history import HistoryIndex
from cc_executor.store.historyrow import Filters, HistoryRow
from cc_executor.store.home import StateHome

GOAL = 5.0  # milliseconds
ROUNDS = 50


def _rows(count: int) -> list[HistoryRow]:
    dice = random.Random(1)
    return [
        HistoryRow(
            run_id=f"{1_700_000_000_000 + number * 60_000:012x}{number:014x}",
            started=1_700_000_000 + number * 60.0,
            agent="shell" if dice.random() < 0.3 else "claude",
            model=dice.choice(["claude-opus-4-8", "claude-sonnet-4-6"]),
            cwd=f"/home/me/project-{dice.randrange(40)}",
            label=f"task-{dice.randrange(500)}" if dice.random() < 0.5 else "",
            prompt_digest=f"{dice.randrange(count // 10):064x}",
            prompt_line="Look at what is done already, and complete it, step by step, with tests."[: dice.randrange(20, 72)],
            prompt_chars=dice.randrange(20, 5000),
            category=dice.choice(CATEGORIES),
            complexity=dice.choice(COMPLEXITIES),
            outcome=dice.choices(["ok", "failed", "timeout", "cancelled"], [80, 12, 3, 5])[0],
            standing="claimed",
            active=dice.lognormvariate(3, 1),
            cost=dice.random(),
            input_tokens=dice.randrange(10**6),
            output_tokens=dice.randrange(10**5),
            load=dice.random(),
        )
        for number in range(count)
    ]


def _milliseconds(work: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    work()
    found: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        found.append((time.perf_counter() - began) * 1000)
    return found


def history(bench: Bench) -> list[Row]:
    """Questions to a history of 100,000 runs (`--quick`: 10,000)."""
    count = 10_000 if bench.scale.name == "quick" else 100_000
    home = StateHome(bench.folder / "state")
    home.prepare()
    index = HistoryIndex(home.root)
    rows = _rows(count)
    began = time.perf_counter()
    for start in range(0, count, 5000):
        with index.writing() as connection, store.transaction(connection):
            store.put(connection, rows[start : start + 5000])
    filled = time.perf_counter() - began
    for row in rows:
        (home.runs_path / row.run_id).mkdir()
    now = time.time() - 60
    os.utime(home.runs_path, (now, now))  # as an hour later
    some = rows[count // 2]

    def ask(**filters: object) -> Callable[[], object]:
        def work() -> object:
            with index.reading() as connection:
                return store.query(connection, Filters(**filters))  # pyright: ignore[reportArgumentType] - by name

        return work

    questions = {
        "the newest 20": ask(limit=20),
        "the newest 20 that failed": ask(outcome="failed", limit=20),
        "the newest 20 in one folder": ask(cwd=some.cwd, limit=20),
        "all of one label": ask(label="task-7"),
        "all of one prompt": ask(prompt_digest=some.prompt_digest),
        "one day": ask(since=some.started, until=some.started + 86_400, limit=20),
        "20 whose text holds a word that few have": ask(text="with tests", limit=20),
    }
    found = {name: _milliseconds(work) for name, work in questions.items()}
    slowest = max(statistics.median(values) for values in found.values())
    out = [
        Row(
            f"{count:,} runs: a question, connection included (ms)",
            "; ".join(f"{name} {spread(values)}" for name, values in found.items()),
            f"≤ {GOAL:.0f} (median)",
            slowest <= GOAL,
            found,
        )
    ]
    whole = _milliseconds(lambda: past(state=home.root, limit=20))
    out.append(
        Row(
            "the same through `cc_executor.history(limit=20)`, which also looks for what is missing (ms)",
            spread(whole),
            samples={"whole": whole},
        )
    )
    request = make_request("Look at what is done already.", cwd=str(bench.folder))
    estimates = _milliseconds(lambda: predict(home.root, request, load=load_now()))
    out.append(
        Row(
            "an estimate, made at each start of a run (ms)",
            f"{spread(estimates)}, p90 {percentile(estimates, 0.9):.1f}",
            samples={"estimate": estimates},
        )
    )
    out.append(
        Row(
            "rows are written (per second, in transactions of 5,000)",
            f"{count / filled:,.0f}; the file has {index.path.stat().st_size / 1e6:.0f} MB",
        )
    )
    shutil.rmtree(home.root)
    out += _real(bench, home)
    return out


def _real(bench: Bench, home: StateHome) -> list[Row]:
    """With the folders of real runs."""
    receipt = cc_execute_sync("echo done", agent="shell", shell="bash", cwd=str(bench.folder)).receipt
    folder = home.folder(receipt.run_id)
    row = _milliseconds(lambda: remember(folder, Redactor()))
    facts = _milliseconds(lambda: facts_of(folder, Redactor()))
    copies = 200 if bench.scale.name == "quick" else 2000
    for number in range(copies):
        shutil.copytree(folder.path, home.runs_path / f"{int(receipt.run_id[:12], 16) + 1 + number:012x}{number:014x}")
    began = time.perf_counter()
    made, _ = rebuild(home, environ=os.environ)
    took = time.perf_counter() - began
    return [
        Row(
            "a sealed run's row is kept (ms, at the end of each run)",
            f"{spread(row)}; {statistics.median(facts):.1f} of it reads the run's folder",
            samples={"row": row},
        ),
        Row("`history rebuild` (runs per second)", f"{made / took:,.0f}"),
    ]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="Measure the history.")
    parser.add_argument("--quick", action="store_const", const=QUICK, default=USUAL, dest="scale", help="10,000 runs")
    scale = parser.parse_args().scale
    with scratch() as folder:
        rows = history(Bench(scale, folder))
    print(markdown(machine(), scale, rows))


if __name__ == "__main__":
    main()
