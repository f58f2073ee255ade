"""Which descriptor is whose. Knows poll(2), which every POSIX system has and which is as quick as epoll for a few descriptors."""

from __future__ import annotations

import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

IN: Final = select.POLLIN
OUT: Final = select.POLLOUT
GONE: Final = select.POLLHUP | select.POLLERR | select.POLLNVAL


class Poller:
    """Descriptors and who is told of them."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[int], object]] = {}

    def add(self, fd: int, mask: int, handler: Callable[[int], object]) -> None:
        """Tell `handler` with the event bits."""
        self._handlers[fd] = handler
        self._poll.register(fd, mask)

    def change(self, fd: int, mask: int) -> None:
        """Look for other events."""
        self._poll.modify(fd, mask)

    def remove(self, fd: int) -> None:
        """Forget a descriptor; before it is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def wait(self, seconds: float) -> list[tuple[Callable[[int], object], int, int]]:
        """What happened, after at most `seconds`: handler, descriptor and bits."""
        handlers = self._handlers
        return [(handlers[fd], fd, bits) for fd, bits in self._poll.poll(max(0.0, seconds) * 1000)]

    def dispatch(self, events: list[tuple[Callable[[int], object], int, int]]) -> None:
        """Tell the handlers. One that was removed meanwhile is not told, even if its number was given to another."""
        for handler, fd, bits in events:
            if self._handlers.get(fd) is handler:
                handler(bits)
