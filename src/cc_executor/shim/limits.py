"""The limits of a run. Knows active seconds; reads no clock and no process table: it asks."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

LOOKS: Final = 20  # looks for a running tool during one stall limit …
LOOK_SHORTEST: Final = 0.05  # seconds
LOOK_LONGEST: Final = 2.0


class Limits:
    """Wall, stall and linger limit, all in active seconds: what is paused or frozen counts for none.

    A stall is silence on both streams while no tool runs. From half of the limit on, tools are looked for: one that runs, and the end of one that ran,
    are signs of life like output.

    After the agent's last word its silence is no stall: then it lingers.

    Parameters
    ----------
    wall, stall, linger : float | None
        Seconds; None is no limit.
    """

    def __init__(self, wall: float | None, stall: float | None, linger: float | None = None) -> None:
        self._wall = wall
        self._stall = stall
        self._linger = linger
        self._leave_at = float("inf")
        self._sign = 0.0
        self._look_at = float("inf") if stall is None else stall / 2
        self._tool_seen = False

    def sign(self, active: float) -> None:
        """Output came."""
        self._sign = active
        self._tool_seen = False
        if self._stall is not None:
            self._look_at = active + self._stall / 2

    def spoke(self, active: float, *, is_done: bool) -> None:
        """Standard output came; `is_done`: the agent's last word was in it, or before it."""
        self._leave_at = active + self._linger if is_done and self._linger is not None else float("inf")

    def next(self, active: float) -> float:
        """The active second at which `reached` is to be asked again."""
        wall = float("inf") if self._wall is None else self._wall
        return min(wall, self._leave_at if self._lingers else max(active, self._look_at))

    @property
    def _lingers(self) -> bool:
        return self._leave_at < float("inf")

    def reached(self, active: float, tool_runs: Callable[[], bool]) -> tuple[str, float, str] | None:
        """The limit, its setting and the reason to stop, if one is reached."""
        if self._wall is not None and active >= self._wall:
            return "wall", self._wall, "timeout"
        if self._linger is not None and self._lingers:
            return ("linger", self._linger, "linger") if active >= self._leave_at else None
        if self._stall is None or active < self._look_at:
            return None
        if tool_runs():
            self._sign = active
            self._tool_seen = True
        elif self._tool_seen:
            self._sign = active  # it ended since the last look; the agent has its whole time from there
            self._tool_seen = False
        elif active >= self._sign + self._stall:
            return "stall", self._stall, "stalled"
        interval = min(LOOK_LONGEST, max(LOOK_SHORTEST, self._stall / LOOKS))
        self._look_at = min(self._sign + self._stall, active + interval)
        return None
