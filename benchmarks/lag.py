"""How long a kernel's loop is held up while runs write."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from benchmarks.place import kernel, remove_runs, run
from benchmarks.table import Bench, Row

TICKER = """
import asyncio, time
import cc_executor
ip = get_ipython()
lags = []
async def ticker():
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.005)
        lags.append((time.perf_counter() - began - 0.005) * 1e3)
ticking = asyncio.get_running_loop().create_task(ticker())
def taken():
    found = sorted(lags)
    lags.clear()
    return [len(found), *(round(found[min(len(found) - 1, int(len(found) * share))], 2) for share in (0.5, 0.99, 1))]
async def gathered(count):
    line = '--agent shell --shell bash'
    return await asyncio.gather(*(ip.run_cell_magic('cc_execute_async', line, script) for _ in range(count)))
"""
# All wait for one gate, so that what is looked at is the draining and not the starting.
SCRIPT = (
    "read x < {gate}; yes 'the quick brown fox jumps over the lazy dog and then sleeps until the next morning' | head -c {size}; sleep 1"
)


def loop_lag(bench: Bench) -> list[Row]:
    """The p99 of a 5 ms ticker in a real kernel: idle, and while runs write as fast as they are read."""
    rows: list[Row] = []
    gate = bench.folder / "gate"
    total = min(bench.scale.drained, 300 * 10**6)
    for count in bench.scale.runs:
        idle: list[float] = []
        busy: list[float] = []
        worst: list[float] = []
        rounds = bench.scale.rounds if count < 100 else 2
        with kernel(bench.folder, TICKER) as shell:
            run(shell, "%%cc_execute --agent shell\ntrue")
            run(shell, f"script = {SCRIPT.format(gate=gate, size=total // count)!r}")
            for _ in range(rounds):
                gate.unlink(missing_ok=True)
                os.mkfifo(gate)
                before = sum(1 for _ in (bench.folder / "state" / "runs").iterdir())
                run(shell, f"runs = asyncio.get_running_loop().create_task(gathered({count}))")
                end = time.monotonic() + 120
                while _started(bench.folder / "state" / "runs") < before + count and time.monotonic() < end:
                    time.sleep(0.1)
                time.sleep(1 + count / 50)  # shells reach the gate
                shell.value("taken()")
                run(shell, "await asyncio.sleep(2)")
                idle.append(json.loads(shell.value("taken()"))[2])
                os.close(os.open(gate, os.O_WRONLY))
                run(shell, "await asyncio.sleep(0.8)")  # the scripts wait a second before they end: the ends are not what is looked at
                _, _, p99, most = json.loads(shell.value("taken()"))
                busy.append(p99)
                worst.append(most)
                run(shell, "done = await runs\nassert all(each.status == 'ok' for each in done)")
        remove_runs(bench.folder)
        more = [b - a for a, b in zip(idle, busy, strict=True)]
        middle = sorted(more)[len(more) // 2]
        rows.append(
            Row(
                f"the kernel's loop while {count} run{'s write' if count > 1 else ' writes'} as fast as possible: p99 of the lag beyond idle (ms)",
                f"{middle:.1f} ({min(more):.1f}–{max(more):.1f}); idle p99 {sorted(idle)[len(idle) // 2]:.1f}, at most {max(worst):.0f}",
                "≤ 5",
                middle <= 5,
                {"idle": idle, "busy": busy, "worst": worst},
                limit="every run that has something takes a piece in each round of the loop; it would take turns, one piece a round for all of them",
            )
        )
    return rows


def _started(runs: Path) -> int:
    return sum((path / "control.jsonl").exists() for path in runs.iterdir())
