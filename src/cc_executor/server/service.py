"""What the server does for somebody: start, list, follow, command. Knows runs and owners; knows no tornado and no HTTP.

It owns no process: it launches supervisors and reads journals, so a server that ends ends nobody's run, and the next one finds them all.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from cc_executor.api import make_request
from cc_executor.errors import CCExecutorError, ControlFailed, InvalidRequest, RunNotFound, StateUnusable
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import RunId, RunRequest
from cc_executor.model.state import RunState
from cc_executor.policy.redact import Redactor, secret_values
from cc_executor.runtime.executable import find_executable
from cc_executor.runtime.login import LOGIN_CURE, login_of
from cc_executor.runtime.reconcile import reconcile
from cc_executor.runtime.run import Run
from cc_executor.runtime.summary import RunSummary, summary
from cc_executor.server.audit import Audit
from cc_executor.server.line import WAITS, Line, never_started
from cc_executor.server.owners import Owners
from cc_executor.server.policy import Admission, Rules, is_open
from cc_executor.server.queue import Waiting
from cc_executor.server.refusal import Refused, told_as
from cc_executor.shim import records
from cc_executor.store.home import RUN_ID, StateHome, new_run_id
from cc_executor.store.journal import RunFolder, RunStanding
from cc_executor.store.plain import read_plain

logger = logging.getLogger(__name__)

STREAMS: Final = frozenset({records.STDOUT, records.STDERR, records.CONTROL})
KEY_LIMIT: Final = 255  # characters
KEY_BYTES: Final = 4096
TEXT_TAIL: Final = 4000  # characters of a running agent's text in its status
OPS: Final = ("pause", "resume", "cancel", "kill")
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
        self._followed: dict[str, _Followed] = {}
        self._keys: dict[str, asyncio.Lock] = {}

    def who(self, username: str) -> str:
        """The name under which somebody's runs are kept."""
        return self._owners.who(username)

    @property
    def is_by_name(self) -> bool:
        """Whether names mean people here."""
        return self._owners.is_by_name

    def is_server_owner(self, username: str) -> bool:
        """Whether the server runs for somebody of this name."""
        return bool(username) and username == self._owners.server_owner

    def owner_of(self, run_id: str) -> str:
        """Whose a run is."""
        return self._owners.name_of(run_id)

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
        if self.audit is not None:
            self.audit.note(who=entry.owner, door="queue", what="execute", status=409, run=entry.run_id, reason=kind)

    def mask(self, text: str) -> str:
        """`text` without secrets: what people ask for is told back to them, in lists and in errors."""
        return self._redactor.text(text)

    def _row(self, each: RunFolder | Waiting) -> RunSummary:
        row = each.row() if isinstance(each, Waiting) else summary(each, now=time.time())
        return replace(row, label=self.mask(row.label), prompt=self.mask(row.prompt))

    # --- starting ---

    async def execute(self, body: Mapping[str, Any], *, who: str, key: str = "") -> tuple[str, bool]:
        """Start a run; returns its id, and whether it was started now.

        Parameters
        ----------
        body : mapping
            ``prompt``, and options of `cc_execute` by name.
        who : str
            The owner.
        key : str
            The idempotency key: two requests of one owner with the same one are one run.

        Raises
        ------
        Refused, CCExecutorError
            Nothing was started.
        """
        request = self.request(body)
        await asyncio.to_thread(self.home.prepare)
        if not key:
            return await self._start(request, who, None), True
        if len(key) > KEY_LIMIT:
            raise InvalidRequest(f"The idempotency key is longer than {KEY_LIMIT} characters.")
        place = self.home.root / "server" / "keys" / hashlib.sha256(f"{who}\0{key}".encode("utf-8", "surrogatepass")).hexdigest()
        lock = self._keys.setdefault(place.name, asyncio.Lock())
        try:
            async with lock:
                digest = request.digest()
                known = await asyncio.to_thread(_read_key, place)
                if known is not None and known["digest"] != digest:
                    raise Refused(409, "KeyReused", "This idempotency key was used for another request. Make a new one.")
                if known is not None and await asyncio.to_thread(self._is_known, known["id"]):
                    return known["id"], False
                # Written before anything is started: a server that dies in between has promised a run, and the next request makes it.
                run_id = RunId(known["id"]) if known is not None else new_run_id(time.time())
                await asyncio.to_thread(_write_key, place, {"id": run_id, "digest": digest})
                return await self._start(request, who, run_id), True
        finally:
            if not lock.locked():
                self._keys.pop(place.name, None)

    def request(self, body: Mapping[str, Any]) -> RunRequest:
        """A checked request under the server's rules. Raises `Refused`, `InvalidRequest`."""
        options = dict(body)
        prompt = options.pop("prompt", None)
        if not isinstance(prompt, str):
            raise InvalidRequest("prompt is missing: give the text for the agent as a string.")
        if unfit := sorted(NOT_OVER_HTTP & options.keys()):
            raise InvalidRequest(f"{unfit[0]} is not an option of a request.")
        options["cwd"] = os.path.join(self._root, os.path.expanduser(str(options.get("cwd", ""))))
        options.setdefault("on_kernel_exit", "continue")
        try:
            return self.admission.rules.applied(make_request(prompt, **options))
        except TypeError as error:
            raise InvalidRequest(str(error)) from error

    async def _start(self, request: RunRequest, who: str, run_id: RunId | None) -> str:
        chosen = run_id or new_run_id(time.time())
        if await self.line.has_to_wait(who):
            await self.line.add(chosen, request, who)
            return chosen
        try:
            bounded = await self.admission.reserve(chosen, request, who)
        except Refused as refused:
            if refused.kind not in WAITS or not self.admission.rules.queued:
                raise
            await self.line.add(chosen, request, who)
            return chosen
        try:
            await asyncio.to_thread(self._owners.claim, chosen, who)
            try:
                await self._launch(bounded, chosen)
            except BaseException:
                self._owners.forget(chosen)
                raise
        finally:
            self.admission.release(chosen)
        return chosen

    async def _launch(self, request: RunRequest, run_id: RunId) -> Run:
        run = await Run.start(request, home=self.home, environ=self._environ, run_id=run_id)
        self._see_through(run)
        self.tell("started", {"run_id": run_id, "agent": request.agent, "rehearsed": request.rehearse is not None})
        return run

    def _is_known(self, run_id: str) -> bool:
        return self.home.folder(run_id).path.exists() or self.line.queue.find(run_id) is not None

    async def place(self, run_id: str) -> dict[str, Any]:
        """What else is to be said to whoever has asked for a run: its place, if it waits."""
        if not self.line.queue.is_used or self.home.folder(run_id).path.exists():
            return {}
        entry = await asyncio.to_thread(self.line.queue.find, run_id)
        if entry is None or entry.is_over:
            return {}
        return {"status": entry.status, "place": await asyncio.to_thread(self.line.queue.place, entry)}

    # --- seeing runs through to their receipts ---

    def _see_through(self, run: Run) -> _Followed:
        followed = _Followed(run)
        self._followed[run.run_id] = followed
        followed.task = asyncio.get_running_loop().create_task(self._whole(followed), name=f"cc_executor {run.run_id}")
        return followed

    async def _whole(self, followed: _Followed) -> None:
        run = followed.run
        try:
            async with aclosing(run.follow()) as batches:
                async for batch in batches:
                    followed.state = batch.state
                    await run.refuse_hopeless(batch)
            receipt = await run.finish()
            used = receipt.usage
            about = {"status": receipt.outcome.kind.value, "elapsed": receipt.times.elapsed, "cost": receipt.cost}
            tokens = {"input_tokens": used.input_tokens, "output_tokens": used.output_tokens}
            self.tell(
                "ended", {"run_id": run.run_id, "agent": receipt.agent, "rehearsed": receipt.rehearsed is not None, **about, **tokens}
            )
        except CCExecutorError as error:
            logger.warning("run %s could not be followed to its end: %s", run.run_id, error)
        except Exception:  # root of a task: the run goes on by itself, and whoever asks for its results is told
            logger.exception("run %s could not be followed to its end", run.run_id)
        finally:
            self._followed.pop(run.run_id, None)
            self.line.look()

    async def resume(self) -> None:
        """Follow what was started by a server before this one and has no receipt yet, and settle what was lost."""
        reconcile(self.home, environ=self._environ)
        for folder in await asyncio.to_thread(lambda: [each for each in self.home.runs() if is_open(each)]):
            if self._owners.of(folder.run_id) is not None and folder.run_id not in self._followed:
                with suppress(CCExecutorError):
                    self._see_through(await Run.attach(self.home, folder.run_id, environ=self._environ))
        await self.line.resume()

    async def aclose(self) -> None:
        """Let go of all runs; they go on. Those that wait do, until the next server."""
        await self.line.aclose()
        tasks = [followed.task for followed in self._followed.values() if followed.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def is_busy(self) -> bool:
        """Whether a run is at work, or waits for its turn: not one that is paused."""
        return self.line.is_moving or any(not followed.state.is_paused for followed in self._followed.values())

    # --- looking ---

    def find(self, run_id: str, *, who: str) -> RunFolder:
        """Somebody's own run.

        Raises
        ------
        RunNotFound
            There is none, or it is somebody else's: who may not see a run is not told that there is one.
        """
        if RUN_ID.match(run_id):
            with suppress(RunNotFound):
                folder = self.home.find(run_id)
                if self._owners.may_see(folder.run_id, who):
                    return folder
        raise RunNotFound("There is no such execution.")

    def waiting(self, run_id: str, *, who: str) -> Waiting | None:
        """Somebody's own run that waits, or that was never started; None for those that have a folder. Blocking."""
        if not RUN_ID.match(run_id) or self.home.folder(run_id).path.exists() or not self._owners.may_see(run_id, who):
            return None
        return self.line.queue.find(run_id)

    def executions(self, *, who: str, limit: int, before: str = "", status: str = "") -> tuple[list[RunSummary], str]:
        """Somebody's runs, newest first, and the id to ask from for the next page (empty: there is none). Blocking."""
        found: list[RunSummary] = []
        for each in self.line.among(self.home.runs()):
            if (before and each.run_id >= before) or not self._owners.may_see(each.run_id, who):
                continue
            if len(found) == limit:
                return found, found[-1].id
            row = self._row(each)
            if not status or row.status == status:
                found.append(row)
        return found, ""

    async def status(self, run_id: str, *, who: str) -> dict[str, Any]:
        """What is known of a run now."""
        if (entry := await asyncio.to_thread(self.waiting, run_id, who=who)) is not None:
            told = {**self._row(entry).as_dict(), "done": entry.is_over}
            return {**told, "why": entry.why} if entry.is_over else {**told, "place": await asyncio.to_thread(self.line.queue.place, entry)}
        folder = await asyncio.to_thread(self.find, run_id, who=who)
        row = await asyncio.to_thread(self._row, folder)
        told: dict[str, Any] = {**row.as_dict(), "done": row.status not in {"starting", "running", "ended", "paused"}}
        followed = self._followed.get(run_id)
        if not told["done"] and followed is not None:
            told |= followed.words()
        if row.status == RunStanding.RUNNING.value:
            run = await Run.attach(self.home, run_id, environ=self._environ)
            with suppress(ControlFailed):  # it has just ended
                answer = await run.status()
                told |= _standing(answer)
        return told

    async def results(self, run_id: str, *, who: str) -> dict[str, Any]:
        """What a run has made. `done` False: nothing yet."""
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
        """The sealed receipt; None while the run goes on. A run that has ended and that nobody has followed is sealed now."""
        if (entry := await asyncio.to_thread(self.waiting, run_id, who=who)) is not None:
            if entry.is_over:
                raise Refused(409, "NeverStarted", f"There is no receipt, for the run was never started: {entry.why}")
            return None
        folder = await asyncio.to_thread(self.find, run_id, who=who)
        receipt = await asyncio.to_thread(folder.receipt)
        if receipt is not None or run_id in self._followed:
            return receipt
        if folder.standing(time.time()) not in {RunStanding.ENDED, RunStanding.LOST}:
            return None
        return await (await Run.attach(self.home, run_id, environ=self._environ)).finish()

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

    async def login(self) -> dict[str, Any]:
        """Whether the agent is logged in, as it says itself."""

        def asked() -> dict[str, Any]:
            found = find_executable(RunRequest(prompt="-", cwd="/"), environ=self._environ, home=self.home)
            login = login_of(found.path, environ=self._environ)
            cure = "" if login.logged_in else LOGIN_CURE
            return {
                "agent": "claude",
                "version": found.version,
                "logged_in": login.logged_in,
                "method": login.method,
                "known": login.known,
                "cure": cure,
            }

        return await asyncio.to_thread(asked)

    async def control(self, run_id: str, op: str, *, who: str) -> dict[str, Any]:
        """Give a command: ``pause``, ``resume``, ``cancel`` (with time to clean up) or ``kill`` (at once). A run that waits can be cancelled."""
        if op not in OPS:
            raise InvalidRequest(f"There is no command {op!r}. Choose one of {', '.join(OPS)}.")
        if (entry := await asyncio.to_thread(self.waiting, run_id, who=who)) is not None and await self.line.withdrawn(entry, op):
            return {"id": run_id, "op": op, "status": "cancelled", "processes": 0}
        await asyncio.to_thread(self.find, run_id, who=who)
        run = await Run.attach(self.home, run_id, environ=self._environ)
        commands: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "pause": partial(run.pause, by=who or "server"),
            "resume": partial(run.resume, by=who or "server"),
            "cancel": partial(run.cancel, by=who or "server"),
            "kill": partial(run.cancel, by=who or "server", now=True),
        }
        answer = await commands[op]()
        return {"id": run_id, "op": op, **_standing(answer)}


