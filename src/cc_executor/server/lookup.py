"""What somebody sees of runs and lists: which there are, how they stand, what they have made and written. Knows whose they are; starts and ends nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any, Final

from msgspec.structs import replace

from cc_executor.errors import ControlFailed, InvalidRequest, RunNotFound
from cc_executor.model.ask import Ask
from cc_executor.model.phase import Phase
from cc_executor.model.receipt import Receipt
from cc_executor.runtime.plan import removed
from cc_executor.runtime.run import Run
from cc_executor.runtime.summary import RunSummary, summary
from cc_executor.server.following import Following
from cc_executor.server.line import Line, never_started
from cc_executor.server.lists import Lists, ListSummary
from cc_executor.server.listwatch import ListWatch
from cc_executor.server.owners import Owners
from cc_executor.server.pieces import Piece
from cc_executor.server.queue import Waiting
from cc_executor.server.refusal import Refused
from cc_executor.server.sealing import Sealing
from cc_executor.server.statuses import UNSEALED, check_filters
from cc_executor.server.tail import Tail, Tails
from cc_executor.server.watch import Watch, stands
from cc_executor.shim import records
from cc_executor.store.home import RUN_ID, StateHome
from cc_executor.store.journal import RunFolder, RunStanding
from cc_executor.store.tasklists import LIST_ID, ListFolder

STREAMS: Final = frozenset({records.STDOUT, records.STDERR, records.CONTROL})


class Lookup:
    """What is kept on one server, to each what is theirs.

    Parameters
    ----------
    home : StateHome
    environ : mapping
        The environment of checks that are made because somebody asks for a receipt.
    owners : Owners
    lists : Lists
    line : Line
    following : Following
        The runs that this server sees through.
    mask : callable
        A text without secrets.
    """

    def __init__(
        self,
        *,
        home: StateHome,
        environ: Mapping[str, str],
        owners: Owners,
        lists: Lists,
        line: Line,
        following: Following,
        mask: Callable[[str], str],
    ) -> None:
        self._home = home
        self._environ = environ
        self._owners = owners
        self._lists = lists
        self._line = line
        self._following = following
        self._mask = mask
        self._sealing = Sealing()
        self._tails = Tails(line.queue.find)

    async def aclose(self) -> None:
        """Let go of whatever is being made for somebody who asks."""
        self._tails.close()
        await self._sealing.aclose()

    def find(self, run_id: str, *, who: str) -> RunFolder:
        """Somebody's own run.

        Raises
        ------
        RunNotFound
            There is none, or it is somebody else's: who may not see a run is not told that there is one.
        ControlFailed
            It has not begun.
        """
        if RUN_ID.match(run_id):
            with suppress(RunNotFound):
                folder = self._home.find(run_id)
                if self._owners.may_see(folder.run_id, who):
                    return folder
        elif LIST_ID.match(run_id):
            self._lists.find(run_id, who=who)
            raise InvalidRequest(
                "This is a task list: what it has written, and receipts, have the runs of its tasks. Its status names them."
            )
        if self.waiting(run_id, who=who) is not None:
            raise ControlFailed("The run has not begun: it waits for its turn, or was withdrawn. Its status says which.")
        raise RunNotFound("There is no such execution.")

    def waiting(self, run_id: str, *, who: str) -> Waiting | None:
        """Somebody's own run that waits, or that was never started; None for those that have a folder. Blocking."""
        if not RUN_ID.match(run_id) or self._home.folder(run_id).path.exists() or not self._owners.may_see(run_id, who):
            return None
        return self._line.queue.find(run_id)

    def may_take(self, run_id: str, *, who: str) -> bool:
        """Whether a run or a list is nobody's, somebody's own, or theirs to oversee."""
        return not self._owners.owner(run_id) or self._owners.may_see(run_id, who)

    def is_own(self, run_id: str, *, who: str) -> bool:
        """Whether a run is somebody's own."""
        return self._owners.is_own(run_id, who)

    def asks(self, run_id: str) -> tuple[Ask, ...]:
        """What the agent of a run asks now, as far as this server follows it."""
        followed = self._following.get(run_id)
        return followed.state.asks if followed is not None else ()

    def executions(
        self, *, who: str, limit: int, before: str = "", status: str = "", everybody: bool = False
    ) -> tuple[list[RunSummary | ListSummary], str]:
        """Somebody's runs and lists, newest first, and what to ask from for the next page (empty: there is none). Blocking.

        `everybody`: all that they may see. Raises `InvalidRequest` for a `status` that nothing has, or a `before` that no page has told.
        """
        check_filters(status=status, before=before)
        is_listed = self._owners.may_see if everybody else self._owners.is_own
        is_unsealed = status in UNSEALED  # then most runs need not be read
        found: list[RunSummary | ListSummary] = []
        last = ""
        for place, name, each in self._lists.beside(self._line.among(self._home.runs())):
            if (
                (before and place >= before)
                or (is_unsealed and isinstance(each, RunFolder) and each.has_receipt)
                or not is_listed(name, who)
            ):
                continue
            if len(found) == limit:
                return found, last
            row = self._row(each)
            if not status or row.status == status:
                found.append(row)
                last = place
        return found, ""

    async def status(self, run_id: str, *, who: str, **page: int) -> dict[str, Any]:
        """What is known of a run or list now. `page`: ``offset`` and ``limit``, for the tasks of a list."""
        if LIST_ID.match(run_id):
            return await self._lists.status(run_id, who=who, **page)
        if (entry := await asyncio.to_thread(self.waiting, run_id, who=who)) is not None:
            told = {**self._run_row(entry).as_dict(), "done": entry.is_over}
            return (
                {**told, "why": entry.why} if entry.is_over else {**told, "place": await asyncio.to_thread(self._line.queue.place, entry)}
            )
        folder = await asyncio.to_thread(self.find, run_id, who=who)
        row = await asyncio.to_thread(self._run_row, folder)
        if row.status == RunStanding.ENDED.value and await self.receipt(run_id, who=who) is not None:  # nobody has followed it
            row = await asyncio.to_thread(self._run_row, folder)
        told = {**row.as_dict(), "done": row.status not in {"starting", "running", "ended", "paused"}}
        followed = self._following.get(run_id)
        if not told["done"] and followed is not None:
            told |= followed.words()
        if row.status in {RunStanding.RUNNING.value, Phase.PAUSED.value}:
            run = await Run.attach(self._home, run_id, environ=self._environ)
            with suppress(ControlFailed):  # it has just ended
                answer = await run.status()
                told |= standing(answer)
        return told

    async def results(self, run_id: str, *, who: str, **page: int) -> dict[str, Any]:
        """What a run or list has made. `done` False: nothing, or not all yet. `page`: as for `status`."""
        if LIST_ID.match(run_id):
            return await self._lists.results(run_id, who=who, **page)
        if (entry := await asyncio.to_thread(self.waiting, run_id, who=who)) is not None:
            return {"id": run_id, "done": False} if not entry.is_over else never_started(entry)
        receipt = await self.receipt(run_id, who=who)
        if receipt is None:
            return {"id": run_id, "done": False}
        return {
            "id": run_id,
            "done": True,
            "status": receipt.outcome.kind.value,
            "summary": receipt.outcome.summary,
            "cure": receipt.outcome.cure,
            "text": receipt.text,
            "data": receipt.data,
            "files": [file.model_dump(mode="json") for file in receipt.files],
            "cost": receipt.cost,
            "usage": receipt.usage.model_dump(mode="json"),
            "standing": receipt.standing.value,
            "digest": receipt.digest,
        }

    async def receipt(self, run_id: str, *, who: str) -> Receipt | None:
        """The sealed receipt; None while the run or its check goes on. A run that has ended and that nobody has followed is sealed now."""
        if (entry := await asyncio.to_thread(self.waiting, run_id, who=who)) is not None:
            if entry.is_over:
                raise Refused(409, "NeverStarted", f"There is no receipt, for the run was never started: {entry.why}")
            return None
        folder = await asyncio.to_thread(self.find, run_id, who=who)
        receipt = await asyncio.to_thread(folder.receipt)
        if receipt is not None or run_id in self._following:
            return receipt
        if stands(folder) not in {RunStanding.ENDED, RunStanding.LOST}:
            return None
        return await self._sealing.receipt(await Run.attach(self._home, run_id, environ=self._environ))

    def piece(self, run_id: str, *, who: str, stream: str, offset: int, limit: int) -> Piece:
        """A piece of what a run has written, by byte offset. Blocking."""
        if stream not in STREAMS:
            raise InvalidRequest(f"There is no stream {stream!r}. Choose one of {', '.join(sorted(STREAMS))}.")
        if (entry := self.waiting(run_id, who=who)) is not None:
            return Piece(offset, b"", is_last=entry.is_over)
        folder = self.find(run_id, who=who)
        has_ended = stands(folder) not in {RunStanding.STARTING, RunStanding.RUNNING}  # looked at before the last bytes
        data = folder.read(stream, offset, limit)
        check_journal(folder)  # after the bytes: what was removed while they were read is not said to be all
        return Piece(offset, data, is_last=has_ended and offset + len(data) >= folder.size(stream))

    def watching(self, run_id: str, stream: str) -> AbstractAsyncContextManager[Tail]:
        """What a run writes, as it is written, for somebody who was given a `piece` of it."""
        return self._tails.watching(self._home.folder(run_id), stream)

    async def watch(self, run_id: str, *, who: str) -> Watch | ListWatch:
        """The live view of a run or list, for a page whose kernel does not answer. Raises `RunNotFound`, `StateUnusable`."""
        if LIST_ID.match(run_id):
            return await self._lists.watch(run_id, who=who)
        await asyncio.to_thread(self.find, run_id, who=who)
        run = await Run.attach(self._home, run_id, environ=self._environ)
        return await asyncio.to_thread(Watch, run, receipt=partial(self.receipt, run_id, who=who))

    def _row(self, each: RunFolder | ListFolder | Waiting) -> RunSummary | ListSummary:
        if isinstance(each, ListFolder):
            listed = self._lists.summary(each)
            return replace(listed, label=self._mask(listed.label))
        return self._run_row(each)

    def _run_row(self, each: RunFolder | Waiting) -> RunSummary:
        return each.row(self._mask) if isinstance(each, Waiting) else summary(each, now=time.time(), mask=self._mask)


def check_journal(folder: RunFolder) -> None:
    """Asked by who reads what a run has written. Blocking. Raises `Refused` where that was removed: it is not the same as nothing."""
    if said := removed(folder):
        raise Refused(410, "JournalRemoved", f"{said}: the run's results have the text of the receipt.")


def standing(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What a supervisor's answer says to whoever asked."""
    return {"status": answer.get("state", ""), "processes": answer.get("processes")}
