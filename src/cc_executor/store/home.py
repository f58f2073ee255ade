"""The folder that keeps the runs of one user: where it is, whether it is safe, which runs it holds.

Plain synchronous files. Knows the record format's file names; knows nothing of agents, clocks or loops.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from cc_executor.errors import RunNotFound, StateUnusable
from cc_executor.model.request import RunId
from cc_executor.store.journal import RunFolder

STATE_VARIABLE: Final = "CC_EXECUTOR_STATE"
# 12 hex digits of milliseconds, so that names sort by start, and 14 random ones. `\Z`, not `$`: the latter allows a final newline.
RUN_ID: Final = re.compile(r"[0-9a-f]{26}\Z")
_SHORTEST_PREFIX: Final = 4


def state_path(environ: Mapping[str, str]) -> Path:
    """Where runs are kept: `CC_EXECUTOR_STATE`, or `cc-executor` under `XDG_STATE_HOME` or `~/.local/state`."""
    chosen = environ.get(STATE_VARIABLE)
    if chosen:
        return Path(os.path.expanduser(chosen))
    base = environ.get("XDG_STATE_HOME") or os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".local", "state")
    return Path(base) / "cc-executor"


def new_run_id(now: float) -> RunId:
    """A fresh id. `now`: seconds since the epoch."""
    return RunId(f"{int(now * 1000):012x}{secrets.token_hex(7)}")


class StateHome:
    """The runs of one user.

    Parameters
    ----------
    root : Path
        The state folder, seen from the current one. Made on first use with mode 0700; refused when it is a link, somebody else's, or open to others.

    Raises
    ------
    StateUnusable
        The path is relative, and there is no current folder.
    """

    def __init__(self, root: Path) -> None:
        try:
            self.root = Path(os.path.abspath(root))
        except FileNotFoundError:
            raise StateUnusable(
                f"The state folder {root} is relative, and the current folder does not exist any more. Set {STATE_VARIABLE} to an absolute path."
            ) from None

    @property
    def runs_path(self) -> Path:
        """The folder that has one folder for each run."""
        return self.root / "runs"

    def prepare(self) -> None:
        """Make the folders if need be, and check that they can be used safely.

        Raises
        ------
        StateUnusable
            Not a folder, a symbolic link, another user's, open to others, or not writable.
        """
        cure = f"Mend it, or set {STATE_VARIABLE} to a folder of your own."
        for path in (self.root, self.runs_path):
            try:
                with contextlib.suppress(FileExistsError):  # whatever stands there is looked at below
                    path.mkdir(mode=0o700, parents=True)
                status = path.lstat()
            except (OSError, ValueError) as error:  # ValueError: a NUL
                reason = error.strerror if isinstance(error, OSError) else str(error)
                raise StateUnusable(f"The state folder {path} cannot be made or read: {reason}. {cure}") from error
            if not stat.S_ISDIR(status.st_mode):
                what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "a file"
                raise StateUnusable(f"The state folder {path} is not a plain folder: {what} stands there. {cure}")
            if status.st_uid != os.getuid():
                raise StateUnusable(f"The state folder {path} belongs to another user (uid {status.st_uid}). {cure}")
            if status.st_mode & 0o077:
                raise StateUnusable(
                    f"The state folder {path} is open to others (mode {stat.S_IMODE(status.st_mode):o}). `chmod 700 {path}` mends it."
                )
            if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
                raise StateUnusable(f"The state folder {path} cannot be read and written. {cure}")

    def create(self, run_id: RunId) -> RunFolder:
        """A new run's folder. Making the folder is the atomic claim on the id.

        Raises
        ------
        StateUnusable
            The folder is unsafe or full, or the id is taken.
        """
        self.prepare()
        path = self.runs_path / run_id
        try:
            path.mkdir(mode=0o700)
        except OSError as error:
            raise StateUnusable(f"The run's folder {path} cannot be made: {error.strerror}.") from error
        return RunFolder(path)

    def find(self, run_id: str) -> RunFolder:
        """The run with this id, or with this unambiguous beginning or ending of one (at least four characters).

        Raises
        ------
        RunNotFound
            No such run, or several.
        """
        wanted = run_id.strip().lower()
        if RUN_ID.match(wanted):
            folder = self.runs_path / wanted
            if folder.is_dir():
                return RunFolder(folder)
        elif re.fullmatch(r"[0-9a-f]+", wanted) and len(wanted) >= _SHORTEST_PREFIX:
            matches = [run for run in self.runs() if run.run_id.startswith(wanted) or run.run_id.endswith(wanted)]
            if len(matches) == 1:
                return matches[0]
            if matches:
                raise RunNotFound(f"{len(matches)} runs match {run_id!r}: write more of the id.")
        raise RunNotFound(f"There is no run {run_id!r} in {self.root}. `%cc list` or `cc-executor list` shows what there is.")

    def runs(self) -> Iterator[RunFolder]:
        """Every run, newest first. Empty when nothing was ever run."""
        try:
            names = sorted((name for name in os.listdir(self.runs_path) if RUN_ID.match(name)), reverse=True)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StateUnusable(f"The state folder {self.runs_path} cannot be read: {error.strerror}.") from error
        for name in names:
            yield RunFolder(self.runs_path / name)
