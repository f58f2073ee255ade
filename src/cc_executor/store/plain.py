"""Opening a file of ours, and only that; and leaving one that is whole.

The agent runs as the same user and can write here: a link, a pipe or a device in place of a file is refused, not followed and not waited for, and what is
read whole has a bound.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from cc_executor.errors import StateUnusable
from cc_executor.store.held import held_here, taken_within

# Bytes. The largest by far is the request, whose prompt of 10 MB may be escaped to six times its size.
SMALL: Final = 64 * 1024 * 1024
PATIENCE: Final = 5.0  # seconds for another writer of a line, who needs some microseconds


def open_plain(path: Path | str) -> int:
    """A descriptor for reading a plain file.

    Raises
    ------
    FileNotFoundError
        There is nothing.
    OSError
        Something else than a plain file stands there, or it cannot be read; `strerror` says what.
    """
    try:
        # Not blocking: opening a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "a symbolic link stands there", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "what stands there is no plain file", str(path))
    return descriptor


def read_plain(path: Path, limit: int = SMALL) -> bytes:
    """A plain file, whole.

    Raises
    ------
    FileNotFoundError
        There is nothing.
    OSError
        As for `open_plain`, or it is larger than `limit` bytes.
    """
    with open(open_plain(path), "rb") as file:
        # As much as there is: Python asks for the memory of all that may come.
        size = min(os.fstat(file.fileno()).st_size, limit)
        data = file.read(size + 1)
        if len(data) > size:  # it has grown meanwhile
            data += file.read(limit + 1 - len(data))
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit:,} bytes", str(path))
    return data


def write_whole(path: Path, data: bytes, *, sync: bool = True, first_stays: bool = False) -> None:
    """Write a file whole or not at all, 0600; what stood there is replaced, or, if `first_stays`, stays. `sync`: it is on the disk when this returns.

    Raises
    ------
    OSError
        It cannot be written, or there is no room; then nothing is left of it.
    """
    part = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        if not first_stays or not _linked(part, path):
            os.replace(part, path)
    except OSError:
        with suppress(OSError):
            os.unlink(part)
        raise


def _linked(part: Path, path: Path) -> bool:
    """Give a file its name, unless there is one of that name, which a rename would replace. False where that cannot be done."""
    try:
        os.link(part, path)
    except OSError:  # a file system without hard links, or something stands there
        if not path.exists():  # a link that leads nowhere is no file, either
            return False
    os.unlink(part)
    return True


def unwritable(what: Path | str, error: OSError) -> StateUnusable:
    """What is told when something of ours cannot be written that comes before a start."""
    return StateUnusable(f"{what} cannot be written: {error.strerror}. Nothing was started; make room, or mend the folder.")


def append_line(path: Path, line: bytes, *, after: int | None = None) -> int | None:
    """Add a line, which ends with a newline, to a file; on the disk when this returns. From any process: lines of several writers do not mix.

    A line that a killed writer left unfinished is ended first.

    Parameters
    ----------
    after : int, optional
        Bytes that the writer knows of. When somebody has added a line to them, nothing is added.

    Returns
    -------
    int or None
        Bytes of the file with the line; None when nothing was added.

    Raises
    ------
    OSError
        It cannot be written, there is no room, or another process has held it for `PATIENCE` seconds; then nothing was added.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with held_here(descriptor):
        if not taken_within(descriptor, PATIENCE):
            raise OSError(errno.EBUSY, f"another process has held it for {PATIENCE:.0f} s; let it go on, or end it", str(path))
        size = os.fstat(descriptor).st_size
        if after is not None and b"\n" in os.pread(descriptor, max(0, size - after), after):
            return None
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line
        if os.write(descriptor, line) != len(line):
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, "there is no room", str(path))
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # whoever waits for it need not wait for our disk
        os.fsync(descriptor)
        return size + len(line)
