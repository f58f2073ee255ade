"""Snapshots at rest: the looks before and after each run, the contents that they name, and what was undone.

A look lies in its run's folder and goes with it; contents lie in `undo/` of the state folder, each once for all runs, and are swept up when no look names
them any more. Plain synchronous files; decides nothing about what is to be restored.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec

from cc_executor.errors import StateUnusable
from cc_executor.model.tree import Change, Tree, contents
from cc_executor.store import begunundos
from cc_executor.store.blobs import Blobs
from cc_executor.store.claims import FOLDERS, Claims, overlap
from cc_executor.store.held import held_here, taken_within
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder
from cc_executor.store.lookaround import git_rules
from cc_executor.store.place import RUN_ID
from cc_executor.store.plain import read_plain, write_whole

logger = logging.getLogger(__name__)

FOLDER: Final = "undo"
KNOWN: Final = "folders"
OVER: Final = ".over"
BEFORE: Final = "tree-before"
AFTER: Final = "tree-after"
ACT: Final = "undone"
SWEPT: Final = "swept"
LOOK_LIMIT: Final = 256 * 2**20  # bytes of a look: a hundred thousand entries are 15 MB
DAYS: Final = 30.0  # for which a look is kept
SPACE: Final = 2 * 2**30  # bytes of all contents; the newest looks are kept, whatever their size
SWEEP_EVERY: Final = 6 * 3600.0  # seconds
AGAIN: Final = 600.0  # seconds for which a folder that was over a bound is not looked at again

T = TypeVar("T")


class Before(msgspec.Struct, frozen=True):
    """The look before a run, or why there is none. `remark`: what else is to be said of the folder as it was found."""

    tree: Tree | None = None
    reason: str = ""
    seconds: float = 0.0
    remark: str = ""


class After(msgspec.Struct, frozen=True):
    """The look after a run, or why there is none.

    Attributes
    ----------
    late : tuple of bytes
        Paths that were changed after the run had ended and before this look.
    shared : tuple of str
        Runs that worked in the same folder at the same time.
    claimed : tuple of bytes
        Paths that the agent says to have written.
    """

    tree: Tree | None = None
    reason: str = ""
    late: tuple[bytes, ...] = ()
    shared: tuple[str, ...] = ()
    claimed: tuple[bytes, ...] = ()


class Act(msgspec.Struct, frozen=True):
    """One undo: every path with what stood there before and what then; written before anything is changed.

    Attributes
    ----------
    runs : tuple of str
        The runs that are undone together.
    changes : tuple of Change
        Absolute paths. `before`: what this brings back; `after`: what stood there until then.
    is_undone : bool
        Whether the runs are undone by this; else an undo is taken back.
    is_done : bool
        False while it is being carried out, or when whoever did it was killed in the midst of it.
    stage : bytes
        The folder in which files are made ready.
    roots : tuple of bytes
        Folders below which everything lies.
    """

    runs: tuple[str, ...]
    changes: tuple[Change, ...]
    roots: tuple[bytes, ...]
    at: float
    is_undone: bool = True
    is_done: bool = False
    stage: str = ""

    @property
    def completing(self) -> str:
        """The command that completes it."""
        return f"cc-executor undo {'' if self.is_undone else '--redo '}{self.runs[0]}"


class _Elsewhere(msgspec.Struct, frozen=True):
    """A run that was undone together with others: where to read of it."""

    run: str


class SnapshotStore:
    """The snapshots of one user.

    Parameters
    ----------
    home : StateHome
    """

    def __init__(self, home: StateHome) -> None:
        self.home = home
        self.path = home.root / FOLDER
        self.blobs = Blobs(self.path / "contents")
        self.claims = Claims(self.path, runs=home.runs_path)

    def prepare(self) -> None:
        """Make the folders if need be. Raises `OSError`."""
        for name in ("", KNOWN, *FOLDERS):
            with contextlib.suppress(FileExistsError):
                (self.path / name).mkdir(mode=0o700)
        if not (self.path / SWEPT).exists():
            (self.path / SWEPT).touch(mode=0o600)

    # --- looks --------------------------------------------------------------------------------------------------------

    def keep(self, folder: RunFolder, name: str, value: Before | After | Act | _Elsewhere, *, sync: bool = False) -> None:
        """Write a look or an act into its run's folder, whole or not at all. Raises `OSError`."""
        write_whole(folder.path / name, msgspec.msgpack.encode(value), sync=sync)
        if sync:
            _sync_folder(folder.path)

    def before(self, folder: RunFolder) -> Before | None:
        """The look before a run; None when none was asked for, or when it is not kept any more."""
        return _read(folder.path / BEFORE, Before)

    def after(self, folder: RunFolder) -> After | None:
        """The look after a run; None when none was asked for, or nobody has seen its end yet."""
        return _read(folder.path / AFTER, After)

    def act(self, folder: RunFolder) -> Act | None:
        """The last undo of a run, or of several together with it."""
        with contextlib.suppress(OSError):
            return self._act(folder)
        return None

    def _act(self, folder: RunFolder) -> Act | None:
        """As `act`. Raises `OSError` where what is there cannot be read."""
        elsewhere = _found(folder.path / ACT, _Elsewhere)
        if elsewhere is None or not RUN_ID.match(elsewhere.run):
            return _found(folder.path / ACT, Act)
        act = _found(folder.path.parent / elsewhere.run / ACT, Act)
        return act if act is not None and folder.run_id in act.runs else None  # that run was undone by itself since

    def is_cut_short(self, folder: RunFolder) -> bool:
        """Whether an undo of a run was begun and has not ended, for all that can be read: what it needs is kept until the next one completes it."""
        try:
            act = self._act(folder)
        except OSError:
            return True
        return act is not None and not act.is_done

    def keep_act(self, act: Act) -> None:
        """Write an act, to the disk. Raises `OSError`."""
        first, *others = act.runs
        if not act.is_done:
            begunundos.note(self.path, first, act.roots)
        self.keep(self.home.folder(first), ACT, act, sync=True)
        for run_id in others:
            self.keep(self.home.folder(run_id), ACT, _Elsewhere(first), sync=True)
        if act.is_done:
            begunundos.forget(self.path, first)

    def cut_short(self, root: bytes) -> list[Act]:
        """Undos that were begun in a folder, above it or below it, that have not ended, and that nobody carries out any more. Raises `OSError`, `StateUnusable`."""
        acts: list[Act] = []
        for run_id, roots in begunundos.noted(self.path):
            if not (self.home.runs_path / run_id).is_dir():
                begunundos.forget(self.path, run_id)  # the run was removed
            elif any(overlap(each, root) for each in roots) and (act := self.act(self.home.folder(run_id))) is not None and not act.is_done:
                acts.append(act)
        if not acts:
            return []
        goes_on = self.claims.undone_now()
        return [act for act in acts if not any(overlap(each, mine) for each in goes_on for mine in act.roots)]

    # --- what is known of a folder --------------------------------------------------------------------------------------

    def _known_path(self, root: bytes) -> Path:
        return self.path / KNOWN / _name_of(root)

    def known(self, root: bytes) -> Tree | None:
        """The newest look at a folder."""
        return _read(self._known_path(root), Tree)

    def keep_known(self, tree: Tree) -> None:
        """Let the next look begin where this one has ended. Raises `OSError`."""
        write_whole(self._known_path(tree.root), msgspec.msgpack.encode(tree), sync=False)

    def over(self, root: bytes, now: float) -> str:
        """Why the folder was over a bound a short while ago, if git was not told since then what else to ignore there; else nothing."""
        path = self._known_path(root).with_suffix(OVER)
        with contextlib.suppress(OSError, UnicodeDecodeError):
            seen = path.lstat()
            if 0 <= now - seen.st_mtime < AGAIN and _newest(git_rules(root)) < seen.st_mtime_ns:
                return read_plain(path, 4096).decode()
        return ""

    def keep_over(self, root: bytes, reason: str) -> None:
        """Remember that a folder is over a bound. Raises `OSError`."""
        write_whole(self._known_path(root).with_suffix(OVER), reason.encode(), sync=False)

    # --- one at a time ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def in_use(self, *, patience: float, is_over: Callable[[], bool] = lambda: False) -> Generator[None]:
        """Keep the sweeper out for as long as the block lasts.

        Parameters
        ----------
        patience : float
            Seconds for which a sweep that goes on is waited for.
        is_over : callable
            Whether nobody wants to wait any more.

        Raises
        ------
        StateUnusable
            The sweep goes on still, or the folder cannot be used.
        """
        with _locked(self.path / "lock", fcntl.LOCK_SH, patience=patience, is_over=is_over) as mine:
            if not mine:
                raise StateUnusable(f"Another process clears up {self.path}, and does not come to an end: let it go on, or end it.")
            yield

    def outlast_sweep(self, *, patience: float, is_over: Callable[[], bool]) -> None:
        """Wait for a sweep that goes on. Takes and raises the same as `in_use`."""
        with self.in_use(patience=patience, is_over=is_over):
            pass

    # --- sweeping -----------------------------------------------------------------------------------------------------

    def is_sweep_due(self, now: float) -> bool:
        """Whether it is time to look for what nobody needs any more."""
        with contextlib.suppress(OSError):
            return now - (self.path / SWEPT).lstat().st_mtime >= SWEEP_EVERY
        return False

    def sweep(self, now: float, *, days: float = DAYS, space: int = SPACE) -> tuple[int, int]:
        """Forget looks that are old or beyond the space that there is, newest kept, and remove contents that no look names; how many, and how many bytes.

        A look that is damaged, or of another version, may name everything: while it is kept, and there is space, nothing is removed.

        Raises
        ------
        OSError
            A look cannot be read now. Nothing was removed that it may name.
        StateUnusable
        """
        with _locked(self.path / "lock", fcntl.LOCK_EX) as mine:
            if not mine:
                return 0, 0
            (self.path / SWEPT).touch(mode=0o600)
            wanted: dict[bytes, int] = {}
            damaged: list[Path] = []
            used = 0
            for at, paths, is_needed in sorted(self._holders(), reverse=True):
                if not is_needed and now - at > days * 86400:
                    _forget_looks(paths)
                    continue
                held: dict[bytes, int] = {}
                for path in paths:
                    try:
                        held |= _held(path)
                    except msgspec.DecodeError:
                        damaged.append(path)
                more = sum(size for content, size in held.items() if content not in wanted)
                if not is_needed and used and used + more > space:
                    _forget_looks(paths)
                    continue
                wanted |= held
                used += more
            if any(path.exists() for path in damaged):
                if self.blobs.size() <= space:
                    logger.warning("nothing is removed from %s, for these cannot be read: %s", self.path, ", ".join(map(str, damaged)))
                    return 0, 0
                _forget(damaged)
            return self.blobs.keep_only(set(wanted))

    def _holders(self) -> Iterator[tuple[float, tuple[Path, ...], bool]]:
        """What names contents, with the time that it is from, and whether it must stay: each run's looks together, and what is known of each folder."""
        for folder in self.home.runs():
            found: dict[Path, float] = {}
            for path in (folder.path / name for name in (BEFORE, AFTER, ACT)):
                with contextlib.suppress(FileNotFoundError):  # and nothing else: what cannot be looked at may be there
                    found[path] = path.lstat().st_mtime
            if found:
                yield max(found.values()), tuple(found), self.is_cut_short(folder)
        with os.scandir(self.path / KNOWN) as entries:
            for entry in entries:
                yield entry.stat(follow_symlinks=False).st_mtime, (Path(entry.path),), False


