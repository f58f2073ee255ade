"""What an administrator allows, and who has still room for a run: one owner's runs, money and tokens. Knows requests and receipts; knows no HTTP.

These are rules for people who come through the server. It runs as its user, who can change them or go round them in a terminal: what must hold is limited
outside (docs/policy.md).
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from cc_executor.agents.claude.command import DEFAULT_PERMISSION_MODE as DEFAULT_MODE
from cc_executor.errors import StateUnusable
from cc_executor.model.request import RunRequest
from cc_executor.model.tasklist import Task, TaskKind, TaskList
from cc_executor.policy.budget import SMALLEST, Purse
from cc_executor.runtime.errand import Errand
from cc_executor.runtime.unsealed import spent_unsealed
from cc_executor.server.owners import Owners
from cc_executor.server.places import Place, Places
from cc_executor.server.refusal import Refused
from cc_executor.shim import records
from cc_executor.store import roll
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder
from cc_executor.store.localtime import local_day
from cc_executor.store.lock import PATIENCE
from cc_executor.store.spend import DaySpend, EndedRun

SOON: Final = 10  # seconds; nobody knows when a run ends, and this is how often it is worth asking
# The modes that allow no tool by themselves: in the others a list of allowed tools would say nothing.
_ASKING_MODES: Final = ("default", "manual", "dontAsk", "plan")
# One tool, or a part of one. The CLI takes what follows a comma or a space outside of it for another tool.
_PART: Final = re.compile(r"(\w+)(?:\([^()]*\))?")
TOO_MANY: Final = "TooManyRuns"
RESERVED: Final = "DayReserved"

T = TypeVar("T")


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What the administrator allows. Empty tuples: everything.

    Attributes
    ----------
    running, queued : int
        Runs of one owner at work, and waiting, at the same time.
    max_cost : float or None
        US dollars that one run may spend at most; a request that names none gets this one.
    day_cost : float or None
        US dollars that one owner's runs may spend on a local day.
    day_tokens : int or None
        Tokens of one owner's day after which nothing more is started.
    agents, tools, permission_modes : tuple of str
    folders, trusted : tuple of Path
        Where agents may work, and where a request may trust a folder's own settings; with everything below.
    webhook_hosts : tuple of str
        Where a request may have messages sent.
    """

    running: int = 8
    queued: int = 0
    max_cost: float | None = None
    day_cost: float | None = None
    day_tokens: int | None = None
    agents: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    permission_modes: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    trusted: tuple[Path, ...] = ()
    webhook_hosts: tuple[str, ...] = ()

    def applied(self, request: RunRequest) -> RunRequest:
        """The request under these rules.

        Raises
        ------
        Refused
        """
        self._check_agent(request)
        request = self._with_mode(request)
        for tool in request.tools:
            # A tool that may be used may be used in part; a part that may be used is no leave for the whole, nor for another part.
            part = _PART.fullmatch(tool)
            if self.tools and tool not in self.tools and (part is None or part[1] not in self.tools):
                raise _forbidden(f"The tool {tool[:100]!r} is not allowed here. Choose from {', '.join(self.tools)}.")
        for name in (request.cwd, *request.add_dirs):
            if self.folders and not _is_below(name, self.folders):
                raise _forbidden(f"Agents may not work in {name}. Choose a folder in {', '.join(map(str, self.folders))}.")
        if (
            self.folders
            and request.rehearse is not None
            and request.rehearse.startswith("/")
            and not _is_below(request.rehearse, self.folders)
        ):
            raise _forbidden(f"The rehearsal {request.rehearse} lies in no folder that is allowed here. Choose a shipped one, by its name.")
        if request.trust_workspace and self.trusted and not _is_below(request.cwd, self.trusted):
            raise _forbidden(f"{request.cwd} may not be trusted from here. Leave trust_workspace out.")
        if self.max_cost is None:
            return request
        wanted = request.limits.cost
        if wanted is not None and wanted > self.max_cost:
            raise _forbidden(f"max_cost may be ${self.max_cost:.2f} at most here (given: ${wanted:.2f}).")
        return request if wanted is not None else with_cost(request, self.max_cost)

    def _check_agent(self, request: RunRequest) -> None:
        if self.agents and request.agent not in self.agents:
            raise _forbidden(f"The agent {request.agent!r} is not allowed here. Choose one of {', '.join(self.agents)}.")
        if self.agents and request.verify is not None and "shell" not in self.agents:
            raise _forbidden("verify is a command, and commands are not allowed here (no agent 'shell'). Leave it out, or use expect.")

    def _with_mode(self, request: RunRequest) -> RunRequest:
        """The request with a permission mode that is allowed: what is not named is not what the agent does by itself, but what may be done here."""
        modes = self.permission_modes or (_ASKING_MODES if self.tools else ())
        if request.agent == "shell" or not modes or request.permission_mode in modes:
            return request
        if request.permission_mode is not None:
            raise _forbidden(f"The permission mode {request.permission_mode!r} is not allowed here. Choose one of {', '.join(modes)}.")
        return request if DEFAULT_MODE in modes else request.model_copy(update={"permission_mode": modes[0]})


