"""Past runs for Python: filtered, counted, exported. `cc_executor.history(...)`."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from cc_executor.errors import InvalidRequest, StateUnusable
from cc_executor.model.notice import duration, money
from cc_executor.model.outcome import OutcomeKind
from cc_executor.model.table import columns, html_table, untypeset
from cc_executor.policy.hindsight import Calibration, calibration
from cc_executor.policy.predict import spread_words
from cc_executor.runtime.frame import frame_of
from cc_executor.runtime.history import ask
from cc_executor.store import history as store
from cc_executor.store.history import Unusable
from cc_executor.store.historyrow import COLUMNS, Filters, HistoryRow
from cc_executor.store.home import StateHome, home_named
from cc_executor.store.localtime import local

JUDGED: Final = 1_000  # newest predicted runs that the calibration looks at
SHOWN: Final = 20  # rows of the table
_SPAN: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*([smhdw])\Z")
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
FILTER_CHARS: Final = 10_000  # escaped and as UTF-8 still within the 50,000 bytes that SQLite takes for a pattern
_FORMULA: Final = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
)  # owasp.org/www-community/attacks/CSV_Injection: prompts and labels may be somebody else's
HEAD: Final = ("run", "started", "status", "time", "expected", "cost", "agent", "prompt")
WRAPPED: Final = frozenset({"started", "status", "prompt"})  # columns of a list of runs whose cells may take several lines


@dataclass(frozen=True)
class History:
    """Past runs, newest first. Iterates over its rows.

    Attributes
    ----------
    rows : tuple of HistoryRow
        One for each run that was asked for; the fields are attributes: run_id, started, agent, model, cwd, label, outcome, active, cost and so on.
    calibration : Calibration
        How well the predictions were kept, over the newest 1,000 runs that were predicted, whatever was asked for.
    notes : tuple of str
        What there is to say about the history itself: it was damaged, locked, or cannot be written.
    """

    rows: tuple[HistoryRow, ...]
    calibration: Calibration
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[HistoryRow]:
        return iter(self.rows)

    def __getitem__(self, index: int) -> HistoryRow:
        return self.rows[index]

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dict of plain values for each run."""
        return [row.as_dict() for row in self.rows]

    def to_json(self) -> str:
        """A JSON array with one object for each run."""
        return json.dumps(self.to_dicts(), ensure_ascii=False)

    def to_csv(self) -> str:
        """A table with a head and one line for each run, by RFC 4180. `started` is in ISO 8601, UTC; what is not known is empty.

        A text that a spreadsheet would take for a formula has an apostrophe in front of it.
        """
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\r\n")
        writer.writeheader()
        for row in self.rows:
            cells = row.as_dict() | {"started": moment(row.started)}
            writer.writerow(
                {name: f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value for name, value in cells.items()}
            )
        return text.getvalue()

    def to_frame(self) -> Any:
        """A pandas `DataFrame`, one row for each run; `InvalidRequest` where there is no pandas."""
        return frame_of(self.to_dicts(), columns=COLUMNS, index="run_id", times=("started",))

    def summary(self) -> str:
        """What it comes to: how many runs, how they ended, time, money, and how good the estimates were."""
        counts = Counter(row.outcome for row in self.rows)
        ends = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
        seconds, cost = sum(row.active for row in self.rows), sum(row.cost or 0.0 for row in self.rows)
        parts = [f"{len(self)} {'run' if len(self) == 1 else 'runs'}{f' ({ends})' if ends else ''}", duration(seconds)]
        return " · ".join([*parts, *([money(cost)] if cost else [])]) + f". {self.calibration.words()}"

    def table(self) -> list[tuple[str, ...]]:
        """Rows of text for people, the head first."""
        return [HEAD, *(cells(row) for row in self.rows)]

    def __repr__(self) -> str:
        shown = History(self.rows[:SHOWN], self.calibration).table()
        more = [f"and {len(self) - SHOWN:,} more"] if len(self) > SHOWN else []
        return "\n".join([*columns(shown), *more, self.summary(), *self.notes])

    def _repr_html_(self) -> str:
        said = "".join(f"<div>{untypeset(text)}</div>" for text in (self.summary(), *self.notes))
        return html_table(self.table()[: SHOWN + 1], wrapped=WRAPPED) + said


def cells(row: HistoryRow) -> tuple[str, ...]:
    """One run as cells of `HEAD`."""
    expected = spread_words(row.p50, row.p90) if row.p50 is not None and row.p90 is not None else ""
    return (
        row.run_id,
        local(row.started).strftime("%Y-%m-%d %H:%M:%S"),
        f"{row.outcome} (rehearsal)" if row.rehearsed else row.outcome,
        duration(row.active),
        expected,
        "" if row.cost is None or row.rehearsed else money(row.cost),
        row.agent,
        row.label or row.prompt_line,
    )


