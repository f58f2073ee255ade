"""Rows of figures: how they are gathered (interleaved), and how they are written down. Knows nothing of what is measured."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    name: str
    rounds: int
    drained: int  # bytes of one draining
    memory: int  # bytes of the flood whose memory is looked at
    lines: int  # lines shown in a browser
    events: int  # recorded lines of one decoding
    runs: tuple[int, ...] = (1, 20)  # at once
    patience: float = 90.0  # seconds that a page is given after the last line was written


QUICK = Scale("quick", rounds=2, drained=128 * 2**20, memory=300 * 10**6, lines=10_000, events=100_000, patience=15.0)
USUAL = Scale("usual", rounds=5, drained=2**30, memory=10**9, lines=100_000, events=500_000, runs=(1, 20, 200))
LONG = Scale("long", rounds=7, drained=2**30, memory=10**10, lines=1_000_000, events=1_000_000, runs=(1, 20, 200))


@dataclass
class Row:
    """One line of the table. `samples`: every single figure behind it, by contestant, in the order of the rounds."""

    what: str
    seen: str
    goal: str = ""
    met: bool | None = None
    samples: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    note: str = ""
    limit: str = ""  # what stands in the way, and what it would take; shown where the goal is missed


@dataclass(frozen=True)
class Bench:
    """Where and how much a suite measures."""

    scale: Scale
    folder: Path  # scratch, on the disk where runs are kept

    def say(self, words: str) -> None:
        """Tell whoever waits."""
        print(f"… {words}", file=sys.stderr, flush=True)


Suite = Callable[[Bench], list[Row]]


def interleaved(contestants: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """What each contestant gave in each round; who comes first changes from round to round."""
    found: dict[str, list[T]] = {name: [] for name in contestants}
    names = list(contestants)
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            found[name].append(contestants[name]())
    return found


def spread(values: Sequence[float], form: str = ".2f", unit: str = "") -> str:
    """Median, and in brackets least and most."""
    middle = format(statistics.median(values), form)
    return f"{middle}{unit} ({format(min(values), form)}–{format(max(values), form)})"


def ratios(ours: Sequence[float], others: Sequence[float]) -> list[float]:
    """Of the same rounds."""
    return [a / b for a, b in zip(ours, others, strict=True)]


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the others are."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def markdown(machine: Mapping[str, str], scale: Scale, rows: Sequence[Row]) -> str:
    """The table."""
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory']}, {machine['kernel']}, Python {machine['python']}, "
        + ", ".join(f"{name} {machine[name]}" for name in ("cc-executor", "ipykernel", "jupyterlab", "claude-agent-sdk"))
        + f"; {machine['date']}, load {machine['load at the start']} at the start; `{scale.name}`, {scale.rounds} rounds, "
        "median (least–most).",
        "",
        "| what | seen | goal | met |",
        "|---|---|---|---|",
    ]
    for row in rows:
        met = {None: "", True: "yes", False: "**no**"}[row.met]
        words = "; ".join(filter(None, (row.seen, row.note, row.limit if row.met is False else "")))
        lines.append(f"| {row.what} | {words} | {row.goal} | {met} |")
    return "\n".join(lines)


def as_json(machine: Mapping[str, str], scale: Scale, rows: Sequence[Row]) -> dict[str, Any]:
    """Everything."""
    return {"machine": dict(machine), "scale": asdict(scale), "rows": [asdict(row) for row in rows]}
