"""One run, from the moment the agent runs until its tree is empty: a single loop that drains, obeys, measures and ends. The rest of the shim serves it."""

from __future__ import annotations

import os
import signal
import time

from cc_executor.shim.asks import Asks
from cc_executor.shim.child import signal_name
from cc_executor.shim.clock import TICK
from cc_executor.shim.commands import OPERATIONS, refused
from cc_executor.shim.door import Door
from cc_executor.shim.intake import Intake
from cc_executor.shim.ladder import KILL_PATIENCE, STOP, SWEEP, Ladder
from cc_executor.shim.lease import POLL_INTERVAL, Lease
from cc_executor.shim.ledger import by_stream
from cc_executor.shim.limits import Limits
from cc_executor.shim.linger import LastWord
from cc_executor.shim.mask import mask_text
from cc_executor.shim.poller import IN, Poller
from cc_executor.shim.quiet import Quiet
from cc_executor.shim.records import FORMAT_VERSION
from cc_executor.shim.stdin import Stdin
from cc_executor.shim.tree import COMMAND_LENGTH, Tree, command_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any, Final

    from cc_executor.shim.child import Reaper
    from cc_executor.shim.clock import Clock
    from cc_executor.shim.door import Connection
    from cc_executor.shim.journal import Journal, Stream
    from cc_executor.shim.ladder import Rung
    from cc_executor.shim.ledger import Ledger
    from cc_executor.shim.memory import OomKills
    from cc_executor.shim.spec import Spec
    from cc_executor.shim.sync import File, Syncer
    from cc_executor.shim.tree import Process

