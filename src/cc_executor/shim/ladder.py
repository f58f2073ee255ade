"""How a run is stopped: a table of rungs, and the walk down it. Knows signals and times; the tree is what it is given. Never waits.

The order comes from how the Claude Code CLI behaves (2.1.197 and 2.1.329): SIGINT is the one signal after which it ends its tools and says so in a last
line; SIGTERM leaves young tools alive; SIGKILL leaves all of them alive, because each tool runs in a session of its own.
"""

from __future__ import annotations

import signal

from cc_executor.shim.child import signal_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from cc_executor.shim.child import Reaper
    from cc_executor.shim.tree import Tree

CLOSE_STDIN: Final = "close_stdin"
GROUP: Final = "group"
TREE: Final = "tree"
FIRST_PACE: Final = 0.002  # seconds between two passes of SIGKILL …
SLOWEST_PACE: Final = 0.02  # … which grow to this
KILL_PATIENCE: Final = 5.0  # seconds; what then still lives is stuck in the kernel (a dead network disk) or belongs to somebody else


class Rung:
    """One step: what is done, to whom, and how many seconds it is given."""

    __slots__ = ("grace", "scope", "signum")

    def __init__(self, signum: int | None, scope: str, grace: float) -> None:
        self.signum = signum
        self.scope = scope
        self.grace = grace


# At most 2 s before SIGKILL, so that a cancel takes at most 3 s as a whole.
STOP: Final = (
    Rung(None, CLOSE_STDIN, 0.0),
    Rung(signal.SIGINT, GROUP, 1.5),
    Rung(signal.SIGTERM, TREE, 0.5),
    Rung(signal.SIGKILL, TREE, KILL_PATIENCE),
)
# What the agent left when it ended by itself has no group leader left that could clean up.
SWEEP: Final = (Rung(signal.SIGTERM, TREE, 0.5), Rung(signal.SIGKILL, TREE, KILL_PATIENCE))


class Ladder:
    """A walk down a table of rungs.

    Parameters
    ----------
    rungs : tuple of Rung
        `STOP` or `SWEEP`.
    tree, reaper
        What is to be ended, and who sees it end.
    record : Callable
        Writes a control record.
    close_stdin : Callable[[], bool]
        Closes the agent's standard input; False when there is none to close.
    """

    def __init__(
        self,
        rungs: tuple[Rung, ...],
        *,
        tree: Tree,
        reaper: Reaper,
        record: Callable[..., Any],
        close_stdin: Callable[[], bool],
    ) -> None:
        self.done = False
        self.survivors = 0
        self._rungs = rungs
        self._tree = tree
        self._reaper = reaper
        self._record = record
        self._close_stdin = close_stdin
        self._place = -1
        self._until = 0.0
        self._pace = FIRST_PACE

    def jump(self) -> None:
        """Go to the last rung at the next step."""
        if self._place < len(self._rungs) - 1:
            self._place = len(self._rungs) - 2
            self._until = 0.0

    def step(self, now: float) -> float:
        """Do what is due; returns when to call again. `done` when nothing is left, or when nothing helps."""
        last = len(self._rungs) - 1
        self._reaper.reap()
        while not self._gone():
            if self._place >= 0 and not self._due(now):
                if self._place == last:
                    self._tree.kill()
                    self._reaper.reap()
                    if self._gone():
                        break
                    self._pace = min(2 * self._pace, SLOWEST_PACE)
                    return now + self._pace
                return self._until
            if self._place == last:
                self.survivors = len(self._tree.scan())
                break
            self._place += 1
            self._enter(self._rungs[self._place], now)
            self._reaper.reap()
        self.done = True
        return now

    def _gone(self) -> bool:
        return self._tree.is_empty(childless=self._reaper.empty)

    def _due(self, now: float) -> bool:
        rung = self._rungs[self._place]
        # The group's rung is for the agent, which ends its own tools; when it has ended, nobody will.
        return now >= self._until or (rung.scope == GROUP and self._reaper.status is not None)

    def _enter(self, rung: Rung, now: float) -> None:
        self._until = now + rung.grace
        if rung.signum is None:
            if self._close_stdin():
                self._record("signalled", signal=CLOSE_STDIN, processes=1)
            return
        if rung.scope == GROUP:
            if self._reaper.status is not None:
                return
            count = self._tree.signal_group(self._reaper.agent, rung.signum)
        elif rung.signum == signal.SIGKILL:
            count = self._tree.kill()
        else:
            count = self._tree.signal(rung.signum)
        self._record("signalled", signal=signal_name(rung.signum), processes=count)
