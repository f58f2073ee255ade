"""Floods through a real kernel: its memory, the shim's, the child that is never held up, and many runs at once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from cc_executor.shim import records
from floods.conftest import PLAIN, Writer
from floods.memory import begin, peak
from floods.sizes import BUDGET, FLOOD
from support.kernel import Kernel
from support.leaks import await_none
from support.looks import eventually
from support.runs import run_folders

pytestmark = pytest.mark.timeout(BUDGET + 60)

GROWTH: Final = 32 * 2**20  # bytes that a flood of any size may cost the kernel, and the shim
Saw = Callable[[str], None]


def newest(state: Path) -> Path:
    """The folder of the run that was started last."""
    return run_folders(state)[-1]


def control_records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / records.CONTROL).read_text("utf-8").splitlines()]


def shim_of(folder: Path) -> int:
    (started,) = [record for record in control_records(folder) if record["kind"] == "started"]
    return int(started["shim_pid"])


@pytest.mark.row("floods", "10 GB (CI: 300 MB)", "kernel and shim grow by at most 32 MiB; the journal has every byte")
def test_a_flood_costs_a_bounded_memory_and_is_whole_in_the_journal(
    kernel: Kernel, writer: Writer, tmp_path: Path, state_folder: Path, saw: Saw
) -> None:
    os.mkfifo(tmp_path / "gate")
    before = begin(kernel.pid)
    known = len(run_folders(state_folder))
    cell = kernel.send(f"%%cc_execute --agent shell --shell bash -o r\n{writer.command(FLOOD)}\necho at the gate >&2\nread x < gate\ntrue")
    eventually(lambda: len(run_folders(state_folder)) > known, within=BUDGET, what="the run begins")
    folder = newest(state_folder)
    eventually((folder / records.CONTROL).exists, within=BUDGET, what="the shim writes")
    shim = eventually(
        lambda: any(r["kind"] == "started" for r in control_records(folder)) and shim_of(folder), within=BUDGET, what="it runs"
    )
    shim_before = begin(shim)
    # The shim lives until the gate opens, so what it has had at most can still be read.
    eventually(lambda: (folder / records.STDERR).stat().st_size, within=BUDGET, what="everything is written")
    shim_growth = peak(shim) - shim_before
    with (tmp_path / "gate").open("w"):
        pass
    answer = kernel.wait(cell, within=BUDGET)
    assert answer.status == "ok", answer.traceback
    growth = peak(kernel.pid) - before
    told = writer.told
    saw(f"kernel +{growth / 2**20:.1f} MiB, shim +{shim_growth / 2**20:.1f} MiB, {FLOOD / told['seconds'] / 1e6:.0f} MB/s")
    assert (folder / records.STDOUT).stat().st_size == FLOOD
    assert expected_digest(FLOOD) == digest(folder / records.STDOUT)
    assert shim_growth <= GROWTH
    assert growth <= GROWTH
    assert len(answer.messages) < 100 + told["seconds"] * 100, "frames are paced, whatever comes"
    (folder / records.STDOUT).unlink()


def expected_digest(size: int) -> str:
    """Of what the writer writes: whole lines, the last one cut."""
    found = hashlib.sha256()
    block = PLAIN * 10_000
    for _ in range(size // len(block)):
        found.update(block)
    found.update(block[: size % len(block)])
    return found.hexdigest()


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.row("floods", "one line of 100 MB", "whole in the journal; kernel grows by at most 32 MiB")
def test_a_line_of_a_hundred_megabytes_is_a_flood_like_any_other(kernel: Kernel, writer: Writer, state_folder: Path, saw: Saw) -> None:
    before = begin(kernel.pid)
    answer = kernel.run(f"%%cc_execute --agent shell --shell bash -o r\n{writer.command(10**8, line=b'x' * 100)}", within=BUDGET)
    assert answer.status == "ok", answer.traceback
    growth = peak(kernel.pid) - before
    saw(f"kernel +{growth / 2**20:.1f} MiB, {len(json.dumps(answer.displays)):,} bytes in the notebook")
    assert (newest(state_folder) / records.STDOUT).stat().st_size == 10**8
    assert growth <= GROWTH
    assert len(json.dumps(answer.displays)) <= 256 * 1024


@pytest.mark.row("floods", "`yes`, without an end", "other cells answer, Cancel ends it, nothing is left")
def test_an_endless_flood_is_cancelled(kernel: Kernel, tmp_path: Path, state_folder: Path, saw: Saw) -> None:
    before = begin(kernel.pid)
    # With a bound of its own, so that a mistake of ours does not fill the disk.
    kernel.run("%%cc_execute --agent shell --shell bash --bg -o h\nyes 'on and on' | head -c 4000000000")
    folder = newest(state_folder)
    eventually(lambda: (folder / records.STDOUT).stat().st_size > 50_000_000, within=BUDGET, what="it floods")
    assert kernel.value("6 * 7") == "42"
    ended = kernel.run("h.cancel()\nr = await h", within=BUDGET)
    assert ended.status == "ok", ended.traceback
    assert kernel.value("r.status") == "'cancelled'"
    assert not await_none([tmp_path], budget=5)
    facts = json.loads((folder / records.EXIT).read_bytes())
    asked = next(record["at"] for record in control_records(folder) if record["kind"] == "stop_requested")
    growth = peak(kernel.pid) - before
    saw(
        f"ended {facts['ended_at'] - asked:.2f} s after Cancel, {facts['written']['stdout'] / 1e6:.0f} MB kept, kernel +{growth / 2**20:.1f} MiB"
    )
    assert facts["written"]["stdout"] == (folder / records.STDOUT).stat().st_size
    assert growth <= GROWTH
    (folder / records.STDOUT).unlink()


BLOCKING: Final = {
    "sleeping": "time.sleep(0.05)",
    "pure Python": "sum(range(100_000))",
    "C that keeps the GIL": "sum(big)",
}


@pytest.mark.row(
    "floods",
    "a blocked kernel, 1 MB/s",
    "the child writes all it has and ends while the cell blocks the loop; no `write` of it waits for the kernel",
)
@pytest.mark.parametrize("busy", BLOCKING)
def test_a_child_is_never_held_up_by_a_busy_kernel(kernel: Kernel, writer: Writer, state_folder: Path, saw: Saw, busy: str) -> None:
    kernel.run("big = list(range(1_000_000))")
    started = kernel.run(f"%%cc_execute --agent shell --shell bash --bg -o h\n{writer.command(2 * 10**6, pace=1e6)}")
    assert started.status == "ok", started.traceback
    folder = newest(state_folder)
    # The cell ends when the run has ended, and not before: a child that needed the kernel's loop would never get there.
    watched = kernel.run(
        f"end = pathlib.Path({str(folder / records.EXIT)!r})\nuntil = time.monotonic() + 60\n"
        f"while not end.exists() and time.monotonic() < until:\n    {BLOCKING[busy]}\nprint(end.exists())",
        within=BUDGET,
    )
    assert watched.stream == "True\n"
    saw(f"{busy}: longest write {writer.told['longest'] * 1e3:.1f} ms")
    assert kernel.run("r = await h").status == "ok"
    assert kernel.value("r.status, (r.folder / 'stdout').stat().st_size") == "('ok', 2000000)"


TICKER: Final = """
lags = []
async def ticker():
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.005)
        lags.append((time.perf_counter() - began - 0.005) * 1e3)
