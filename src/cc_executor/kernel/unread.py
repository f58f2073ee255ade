"""Requests that ipykernel 7.0 to 7.3 can leave unread, found again.

Such a kernel sends its replies past the stream that reads its shell socket (https://github.com/ipython/ipykernel/issues/1554, mended in 7.4).
A request that comes while a reply goes out may then not be noticed until another client connects: the next cell, and each after it, waits for
ever. Live views make that likelier, for their acknowledgements arrive when a cell ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

EVERY: Final = 0.25  # seconds; a look takes some microseconds


def read_the_unread(kernel: Any) -> Callable[[], None]:
    """Look at the shell socket now and then, on the thread that reads it, if the kernel is one that may overlook requests.

    Parameters
    ----------
    kernel
        The shell's `kernel`, or None in a terminal.

    Returns
    -------
    Callable
        Ends that. To call it twice does no harm.
    """
    thread = getattr(kernel, "shell_channel_thread", None)
    if thread is None or hasattr(thread, "shell_stream"):  # before 7.0, or since 7.4, where replies go through the stream
        return lambda: None

    import zmq  # a kernel has it, a terminal need not

    stream, loop = kernel.shell_stream, thread.io_loop
    ended = False

    def look() -> None:
        if ended or stream.closed():
            return
        loop.call_later(EVERY, look)
        stream.flush(zmq.POLLIN)

    def end() -> None:
        nonlocal ended
        ended = True

    loop.add_callback(look)
    return end
