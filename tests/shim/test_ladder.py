"""The stop ladder as a machine: whatever the tree does and whoever insists, it only goes down, keeps its promise, and kills in time."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any, cast

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cc_executor.shim.ladder import CLOSE_STDIN, KILL_PATIENCE, STOP, SWEEP, Ladder, Rung

ORDER = [CLOSE_STDIN, "SIGINT", "SIGTERM", "SIGKILL"]
PROMISE = 2.0  # seconds from the request to SIGKILL at the latest; a cancel takes three as a whole


@dataclass
class Process:
    """One process: what ends it, and how long it takes to."""

    in_group: bool
    obeys: frozenset[int]
    stuck: bool = False  # in the system's kernel: not even SIGKILL ends it
    ending: bool = False


class Machine:
    """Stands for the operating system at the ladder's seam, `tree` and `reaper`: processes that obey or not, with no clock but ours."""

    def __init__(self) -> None:
        self.processes: list[Process] = []
        self.leader: Process | None = None
        self.agent = 4711
        self.status: int | None = None
        self.empty = False
        self.births = 0  # what each SIGKILL misses

    def reap(self) -> None:
        self.processes = [process for process in self.processes if not process.ending]
        if self.leader is not None and self.leader.ending:
            self.leader, self.status = None, 0
        self.empty = not self.processes

    def is_empty(self, *, childless: bool) -> bool:
        return childless

    def scan(self) -> list[Process]:
        return list(self.processes)

    def signal(self, signum: int) -> int:
        return self._send(signum, self.processes)

    def signal_group(self, group: int, signum: int) -> int:
        assert group == self.agent
        return self._send(signum, [process for process in self.processes if process.in_group])

    def kill(self) -> int:
        for process in self.processes:
            process.ending = process.ending or not process.stuck
        sent = len(self.processes)
        if self.births:
            self.births -= 1
            self.processes.append(Process(in_group=False, obeys=frozenset()))
        return sent

    def _send(self, signum: int, whom: list[Process]) -> int:
        for process in whom:
            process.ending = process.ending or (signum in process.obeys and not process.stuck)
        return len(whom)


OBEDIENCE = st.sampled_from(
    [frozenset(), frozenset({signal.SIGINT}), frozenset({signal.SIGTERM}), frozenset({signal.SIGINT, signal.SIGTERM})]
)