def with_cost(request: RunRequest, cost: float | None) -> RunRequest:
    """The request with another bound of dollars."""
    return request.model_copy(update={"limits": request.limits.model_copy(update={"cost": cost})})


def _is_below(name: str, folders: tuple[Path, ...]) -> bool:
    # Not by `Path.resolve`: until Python 3.12 it raises for links that lead in a circle, and who starts the run says in a sentence that there is no folder.
    return any(Path(os.path.realpath(name)).is_relative_to(os.path.realpath(folder)) for folder in folders)


def _forbidden(message: str) -> Refused:
    return Refused(403, "NotAllowed", message)


class Admission:
    """Who has room for one more run.

    Looking and reserving are one, in this server and in all others of the state folder: requests that come at once are as good as one after the other, and
    what is promised to a run is held until it is at work, where its folder says the same.

    Parameters
    ----------
    home : StateHome
    owners : Owners
    rules : Rules

    Attributes
    ----------
    promised : callable
        The runs that somebody's lists have begun, by their ids, launched or not; and how many more these lists may start any moment. Blocking.
    checked : callable
        Ids of the runs whose checks go on in this server, which count as they did before. Blocking.
    """

    def __init__(self, home: StateHome, owners: Owners, rules: Rules) -> None:
        self.rules = rules
        self._home = home
        self._owners = owners
        self._spend = DaySpend(home, unsealed=spent_unsealed)
        self._places = Places(home.root)
        self._lock = asyncio.Lock()  # before the turn among all servers, which is waited for in a thread
        self.promised: Callable[[str], tuple[set[str], int]] = lambda who: (set(), 0)
        self.checked: Callable[[], Iterable[str]] = tuple

    def is_beginning(self, run_id: str) -> bool:
        """Whether a place is held here for a run."""
        return self._places.is_mine(run_id)

    async def reserve(self, run_id: str, request: RunRequest, who: str) -> RunRequest:
        """Hold a place for a run until `release`; returns the request with the bound that keeps the day's.

        Raises
        ------
        Refused
            There is no room: too many runs (`TOO_MANY`), money that others may still spend (`RESERVED`), or the day's money or tokens are spent.
        StateUnusable
        """

        def hold() -> RunRequest:
            going = self._going(who)
            self._check_room(set(going), 1, who)
            bounded = self._within_day(request, who, tuple(going.values()))
            self._places.hold(run_id, Place(who, bounded.limits.cost if _spends(bounded) else 0.0))
            return bounded

        return await self._held(hold, run_id)

    @asynccontextmanager
    async def room(self, who: str, count: int, tasks: TaskList, spent: float) -> AsyncGenerator[TaskList]:
        """Hold places for `count` tasks of a list until the list itself says that they may start; gives the list with the bound that keeps the day's.

        Parameters
        ----------
        spent : float
            US dollars that the list has cost already, which its bound counts, too.

        Raises
        ------
        Refused
            As `reserve`.
        """
        names = [secrets.token_hex(8) for _ in range(count)]

        def hold() -> TaskList:
            going = self._going(who)
            self._check_room(set(going), count, who)
            bounded = self._list_within_day(tasks, spent, who, tuple(going.values()))
            try:
                for name in names:
                    self._places.hold(name, Place(who, 0.0))
            except StateUnusable:
                self.release(*names)
                raise
            return bounded

        bounded = await self._held(hold, *names)
        try:
            yield bounded
        finally:
            self.release(*names)

    async def _held(self, hold: Callable[[], T], *names: str) -> T:
        """What `hold` gives, in a turn of its own. Whatever ends it early, no place is held afterwards."""

        def held(_: object) -> T:
            self._home.check()  # before anything is made in it
            with self._places.turn():
                return hold()

        async with self._lock:
            errand = Errand(held, patience=2 * PATIENCE)
            try:
                return await errand.run()
            except BaseException:
                if errand.result is not None:  # cancelled meanwhile
                    self.release(*names)
                raise

    def _check_room(self, going: set[str], count: int, who: str) -> None:
        most = self.rules.running
        if count > most:
            said = f"{count} tasks of this list would be at work at once, and {most} runs may be here. Give the list `parallel: {most}`, or less."
            raise Refused(429, TOO_MANY, said)
        begun, more = self.promised(who)
        checked = {run_id for run_id in self.checked() if self._owners.is_own(run_id, who)}
        if len(going | begun | checked) + more + count > most:
            said = f"{most} runs are" if most > 1 else "1 run is"
            raise Refused(429, TOO_MANY, f"{said} at work already. Wait for one to end, or cancel one.", retry_after=SOON)

    def ended(self, start: float) -> list[EndedRun]:
        """What everybody's runs have cost that ended at `start` (seconds since the epoch) or later. Blocking. Raises `StateUnusable`."""
        return self._spend.since(start)

    def release(self, *names: str) -> None:
        """The runs are at work, or were not started."""
        for name in names:
            self._places.release(name)

    def _going(self, who: str) -> dict[str, float | None]:
        """Somebody's runs that go on or are about to, with their bounds. Blocking.

        What is about to is looked at first: what is let go of meanwhile is at work by then.
        """
        held = {name: place.cost for name, place in self._places.all().items() if place.owner == who}
        found = [self._home.folder(name) for name in roll.going(self._home.root)]
        own = [folder for folder in found if folder.size(records.EXIT) == 0 and self._owners.is_own(folder.run_id, who)]
        if self.rules.day_cost is None:
            return dict.fromkeys((folder.run_id for folder in own), 0.0) | held
        return {folder.run_id: _bound_of(folder) for folder in own} | held

    def _within_day(self, request: RunRequest, who: str, reserved: tuple[float | None, ...]) -> RunRequest:
        if not _spends(request) or not self._has_day:
            return request
        return with_cost(request, self._day_bound(request.limits.cost, who, reserved))

    def _list_within_day(self, tasks: TaskList, spent: float, who: str, reserved: tuple[float | None, ...]) -> TaskList:
        """The list with what is left of the day as its bound. Its tasks at work are runs of its owner's, and hold their own part."""
        if not self._has_day or not any(_task_spends(task) for task in tasks.tasks):
            return tasks
        left = self._day_bound(None, who, reserved)
        if left is None or (tasks.max_cost is not None and tasks.max_cost <= spent + left):
            return tasks
        return TaskList.model_validate(dict(tasks) | {"max_cost": spent + left})

    @property
    def _has_day(self) -> bool:
        return self.rules.day_cost is not None or self.rules.day_tokens is not None

    def _day_bound(self, wanted: float | None, who: str, reserved: tuple[float | None, ...]) -> float | None:
        """US dollars that one more run or list may spend today; None without a cap. Raises `Refused` when there is too little left. Blocking."""
        rules = self.rules
        now = time.time()
        runs = [run for run in self._spend.runs(now) if self._owners.is_own(run.run_id, who)]
        tomorrow = max(1, math.ceil(local_day(now)[1] - now))
        tokens = sum(run.tokens for run in runs)
        if rules.day_tokens is not None and tokens >= rules.day_tokens:
            said = f"{tokens:,} of the day's {rules.day_tokens:,} tokens are used. Go on tomorrow."
            raise Refused(429, "DayTokensSpent", said, retry_after=tomorrow)
        if rules.day_cost is None:
            return wanted
        purse = Purse(day_cap=rules.day_cost, today=sum(run.cost for run in runs), reserved=reserved)
        if not purse.is_enough(wanted):
            said = f"the day's ${rules.day_cost:.2f}: ${purse.today:.2f} are spent, and runs at work may spend what else is missing"
            alone = Purse(day_cap=rules.day_cost, today=purse.today)
            if alone.is_enough(wanted):
                raise Refused(429, RESERVED, f"There is too little left of {said}. Wait for one to end.", retry_after=SOON)
            need = f"${wanted:.2f}" if wanted is not None else f"${SMALLEST:.2f}"
            said = f"${purse.today:.2f} of the day's ${rules.day_cost:.2f} are spent, and this run may cost {need} or more. Go on tomorrow, or ask for less."
            raise Refused(429, "DaySpent", said, retry_after=tomorrow)
        return purse.bound(wanted)


def _spends(request: RunRequest) -> bool:
    """Whether a run costs anybody anything: a command asks no model, and a rehearsal's dollars are nobody's."""
    return request.agent != "shell" and request.rehearse is None


def _task_spends(task: Task) -> bool:
    return task.kind is TaskKind.AGENT and task.options.get("rehearse") is None


def _bound_of(folder: RunFolder) -> float | None:
    try:
        request = folder.request()
    except StateUnusable:
        return 0.0
    return request.limits.cost if _spends(request) else 0.0
