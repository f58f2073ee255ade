"""Putting files back: all of them made ready first, then each put in its place by one rename. Knows changes and contents; decides nothing about them.

Every path is walked from its root without following a link: whatever was put in a folder's place, nothing is written outside of the root.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Final, TypeVar

from cc_executor.model.tree import Change, Entry, Kind, actions, reversed_changes, same
from cc_executor.store.blobs import Blobs, Damaged
from cc_executor.store.lookaround import STAGE, look_at

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})

T = TypeVar("T")


class Disturbed(OSError):
    """Something at a path is neither what it was to be nor what it is to become: somebody else writes here now."""

    def __init__(self, path: bytes) -> None:
        super().__init__(errno.EBUSY, "it was changed at this very moment", os.fsdecode(path))


class HalfDone(OSError):
    """Neither the whole could be done nor what was done be taken back. `path` is where it failed; what is to be done is written down."""

    def __init__(self, path: bytes, error: OSError, again: OSError) -> None:
        super().__init__(
            error.errno, f"{error.strerror or error}; and going back failed, too ({again.strerror or again})", os.fsdecode(path)
        )


class Ground:
    """Folders in which changes are carried out.

    Parameters
    ----------
    roots : sequence of bytes
        Real paths; everything lies below one of them.
    blobs : Blobs
    stage : str
        Name, in each root, of the folder in which files are made ready.
    """

    def __init__(self, roots: Sequence[bytes], blobs: Blobs, *, stage: str) -> None:
        self._roots = sorted(roots, key=len, reverse=True)
        self._blobs = blobs
        self._stage = STAGE + stage.encode()
        self._staged: dict[bytes, bytes] = {}  # where each file lies ready

    # --- looking ------------------------------------------------------------------------------------------------------

    def now(self, path: bytes) -> Entry | None:
        """What stands at a path; None also where its folder is gone. Raises `OSError`."""
        try:
            with self._parent(path) as (folder, name):
                return look_at(folder, name)
        except OSError as error:
            if error.errno in _NOT_THERE:
                return None
            error.filename = os.fsdecode(path)
            raise

    def has_folder(self, path: bytes) -> bool:
        """Whether the folder stands in which a path is to be."""
        try:
            with self._parent(path):
                return True
        except OSError:
            return False

    def listing(self, path: bytes) -> tuple[bytes, ...]:
        """What is in a folder and in the folders below it. Raises `OSError`."""
        return tuple(os.path.join(folder, name) for folder, names, files in os.walk(path) for name in (*names, *files))

    def save(self, path: bytes, entry: Entry) -> Entry:
        """Keep the content of a file that is going to be replaced, however large; the entry with its content. Raises `OSError`."""
        if entry.kind is not Kind.FILE or (entry.content and self._blobs.has(entry.content)):
            return entry
        with self._parent(path) as (folder, name):
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=folder)
            try:
                content, size = self._blobs.put_file(descriptor)  # by itself, whatever else is put: it is there at once
                status = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        if size != entry.size or status.st_mtime_ns != entry.mtime or status.st_ino != entry.inode:
            raise Disturbed(path)
        return Entry(entry.kind, entry.mode, size, content, entry.mtime, entry.ctime, entry.inode, entry.uid, entry.gid)

    # --- doing --------------------------------------------------------------------------------------------------------

    def carry_out(self, changes: Iterable[Change], *, again: bool = False) -> list[bytes]:
        """Bring `before` of each change back where `after` stands. Returns the folders that stay, for they hold other things.

        Parameters
        ----------
        changes : iterable of Change
        again : bool
            Somebody has begun with it already: what is missing or half made is no surprise.

        Raises
        ------
        Disturbed, OSError
            Nothing is changed, or everything is as it was.
        HalfDone
        """
        todo, stands = self._todo(changes, again=again)
        try:
            self._make_ready(todo)
            done: list[Change] = []
            try:
                return self._apply(todo, stands, done)
            except OSError as error:
                place = os.fsencode(error.filename) if isinstance(error.filename, str | bytes) else b""
                try:
                    self._go_back(done)
                except OSError as further:
                    raise HalfDone(place, error, further) from error
                raise
        finally:
            self.clear()

    def clear(self) -> None:
        """Remove what was made ready and not used."""
        for root in self._roots:
            shutil.rmtree(os.path.join(root, self._stage), ignore_errors=True)
        self._staged.clear()

    def _todo(self, changes: Iterable[Change], *, again: bool) -> tuple[list[Change], dict[bytes, Entry | None]]:
        todo: list[Change] = []
        stands: dict[bytes, Entry | None] = {}
        for change in changes:
            current = self.now(change.path)
            if same(current, change.before):
                continue
            is_between = again and (current is None or current.kind is Kind.FOLDER)
            if not same(current, change.after) and not is_between and not _is_same_folder(current, change.after):
                raise Disturbed(change.path)
            todo.append(Change(change.path, change.before, current))
            stands[change.path] = current
        return todo, stands

    def _make_ready(self, todo: Sequence[Change]) -> None:
        for change in actions(todo).place:
            assert change.before is not None  # else there is nothing to be placed
            root = self._root_of(change.path)
            stage = os.path.join(root, self._stage)
            if not self._staged or not os.path.isdir(stage):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(stage, 0o700)
            ready = os.path.join(stage, str(len(self._staged)).encode())
            try:
                self._write(change.before, ready)
            except Damaged as error:
                raise Damaged(errno.EIO, str(error), os.fsdecode(change.path)) from error
            self._staged[change.path] = ready

    def _write(self, entry: Entry, path: bytes) -> None:
        if entry.kind is Kind.LINK:
            os.symlink(entry.content, path)
            return
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.writelines(self._blobs.blocks(entry.content))
            file.flush()
            _own(descriptor, entry)
            os.fchmod(descriptor, entry.mode)  # after the owner, whose change takes some bits away
            os.fsync(descriptor)

    def _apply(self, todo: Sequence[Change], stands: dict[bytes, Entry | None], done: list[Change]) -> list[bytes]:
        steps = actions(todo)
        by_path = {change.path: change for change in todo}
        staying: list[bytes] = []
        begun: set[bytes] = set()

        def begin(path: bytes) -> None:
            if path not in begun:
                begun.add(path)
                self._still(path, stands[path])
                done.append(by_path[path])

        for path in steps.remove:
            begin(path)
            self._in_folder(path, lambda folder, name: os.unlink(name, dir_fd=folder))
        for path, must in steps.remove_folders:
            begin(path)
            try:
                self._in_folder(path, lambda folder, name: os.rmdir(name, dir_fd=folder))
            except OSError as error:
                if must or error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
                staying.append(path)
        for path in steps.make_folders:
            begin(path)
            self._in_folder(path, lambda folder, name: os.mkdir(name, 0o700, dir_fd=folder))
            self._own_folder(path, by_path[path].before)
        for change in steps.place:
            begin(change.path)
            ready = self._staged[change.path]
            self._in_folder(change.path, lambda folder, name, ready=ready: os.rename(ready, name, dst_dir_fd=folder))
        for path, mode in steps.modes:
            begin(path)
            self._in_folder(path, lambda folder, name, mode=mode: os.chmod(name, mode, dir_fd=folder))
        return staying

    def _own_folder(self, path: bytes, entry: Entry | None) -> None:
        if entry is not None and (os.getuid(), os.getgid()) != (entry.uid, entry.gid):
            with self._parent(path) as (folder, name), contextlib.suppress(OSError):
                os.chown(name, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False)

    def _still(self, path: bytes, seen: Entry | None) -> None:
        """Whether what is going to be replaced is what was looked at."""
        try:
            with self._parent(path) as (folder, name):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            if seen is not None:
                raise Disturbed(path) from None
            return
        if seen is None:
            raise Disturbed(path)
        # Not the time of the inode's change: another name of the same file may have been replaced just before.
        if seen.kind is not Kind.FOLDER and (status.st_ino, status.st_mtime_ns) != (seen.inode, seen.mtime):
            raise Disturbed(path)

    def _go_back(self, done: Sequence[Change]) -> None:
        back = Ground(self._roots, self._blobs, stage=f"{self._stage.removeprefix(STAGE).decode()}-back")
        todo, stands = back._todo(reversed_changes(done), again=True)
        try:
            back._make_ready(todo)
            back._apply(todo, stands, [])
        finally:
            back.clear()

    # --- walking ------------------------------------------------------------------------------------------------------

    def _root_of(self, path: bytes) -> bytes:
        for root in self._roots:
            if path.startswith(root.rstrip(b"/") + b"/"):
                return root
        raise OSError(errno.EPERM, "it is not in the folder of the run", os.fsdecode(path))

    @contextlib.contextmanager
    def _parent(self, path: bytes) -> Generator[tuple[int, bytes]]:
        """The open folder in which a path stands, and its name there."""
        root = self._root_of(path)
        *folders, name = path[len(root.rstrip(b"/")) + 1 :].split(b"/")
        if not all(part not in {b"", b".", b".."} for part in (*folders, name)):
            raise OSError(errno.EPERM, "it is not in the folder of the run", os.fsdecode(path))
        descriptor = os.open(root, _FOLDER)
        try:
            for folder in folders:
                below = os.open(folder, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor, name
        finally:
            os.close(descriptor)

    def _in_folder(self, path: bytes, act: Callable[[int, bytes], T]) -> T:
        """Do something in a path's folder; where that cannot be written, as the user may have made it, it can for this moment."""
        try:
            with self._parent(path) as (folder, name):
                try:
                    return act(folder, name)
                except PermissionError:
                    mode = stat.S_IMODE(os.fstat(folder).st_mode)
                    os.fchmod(folder, mode | 0o700)
                    try:
                        return act(folder, name)
                    finally:
                        os.fchmod(folder, mode)
        except OSError as error:
            error.filename = os.fsdecode(path)
            raise


def _is_same_folder(one: Entry | None, other: Entry | None) -> bool:
    return one is not None and other is not None and one.kind is Kind.FOLDER and other.kind is Kind.FOLDER


def _own(descriptor: int, entry: Entry) -> None:
    """Give a file to whom it belonged, where we may: to root alone, who runs many notebooks in containers, this makes a difference."""
    status = os.fstat(descriptor)
    if (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
        with contextlib.suppress(OSError):
            os.fchown(descriptor, entry.uid, entry.gid)
