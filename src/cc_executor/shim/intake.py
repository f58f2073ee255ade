"""When the agent's pipes are looked at. Knows the poller and the journal; what the output means for the run is decided by whom it tells."""

from __future__ import annotations

import time

from cc_executor.shim import child
from cc_executor.shim.poller import IN
from cc_executor.shim.rest import Rest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cc_executor.shim.journal import Journal, Stream
    from cc_executor.shim.poller import Poller


class Intake:
    """Both streams.

    Only stdout rests, and only for as long as nothing else happens: so what it held goes before the stderr, or the record, that came after it.

    Parameters
    ----------
    journal : Journal
        Takes what the pipes hold.
    poller : Poller
        Where to wait for them.
    took : Callable[[Stream, int], None]
        Told how many bytes of a stream came, also of the end of a stream (0).
    """

    def __init__(self, journal: Journal, poller: Poller, took: Callable[[Stream, int], None]) -> None:
        self._journal = journal
        self._poller = poller
        self._took = took
        self._rest = Rest()
        self._stdout = journal.streams[0]
        for stream in journal.streams:
            poller.add(stream.pipe, IN, lambda _bits, stream=stream: self._look(stream))

    @property
    def until(self) -> float:
        """When to come back at the latest, in monotonic seconds; infinite when the poller wakes for whatever comes."""
        return float("inf") if self._stdout.ended else self._rest.until

    def woke(self, late: float) -> None:
        """The loop is back, whatever for: nothing rests any more. `late`: by how many seconds a timer rang too late; 0 when it was no timer."""
        self._rest.came_back(late)
        if self.until < float("inf"):
            self._look(self._stdout)

    def close(self) -> None:
        """Take what the pipes hold, and nothing more."""
        for stream in self._journal.streams:
            if not stream.ended:
                self._poller.remove(stream.pipe)
                self._journal.drain(stream)  # once is all that a pipe holds
                self._journal.close(stream)

    def _look(self, stream: Stream) -> None:
        pipe = stream.pipe
        size = self._journal.drain(stream)
        if stream.ended:
            self._poller.remove(pipe)
        elif stream is self._stdout:
            rests = self._rest.looked(size, time.monotonic(), child.room(pipe))
            self._poller.change(pipe, 0 if rests else IN)  # with 0 its end is told all the same
        if size or stream.ended:
            self._took(stream, size)
