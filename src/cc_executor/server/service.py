"""What the server does for somebody: start, list, follow, command. Knows runs and owners; knows no tornado and no HTTP.

It owns no process: it launches supervisors and reads journals, so a server that ends ends nobody's run, and the next one finds them all.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from cc_executor.api import make_request
from cc_executor.errors import CCExecutorError, ControlFailed, InvalidRequest, RunNotFound
from cc_executor.model.ask import Ask
from cc_executor.model.phase import Phase
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import RunId, RunRequest
from cc_executor.policy.ask import Place
from cc_executor.policy.redact import Redactor, secret_values
from cc_executor.runtime.control import command
from cc_executor.runtime.errand import in_thread
from cc_executor.runtime.hooks import hooks_of_environment
from cc_executor.runtime.launch import check
from cc_executor.runtime.reconcile import reconcile
from cc_executor.runtime.run import Run
from cc_executor.runtime.summary import RunSummary, summary
from cc_executor.server import attendance
from cc_executor.server.audit import Audit
from cc_executor.server.following import Following
from cc_executor.server.foresight import Foresight
from cc_executor.server.keys import Keys
from cc_executor.server.leftovers import sweep
from cc_executor.server.line import WAITS, Line, never_started
from cc_executor.server.lists import OPS, Lists, ListSummary
from cc_executor.server.listwatch import ListWatch
from cc_executor.server.login import LoginLook
from cc_executor.server.notices import Notices
from cc_executor.server.owners import Owners
from cc_executor.server.pieces import Piece
from cc_executor.server.policy import Admission, Rules
from cc_executor.server.queue import Waiting
from cc_executor.server.refusal import Refused, told_as
from cc_executor.server.sealing import Sealing
from cc_executor.server.tail import Tail, Tails
from cc_executor.server.watch import Watch
from cc_executor.shim import records
from cc_executor.store.home import RUN_ID, StateHome, new_run_id
from cc_executor.store.journal import RunFolder, RunStanding
from cc_executor.store.tasklists import LIST_ID, ListFolder

logger = logging.getLogger(__name__)

STREAMS: Final = frozenset({records.STDOUT, records.STDERR, records.CONTROL})
UNSEALED: Final = frozenset({"queued", "starting", "running", "paused", "ended"})  # no run with a receipt is called so
# Not for a request that came over a network: where programs lie is the server's affair, and `state` is its own folder.
NOT_OVER_HTTP: Final = frozenset({"cli", "state", "environ", "on_event", "hooks", "on_ask"})


class Service:
    """The runs of one server.

    Parameters
    ----------
    home : StateHome
    environ : mapping
        The environment to choose the agents' from.
    owners : Owners
    rules : Rules
    root : Path
        Where agents work when a request names no folder.
    """

    def __init__(self, *, home: StateHome, environ: Mapping[str, str], owners: Owners, rules: Rules, root: Path) -> None:
        self.home = home
        self._environ = environ
        self._owners = owners
        self._root = root
        self._redactor = Redactor(secret_values(environ))
        self.admission = Admission(home, owners, rules)
        self.line = Line(home, owners, self.admission, start=self._launch)
        self.line.refused = self._dropped
        self.audit: Audit | None = None
        self.tell: Callable[[str, dict[str, Any]], object] = lambda event, about: None
        self._following = Following(sealed=self._sealed, over=self.line.look)
        self._sealing = Sealing()
        self._keys = Keys(home.root)
        self.notices = Notices(home.root, environ, hosts=rules.webhook_hosts)
        self.lists = Lists(
            home=home,
            environ=environ,
            owners=owners,
            keys=self._keys,
            root=root,
            unfit=NOT_OVER_HTTP,
            allowed=rules.applied,
            room=self.admission.room,
            told=self.notices.take,
        )
        self.admission.promised = self.lists.promised
        self.admission.checked = self.checked
        self.foresight = Foresight(home=home, environ=environ, owners=owners, lists=self.lists.requests, request=self.request)
        self.login = LoginLook(home, environ).told
        self._tails = Tails(self.line.queue.find)

    def who(self, username: str) -> str:
        """The name under which somebody's runs are kept."""
        return self._owners.who(username)

    def owner(self, run_id: str) -> str:
        """Whose a run is; empty where nobody is told apart."""
        return self._owners.owner(run_id)

    def oversees(self, who: str) -> bool:
        """Whether somebody may see everybody's runs."""
        return self._owners.oversees(who)

    @property
    def is_by_name(self) -> bool:
        """Whether names mean people here."""
        return self._owners.is_by_name

    def is_server_owner(self, username: str) -> bool:
        """Whether the server runs for somebody of this name."""
        return bool(username) and username == self._owners.server_owner

    # --- noting ---

    def noted(
        self, door: str, what: str, *, right: str | None, who: str, run: object, failure: Exception | None, request: str = ""
    ) -> None:
        """Audit a call of another door than REST, which notes its own requests: what starts or ends something, and what was refused."""
        status, kind = (200, "") if failure is None else told_as(failure)
        if self.audit is None or (right != "execute" and status not in {403, 404, 429}):
            return
        said = f"{kind}: {failure}" if isinstance(failure, Refused) else kind
        self.audit.note(who=who, door=door, what=what, status=status, run=run if isinstance(run, str) else "", reason=said, request=request)

    def _dropped(self, entry: Waiting, kind: str) -> None:
        self.notices.forget(entry.run_id)
        if self.audit is not None:
            self.audit.note(who=entry.owner, door="queue", what="execute", status=409, run=entry.run_id, reason=kind)

    def mask(self, text: str) -> str:
        """`text` without secrets: what people ask for is told back to them, in lists and in errors."""
        return self._redactor.text(text)

    def _row(self, each: RunFolder | ListFolder | Waiting) -> RunSummary | ListSummary:
        if isinstance(each, ListFolder):
            listed = self.lists.summary(each)
            return replace(listed, label=self.mask(listed.label))
        return self._run_row(each)

    def _run_row(self, each: RunFolder | Waiting) -> RunSummary:
        return each.row(self.mask) if isinstance(each, Waiting) else summary(each, now=time.time(), mask=self.mask)

    # --- starting ---

    async def execute(self, body: Mapping[str, Any], *, who: str, key: str = "", asks: Place | None = None) -> tuple[str, bool]:
        """Start a run; returns its id, and whether it was started now.

        Parameters
        ----------
        body : mapping
            ``prompt``, and options of `cc_execute` by name; or ``tasks``, see `Lists.execute`.
        who : str
            The owner.
        key : str
            The idempotency key: two requests of one owner with the same one are one run.
        asks : Place, optional
            Where the agent's questions are looked after; if not given, they wait for `cc-executor answer`.

        Raises
        ------
        Refused, CCExecutorError
            Nothing was started.
        """
        if "tasks" in body:
            return await self.lists.execute(body, who=who, key=key)
        request = self.request(body)
        await asyncio.to_thread(self.home.prepare)
        async with self._keys.held(key, who=who, digest=_digest(request)) as held:
            if held.id and await asyncio.to_thread(self._is_known, held.id):
                return held.id, False
            # Written before anything is started: a server that dies in between has promised a run, and the next request makes it.
            run_id = RunId(held.id) if held.id else new_run_id(time.time())
            await asyncio.to_thread(held.keep, run_id)
            await asyncio.to_thread(self.notices.promise, run_id, self.notices.take(dict(body)))
            try:
                return await self._start(request, who, run_id, asks), True
            except BaseException:
                self.notices.forget(run_id)
                raise

    def request(self, body: Mapping[str, Any]) -> RunRequest:
        """A checked request under the server's rules. Raises `Refused`, `InvalidRequest`."""
        options = dict(body)
        prompt = options.pop("prompt", None)
        if not isinstance(prompt, str):
            raise InvalidRequest("prompt is missing: give the text for the agent as a string.")
        self.notices.take(options)
        if unfit := sorted(NOT_OVER_HTTP & options.keys()):
            raise InvalidRequest(f"{unfit[0]} is not an option of a request.")
        if (where := options.get("cwd")) is None or isinstance(where, str):
            options["cwd"] = os.path.join(self._root, os.path.expanduser(where or ""))
        options.setdefault("on_kernel_exit", "continue")
        try:
            return self.admission.rules.applied(make_request(prompt, **options))
        except TypeError as error:
            raise InvalidRequest(str(error)) from error
        except OverflowError:
            raise InvalidRequest("A number in the request is larger than anything that it could mean.") from None

    async def _start(self, request: RunRequest, who: str, run_id: RunId, asks: Place | None) -> str:
        # Whoever answers the questions of a run over MCP may be gone when its turn comes.
        may_wait = self.admission.rules.queued > 0 and not (request.ask and asks is not None)
        if may_wait and await self.line.has_to_wait(who):
            return await self._wait(request, who, run_id)
        try:
            bounded = await self.admission.reserve(run_id, request, who)
        except Refused as refused:
            if refused.kind not in WAITS or not may_wait:
                raise
            return await self._wait(request, who, run_id)
        try:
            await asyncio.to_thread(self._owners.claim, run_id, who)
            try:
                await self._launch(bounded, run_id, asks)
            except BaseException:
                if not self.home.folder(run_id).path.exists():  # who is cancelled in the midst of a launch has a run that was ended
                    self._owners.forget(run_id)
                raise
        finally:
            self.admission.release(run_id)
        return run_id

    async def _wait(self, request: RunRequest, who: str, run_id: RunId) -> str:
        # What is wrong with it is said to whoever asks, and not hours later to nobody.
        await in_thread(partial(check, request, home=self.home, environ=self._environ), takes_long=True)
        await self.line.add(run_id, request, who)
        return run_id

    async def _launch(self, request: RunRequest, run_id: RunId, asks: Place | None = None) -> Run:
        hooks = hooks_of_environment(self._environ)
        notify = await asyncio.to_thread(self.notices.promised, run_id)

        def keep(folder: RunFolder) -> None:
            if request.ask and asks is not None:
                attendance.keep(folder, asks)

        run = await Run.start(request, home=self.home, environ=self._environ, run_id=run_id, hooks=hooks, notify=notify, keep=keep)
        self.notices.forget(run_id)
        self._following.take(run, None if asks is None else attendance.attend_at(asks))
        self.tell("started", {"run_id": run_id, "agent": request.agent, "rehearsed": request.rehearse is not None})
        return run

    def _is_known(self, run_id: str) -> bool:
        return self.home.folder(run_id).path.exists() or self.line.queue.find(run_id) is not None

    async def place(self, run_id: str) -> dict[str, Any]:
        """What else is to be said to whoever has asked for a run: its place, if it waits."""
        if LIST_ID.match(run_id) or not self.line.queue.is_used or self.home.folder(run_id).path.exists():
            return {}
        entry = await asyncio.to_thread(self.line.queue.find, run_id)
        if entry is None or entry.is_over:
            return {}
        return {"status": entry.status, "place": await asyncio.to_thread(self.line.queue.place, entry)}

    # --- seeing runs through to their receipts ---

    def _sealed(self, run: Run, receipt: Receipt) -> None:
        used = receipt.usage
        about = {"status": receipt.outcome.kind.value, "elapsed": receipt.times.elapsed, "cost": receipt.cost}
        tokens = {"input_tokens": used.input_tokens, "output_tokens": used.output_tokens}
        self.tell("ended", {"run_id": run.run_id, "agent": receipt.agent, "rehearsed": receipt.rehearsed is not None, **about, **tokens})

    def checked(self) -> list[str]:
        """Ids of the runs whose checks go on here: their agents have ended, and they have no receipt yet. Blocking."""
        to_check = [run.folder for run in self._following.runs() if run.request.verify is not None]
        return [folder.run_id for folder in to_check if folder.size(records.EXIT) and _is_open(folder)]

    async def resume(self) -> None:
        """Follow what was started by a server before this one and has no receipt yet, and settle what was lost."""
        reconcile(self.home, environ=self._environ)
        for folder in await asyncio.to_thread(lambda: [each for each in self.home.runs() if _is_open(each)]):
            run_id = folder.run_id
            # What is begun by a request at this moment is followed by that one.
            if self._owners.of(run_id) is not None and run_id not in self._following and not self.admission.is_beginning(run_id):
                with suppress(CCExecutorError):
                    self._following.take(await Run.attach(self.home, run_id, environ=self._environ), attendance.kept(folder))
        await self.lists.resume()
        await self.line.resume()
        with suppress(CCExecutorError):  # the next server tries again
            await asyncio.to_thread(sweep, self.home, self._keys, now=time.time())

    async def aclose(self) -> None:
        """Let go of all runs; they go on. Those that wait do, until the next server."""
        await self.line.aclose()
        await self.lists.aclose()
        self._tails.close()
        await self._following.aclose()
        await self._sealing.aclose()

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment from which agents' are chosen."""
        return self._environ

    @property
    def rules(self) -> Rules:
        """What the administrator allows."""
        return self.admission.rules

    @property
    def root(self) -> Path:
        """Where agents work when a request names no folder."""
        return self._root

    # --- looking ---

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
                folder = self.home.find(run_id)
                if self._owners.may_see(folder.run_id, who):
                    return folder
        elif LIST_ID.match(run_id):
            self.lists.find(run_id, who=who)
            raise InvalidRequest(
                "This is a task list: what it has written, and receipts, have the runs of its tasks. Its status names them."
            )
        if self.waiting(run_id, who=who) is not None:
            raise ControlFailed("The run has not begun: it waits for its turn, or was withdrawn. Its status says which.")
        raise RunNotFound("There is no such execution.")

    def waiting(self, run_id: str, *, who: str) -> Waiting | None:
        """Somebody's own run that waits, or that was never started; None for those that have a folder. Blocking."""
        if not RUN_ID.match(run_id) or self.home.folder(run_id).path.exists() or not self._owners.may_see(run_id, who):
            return None
        return self.line.queue.find(run_id)

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

        `everybody`: all that they may see.
        """
        is_listed = self._owners.may_see if everybody else self._owners.is_own
        is_unsealed = status in UNSEALED  # then most runs need not be read
        found: list[RunSummary | ListSummary] = []
        last = ""
        for place, name, each in self.lists.beside(self.line.among(self.home.runs())):
            if (
                (before and place >= before)
                or (is_unsealed and isinstance(each, RunFolder) and not _is_open(each))
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
            return await self.lists.status(run_id, who=who, **page)
        if (entry := await asyncio.to_thread(self.waiting, run_id, who=who)) is not None:
            told = {**self._run_row(entry).as_dict(), "done": entry.is_over}
            return {**told, "why": entry.why} if entry.is_over else {**told, "place": await asyncio.to_thread(self.line.queue.place, entry)}
        folder = await asyncio.to_thread(self.find, run_id, who=who)
        row = await asyncio.to_thread(self._run_row, folder)
        if row.status == RunStanding.ENDED.value and await self.receipt(run_id, who=who) is not None:  # nobody has followed it
            row = await asyncio.to_thread(self._run_row, folder)
        told = {**row.as_dict(), "done": row.status not in {"starting", "running", "ended", "paused"}}
        followed = self._following.get(run_id)
        if not told["done"] and followed is not None:
            told |= followed.words()
        if row.status in {RunStanding.RUNNING.value, Phase.PAUSED.value}:
            run = await Run.attach(self.home, run_id, environ=self._environ)
            with suppress(ControlFailed):  # it has just ended
                answer = await run.status()
                told |= _standing(answer)
        return told

    async def results(self, run_id: str, *, who: str, **page: int) -> dict[str, Any]:
        """What a run or list has made. `done` False: nothing, or not all yet. `page`: as for `status`."""
        if LIST_ID.match(run_id):
            return await self.lists.results(run_id, who=who, **page)
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
        if folder.standing(time.time()) not in {RunStanding.ENDED, RunStanding.LOST}:
            return None
        return await self._sealing.receipt(await Run.attach(self.home, run_id, environ=self._environ))

    def piece(self, run_id: str, *, who: str, stream: str, offset: int, limit: int) -> Piece:
        """A piece of what a run has written, by byte offset. Blocking."""
        if stream not in STREAMS:
            raise InvalidRequest(f"There is no stream {stream!r}. Choose one of {', '.join(sorted(STREAMS))}.")
        if (entry := self.waiting(run_id, who=who)) is not None:
            return Piece(offset, b"", is_last=entry.is_over)
        folder = self.find(run_id, who=who)
        has_ended = folder.standing(time.time()) not in {RunStanding.STARTING, RunStanding.RUNNING}  # looked at before the last bytes
        data = folder.read(stream, offset, limit)
        return Piece(offset, data, is_last=has_ended and offset + len(data) >= folder.size(stream))

    def watching(self, run_id: str, stream: str) -> AbstractAsyncContextManager[Tail]:
        """What a run writes, as it is written, for somebody who was given a `piece` of it."""
        return self._tails.watching(self.home.folder(run_id), stream)

    async def watch(self, run_id: str, *, who: str) -> Watch | ListWatch:
        """The live view of a run or list, for a page whose kernel does not answer. Raises `RunNotFound`, `StateUnusable`."""
        if LIST_ID.match(run_id):
            return await self.lists.watch(run_id, who=who)
        await asyncio.to_thread(self.find, run_id, who=who)
        run = await Run.attach(self.home, run_id, environ=self._environ)
        return await asyncio.to_thread(Watch, run, receipt=partial(self.receipt, run_id, who=who))

    async def control(
        self, run_id: str, op: str, *, who: str, pauses: int | None = None, task: str = "", text: str = "", click: str = ""
    ) -> dict[str, Any]:
        """Give a command: ``pause``, ``resume``, ``cancel`` (with time to clean up) or ``kill`` (at once). A run that waits can be cancelled.

        `pauses`: how often the run had been paused when somebody wanted it paused or resumed. If it was paused since, it stays as it is.
        `task`, `text` and `click` are for lists: which task, its new text, and which press of a button it was.
        """
        if LIST_ID.match(run_id):
            return await self.lists.control(run_id, op, who=who, task=task, text=text, click=click)
        if op not in OPS:
            raise InvalidRequest(f"There is no command {op!r}. Choose one of {', '.join(OPS)}.")
        if (entry := await asyncio.to_thread(self.waiting, run_id, who=who)) is not None and await self.line.withdrawn(entry, op):
            await asyncio.to_thread(self.notices.forget, run_id)
            return {"id": run_id, "op": op, "status": "cancelled", "processes": 0}
        folder = await asyncio.to_thread(self.find, run_id, who=who)
        # Whoever sees a run through can end its checks, too. Of one that is just being started there may be no request to read yet.
        followed = self._following.get(run_id)
        send = partial(command, folder) if followed is None else followed.run.send
        if op in {"cancel", "kill"}:
            order = partial(send, "cancel", reason="cancel", now=op == "kill")
        else:
            order = partial(send, op, **({} if pauses is None else {"pauses": pauses}))
        answer = await in_thread(partial(order, by=who or "server"), takes_long=True)
        return {"id": run_id, "op": op, **_standing(answer)}


def _is_open(folder: RunFolder) -> bool:
    return not (folder.path / records.RECEIPT).exists()


def _digest(request: RunRequest) -> str:
    try:
        return request.digest()
    except (ValueError, RecursionError):
        raise InvalidRequest("The request holds objects within objects to a depth that cannot be written down. Make it flatter.") from None


def _standing(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {"status": answer.get("state", ""), "processes": answer.get("processes")}
