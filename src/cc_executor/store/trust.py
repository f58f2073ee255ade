"""The folders whose own settings may take effect: one small file in the state folder. Knows folders; knows no agent and asks nobody.

A folder is known by its real path, inode, owner and time of birth. One that was removed and made anew, moved or handed to somebody else is another folder,
and is not trusted. What is *in* a trusted folder may change: trust is in whoever writes there.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from contextlib import suppress
from typing import Any, Final, cast

import msgspec
from msgspec.structs import asdict

from cc_executor.errors import InvalidRequest, StateUnusable
from cc_executor.store.home import StateHome
from cc_executor.store.lock import locked
from cc_executor.store.plain import read_plain, write_whole

TRUSTED: Final = "trusted.json"
LOCK: Final = "trusted.lock"  # or of two who write at once the one brings back what the other has taken away
FOLDERS: Final = 1000
_LIMIT: Final = 8 * 1024 * 1024  # bytes: as many entries with the longest paths that there are
_AT_FDCWD: Final = -100  # statx(2), and its layout: linux/stat.h
_STATX_BTIME: Final = 0x800


class Trusted(msgspec.Struct, frozen=True):
    """A folder as it was when it was trusted. `born`: nanoseconds since the epoch; 0 where the file system does not say."""

    path: str
    inode: int
    owner: int
    born: int

    @classmethod
    def of(cls, folder: str) -> Trusted:
        """The folder as it is now.

        Raises
        ------
        InvalidRequest
            There is no such folder.
        """
        try:
            path = os.path.realpath(folder, strict=True)
            status = os.stat(path)
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"The folder {folder} cannot be found ({getattr(error, 'strerror', None) or error}).") from error
        if not os.path.isdir(path):
            raise InvalidRequest(f"{folder} is not a folder: name the one in which the agent works.")
        return cls(path, status.st_ino, status.st_uid, _born(path, status))


class TrustList:
    """The trusted folders of one user."""

    def __init__(self, home: StateHome) -> None:
        self._home = home
        self._file = home.root / TRUSTED

    def folders(self) -> list[Trusted]:
        """What was trusted, by path; some of it may not be there any more.

        Raises
        ------
        StateUnusable
            The state folder or the file is not as we write it.
        """
        self._home.check()
        try:
            found: Any = json.loads(read_plain(self._file, _LIMIT))
            return [_entry(each) for each in found["folders"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise StateUnusable(
                f"The list of trusted folders {self._file} cannot be read ({getattr(error, 'strerror', None) or 'it is damaged'}): no folder is trusted. "
                "Remove it, and trust your folders again."
            ) from error

    def holds(self, folder: str) -> bool:
        """Whether this very folder is trusted. When in doubt it is not."""
        try:
            path = os.path.realpath(folder, strict=True)
            return any(known.path == path and known == Trusted.of(path) for known in self.folders())
        except (OSError, ValueError, StateUnusable):  # InvalidRequest is a ValueError
            return False

    def add(self, folder: str) -> Trusted:
        """Trust a folder as it is now.

        Raises
        ------
        InvalidRequest, StateUnusable
        """
        entry = Trusted.of(folder)
        self._home.prepare()
        with locked(self._home.root / LOCK):
            others = [known for known in self.folders() if known.path != entry.path]
            if len(others) >= FOLDERS:
                raise InvalidRequest(f"{FOLDERS} folders are trusted already. Take some back first.")
            self._write([*others, entry])
        return entry

    def remove(self, folder: str) -> str | None:
        """Take the trust in a folder back, also in one that is gone; its path, or None when it was not trusted. Raises `StateUnusable`."""
        names = {os.path.abspath(folder), os.path.realpath(folder)}
        self._home.prepare()
        with locked(self._home.root / LOCK):
            known = self.folders()
            left = [each for each in known if each.path not in names]
            if len(left) == len(known):
                return None
            self._write(left)
        return next(each.path for each in known if each.path in names)

    def _write(self, entries: list[Trusted]) -> None:
        folders = [asdict(entry) for entry in sorted(entries, key=lambda entry: entry.path)]
        try:
            write_whole(self._file, json.dumps({"folders": folders}, indent=1).encode())
        except OSError as error:
            raise StateUnusable(f"The list of trusted folders {self._file} cannot be written: {error.strerror}.") from error


def _entry(value: Any) -> Trusted:
    fields = cast("dict[str, Any]", value)
    entry = Trusted(fields["path"], fields["inode"], fields["owner"], fields["born"])
    if not isinstance(entry.path, str) or not all(type(number) is int for number in (entry.inode, entry.owner, entry.born)):  # pyright: ignore[reportUnnecessaryIsInstance] - it was read from a file
        raise TypeError
    return entry


def _born(path: str, status: os.stat_result) -> int:
    """Nanoseconds. File systems give the inode of a folder that was removed to the next one at once, so the inode alone says little."""
    if sys.platform == "darwin":
        return int(cast("Any", status).st_birthtime * 1e9)
    answer = ctypes.create_string_buffer(256)
    with suppress(AttributeError, OSError):  # a C library without statx (before 2018)
        if ctypes.CDLL(None).statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, answer):
            return 0
    number = answer.raw
    if not int.from_bytes(number[:4], sys.byteorder) & _STATX_BTIME:
        return 0
    return int.from_bytes(number[80:88], sys.byteorder) * 10**9 + int.from_bytes(number[88:92], sys.byteorder)
