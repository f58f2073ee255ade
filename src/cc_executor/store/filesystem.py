"""What the file system of the state folder can do: locks, sockets, one memory for all who open a file. Finds out by trying, or by Linux's list of mounts."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

SOCKET_PATH: Final = 100  # bytes of a Unix socket's path; 104 on macOS, 108 on Linux, less the final NUL

# What a file system answers that does not know the call. Everything else (no room, no right) is told by whoever writes there.
_UNKNOWN: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM})
_MOUNTS: Final = "/proc/self/mountinfo"
# https://docs.kernel.org/filesystems: those that several machines may have mounted. Of FUSE nobody knows: sshfs, GlusterFS and S3 are, NTFS is not.
_NETWORK: Final = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs",
    "pvfs2", "smb3", "smbfs", "wekafs",
})  # fmt: skip


def lacking(folder: Path) -> str | None:
    """What every run needs and the file system of `folder` does not offer, in words; None when it has all of it, or when that cannot be found out."""
    name = f".probe-{secrets.token_hex(8)}"
    try:
        descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        if (reason := _refused(lambda: fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB))) is not None:
            return f"locks ({reason})"
    finally:
        os.close(descriptor)
        _remove(folder / name)
    try:
        if (reason := _refused(lambda: _bind(folder, name))) is not None:
            return f"sockets ({reason})"
    finally:
        _remove(folder / name)
    return None


def is_shared(folder: Path) -> bool:
    """Whether other machines may have `folder` open, too, as far as Linux tells: then no memory is common to all who have."""
    try:
        device = os.stat(folder).st_dev
        lines = Path(_MOUNTS).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    wanted = f"{os.major(device)}:{os.minor(device)}"
    # proc(5): the third field is the device, and the one after " - " the type.
    types = {line.partition(" - ")[2].partition(" ")[0] for line in lines if line.split(" ", 3)[2:3] == [wanted]}
    return any(kind in _NETWORK or kind.partition(".")[0] == "fuse" for kind in types)


@contextmanager
def socket_path(folder: Path, name: str) -> Generator[str]:
    """The path of a socket, however deep its folder lies: a Unix socket's path holds 107 bytes (unix(7))."""
    path = os.path.join(folder, name)
    if len(os.fsencode(path)) <= SOCKET_PATH:
        yield path
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def _refused(attempt: Callable[[], object]) -> str | None:
    """What the file system says, if it does not know what is tried."""
    try:
        attempt()
    except OSError as error:
        return error.strerror if error.errno in _UNKNOWN else None
    return None


def _bind(folder: Path, name: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, socket_path(folder, name) as path:
        probe.bind(path)
        os.chmod(path, 0o600)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
