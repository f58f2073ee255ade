"""The history: one row for each sealed run, in an SQLite file beside the runs. An index; the truth are the receipts and journals, and it can be made anew.

Nothing waits for it: a write that finds the file locked gives up after `WRITE_PATIENCE`, and whoever reads next catches up. WAL where it can be had,
so that readers never wait for a writer; `synchronous=NORMAL`, for what a power cut loses is caught up too. A connection lives for one operation.

Knows SQLite and rows; knows no receipt and no prompt.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from cc_executor.model.ansi import encodable
from cc_executor.store.filesystem import is_shared
from cc_executor.store.held import held_here, taken_within
from cc_executor.store.historyrow import COLUMNS, Filters, HistoryRow
from cc_executor.store.place import LONGEST_WAIT, RUN_ID

FILE: Final = "history.sqlite3"
DAMAGED: Final = "history.damaged"  # what was found broken, for whoever wants to look at it; the next one replaces it
LOCK: Final = "history.lock"
VERSION: Final = 1  # of the table; another one is made anew
WRITE_PATIENCE: Final = 0.02  # seconds that the end of a run may wait for somebody else's write, which takes about one millisecond
READ_PATIENCE: Final = 0.2
LOCK_PATIENCE: Final = 1.0
CHUNK: Final = 500  # rows of one transaction
CACHE_KB: Final = 4_096

_TYPES: Final[Mapping[Any, str]] = {str: "TEXT NOT NULL", int: "INTEGER NOT NULL", float: "REAL NOT NULL", int | None: "INTEGER"}


def _type(field: msgspec.structs.FieldInfo) -> str:
    return _TYPES.get(field.type, "REAL")


_TABLE: Final = (
    "CREATE TABLE runs ("
    + ", ".join(
        f"{field.name} {'TEXT PRIMARY KEY NOT NULL' if field.name == 'run_id' else _type(field)}"
        for field in msgspec.structs.fields(HistoryRow)
    )
    + ") WITHOUT ROWID"
)
# The last column makes each of them give its rows in the order of time.
_INDEXES: Final = tuple(
    f"CREATE INDEX by_{'_'.join(names)} ON runs ({', '.join(names)}, run_id)"
    for names in (
        ("agent", "rehearsed"),
        ("agent", "rehearsed", "asked_model"),
        ("outcome",),
        ("label",),
        ("prompt_digest",),
        ("cwd",),
        ("category",),
        ("list_id",),
        ("model",),
    )
)
_PREDICTED: Final = "CREATE INDEX by_prediction ON runs (run_id) WHERE p90 IS NOT NULL"
_META: Final = "CREATE TABLE meta (name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL) WITHOUT ROWID"
SCHEMA: Final = (_TABLE, *_INDEXES, _PREDICTED, _META)


_LATEST_START: Final = LONGEST_WAIT + 60.0  # seconds between id and start; a launch is given up after half of a minute

_EQUAL: Final = ("agent", "model", "outcome", "standing", "label", "cwd", "category", "list_id", "prompt_digest")


class Trouble(Enum):
    """Why the file cannot be used."""

    BUSY = "busy"  # somebody else writes
    DAMAGED = "damaged"
    UNWRITABLE = "unwritable"
    OLD = "old"  # of another version


class Unusable(Exception):
    """The index cannot be used now; nobody outside of the history sees this. `trouble` says why."""

    def __init__(self, trouble: Trouble, detail: str) -> None:
        self.trouble = trouble
        super().__init__(f"{trouble.value}: {detail}")


# https://sqlite.org/rescode.html: BUSY, LOCKED; PERM, READONLY, IOERR, FULL, CANTOPEN, AUTH. What else there is means that the file is not as we left it.
_BUSY: Final = frozenset({5, 6})
_UNWRITABLE: Final = frozenset({3, 8, 10, 13, 14, 23})


@contextlib.contextmanager
def translated() -> Generator[None]:
    """Say what is wrong with the index in our own words."""
    try:
        yield
    except sqlite3.Error as error:
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        trouble = Trouble.BUSY if code in _BUSY else Trouble.UNWRITABLE if code in _UNWRITABLE else Trouble.DAMAGED
        raise Unusable(trouble, str(error)) from error
    except (UnicodeDecodeError, OverflowError) as error:  # bytes in the file that are no text
        raise Unusable(Trouble.DAMAGED, str(error)) from error


class HistoryIndex:
    """The index of one state folder.

    Parameters
    ----------
    root : Path
        The state folder; whoever asks has checked that it is safe.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / FILE

    @contextlib.contextmanager
    def writing(self, *, patience: float = READ_PATIENCE) -> Generator[sqlite3.Connection]:
        """A connection that may write; the file is made if need be.

        Raises
        ------
        Unusable
        """
        with translated():
            self._make()
            with contextlib.closing(self._connect("rw", patience)) as connection:
                _check(connection)
                yield connection

    @contextlib.contextmanager
    def reading(self, *, patience: float = READ_PATIENCE) -> Generator[sqlite3.Connection]:
        """A connection that only reads.

        Raises
        ------
        Unusable
            Also when there is no index yet (`Trouble.OLD`).
        """
        with translated():
            if not self._is_there():
                raise Unusable(Trouble.OLD, "there is no index yet")
            try:
                connection = self._connect("rw", patience)
            except sqlite3.OperationalError as error:
                if (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF not in _UNWRITABLE:
                    raise
                # A folder that cannot be written has no room for the shared memory of WAL, and nobody who could write meanwhile.
                connection = self._connect("ro&immutable=1", patience)
            with contextlib.closing(connection):
                connection.execute("PRAGMA query_only=ON")
                _check(connection)
                yield connection

    def _connect(self, mode: str, patience: float) -> sqlite3.Connection:
        # isolation_level None: transactions begin where we say so.
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode={mode}", timeout=patience, isolation_level=None, uri=True, check_same_thread=False
        )
        try:
            # What stands in the file is data, whoever wrote it.
            for setting in ("trusted_schema=OFF", "cell_size_check=ON", f"cache_size=-{CACHE_KB}", "synchronous=NORMAL"):
                connection.execute(f"PRAGMA {setting}")
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def _is_there(self) -> bool:
        """Whether a plain file of ours stands there.

        Raises
        ------
        Unusable
            Something else does: the agent can write here, and a link would lead us away.
        """
        try:
            status = os.lstat(self.path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Unusable(Trouble.UNWRITABLE, str(error)) from error
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
            raise Unusable(Trouble.DAMAGED, "what stands there is no plain file of this user")
        return True

    def _make(self) -> None:
        if self._is_there():
            return
        try:
            with self._alone():
                if self._is_there():
                    return
                os.rename(self._made(), self.path)  # so that nobody meets it half done
        except OSError as error:
            raise Unusable(Trouble.UNWRITABLE, error.strerror or str(error)) from error

    def _made(self) -> Path:
        """A new file under another name.

        Readers of a WAL never wait, but it needs memory that all who have the file open share (https://sqlite.org/wal.html): several machines have none, nor
        have some file systems.
        """
        if not is_shared(self.root):
            with contextlib.suppress(sqlite3.OperationalError):
                return self._made_with("WAL")
        return self._made_with("DELETE")

    def _made_with(self, journal_mode: str) -> Path:
        self._sweep()
        made = self.root / f".{FILE}.{os.getpid()}"
        os.close(os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        with contextlib.closing(sqlite3.connect(made, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA journal_mode={journal_mode}")
            make_tables(connection)
        return made

    def _sweep(self) -> None:
        """Remove what was left by somebody who could not make it, or was killed at it."""
        for left in self.root.glob(f".{FILE}.*"):
            os.unlink(left)

    @contextlib.contextmanager
    def _alone(self) -> Generator[None]:
        descriptor = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with held_here(descriptor):
            if not taken_within(descriptor, LOCK_PATIENCE):
                raise Unusable(Trouble.BUSY, "somebody makes it at this moment")
            yield

    def heal(self, *, is_sure: bool = False) -> bool:
        """Put a damaged file aside, so that a new one is made. False when somebody else has done so meanwhile.

        Parameters
        ----------
        is_sure : bool
            Also where nothing is seen of the damage without a look at each row: it is there still after somebody was given the time to do so.

        Raises
        ------
        Unusable
            The folder cannot be written.
        """
        try:
            with self._alone():
                try:
                    with self.reading() as connection, translated():
                        if not is_sure and connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",):
                            return False
                except Unusable as error:
                    if error.trouble is Trouble.BUSY:
                        raise
                for ending in ("-wal", "-shm", "-journal"):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(f"{self.path}{ending}")
                if os.path.islink(self.path):
                    os.unlink(self.path)
                else:
                    with contextlib.suppress(FileNotFoundError):
                        os.replace(self.path, self.root / DAMAGED)
        except OSError as error:
            raise Unusable(Trouble.UNWRITABLE, error.strerror or str(error)) from error
        return True


def make_tables(connection: sqlite3.Connection) -> None:
    """The empty tables."""
    connection.execute(f"PRAGMA user_version={VERSION}")
    for statement in SCHEMA:
        connection.execute(statement)


def _check(connection: sqlite3.Connection) -> None:
    """Whether the tables are those that we make: nothing missing, no trigger and no view of somebody else's."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        raise Unusable(Trouble.OLD if version else Trouble.DAMAGED, f"the table has version {version}")
    found = {row[0] for row in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}
    if found != set(SCHEMA):
        raise Unusable(Trouble.DAMAGED, "the tables are not as they were made")


def restrict(connection: sqlite3.Connection, only: Callable[[str], bool]) -> None:
    """Let whatever is asked over this connection from now on see only some runs. `only`: told by a run's id; must not raise."""

    def is_wanted(run_id: object) -> bool:  # somebody else may have written here
        return isinstance(run_id, str) and RUN_ID.match(run_id) is not None and only(run_id)

    connection.create_function("is_wanted", 1, is_wanted)
    with translated():
        is_read_only = connection.execute("PRAGMA query_only").fetchone()[0]
        connection.execute("PRAGMA query_only=OFF")  # it forbids temporary views, too
        connection.execute("CREATE TEMP VIEW runs AS SELECT * FROM main.runs WHERE is_wanted(run_id)")
        connection.execute(f"PRAGMA query_only={is_read_only}")


# --- rows ---------------------------------------------------------------------------------------------------------------

# A run does not know its task list: who puts its row once more says nothing of that, and what is known of it stays.
_ASSIGNED: Final = frozenset({"list_id", "task_id"})
_PUT: Final = (
    f"INSERT INTO runs ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))}) ON CONFLICT (run_id) DO UPDATE SET "  # noqa: S608 - names of ours
    + ", ".join(
        f"{name} = coalesce(nullif(excluded.{name}, ''), {name})" if name in _ASSIGNED else f"{name} = excluded.{name}" for name in COLUMNS
    )
)


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """All of it or nothing. BEGIN IMMEDIATE: one that began as a reader could not become a writer while another writes."""
    with translated():
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def put(connection: sqlite3.Connection, rows: Iterable[HistoryRow]) -> None:
    """Add rows, or replace those of the same runs; a row without a task list keeps the one that was assigned. Call it inside of a transaction."""
    connection.executemany(_PUT, ([_storable(getattr(row, name)) for name in COLUMNS] for row in rows))


def _storable(value: object) -> object:
    """A path or a prompt may hold bytes that are no UTF-8; a number may be beyond SQLite's."""
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, int):
        return max(-(2**63), min(2**63 - 1, value))
    return value


def remove(connection: sqlite3.Connection, run_ids: Iterable[str]) -> None:
    """Take rows out. Call it inside of a transaction."""
    connection.executemany("DELETE FROM runs WHERE run_id = ?", ((run_id,) for run_id in run_ids))


def run_ids(connection: sqlite3.Connection) -> set[str]:
    """The runs that there are rows of."""
    with translated():
        return {row[0] for row in connection.execute("SELECT run_id FROM runs")}


def query(connection: sqlite3.Connection, filters: Filters) -> list[HistoryRow]:
    """The rows that are wanted, newest first."""
    where, values = _where(filters)
    limit = "" if filters.limit is None else f" LIMIT {max(0, filters.limit)}"
    with translated():
        found = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM runs{where} ORDER BY run_id DESC{limit}", values)  # noqa: S608 - names of ours
        return [_row(values) for values in found]


class PastRow(NamedTuple):
    """What an estimate is made of."""

    run_id: str
    category: str
    complexity: str
    prompt_digest: str
    label: str
    cwd: str
    load: float | None
    active: float
    cost: float | None
    outcome: str


_RARE: Final = frozenset({"prompt_digest", "label"})
_PAST: Final = ", ".join(PastRow._fields)


def newest(connection: sqlite3.Connection, *, limit: int, **equal: str) -> list[PastRow]:
    """The newest rows whose columns have these values, newest first. Read at each start of a run: columns that it has no use for are left out."""
    # Of a prompt or label there are few: its own index is the one to use. The sign keeps SQLite from the others, which it cannot judge without statistics.
    rare = _RARE & equal.keys()
    where = " AND ".join(f"{'+' if rare and name not in rare else ''}{name} = ?" for name in equal)
    with translated():
        found = connection.execute(
            f"SELECT {_PAST} FROM runs WHERE {where} ORDER BY run_id DESC LIMIT {limit}",  # noqa: S608 - names of ours
            [_storable(value) for value in equal.values()],
        ).fetchall()
    if not all(map(_is_past, found)):
        raise Unusable(Trouble.DAMAGED, "a row holds what nobody has put there")
    return [PastRow(*values) for values in found]


def _is_past(values: tuple[Any, ...]) -> bool:
    """SQLite keeps what it is given, whatever a column's type: somebody else may have written."""
    *texts, load, active, cost, outcome = values
    return (
        all(isinstance(text, str) for text in (*texts, outcome))
        and isinstance(active, float)
        and all(isinstance(item, float | None) for item in (load, cost))
    )


def _row(values: Sequence[Any]) -> HistoryRow:
    try:
        return msgspec.convert(dict(zip(COLUMNS, values, strict=True)), HistoryRow)
    except msgspec.ValidationError as error:
        raise Unusable(Trouble.DAMAGED, str(error)) from error


def _where(filters: Filters) -> tuple[str, list[object]]:
    parts: list[str] = []
    values: list[object] = []
    for name in _EQUAL:
        if value := getattr(filters, name):
            parts.append(f"{name} = ?")
            values.append(_storable(value))
    if filters.text:
        wanted = filters.text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        parts.append("(prompt_line LIKE ? ESCAPE '\\' OR label LIKE ? ESCAPE '\\')")
        values += [f"%{_storable(wanted)}%"] * 2
    if filters.since is not None:
        parts.append("started >= ? AND run_id >= ?")  # an id is made before the run starts, and tells when: so the others need no look
        values += [filters.since, f"{max(0, int((filters.since - _LATEST_START) * 1000)):012x}"]
    if filters.until is not None:
        parts.append("started < ? AND run_id < ?")
        values += [filters.until, f"{max(0, int((filters.until + _LATEST_START) * 1000)):012x}"]
    if filters.before:
        parts.append("run_id < ?")
        values.append(_storable(filters.before))
    if filters.rehearsed is not None:
        parts.append("rehearsed <> ''" if filters.rehearsed else "rehearsed = ''")
    return (f" WHERE {' AND '.join(parts)}" if parts else ""), values


def judged(connection: sqlite3.Connection, *, limit: int) -> list[tuple[float, float, float, bool]]:
    """p50, p90, seconds and whether it ended well, of the newest runs that were predicted."""
    with translated():
        found = connection.execute(
            "SELECT p50, p90, active, outcome = 'ok' FROM runs WHERE p90 IS NOT NULL ORDER BY run_id DESC LIMIT ?", (limit,)
        ).fetchall()
    if not all(isinstance(number, float) for *numbers, _ in found for number in numbers):  # as for `_is_past`
        raise Unusable(Trouble.DAMAGED, "a prediction is none")
    return [(p50, p90, active, bool(ended)) for p50, p90, active, ended in found]


def assign(connection: sqlite3.Connection, run_id: str, *, list_id: str, task_id: str) -> None:
    """Say of which task list a run is. Call it inside of a transaction."""
    connection.execute("UPDATE runs SET list_id = ?, task_id = ? WHERE run_id = ?", (list_id, task_id, run_id))


def note(connection: sqlite3.Connection, name: str, value: str | None) -> None:
    """Remember something about the index itself; None forgets it. Call it inside of a transaction."""
    if value is None:
        connection.execute("DELETE FROM meta WHERE name = ?", (name,))
    else:
        connection.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (name, value))


def noted(connection: sqlite3.Connection, name: str) -> str | None:
    """What was remembered."""
    with translated():
        row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])