def _held(path: Path) -> dict[bytes, int]:
    """The contents that a file names, with their sizes. Raises `OSError`, `msgspec.DecodeError`."""
    try:
        if path.parent.name == KNOWN:
            known = _found(path, Tree) if path.suffix != OVER else None  # where it is damaged, nobody goes by it
            return contents(known.entries.values()) if known is not None else {}
        if path.name != ACT:
            tree = _opened(path, Before if path.name == BEFORE else After).tree
            return contents(tree.entries.values()) if tree is not None else {}
        if _found(path, _Elsewhere) is not None:
            return {}
        return contents(entry for change in _opened(path, Act).changes for entry in (change.before, change.after) if entry)
    except FileNotFoundError:  # it went with its run
        return {}


def _forget(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _forget_looks(paths: Iterable[Path]) -> None:
    """All but that a run is undone: who asks whether its work is there asks for longer than it can be brought back."""
    _forget(path for path in paths if path.name != ACT)


def _newest(paths: Iterable[bytes]) -> int:
    """When the one of these files that was changed last was changed, in nanoseconds; 0 where none can be seen."""
    found = [0]
    for path in paths:
        with contextlib.suppress(OSError):
            found.append(os.lstat(path).st_ctime_ns)  # not the time of its content: one that is moved here brings an old one along
    return max(found)


def _name_of(root: bytes) -> str:
    return hashlib.sha256(root).hexdigest()[:32]


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Made while the module is imported: two threads that are the first to need one at the same time crash msgspec 0.22 (41 of 60 processes).
_DECODERS: Final[dict[type[Any], msgspec.msgpack.Decoder[Any]]] = {
    kind: msgspec.msgpack.Decoder(kind) for kind in (Tree, Before, After, Act, _Elsewhere)
}


def _read(path: Path, kind: type[T]) -> T | None:
    """What was written there; None where nothing is, or something else, or it cannot be read."""
    with contextlib.suppress(OSError):
        return _found(path, kind)
    return None


def _found(path: Path, kind: type[T]) -> T | None:
    """What was written there; None where nothing is, or something else. Raises `OSError` where it cannot be read."""
    with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
        return _opened(path, kind)
    return None


def _opened(path: Path, kind: type[T]) -> T:
    """What was written there. Raises `OSError`, and `msgspec.DecodeError` for something else."""
    return cast("T", _DECODERS[kind].decode(read_plain(path, LOOK_LIMIT)))


@contextlib.contextmanager
def _locked(path: Path, kind: int, *, patience: float = 0.0, is_over: Callable[[], bool] = lambda: False) -> Generator[bool]:
    """Hold a lock for as long as the block lasts. False: somebody else has it for longer than `patience` seconds."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateUnusable(f"{path} cannot be used: {error.strerror}. Mend the folder, or make room.") from error
    with held_here(descriptor):
        yield taken_within(descriptor, patience, kind=kind, is_over=is_over)
