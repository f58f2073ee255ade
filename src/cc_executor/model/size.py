"""Sizes as people write them: `20 GB`, `500MB`, `1.5 GiB`. Knows numbers and units."""

from __future__ import annotations

import re
from typing import Final

from cc_executor.model.number import is_finite

_UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", re.IGNORECASE | re.ASCII)
NONE: Final = "none"
LARGEST: Final = 2**63 - 1  # what Linux can count in a file


def size_of(text: str | float) -> int | None:
    """The bytes in a size; None for ``"none"``.

    Raises
    ------
    ValueError
        It is no size.
    """
    if isinstance(text, str) and text.strip().lower() == NONE:
        return None
    if isinstance(text, str):
        found = _SIZE.fullmatch(text)
        if found is None:
            raise ValueError("must be a size such as 20 GB or 500 MB, or none")
        text = float(found[1]) * _UNITS[(found[2] or "").lower()]
    if isinstance(text, bool) or not is_finite(text) or text > LARGEST:
        raise ValueError(f"must be a number of bytes, {LARGEST:,} at most")
    return round(text)


def size_words(size: int) -> str:
    """Bytes for people."""
    value = float(size)
    for unit in ("bytes", "KB", "MB", "GB"):
        if value < 1000 or unit == "GB":  # noqa: PLR2004 - decimal units
            return f"{value:,.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:,.1f} {unit}"  # noqa: PLR2004 - three digits are enough
        value /= 1000
    raise AssertionError
