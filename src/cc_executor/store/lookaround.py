"""One look at a folder: everything that stands in it, contents kept. Reads; writes nothing outside its store, and nothing of git.

What git ignores is left out (git is asked, read-only), as are `.git` itself, well-known caches, and the state folder. Whatever cannot be read is named.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Mapping
from typing import Final

from cc_executor.model.tree import RACY, Entry, Kind, Tree
from cc_executor.store.blobs import WHOLE, Blobs

FILES: Final = 20_000  # entries of a tree before a run: some 0.1 s to walk, where nothing has changed
FILES_AFTER: Final = 100_000  # a run may make many; looking at them is still a second
FILE_BYTES: Final = 32 * 2**20  # of one file whose content is kept; a larger one is compared by size and time alone
TREE_BYTES: Final = 500_000_000  # of all contents that a look has to read
SECONDS: Final = 3.0  # with the 20 s that a supervisor may take to answer still less than the grace of a run that starts
GIT_SECONDS: Final = 2.0
GIT_BYTES: Final = 8 * 2**20  # of git's answer: the names of what it ignores, whole folders as one
REPOSITORIES: Final = 32  # nested ones that git is asked about; in the others nothing counts as ignored
STAGE: Final = b".cc-undo-"  # how the folder's name begins in which an undo makes files ready

CACHES: Final = frozenset({b"__pycache__", b".ipynb_checkpoints"})
# Where no git says what is to be ignored.
PLAIN_CACHES: Final = CACHES | {
    b"node_modules",
    b".venv",
    b"venv",
    b".tox",
    b".nox",
    b".cache",
    b".mypy_cache",
    b".pytest_cache",
    b".ruff_cache",
    b".hypothesis",
}
GIT: Final = b".git"
_CHUNK: Final = 64  # entries between two looks at the clock


class TooLarge(Exception):
    """The folder is over a bound; the message says which."""


class Look:
    """How a folder is looked at.

    Parameters
    ----------
    root : bytes
        The folder's real path.
    blobs : Blobs
        Where contents are kept.
    known : Tree or None
        An earlier look at the same folder: what is stamped as it was then is not read again.
    before : Tree or None
        The look before the run, for the one after it. What that did not see is not seen again, and what it saw is looked at although git may ignore it now.
    outside : frozenset of (int, int)
        Device and inode of folders that are left out: the state folder.
    skipped : frozenset of bytes
        Paths that are left out: the notebook whose cell it is.
    environ : mapping
        For git: where it is, and the user's own settings of it.
    """

    def __init__(
        self,
        root: bytes,
        *,
        blobs: Blobs,
        known: Tree | None = None,
        before: Tree | None = None,
        outside: frozenset[tuple[int, int]] = frozenset(),
        skipped: frozenset[bytes] = frozenset(),
        environ: Mapping[str, str],
        files: int = FILES,
        seconds: float = SECONDS,
    ) -> None:
        self._root = root
        self._blobs = blobs
        self._known = known.entries if known is not None else {}
        self._known_until = known.taken - RACY if known is not None else 0
        self._before = before
        self._outside = outside
        self._skipped = skipped
        self._environ = environ
        self._files = files
        self._seconds = seconds
        self._bytes = 0
        self._repositories = 0
        self._left_out: dict[bytes, str] = {}
        self._ignored: set[bytes] = set()
        self._device = 0
        self._deadline = 0.0
        self.entries: dict[bytes, Entry] = {}
        self.taken = 0
        self.is_slow = False

    def take(self) -> Tree:
        """Look.

        Raises
        ------
        TooLarge
            There is more than a look may take. `entries` has what was seen until then, since `taken`; `is_slow`: time was too short, and the next look, which
            has less to read, may come to its end.
        OSError
            The folder is not there before the run, or there is no room.
        """
        self.taken, self._deadline = time.time_ns(), time.monotonic() + self._seconds
        try:
            self._device = os.stat(self._root).st_dev
        except FileNotFoundError:
            if self._before is None:
                raise
            # The run has removed the folder itself, with all that was in it.
            return Tree(self._root, self.taken, {}, {}, self._before.by_git)
        by_git = self._before.by_git if self._before is not None else self._in_repository()
        if by_git:
            found = self._ask_git(b"")
            by_git = found or self._before is not None
        names = CACHES if by_git else PLAIN_CACHES
        folders = [b""]
        count = looked = 0
        while folders:
            folder = folders.pop()
            for entry in self._listed(folder):
                name = entry.name
                path = folder + name
                looked += 1
                if not looked % _CHUNK:
                    self._keep_to_time()
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError as error:
                    if not isinstance(error, FileNotFoundError):  # else it has gone between the two looks
                        self._left_out[path] = f"it cannot be looked at ({error.strerror})"
                    continue
                is_folder = stat.S_ISDIR(status.st_mode)
                if self._is_left_out(path, name, status, names, is_folder=is_folder):
                    continue
                count += 1
                if count > self._files:
                    raise TooLarge(f"it has more than {self._files:,} files and folders")
                if is_folder:
                    self.entries[path] = _entry(Kind.FOLDER, status)
                    folders.append(path + b"/")
                    if by_git and name != GIT and self._repositories < REPOSITORIES and self._is_repository(path):
                        self._repositories += 1
                        self._ask_git(path + b"/")
                        self._keep_to_time()
                else:
                    self._add(path, status)
        return Tree(self._root, self.taken, self.entries, self._left_out, by_git)

    def _keep_to_time(self) -> None:
        if time.monotonic() > self._deadline:
            self.is_slow = True
            raise TooLarge(f"looking at it takes longer than {self._seconds:.0f} s")

    def _full(self, path: bytes) -> bytes:
        return self._root + b"/" + path if path else self._root

    def _listed(self, folder: bytes) -> list[os.DirEntry[bytes]]:
        try:
            with os.scandir(self._full(folder)) as entries:
                return list(entries)
        except OSError as error:
            if not folder:
                raise
            if not isinstance(error, FileNotFoundError):
                self._left_out[folder[:-1]] = f"the folder cannot be read ({error.strerror})"
            return []

    def _is_left_out(self, path: bytes, name: bytes, status: os.stat_result, names: frozenset[bytes], *, is_folder: bool) -> bool:
        before = self._before
        if before is not None and path in before.left_out:
            self._left_out[path] = before.left_out[path]
            return True
        if is_folder and (name in names or name.startswith(STAGE) or (status.st_dev, status.st_ino) in self._outside):
            self._left_out[path] = "a cache" if name in names else "cc_executor's own"
            return True
        if is_folder and status.st_dev != self._device:  # mounted during a run it would look as if the run had made all that is in it
            self._left_out[path] = "another file system is mounted there"
            return True
        if name == GIT and before is None:  # one that the run has made is as new as everything else that it made
            self._left_out[path] = "git's own"
            return True
        if path in self._skipped:
            self._left_out[path] = "the notebook itself"
            return True
        if path in self._ignored and (before is None or path not in before.entries):
            self._left_out[path] = "git ignores it"
            return True
        return False

    def _add(self, path: bytes, status: os.stat_result) -> None:
        if stat.S_ISLNK(status.st_mode):
            try:
                target = os.readlink(self._full(path))
            except OSError:  # gone, or something else by now
                return
            self.entries[path] = _entry(Kind.LINK, status, target)
        elif stat.S_ISREG(status.st_mode):
            seen = _entry(Kind.FILE, status)
            known = self._known.get(path)
            if known is not None and known.content and known.ctime < self._known_until and known.is_stamped_as(seen):
                self.entries[path] = known
            else:
                self.entries[path] = self._read(path, seen)
                self._keep_to_time()  # it may be large
        elif self._before is None:  # after a run it is no reason not to see that what stood there is gone
            self._left_out[path] = "it is no plain file"

    def _read(self, path: bytes, seen: Entry) -> Entry:
        """The entry with its content; without it, where it cannot be kept."""
        if seen.size > FILE_BYTES:
            return seen
        if self._bytes + seen.size > TREE_BYTES:
            if self._before is None:
                raise TooLarge(f"its files hold more than {TREE_BYTES // 1_000_000:,} MB")
            return seen
        self._bytes += seen.size
        first = seen
        for _ in range(2):
            try:
                descriptor = os.open(self._full(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            except OSError as error:
                if not isinstance(error, FileNotFoundError):
                    self._left_out[path] = f"it cannot be read ({error.strerror})"
                return seen
            try:
                first = _entry(Kind.FILE, os.fstat(descriptor))
                if first.size < WHOLE:
                    data = os.read(descriptor, WHOLE)
                    size = len(data)
                    is_whole = size == first.size and _entry(Kind.FILE, os.fstat(descriptor)).is_stamped_as(first)
                    content = self._blobs.put(data) if is_whole else b""
                else:
                    content, size = self._blobs.put_file(descriptor, most=FILE_BYTES)
                if content and size == first.size and _entry(Kind.FILE, os.fstat(descriptor)).is_stamped_as(first):
                    return Entry(Kind.FILE, first.mode, size, content, first.mtime, first.ctime, first.inode, first.uid, first.gid)
            finally:
                os.close(descriptor)
        self._left_out[path] = "it was being written"
        return first

    # --- git ----------------------------------------------------------------------------------------------------------

    def _in_repository(self) -> bool:
        folder = self._root
        while not self._has_git(folder):
            above = os.path.dirname(folder)
            if above == folder:
                return False
            folder = above
        return True

    def _is_repository(self, path: bytes) -> bool:
        return self._has_git(self._full(path))

    @staticmethod
    def _has_git(folder: bytes) -> bool:
        return os.path.lexists(os.path.join(folder, GIT))

    def _ask_git(self, folder: bytes) -> bool:
        """Take up what git ignores below a folder. False: it does not say, or it ignores the very folder in which the run works."""
        executable = shutil.which("git", path=self._environ.get("PATH"))
        if executable is None:
            return False
        argv = (executable, "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "ls-files", "-z", "--others", "--ignored")
        environ = {name: value for name, value in self._environ.items() if not name.startswith("GIT_")}
        environ |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        try:
            answer = subprocess.run(
                (*argv, "--exclude-standard", "--directory"),
                cwd=self._full(folder),
                env=environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=max(0.0, min(GIT_SECONDS, self._deadline - time.monotonic())),
                check=True,
            ).stdout
        except (OSError, subprocess.SubprocessError):  # somebody else's repository, a damaged one, none at all
            return False
        if len(answer) > GIT_BYTES:
            return False
        names = answer.split(b"\0")
        if b"./" in names:
            return False
        for name, following in zip(names, [*names[1:], b""], strict=True):
            # A folder is named, too, for holding nothing but ignored files, which follow: it is not ignored itself.
            if name and not (name.endswith(b"/") and following.startswith(name)):
                self._ignored.add(folder + name.rstrip(b"/"))
        return True


def _entry(kind: Kind, status: os.stat_result, content: bytes = b"") -> Entry:
    return Entry(
        kind,
        stat.S_IMODE(status.st_mode),
        status.st_size if kind is Kind.FILE else 0,
        content,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
        status.st_uid,
        status.st_gid,
    )


def git_rules(root: bytes) -> list[bytes]:
    """The files that say what git ignores in a folder, as far as they stand there or above it in its repository, whether there are such or not."""
    found: list[bytes] = []
    folder = root
    while True:
        found.append(os.path.join(folder, b".gitignore"))
        if os.path.lexists(os.path.join(folder, GIT)):
            return [*found, os.path.join(folder, GIT, b"info", b"exclude")]
        above = os.path.dirname(folder)
        if above == folder:
            return []  # there is no repository
        folder = above


def look_at(folder: int, name: bytes) -> Entry | None:
    """What stands under a name in an open folder, read whole but not kept, and without its content where that may not be read; None: nothing.

    Raises
    ------
    OSError
        It cannot be looked at, or is neither a file nor a link nor a folder.
    """
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            return _entry(Kind.LINK, status, os.readlink(name, dir_fd=folder))
        if stat.S_ISDIR(status.st_mode):
            return _entry(Kind.FOLDER, status)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "a pipe, a socket or a device stands there")
        if status.st_size > FILE_BYTES:
            return _entry(Kind.FILE, status)
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=folder)
        except PermissionError:
            return _entry(Kind.FILE, status)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb", buffering=0) as file:
        return _entry(Kind.FILE, os.fstat(descriptor), hashlib.file_digest(file, "sha256").digest())
