"""The history of runs: what is known of each, kept in the index when a receipt is sealed, caught up when somebody reads, and made anew when it is broken.

The receipts and journals are the truth; nothing here is needed to read, verify or repeat a run. Blocking, so not for an event loop.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import msgspec
from msgspec.structs import replace

from cc_executor.agents.claude.census import count_tool_calls
from cc_executor.errors import StateUnusable
from cc_executor.model.ansi import encodable
from cc_executor.policy.kind import kind_of
from cc_executor.policy.redact import Redactor, secret_values
from cc_executor.runtime.plan import PLAN, PRUNED
from cc_executor.shim import records
from cc_executor.store import history as store
from cc_executor.store.history import HistoryIndex, Trouble, Unusable
from cc_executor.store.historyrow import HistoryRow
from cc_executor.store.home import RUN_ID, StateHome
from cc_executor.store.journal import RunFolder
from cc_executor.store.place import claimed_at
from cc_executor.store.plain import read_plain

if TYPE_CHECKING:
    from cc_executor.store.tasklists import ListFolder

logger = logging.getLogger(__name__)

LINE_CHARS: Final = 80  # of the prompt's first line
LABEL_CHARS: Final = 200
SCAN_LIMIT: Final = 256 * 2**20  # bytes of output that tool calls are counted in
ENTRIES_LIMIT: Final = 20_000  # files of a run's folder whose size is added up
PENDING_LIMIT: Final = 500  # runs that were not sealed when somebody last looked
SETTLED: Final = 1.0  # seconds after which a folder's time of change is final: clocks of file systems tick some 4 ms

SAID: Final[Mapping[Trouble, str]] = {
    Trouble.BUSY: "The history is locked by somebody else: what it lacks was read from the receipts, and will be added later.",
    Trouble.UNWRITABLE: "The history cannot be written: it was read from the receipts and not kept. Make the state folder writable, or go on like this.",
    Trouble.DAMAGED: "The history was damaged, and was made anew from the receipts.",
    Trouble.OLD: "The history was of another version, and was made anew from the receipts.",
}

THREAD: Final = "cc_executor history"

T = TypeVar("T")


# --- what is known of one run --------------------------------------------------------------------------------------------


class _Times(msgspec.Struct):
    started: datetime
    elapsed: float
    active: float


class _Outcome(msgspec.Struct):
    kind: str


class _Usage(msgspec.Struct):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0


class _Receipt(msgspec.Struct):
    """What the history takes of a receipt. Read loosely and fast: an index proves nothing, and a hundred thousand are read when it is made anew."""

    agent: str
    times: _Times
    outcome: _Outcome
    model: str = ""
    cwd: str = ""
    prompt_sha256: str = ""
    rehearsed: str | None = None
    usage: _Usage = msgspec.field(default_factory=_Usage)
    cost: float | None = None
    turns: int | None = None
    retries: int = 0
    standing: str = ""


class _Asked(msgspec.Struct):
    prompt: str = ""
    label: str = ""
    model: str | None = None


class _Range(msgspec.Struct):
    p50: float
    p90: float
    based_on: int


class _Foreseen(msgspec.Struct):
    seconds: _Range | None = None
    cost: _Range | None = None


class _Planned(msgspec.Struct):
    load: float | None = None
    notebook: str = ""
    prediction: _Foreseen | None = None


class _Pruned(msgspec.Struct):
    tools: int = 0


# Made while the module is imported: two threads that are the first to need one at the same time crash msgspec 0.22 (41 of 60 processes).
_DECODERS: Final[dict[type[Any], msgspec.json.Decoder[Any]]] = {
    kind: msgspec.json.Decoder(kind, strict=False) for kind in (_Receipt, _Asked, _Planned, _Pruned)
}


def _read(folder: RunFolder, name: str, kind: type[T]) -> T | None:
    decoder = _DECODERS[kind]
    try:
        data = read_plain(folder.path / name)
        try:
            return cast("T", decoder.decode(data))
        except msgspec.DecodeError:
            # Of half a pair of surrogates, too: a folder's name that is no UTF-8, a prompt that was cut in an emoji.
            return cast("T", decoder.decode(encodable(json.dumps(json.loads(data), ensure_ascii=False))))
    except (OSError, ValueError, RecursionError):  # missing, damaged, or of a newer version
        return None


def facts_of(folder: RunFolder, redactor: Redactor, *, tools: int | None = None) -> HistoryRow | None:
    """The row of a run; None when it is not sealed, or its receipt cannot be read. The same whenever it is asked for.

    `tools`: how many it called, where somebody has counted; else its output is looked through.
    """
    receipt = _read(folder, records.RECEIPT, _Receipt)
    if receipt is None:
        return None
    asked = _read(folder, records.REQUEST, _Asked) or _Asked()
    plan = _read(folder, PLAN, _Planned) or _Planned()
    pruned = _read(folder, PRUNED, _Pruned)
    foreseen = plan.prediction or _Foreseen()
    category, complexity = kind_of(asked.prompt, agent=receipt.agent)
    usage = receipt.usage
    return HistoryRow(
        run_id=folder.run_id,
        started=receipt.times.started.timestamp(),
        agent=receipt.agent,
        model=receipt.model,
        asked_model=asked.model or "",
        cwd=receipt.cwd,
        label=redactor.text(asked.label)[:LABEL_CHARS],
        prompt_digest=receipt.prompt_sha256,
        prompt_line=prompt_line(asked.prompt, redactor),
        prompt_chars=len(asked.prompt),
        category=category,
        complexity=complexity,
        outcome=receipt.outcome.kind,
        standing=receipt.standing,
        active=receipt.times.active,
        elapsed=receipt.times.elapsed,
        cost=receipt.cost,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_tokens=usage.cache_read_tokens + usage.cache_creation_tokens,
        turns=receipt.turns,
        retries=receipt.retries,
        tools=_tools(folder, receipt, tools) if pruned is None else pruned.tools,
        load=plan.load,
        rehearsed=receipt.rehearsed or "",
        notebook=plan.notebook,
        size=size_of(folder.path),
        p50=foreseen.seconds.p50 if foreseen.seconds else None,
        p90=foreseen.seconds.p90 if foreseen.seconds else None,
        cost_p50=foreseen.cost.p50 if foreseen.cost else None,
        cost_p90=foreseen.cost.p90 if foreseen.cost else None,
        based_on=foreseen.seconds.based_on if foreseen.seconds else 0,
        is_pruned=int(pruned is not None),
    )


def _tools(folder: RunFolder, receipt: _Receipt, counted: int | None) -> int:
    if receipt.agent != "claude":
        return 0
    return count_tool_calls(output_of(folder)) if counted is None else counted


def prompt_line(prompt: str, redactor: Redactor) -> str:
    """The beginning of the first line that is not empty, without secrets and control characters."""
    first = next((line for line in prompt[: 100 * LINE_CHARS].splitlines() if line.strip()), "")
    # Masked before it is cut: the beginning of a secret is not recognised.
    return " ".join(redactor.seen(first).split())[:LINE_CHARS]


def output_of(folder: RunFolder) -> Iterator[bytes]:
    """The agent's output, block by block, up to a bound."""
    offset = 0
    with contextlib.suppress(StateUnusable):
        while offset < SCAN_LIMIT and (block := folder.read(records.STDOUT, offset, 2**20)):
            yield block
            offset += len(block)