@dataclass(slots=True)
class _Followed:
    """A run that this server sees through to its receipt."""

    run: Run
    state: RunState = field(default_factory=RunState)
    task: asyncio.Task[None] | None = None

    def words(self) -> dict[str, Any]:
        state = self.state
        return {
            "phase": state.phase.value,
            "model": state.model,
            "tool": state.running_tools[-1].name if state.running_tools else "",
            "input_tokens": state.usage.input_tokens,
            "output_tokens": state.usage.output_tokens,
            "cost": state.cost,
            "text": state.text[-TEXT_TAIL:],
        }


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a stream. `is_last`: nothing comes after it."""

    offset: int
    data: bytes
    is_last: bool

    @property
    def next_offset(self) -> int:
        """Where the next piece begins."""
        return self.offset + len(self.data)


def _standing(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {"status": answer.get("state", ""), "processes": answer.get("processes")}


def _read_key(path: Path) -> dict[str, str] | None:
    try:
        known: Any = json.loads(read_plain(path, KEY_BYTES))
        return {"id": str(known["id"]), "digest": str(known["digest"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateUnusable("What is kept of this idempotency key cannot be read. Use another one.") from error


def _write_key(path: Path, known: Mapping[str, str]) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(known), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise StateUnusable(
            f"{path.parent} cannot be written: {error.strerror}. Nothing was started; make room, or mend the folder."
        ) from error
