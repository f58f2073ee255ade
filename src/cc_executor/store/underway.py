"""Checks and hooks that are being made: one small file for each run whose receipt is being sealed, so that what a killed sealer left can be found.

Nobody owns such a command: its run has ended, and its maker is gone. The file is written before it is started and removed after it has ended; both under
the claim that allows one to seal the run. Standard library only, plain files; ends nothing.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from cc_executor.store.place import RUN_ID
from cc_executor.store.plain import read_plain
from cc_executor.store.roll import own_host

FOLDER: Final = "checks"
UNWANTED: Final = "check-unwanted"  # in the run's folder: a person has ended its check, or will have it left out
_NAME_LIMIT: Final = 1024  # bytes of a host's name; Linux allows 64


@contextmanager
def noted(root: Path, run_id: str) -> Generator[None]:
    """Note that a check or a hook of this run is being made, until the end. What cannot be noted is made all the same."""
    with suppress(OSError):
        (root / FOLDER).mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(root / FOLDER / run_id, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, own_host())
        finally:
            os.close(descriptor)
    try:
        yield
    finally:
        forget(root, run_id)


def forget(root: Path, run_id: str) -> None:
    """It has ended."""
    with suppress(OSError):  # it could not be noted, or nothing can be written here
        os.unlink(root / FOLDER / run_id)


def unwant(run: Path) -> None:
    """Have whoever makes the check of a run end it, in whatever process, and whoever would begin it leave it out. `run`: its folder. Raises `OSError`."""
    os.close(os.open(run / UNWANTED, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


def is_unwanted(run: Path) -> bool:
    """Whether somebody has wanted that."""
    return os.path.lexists(run / UNWANTED)


def noted_runs(root: Path) -> list[str]:
    """The runs of this host of which something is being made, or was when its maker was killed."""
    try:
        names = sorted(name for name in os.listdir(root / FOLDER) if RUN_ID.match(name))
    except OSError:  # none was ever made here
        return []
    return [name for name in names if _host(root / FOLDER / name) in {own_host(), b""}]  # empty: torn while it was written


def _host(path: Path) -> bytes | None:
    try:
        return read_plain(path, _NAME_LIMIT)
    except OSError:
        return None
