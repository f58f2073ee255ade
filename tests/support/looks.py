"""How long to wait between two looks at what has no event."""

from __future__ import annotations

import time
from typing import Final

_LONGEST: Final = 0.25  # seconds


def pause_since(begun: float, least: float) -> float:
    """Seconds: first `least`, then a tenth of what has passed since `begun`. Many tests wait at once, and each look takes time from those who are awaited."""
    return min(_LONGEST, max(least, (time.monotonic() - begun) / 10))