ticking = asyncio.get_running_loop().create_task(ticker())
"""


@pytest.mark.row("floods", "20 runs at once in one kernel", "each ends well with its own output, whole; the loop goes round meanwhile")
def test_twenty_runs_flood_one_kernel(kernel: Kernel, saw: Saw) -> None:
    kernel.run(TICKER)
    kernel.run(
        "ip = get_ipython()\nline = '--agent shell --shell bash'\n"
        "async def one(n):\n    script = f'yes number {n} | head -c {3_000_000 + n}'\n"
        "    return await ip.run_cell_magic('cc_execute_async', line, script)"
    )
    answer = kernel.run(
        "lags.clear()\nresults = await asyncio.gather(*map(one, range(20)))\nfound = sorted(lags)\nticking.cancel()", within=BUDGET
    )
    assert answer.status == "ok", answer.traceback
    assert kernel.value("[r.status for r in results] == ['ok'] * 20") == "True"
    whole = (
        "all((r.folder / 'stdout').read_bytes() == (f'number {n}\\n'.encode() * 400_000)[: 3_000_000 + n] for n, r in enumerate(results))"
    )
    assert kernel.value(whole) == "True"
    turns, middle, most = json.loads(kernel.value("[len(found), round(found[len(found) // 2], 1), round(found[-1], 1)]"))
    saw(
        f"the loop went round {turns} times a 5 ms ticker, late by {middle} ms in the middle and {most} ms at most, start and end of the runs included"
    )
    assert turns >= 20
