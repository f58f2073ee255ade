"""The history that several machines share, if `CC_EXECUTOR_REDIS` names a Redis: rows go out when runs have ended, beside everything else.

Nothing is lost when Redis is down, hangs, or when this process ends before the thread that sends is done: what has not gone out waits in the state folder
(`cc_executor.store.unshared`), for the next run that begins, or for `cc-executor history share`. A trouble is said once, by the next run.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cc_executor.errors import HistoryNotShared, InvalidRequest, StateUnusable
from cc_executor.policy.hindsight import calibration
from cc_executor.policy.redact import Redactor, secret_values
from cc_executor.runtime.history import facts_of, in_lists
from cc_executor.runtime.past import JUDGED, History
from cc_executor.store import history as store
from cc_executor.store.historyrow import Filters, HistoryRow
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder
from cc_executor.store.place import REDIS_VARIABLE
from cc_executor.store.redis import CHUNK, PULL_PATIENCE, RedisMirror
from cc_executor.store.unshared import Unshared

logger = logging.getLogger(__name__)

REST: Final = 30.0  # seconds for which a process leaves a Redis alone that it could not use

_lock: Final = threading.Lock()
_senders: Final[dict[Path, threading.Thread]] = {}
_rests_until: Final[dict[str, float]] = {}


def offer(folder: RunFolder, environ: Mapping[str, str]) -> None:
    """Let a run that was just sealed be shared: remembers it and begins to send. Takes some milliseconds at most, and never fails."""
    root = folder.path.parent.parent
    try:
        Unshared(root).add([folder.run_id])
    except OSError:
        logger.info("run %s is not shared", folder.run_id, exc_info=True)
    begin(root, environ)


def begin(root: Path, environ: Mapping[str, str]) -> None:
    """Begin to send what waits, on a thread of its own, if there is anything and nobody is at it. Does not wait for it, and never fails."""
    url = environ.get(REDIS_VARIABLE)
    if not url or time.monotonic() < _rests_until.get(url, 0.0) or not Unshared(root).names():
        return
    with _lock:
        if (sender := _senders.get(root)) is not None and sender.is_alive():
            return
        # A daemon: a program that ends does not wait for Redis.
        _senders[root] = threading.Thread(target=_send_beside, args=(root, url, dict(environ)), name="cc_executor shares", daemon=True)
        with contextlib.suppress(RuntimeError):  # the interpreter is shutting down
            _senders[root].start()


def _send_beside(root: Path, url: str, environ: Mapping[str, str]) -> None:
    try:
        send(StateHome(root), environ)
    except (HistoryNotShared, InvalidRequest) as trouble:
        _rests_until[url] = time.monotonic() + REST
        logger.info("the history is not shared: %s", trouble)
        Unshared(root).tell(f"The history is not shared now: {trouble} Runs are not affected; what is to be shared is kept.")
    except Exception:  # nobody waits for this thread; what it was to send is still there
        _rests_until[url] = time.monotonic() + REST
        if not sys.is_finalizing():
            logger.info("the history could not be shared", exc_info=True)


def send(home: StateHome, environ: Mapping[str, str]) -> int:
    """Send what waits, and return how many rows went out. Blocks for as long as that takes; each step has its bound.

    Raises
    ------
    HistoryNotShared
        What did not go out still waits.
    InvalidRequest
        There is no address, or one that is refused.
    """
    redactor = Redactor(secret_values(environ))
    unshared, count = Unshared(home.root), 0
    with contextlib.closing(_mirror(environ)) as mirror:
        mirror.check()
        while names := unshared.names()[:CHUNK]:
            rows = [row for name in names if (row := facts_of(home.folder(name), redactor)) is not None]
            mirror.put(in_lists(home, rows))
            unshared.remove(names)
            count += len(rows)
    unshared.settle()
    return count


def offer_all(home: StateHome) -> None:
    """Let every run that is kept wait to be sent. Rows that are there already are replaced by themselves.

    Raises
    ------
    StateUnusable
    """
    try:
        Unshared(home.root).add((folder.run_id for folder in home.runs()), limit=sys.maxsize)
    except OSError as error:
        raise StateUnusable(f"The state folder {home.root} cannot be written: {error.strerror}.") from error


def shared(filters: Filters, *, environ: Mapping[str, str]) -> History:
    """The runs of all machines that share their history, newest first.

    Raises
    ------
    InvalidRequest, HistoryNotShared
    """
    rows, strange = _within(2 * PULL_PATIENCE, _mirror(environ))
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as memory:
        store.make_tables(memory)
        with store.transaction(memory):
            store.put(memory, rows)
        found, judged = store.query(memory, filters), calibration(store.judged(memory, limit=JUDGED))
    notes = (f"{strange:,} rows there are damaged, or of another version: they were left out.",) if strange else ()
    return History(tuple(found), judged, notes)


def _within(seconds: float, mirror: RedisMirror) -> tuple[list[HistoryRow], int]:
    """The rows; on a thread, because an answer that trickles in, byte by byte, keeps to every other bound."""
    answer: list[tuple[list[HistoryRow], int]] = []
    trouble: list[BaseException] = []

    def ask() -> None:
        try:
            with contextlib.closing(mirror):
                answer.append(mirror.rows())
        except BaseException as error:  # noqa: BLE001 - carried to the calling thread, which is owed it
            trouble.append(error)

    thread = threading.Thread(target=ask, name="cc_executor shared history", daemon=True)
    thread.start()
    thread.join(seconds)
    if trouble:
        raise trouble[0]
    if not answer:
        raise HistoryNotShared(f"Redis is too slow: its rows did not come within {seconds:g} s.")
    return answer[0]


def _mirror(environ: Mapping[str, str]) -> RedisMirror:
    url = environ.get(REDIS_VARIABLE)
    if not url:
        raise InvalidRequest(f"{REDIS_VARIABLE} is not set: it names the Redis, like rediss://USER:PASSWORD@HOST:6379/0.")
    return RedisMirror(url)
