"""What the server does for somebody: start, list, follow, command. Knows runs and owners; knows no tornado and no HTTP.

It owns no process: it launches supervisors and reads journals, so a server that ends ends nobody's run, and the next one finds them all.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from cc_executor.api import make_request
from cc_executor.errors import CCExecutorError, ControlFailed, InvalidRequest, RunNotFound
from cc_executor.model.ask import Ask
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import RunId, RunRequest
from cc_executor.model.state import RunState
from cc_executor.runtime.answers import Attendant
from cc_executor.runtime.executable import find_executable
from cc_executor.runtime.hooks import hooks_of_environment
from cc_executor.runtime.login import LOGIN_CURE, login_of
from cc_executor.runtime.reconcile import reconcile
from cc_executor.runtime.run import Run
from cc_executor.runtime.summary import RunSummary, summary
from cc_executor.server.foresight import Foresight
from cc_executor.server.keys import Keys
from cc_executor.server.lists import Lists, ListSummary
from cc_executor.server.owners import Owners
from cc_executor.server.pieces import Piece
from cc_executor.server.refusal import Refused
from cc_executor.server.tail import Tail, Tails
from cc_executor.server.watch import Watch
from cc_executor.shim import records
from cc_executor.store.home import RUN_ID, StateHome, new_run_id
from cc_executor.store.journal import RunFolder, RunStanding
from cc_executor.store.tasklists import LIST_ID, ListFolder

logger = logging.getLogger(__name__)

STREAMS: Final = frozenset({records.STDOUT, records.STDERR, records.CONTROL})
TEXT_TAIL: Final = 4000  # characters of a running agent's text in its status
# Not for a request that came over a network: where programs lie is the server's affair, and `state` is its own folder.
NOT_OVER_HTTP: Final = frozenset({"cli", "state", "environ", "on_event", "hooks", "on_ask"})

# Who looks after the questions of a run's agent, for as long as the run is followed.
Attend = Callable[[Run], AbstractAsyncContextManager[Attendant | None]]


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
        self._keys = Keys(home.root)
        self.lists = Lists(
            home=home,
            environ=environ,
            owners=owners,
            keys=self._keys,
            root=root,
            unfit=NOT_OVER_HTTP,
            allowed=rules.applied,
            room=self._room,
        )
        self.foresight = Foresight(home=home, environ=environ, owners=owners, lists=self.lists.requests, request=self.request)
        self._tails = Tails()

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

    async def execute(self, body: Mapping[str, Any], *, who: str, key: str = "", attend: Attend | None = None) -> tuple[str, bool]:
        """Start a run; returns its id, and whether it was started now.

        Parameters
        ----------
        body : mapping
            ``prompt``, and options of `cc_execute` by name; or ``tasks``, see `Lists.execute`.
        who : str
            The owner.
        key : str
            The idempotency key: two requests of one owner with the same one are one run.
        attend : callable, optional
            Who looks after the agent's questions; if nobody does, they wait for `cc-executor answer`.

        Raises
        ------
        Refused, CCExecutorError
            Nothing was started.
        """
        if "tasks" in body:
            return await self.lists.execute(body, who=who, key=key)
        request = self.request(body)
        await asyncio.to_thread(self.home.prepare)
        async with self._keys.held(key, who=who, digest=request.digest()) as held:
            if held.id and self.home.folder(held.id).path.exists():
                return held.id, False
            # Written before anything is started: a server that dies in between has promised a run, and the next request makes it.
            run_id = RunId(held.id) if held.id else new_run_id(time.time())
            await asyncio.to_thread(held.keep, run_id)
            return await self._start(request, who, run_id, attend), True

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

    async def _start(self, request: RunRequest, who: str, run_id: RunId, attend: Attend | None) -> str:
        async with self._room(who, 1):
            await asyncio.to_thread(self._owners.claim, run_id, who)
            try:
                hooks = hooks_of_environment(self._environ)
                run = await Run.start(request, home=self.home, environ=self._environ, run_id=run_id, hooks=hooks)
            except BaseException:
                self._owners.forget(run_id)
                raise
            self._see_through(run, attend)
        return str(run.run_id)

    @asynccontextmanager
    async def _room(self, who: str, count: int) -> AsyncGenerator[None]:
        running = await asyncio.to_thread(self._running, who)
        # No await between the count and the reservation: so many requests at once are as good as one after the other.
        if running + self._starting.get(who, 0) + count > self._rules.running:
            raise Refused(429, "TooManyRuns", _too_many(self._rules.running, count))
        self._starting[who] = self._starting.get(who, 0) + count
        try:
            yield
        finally:
            self._starting[who] -= count

    def _running(self, who: str) -> int:
        """Runs of somebody that go on. Those that are being launched count by themselves."""
        now = time.time()
        going = (folder for folder in self.home.runs() if _is_open(folder) and folder.standing(now) is RunStanding.RUNNING)
        return sum(self._owners.is_own(folder.run_id, who) for folder in going) + self.lists.unused(who)

    # --- seeing runs through to their receipts ---

    def _see_through(self, run: Run, attend: Attend | None = None) -> _Followed:
        followed = _Followed(run, attend or (lambda _: nullcontext()))
        self._followed[run.run_id] = followed
        followed.task = asyncio.get_running_loop().create_task(self._whole(followed), name=f"cc_executor {run.run_id}")
        return followed

    async def _whole(self, followed: _Followed) -> None:
        run = followed.run
        try:
            async with followed.attend(run) as attendant, aclosing(run.follow()) as batches:
                async for batch in batches:
                    followed.state = batch.state
                    await run.refuse_hopeless(batch)
                    if attendant is not None:
                        await attendant.attend(batch)
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
        await self.lists.resume()

    async def aclose(self) -> None:
        """Let go of all runs; they go on."""
        await self.lists.aclose()
        self._tails.close()
        tasks = [followed.task for followed in self._followed.values() if followed.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment from which agents' are chosen."""
        return self._environ

    @property
    def rules(self) -> Rules:
        """What the administrator allows."""
        return self._rules

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
        raise RunNotFound("There is no such execution.")

    def is_own(self, run_id: str, *, who: str) -> bool:
        """Whether a run is somebody's own."""
        return self._owners.is_own(run_id, who)

    def asks(self, run_id: str) -> tuple[Ask, ...]:
        """What the agent of a run asks now, as far as this server follows it."""
        followed = self._followed.get(run_id)
        return followed.state.asks if followed is not None else ()

    def executions(
        self, *, who: str, limit: int, before: str = "", status: str = "", everybody: bool = False
    ) -> tuple[list[RunSummary | ListSummary], str]:
        """Somebody's runs and lists, newest first, and what to ask from for the next page (empty: there is none). Blocking.

        `everybody`: all that they may see.
        """
        is_listed = self._owners.may_see if everybody else self._owners.is_own
        found: list[RunSummary | ListSummary] = []
        last = ""
        for place, name, folder in self.lists.beside(self.home.runs()):
            if (before and place >= before) or not is_listed(name, who):
                continue
            if len(found) == limit:
                return found, last
            row = self.lists.summary(folder) if isinstance(folder, ListFolder) else summary(folder, now=time.time())
            if not status or row.status == status:
                found.append(row)
                last = place
        return found, ""

    async def status(self, run_id: str, *, who: str, **page: int) -> dict[str, Any]:
        """What is known of a run or list now. `page`: ``offset`` and ``limit``, for the tasks of a list."""
        if LIST_ID.match(run_id):
            return await self.lists.status(run_id, who=who, **page)
        folder = await asyncio.to_thread(self.find, run_id, who=who)
        row = await asyncio.to_thread(summary, folder, now=time.time())
        if row.status == RunStanding.ENDED.value and await self.receipt(run_id, who=who) is not None:  # nobody has followed it
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

    async def results(self, run_id: str, *, who: str, **page: int) -> dict[str, Any]:
        """What a run or list has made. `done` False: nothing, or not all yet. `page`: as for `status`."""
        if LIST_ID.match(run_id):
            return await self.lists.results(run_id, who=who, **page)
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

    def watching(self, run_id: str, stream: str) -> AbstractAsyncContextManager[Tail]:
        """What a run writes, as it is written, for somebody who was given a `piece` of it."""
        return self._tails.watching(self.home.folder(run_id), stream)

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

    async def watch(self, run_id: str, *, who: str) -> Watch:
        """The live view of a run, for a page whose kernel does not answer. Raises `RunNotFound`, `StateUnusable`."""
        await asyncio.to_thread(self.find, run_id, who=who)
        run = await Run.attach(self.home, run_id, environ=self._environ)
        return await asyncio.to_thread(Watch, run, receipt=partial(self.receipt, run_id, who=who))

    async def control(self, run_id: str, op: str, *, who: str, pauses: int | None = None, task: str = "", text: str = "") -> dict[str, Any]:
        """Give a command: ``pause``, ``resume``, ``cancel`` (with time to clean up) or ``kill`` (at once).

        `pauses`: how often the run had been paused when somebody wanted it paused or resumed. If it was paused since, it stays as it is.
        `task` and `text` are for lists: which task, and its new text.
        """
        if LIST_ID.match(run_id):
            return await self.lists.control(run_id, op, who=who, task=task, text=text)
        await asyncio.to_thread(self.find, run_id, who=who)
        run = await Run.attach(self.home, run_id, environ=self._environ)
        commands: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "pause": partial(run.pause, by=who or "server", pauses=pauses),
            "resume": partial(run.resume, by=who or "server", pauses=pauses),
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
    attend: Attend
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


def _is_open(folder: RunFolder) -> bool:
    """Whether nobody has followed the run to its end yet."""
    return not (folder.path / records.RECEIPT).exists()


def _too_many(most: int, count: int) -> str:
    if count > most:
        return (
            f"{count} tasks of this list would be at work at once, and {most} runs may be here. Give the list `parallel: {most}`, or less."
        )
    return f"{most} runs are at work already. Wait for one to end, or cancel one."


def _standing(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {"status": answer.get("state", ""), "processes": answer.get("processes")}
