"""The worst moments of a run: told to end while it begins, unreachable while it works, sealed by two, started by a process that forks."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from cc_executor.errors import ControlFailed, LaunchFailed
from cc_executor.model.event import ApiRetried, Started
from cc_executor.model.hook import Hook, HookStatus, Moment
from cc_executor.model.receipt import Receipt
from cc_executor.runtime import control, launch, lost, reconcile, seal
from cc_executor.runtime import run as running
from cc_executor.runtime import supervisor as supervising
from cc_executor.runtime.control import command
from cc_executor.runtime.reader import JournalReader
from cc_executor.runtime.run import Batch, Run
from cc_executor.shim import records
from cc_executor.store import roll
from cc_executor.store.home import StateHome, new_run_id
from cc_executor.store.journal import RunFolder, RunStanding
from support.runs import BOUND, eventually, run_folders, shell, started, to_end
from support.shims import ended


class Held:
    """One call that waits at a gate: `there` says that it is at it, `go` opens it."""

    def __init__(self) -> None:
        self.there, self.go = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.there.set()
        assert self.go.wait(BOUND)


@pytest.fixture
def at_start(monkeypatch: pytest.MonkeyPatch) -> Held:
    """Supervisors are started when the gate is opened."""
    held, start = Held(), launch._start_shim  # the seam: after it there is a run

    def late(*args: Any) -> None:
        held.wait()
        start(*args)

    monkeypatch.setattr(launch, "_start_shim", late)
    return held


def supervisor(folder: RunFolder) -> int:
    return next(record.shim_pid for record in folder.control_records()[0] if isinstance(record, Started))


# --- while it begins ----------------------------------------------------------------------------------------------


@pytest.mark.row("faults", "launch cancelled twice", "nothing is left running, what is kept is sealed")
async def test_a_launch_that_is_cancelled_again_and_again_leaves_nothing_running(
    tmp_path: Path, home: StateHome, at_start: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops: list[threading.Event] = []
    whole = launch._launch  # what the thread does, whose signal is looked at

    def seen(*args: Any, **more: Any) -> RunFolder:
        stops.append(args[4])
        return whole(*args, **more)

    monkeypatch.setattr(launch, "_launch", seen)
    task = asyncio.get_running_loop().create_task(Run.start(shell("sleep 1000", cwd=tmp_path), home=home, environ=os.environ))
    await eventually(at_start.there.is_set)
    task.cancel()
    await eventually(stops[0].is_set)
    for _ in range(3):  # as a kernel does for each press of Stop
        task.cancel()
        await asyncio.sleep(0)
    at_start.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    (folder,) = home.runs()
    receipt = folder.receipt()
    assert receipt is not None
    assert receipt.outcome.kind.value == "cancelled"


@pytest.mark.row("faults", "run cancelled by another process while it is launched", "it ends as soon as it can be told")
async def test_a_cancel_that_comes_before_the_supervisor_is_not_lost(
    tmp_path: Path, home: StateHome, at_start: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "ANSWER_BUDGET", BOUND)  # for a supervisor to come, on a busy machine too
    called, ask = threading.Event(), control._ask

    def seen(*arguments: Any) -> bytes:
        try:
            return ask(*arguments)
        except OSError:  # nobody listens yet
            called.set()
            raise

    monkeypatch.setattr(control, "_ask", seen)
    task = asyncio.get_running_loop().create_task(Run.start(shell("sleep 1000", cwd=tmp_path), home=home, environ=os.environ))
    await eventually(at_start.there.is_set)
    (folder,) = home.runs()
    canceller = threading.Thread(target=command, args=(folder, "cancel"), kwargs={"by": "somebody else", "now": True})
    assert folder.standing(time.time()) is RunStanding.STARTING
    canceller.start()
    await eventually(called.is_set)
    at_start.go.set()
    run = await task
    assert (await run.finish()).outcome.kind.value == "cancelled"
    canceller.join(BOUND)


async def test_who_cannot_wait_for_a_supervisor_is_told_to_try_again(home: StateHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ANSWER_BUDGET", 0.05)
    home.prepare()
    with pytest.raises(ControlFailed, match="still being started; try again"):
        command(home.create(new_run_id(time.time())), "cancel")


async def test_a_run_that_was_started_is_owned_although_lost_ones_cannot_be_settled(
    tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = await started("sleep 1000", home=home, cwd=tmp_path)
    os.kill(supervisor(lost.folder), signal.SIGKILL)
    await eventually(lambda: roll.missing(home.root, now=time.time()))
    begin = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        if "reconcile" in self.name:
            raise RuntimeError("can't start new thread")
        begin(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    run = await started("echo hello", home=home, cwd=tmp_path)
    monkeypatch.undo()
    assert (await run.finish()).outcome.ok
    reconcile.reconcile(home, environ=os.environ, patience=BOUND)
    assert lost.folder.receipt() is not None


@pytest.mark.row("faults", "supervisor killed before it answers", "refused, nothing is left running")
async def test_what_an_agent_has_begun_ends_with_a_supervisor_that_dies_before_it_answers(
    tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "begun")
    program = tmp_path / "shim.py"
    program.write_text(
        f"import os, signal, sys\nsys.path.append({str(Path(launch.__file__).parents[2])!r})\nfrom cc_executor.shim import start\n"
        f"def die(reply):\n    open({str(tmp_path / 'begun')!r}).read()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\nstart._answer = die\nstart.main()\n"
    )
    monkeypatch.setattr(supervising, "_SHIM", program)
    with pytest.raises(LaunchFailed):
        await started("setsid bash -c 'echo $$ > tool; echo > begun; exec sleep 1000'; sleep 1000", home=home, cwd=tmp_path)
    assert ended(int((tmp_path / "tool").read_text()))
    assert run_folders(home.root) == []


async def test_a_long_look_at_what_is_expected_does_not_lose_the_run(
    tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = launch.digest_of_file

    def slow(path: Path) -> str | None:
        entries = home.root / roll.FOLDER
        for each in entries.iterdir() if entries.exists() else ():
            os.utime(each, (0, 0))
        lost.settle(home, environ=os.environ)  # who lists the runs meanwhile
        return digest(path)

    monkeypatch.setattr(launch, "digest_of_file", slow)
    run = await Run.start(
        shell("echo x > made", cwd=tmp_path, expect=["made"]), home=home, environ=os.environ, run_id=new_run_id(time.time() - 60)
    )
    assert (await run.finish()).outcome.ok


# --- while it works -----------------------------------------------------------------------------------------------


@pytest.mark.row("faults", "control socket removed", "whoever started the run ends it all the same, others are told how")
async def test_a_run_without_its_socket_is_ended(tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ANSWER_BUDGET", 0.05)
    run = await started("sleep 1000", home=home, cwd=tmp_path)
    (run.folder.path / records.SOCKET).unlink()
    with pytest.raises(ControlFailed, match=re.escape(f"`kill {supervisor(run.folder)}` ends it")):
        command(run.folder, "cancel")  # as another process does
    with anyio.fail_after(BOUND):
        receipt = await run.end(reason="interrupt", by="test")
    assert (receipt.outcome.kind.value, receipt.exit.stopped_for) == ("cancelled", "terminated")


@pytest.mark.row("faults", "supervisor stands still and cannot be told to go on", "a cancel says so, and is obeyed when it goes on")
async def test_a_cancel_that_nobody_answers_is_obeyed_later(tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("ANSWER_BUDGET", "WOKEN_BUDGET"):
        monkeypatch.setattr(control, bound, 0.05)
    monkeypatch.setattr(control, "wake", lambda folder: None)  # as in a control group that is frozen
    run = await started("sleep 1000", home=home, cwd=tmp_path)
    os.kill(supervisor(run.folder), signal.SIGSTOP)
    try:
        with pytest.raises(ControlFailed, match="does not answer, for it stands still"):
            command(run.folder, "cancel", now=True)
    finally:
        os.kill(supervisor(run.folder), signal.SIGCONT)
    with anyio.fail_after(BOUND):
        assert (await run.finish()).exit.stopped_for == "cancel"


async def test_a_hopeless_run_that_could_not_be_told_to_end_is_told_again(
    tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unheard(*_: Any, **__: Any) -> Any:
        raise ControlFailed("not now")

    run = await started("sleep 1000", home=home, cwd=tmp_path)
    refused = ApiRetried(attempt=1, max_attempts=10, delay=1.0, status=401)

    def batch(*events: ApiRetried) -> Batch:
        return Batch([*events], run.state, lambda: JournalReader(run.folder, agent="shell"))

    with monkeypatch.context() as patched:
        patched.setattr(running, "command", unheard)
        patched.setattr(running, "terminate", lambda _: False)
        await run.refuse_hopeless(batch(refused))
    await run.refuse_hopeless(batch())
    with anyio.fail_after(BOUND):
        receipt = await run.finish()
    assert receipt.exit.stopped_for == "auth"


@pytest.mark.row("faults", "system without pidfds", "what a lost run left is ended all the same")
async def test_leftovers_are_ended_where_there_are_no_pidfds(tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> int:
        raise PermissionError(errno.EPERM, "seccomp")  # some containers; Linux before 5.3 says ENOSYS

    run = await started("setsid bash -c 'echo $$ > tool; echo > begun; exec sleep 1000'; sleep 1000", home=home, cwd=tmp_path)
    await eventually((tmp_path / "begun").exists)
    os.kill(supervisor(run.folder), signal.SIGKILL)
    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert (await run.finish()).outcome.kind.value == "lost"
    assert ended(int((tmp_path / "tool").read_text()))


# --- when it has ended --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["cancel", "end"])
async def test_a_hook_that_hangs_after_a_run_is_ended_by_a_cancel_and_by_whoever_goes_away(
    way: str, tmp_path: Path, home: StateHome
) -> None:
    hanging = Hook(moment=Moment.AFTER_RUN, command=f"touch {tmp_path}/hangs; exec sleep 1000", timeout=600)
    run = await Run.start(shell("true", cwd=tmp_path), home=home, environ=os.environ, hooks=(hanging,))
    if way == "cancel":
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run.finish)
            await eventually((tmp_path / "hangs").exists)
            with anyio.fail_after(BOUND):
                assert (await run.cancel(by="test"))["ok"]
                await run.finish()
    else:
        with anyio.fail_after(BOUND):
            await run.end(reason="interrupt", by="test")
    receipt = await run.finish()
    assert [report.status is HookStatus.OK for report in receipt.hooks] == [False]


@pytest.mark.row("faults", "interrupted while the receipt is written", "one receipt, the same everywhere")
async def test_whoever_is_interrupted_while_a_receipt_is_written_gets_that_one(
    tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, keep = Held(), RunFolder.keep_first
    run = await started("echo hello", home=home, cwd=tmp_path, verify="true")
    await to_end(run)

    def late(self: RunFolder, name: str, data: bytes) -> None:
        if name == records.RECEIPT and not held.there.is_set():
            held.wait()
        keep(self, name, data)

    monkeypatch.setattr(RunFolder, "keep_first", late)
    task = asyncio.get_running_loop().create_task(run.finish())
    await eventually(held.there.is_set)
    task.cancel()
    again = asyncio.get_running_loop().create_task(_ended(task, run))
    for _ in range(100):  # it has every chance to make another one
        await asyncio.sleep(0.002)
    held.go.set()
    receipt = await again
    stored = run.folder.receipt()
    assert stored is not None
    assert (receipt.digest, receipt.standing.value) == (stored.digest, "verified")


async def test_two_who_seal_without_a_turn_have_the_receipt_that_is_kept(
    tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, both = seal._keep, threading.Barrier(2, timeout=BOUND)

    def meet(*arguments: Any, **named: Any) -> Receipt:
        both.wait()
        return keep(*arguments, **named)

    def nothing(*_: Any, **__: Any) -> None:
        """As when descriptors have run out."""

    monkeypatch.setattr(seal, "_keep", meet)
    monkeypatch.setattr(seal, "_claim", nothing)
    run = await started("echo hello", home=home, cwd=tmp_path, verify="date +%s%N")
    other = await Run.attach(home, run.run_id, environ=os.environ)
    loop = asyncio.get_running_loop()
    with anyio.fail_after(BOUND):
        one, two = [await task for task in [loop.create_task(each.finish()) for each in (run, other)]]
    stored = run.folder.receipt()
    assert stored is not None
    assert one.digest == two.digest == stored.digest


async def _ended(task: asyncio.Task[Any], run: Run) -> Any:
    """What a cell does that is interrupted."""
    with pytest.raises(asyncio.CancelledError):
        await task
    return await run.end(reason="interrupt", by="test")


@contextmanager
def a_fork() -> Generator[None]:
    """A process that is forked now and lives to the end of the block, as those of `multiprocessing` do."""
    reading, writing = os.pipe()
    if not (pid := os.fork()):
        os.read(reading, 1)
        os._exit(0)
    try:
        yield
    finally:
        os.write(writing, b"x")
        os.waitpid(pid, 0)
        os.close(reading)
        os.close(writing)


@pytest.mark.row("faults", "the sealing process forks", "nobody waits for the forked one")
async def test_a_process_that_is_forked_during_a_seal_does_not_hold_it(
    tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "gate")
    monkeypatch.setattr(seal, "HEAD_START", 0.0)
    run = await started("echo hello", home=home, cwd=tmp_path, verify="touch began; read x < gate")
    other = await Run.attach(home, run.run_id, environ=os.environ)
    await to_end(run)
    await to_end(other)
    waits, is_free = threading.Event(), seal._is_free  # who waits for the turn is seen there

    def look(descriptor: int, *, take: bool = False) -> bool:
        if is_free(descriptor, take=take):
            return True
        waits.set()
        return False

    monkeypatch.setattr(seal, "_is_free", look)
    first = asyncio.get_running_loop().create_task(run.finish())
    await eventually((tmp_path / "began").exists)
    second = asyncio.get_running_loop().create_task(other.finish())
    await eventually(waits.is_set)
    with a_fork(), anyio.fail_after(BOUND):
        (tmp_path / "gate").write_text("go\n")
        assert (await first).digest == (await second).digest
