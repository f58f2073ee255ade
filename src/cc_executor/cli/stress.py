"""`cc-executor stress`: many runs at once on this machine, to see what it bears. Rehearsals or commands of a shell, so nothing is spent."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import anyio
import typer

from cc_executor.api import make_request
from cc_executor.cli.group import exits_with
from cc_executor.cli.kept import AsJson, hint, print_json
from cc_executor.errors import CCExecutorError
from cc_executor.model.ansi import clean
from cc_executor.rehearsal import scripts
from cc_executor.runtime.history import THREAD
from cc_executor.runtime.hooks import VARIABLE as HOOKS
from cc_executor.runtime.leftovers import end_marked
from cc_executor.runtime.run import Run
from cc_executor.store.home import StateHome
from cc_executor.store.place import REDIS_VARIABLE

FAILED: Final = 1  # exit code
MOST: Final = 1000  # runs of one call
MOST_AT_ONCE: Final = 64  # each is two processes or more
LIMIT: Final = 300.0  # seconds for one run: a machine that takes longer does not bear it
_REMEMBERED: Final = 5.0  # seconds for a row of the history, which takes 20 ms
_COMMAND: Final = "echo hello"


@dataclass(slots=True)
class _Seen:
    """What became of the runs so far."""

    outcomes: Counter[str] = field(default_factory=Counter[str])
    seconds: list[float] = field(default_factory=list[float])
    run_ids: list[str] = field(default_factory=list[str])
    refused: list[str] = field(default_factory=list[str])


@exits_with(f"0 all went well and nothing is left, {FAILED} not so, 2 wrong call")
def stress_command(
    *,
    runs: Annotated[int, typer.Option("--runs", "-n", metavar="N", min=1, max=MOST, help="How many runs.")] = 20,
    at_once: Annotated[int, typer.Option(metavar="N", min=1, max=MOST_AT_ONCE, help="How many of them at the same time.")] = 4,
    rehearse: Annotated[str, typer.Option(metavar="SCRIPT", help="The rehearsal that each run is.")] = "hello",
    shell: Annotated[bool, typer.Option("--shell", help="Commands of a shell instead of rehearsals: no agent is needed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Do many runs at once and say how they ended, how long they took from start to receipt, and what they left running. Spends nothing.

    They are kept in a folder of their own, which is removed: history and estimates do not see them, and no hook of yours that is set in the environment is called.
    """
    if not shell:
        scripts.load(rehearse)  # one that is not there is said once, and not of each run
    # Short, and not below the state folder: a Unix socket's name holds 107 bytes.
    scratch = Path(tempfile.mkdtemp(prefix="cc-stress-"))
    seen = _Seen()
    what: dict[str, Any] = {"agent": "shell", "shell": "bash"} if shell else {"rehearse": rehearse}
    begun = time.monotonic()
    try:
        anyio.run(_all, seen, scratch, runs, at_once, what)
    finally:
        leftovers = end_marked(*seen.run_ids)
        for thread in threading.enumerate():
            if thread.name == THREAD:  # it writes into that folder
                thread.join(_REMEMBERED)
        shutil.rmtree(scratch, ignore_errors=True)
    result = {
        "runs": runs,
        "at_once": at_once,
        "outcomes": dict(sorted(seen.outcomes.items())),
        "seconds": round(time.monotonic() - begun, 3),
        "p50": _percentile(seen.seconds, 50),
        "p99": _percentile(seen.seconds, 99),
        "leftovers": leftovers,
    }
    if as_json:
        print_json(result)
    else:
        for name, count in seen.outcomes.most_common():
            typer.echo(f"{name:<16} {count:>5}")
        typer.echo(
            f"{runs} runs, {at_once} at once, in {result['seconds']:.1f} s; each p50 {result['p50']} s, p99 {result['p99']} s; {leftovers} left over"
        )
    for why, count in Counter(seen.refused).most_common(3):
        hint(clean(f"{count} × {why}"))
    if seen.outcomes.keys() != {"ok"} or leftovers:
        raise typer.Exit(FAILED)


async def _all(seen: _Seen, scratch: Path, runs: int, at_once: int, what: dict[str, Any]) -> None:
    state, work = StateHome(scratch / "s"), scratch / "work"
    work.mkdir()
    environ = {name: value for name, value in os.environ.items() if name not in {HOOKS, REDIS_VARIABLE}}
    places = anyio.Semaphore(at_once)

    async def one() -> None:
        async with places:
            begun = time.monotonic()
            try:
                request = make_request(_COMMAND, cwd=work, timeout=LIMIT, undo=False, **what)
                run = await Run.start(request, home=state, environ=environ)
            except CCExecutorError as error:
                seen.outcomes["not started"] += 1
                seen.refused.append(str(error))
                return
            seen.run_ids.append(run.run_id)
            try:
                receipt = await run.finish()
            except CCExecutorError as error:
                seen.outcomes["no receipt"] += 1
                seen.refused.append(str(error))
                return
            except BaseException:  # Ctrl-C: the runs end with it
                with anyio.move_on_after(10, shield=True):
                    await run.end(reason="interrupt", by="cli", now=True)
                raise
            seen.outcomes[receipt.outcome.kind.value] += 1
            seen.seconds.append(time.monotonic() - begun)

    async with anyio.create_task_group() as tasks:
        for _ in range(runs):
            tasks.start_soon(one)


def _percentile(values: list[float], percent: int) -> float | None:
    """The nearest-rank percentile, in seconds; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[max(0, -(-len(ordered) * percent // 100) - 1)], 3)
