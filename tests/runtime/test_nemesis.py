"""Random trees, random output, and random faults at random moments, with the real runtime and real supervisors: whatever happens, the account adds up.

`CC_EXECUTOR_TEST_SEEDS=5000` runs more of them, `CC_EXECUTOR_TEST_SEEDS=137-137` the one that failed. A seed gives the same tree, output and faults at the
same times again; how the machine mixes them it does not decide.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec
import pytest

from cc_executor.errors import ControlFailed
from cc_executor.kernel.render import static_bundle
from cc_executor.model.event import Event
from cc_executor.model.fold import advance_all
from cc_executor.model.outcome import OutcomeKind
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import OnKernelExit
from cc_executor.model.state import RunState
from cc_executor.model.transcript import Transcript
from cc_executor.policy.redact import MASK
from cc_executor.runtime.errand import in_thread
from cc_executor.runtime.launch import launch
from cc_executor.runtime.reader import replay
from cc_executor.runtime.run import Run
from cc_executor.shim import records
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder, RunStanding
from support.runs import shell
from support.shims import SHIM, alive, marked, until

SEEDS_VARIABLE: Final = "CC_EXECUTOR_TEST_SEEDS"
USUAL: Final = 200  # seeds
SIDE_BY_SIDE: Final = 8  # runs
BATCH: Final = 50  # seeds of one test
PROMISE: Final = 5.0  # seconds from the end of a run to the end of its last process
BOUND: Final = 90.0  # seconds of one seed; most take 3
DISK: Final = 2 * 2**20  # bytes
SECRET: Final = "NEMESIS_TOKEN"  # a variable of the agent's, whose value is written by it and may stand nowhere
SLOTS: Final = "4q"  # a process's account: bytes that it was about to write, and that it has written, of stdout and of stderr
IS_ROOT: Final = os.geteuid() == 0

# Every process keeps its account in a mapped file, which outlives whatever kills it. What it was about to write is put down before, what it wrote after.
AGENT: Final = r"""
import mmap, os, random, signal, struct, sys, time
seed, folder, secret = int(sys.argv[1]), sys.argv[2], os.environb[b"NEMESIS_TOKEN"]
choose, whisper = random.Random(seed), random.Random(-seed - 1)
os.close(os.open(folder + "/born", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
def account():
    fd = os.open("%s/account-%d" % (folder, os.getpid()), os.O_RDWR | os.O_CREAT | os.O_EXCL)
    os.ftruncate(fd, 32)
    return mmap.mmap(fd, 32)
def add(book, place, size):
    struct.pack_into("q", book, 8 * place, struct.unpack_from("q", book, 8 * place)[0] + size)
def write(book, stream, data):
    add(book, stream - 1, len(data))
    try:
        done = os.write(stream, data)
    except OSError:
        done = 0
    add(book, stream + 1, done)
    add(book, stream - 1, done - len(data))
def tell(book, stream):
    cut = whisper.choice((0, 0, whisper.randrange(1, len(secret))))
    for part in (secret[:cut], secret[cut:]):
        if part: write(book, stream, part)
        if cut: time.sleep(whisper.random() * 0.01)
def temper():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN if choose.random() < 0.3 else lambda *_: os._exit(7))
def live(depth, mute):
    book = account()
    temper()
    streams = choose.choice(((1,), (1, 2), (1, 1, 1, 2), (2,)))
    largest = choose.choice((10, 1000, 60000, 200000))
    end = time.monotonic() + choose.random() * (0.8 if depth == 0 else 0.5)
    while time.monotonic() < end:
        if not mute and whisper.random() < 0.4: tell(book, whisper.choice(streams))
        if not mute: write(book, choose.choice(streams), choose.choice((b"\xff\0", b"word ", b"line\n")) * choose.randrange(1, largest // 2))
        fate = choose.random()
        if depth < 2 and fate < 0.06 and os.fork() == 0:
            choose.seed(fate)
            whisper.seed(-fate)
            if choose.random() < 0.7: os.setsid()
            if choose.random() < 0.5 and os.fork(): os._exit(0)
            mute = mute or choose.random() < 0.3
            if mute: os.dup2(os.open("/dev/null", os.O_WRONLY), 1); os.dup2(1, 2)
            live(depth + 1, mute)
            os._exit(0)
        time.sleep(choose.random() * 0.03)
live(0, False)
os._exit(choose.randrange(3))
"""


def seeds() -> list[int]:
    """Which seeds are run: a count, or `first-last`."""
    value = os.environ.get(SEEDS_VARIABLE) or str(USUAL)
    first, dash, last = value.partition("-")
    return list(range(int(first), int(last) + 1)) if dash else list(range(int(value)))


BATCHES: Final = [found[start : start + BATCH] for found in [seeds()] for start in range(0, len(found), BATCH)]


def close_off(folder: Path, closed: bool) -> None:
    """Let nothing be made, renamed or removed in a folder; root, whom modes do not stop, is stopped by the immutable flag (ioctl_iflags(2))."""
    if not IS_ROOT:
        folder.chmod(0o500 if closed else 0o700)
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, 0x40086602, struct.pack("l", 0x10 if closed else 0))  # FS_IOC_SETFLAGS, FS_IMMUTABLE_FL
    finally:
        os.close(descriptor)


class Attempt:
    """One seed: a run, what happens to it, and what must hold then."""

    def __init__(self, seed: int, base: Path) -> None:
        self.seed = seed
        self.choose = random.Random(seed)  # noqa: S311  # a seed, so that a failure can be repeated
        self.folder = base / str(seed)
        self.folder.mkdir()
        self.deeds: list[str] = []
        self.is_closed = False
        self.keeps = self.choose.random() < 0.1
        self.policy = self.choose.choice(list(OnKernelExit))
        self.has_disk = IS_ROOT and self.choose.random() < 0.2
        self.state = self.folder / "state"
        self.stopped: set[int] = set()
        self.secret = f"<{random.Random(-seed - 1).randbytes(12).hex()}>"  # noqa: S311  # as above; no end of it is a beginning of it
        self.environ = {**os.environ, SECRET: self.secret}
        self.limit = random.Random(-seed - 2).choice(("none", "none", "1MB"))  # noqa: S311  # as above
        self.shim = 0
        self.run: Run
        self.owner: asyncio.subprocess.Process
        self.subscribers: list[socket.socket] = []

    # --- the faults -----------------------------------------------------------------------------------------------

    async def plan(self) -> None:
        """Faults at random moments of the first second."""
        deeds: tuple[tuple[Callable[[], Awaitable[None]], float], ...] = (
            (self.pause, 3), (self.resume, 3), (self.cancel, 1), (self.kill_agent, 0.7), (self.kill_some, 2), (self.kill_shim, 0.7),
            (self.kill_owner, 1), (self.end_shim, 0.5), (self.freeze_shim, 2), (self.freeze_all, 2), (self.fill, 3), (self.close, 1),
            (self.subscribe, 1), (self.start_again, 1), (self.touch_outside, 1),
        )  # fmt: skip
        works, weights = zip(*deeds, strict=True)
        for moment in sorted(self.choose.random() * 0.9 for _ in range(self.choose.randrange(6))):
            await anyio.sleep(max(0.0, moment - (time.monotonic() - self.begun)))
            (work,) = self.choose.choices(works, weights)
            self.deeds.append(f"{work.__name__} at {moment:.2f} s")
            with contextlib.suppress(ControlFailed, ProcessLookupError):
                await work()
        await anyio.sleep(self.choose.random() * 0.1)
        await self.relent()

    async def relent(self) -> None:
        """Nothing stays stopped or full for ever."""
        for pid in self.stopped:
            with contextlib.suppress(ProcessLookupError):  # it ends at this moment
                self.signal(pid, signal.SIGCONT)
        if self.choose.random() < 0.7:
            self.empty()
        with contextlib.suppress(ControlFailed):
            await self.run.resume(by="nemesis")

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Only to a process that still is one of this run: a number may be given to another."""
        if pid == self.shim:
            if str(SHIM).encode() in read(Path(f"/proc/{pid}/cmdline")):
                os.kill(pid, number)
        elif f"{records.RUN_MARK}={self.run.run_id}".encode() in read(Path(f"/proc/{pid}/environ")):
            os.kill(pid, number)

    async def members(self) -> list[int]:
        return await in_thread(lambda: marked(self.run.run_id))

    async def pause(self) -> None:
        await self.run.pause(by="nemesis")

    async def resume(self) -> None:
        await self.run.resume(by="nemesis")

    async def cancel(self) -> None:
        await self.run.cancel(by="nemesis", now=self.choose.random() < 0.5)

    async def kill_agent(self) -> None:
        self.signal(self.agent, signal.SIGKILL)

    async def kill_some(self) -> None:
        for pid in await self.members():
            if self.choose.random() < 0.4 and pid != self.agent:
                self.signal(pid, signal.SIGKILL)

    async def kill_shim(self) -> None:
        self.signal(self.shim, signal.SIGKILL)

    async def end_shim(self) -> None:
        self.signal(self.shim, signal.SIGTERM)

    async def kill_owner(self) -> None:
        self.owner.kill()

    async def freeze_shim(self) -> None:
        await self.freeze(self.shim)

    async def freeze_all(self) -> None:
        await self.freeze(self.shim, *await self.members())

    async def freeze(self, *pids: int) -> None:
        self.stopped.update(pids)
        for pid in pids:
            self.signal(pid, signal.SIGSTOP)
        await anyio.sleep(2.3 if self.choose.random() < 0.03 else self.choose.random() * 0.2)  # beyond 2 s it is a freeze on the record
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                self.signal(pid, signal.SIGCONT)

    async def touch_outside(self) -> None:
        """Somebody else stops the agent, or continues it."""
        self.stopped.add(self.agent)
        self.signal(self.agent, self.choose.choice((signal.SIGSTOP, signal.SIGCONT)))

    async def fill(self) -> None:
        if self.has_disk:
            with contextlib.suppress(OSError), open(self.state / "filler", "wb", buffering=0) as file:  # noqa: ASYNC230  # in memory
                while True:
                    file.write(bytes(65536))

    def empty(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.state / "filler").unlink()

    async def close(self) -> None:
        self.is_closed = True
        close_off(self.run.folder.path, closed=True)

    async def subscribe(self) -> None:
        """Somebody who asks to be told everything and never listens."""
        caller = socket.socket(socket.AF_UNIX)
        self.subscribers.append(caller)
        caller.setblocking(False)
        with contextlib.suppress(OSError):
            caller.connect(str(self.run.folder.path / records.SOCKET))
            caller.send(b'{"op": "follow"}\n')

    async def start_again(self) -> None:
        """A second supervisor for the same run."""
        spec: dict[str, Any] = {
            "version": records.FORMAT_VERSION, "run_dir": str(self.run.folder.path), "run_id": self.run.run_id, "argv": ["/bin/touch", "again"],
            "env": {}, "cwd": str(self.folder), "stdin": "none", "wall": None, "stall": None, "lease_pid": None, "on_lease_end": "cancel",
            "secrets": [], "keep_background": False,
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", str(SHIM), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        answer, _ = await process.communicate(json.dumps(spec).encode() + b"\n")
        assert json.loads(answer)["ok"] is False

    # --- the run --------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def world(self) -> AsyncIterator[None]:
        """The disk that keeps the run, and the process that wants it; and nothing is left, whatever happens."""
        if self.has_disk:
            self.state.mkdir(mode=0o700)
            mount = ("mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0700", "none", str(self.state))
            await anyio.run_process(mount)
        self.owner = await asyncio.create_subprocess_exec("/bin/sleep", "100")
        try:
            yield
        finally:
            for caller in self.subscribers:
                caller.close()
            if self.is_closed:
                with contextlib.suppress(OSError):
                    close_off(self.run.folder.path, closed=False)
            with contextlib.suppress(ProcessLookupError):
                self.owner.kill()
            await self.owner.wait()
            for pid in await self.members():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self.has_disk:
                await anyio.run_process(("umount", "--lazy", str(self.state)))

    async def go(self) -> list[str]:
        """Everything; the deeds are told."""
        (self.folder / "agent.py").write_text(AGENT)
        async with self.world():
            home = StateHome(self.state)
            request = shell(
                # Everybody's command line holds it, too: what is left behind is named by it.
                f"trap '' INT; exec {sys.executable} -I -S agent.py {self.seed} {self.folder} ${SECRET}",
                cwd=self.folder,
                env_names=SECRET,
                journal_limit=self.limit,
                keep_background=self.keeps,
                on_kernel_exit=self.policy.value,
                timeout=self.choose.choice((None, 0.5)),
            )

            async def unwanted(folder: RunFolder) -> None:
                raise AssertionError(f"{folder} was not wanted")

            folder = await launch(request, home=home, environ=self.environ, pid=self.owner.pid, unwanted=unwanted)
            self.run = Run(folder, request, environ=self.environ, started_here=True)
            self.begun = time.monotonic()
            first = json.loads(folder.read(records.CONTROL, 0).splitlines()[0])
            self.shim, self.agent = first["shim_pid"], first["agent_pid"]
            live: list[Event] = []

            async def follow() -> None:
                async with contextlib.aclosing(self.run.follow()) as batches:
                    async for batch in batches:
                        assert not (folder.path / records.RECEIPT).exists()
                        live.extend(batch.events)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow)
                tasks.start_soon(self.plan)
            ended = time.monotonic()
            if self.is_closed:
                close_off(folder.path, closed=False)
            self.empty()
            receipt = await self.run.finish()
            if not self.keeps:
                is_late = False  # asked before each look: what was seen before a machine stood still may have ended since
                while left := await self.members():
                    assert not is_late, f"{left} live on"
                    await anyio.sleep(0.05)
                    is_late = time.monotonic() - ended >= PROMISE
            await in_thread(lambda: self.check(folder, receipt, live))
        return self.deeds

    # --- what must hold -------------------------------------------------------------------------------------------

    def check(self, folder: RunFolder, receipt: Receipt, live: list[Event]) -> None:
        """The invariants, on what is on the disk when everything is over."""
        standing = folder.standing(time.time())
        assert standing in {RunStanding.ENDED, RunStanding.LOST}
        assert folder.receipt() == receipt
        assert receipt.is_intact
        lines = folder.read(records.CONTROL, 0, 2**24).splitlines(keepends=True)
        told = [json.loads(line) for line in lines if line.endswith(b"\n")]
        kinds = [record["kind"] for record in told]
        assert [record["seq"] for record in told] == list(range(len(told)))
        assert kinds.count("started") == 1
        assert (self.folder / "born").exists() or standing is RunStanding.LOST or self.was_ended_early(receipt)
        assert not (self.folder / "again").exists()
        again = [event for batch in replay(folder, agent="shell") for event in batch]
        assert without_cuts(again) == without_cuts(live), "live and replay differ"
        facts = folder.exit_facts()
        assert (facts is None) == (receipt.outcome.kind is OutcomeKind.LOST) == (standing is RunStanding.LOST)
        self.check_secret(receipt, live)
        kept = {name: folder.size(name) for name in records.STREAMS}
        if facts is None:
            assert "exited" not in kinds or self.is_closed, "its last words were written, and its exit facts were not"
            until(lambda: not alive(self.agent), PROMISE)  # the kernel ends it with its supervisor, and needs a core for that
            self.account(kept, exact=False)
            return
        assert lines[-1].endswith(b"\n")
        # Killed between the last two things that it writes, a supervisor leaves its exit facts without the record that says so.
        is_cut = "exited" not in kinds and any(deed.startswith("kill_shim") for deed in self.deeds)
        assert is_cut or (kinds[-1], kinds.count("exited")) == ("exited", 1)
        assert facts.records == len(told) + is_cut
        assert facts.written == kept
        assert kinds.count("paused") == kinds.count("resumed")
        assert abs(facts.elapsed - facts.active - facts.paused - facts.frozen) < 0.001
        assert (facts.survivors > 0) <= self.keeps
        assert (facts.code is None) != (facts.signal is None)
        if not self.has_disk and self.limit == "none":
            assert facts.dropped == {"stdout": 0, "stderr": 0}
        assert folder.read(records.LOG, 0) == b""
        longer = len(self.secret) - len(MASK)  # than what stands in its place
        self.account({name: kept[name] + facts.dropped[name] + facts.masked[name] * longer for name in kept}, exact=not facts.survivors)

    def check_secret(self, receipt: Receipt, live: list[Event]) -> None:
        """It stands in no file that is kept, and not in what a notebook would show."""
        page = Transcript()
        page.feed(live)
        shown = json.dumps(static_bundle(receipt, page))
        leaks = [path for path in self.state.rglob("*") if path.is_file() and self.secret.encode() in read(path)]
        assert not leaks, f"the secret is in {leaks}"
        assert self.secret not in shown, "the secret is shown"

    def was_ended_early(self, receipt: Receipt) -> bool:
        """Whether the agent may have been ended before its first line."""
        return receipt.exit.signal is not None or receipt.outcome.kind in {OutcomeKind.CANCELLED, OutcomeKind.TIMEOUT, OutcomeKind.CRASHED}

    def account(self, had: dict[str, int], *, exact: bool) -> None:
        """What the processes say that they wrote against what was kept, masked, and counted as dropped."""
        intended, done = [0, 0], [0, 0]
        for path in self.folder.glob("account-*"):
            book = path.read_bytes()
            if len(book) == struct.calcsize(SLOTS):
                values = array.array("q", book)
                for stream in range(2):
                    intended[stream] += values[stream]
                    done[stream] += values[2 + stream]
        for stream, name in enumerate(records.STREAMS):
            assert had[name] <= intended[stream], f"{name}: {had[name]} bytes came of {intended[stream]} that were ever to be written"
            if exact:
                assert had[name] >= done[stream], f"{name}: {done[stream]} bytes were written, {had[name]} are accounted for"


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def without_cuts(events: list[Event]) -> RunState:
    """A story without what depends on how the output was cut into pieces on the way."""
    return msgspec.structs.replace(advance_all(RunState(), events), events=0)


@pytest.mark.row(
    "faults",
    "nemesis: random faults at random moments",
    "receipt, sequence, replay, processes, starts and bytes add up for each seed; a secret that is told is kept nowhere",
)
@pytest.mark.timeout(300)  # a batch takes 20 s where nothing else runs; each seed has a bound of its own
@pytest.mark.parametrize("batch", BATCHES, ids=[f"{batch[0]}-{batch[-1]}" for batch in BATCHES])
async def test_whatever_happens_the_account_adds_up(tmp_path: Path, batch: list[int], saw: Callable[[str], None]) -> None:
    failures: dict[int, str] = {}
    drawn: Counter[str] = Counter()
    places = anyio.Semaphore(SIDE_BY_SIDE)

    async def one(seed: int) -> None:
        async with places:
            attempt = Attempt(seed, tmp_path)
            try:
                with anyio.fail_after(BOUND):
                    drawn.update(deed.partition(" ")[0] for deed in await attempt.go())
            except Exception as problem:  # noqa: BLE001  # told below, with the seed
                failures[seed] = f"{', '.join(attempt.deeds) or 'no fault'} [{vars(attempt).get('folder')}]: {problem!r}"

    async with anyio.create_task_group() as tasks:
        for seed in batch:
            tasks.start_soon(one, seed)
    told = "\n".join(f"  {SEEDS_VARIABLE}={seed}-{seed}: {story}" for seed, story in sorted(failures.items()))
    assert not failures, f"{len(failures)} of {len(batch)} seeds failed:\n{told}"
    saw(f"{len(batch)} seeds, {drawn.total()} faults")
