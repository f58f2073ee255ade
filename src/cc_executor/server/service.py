"""What the server does for somebody: start, see through, command. Knows runs and owners; knows no tornado and no HTTP.

It owns no process: it launches supervisors and reads journals, so a server that ends ends nobody's run, and the next one finds them all.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from cc_executor.api import make_request
from cc_executor.errors import CCExecutorError, InvalidRequest
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import RunId, RunRequest
from cc_executor.policy.ask import Place
from cc_executor.policy.redact import Redactor, secret_values
from cc_executor.rehearsal import scripts
from cc_executor.runtime.control import command
from cc_executor.runtime.errand import in_thread
from cc_executor.runtime.hooks import hooks_of_environment
from cc_executor.runtime.launch import check
from cc_executor.runtime.reconcile import reconcile
from cc_executor.runtime.run import Run
from cc_executor.server import attendance
from cc_executor.server.audit import Audit
from cc_executor.server.following import Following
from cc_executor.server.foresight import Foresight
from cc_executor.server.keys import Keys
from cc_executor.server.leftovers import sweep
from cc_executor.server.line import WAITS, Line
from cc_executor.server.listrequest import as_asked
from cc_executor.server.lists import OPS, Lists
from cc_executor.server.login import LoginLook
from cc_executor.server.lookup import Lookup, standing
from cc_executor.server.notices import Notices
from cc_executor.server.owners import Owners
from cc_executor.server.policy import Admission, Rules
from cc_executor.server.queue import Waiting
from cc_executor.server.refusal import Refused, told_as
from cc_executor.shim import records
from cc_executor.store.home import StateHome, new_run_id
from cc_executor.store.journal import RunFolder
from cc_executor.store.tasklists import LIST_ID
from cc_executor.taskplan import seen_from

logger = logging.getLogger(__name__)

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
        self.lookup = Lookup(
            home=home,
            environ=environ,
            owners=owners,
            lists=self.lists,
            line=self.line,
            following=self._following,
            mask=self.mask,
        )

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
        asked = self._asked(body)
        await asyncio.to_thread(self.home.prepare)
        # By what was asked for, and not by what this server makes of it: another one may have other rules and another folder.
        digest = _digest(asked.model_copy(update={"cwd": as_asked(body.get("cwd"))}))
        async with self._keys.held(key, who=who, digest=digest) as held:
            if held.id and await asyncio.to_thread(self._is_known, held.id):
                return held.id, False
            request = self.admission.rules.applied(asked)
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
        return self.admission.rules.applied(self._asked(body))

    def _asked(self, body: Mapping[str, Any]) -> RunRequest:
        """A checked request, whatever the rules say of it. Raises as `request`: where messages may be sent is looked at here."""
        options = dict(body)
        prompt = options.pop("prompt", None)
        if not isinstance(prompt, str):
            raise InvalidRequest("prompt is missing: give the text for the agent as a string.")
        self.notices.take(options)
        if unfit := sorted(NOT_OVER_HTTP & options.keys()):
            raise InvalidRequest(f"{unfit[0]} is not an option of a request.")
        if (where := options.get("cwd")) is None or isinstance(where, str):
            options["cwd"] = os.path.join(self._root, os.path.expanduser(where or ""))
        if "add_dirs" in options:
            options["add_dirs"] = seen_from(str(self._root), options["add_dirs"])
        if isinstance(script := options.get("rehearse"), str):
            options["rehearse"] = scripts.whole(script, folder=self._root)
        options.setdefault("on_kernel_exit", "continue")
        try:
            return make_request(prompt, **options)
        except TypeError as error:
            raise InvalidRequest(str(error)) from error

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
        return [folder.run_id for folder in to_check if folder.size(records.EXIT) and not folder.has_receipt]

    async def resume(self) -> None:
        """Follow what was started by a server before this one and has no receipt yet, and settle what was lost."""
        reconcile(self.home, environ=self._environ)
        for folder in await asyncio.to_thread(lambda: [each for each in self.home.runs() if not each.has_receipt]):
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
        await self._following.aclose()
        await self.lookup.aclose()

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

    # --- commanding ---

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
        if (entry := await asyncio.to_thread(self.lookup.waiting, run_id, who=who)) is not None and await self.line.withdrawn(entry, op):
            await asyncio.to_thread(self.notices.forget, run_id)
            return {"id": run_id, "op": op, "status": "cancelled", "processes": 0}
        folder = await asyncio.to_thread(self.lookup.find, run_id, who=who)
        # Whoever sees a run through can end its checks, too. Of one that is just being started there may be no request to read yet.
        followed = self._following.get(run_id)
        send = partial(command, folder) if followed is None else followed.run.send
        if op in {"cancel", "kill"}:
            order = partial(send, "cancel", reason="cancel", now=op == "kill")
        else:
            order = partial(send, op, **({} if pauses is None else {"pauses": pauses}))
        answer = await in_thread(partial(order, by=who or "server"), takes_long=True)
        return {"id": run_id, "op": op, **standing(answer)}


def _digest(request: RunRequest) -> str:
    try:
        return request.digest()
    except (ValueError, RecursionError):
        raise InvalidRequest("The request holds objects within objects to a depth that cannot be written down. Make it flatter.") from None
