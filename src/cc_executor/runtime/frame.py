"""Rows as a pandas table, where the user has pandas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cc_executor.errors import InvalidRequest


def frame_of(rows: Iterable[Mapping[str, object]], *, columns: Iterable[str], index: str, times: Iterable[str] = ()) -> Any:
    """A pandas `DataFrame`.

    Parameters
    ----------
    rows
        One mapping for each.
    columns
        Their names, in order; there are all of them also where there is no row.
    index : str
        The column that names a row.
    times
        Columns in seconds since the epoch, which become timestamps in UTC.

    Raises
    ------
    InvalidRequest
        pandas is not installed.
    """
    try:
        import pandas as pd  # pyright: ignore[reportMissingTypeStubs] - the user's own, or none
    except ImportError:
        raise InvalidRequest("A table needs pandas, which is not in this environment: `pip install pandas`.") from None
    pandas: Any = pd
    frame = pandas.DataFrame([dict(row) for row in rows], columns=list(columns))
    for name in times:
        frame[name] = pandas.to_datetime(frame[name], unit="s", utc=True)
    return frame.set_index(index)
