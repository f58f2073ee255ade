"""One run as the history knows it, and which of them somebody wants. Knows no database."""

from __future__ import annotations

from typing import Any, Final

import msgspec


class HistoryRow(msgspec.Struct, frozen=True, kw_only=True):
    """One run that has ended.

    Attributes
    ----------
    started : float
        Seconds since the epoch.
    model : str
        The model as the agent named it; `asked_model` as the request did.
    prompt_digest : str
        SHA-256 hex.
    prompt_line : str
        The beginning of the prompt's first line, without secrets.
    outcome : str
        A word of `OutcomeKind`; `standing` one of `Standing`.
    active : float
        Seconds at work, without pauses; `elapsed` with them.
    cost : float or None
        US dollars; None when nobody said.
    tools : int
        Tool calls.
    load : float or None
        Of the machine at the start, per core.
    rehearsed : str
        The script's name; empty for a run with a real model.
    size : int
        Bytes of the run's folder.
    p50, p90, cost_p50, cost_p90 : float or None
        What was predicted at the start.
    based_on : int
        By how many runs.
    is_pruned : int
        1 when its journal was removed.
    """

    run_id: str
    started: float
    agent: str
    model: str = ""
    asked_model: str = ""
    cwd: str = ""
    label: str = ""
    prompt_digest: str = ""
    prompt_line: str = ""
    prompt_chars: int = 0
    category: str = ""
    complexity: str = ""
    outcome: str
    standing: str = ""
    active: float = 0.0
    elapsed: float = 0.0
    cost: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cache_tokens: int = 0
    turns: int | None = None
    retries: int = 0
    tools: int = 0
    load: float | None = None
    rehearsed: str = ""
    list_id: str = ""
    task_id: str = ""
    notebook: str = ""
    size: int = 0
    p50: float | None = None
    p90: float | None = None
    cost_p50: float | None = None
    cost_p90: float | None = None
    based_on: int = 0
    is_pruned: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON and tables."""
        return {name: getattr(self, name) for name in COLUMNS}


COLUMNS: Final = HistoryRow.__struct_fields__


# Made here for its effect: the first use of a type by two threads at the same time crashes msgspec 0.22 (41 of 60 processes).
_ = msgspec.json.Decoder(HistoryRow)


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs are wanted. What is not given is not asked for.

    Attributes
    ----------
    cwd : str
        Absolute.
    text : str
        Must occur in the label or the prompt's first line.
    since, until : float or None
        Seconds since the epoch, of the start.
    before : str
        Only runs whose ids come before this one, which are older.
    rehearsed : bool or None
        Only rehearsals, only real runs, or (None) both.
    limit : int or None
        The newest so many.
    """

    agent: str = ""
    model: str = ""
    outcome: str = ""
    standing: str = ""
    label: str = ""
    cwd: str = ""
    category: str = ""
    list_id: str = ""
    prompt_digest: str = ""
    text: str = ""
    since: float | None = None
    until: float | None = None
    before: str = ""
    rehearsed: bool | None = None
    limit: int | None = None
