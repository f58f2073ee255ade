"""The folder that keeps the runs of one user: where it is, whether it is safe, which runs it holds.

Plain synchronous files. Knows the record format's file names; knows nothing of agents, clocks or loops.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from cc_executor.errors import InvalidRequest, RunNotFound, StateUnusable
from cc_executor.model.paths import EMPTY
from cc_executor.model.request import RunId
from cc_executor.store import roll
from cc_executor.store.filesystem import lacking
from cc_executor.store.journal import RunFolder
from cc_executor.store.place import RUN_ID, RUNS, STATE_VARIABLE, state_path
from cc_executor.store.plain import unwritable

__all__ = ["RUN_ID", "STATE_VARIABLE", "StateHome", "home_named", "new_run_id", "state_path"]

_SHORTEST_PREFIX: Final = 4
_able: Final[set[tuple[int, int]]] = set()  # device and inode of state folders that have all that runs need
_CURE: Final = f"Mend it, or set {STATE_VARIABLE} to a folder of your own."


def new_run_id(now: float) -> RunId:
    """A fresh id. `now`: seconds since the epoch."""
    return RunId(f"{int(now * 1000):012x}{secrets.token_hex(7)}")


def home_named(state: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> StateHome:
    """The state folder that a caller names, or the usual one.

    Raises
    ------
    InvalidRequest
        What is named is no path, or empty: that would be the current folder, in which nobody has meant to keep runs and a key.
    StateUnusable
        As for `StateHome` and `state_path`.
    """
    if state is None:
        return StateHome(state_path(environ))
    try:
        named = os.fsdecode(state)
    except TypeError:
        raise InvalidRequest(f"state must be a path, not {type(state).__name__}.") from None
    if not named:
        raise InvalidRequest(f"state {EMPTY}")
    return StateHome(Path(named))


class StateHome:
    """The runs of one user.

    Parameters
    ----------
    root : Path
        The state folder, seen from the current one; ``~`` is the home folder. Made on first use with mode 0700; refused when it is a link, somebody
        else's, or open to others.

    Raises
    ------
    StateUnusable
        The path is relative, and there is no current folder; or it begins with a ``~`` that stands for none.
    """

    def __init__(self, root: Path) -> None:
        path = os.path.expanduser(root)
        if path.startswith("~"):
            raise StateUnusable(
                f"The state folder {path} cannot be found: that home folder is not known. Set {STATE_VARIABLE} to an absolute path."
            )
        try:
            self.root = Path(os.path.abspath(path))
        except FileNotFoundError:
            raise StateUnusable(
                f"The state folder {root} is relative, and the current folder does not exist any more. Set {STATE_VARIABLE} to an absolute path."
            ) from None

    @property
    def runs_path(self) -> Path:
        """The folder that has one folder for each run."""
        return self.root / RUNS

    def prepare(self) -> None:
        """Make the folders if need be, and check that they can be used safely.

        Raises
        ------
        StateUnusable
            Not a folder, a symbolic link, another user's, open to others, not writable, or on a file system that cannot keep runs.
        """
        for path in (self.root, self.runs_path):
            try:
                with contextlib.suppress(FileExistsError):  # whatever stands there is looked at below
                    path.mkdir(mode=0o700, parents=True)
            except (OSError, ValueError) as error:  # ValueError: a NUL
                reason = error.strerror if isinstance(error, OSError) else str(error)
                raise StateUnusable(f"The state folder {path} cannot be made or read: {reason}. {_CURE}") from error
            _check(path)  # before anything is made in it
            if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
                raise StateUnusable(f"The state folder {path} cannot be read and written. {_CURE}")
        _check_abilities(self.root)

    def check(self) -> None:
        """Refuse folders in which somebody else could have put something: what is read here is answered, obeyed and shown. Those that are missing are none.

        Raises
        ------
        StateUnusable
            Not a folder, a symbolic link, another user's, or open to others.
        """
        for path in (self.root, self.runs_path):
            if not _check(path):
                return

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
            roll.enter(self.root, run_id)
        except OSError as error:
            raise unwritable(f"The state folder {self.root}", error) from error
        try:
            path.mkdir(mode=0o700)
        except OSError as error:
            roll.strike(self.root, run_id)
            raise StateUnusable(
                f"The run's folder {path} cannot be made: {error.strerror}. Nothing was started; make room, or mend the folder."
            ) from error
        return RunFolder(path)

    def discard(self, run_id: RunId) -> None:
        """Forget a run of which nothing was started: a folder without a run would be listed as lost."""
        shutil.rmtree(self.runs_path / run_id, ignore_errors=True)
        roll.strike(self.root, run_id)

    def folder(self, run_id: str) -> RunFolder:
        """The folder of a run whose id is known whole, there or not."""
        return RunFolder(self.runs_path / run_id)

    def find(self, run_id: str) -> RunFolder:
        """The run with this id, or with this unambiguous beginning or ending of one (at least four characters).

        Raises
        ------
        RunNotFound
            No such run, or several.
        StateUnusable
            As for `check`.
        """
        self.check()
        wanted = run_id.strip().lower()
        if RUN_ID.match(wanted):
            folder = self.runs_path / wanted
            if _is_real_folder(folder):
                return RunFolder(folder)
        elif re.fullmatch(r"[0-9a-f]+", wanted):
            if len(wanted) < _SHORTEST_PREFIX:
                raise RunNotFound(f"{run_id!r} is too little of a run's id: write at least {_SHORTEST_PREFIX} characters of it.")
            matches = [run for run in self.runs() if run.run_id.startswith(wanted) or run.run_id.endswith(wanted)]
            if len(matches) == 1:
                return matches[0]
            if matches:
                raise RunNotFound(f"{len(matches)} runs match {run_id!r}: write more of the id.")
        raise RunNotFound(f"There is no run {run_id!r} in {self.root}. `%cc list` or `cc-executor list` shows what there is.")

    def pick(self, run_id: str) -> RunFolder:
        """As `find`; without an id the newest run."""
        folder = self.find(run_id) if run_id else next(self.runs(), None)
        if folder is None:
            raise RunNotFound("Nothing was run yet.")
        return folder

    def runs(self) -> Iterator[RunFolder]:
        """Every run, newest first. Empty when nothing was ever run.

        Raises
        ------
        StateUnusable
            The folder is not safe, or cannot be read.
        """
        self.check()
        try:
            with os.scandir(self.runs_path) as entries:
                names = sorted(
                    (entry.name for entry in entries if RUN_ID.match(entry.name) and entry.is_dir(follow_symlinks=False)), reverse=True
                )
        except FileNotFoundError:
            return
        except OSError as error:
            raise StateUnusable(f"The state folder {self.runs_path} cannot be read: {error.strerror}.") from error
        for name in names:
            yield RunFolder(self.runs_path / name)


def _check(path: Path) -> bool:
    """Whether something is there; what is there must be safe."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StateUnusable(f"The state folder {path} cannot be made or read: {reason}. {_CURE}") from error
    if not stat.S_ISDIR(status.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "a file"
        raise StateUnusable(f"The state folder {path} is not a plain folder: {what} stands there. {_CURE}")
    if status.st_uid != os.getuid():
        raise StateUnusable(f"The state folder {path} belongs to another user (uid {status.st_uid}). {_CURE}")
    if status.st_mode & 0o077:
        raise StateUnusable(
            f"The state folder {path} is open to others (mode {stat.S_IMODE(status.st_mode):o}). `chmod 700 {shlex.quote(str(path))}` mends it, unless its "
            f"file system keeps no modes: then set {STATE_VARIABLE} to a folder on a local disk."
        )
    return True


def _check_abilities(root: Path) -> None:
    """Refuse a file system on which a run could not be owned or spoken to. Tried once in a process, at the cost of some system calls."""
    status = root.stat()
    if (known := (status.st_dev, status.st_ino)) in _able:
        return
    if (what := lacking(root)) is not None:
        raise StateUnusable(
            f"The state folder {root} lies on a file system without {what}, which every run needs. "
            f"Set {STATE_VARIABLE} to a folder on a local disk."
        )
    _able.add(known)


def _is_real_folder(path: Path) -> bool:
    """Whether a folder stands there, not a link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False
