"""An agent that was started before there is a run for it. It waits for its prompt; this waits for the run, and ends it if none comes."""

from __future__ import annotations

import os
import signal
import time

from cc_executor.shim import child
from cc_executor.shim.lease import POLL_INTERVAL, Lease
from cc_executor.shim.poller import IN, Poller
from cc_executor.shim.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cc_executor.shim.spec import Spec

LOOK: Final = 5.0  # seconds between two looks at the clock; all else rings
PATIENCE: Final = 2.0  # seconds for an agent whose standard input is closed to end by itself; its hooks may run
KILL_PATIENCE: Final = 5.0
PACE: Final = 0.02


class Held:
    """One agent, started and waiting.

    Parameters
    ----------
    spec : Spec
        With which it was started; its `hold` says for how many seconds it may wait.
    agent : int
        Its process id.
    streams : tuple
        Our ends of its standard input, output and error.
    bell : int
        Rings with the number of each signal that comes.
    """

    def __init__(self, spec: Spec, agent: int, streams: tuple[int | None, int, int], bell: int) -> None:
        self.spec = spec
        self.agent = agent
        self.streams = streams
        self.bell = bell
        self._since = time.monotonic()
        self._said = b""
        self._is_over = False

    def line(self) -> bytes | None:
        """The next line of standard input: the spec of the run. None when there will be no run: nobody wants it any more, or the agent has ended."""
        assert self.spec.hold is not None  # for what it was made
        lease = None if self.spec.lease_pid is None else Lease(self.spec.lease_pid)
        poller = Poller()
        poller.add(0, IN, self._heard)
        poller.add(self.bell, IN, self._rung)
        if lease is not None and lease.fd is not None:
            poller.add(lease.fd, IN, self._over)
        pace = LOOK if lease is None or lease.fd is not None else POLL_INTERVAL
        until = self._since + self.spec.hold
        while not self._said.endswith(b"\n"):
            if self._is_over or time.monotonic() >= until or (lease is not None and lease.ended()):
                return None
            poller.dispatch(poller.wait(min(pace, until - time.monotonic())))
        if lease is not None and lease.fd is not None:
            os.close(lease.fd)
        return None if self._has_ended() else self._said

    def end(self, *, at_once: bool = False) -> None:
        """End it, and whatever it has started: first by the end of its standard input, if not `at_once`, then with SIGKILL."""
        if self.streams[0] is not None and not at_once:
            os.close(self.streams[0])
        tree, reaper = Tree(os.getpid()), child.Reaper()
        patience = 0.0 if at_once else PATIENCE
        begun = time.monotonic()
        while time.monotonic() < begun + patience + KILL_PATIENCE:
            reaper.reap()
            if tree.is_empty(childless=reaper.empty):
                return
            if time.monotonic() >= begun + patience:
                tree.signal(signal.SIGKILL)
            time.sleep(PACE)  # a tree has no event for the end of its last process

    def _heard(self, _bits: int) -> None:
        chunk = os.read(0, 2**20)
        self._said += chunk
        self._is_over = not chunk

    def _rung(self, _bits: int) -> None:
        rung = os.read(self.bell, 4096)
        self._is_over = self._is_over or any(number != signal.SIGCHLD for number in rung) or self._has_ended()

    def _over(self, _bits: int) -> None:
        self._is_over = True

    def _has_ended(self) -> bool:
        """Whether the agent has; it is left to be reaped by whoever owns it."""
        return os.waitid(os.P_PID, self.agent, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
