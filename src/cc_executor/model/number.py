"""Numbers as people and programs give them. Knows that an `int` may be larger than any `float`."""

from __future__ import annotations

import math


def is_finite(value: float) -> bool:
    """Whether it is a number that can be computed with: neither infinite nor none, nor an `int` that no `float` can hold."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
