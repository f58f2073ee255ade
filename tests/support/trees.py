"""Folders for the tests of undo: an independent look at them, and looks before and after some work without an agent."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from cc_executor.api import make_request
from cc_executor.model.request import RunRequest
from cc_executor.runtime.snapshot import take_after, take_before
from cc_executor.store.home import StateHome, new_run_id
from cc_executor.store.journal import RunFolder

Walk = dict[bytes, tuple[str, int, bytes]]


def walk(root: Path) -> Walk:
    """Everything below a folder: kind, mode, and content or target. Written without a line of what it checks."""
    found: Walk = {}
    for folder, folders, files in os.walk(os.fsencode(root)):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                what = ("link", 0, os.fsencode(Path(os.fsdecode(path)).readlink()))
            elif stat.S_ISDIR(status.st_mode):
                what = ("folder", stat.S_IMODE(status.st_mode), b"")
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    what = ("file", stat.S_IMODE(status.st_mode), file.read())
            else:
                what = ("special", status.st_mode, b"")
            found[os.path.relpath(path, os.fsencode(root))] = what
    return found


def begun(home: StateHome, root: Path, **options: object) -> tuple[RunFolder, RunRequest]:
    """A run's folder with its look before, as a launch makes it."""
    request = make_request("true", agent="shell", cwd=root, **{"undo": True, **options})
    folder = home.create(new_run_id(time.time()))
    take_before(request, folder, home=home, environ=os.environ)
    return folder, request


def ended(folder: RunFolder, request: RunRequest, *, at: float | None = None, claimed: tuple[str, ...] = ()) -> str:
    """The look after it, as the seal makes it; returns the run's id."""
    take_after(request, folder, ended_at=time.time() if at is None else at, claimed=claimed, environ=os.environ)
    return folder.run_id


def worked(home: StateHome, root: Path, work: Callable[[], object], **options: object) -> str:
    """A run that did `work`; returns its id."""
    folder, request = begun(home, root, **options)
    work()
    return ended(folder, request)
