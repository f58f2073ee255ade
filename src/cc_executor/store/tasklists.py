"""Task lists at rest: one folder each, with the list, the journal of what happened, and the lock of whoever runs it.

Plain synchronous files. Whoever wants something of a list appends a record; whoever runs it reads them: the journal is the only way in and out.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import msgspec

from cc_executor.errors import StateUnusable, TaskListNotFound
from cc_executor.model.listrecord import ListState, Record, advance_all
from cc_executor.model.tasklist import ListId, TaskList
from cc_executor.store.held import held_here
from cc_executor.store.home import StateHome
from cc_executor.store.plain import append_line, open_plain, read_plain

FOLDER: Final = "lists"
LIST: Final = "list.json"
JOURNAL: Final = "journal.jsonl"
LOCK: Final = "lock"
NEEDS: Final = "needs"
LIST_ID: Final = re.compile(r"[0-9a-f]{20}-[0-9]{1,6}\Z")
LIST_LIMIT: Final = 2**30  # bytes of a list as it was given
READ_LIMIT: Final = 64 * 1024 * 1024  # bytes of new records taken at once; the next look takes the rest

_BEGINNING: Final = b'{"kind":'  # of every record

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Record)


class ListFolder:
    """The folder of one list. Cheap to make; reads only what is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def list_id(self) -> ListId:
        """The list's id, which is the folder's name."""
        return ListId(self.path.name)

    def tasks(self) -> TaskList:
        """The list as it was given.

        Raises
        ------
        StateUnusable
            The file is missing or damaged.
        """
        try:
            return TaskList.model_validate(json.loads(read_plain(self.path / LIST, LIST_LIMIT)))
        except OSError as error:
            raise self._unreadable(f"{LIST}: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise self._unreadable(f"{LIST} is damaged, or of another version") from error

    def append(self, record: Record) -> None:
        """Add one record, to the disk. From any process; records of several writers do not mix.

        Raises
        ------
        StateUnusable
            The disk is full, or the folder cannot be written.
        """
        self._append(record, after=None)

    def append_after(self, record: Record, offset: int) -> int | None:
        """Add one record unless there is one from byte `offset` on: the offset after it, or None. Raises as `append`."""
        return self._append(record, after=offset)

    def _append(self, record: Record, *, after: int | None) -> int | None:
        try:
            return append_line(self.path / JOURNAL, _line(record), after=after)
        except OSError as error:
            raise StateUnusable(f"The task list {self.list_id} cannot be written: {error.strerror or error}.") from error

    def read(self, offset: int = 0) -> tuple[list[Record], int]:
        """The records from byte `offset`, and the offset after the last whole one. Lines that were torn by a kill, or are of a newer version, are passed over.

        Raises
        ------
        StateUnusable
            What stands there is not the plain file that we write, or cannot be read. As if nothing had happened yet, everything would be done again.
        """
        try:
            with open(open_plain(self.path / JOURNAL), "rb", buffering=0) as file:
                file.seek(offset)
                data = file.read(READ_LIMIT)
        except FileNotFoundError:
            return [], offset
        except OSError as error:
            raise self._unreadable(f"{JOURNAL}: {error.strerror or error}") from error
        end = data.rfind(b"\n") + 1
        found: list[Record] = []
        if not _may_be_ours(data if offset == 0 else data[end:].strip(b"\0")):
            raise self._unreadable(f"{JOURNAL} is damaged")
        for line in data[:end].splitlines():
            try:
                found.append(_decoder.decode(line))
            except msgspec.DecodeError as error:
                if not _may_be_ours(line.strip(b"\0")):
                    raise self._unreadable(f"{JOURNAL} is damaged") from error
        return found, offset + end

    def _unreadable(self, why: str) -> StateUnusable:
        return StateUnusable(f"The task list {self.list_id} cannot be read: {why}. Mend it, or move {self.path} away.")

    def records(self) -> Iterator[Record]:
        """All records, as of now."""
        offset = 0
        while True:
            records, end = self.read(offset)
            if end == offset:
                return
            yield from records
            offset = end

    def advanced(self, state: ListState, offset: int) -> tuple[ListState, int]:
        """`state`, which was known at byte `offset`, after all that has come since; and the offset of that."""
        while True:
            records, end = self.read(offset)
            if end == offset:
                return state, offset
            state, offset = advance_all(state, records), end

    def state(self) -> ListState:
        """What is known of the list now."""
        return self.advanced(ListState(), 0)[0]

    def standing(self) -> tuple[ListState, bool]:
        """What is known of the list now, and whether somebody runs it."""
        is_run = self.is_run()  # asked before the journal: who runs it no more has written all
        return self.state(), is_run

    @contextlib.contextmanager
    def claimed(self) -> Generator[bool]:
        """Be the one who runs the list, for as long as the block lasts and this process lives. False: somebody else is.

        Raises
        ------
        StateUnusable
            The folder cannot be written.
        """
        try:
            descriptor = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateUnusable(f"The task list {self.list_id} cannot be run: {self.path / LOCK}: {error.strerror}.") from error
        with held_here(descriptor):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def is_run(self) -> bool:
        """Whether somebody runs the list now. Only looks: it needs no right to write."""
        try:
            descriptor = open_plain(self.path / LOCK)
        except OSError:  # nobody has run it yet; or nobody but its owner could
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def write_needs(self, task_id: str, made: dict[str, bytes]) -> Path:
        """Put what a task's command may read into a folder of its own, and return that."""
        folder = self.path / NEEDS / task_id
        try:
            if folder.exists():  # of an earlier attempt, when other things were made
                shutil.rmtree(folder)
            folder.mkdir(mode=0o700, parents=True)
            for name, data in made.items():
                (folder / name).write_bytes(data)
        except OSError as error:
            raise StateUnusable(f"{folder} cannot be written: {error.strerror}.") from error
        return folder


class ListHome:
    """The task lists of one user, in the state folder that holds the runs."""

    def __init__(self, home: StateHome) -> None:
        self._home = home

    @property
    def path(self) -> Path:
        """The folder that has one folder for each list."""
        return self._home.root / FOLDER

    def open(self, tasks: TaskList, *, fresh: bool = False, apart: str = "", claim: Callable[[str], None] = lambda _: None) -> ListFolder:
        """The folder of this list, made if need be. Equal lists share one, so that nothing is done or paid twice.

        Parameters
        ----------
        tasks : TaskList
        fresh : bool
            Make a new one all the same: everything is done again.
        apart : str
            Whose lists are kept apart from equal ones of other people; empty for the user of this machine.
        claim : callable
            Called with the list's id before the folder is there, or with that of the one that is.

        Raises
        ------
        StateUnusable
        """
        self._home.prepare()
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
            stem, newest = self._newest(tasks, apart)
            name = f"{stem}-{newest if newest and not fresh else newest + 1}"
            claim(name)
            return ListFolder(self.path / name) if newest and not fresh else self._make(tasks, name)
        except OSError as error:
            raise StateUnusable(f"The folder {self.path} cannot be used: {error.strerror}. Mend the folder, or make room.") from error

    def known(self, tasks: TaskList, *, apart: str = "") -> ListFolder | None:
        """The folder that `open` would find, if there is one."""
        stem, newest = self._newest(tasks, apart)
        return ListFolder(self.path / f"{stem}-{newest}") if newest else None

    def _newest(self, tasks: TaskList, apart: str) -> tuple[str, int]:
        """How the ids of equal lists begin, and the number of the newest; 0 when there is none."""
        stem = _stem(tasks.digest(), apart)
        if tasks.max_cost is not None and not any(self.path.glob(f"{stem}-*")):
            # A list whose cap still counted when it was run: the same work, which may go on.
            before = _stem(tasks.digest_with_cap(), apart)
            stem = before if any(self.path.glob(f"{before}-*")) else stem
        numbers = [int(path.name.partition("-")[2]) for path in self.path.glob(f"{stem}-*") if LIST_ID.match(path.name)]
        return stem, max(numbers, default=0)

    def _make(self, tasks: TaskList, name: str) -> ListFolder:
        folder = ListFolder(self.path / name)
        # Whole or not at all: somebody else may make the same list at this moment, and finds it finished.
        unfinished = Path(mkdtemp(prefix=f".{name}.", dir=self.path))
        # ASCII: a folder's name may be no UTF-8, which pydantic refuses.
        data = json.dumps(tasks.model_dump(mode="json"), indent=1).encode()
        descriptor = os.open(unfinished / LIST, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            unfinished.rename(folder.path)
        except OSError:  # it is there already: rename replaces an empty folder alone
            (unfinished / LIST).unlink()
            unfinished.rmdir()
        return folder

    def folders(self) -> Iterator[ListFolder]:
        """Every list, the one that changed last first.

        Raises
        ------
        StateUnusable
            The folder is not safe, or cannot be read.
        """
        self._home.check()
        try:
            paths = [path for path in self.path.iterdir() if LIST_ID.match(path.name)]
        except FileNotFoundError:
            return
        except OSError as error:
            raise StateUnusable(
                f"The folder of the task lists {self.path} cannot be read: {error.strerror}. Mend it, or move it away."
            ) from error
        yield from (ListFolder(path) for path in sorted(paths, key=_changed, reverse=True))

    def find(self, list_id: str) -> ListFolder:
        """The list with this id, or the one whose id begins so.

        Raises
        ------
        TaskListNotFound
            There is none, or there are several.
        StateUnusable
            As for `folders`.
        """
        fitting = [folder for folder in self.folders() if folder.list_id.startswith(list_id)] if list_id else []
        exact = [folder for folder in fitting if folder.list_id == list_id]
        if len(exact or fitting) != 1:
            what = "There is no task list" if not fitting else f"There are {len(fitting)} task lists"
            raise TaskListNotFound(f"{what} {list_id!r}. `cc-executor tasks list` shows them.")
        return (exact or fitting)[0]


def _stem(digest: str, apart: str) -> str:
    whole = hashlib.sha256(f"{apart}\0{digest}".encode("utf-8", "surrogatepass")).hexdigest() if apart else digest
    return whole[:20]


def _line(record: Record) -> bytes:
    try:
        return _encoder.encode(record) + b"\n"
    except UnicodeEncodeError:  # names of files and texts of callables may hold what no UTF-8 can
        return json.dumps(msgspec.to_builtins(record), ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _may_be_ours(line: bytes) -> bool:
    """Whether a line begins as every record does, as far as it goes. A machine that lost its power may have left zeros at the end of what it was writing."""
    return line.startswith(_BEGINNING) or _BEGINNING.startswith(line)


def _changed(path: Path) -> float:
    with contextlib.suppress(OSError):
        return (path / JOURNAL).stat().st_mtime
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0
