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
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from cc_executor.api import make_request
from cc_executor.errors import CCExecutorError, ControlFailed, InvalidRequest, RunNotFound, StateUnusable
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import RunId, RunRequest
from cc_executor.model.state import RunState
from cc_executor.runtime.executable import find_executable
from cc_executor.runtime.login import LOGIN_CURE, login_of
from cc_executor.runtime.reconcile import reconcile
from cc_executor.runtime.run import Run
from cc_executor.runtime.summary import RunSummary, summary
from cc_executor.server.owners import Owners
from cc_executor.server.refusal import Refused
from cc_executor.shim import records
from cc_executor.store.home import RUN_ID, StateHome, new_run_id
from cc_executor.store.journal import RunFolder, RunStanding
from cc_executor.store.plain import read_plain

logger = logging.getLogger(__name__)

STREAMS: Final = frozenset({records.STDOUT, records.STDERR, records.CONTROL})
KEY_LIMIT: Final = 255  # characters
KEY_BYTES: Final = 4096
TEXT_TAIL: Final = 4000  # characters of a running agent's text in its status
# Not for a request that came over a network: where programs lie is the server's affair, and `state` is its own folder.
NOT_OVER_HTTP: Final = frozenset({"cli", "state", "environ", "on_event", "hooks", "on_ask"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the administrator allows. Empty tuples: everything.

    These are kept by a server that runs as its user, who can change it or go round it in a terminal: what must hold is limited outside (see the docs).

    Attributes
    ----------
    running : int
        Runs of one owner at the same time.
    max_cost : float or None
        US dollars that one run may spend at most; a request that names none gets this one.
    agents, permission_modes : tuple of str
    folders : tuple of Path
        Where agents may work, with everything below.
    """

    running: int = 8
    max_cost: float | None = None
    agents: tuple[str, ...] = ()
    permission_modes: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()

    def applied(self, request: RunRequest) -> RunRequest:
        """The request under these rules.

        Raises
        ------
        Refused
        """
        if self.agents and request.agent not in self.agents:
            raise _forbidden(f"The agent {request.agent!r} is not allowed here. Choose one of {', '.join(self.agents)}.")
        if self.permission_modes and request.permission_mode is not None and request.permission_mode not in self.permission_modes:
            raise _forbidden(
                f"The permission mode {request.permission_mode!r} is not allowed here. Choose one of {', '.join(self.permission_modes)}."
            )
        for name in (request.cwd, *request.add_dirs):
            if self.folders and not any(Path(name).resolve().is_relative_to(folder.resolve()) for folder in self.folders):
                raise _forbidden(f"Agents may not work in {name}. Choose a folder in {', '.join(map(str, self.folders))}.")
        if self.max_cost is None:
            return request
        wanted = request.limits.cost
        if wanted is not None and wanted > self.max_cost:
            raise _forbidden(f"max_cost may be ${self.max_cost:.2f} at most here (given: ${wanted:.2f}).")
        return (
            request
            if wanted is not None
            else request.model_copy(update={"limits": request.limits.model_copy(update={"cost": self.max_cost})})
        )


def _forbidden(message: str) -> Refused:
    return Refused(403, "NotAllowed", message)


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
        self._rules = rules
        self._root = root
        self._starting: dict[str, int] = {}  # runs of each owner that are being launched
        self._followed: dict[str, _Followed] = {}
        self._keys: dict[str, asyncio.Lock] = {}

    def who(self, username: str) -> str:
        """The name under which somebody's runs are kept."""
        return self._owners.who(username)

    def owner(self, run_id: str) -> str:
        """Whose a run is; empty where nobody is told apart."""
        return self._owners.owner(run_id)

    def oversees(self, who: str) -> bool:
        """Whether somebody may see everybody's runs."""
        return self._owners.oversees(who)

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
                if known is not None and self.home.folder(known["id"]).path.exists():
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
            return self._rules.applied(make_request(prompt, **options))
        except TypeError as error:
            raise InvalidRequest(str(error)) from error

    async def _start(self, request: RunRequest, who: str, run_id: RunId | None) -> str:
        running = await asyncio.to_thread(self._running, who)
        # No await between the count and the reservation: so many requests at once are as good as one after the other.
        if running + self._starting.get(who, 0) >= self._rules.running:
            raise Refused(429, "TooManyRuns", f"{self._rules.running} runs are at work already. Wait for one to end, or cancel one.")
        self._starting[who] = self._starting.get(who, 0) + 1
        chosen = run_id or new_run_id(time.time())
        try:
            await asyncio.to_thread(self._owners.claim, chosen, who)
            try:
                run = await Run.start(request, home=self.home, environ=self._environ, run_id=chosen)
            except BaseException:
                self._owners.forget(chosen)
                raise
            self._see_through(run)
        finally:
            self._starting[who] -= 1
        return str(run.run_id)

    def _running(self, who: str) -> int:
        """Runs of somebody that go on. Those that are being launched count by themselves."""
        now = time.time()
        going = (folder for folder in self.home.runs() if _is_open(folder) and folder.standing(now) is RunStanding.RUNNING)
        return sum(self._owners.is_own(folder.run_id, who) for folder in going)

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
            await run.finish()
        except CCExecutorError as error:
            logger.warning("run %s could not be followed to its end: %s", run.run_id, error)
        except Exception:  # root of a task: the run goes on by itself, and whoever asks for its results is told
            logger.exception("run %s could not be followed to its end", run.run_id)
        finally:
            self._followed.pop(run.run_id, None)

    async def resume(self) -> None:
        """Follow what was started by a server before this one and has no receipt yet, and settle what was lost."""
        reconcile(self.home, environ=self._environ)
        for folder in await asyncio.to_thread(lambda: [each for each in self.home.runs() if _is_open(each)]):
            if self._owners.of(folder.run_id) is not None and folder.run_id not in self._followed:
                with suppress(CCExecutorError):
                    self._see_through(await Run.attach(self.home, folder.run_id, environ=self._environ))

    async def aclose(self) -> None:
        """Let go of all runs; they go on."""
        tasks = [followed.task for followed in self._followed.values() if followed.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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

    def executions(
        self, *, who: str, limit: int, before: str = "", status: str = "", everybody: bool = False
    ) -> tuple[list[RunSummary], str]:
        """Somebody's runs, newest first, and the id to ask from for the next page (empty: there is none). Blocking. `everybody`: all that they may see."""
        is_listed = self._owners.may_see if everybody else self._owners.is_own
        found: list[RunSummary] = []
        for folder in self.home.runs():
            if (before and folder.run_id >= before) or not is_listed(folder.run_id, who):
                continue
            if len(found) == limit:
                return found, found[-1].id
            row = summary(folder, now=time.time())
            if not status or row.status == status:
                found.append(row)
        return found, ""

    async def status(self, run_id: str, *, who: str) -> dict[str, Any]:
        """What is known of a run now."""
        folder = await asyncio.to_thread(self.find, run_id, who=who)
        row = await asyncio.to_thread(summary, folder, now=time.time())
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
        """Give a command: ``pause``, ``resume``, ``cancel`` (with time to clean up) or ``kill`` (at once)."""
        await asyncio.to_thread(self.find, run_id, who=who)
        run = await Run.attach(self.home, run_id, environ=self._environ)
        commands: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "pause": partial(run.pause, by=who or "server"),
            "resume": partial(run.resume, by=who or "server"),
            "cancel": partial(run.cancel, by=who or "server"),
            "kill": partial(run.cancel, by=who or "server", now=True),
        }
        if op not in commands:
            raise InvalidRequest(f"There is no command {op!r}. Choose one of {', '.join(commands)}.")
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


def _is_open(folder: RunFolder) -> bool:
    """Whether nobody has followed the run to its end yet."""
    return not (folder.path / records.RECEIPT).exists()


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
