"""Short rows about the runs that are kept, for lists. Reads the small files only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec.structs import asdict

from cc_executor.errors import StateUnusable
from cc_executor.model.notice import duration, money
from cc_executor.model.phase import Phase
from cc_executor.runtime.plan import Plan
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder, RunStanding
from cc_executor.store.localtime import local

READ: Final = 8_000  # characters of a prompt in which secrets are looked for before it is cut
BEGINNING: Final = 80  # characters of a prompt in a list
HEAD: Final = ("run", "started", "status", "time", "cost", "agent", "prompt")


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One row. `status`: the outcome's name, or starting, running, paused, ended (not sealed yet), lost; `started` in epoch seconds; `elapsed` in seconds."""

    id: str
    status: str
    started: float
    agent: str
    model: str = ""
    elapsed: float | None = None
    cost: float | None = None
    rehearsed: str | None = None
    label: str = ""
    prompt: str = ""
    kind: str = "run"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def cells(self) -> tuple[str, ...]:
        """For people, as cells of `HEAD`."""
        return (
            self.id,
            local(self.started).strftime("%Y-%m-%d %H:%M:%S"),
            f"{self.status} (rehearsal)" if self.rehearsed else self.status,
            "" if self.elapsed is None else duration(self.elapsed),
            "" if self.cost is None or self.rehearsed else money(self.cost),
            self.agent,
            self.label or self.prompt,
        )


def summaries(home: StateHome, *, now: float, limit: int | None = None) -> list[RunSummary]:
    """The kept runs, newest first."""
    rows: list[RunSummary] = []
    for folder in home.runs():
        if limit is not None and len(rows) >= limit:
            break
        rows.append(summary(folder, now=now))
    return rows


def summary(folder: RunFolder, *, now: float, mask: Callable[[str], str] = str) -> RunSummary:
    """One run's row. `mask`: takes secrets out of what was asked."""
    receipt = folder.receipt()
    label, prompt = _asked(folder, mask)
    if receipt is not None:
        return RunSummary(
            id=folder.run_id,
            status=receipt.outcome.kind.value,
            started=receipt.times.started.timestamp(),
            agent=receipt.agent,
            model=receipt.model,
            elapsed=receipt.times.elapsed,
            cost=receipt.cost,
            rehearsed=receipt.rehearsed,
            label=label,
            prompt=prompt,
        )
    try:
        standing = folder.standing(now)
    except OSError:  # its folder cannot be looked into, or its lock is none; the others are listed all the same
        return RunSummary(id=folder.run_id, status="unreadable", started=folder.created_at, agent="", label=label, prompt=prompt)
    elapsed = now - folder.created_at if standing is RunStanding.RUNNING else None
    try:
        rehearsed, agent = Plan.of(folder).rehearsed, folder.request().agent
    except StateUnusable:
        rehearsed, agent = None, ""
    return RunSummary(
        id=folder.run_id,
        status=Phase.PAUSED.value if standing is RunStanding.RUNNING and folder.is_paused() else standing.value,
        started=folder.created_at,
        agent=agent,
        elapsed=elapsed,
        rehearsed=rehearsed,
        label=label,
        prompt=prompt,
    )


def beginning(prompt: str, mask: Callable[[str], str] = str) -> str:
    """Of a prompt, for a list. Masked before it is cut: the beginning of a secret is not recognised."""
    return " ".join(mask(prompt[:READ]).split())[:BEGINNING]


def _asked(folder: RunFolder, mask: Callable[[str], str]) -> tuple[str, str]:
    """Label and the beginning of the prompt."""
    try:
        request = folder.request()
    except StateUnusable:
        return "", ""
    return mask(request.label), beginning(request.prompt, mask)
