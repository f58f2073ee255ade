"""Whose turn it is among all who follow runs on one loop, so that the loop stays free however many they are. Knows a loop and a clock; knows no run."""

from __future__ import annotations

import time
from typing import Final

import anyio
from anyio.lowlevel import RunVar

TURN: Final = 0.0005  # seconds; with the rest of a piece about 1 ms
SHARE: Final = 0.002  # seconds between two that are woken; to look, find little and wait again costs some 0.2 ms of the loop
# Seconds between two frames, whoever's: each costs the kernel, the server (0.3 ms) and the page a message, and a server passes on 1,000 a second. Of 200 views
# each still speaks every 2 s, as a page expects of a kernel that is well.
FRAME: Final = 0.005


class Turns:
    """The turns of one loop.

    Handing a turn on takes one round of the loop, so that with any number of runs that write all at once there is work of one turn (and the rest of a
    piece) between two looks at everything else; 20 runs held the loop up for 150-450 ms. Rests and frames are queues, too: one timer for all of them. With
    one for each, all were due at once when the loop had waited for a core, and 200 runs held it up for 20 ms.
    """

    def __init__(self) -> None:
        self._lock = anyio.Lock()
        self._owner: object = None
        self._until = 0.0
        self._resting = anyio.Lock()
        self._ticking = anyio.Lock()

    async def take(self, who: object) -> None:
        """Wait for a turn of `who`, unless it is still its own."""
        if self._owner is who and time.monotonic() < self._until:
            return
        async with self._lock:  # given back at once: what is done in a turn may take long, or wait for another run
            self._owner, self._until = who, time.monotonic() + TURN

    async def rest(self) -> None:
        """Let the others go first, after everything was read that there was: who follows alone rests for a millisecond, one of 200 for 200."""
        async with self._resting:
            await anyio.sleep(SHARE)

    async def tick(self, seconds: float) -> None:
        """Wait for so long before the next frame of a live view. In a crowd it takes longer: all wait for the same `seconds`, in one queue."""
        due = time.monotonic() + seconds
        async with self._ticking:
            await anyio.sleep(max(FRAME, due - time.monotonic()))


_turns: Final[RunVar[Turns]] = RunVar("cc_executor turns")


def turns_here() -> Turns:
    """The turns of the running loop."""
    try:
        return _turns.get()
    except LookupError:
        turns = Turns()
        _turns.set(turns)
        return turns
