"""Waiting for what has no event, by looks at it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

_LONGEST: Final = 0.25  # seconds


def pause_since(begun: float, least: float) -> float:
    """Seconds: first `least`, then a tenth of what has passed since `begun`. Many tests wait at once, and each look takes time from those who are awaited."""
    return min(_LONGEST, max(least, (time.monotonic() - begun) / 10))


def eventually(look: Callable[[], Any], *, within: float, what: str) -> Any:
    """The first truthy answer of `look`; an AssertionError that says `what` after `within` seconds."""
    begun = time.monotonic()
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < begun + within, f"not within {within} s: {what}"
        time.sleep(pause_since(begun, 0.05))