class Stopping(RuleBasedStateMachine):
    """A stop, from the request to the last process."""

    rungs: tuple[Rung, ...] = STOP

    @initialize(
        leader=OBEDIENCE,
        others=st.lists(st.tuples(st.booleans(), OBEDIENCE), max_size=4),
        stdin=st.booleans(),
        stuck=st.integers(0, 9).map(lambda number: number == 0),
        births=st.integers(0, 5),
    )
    def begin(self, *, leader: frozenset[int], others: list[tuple[bool, frozenset[int]]], stdin: bool, stuck: bool, births: int) -> None:
        self.os = Machine()
        self.os.births = births
        self.os.leader = Process(in_group=True, obeys=leader)
        if self.rungs is SWEEP:  # the agent has ended, and with it the leader of its group
            self.os.leader, self.os.status = None, 0
        led = [self.os.leader] if self.os.leader is not None else []
        self.os.processes = [*led, *(Process(in_group=group, obeys=obeys) for group, obeys in others)]
        if stuck and self.os.processes:
            self.os.processes[-1].stuck = True
        self.now, self.begun, self.jumped_at, self.due = 1000.0, 1000.0, None, 1000.0
        self.sent: list[tuple[str, float]] = []
        self.stdin = stdin
        seam = cast("Any", self.os)
        self.ladder = Ladder(self.rungs, tree=seam, reaper=seam, record=self._record, close_stdin=self._close)

    def _record(self, kind: str, **fields: Any) -> None:
        assert kind == "signalled"
        self.sent.append((fields["signal"], self.now))

    def _close(self) -> bool:
        was_open, self.stdin = self.stdin, False
        return was_open

    def _step(self) -> None:
        if not self.ladder.done:
            self.due = self.ladder.step(self.now)

    @rule()
    def wait_until_it_is_due(self) -> None:
        self.now = max(self.now, self.due)
        self._step()

    @rule(seconds=st.floats(0, 0.4))
    def look_early(self, seconds: float) -> None:
        self.now = min(self.now + seconds, max(self.now, self.due))
        self._step()

    @rule(seconds=st.sampled_from([0.01, 0.7, 3.0]))
    def look_late(self, seconds: float) -> None:
        """The machine is busy, or was asleep."""
        self.now = max(self.now, self.due) + seconds
        self.begun += seconds  # of this lateness nobody makes a promise
        self._step()

    @precondition(lambda self: self.jumped_at is None)
    @rule()
    def insist(self) -> None:
        """Cancel now."""
        self.jumped_at = self.now
        self.ladder.jump()
        self._step()

    @rule(data=st.data())
    def one_ends_by_itself(self, data: st.DataObject) -> None:
        willing = [process for process in self.os.processes if not process.stuck]
        if willing:
            data.draw(st.sampled_from(willing)).ending = True

    @rule(obeys=OBEDIENCE)
    def one_is_born(self, obeys: frozenset[int]) -> None:
        if self.os.processes and not self.ladder.done:
            self.os.processes.append(Process(in_group=False, obeys=obeys))

    @invariant()
    def it_only_goes_down(self) -> None:
        names = [ORDER.index(name) for name, _ in self.sent]
        assert names == sorted(set(names)), self.sent

    @invariant()
    def it_kills_only_after_the_grace_unless_told_to(self) -> None:
        for before, (name, at) in zip([None, *self.sent], self.sent, strict=False):
            if name == "SIGKILL" and (self.jumped_at is None or at < self.jumped_at):
                assert before is not None, "it killed without a word"
                assert before[0] == "SIGTERM"
                assert at - before[1] >= self.rungs[-2].grace, self.sent

    @invariant()
    def it_kills_in_time(self) -> None:
        """Whoever looks when it is due finds SIGKILL sent, or nobody left."""
        if self.now >= self.due and not self.ladder.done:
            return  # it is due and was not looked at yet
        is_over = self.ladder.done or any(name == "SIGKILL" for name, _ in self.sent)
        assert is_over or self.now < self.begun + PROMISE
        assert is_over or self.jumped_at is None

    @invariant()
    def who_was_told_at_once_gets_sigkill_at_once(self) -> None:
        if self.jumped_at is not None and not self.ladder.done:
            assert any(name == "SIGKILL" and at <= self.jumped_at for name, at in self.sent)

    @invariant()
    def it_never_sleeps_past_its_promise(self) -> None:
        if not self.ladder.done:
            assert self.due <= self.begun + PROMISE or any(name == "SIGKILL" for name, _ in self.sent)

    @invariant()
    def done_means_nobody_is_left_or_nothing_helped(self) -> None:
        if self.ladder.done and self.ladder.survivors == 0:
            assert self.os.empty
        if self.ladder.survivors:
            (killed_at,) = [at for name, at in self.sent if name == "SIGKILL"]
            assert self.now >= killed_at + KILL_PATIENCE

    def teardown(self) -> None:
        """Left alone, it comes to its end, and in bounded time."""
        end = self.now + 2.0 + KILL_PATIENCE + 1
        looks = 0
        while not self.ladder.done:
            self.wait_until_it_is_due()
            looks += 1
            assert self.now <= end, "it takes longer than it may"
            assert looks < 1000, "it looks too often"
        self.it_only_goes_down()
        self.done_means_nobody_is_left_or_nothing_helped()


class Sweeping(Stopping):
    """What the agent left when it ended by itself."""

    rungs = SWEEP


TestStopping = Stopping.TestCase
TestSweeping = Sweeping.TestCase


def test_the_tables_keep_the_promise() -> None:
    for rungs in (STOP, SWEEP):
        assert sum(rung.grace for rung in rungs[:-1]) <= PROMISE
        assert [rung.signum for rung in rungs][-1] == signal.SIGKILL
        assert rungs[-1].grace == pytest.approx(KILL_PATIENCE)