def size_of(folder: Path) -> int:
    """Bytes of every file below a folder; links are not followed."""
    size, waiting, seen = 0, [str(folder)], 0
    while waiting and seen < ENTRIES_LIMIT:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                seen += 1
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    with contextlib.suppress(OSError):
                        size += entry.stat(follow_symlinks=False).st_size
    return size


# --- keeping it ----------------------------------------------------------------------------------------------------------


def remember_soon(folder: RunFolder, redactor: Redactor, *, tools: int) -> None:
    """`remember` on a thread of its own, for whoever waits for the run must not wait for a disk that is slow.

    Not a daemon, though the thread that seals is one and would hand that down: it ends in some 20 ms (the last connection to a WAL file syncs it), and a
    command that has nothing more to do leaves its row all the same.
    """
    try:
        threading.Thread(target=remember, args=(folder, redactor, tools), name=THREAD, daemon=False).start()
    except RuntimeError:  # the interpreter ends
        remember(folder, redactor, tools)


def remember(folder: RunFolder, redactor: Redactor, tools: int | None = None) -> None:
    """Put a run that was just sealed into the index. Waits for nobody, and never fails: what is missed is caught up later."""
    index = HistoryIndex(folder.path.parent.parent)
    try:
        row = facts_of(folder, redactor, tools=tools)
        if row is None:
            return
        try:
            _put(index, row)
        except Unusable as error:
            if error.trouble not in {Trouble.DAMAGED, Trouble.OLD} or not index.heal():
                raise
            _put(index, row, healed=error.trouble)
    except Unusable as error:
        logger.info("run %s is not in the history yet: %s", folder.run_id, error)
    except Exception:  # the run has ended and its receipt is sealed: whoever waits for it is owed that, and nothing of this
        logger.warning("run %s could not be put into the history", folder.run_id, exc_info=True)


