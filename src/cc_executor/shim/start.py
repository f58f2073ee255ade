"""From the spec to a running agent, and the one line of answer. Knows the run's folder and the order of things; the loop does the rest."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import sys
import time

from cc_executor.shim import child, door, native
from cc_executor.shim.clock import Clock
from cc_executor.shim.journal import Index, Journal, Stream
from cc_executor.shim.ledger import Ledger, open_exit_part
from cc_executor.shim.loop import STOP_SIGNALS, Shim, log
from cc_executor.shim.mask import patterns
from cc_executor.shim.memory import OomKills
from cc_executor.shim.records import CONTROL, EXIT_PART, INDEX_FILE, LOCK, LOG, PROMPT, SOCKET, STDERR, STDOUT
from cc_executor.shim.spec import SpecRefused, read
from cc_executor.shim.sync import File, Syncer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, NoReturn

    from cc_executor.shim.spec import Spec

FIRST_FREE: Final = 3  # after standard input, output and error
APPEND: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
LOCK_ATTEMPTS: Final = 10  # 45 ms in all
MADE_HERE: Final = (CONTROL, STDOUT, STDERR, INDEX_FILE, EXIT_PART, SOCKET)


def main() -> NoReturn:
    """Read the spec, start the agent, answer, and own it to its end."""
    clock = Clock(time.monotonic(), time.time())
    _own_descriptors()
    try:
        spec = read(_line_of(0))
    except SpecRefused as problem:
        _refuse(str(problem), errno.EINVAL)
    try:
        umask = _claim(spec)
    except OSError as problem:
        _refuse(f"the run's folder cannot be used: {problem.strerror or problem}", problem.errno)
    try:
        shim, theirs = _prepare(spec, clock)
        agent = child.start(spec, theirs, umask)
    except (child.StartFailed, OSError) as problem:
        _unmake()
        sentence = str(problem) if isinstance(problem, child.StartFailed) else f"the run cannot be started: {problem.strerror or problem}"
        _refuse(sentence, problem.errno)

    def ready() -> None:
        for fd in theirs:
            os.close(fd)
        _answer({"ok": True, "agent_pid": agent, "shim_pid": os.getpid()})
        _detach()

    shim.run(agent, ready)
    os._exit(0)  # not sys.exit: nothing is left to be done, and a thread that waits for a dead disk must not hold us


def _prepare(spec: Spec, clock: Clock) -> tuple[Shim, tuple[int, int, int]]:
    """Everything that can fail, before the agent runs: files with their room, socket, pipes. Returns the owner and the agent's three descriptors.

    Raises
    ------
    OSError
        There is no room, no right, no descriptor.
    """
    if not native.adopt_orphans() and sys.platform == "linux":
        log("no subreaper: descendants that leave the tree cannot be found")
    files = tuple(File(name, os.open(name, APPEND, 0o600)) for name in (STDOUT, STDERR, CONTROL))
    syncer = Syncer(files)
    index = Index(os.open(INDEX_FILE, APPEND, 0o600))

    def recorded() -> None:
        syncer.touch()
        index.want()

    ledger = Ledger(files[2], open_exit_part(), clock, recorded)
    forms = patterns(spec.secrets)
    feed: int | None = None
    first = b""
    if spec.stdin in {"open", "talk"}:
        source, feed = os.pipe()
        os.set_blocking(feed, False)
        if spec.stdin == "talk":
            first = _content(PROMPT)
    else:
        source = os.open(PROMPT if spec.stdin == "prompt" else os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    out, err = os.pipe(), os.pipe()
    child.widen(out[0])
    for pipe in (out[0], err[0]):
        os.set_blocking(pipe, False)
    limits = (None, None) if spec.journal_limit is None else (spec.journal_limit - spec.journal_limit // 4, spec.journal_limit // 4)
    streams = tuple(Stream(number, pipe, files[number], index, forms, limit=limits[number]) for number, pipe in enumerate((out[0], err[0])))

    def elapsed() -> float:
        return clock.elapsed(time.monotonic())

    def degraded(stream: str, problem: OSError) -> None:
        ledger.write("degraded", stream=stream, error=problem.strerror or str(problem))

    shim = Shim(
        spec,
        clock=clock,
        reaper=child.Reaper(),
        journal=Journal(streams, elapsed, degraded, ledger.make_room, forms),
        ledger=ledger,
        syncer=syncer,
        files=files,
        listener=door.listen(),
        stdin=feed,
        first=first,
        bell=_bell(),
        oom_kills=OomKills(),
    )
    return shim, (source, out[1], err[1])


def _content(name: str) -> bytes:
    with open(name, "rb") as file:
        return file.read()


def _claim(spec: Spec) -> int:
    """Enter the run's folder as its one owner, for good: a folder serves one run. Returns the launcher's umask.

    Raises
    ------
    OSError
        It cannot be entered or written, another shim owns it (EWOULDBLOCK), or its run was started before (EEXIST).
    """
    os.chdir(spec.run_dir)
    umask = os.umask(0o077)
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not _locked(lock):
        raise OSError(errno.EWOULDBLOCK, "another shim owns this run")
    os.dup2(os.open(LOG, APPEND, 0o600), 2)
    try:
        os.close(os.open(CONTROL, APPEND | os.O_EXCL, 0o600))
    except FileExistsError:
        raise OSError(
            errno.EEXIST, "this run was started before, or given up as lost because its start took so long; start it anew"
        ) from None
    return umask


def _locked(lock: int) -> bool:
    """Take the lock. Who lists the runs at this moment holds it for some microseconds, to see whether anybody else does."""
    for attempt in range(LOCK_ATTEMPTS):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.001 * attempt)
        else:
            return True
    return False


def _unmake() -> None:
    """Nothing was started: leave nothing that looks like a run."""
    for name in MADE_HERE:
        try:
            os.unlink(name)
        except OSError:
            continue


def _bell() -> int:
    """A pipe that rings with the number of each signal that comes."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (*STOP_SIGNALS, signal.SIGCHLD):
        signal.signal(number, _heard)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return reading


def _heard(_number: int, _frame: Any) -> None:
    """The number is in the pipe already."""


def _own_descriptors() -> None:
    """0, 1 and 2 are open, and nothing else is: what the launcher forgot to close is not ours to hold."""
    while os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC) < FIRST_FREE:
        continue
    os.closerange(FIRST_FREE, os.sysconf("SC_OPEN_MAX"))


def _line_of(fd: int) -> bytes:
    """To the end of the line, not of the pipe: a process that the kernel forked meanwhile may hold the other end for as long as it likes."""
    chunks: list[bytes] = []
    while chunk := os.read(fd, 2**20):
        chunks.append(chunk)
        if chunk.endswith(b"\n"):
            break
    return b"".join(chunks)


def _answer(reply: dict[str, Any]) -> None:
    data = json.dumps(reply).encode() + b"\n"
    try:
        os.write(1, data)
    except OSError:  # the launcher is gone; its lease says what that means
        return


def _refuse(sentence: str, number: int | None) -> NoReturn:
    os.closerange(FIRST_FREE, os.sysconf("SC_OPEN_MAX"))  # the lock, too: whoever hears this may use the folder at once
    _answer({"ok": False, "error": sentence, "errno": number})
    os._exit(1)


def _detach() -> None:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
