"""Lines that are only ever added, one JSON object each, in a file with a bound and some older ones. Knows files; imports nothing heavy before its first line."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from cc_executor.store.plain import read_plain

Row = dict[str, Any]


class Trail:
    """One file, to which several servers may write.

    Parameters
    ----------
    root : Path
        The state folder.
    name : str
        Of the file; older ones have a number after it.
    limit : int
        Bytes after which it becomes an older one.
    older : int
        How many older ones are kept.
    """

    def __init__(self, root: Path, name: str, *, limit: int, older: int) -> None:
        self._root = root
        self._path = root / "server" / name
        self._limit = limit
        self._older_ones = older
        self._is_checked = False

    def rows(self) -> Iterator[Row]:
        """What is kept, newest first. Blocking."""
        for path in (self._path, *(self._older(number) for number in range(1, self._older_ones + 1))):
            try:
                lines = read_plain(path, 2 * self._limit).splitlines()
            except OSError:
                continue
            for line in reversed(lines):
                if (row := _row(line)) is not None:
                    yield row

    def append(self, row: Row) -> None:
        """Add a row. Raises `OSError`, `StateUnusable`."""
        line = json.dumps(row).encode("ascii") + b"\n"
        if not self._is_checked:
            from cc_executor.store.home import StateHome

            StateHome(self._root).prepare()  # as for runs: no link, nobody else's, closed to others
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._is_checked = True
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":  # a server was killed, or the disk full, in the midst of a line
                line = b"\n" + line
            os.write(descriptor, line)
            if size + len(line) > self._limit:
                # Another server of this folder does it at this moment, and may have been stopped in its midst; or it has just done it.
                with suppress(BlockingIOError, FileNotFoundError):
                    self._rotate(descriptor)
        finally:
            os.close(descriptor)

    def _older(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _rotate(self, descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the event loop waits for nobody
        if not os.path.samestat(os.fstat(descriptor), self._path.stat()):
            return
        for number in range(self._older_ones, 0, -1):
            newer = self._older(number - 1) if number > 1 else self._path
            if newer.exists():
                newer.replace(self._older(number))


def _row(line: bytes) -> Row | None:
    try:
        row: Any = json.loads(line)
    except ValueError:  # torn
        return None
    return cast("Row", row) if isinstance(row, dict) and isinstance(row.get("at"), str) else None  # pyright: ignore[reportUnknownMemberType] - JSON of our own