def _put(index: HistoryIndex, row: HistoryRow, *, healed: Trouble | None = None) -> None:
    with index.writing(patience=store.WRITE_PATIENCE) as connection, store.transaction(connection):
        store.put(connection, [row])
        if healed is not None:
            store.note(connection, "healed", healed.value)


def ask(home: StateHome, work: Callable[[sqlite3.Connection], T], *, environ: Mapping[str, str]) -> tuple[T, list[str]]:
    """What `work` finds in a history that has every sealed run, and what there is to say about it.

    Where the index cannot be kept (a folder that cannot be written, a lock that somebody holds), it is made in memory.

    Parameters
    ----------
    home : StateHome
    work : callable
        Takes the connection; reads or writes.
    environ : mapping of str to str
        Its secrets are masked.

    Raises
    ------
    StateUnusable
        The state folder is not safe.
    """
    home.check()
    redactor = Redactor(secret_values(environ))
    index = HistoryIndex(home.root)
    said: list[str] = []
    trouble: Trouble | None = None
    if home.runs_path.exists():
        for number in range(3):  # broken, healed, and perhaps found broken once more by somebody else's hand
            try:
                with index.writing() as connection:
                    catch_up(connection, home, redactor, said)
                    return work(connection), said
            except Unusable as error:
                trouble = error.trouble
                if trouble not in {Trouble.DAMAGED, Trouble.OLD}:
                    break
                try:
                    if index.heal(is_sure=number > 0):
                        said[:] = [SAID[trouble]]
                except Unusable as again:
                    trouble = again.trouble
                    break
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)) as memory:
        try:
            with index.reading() as source:
                source.backup(memory)
        except Unusable:
            store.make_tables(memory)
        catch_up(memory, home, redactor, said)
        return work(memory), [*said, *([SAID[trouble]] if trouble is not None and SAID[trouble] not in said else [])]


def catch_up(connection: sqlite3.Connection, home: StateHome, redactor: Redactor, said: list[str]) -> None:
    """Add the sealed runs that the index lacks, take out those whose folders are gone, and say to which task lists they belong.

    Raises
    ------
    Unusable
    """
    if (healed := store.noted(connection, "healed")) is not None:
        said.append(SAID[Trouble(healed)] if healed in {each.value for each in Trouble} else SAID[Trouble.DAMAGED])
        with store.transaction(connection):
            store.note(connection, "healed", None)
    stamp = _changed(home.runs_path)
    is_known = stamp and store.noted(connection, "scanned") == str(stamp)
    gone: set[str] = set()
    if is_known:
        missing = [name for name in (store.noted(connection, "pending") or "").split() if RUN_ID.match(name)]
    else:
        names, known = _names(home), store.run_ids(connection)
        missing, gone = sorted(names - known), known - names
    pending: list[str] = []
    added: list[str] = []
    for start in range(0, len(missing), store.CHUNK):
        rows: list[HistoryRow] = []
        for name in missing[start : start + store.CHUNK]:
            row = facts_of(home.folder(name), redactor)
            if row is not None:
                rows.append(row)
            else:
                pending.append(name)
        if rows:
            with store.transaction(connection):
                store.put(connection, rows)
            added += [row.run_id for row in rows]
    if gone or not is_known or len(pending) != len(missing):
        is_final = time.time() - stamp / 1e9 > SETTLED and len(pending) <= PENDING_LIMIT
        with store.transaction(connection):
            store.remove(connection, gone)
            store.note(connection, "scanned", str(stamp) if is_final else None)
            store.note(connection, "pending", " ".join(pending[-PENDING_LIMIT:]))
    said += _assign_lists(connection, home, frozenset(pending), added)


