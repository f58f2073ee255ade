"""Who started what, where a server is reached by several people: one small file for each run and each task list. Knows names; decides nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from cc_executor.store.lock import locked
from cc_executor.store.plain import read_plain, unwritable

FOLDER: Final = Path("server", "owners")  # in the state folder
NAME_LIMIT: Final = 1024  # bytes


def _lock(root: Path) -> Path:
    return (root / FOLDER).with_suffix(".lock")


def claim(root: Path, name: str, owner: str) -> None:
    """Write down whose a run or list will be, before there is one. What is claimed already stays as it is.

    Parameters
    ----------
    root : Path
        The state folder.
    name : str
        An id.
    owner : str

    Raises
    ------
    StateUnusable
    """
    folder = root / FOLDER
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(owner.encode("utf-8", "surrogatepass")[:NAME_LIMIT])
        except OSError:  # the disk is full; an empty name would be somebody else's, and keep the list for ever
            (folder / name).unlink()
            raise
    except OSError as error:
        if isinstance(error, FileExistsError):  # a server died before it could start what it had promised
            with locked(_lock(root)), suppress(OSError):
                if owner_of(root, name) == owner:
                    os.utime(folder / name)  # promised anew: whoever sweeps leaves it until there is a run
                    return
        raise unwritable(folder, error) from error


def owner_of(root: Path, name: str) -> str | None:
    """Who started a run or list through a server; None when it was started elsewhere."""
    try:
        return read_plain(root / FOLDER / name, NAME_LIMIT).decode("utf-8", "surrogatepass")
    except (OSError, UnicodeDecodeError):
        return None


def inherit(root: Path, name: str, *, of: str) -> None:
    """Let a run belong to whom the list belongs that it is of, if that one belongs to somebody. Raises `StateUnusable`."""
    owner = owner_of(root, of)
    if owner is not None:
        claim(root, name, owner)


def sweep(root: Path, is_gone: Callable[[str], bool], *, before: float) -> None:
    """Forget whose the runs and lists were that are gone.

    Parameters
    ----------
    root : Path
        The state folder.
    is_gone : callable
        Takes an id.
    before : float
        Seconds since the epoch; what was claimed later than that stays, for it may be about to begin.

    Raises
    ------
    StateUnusable
    """
    try:
        paths = list((root / FOLDER).iterdir())
    except OSError:  # no server has started anything here
        return
    for path in paths:
        with suppress(OSError):  # gone at this moment
            if path.lstat().st_mtime < before and is_gone(path.name):
                with locked(_lock(root)):
                    if path.lstat().st_mtime < before and is_gone(path.name):
                        path.unlink()
