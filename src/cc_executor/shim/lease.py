"""The process that wants the run. Knows how to tell that it has ended; decides nothing."""

from __future__ import annotations

import os

from cc_executor.shim import native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

POLL_INTERVAL: Final = 0.2  # seconds; only where there is no descriptor to wait for


class Lease:
    """Watches process `pid`.

    Attributes
    ----------
    fd : int | None
        Polls readable when the process has ended; None where it must be looked at with `ended`.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._parent = os.getppid() == pid
        self._gone = False
        self.fd: int | None = None
        try:
            self.fd = native.watch_process(pid)
        except ProcessLookupError:
            self._gone = True

    def ended(self) -> bool:
        """Whether the process has ended. With a descriptor, only what was known at the start."""
        if self._gone or self.fd is not None:
            return self._gone
        if self._parent and os.getppid() != self._pid:
            self._gone = True
        else:
            try:
                os.kill(self._pid, 0)
            except ProcessLookupError:
                self._gone = True
            except PermissionError:  # it lives, and belongs to somebody else
                return False
        return self._gone
