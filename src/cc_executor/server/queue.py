"""Runs that wait for their turn: one small file each in the private state folder, so that they outlive the server. Starts nothing; knows no HTTP.

An entry is written before its place is promised, and removed when its run is at work or somebody does not want it any more. A run's id starts at most one
run, whoever tries: a server that dies between starting a run and removing its entry leaves an entry whose run is there, and that one is passed over.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec
from pydantic import ValidationError

from cc_executor.errors import InvalidRequest, StateUnusable
from cc_executor.model.request import RunId, RunRequest
from cc_executor.runtime.errand import Errand, in_thread
from cc_executor.runtime.summary import READ, RunSummary, beginning
from cc_executor.runtime.telemetry import carried
from cc_executor.server.owners import Owners
from cc_executor.server.policy import SOON
from cc_executor.server.refusal import Refused
from cc_executor.store.home import RUN_ID, StateHome
from cc_executor.store.journal import RunStanding, request_json
from cc_executor.store.lock import PATIENCE, locked
from cc_executor.store.place import LONGEST_WAIT, claimed_at
from cc_executor.store.plain import read_plain, unwritable, write_whole

ENDED: Final = 500  # kept of those that were never started
_FOLDER: Final = "queue"
_SUFFIX: Final = ".json"


class Waiting(msgspec.Struct, frozen=True):
    """A run that waits (`status` "queued"), or one that was never started ("cancelled", "refused") and why.

    `since`: epoch seconds from which on it waits, which may be later than its id. `trace`: of `carried`, where it was asked for.
    """

    run_id: RunId
    owner: str
    agent: str
    label: str
    prompt: str
    status: str = "queued"
    why: str = ""
    since: float = 0.0
    trace: Mapping[str, str] = {}

    @property
    def is_over(self) -> bool:
        """Whether it does not wait any more."""
        return self.status != "queued"

    def row(self, mask: Callable[[str], str]) -> RunSummary:
        """As in a list of runs."""
        at, prompt = claimed_at(self.run_id), beginning(self.prompt, mask)
        return RunSummary(id=self.run_id, status=self.status, started=at, agent=self.agent, label=mask(self.label), prompt=prompt)


class Queue:
    """The runs that wait, in the order in which they came, each owner's by itself.

    Parameters
    ----------
    home : StateHome
    owners : Owners
    most : int
        Runs of one owner that may wait.
    """

    def __init__(self, home: StateHome, owners: Owners, most: int) -> None:
        self._folder = home.root / "server" / _FOLDER
        self._ended = self._folder / "ended"
        self._home = home
        self._owners = owners
        self._most = most
        self._known: Mapping[str, Waiting] = {}  # name of the file → what it says; never changed but replaced, for threads go through it
        self._lock = asyncio.Lock()  # before the turn among all servers, which is waited for in a thread

    @property
    def is_used(self) -> bool:
        """Whether anything was ever queued."""
        return self._folder.exists()

    async def add(self, run_id: RunId, request: RunRequest, who: str) -> Waiting:
        """Let a run wait.

        Raises
        ------
        Refused
            The queue is full.
        StateUnusable
            It cannot be written down, so nothing is promised.
        """
        errand = Errand(lambda _: self._add(run_id, request, who), patience=2 * PATIENCE)
        async with self._lock:  # the place is free when it is looked at, and until it is taken
            try:
                return await errand.run()
            except BaseException:
                if errand.result is not None:  # cancelled meanwhile, and nobody was promised anything
                    take_back = partial(self.withdraw, errand.result, status="cancelled", why="It was called off before it had a place.")
                    with anyio.CancelScope(shield=True), suppress(StateUnusable):
                        await in_thread(take_back)
                raise

    def _turn(self) -> AbstractContextManager[None]:
        return locked(self._folder.with_suffix(".lock"))

    def _add(self, run_id: RunId, request: RunRequest, who: str) -> Waiting:
        with self._turn():
            return self._added(run_id, request, who)

    def _added(self, run_id: RunId, request: RunRequest, who: str) -> Waiting:
        names = self._names()
        if len(self.of(who)) >= self._most:
            said = f"The most runs are at work, and {self._most} wait already. Wait for one to end, or cancel one."
            raise Refused(429, "QueueFull", said, retry_after=SOON)
        number = int(names[-1].partition("-")[0]) + 1 if names else 1
        trace = carried({})
        entry = _waiting(run_id, who, request, since=time.time(), trace=trace)
        path = self._folder / f"{number:012d}-{run_id}{_SUFFIX}"
        self._owners.claim(run_id, who)
        try:
            _write(path, json.dumps({"owner": who, "trace": trace}).encode("ascii") + b"\n" + request_json(request))
        except BaseException:
            self._owners.forget(run_id)
            raise
        self._known = {**self._known, path.name: entry}
        return entry

    def entries(self) -> list[Waiting]:
        """All that wait, oldest first. Blocking."""
        names = self._names()
        before = self._known
        self._known = known = {name: entry for name in names if (entry := before.get(name) or self._read(name)) is not None}
        return [entry for entry in known.values() if not self._home.folder(entry.run_id).path.exists()]

    def of(self, who: str) -> list[Waiting]:
        """Those of one owner, oldest first. Blocking."""
        return [entry for entry in self.entries() if entry.owner == who]

    def find(self, run_id: str) -> Waiting | None:
        """A run that waits or that was never started. Blocking."""
        waiting = next((entry for entry in self.entries() if entry.run_id == run_id), None)
        return waiting or self._over(run_id)

    def place(self, entry: Waiting) -> int:
        """1: it is the owner's next. Blocking."""
        return 1 + next((place for place, each in enumerate(self.of(entry.owner)) if each.run_id == entry.run_id), 0)

    def request(self, entry: Waiting) -> RunRequest:
        """What was asked for. Blocking.

        Raises
        ------
        InvalidRequest
            It cannot be read any more, and so not be started.
        """
        name = self._name_of(entry.run_id)
        try:
            data = read_plain(self._folder / name)
            return RunRequest.model_validate(json.loads(data.partition(b"\n")[2]))
        except (OSError, ValidationError, ValueError, RecursionError) as error:
            raise InvalidRequest("What was kept of this run while it waited cannot be read. Ask again.") from error

    def is_wanted(self, entry: Waiting) -> bool:
        """Whether it still waits: somebody may have withdrawn it, or another server have started it. Blocking."""
        return (self._folder / self._name_of(entry.run_id)).exists() and not (self._ended / entry.run_id).exists()

    def started(self, entry: Waiting) -> bool:
        """The run is at work: it waits no more. False when somebody has withdrawn it meanwhile. Blocking. Raises `StateUnusable`."""
        with self._turn():
            (self._folder / self._name_of(entry.run_id)).unlink(missing_ok=True)
            withdrawn = self._ended / entry.run_id
            is_wanted = not withdrawn.exists()
            withdrawn.unlink(missing_ok=True)  # its own folder says what becomes of it
            return is_wanted

    def withdraw(self, entry: Waiting, *, status: str, why: str) -> bool:
        """The run is not to be started, and this is kept of it; False when it is at work, or was withdrawn already. Blocking. Raises `StateUnusable`."""
        told = {"agent": entry.agent, "label": entry.label, "prompt": entry.prompt, "status": status, "why": why}
        with self._turn():
            waits = self._folder / self._name_of(entry.run_id)
            if not waits.exists():
                return False
            with suppress(StateUnusable):  # it does not wait any more, which is what was asked for
                _write(self._ended / entry.run_id, json.dumps(told).encode("ascii"))
            try:
                waits.unlink()
            except OSError:
                return False
        for name in sorted(_ids(self._ended))[:-ENDED]:
            (self._ended / name).unlink(missing_ok=True)
        return True

    def sweep(self) -> None:
        """Remove the entries of runs that are at work, or were, or were withdrawn: a server died before it could. Blocking."""
        for name in self._names():
            is_over = (self._ended / name[13:-5]).exists()
            if is_over or self._home.folder(name[13:-5]).standing(time.time()) in {RunStanding.RUNNING, RunStanding.ENDED}:
                (self._folder / name).unlink(missing_ok=True)

    def over(self) -> list[Waiting]:
        """Those that were never started. Blocking."""
        names = [name for name in _ids(self._ended) if not self._home.folder(name).path.exists()]
        return [entry for name in names if (entry := self._over(name)) is not None]

    def _over(self, run_id: str) -> Waiting | None:
        if not RUN_ID.match(run_id):
            return None
        try:
            told: dict[str, Any] = json.loads(read_plain(self._ended / run_id))
            words: dict[str, Any] = {name: str(told[name]) for name in ("agent", "label", "prompt", "status", "why")}
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return Waiting(RunId(run_id), self._owners.of(run_id) or "", **words)

    def _name_of(self, run_id: str) -> str:
        return next((name for name in self._names() if name.endswith(f"-{run_id}{_SUFFIX}")), f"none-{run_id}")

    def _names(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self._folder) if name.endswith(_SUFFIX) and RUN_ID.match(name[13:-5]))
        except OSError:  # nothing was ever queued here
            return []

    def _read(self, name: str) -> Waiting | None:
        run_id = RunId(name[13:-5])
        try:
            since = os.lstat(self._folder / name).st_mtime
            first, _, rest = read_plain(self._folder / name).partition(b"\n")
            head = json.loads(first)
            owner, trace = str(head["owner"]), dict(head.get("trace", {}))
            request = RunRequest.model_validate(json.loads(rest))
        except (OSError, ValidationError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return _waiting(run_id, owner, request, since=since, trace=trace)


def _waiting(run_id: RunId, owner: str, request: RunRequest, *, since: float, trace: Mapping[str, str]) -> Waiting:
    return Waiting(run_id, owner, request.agent, request.label, request.prompt[:READ], since=since, trace=trace)


def has_waited_too_long(entry: Waiting, now: float) -> bool:
    """Whether nobody expects it any more."""
    return now - entry.since > LONGEST_WAIT


def _ids(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if RUN_ID.match(name)]
    except OSError:
        return []


def _write(path: Path, data: bytes) -> None:
    """A file whole or not at all, 0600, and on the disk."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, data)
    except OSError as error:
        raise unwritable(path.parent, error) from error
