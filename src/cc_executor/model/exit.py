"""What the shim wrote down when the run ended (`exit.json`). Facts of the operating system; no judgement."""

from __future__ import annotations

import msgspec

from cc_executor.model.event import Leftover


class ExitFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of `cc_executor.shim.records.EXIT_FIELDS`, typed. Times in epoch seconds, durations in seconds, sizes in bytes."""

    run_id: str
    started_at: float
    ended_at: float
    elapsed: float
    active: float
    version: int = 1
    code: int | None = None
    signal: str | None = None
    stop_reason: str | None = None
    paused: float = 0.0
    frozen: float = 0.0
    written: dict[str, int] = {}
    dropped: dict[str, int] = {}
    masked: dict[str, int] = {}
    records: int = 0
    left_behind: tuple[Leftover, ...] = ()
    kept: bool = False
    survivors: int = 0
    cpu: float = 0.0
    max_rss: int = 0
    oom_kills: int = 0
    host: str = ""
