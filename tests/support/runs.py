"""Runs of shell commands for tests: how they are asked for, followed, and waited for."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import anyio

from cc_executor.api import make_request
from cc_executor.model.event import Event
from cc_executor.model.request import RunRequest
from cc_executor.model.state import RunState
from cc_executor.runtime.history import THREAD
from cc_executor.runtime.run import Run
from cc_executor.store.home import StateHome
from support.looks import pause_since

BASH: Final[dict[str, Any]] = {"agent": "shell", "shell": "bash"}
BOUND: Final = 60.0  # seconds for anything that happens at once on an idle machine; a busy one is slower by far


def shell(script: str, **options: Any) -> RunRequest:
    """A request for a script of bash."""
    return make_request(script, **BASH, **options)


async def started(script: str, *, home: StateHome, **options: Any) -> Run:
    """A run of a script of bash, in the environment of the tests."""
    return await Run.start(shell(script, **options), home=home, environ=os.environ)


async def until(run: Run, condition: Callable[[RunState], object]) -> RunState:
    """Follow a run from its beginning until its state is so."""
    with anyio.fail_after(BOUND):
        async with aclosing(run.follow()) as batches:
            async for batch in batches:
                if condition(batch.state):
                    return batch.state
    raise AssertionError(f"the run ended before: {run.state}")


async def to_end(run: Run) -> list[Event]:
    """Every event of a run."""
    events: list[Event] = []
    with anyio.fail_after(60):
        async with aclosing(run.follow()) as batches:
            async for batch in batches:
                events += batch.events
    return events


async def eventually(condition: Callable[[], object], *, within: float = BOUND) -> None:
    """Look again and again at what has no event to wait for: files, and processes that are nobody's children here."""
    begun = time.monotonic()
    with anyio.fail_after(within):
        while not condition():  # noqa: ASYNC110 - as said
            await anyio.sleep(pause_since(begun, 0.02))


def wait_for(condition: Callable[[], object], *, within: float = BOUND) -> None:
    """The same without a loop."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() < begun + within, f"not within {within} s"
        time.sleep(pause_since(begun, 0.02))


def remembered() -> None:
    """Wait until the runs that have ended here are in the history."""
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(BOUND)


def run_folders(state: Path) -> list[Path]:
    """The folders of all runs that are kept, oldest first."""
    runs = state / "runs"
    return sorted(runs.iterdir()) if runs.exists() else []
