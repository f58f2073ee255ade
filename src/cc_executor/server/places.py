"""Places that are held for runs which are about to begin, seen by all servers of a state folder. Knows locked files; knows no rules.

A place is a small file that whoever holds it keeps locked. So nothing has to be told of a server that died: its places are nobody's, and are removed by
whoever looks next.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec.structs import asdict

from cc_executor.errors import StateUnusable
from cc_executor.store.lock import locked
from cc_executor.store.plain import read_plain, unwritable
from cc_executor.store.roll import is_held

_BYTES: Final = 64 * 1024  # of one file: a name and a number


class Place(msgspec.Struct, frozen=True):
    """What is held for a run: a place among its owner's, and dollars (0: it spends none; None: no bound of its own)."""

    owner: str
    cost: float | None


class Places:
    """Those of one state folder. `root`: the folder. All but `release` are for a `turn`, and block."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "server" / "places"
        self._mine: dict[str, int] = {}  # name → the descriptor that holds the lock

    def turn(self) -> AbstractContextManager[None]:
        """A block in which nobody else looks or holds. Raises `StateUnusable`."""
        return locked(self._folder.with_suffix(".lock"))

    def all(self) -> dict[str, Place]:
        """What is held by servers that live, this one too, by name."""
        found: dict[str, Place] = {}
        for path in list(self._folder.glob("*")):
            try:
                if is_held(path):
                    found[path.name] = _read(path)
                else:  # its server is gone
                    path.unlink(missing_ok=True)
            except OSError:  # let go of at this moment, or no file of ours
                continue
        return found

    def hold(self, name: str, place: Place) -> None:
        """Hold a place until `release`, or until this process ends. Raises `StateUnusable`, also when it is held already."""
        path = self._folder / name
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise StateUnusable("This run is being started at this moment. Ask again.") from None
        except OSError as error:
            raise unwritable(self._folder, error) from error
        self._mine[name] = descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(descriptor, json.dumps(asdict(place)).encode("ascii"))
        except OSError as error:
            self.release(name)
            raise unwritable(self._folder, error) from error

    def release(self, name: str) -> None:
        """Let go of a place, if it is held here."""
        descriptor = self._mine.pop(name, None)
        if descriptor is not None:
            with suppress(OSError):  # then whoever looks next removes it, for nobody holds it
                (self._folder / name).unlink()
            os.close(descriptor)

    def is_mine(self, name: str) -> bool:
        """Whether it is held here."""
        return name in self._mine


def _read(path: Path) -> Place:
    try:
        told: Any = json.loads(read_plain(path, _BYTES))
        return Place(str(told["owner"]), None if told["cost"] is None else float(told["cost"]))
    except (ValueError, KeyError, TypeError) as error:
        raise OSError(str(error)) from error
