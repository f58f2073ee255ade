"""The agent's standard input, fed by commands. Knows one pipe and a bound; never waits."""

from __future__ import annotations

import os

from cc_executor.shim.poller import GONE, OUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cc_executor.shim.poller import Poller

PENDING_LIMIT: Final = 8 * 2**20  # bytes; the Claude Code CLI refuses prompts above 10 MB


class Stdin:
    """The writing end.

    Parameters
    ----------
    fd : int | None
        Non-blocking; None when the agent has no such pipe.
    poller : Poller
        Where to wait for room.
    first : bytes
        What is written before anything else, however long.
    """

    def __init__(self, fd: int | None, poller: Poller, first: bytes = b"") -> None:
        self._fd = fd
        self._poller = poller
        self._pending = first
        self._closing = False
        if fd is not None:
            poller.add(fd, 0, self._ready)
            self._flush()

    def write(self, data: bytes, *, close: bool) -> str | None:
        """Take `data` to be written in order, and close afterwards; returns why it cannot be taken, or None."""
        if self._fd is None or self._closing:
            return "the agent's standard input is not open"
        if len(self._pending) + len(data) > PENDING_LIMIT:
            return "the agent does not read its standard input, and too much waits already"
        self._pending += data
        self._closing = close
        self._flush()
        return None

    def close(self) -> bool:
        """Close at once, whatever waits; False when it was not open."""
        if self._fd is None:
            return False
        self._poller.remove(self._fd)
        os.close(self._fd)
        self._fd = None
        self._pending = b""
        return True

    def _ready(self, bits: int) -> None:
        if bits & GONE:  # nobody reads any more
            self.close()
        else:
            self._flush()

    def _flush(self) -> None:
        if self._fd is None:
            return
        view, done = memoryview(self._pending), 0
        try:
            while done < len(view):
                done += os.write(self._fd, view[done : done + 65536])
        except BlockingIOError:
            self._pending = self._pending[done:]
            self._poller.change(self._fd, OUT)
            return
        except OSError:  # EPIPE: the agent closed it or has ended
            self.close()
            return
        self._pending = b""
        if self._closing:
            self.close()
        else:
            self._poller.change(self._fd, 0)