RUNNING: Final = "running"
PAUSED: Final = "paused"  # a state that is told; the phase is still `RUNNING`
STOPPING: Final = "stopping"
SETTLING: Final = "settling"  # the agent has ended by itself; its pipes and its leftovers are looked at
DRAINING: Final = "draining"  # the tree is empty; what the pipes still hold is taken
EXITED: Final = "exited"
LAST_DRAIN: Final = 1.0  # seconds; a grandchild may hold a pipe for ever
SETTLE: Final = 0.1  # seconds that the agent's own helpers have to end after it, before they count as left behind
STAND_STILL_PATIENCE: Final = 2.0  # seconds; a process that is not ours (sudo) never stands
PAUSE_PACE: Final = 0.001
COUNT_AGE_ASKED: Final = 0.1  # seconds; reading the process table takes some milliseconds, and anybody may ask often
COUNT_AGE_PUSHED: Final = 2.0
LINGER: Final = "linger"  # the reason to stop an agent that stays after its last word
LISTED: Final = 100  # leftovers that are named; more do not fit the room set aside on a full disk
LAST_SYNC: Final = 2.0  # seconds
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Shim:
    """The owner of one agent."""

    def __init__(
        self,
        spec: Spec,
        *,
        clock: Clock,
        reaper: Reaper,
        journal: Journal,
        ledger: Ledger,
        syncer: Syncer,
        files: tuple[File, ...],
        listener: _socket.socket,
        stdin: int | None,
        first: bytes,
        bell: int,
        oom_kills: OomKills,
    ) -> None:
        self.spec = spec
        self.clock = clock
        self.reaper = reaper
        self.journal = journal
        self.ledger = ledger
        self.phase = RUNNING
        self.tree = Tree(os.getpid())
        self.poller = Poller()
        self.stdin = Stdin(stdin, self.poller, first)
        self._files = files
        self._syncer = syncer
        self._door = Door(listener, self.poller, self._serve)
        self._limits = Limits(spec.wall, spec.stall, None if spec.linger is None else spec.linger.seconds)
        if spec.linger is not None:
            journal.streams[0].last_word = LastWord(spec.linger.done, spec.linger.anew)
        self._asks = None if spec.talk is None else Asks(spec.talk.asked, spec.talk.withdrawn)
        journal.streams[0].asks = self._asks
        if spec.quiet and spec.stall is not None:
            journal.streams[0].quiet = Quiet(spec.quiet)
        self._lease = None if spec.lease_pid is None else Lease(spec.lease_pid)
        self._bell = bell
        self._oom_kills = oom_kills
        self._keep = spec.keep_background
        self._pausing: list[tuple[Connection, str]] | None = None  # who waits for the tree to stand still
        self._paused_by = ""
        self.pauses = 0  # that were made: records of the kind `paused`
        self._stop_reason: str | None = None
        self._ladder: Ladder | None = None
        self._at_once = False
        self._until = 0.0  # end of the phase's patience
        self._ended_at = 0.0
        self._left: list[dict[str, Any]] = []
        self._survivors = 0
        self._reap_due = True
        self._look_again = 0.0
        self._intake = Intake(journal, self.poller, self._took)
        self.poller.add(bell, IN, self._rung)
        if self._lease is not None and self._lease.fd is not None:
            self.poller.add(self._lease.fd, IN, self._lease_ended)

    # --- the loop ---------------------------------------------------------------------------------------------------

    def run(self, agent: int, ready: Callable[[], None]) -> None:
        """Own the agent until nothing of it is left. `ready` tells the launcher that it runs."""
        try:
            now = time.monotonic()  # from here on, standing still is noticed
            self.reaper.agent = agent
            self.ledger.write("started", shim_pid=os.getpid(), agent_pid=agent, host=os.uname().nodename)
            ready()
            self._syncer.start()
            while True:
                wake = min(now + TICK, self._step(now))
                if self.phase == EXITED:
                    break
                wake = max(now, min(wake, self._door.tell(now, self._pushed_status), self._intake.until))
                self.clock.asleep(wake)
                events = self.poller.wait(wake - time.monotonic())
                now = time.monotonic()
                frozen = self.clock.awake(now)  # before any limit is looked at
                if frozen:
                    self.ledger.write("frozen", seconds=round(frozen, 3))
                    self._door.nudge()
                self._intake.woke(0.0 if events else now - wake)
                self.poller.dispatch(events)
        except BaseException:  # noqa: BLE001  # an agent without an owner is the one thing that must not be; who waits learns it from the exit record
            self._fail()
        self._syncer.close(LAST_SYNC)
        self.ledger.give_back()

    def _step(self, now: float) -> float:
        """Do what is due; returns when to be called again."""
        if self._reap_due or now >= self._look_again:
            self._reap_due = False
            self._look_again = now + TICK
            self.reaper.reap()
            self.ledger.flush()
            self.journal.look_at_sync()
            self._door.listen_again()
        wake, sync_at = self._look_again, self._syncer.step(now)
        if self._intake.until == float("inf"):  # a rest ends soon enough; to end it for a sync would double the looks
            wake = min(wake, sync_at)
        if self.phase == RUNNING:
            wake = min(wake, self._while_running(now))
        if self.phase == SETTLING:
            wake = min(wake, self._settle(now))
        if self.phase == STOPPING and self._ladder is not None:
            wake = min(wake, self._ladder.step(now))
            if self._ladder.done:
                self._survivors = self._ladder.survivors
                self._enter(DRAINING, now + LAST_DRAIN)
        if self.phase == DRAINING:
            if self.journal.ended or now >= self._until:
                self._finish(now)
            wake = min(wake, self._until)
        return wake

    def _enter(self, phase: str, until: float = 0.0) -> None:
        self.phase = phase
        self._until = until
        self._door.nudge()

    def _while_running(self, now: float) -> float:
        if self.reaper.status is not None:
            if self.clock.standing:  # killed from outside while paused
                self.tree.resume()
                self._go_on(now, "agent ended")
            self.stdin.close()
            self._ended_at = now
            self._enter(SETTLING, now + LAST_DRAIN)
            return now
        wake = float("inf")
        if self._lease is not None and self._lease.fd is None:
            if self._lease.ended():
                self._lease_ended(0)
                return now
            wake = now + POLL_INTERVAL
        if self.clock.standing:
            return min(wake, self._hold(now))
        active = self.clock.active(now)
        if self._asks is not None and self._asks.waiting:
            # It is somebody else's turn: no stall. The wall clock goes on, so that a question that nobody answers has an end.
            self._limits.sign(active)
        reached = self._limits.reached(active, self._tool_runs)
        if reached is not None:
            limit, seconds, reason = reached
            if reason == LINGER:
                return self._send_away(now)
            self.ledger.write("limit_reached", limit=limit, seconds=seconds)
            self.stop(reason, "limit")
        return min(wake, now + max(0.0, self._limits.next(active) - active))

    def _send_away(self, now: float) -> float:
        """The agent has said its last word and stays: end it, and what it still runs, unless that is to be kept."""
        if not self._keep:
            self._list(self._of_other_sessions())
            self.stop(LINGER, "limit")
            return now
        # Only SIGKILL leaves its tools alive: on any other signal the Claude Code CLI ends them itself. What lives on is looked at when it has ended.
        self._stop_reason = LINGER
        self.ledger.write("stop_requested", reason=LINGER, by="limit")
        count = self.tree.signal_group(self.reaper.agent, signal.SIGKILL)
        self.ledger.write("signalled", signal=signal_name(signal.SIGKILL), processes=count)
        self._limits.spoke(self.clock.active(now), is_done=False)  # once
        return now + TICK

    def _of_other_sessions(self) -> list[Process]:
        return [process for process in self.tree.scan() if process.session != self.reaper.agent]

    def _list(self, left: list[Process]) -> None:
        if left:
            self._left = [{"pid": process.pid, "command": self._command(process.pid)} for process in left[:LISTED]]
            self.ledger.write("left_behind", processes=self._left, kept=self._keep)

    def _tool_runs(self) -> bool:
        """Whether a process of another session than the agent's lives: the Claude Code CLI runs each tool command in its own, and says nothing meanwhile."""
        return bool(self._of_other_sessions())

    def _settle(self, now: float) -> float:
        """The agent has ended by itself: take its last output, then look at what it left."""
        self.reaper.reap()
        if self.tree.is_empty(childless=self.reaper.empty):
            self._enter(DRAINING, self._until)
            return now
        patience = min(self._until, self._ended_at + SETTLE) if self.journal.ended else self._until
        if now < patience:
            return patience
        left = self.tree.scan()
        self._list(left)
        if left and self._keep:
            self._survivors = len(left)
            self._enter(DRAINING, now)
            return now
        self._begin(SWEEP)
        return now

    def _command(self, pid: int) -> str:
        return mask_text(command_of(pid), self.journal.forms)[:COMMAND_LENGTH]

    # --- what comes in ------------------------------------------------------------------------------------------------

    def _took(self, stream: Stream, size: int) -> None:
        if size:
            active = self.clock.active(time.monotonic())
            if stream.quiet is None or stream.quiet.heard():
                self._limits.sign(active)
            if stream.last_word is not None:
                self._limits.spoke(active, is_done=stream.last_word.said)
                if self._asks is not None and stream.last_word.said:
                    self._asks.forget()
                    # The Claude Code CLI ends by itself then; it would wait for another prompt for ever.
                    self.stdin.write(b"", close=True)
        self._syncer.touch()  # at its end, too: then comes what was held back
        self._door.nudge()

    def _rung(self, _bits: int) -> None:
        """Signals: each byte is a number (signal.set_wakeup_fd)."""
        for number in os.read(self._bell, 4096):
            self._reap_due = True
            if number in STOP_SIGNALS:
                self.stop("terminated", signal_name(number))

    def _lease_ended(self, _bits: int) -> None:
        lease, self._lease = self._lease, None
        if lease is not None and lease.fd is not None:
            self.poller.remove(lease.fd)
            os.close(lease.fd)
        if self.spec.on_lease_end == "cancel" and self.phase == RUNNING:
            self.stop("kernel_exit", "lease")

    def _serve(self, request: dict[str, object], connection: Connection) -> dict[str, Any] | None:
        operation = OPERATIONS.get(str(request.get("op")))
        return operation(self, request, connection) if operation else refused("no such command")

    # --- what can be done to a run ------------------------------------------------------------------------------------

    def status(self, max_age: float = COUNT_AGE_ASKED) -> dict[str, Any]:
        """The status object."""
        now = time.monotonic()
        return {
            "ok": True,
            "state": self._state(),
            "agent_pid": self.reaper.agent,
            "active": round(self.clock.active(now), 3),
            "paused": round(self.clock.paused(now), 3),
            "asks": [] if self._asks is None else self._asks.open(),
            "processes": self._survivors if self.phase == EXITED else self.tree.count(now, max_age),
            "written": {file.name: file.written for file in self._files},
            "durable": {file.name: file.durable for file in self._files},
        }

    def _state(self) -> str:
        if self.phase == EXITED:
            return EXITED
        if self.phase != RUNNING:
            return STOPPING
        return PAUSED if self.clock.standing and self._pausing is None else RUNNING

    def _pushed_status(self) -> dict[str, Any]:
        return self.status(COUNT_AGE_PUSHED)

    def pause(self, by: str, connection: Connection) -> dict[str, Any] | None:
        """Let the whole tree stand still; the answer comes when it does."""
        if self.phase != RUNNING:
            return refused("the run is ending")
        if self.clock.standing and self._pausing is None:
            return self.status()
        if self._pausing is None:
            now = time.monotonic()
            self.clock.pause(now)
            self._pausing = []
            self._paused_by = by
            self._until = now + STAND_STILL_PATIENCE
        self._pausing.append((connection, by))
        return None

    @property
    def is_pausing(self) -> bool:
        """Whether a pause has begun and the tree does not stand yet."""
        return self._pausing is not None

    def is_own(self, pid: int) -> bool:
        """Whether this process belongs to the run, or is gone, so that nobody can tell. An agent's tools are the user's processes, too."""
        return pid > 0 and not self.tree.is_foreign(pid)

    def answer(self, ask: str, data: str, *, by: str, what: str, decision: str, note: str) -> dict[str, Any]:
        """Hand the agent the line that answers one of its questions, and write down who has said what."""
        if self._asks is None:
            return refused("the agent was not told that it may ask")
        if self.phase != RUNNING:
            return refused("the run is ending")
        problem = self._asks.problem(ask) or self.stdin.write(data.encode("utf-8", "replace") + b"\n", close=False)
        if problem is not None:
            return refused(problem)
        self._asks.settle(ask)
        self._limits.sign(self.clock.active(time.monotonic()))
        what, note = (mask_text(text, self.journal.forms) for text in (what, note))
        self.ledger.write("answered", ask_id=ask, what=what, decision=decision, by=by, note=note)
        self._door.nudge()
        return self.status()

    def resume(self, by: str) -> dict[str, Any]:
        """Let the tree go on."""
        if self.phase != RUNNING:
            return refused("the run is ending")
        if self.clock.standing:
            self.tree.resume()
            self._go_on(time.monotonic(), by)
        return self.status()

    def stop(self, reason: str, by: str, *, at_once: bool = False) -> None:
        """End the run: the ladder, or (`at_once`) its last rung. Again: only `at_once` still means something."""
        self._at_once = self._at_once or at_once
        if self.phase == RUNNING:
            self._go_on(time.monotonic(), by)
            self._stop_reason = reason
            self.ledger.write("stop_requested", reason=reason, by=by)
            self._begin(STOP)
        elif self.phase == SETTLING:
            self._keep = False
            self._until = self._ended_at
        if at_once and self._ladder is not None:
            self._ladder.jump()

    def _begin(self, rungs: tuple[Rung, ...]) -> None:
        self._ladder = Ladder(rungs, tree=self.tree, reaper=self.reaper, record=self.ledger.write, close_stdin=self.stdin.close)
        if self._at_once:
            self._ladder.jump()
        self._enter(STOPPING)

    def _hold(self, now: float) -> float:
        """While paused: until the tree stands, and then that it stays so (the kernel itself continues groups that become orphans)."""
        if self._pausing is None and now < self._until:
            return self._until
        stands, standing = self.tree.stop()
        if self._pausing is not None:
            if not stands and now < self._until:
                return now + PAUSE_PACE
            waiting, self._pausing = self._pausing, None
            self.ledger.write("paused", by=self._paused_by, processes=standing)
            self.pauses += 1
            self._door.nudge()
            for connection, _ in waiting:
                self._door.answer(connection, self.status())
        self._until = now + TICK
        return self._until

    def _go_on(self, now: float, by: str) -> None:
        """The clocks run again; the caller lets the tree go on."""
        if not self.clock.standing:
            return
        seconds = self.clock.resume(now)
        waiting, self._pausing = self._pausing, None
        if waiting is None:
            self.ledger.write("resumed", by=by, paused=round(seconds, 3))
        for connection, _ in waiting or ():
            self._door.answer(connection, refused("the run went on before it stood still"))
        self._door.nudge()

    # --- the end ------------------------------------------------------------------------------------------------------

    def _finish(self, now: float) -> None:
        """The last words: exit.json first, so that whoever sees the `exited` record finds it."""
        self._intake.close()
        code, name = self.reaper.ended_how()
        streams = self.journal.streams
        facts = {
            "version": FORMAT_VERSION,
            "run_id": self.spec.run_id,
            "code": code,
            "signal": name,
            "stop_reason": self._stop_reason,
            "started_at": round(self.clock.at, 6),
            "ended_at": round(time.time(), 6),
            "elapsed": round(self.clock.elapsed(now), 6),
            "active": round(self.clock.active(now), 6),
            "paused": round(self.clock.paused(now), 6),
            "frozen": round(self.clock.frozen, 6),
            "written": by_stream(tuple(stream.file.written for stream in streams)),
            "dropped": by_stream(tuple(stream.dropped for stream in streams)),
            "masked": by_stream(tuple(stream.masked for stream in streams)),
            "records": self.ledger.next_seq + 1,
            "left_behind": self._left,
            "kept": self._keep and bool(self._left),
            "survivors": self._survivors,
            "cpu": round(self.reaper.cpu, 6),
            "max_rss": self.reaper.max_rss_bytes(),
            "oom_kills": self._oom_kills.since(),
            "host": os.uname().nodename,
        }
        try:
            self.ledger.write_exit(facts)
        except OSError as problem:  # the room was set aside, so the disk itself fails; the record is then all there is
            log(f"exit.json: {problem}")
        self.phase = EXITED
        self.ledger.write("exited", code=code, signal=name, survivors=self._survivors)
        self._door.close(self.status())

    def _fail(self) -> None:
        """Something in the shim itself went wrong: end the tree, and say so as well as still possible."""
        import traceback

        log(traceback.format_exc())
        end = time.monotonic() + KILL_PATIENCE
        pace = 0.0
        self.reaper.reap()
        while not self.tree.is_empty(childless=self.reaper.empty) and time.monotonic() < end:
            self.tree.kill()
            time.sleep(pace)
            pace = min(0.02, pace + 0.002)
            self.reaper.reap()
        self._survivors = 0 if self.tree.is_empty(childless=self.reaper.empty) else len(self.tree.scan())
        if self.phase == EXITED:
            return
        self._stop_reason = self._stop_reason or "shim_error"
        for stream in self.journal.streams:
            try:
                while not stream.ended and self.journal.drain(stream):
                    continue
                self.journal.close(stream)
            except BaseException:  # noqa: BLE001  # perhaps what failed before
                stream.ended = True
        try:
            self._finish(time.monotonic())
        except BaseException:  # noqa: BLE001  # nothing owns anything any more; the log is the last witness
            log(traceback.format_exc())


def log(text: str) -> None:
    """A line for developers, into shim.log."""
    try:
        os.write(2, text.rstrip().encode("utf-8", "replace") + b"\n")
    except OSError:
        return
