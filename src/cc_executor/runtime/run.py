"""One run, seen from outside: start or attach, follow, command, finish. A reader of the journal and a sender of commands; it owns no process."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
import anyio.abc
import msgspec

from cc_executor.errors import CCExecutorError, ControlFailed
from cc_executor.model.care import LoopGuard
from cc_executor.model.event import ApiRetried, Event, Repeated
from cc_executor.model.fold import advance_all
from cc_executor.model.hook import Hook
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import RunId, RunRequest
from cc_executor.model.state import RunState
from cc_executor.runtime import telemetry
from cc_executor.runtime.checks import Checking
from cc_executor.runtime.control import Status, command, is_deaf, nudges, wake
from cc_executor.runtime.errand import in_thread
from cc_executor.runtime.hooks import RunHooks, gathered
from cc_executor.runtime.launch import launch
from cc_executor.runtime.reader import JournalReader
from cc_executor.runtime.seal import redactor_of, seal
from cc_executor.runtime.supervisor import reaped, terminate
from cc_executor.runtime.turns import Turns, turns_here
from cc_executor.shim import records
from cc_executor.store.home import StateHome, new_run_id
from cc_executor.store.journal import RunFolder, RunStanding
from cc_executor.store.place import REDIS_VARIABLE

if TYPE_CHECKING:
    from cc_executor.model.notify import Notify

# A key that is refused stays refused: the CLI alone would try for 180 s (2.1.197 and 2.1.329, recording 03i).
HOPELESS_STATUSES: Final = frozenset({401, 403})
LOOK_AGAIN: Final = 1.0  # seconds; the shim's nudges make this a safety net


class Batch(msgspec.Struct, frozen=True):
    """Events that were read together, and the state after them.

    `position` makes the cursor from which reading goes on after them; it is good until the next batch is asked for.
    """

    events: list[Event]
    state: RunState
    position: Callable[[], JournalReader]


class Run:
    """A run that was started here or anywhere else.

    Use `Run.start` or `Run.attach`, then iterate `follow()` to the end, then `await finish()`. Several may follow the same run.

    Attributes
    ----------
    folder : RunFolder
    request : RunRequest
    state : RunState
        The fold of everything that `follow` has yielded; with several followers, to the one that is furthest.
    is_unwanted : bool
        Whether somebody here has asked for its end, perhaps too late for it: no further attempt is to follow it.
    """

    def __init__(
        self, folder: RunFolder, request: RunRequest, *, environ: Mapping[str, str], started_here: bool, hooks: RunHooks | None = None
    ) -> None:
        redactor = redactor_of(environ, folder.path.parent.parent)
        self.folder = folder
        self.request = request
        self.state = RunState()
        self.is_unwanted = False
        self._redactor = redactor
        self._checking = Checking(environ, redactor)
        self._started_here = started_here
        self._environ = environ
        self._hooks = hooks if hooks is not None else RunHooks.of(folder, environ=environ, redactor=redactor)
        self._final: RunState | None = None
        self._is_sealing = False
        self._hopeless: tuple[str, str] | None = None  # why the run is to be ended, and who says so
        self._gave_up = False

    @property
    def run_id(self) -> RunId:
        """The id by which every door knows the run."""
        return self.folder.run_id

    @classmethod
    async def start(
        cls,
        request: RunRequest,
        *,
        home: StateHome,
        environ: Mapping[str, str],
        run_id: RunId | None = None,
        hooks: Sequence[Hook] = (),
        hook_names: Mapping[str, str] | None = None,
        notify: Notify | None = None,
        keep: Callable[[RunFolder], object] = lambda folder: None,
        spared: bool = False,
    ) -> Run:
        """Launch `request`; see `cc_executor.runtime.launch.launch` for what can be refused. `run_id`: one that was made before, by `new_run_id`.

        `hooks` are called besides those of this process; `hook_names` is what commands among them are told besides the run's id. `HookRefused` when one
        of them does not let it start.
        Cancelled in the middle, it ends what may be running already and seals its receipt. `notify`: who is told when it has ended, or asks. `keep`: writes
        into the run's folder, before anything is started, what its caller has to know of it later. `spared`: whether an agent that waits may take it.
        """
        run_id = run_id or new_run_id(time.time())
        called = await in_thread(partial(gathered, hooks, environ=environ))
        hooking = RunHooks(
            called,
            environ=environ,
            redactor=redactor_of(environ, home.root),
            names=hook_names,
            notify=notify,
        )

        async def unwanted(folder: RunFolder) -> None:
            await cls(folder, request, environ=environ, started_here=True, hooks=hooking).end(reason="interrupt", by="python")

        def keep_all(folder: RunFolder) -> None:
            hooking.keep(folder)
            telemetry.mark(folder, trace)
            keep(folder)

        await hooking.before(request, run_id)
        trace = telemetry.carried(environ)
        given = {**environ, **trace}
        try:
            folder = await launch(
                request, home=home, environ=given, pid=os.getpid(), unwanted=unwanted, keep=keep_all, run_id=run_id, spared=spared
            )
        except CCExecutorError as error:
            await hooking.could_not_start(request, run_id, error)
            raise
        if environ.get(REDIS_VARIABLE):  # loaded for those alone who share their history
            from cc_executor.runtime import sharing

            sharing.begin(home.root, environ)
        return cls(folder, request, environ=environ, started_here=True, hooks=hooking)

    @classmethod
    async def attach(cls, home: StateHome, run_id: str, *, environ: Mapping[str, str]) -> Run:
        """A run by its id, running or ended.

        Raises
        ------
        RunNotFound, StateUnusable
        """
        folder = home.find(run_id)
        return cls(folder, folder.request(), environ=environ, started_here=False)

    async def follow(self) -> AsyncGenerator[Batch]:
        """Everything from the beginning, then what comes, until the run has ended or its supervisor is gone. Folds `state` on the way."""
        reader = JournalReader(self.folder, agent=self.request.agent, guards=self.request.loop_guard is not LoopGuard.OFF)
        state = RunState()
        turns = turns_here()

        def folded(events: list[Event]) -> Batch:
            nonlocal state
            state = advance_all(state, events)
            if state.events >= self.state.events:  # another follower may be further
                self.state = state
            self._hooks.feed(events, upto=state.events)
            self._hooks.telling.asked(state.asks)
            return Batch(events, state, reader.copy)

        async with AsyncExitStack() as stack:
            wake = await self._listen(stack)
            while True:
                await turns.take(reader)
                events = reader.read()
                if events is not None:
                    if events:
                        yield folded(events)
                elif reader.exited is not None:
                    break
                elif wake is None or not await _woken(wake, turns) or not self.folder.path.exists():
                    wake = None
                    await stack.aclose()
                    standing = self.folder.standing(time.time())
                    # The exit file is written a moment before the last record, and both before the supervisor goes.
                    is_alive = standing in {RunStanding.STARTING, RunStanding.RUNNING} or self.folder.is_supervised()
                    if (events := reader.read()) is not None:  # looked at after its supervisor: what is not there now will never be
                        if events:
                            yield folded(events)
                    elif is_alive:
                        # It does not take our connection (yet): look at the files meanwhile.
                        await anyio.sleep(LOOK_AGAIN / 20 if standing is RunStanding.STARTING else LOOK_AGAIN)
                        wake = await self._listen(stack)
                    else:
                        if rest := reader.close():
                            yield folded(rest)
                        break
        self._final = state

    async def _listen(self, stack: AsyncExitStack) -> anyio.abc.ByteReceiveStream | None:
        try:
            return await stack.enter_async_context(nudges(self.folder))
        except ControlFailed:
            return None

    async def refuse_hopeless(self, batch: Batch) -> None:
        """End the run when the agent asks an API that will go on refusing it, or goes round in a circle and shall not. Called by the one who owns the run."""
        if self._hopeless is None:
            self._hopeless = self._why_hopeless(batch.events)
        if self._hopeless is not None and not self._gave_up:
            reason, by = self._hopeless
            with suppress(ControlFailed):  # it has ended by itself meanwhile; or it was not heard, and is told again with the next batch
                await self.cancel(reason=reason, by=by)
                self._gave_up = True

    def _why_hopeless(self, events: list[Event]) -> tuple[str, str] | None:
        if any(isinstance(event, ApiRetried) and event.status in HOPELESS_STATUSES for event in events):
            return "auth", "cc_executor"
        if self.request.loop_guard is LoopGuard.STOP:
            for event in events:
                if isinstance(event, Repeated):
                    return "loop", f"the loop guard: {event.count} × {event.name}({event.about}), the same result each time"
        return None

    @property
    def notify(self) -> Notify | None:
        """Who is told of the run, where that was said when it was started here."""
        return self._hooks.telling.wish

    def told(self) -> list[str]:
        """Sentences about hooks that did not end well, each once; for whoever shows the run."""
        return self._hooks.news()

    async def finish(self) -> Receipt:
        """The sealed receipt. Waits for the end of the run, then makes it (checks, outcome, digests) unless there is one already."""
        if self._final is None:
            async with aclosing(self.follow()) as batches:
                async for _ in batches:
                    pass
        assert self._final is not None  # `follow` has reached the end
        was_sealed = self.folder.has_receipt
        self._is_sealing = True
        try:
            receipt = await seal(
                self.folder,
                self._final,
                checking=self._checking,
                redactor=self._redactor,
                now=time.time(),
                hooks=self._hooks,
                is_watcher=not self._started_here,
            )
        finally:
            self._is_sealing = False
            self._hooks.dismiss()
        telemetry.tell_soon(self.folder, receipt, environ=self._environ, redactor=self._redactor, is_new=not was_sealed)
        if self._environ.get(REDIS_VARIABLE) and not was_sealed:
            from cc_executor.runtime import sharing

            sharing.offer(self.folder, self._environ)
        await reaped(self.run_id)
        return receipt

    async def end(self, *, reason: str, by: str, now: bool = False) -> Receipt:
        """End the run, for its caller goes away, and seal its receipt. Checks that are not made yet are left out, hooks are hurried."""
        self._checking.end()
        self._hooks.hurry()
        with suppress(ControlFailed):  # it has ended by itself
            await self.cancel(reason=reason, by=by, now=now)
        return await self.finish()

    def mask(self, text: str) -> str:
        """`text` without secrets."""
        return self._redactor.text(text)

    def send(self, op: str, **fields: object) -> Status:
        """One command, blocking (a few milliseconds), from any thread. `op`: pause, resume, cancel or status.

        When the agent has ended and only the checks of this run go on, `cancel` ends those. Where the run was started, it works without the run's folder
        or socket, too. A supervisor that stands still, so that it does not answer a `cancel`, is told to go on.

        Raises
        ------
        ControlFailed
            The run has ended or does not answer.
        """
        self.is_unwanted = self.is_unwanted or op == "cancel"
        ends_checks = op == "cancel" and self._is_sealing and not self.folder.has_receipt  # what is sealed stays as it is
        if ends_checks:
            self._checking.end()
            self._hooks.end()
        try:
            return command(self.folder, op, **fields)
        except ControlFailed:
            if ends_checks:
                return Status({"ok": True, "state": "exited", "processes": 0})
            if op == "cancel" and not (self.folder.path / records.EXIT).exists():
                is_told = terminate(self.run_id)
                wake(self.folder)
                if is_told:
                    return Status({"ok": True, "state": "stopping", "processes": 0})
            raise

    async def pause(self, *, by: str = "", pauses: int | None = None) -> Status:
        """Stop every process of the run; returns when they stand. `pauses`: see `RunPage.command`."""
        return await self._ask("pause", by=by, **_seen(pauses))

    async def resume(self, *, by: str = "", pauses: int | None = None) -> Status:
        """Let every process of the run go on. `pauses`: as for `pause`."""
        return await self._ask("resume", by=by, **_seen(pauses))

    async def cancel(self, *, reason: str = "cancel", by: str = "", now: bool = False) -> Status:
        """Begin to end the run (`now`: without giving it time to clean up). `follow` ends when nothing of it is left."""
        return await self._ask("cancel", reason=reason, by=by, now=now)

    async def is_deaf(self) -> bool:
        """Whether its supervisor lives and does not answer."""
        return await in_thread(lambda: is_deaf(self.folder), takes_long=True)

    async def status(self) -> Status:
        """What the supervisor says now."""
        return await self._ask("status")

    async def _ask(self, op: str, **fields: object) -> Status:
        # Without waiting for a place: a command has its own bound, and a cancel is not to wait for 40 launches.
        return await in_thread(partial(self.send, op, **fields), takes_long=True)


def _seen(pauses: int | None) -> dict[str, int]:
    return {} if pauses is None else {"pauses": pauses}


async def _woken(stream: anyio.abc.ByteReceiveStream, turns: Turns) -> bool:
    """Wait until the journal may have grown. False when the supervisor is gone."""
    await turns.rest()  # nudges wait meanwhile, and come as one
    with anyio.move_on_after(LOOK_AGAIN):
        try:
            await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return False
    return True
