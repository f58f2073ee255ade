"""How long a kernel's loop is held up while runs write, and how much of that is its own work."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from statistics import median

from benchmarks.place import Kernel, kernel, producer, remove_runs, run, shell_words
from benchmarks.table import Bench, Row, spread

# The second word of schedstat: nanoseconds that the thread could have run and no core was free for it. What is left may still be a wait, for another thread
# that holds the interpreter and has no core itself: so the CPU of each round of the loop is taken, too, which is what its own work can hold up at most.
TICKER = """
import asyncio, os, time
import cc_executor
ip = get_ipython()
lags, own, rounds = [], [], []
queue = os.open('/proc/self/schedstat', os.O_RDONLY)
def waited():
    return int(os.pread(queue, 100, 0).split()[1]) / 1e6
async def ticker():
    while True:
        began, before = time.perf_counter(), waited()
        await asyncio.sleep(0.005)
        lag = (time.perf_counter() - began - 0.005) * 1e3
        lags.append(lag)
        own.append(lag - (waited() - before))
loop = asyncio.get_running_loop()
ticking = loop.create_task(ticker())
plain = loop._run_once
def measured():
    used = time.thread_time()
    plain()
    rounds.append((time.thread_time() - used) * 1e3)
loop._run_once = measured
def p99(found):
    return round(sorted(found)[min(len(found) - 1, int(len(found) * 0.99))], 2)
def taken():
    found = [len(lags), p99(lags), p99(own), round(max(lags), 2), p99(rounds), round(max(rounds), 2)]
    for each in (lags, own, rounds):
        each.clear()
    return found
async def gathered(count):
    line = '--agent shell --shell bash'
    return await asyncio.gather(*(ip.run_cell_magic('cc_execute_async', line, script) for _ in range(count)))
"""
# All wait for one gate, so that what is looked at is the draining and not the starting; nor the ending.
FULL_RATE = (
    "read x < {gate}; yes 'the quick brown fox jumps over the lazy dog and then sleeps until the next morning' | head -c {size}; sleep 1"
)
AGENT_RATE = 26_000  # bytes a second: a talkative agent with partial messages writes some 100 lines of 260 bytes
SECONDS = 4

LIMIT = (
    "what is counted is what the kernel's own work holds up, and what its threads wait for each other; programs and supervisors that take all cores prolong "
    "that, which only a lower priority of agents would change"
)


def loop_lag(bench: Bench) -> list[Row]:
    """The p99 of a 5 ms ticker in a real kernel: idle, and while runs write, as fast as they are read and as fast as agents write."""
    rows: list[Row] = []
    gate = bench.folder / "gate"
    total = min(bench.scale.drained, 300 * 10**6)
    for count in bench.scale.runs:
        full = FULL_RATE.format(gate=gate, size=total // count)
        rows.append(_row(bench, count, f"{count} run{'s write' if count > 1 else ' writes'} as fast as possible", full, 0.8))
    count = bench.scale.runs[-1]
    paced = shell_words(producer(AGENT_RATE * SECONDS, bench.folder / "told", AGENT_RATE, gate=gate)) + "; sleep 1"
    rows.append(_row(bench, count, f"{count} runs write as talkative agents do ({AGENT_RATE // 1000} kB/s each)", paced, SECONDS - 1))
    return rows


def _row(bench: Bench, count: int, words: str, script: str, seconds: float) -> Row:
    gate, runs = bench.folder / "gate", bench.folder / "state" / "runs"
    found: dict[str, list[float]] = {name: [] for name in ("idle", "busy", "own", "worst", "ticks", "round", "longest")}
    with kernel(bench.folder, TICKER) as shell:
        run(shell, "%%cc_execute --agent shell\ntrue")
        run(shell, f"script = {script!r}")
        for _ in range(bench.scale.rounds if count < 100 else 3):
            gate.unlink(missing_ok=True)
            os.mkfifo(gate)
            before = sum(1 for _ in runs.iterdir())
            run(shell, f"runs = asyncio.get_running_loop().create_task(gathered({count}))")
            end = time.monotonic() + 120
            while _started(runs) < before + count and time.monotonic() < end:
                time.sleep(0.1)  # the runs of another process have no event here
            time.sleep(1 + count / 25)  # until all wait at the gate: of a FIFO one can learn that somebody reads it, not how many do
            found["idle"].append(_looked(shell, 2)[1])
            os.close(os.open(gate, os.O_WRONLY))
            for name, value in zip(("ticks", "busy", "own", "worst", "round", "longest"), _looked(shell, seconds), strict=True):
                found[name].append(value)
            run(shell, "done = await runs\nassert all(each.status == 'ok' for each in done)")
    remove_runs(bench.folder)
    idle = median(found["idle"])
    more = [max(0.0, b - a) for a, b in zip(found["idle"], found["own"], strict=True)]
    whole = f"CPU of one round of it: p99 {median(found['round']):.1f}, at most {max(found['longest']):.1f}; "
    whole += f"with the wait for a free core {median(found['busy']):.1f}, at most {max(found['worst']):.0f}; idle p99 {idle:.1f}"
    return Row(
        f"the kernel's loop while {words}: p99 of the lag beyond idle (ms)",
        f"{spread(more, '.1f')}; {whole}",
        "≤ 5",
        median(more) <= 5,
        found,
        limit=LIMIT,
    )


def _looked(shell: Kernel, seconds: float) -> list[float]:
    """What the ticker finds while a cell waits; what the kernel does to begin and end that cell is left out."""
    run(shell, f"await asyncio.sleep(0.1); taken(); await asyncio.sleep({seconds}); found = taken()")
    return json.loads(shell.value("found"))


def _started(runs: Path) -> int:
    return sum((path / "control.jsonl").exists() for path in runs.iterdir())
