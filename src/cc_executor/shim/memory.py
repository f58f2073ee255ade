"""How often the system has ended a process of this control group for want of memory. Knows Linux's two layouts; elsewhere nobody counts."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MEMBERSHIP: Final = "/proc/self/cgroup"  # cgroups(7): lines of `number:controllers:path`
ROOT: Final = "/sys/fs/cgroup"
# Mount point below `ROOT`, file: version 2, version 1. Both files have a line `oom_kill N` (since Linux 4.13), which counts the groups below, too, in version 2.
UNIFIED: Final = ("", "memory.events")
LEGACY: Final = ("/memory", "memory.oom_control")
LIMIT: Final = 4096  # bytes; either file has some hundred


class OomKills:
    """Counts from its making on.

    Parameters
    ----------
    membership, root : str
        Where the system tells of control groups.
    """

    def __init__(self, membership: str = MEMBERSHIP, root: str = ROOT) -> None:
        self._path = _counter(_read(membership).decode("utf-8", "surrogateescape"), root)
        self._before = self._count()

    def since(self) -> int:
        """How many processes were ended since; 0 where nobody counts."""
        return max(0, self._count() - self._before)

    def _count(self) -> int:
        for line in _read(self._path).splitlines():
            name, _, count = line.partition(b" ")
            if name == b"oom_kill":
                return int(count)
        return 0


def _counter(membership: str, root: str) -> str:
    """The file that counts for this process; empty where there is none."""
    for line in membership.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if "memory" in controllers.split(","):
            mount, name = LEGACY
        elif number == "0" and not controllers:
            mount, name = UNIFIED
        else:
            continue
        # A container that sees its own group as the root of all may be told the name that the host knows.
        for path in (f"{root}{mount}{group.rstrip('/')}/{name}", f"{root}{mount}/{name}"):
            if b"oom_kill " in _read(path):
                return path
    return ""


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, LIMIT)
    except OSError:
        return b""
    finally:
        os.close(fd)