def _names(home: StateHome) -> set[str]:
    try:
        return {name for name in os.listdir(home.runs_path) if RUN_ID.match(name)}
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise StateUnusable(f"The state folder {home.runs_path} cannot be read: {error.strerror}.") from error


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _assign_lists(connection: sqlite3.Connection, home: StateHome, pending: Set[str], added: Iterable[str]) -> list[str]:
    """Runs do not know to which list they belong; the lists' journals know their runs. Returns sentences about those that cannot be read.

    Parameters
    ----------
    pending : set of str
        Runs that have no row yet.
    added : iterable of str
        Runs that have got theirs only now, perhaps for the second time: their lists are read again.
    """
    known = dict(_lists_noted(connection))
    oldest = min(map(claimed_at, added), default=math.inf)
    changed: list[tuple[str, str, list[tuple[str, str]]]] = []
    said: list[str] = []
    for folder, stamp in _lists(home):
        if known.get(f"list:{folder.list_id}") != str(stamp) or stamp / 1e9 + SETTLED >= oldest:
            try:
                changed.append((folder.list_id, str(stamp), _begun(folder)))
            except StateUnusable as error:
                said.append(str(error))
    if changed:
        with store.transaction(connection):
            for list_id, stamp, begun in changed:
                for run_id, task_id in begun:
                    store.assign(connection, run_id, list_id=list_id, task_id=task_id)
                if pending.isdisjoint(run_id for run_id, _ in begun):
                    store.note(connection, f"list:{list_id}", stamp)
    return said


def in_lists(home: StateHome, rows: Sequence[HistoryRow]) -> list[HistoryRow]:
    """The rows with the task lists to which their runs belong."""
    oldest = min((claimed_at(row.run_id) for row in rows), default=math.inf)
    lists = (folder for folder, stamp in _lists(home) if stamp / 1e9 + SETTLED >= oldest)
    of: dict[str, tuple[str, str]] = {}
    for folder in lists:
        with contextlib.suppress(StateUnusable):  # said by whoever reads the index
            of |= {run_id: (folder.list_id, task_id) for run_id, task_id in _begun(folder)}
    return [replace(row, list_id=of[row.run_id][0], task_id=of[row.run_id][1]) if row.run_id in of else row for row in rows]


def _lists(home: StateHome) -> Iterator[tuple[ListFolder, int]]:
    """Every list, and when its journal was written last: none of its runs is younger."""
    # Here, because every first run imports this module, and few have lists.
    from cc_executor.store.tasklists import FOLDER, JOURNAL, ListHome

    if (home.root / FOLDER).exists():
        for folder in ListHome(home).folders():
            yield folder, _changed(folder.path / JOURNAL)


def _begun(folder: ListFolder) -> list[tuple[str, str]]:
    """The runs of a list, each with its task."""
    from cc_executor.model.listrecord import Begun  # as above

    return [(item.run_id, item.task) for item in folder.records() if isinstance(item, Begun) and item.run_id]


def _lists_noted(connection: sqlite3.Connection) -> Iterable[tuple[str, str]]:
    with store.translated():
        return [(str(name), str(value)) for name, value in connection.execute("SELECT name, value FROM meta WHERE name LIKE 'list:%'")]


def rebuild(home: StateHome, *, environ: Mapping[str, str]) -> tuple[int, list[str]]:
    """Make the index anew from the receipts; how many runs it has now, and what there is to say."""

    def anew(connection: sqlite3.Connection) -> int:
        said: list[str] = []
        with store.transaction(connection):
            connection.execute("DELETE FROM runs")
            connection.execute("DELETE FROM meta")
        catch_up(connection, home, Redactor(secret_values(environ)), said)
        with store.translated():
            return int(connection.execute("SELECT count(*) FROM runs").fetchone()[0])

    return ask(home, anew, environ=environ)
