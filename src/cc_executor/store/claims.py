"""Who works in which folder, and who undoes something there: what every process says of it, and what the others find. Plain files.

A run that works in a folder has a file in `working/` until it has ended. Who begins one there, or undoes something there, says so in `locks/` with a file
that its process holds the lock of, so that nobody's word outlives him.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Collection, Generator, Iterable
from pathlib import Path
from typing import Final

from cc_executor.shim import records
from cc_executor.store import roll
from cc_executor.store.held import LOOK, held_here
from cc_executor.store.lock import locked
from cc_executor.store.place import RUN_ID
from cc_executor.store.plain import read_plain, write_whole

UNDO: Final = "undo"
START: Final = "start"
FOLDERS: Final = ("working", "locks")
SAID_LIMIT: Final = 16 * 2**20  # bytes of one file: thousands of the longest paths that Linux has


class Claims:
    """What is said of folders by the processes of one user.

    Parameters
    ----------
    path : Path
        Where `FOLDERS` lie.
    runs : Path
        Where the runs' folders lie.
    """

    def __init__(self, path: Path, *, runs: Path) -> None:
        self._working, self._locks = (path / name for name in FOLDERS)
        self._runs = runs

    def at_work(self, root: bytes) -> list[str]:
        """The runs that have not ended and work in a folder, above it or below it."""
        return [name for name, other in self.working() if overlap(root, other) and not self._has_ended(name)]

    def enter(self, run_id: str, root: bytes, *, met: Iterable[str] = ()) -> None:
        """Say that a run works in a folder, to those that do so, too; `met`: those that did when the look before it began. Raises `OSError`."""
        own = self._working / run_id
        write_whole(own, root + b"\0" + "".join(f"{name}\n" for name in met).encode(), sync=False)
        # Looked for after our own file is there: of two that come at once, one at least sees the other, and tells it.
        for name in self.at_work(root):
            if name != run_id:
                for path, other in ((own, name), (self._working / name, run_id)):
                    with contextlib.suppress(OSError):
                        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
                        with open(descriptor, "wb", buffering=0) as file:
                            file.write(f"{other}\n".encode())

    def _has_ended(self, run_id: str) -> bool:
        return (self._runs / run_id / records.EXIT).exists()

    def working(self) -> list[tuple[str, bytes]]:
        """The runs that work now, with their folders. Those that were lost and not sealed yet are among them."""
        found: list[tuple[str, bytes]] = []
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._working):
                with contextlib.suppress(OSError):
                    if not RUN_ID.match(name):
                        continue
                    if not (self._runs / name).is_dir():
                        os.unlink(self._working / name)  # it was never started, or was removed
                        continue
                    found.append((name, read_plain(self._working / name, SAID_LIMIT).partition(b"\0")[0]))
        return found

    def met(self, run_id: str) -> tuple[str, ...]:
        """The runs that a run has met in its folder."""
        with contextlib.suppress(OSError):
            names = read_plain(self._working / run_id, SAID_LIMIT).partition(b"\0")[2].decode("ascii", "replace").split()
            return tuple(dict.fromkeys(name for name in names if RUN_ID.match(name)))
        return ()

    def leave(self, run_id: str) -> None:
        """Say that a run works no more."""
        with contextlib.suppress(OSError):
            os.unlink(self._working / run_id)

    def undone_now(self) -> list[bytes]:
        """The folders in which somebody undoes something at this moment. Raises `OSError`, `StateUnusable`."""
        with locked(self._locks / "door"):
            said = [_still_said(self._locks / name) for name in os.listdir(self._locks) if name.startswith(UNDO)]
        return [root for theirs in said for root in theirs.split(b"\0") if root]

    @contextlib.contextmanager
    def undoing(self, roots: Collection[bytes]) -> Generator[tuple[str, bytes] | None]:
        """Be the only one who undoes something in folders, above or below them, while no run begins there.

        Gives what somebody else does there instead (`UNDO`, `START`) and the folder; mostly None. Raises `OSError`, `StateUnusable`.
        """
        with contextlib.ExitStack() as stack:
            yield self._said(stack, UNDO, roots, against=(UNDO, START))

    @contextlib.contextmanager
    def beginning(self, root: bytes, *, patience: float, is_over: Callable[[], bool]) -> Generator[bool]:
        """Let nobody undo anything in a folder, above or below it, for as long as the block lasts. False: somebody does, and goes on still.

        Parameters
        ----------
        patience : float
            Seconds for which somebody's undo is waited for.
        is_over : callable
            Whether nobody wants to wait any more.

        Raises
        ------
        OSError, StateUnusable
        """
        until = time.monotonic() + patience
        with contextlib.ExitStack() as stack:
            while self._said(stack, START, (root,), against=(UNDO,)):
                if time.monotonic() >= until or is_over():
                    yield False
                    return
                time.sleep(LOOK)  # of the end of another process's undo no event tells; this is never where a loop runs
            yield True

    def _said(
        self, stack: contextlib.ExitStack, what: str, roots: Collection[bytes], *, against: Collection[str]
    ) -> tuple[str, bytes] | None:
        """Say to all processes what is done in folders until the stack is closed, unless somebody says something else of them: then that."""
        with locked(self._locks / "door"):
            for name in os.listdir(self._locks):
                other = name.partition("-")[0]
                if other in against and (theirs := _still_said(self._locks / name)):
                    for root in theirs.split(b"\0"):
                        if any(overlap(root, mine) for mine in roots):
                            return other, root
            path = self._locks / f"{what}-{secrets.token_hex(8)}"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            stack.enter_context(held_here(descriptor))
            stack.callback(_forget, path)  # before the lock is given back
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(OSError):  # a disk that is full: then nobody can tell where, and it holds for every folder
                os.write(descriptor, b"\0".join(roots))
        return None


def _forget(path: Path) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _still_said(path: Path) -> bytes:
    """The folders of a file of `_said`; nothing where whoever has written it is gone, and then it goes, too. To be called behind the door."""
    with contextlib.suppress(FileNotFoundError):  # its work has ended at this moment
        if roll.is_held(path):
            return read_plain(path, SAID_LIMIT) or b"/"
        _forget(path)
    return b""


def overlap(one: bytes, other: bytes) -> bool:
    """Whether one of two folders is the other, or lies in it. Absolute paths."""
    return one == other or one.startswith(other.rstrip(b"/") + b"/") or other.startswith(one.rstrip(b"/") + b"/")