def moment(seconds: float) -> str:
    """Seconds since the epoch in ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def when(value: str | float | datetime | date | None, *, now: float) -> float | None:
    """A moment, in seconds since the epoch.

    Parameters
    ----------
    value : str, float, datetime, date or None
        ``"7d"``, ``"36h"`` (so long ago; s, m, h, d, w), ``"2026-01-31"``, ``"2026-01-31T12:00"`` (local time unless it says otherwise), or seconds since the
        epoch.

    Raises
    ------
    InvalidRequest
    """
    if value is None:
        return None
    with contextlib.suppress(ValueError, OverflowError, OSError):  # a year that no clock of this machine knows
        if math.isfinite(seconds := _seconds(value, now)):
            return seconds
    raise InvalidRequest(f"{value!r:.60} is no time. Write 7d, 36h, 2026-01-31 or 2026-01-31T12:00.")


def _seconds(value: object, now: float) -> float:
    match value:
        case datetime():
            return value.timestamp()
        case date():
            return datetime(value.year, value.month, value.day).timestamp()  # noqa: DTZ001 - a local day
        case int() | float():
            return float(value)
        case str() if found := _SPAN.match(value.strip()):
            return now - float(found[1]) * _UNITS[found[2]]
        case str():
            return datetime.fromisoformat(value.strip()).timestamp()
        case _:
            return math.nan


def filters_of(
    *,
    agent: str = "",
    model: str = "",
    outcome: str = "",
    label: str = "",
    cwd: str | Path = "",
    category: str = "",
    list_id: str = "",
    text: str = "",
    since: str | float | datetime | date | None = None,
    until: str | float | datetime | date | None = None,
    rehearsed: bool | None = None,
    limit: int | None = None,
    before: str = "",
    now: float,
) -> Filters:
    """Checked filters out of what users write. Raises `InvalidRequest`."""
    texts: dict[str, object] = {
        "agent": agent, "model": model, "outcome": outcome, "label": label, "category": category, "list_id": list_id, "text": text, "before": before,
    }  # fmt: skip
    for name, value in texts.items():
        if not isinstance(value, str) or len(value) > FILTER_CHARS:
            raise InvalidRequest(f"{name} must be a text of at most {FILTER_CHARS:,} characters.")
    if not isinstance(cwd, str | Path):  # pyright: ignore[reportUnnecessaryIsInstance] - what users write
        raise InvalidRequest(f"cwd must be the path of a folder (given: {cwd!r:.60}).")
    words = {kind.value for kind in OutcomeKind}
    if outcome and outcome not in words:
        raise InvalidRequest(f"There is no outcome {outcome!r}. It is one of {', '.join(sorted(words))}.")
    if not isinstance(rehearsed, bool | None):  # pyright: ignore[reportUnnecessaryIsInstance] - as above
        raise InvalidRequest(f"rehearsed must be True, False or left out (given: {rehearsed!r:.60}).")
    if limit is not None and not (isinstance(limit, int) and 1 <= limit < 2**63):  # pyright: ignore[reportUnnecessaryIsInstance] - as above
        raise InvalidRequest(f"limit must be a number, 1 or more (given: {limit!r:.60}); leave it out for all.")
    return Filters(
        agent=agent,
        model=model,
        outcome=outcome,
        label=label,
        cwd=os.path.abspath(os.path.expanduser(cwd)) if cwd else "",
        category=category,
        list_id=list_id,
        text=text,
        since=when(since, now=now),
        until=when(until, now=now),
        rehearsed=rehearsed,
        limit=limit,
        before=before,
    )


def past(home: StateHome, filters: Filters, *, environ: Mapping[str, str], only: Callable[[str], bool] | None = None) -> History:
    """The runs that are wanted; with `only`, among those whose ids it takes.

    Raises
    ------
    StateUnusable
    """

    def work(connection: sqlite3.Connection) -> tuple[list[HistoryRow], Calibration]:
        if only is not None:
            store.restrict(connection, only)
        return store.query(connection, filters), calibration(store.judged(connection, limit=JUDGED))

    try:
        (rows, judged), said = ask(home, work, environ=environ)
    except Unusable as error:  # memory, or the disk under it, is full
        raise StateUnusable(f"The history cannot be read ({error}).") from error
    return History(tuple(rows), judged, tuple(said))


def history(*, state: str | Path | None = None, environ: Mapping[str, str] | None = None, **filters: Any) -> History:
    """Past runs of this user, newest first: what was asked, how it ended, how long it took, what it cost, and what had been predicted.

    Parameters
    ----------
    state : path, optional
        The state folder, if not the usual one.
    environ : mapping, optional
        `os.environ` if not given.
    **filters
        agent, model, outcome (``"ok"``, ``"failed"``, …), label, cwd (a folder), category, list_id, text (occurs in the label or the prompt's first line),
        since and until (``"7d"``, ``"2026-01-31"``, a datetime), rehearsed (True, False; both if not given), limit (the newest so many; all if not given),
        before (a run's id: only older ones).

    Returns
    -------
    History
        With `rows`, `summary()`, `to_dicts()`, `to_json()`, `to_csv()` and `to_frame()`.

    Raises
    ------
    InvalidRequest, StateUnusable
    """
    environment = os.environ if environ is None else environ
    home = home_named(state, environment)
    known = (filters_of.__kwdefaults__ or {}).keys()
    if unknown := filters.keys() - known:
        raise InvalidRequest(f"There is no filter {min(unknown)!r}. It is one of {', '.join(known)}.")
    return past(home, filters_of(**filters, now=time.time()), environ=environment)
