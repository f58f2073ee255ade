"""Undos that were begun and have not ended: one small file for each, with its folders, so that who comes there need not look into every run. Plain files.

A file is written before the undo's record and removed after its end. That a file is there proves nothing: the record says whether the undo has ended.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from cc_executor.store.place import RUN_ID
from cc_executor.store.plain import read_plain, write_whole

FOLDER: Final = "begun"
ROOTS_LIMIT: Final = 2**20  # bytes: 256 of the longest paths that Linux has


def note(path: Path, run_id: str, roots: Iterable[bytes]) -> None:
    """An undo begins. `path`: where snapshots are; `run_id`: the run that has its record. Raises `OSError`."""
    (path / FOLDER).mkdir(mode=0o700, exist_ok=True)
    write_whole(path / FOLDER / run_id, b"\0".join(roots), sync=False)


def forget(path: Path, run_id: str) -> None:
    """It has ended."""
    with suppress(OSError):  # then its record tells so
        os.unlink(path / FOLDER / run_id)


def noted(path: Path) -> Iterator[tuple[str, tuple[bytes, ...]]]:
    """The runs with the records, and the folders."""
    try:
        names = sorted(name for name in os.listdir(path / FOLDER) if RUN_ID.match(name))
    except OSError:  # none was ever begun here
        return
    for name in names:
        with suppress(OSError):  # it has ended at this moment
            yield name, tuple(read_plain(path / FOLDER / name, ROOTS_LIMIT).split(b"\0"))
