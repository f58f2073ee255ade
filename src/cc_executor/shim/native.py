"""System calls that Python does not offer, and what stands in for them where the system lacks them. Knows ctypes; knows no run."""

from __future__ import annotations

import ctypes
import errno
import os

TYPE_CHECKING = False  # type checkers take it for True; importing `typing` costs 4 ms of the shim's start
if TYPE_CHECKING:
    from typing import Any, Final

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
PR_SET_CHILD_SUBREAPER: Final = 36
FALLOC_FL_KEEP_SIZE: Final = 1  # linux/falloc.h
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


def _symbol(name: str) -> Any:
    """The C library's function, or None where there is none (macOS has no prctl and no fallocate)."""
    return getattr(_libc, name, None)


_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _symbol("prctl")
_fallocate = _symbol("fallocate")


def adopt_orphans() -> bool:
    """Make this process the one to which orphaned descendants fall. False where the system cannot do that."""
    return _prctl is not None and _prctl(PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0) == 0


def die_with_parent(signum: int) -> bool:
    """Have the kernel send `signum` to this process when the *thread* that forked it ends. False where the system cannot do that."""
    return _prctl is not None and _prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signum), 0, 0, 0) == 0


def reserve(fd: int, size: int) -> bool:
    """Set disk blocks aside up to byte `size` of a file without changing its length.

    Returns
    -------
    bool
        False where the file system or the system cannot do that; writing then works as long as there is room.

    Raises
    ------
    OSError
        ENOSPC or EDQUOT: there is no room.
    """
    if _fallocate is None:
        return False
    if _fallocate(fd, FALLOC_FL_KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(size)) == 0:
        return True
    problem = ctypes.get_errno()
    if problem in _NO_ROOM:
        raise OSError(problem, os.strerror(problem))
    return False


def watch_process(pid: int) -> int | None:
    """A descriptor that polls readable when process `pid` has ended; None where there are none.

    Raises
    ------
    ProcessLookupError
        There is no such process.
    """
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:  # ENOSYS before Linux 5.3, EPERM under some seccomp filters
        return None
