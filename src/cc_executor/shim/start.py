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
from cc_executor.shim.hold import Held
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
OPEN_ONES: Final = {"linux": "/proc/self/fd", "darwin": "/dev/fd"}  # where a process finds its own descriptors
APPEND: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
LOCK_BUDGET: Final = 2.0  # seconds for those who only look to let go of a run's lock
LOCK_PACE: Final = 0.001
MADE_HERE: Final = (CONTROL, STDOUT, STDERR, INDEX_FILE, EXIT_PART, SOCKET)


def main() -> NoReturn:
    """Read the spec, start the agent, answer, and own it to its end."""
    clock = Clock(time.monotonic(), time.time())
    _own_descriptors()
    spec, held = _spec_of(_line_of(0)), None
    if spec.hold is not None:
        held = _hold(spec)
        spec = _awaited(held)
        clock = Clock(time.monotonic(), time.time())
    try:
        umask = _claim(spec)
    except OSError as problem:
        _give_up(held, f"the run's folder cannot be used: {problem.strerror or problem}", problem.errno)
    try:
        if held is None:
            ours, theirs = _streams(spec)
            shim = _prepare(spec, clock, ours, _bell())
            agent = child.start(spec, theirs, umask)
        else:
            shim, agent, theirs = _prepare(spec, clock, held.streams, held.bell), held.agent, ()
    except (child.StartFailed, OSError) as problem:
        _unmake()
        sentence = str(problem) if isinstance(problem, child.StartFailed) else f"the run cannot be started: {problem.strerror or problem}"
        _give_up(held, sentence, problem.errno)

    def ready() -> None:
        for fd in theirs:
            os.close(fd)
        _answer({"ok": True, "agent_pid": agent, "shim_pid": os.getpid()})
        _detach()

    shim.run(agent, ready)
    os._exit(0)  # not sys.exit: nothing is left to be done, and a thread that waits for a dead disk must not hold us


def _spec_of(line: bytes) -> Spec:
    try:
        return read(line)
    except SpecRefused as problem:
        _refuse(str(problem), errno.EINVAL)


def _hold(spec: Spec) -> Held:
    """Start an agent that has no run yet, and say so."""
    _adopt_orphans()
    umask, bell = os.umask(0o077), _bell()
    try:
        ours, theirs = _streams(spec)
        agent = child.start(spec, theirs, umask)
    except (child.StartFailed, OSError) as problem:
        _refuse(str(problem), problem.errno)
    for fd in theirs:
        os.close(fd)
    held = Held(spec, agent, ours, bell)
    _answer({"ok": True, "agent_pid": agent, "shim_pid": os.getpid()})
    return held


def _awaited(held: Held) -> Spec:
    """The spec of the run that takes a waiting agent. Returns only if one does, and it is its agent."""
    line = held.line()
    if line is None:
        held.end()
        _refuse("the agent that was kept waiting for it is gone; run it again", errno.ESRCH)
    first = held.spec
    try:
        spec = read(line)
    except SpecRefused as problem:
        _give_up(held, str(problem), errno.EINVAL)
    if (spec.argv, spec.env, spec.cwd, spec.stdin, spec.hold) != (first.argv, first.env, first.cwd, first.stdin, None):
        _give_up(held, "another agent was kept waiting", errno.EINVAL)
    return spec


def _adopt_orphans() -> None:
    if not native.adopt_orphans() and sys.platform == "linux":
        log("no subreaper: descendants that leave the tree cannot be found")


def _streams(spec: Spec) -> tuple[tuple[int | None, int, int], tuple[int, int, int]]:
    """Standard input, output and error of the agent: our ends, which do not block, and its own. Ours of an input that is a file is None."""
    feed: int | None = None
    if spec.stdin in {"open", "talk"}:
        source, feed = os.pipe()
        os.set_blocking(feed, False)
    else:
        source = os.open(PROMPT if spec.stdin == "prompt" else os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    out, err = os.pipe(), os.pipe()
    child.widen(out[0])
    for pipe in (out[0], err[0]):
        os.set_blocking(pipe, False)
    return (feed, out[0], err[0]), (source, out[1], err[1])


def _prepare(spec: Spec, clock: Clock, ours: tuple[int | None, int, int], bell: int) -> Shim:
    """Everything else that can fail: files with their room, the socket. Returns the owner.

    Raises
    ------
    OSError
        There is no room, no right, no descriptor.
    """
    _adopt_orphans()
    files = tuple(File(name, os.open(name, APPEND, 0o600)) for name in (STDOUT, STDERR, CONTROL))
    syncer = Syncer(files)
    index = Index(os.open(INDEX_FILE, APPEND, 0o600))

    def recorded() -> None:
        syncer.touch()
        index.want()

    ledger = Ledger(files[2], open_exit_part(), clock, recorded)
    forms = patterns(spec.secrets)
    limits = (None, None) if spec.journal_limit is None else (spec.journal_limit - spec.journal_limit // 4, spec.journal_limit // 4)
    streams = tuple(Stream(number, pipe, files[number], index, forms, limit=limits[number]) for number, pipe in enumerate(ours[1:]))

    def elapsed() -> float:
        return clock.elapsed(time.monotonic())

    def degraded(stream: str, problem: OSError) -> None:
        ledger.write("degraded", stream=stream, error=problem.strerror or str(problem))

    return Shim(
        spec,
        clock=clock,
        reaper=child.Reaper(),
        journal=Journal(streams, elapsed, degraded, ledger.make_room, forms),
        ledger=ledger,
        syncer=syncer,
        files=files,
        listener=door.listen(),
        stdin=ours[0],
        first=_content(PROMPT) if spec.stdin == "talk" else b"",
        bell=bell,
        oom_kills=OomKills(),
    )


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
    """Take the lock. Who lists the runs shares it, for microseconds or as long as he waits for a core, to see whether anybody has it to himself."""
    deadline = time.monotonic() + LOCK_BUDGET
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not _is_shared(lock) or time.monotonic() >= deadline:
                return False
            time.sleep(LOCK_PACE)  # waiting in flock(2) has no time limit
        else:
            return True


def _is_shared(lock: int) -> bool:
    """Whether nobody has it to himself."""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(lock, fcntl.LOCK_UN)
    return True


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
    _close_others()


def _close_others() -> None:
    """Close all but 0, 1 and 2, as they are listed: who has lowered the limit of their number keeps those above it, and to ask for each number takes long.

    Where the system lacks close_range(2), or the Python was made for one that does (those of conda, and of uv), `os.closerange` asks for each, and
    containers are given limits of a million and of a thousand million.
    """
    try:
        names = os.listdir(OPEN_ONES.get(sys.platform, ""))
    except OSError:  # no such list, or no /proc
        os.closerange(FIRST_FREE, os.sysconf("SC_OPEN_MAX"))
        return
    for fd in map(int, names):
        if fd >= FIRST_FREE:
            try:
                os.close(fd)
            except OSError:  # that of the listing itself
                continue


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
    _close_others()  # the lock, too: whoever hears this may use the folder at once
    _answer({"ok": False, "error": sentence, "errno": number})
    os._exit(1)


def _give_up(held: Held | None, sentence: str, number: int | None) -> NoReturn:
    """Refuse, and leave no agent that was kept waiting; it may have got its prompt."""
    if held is not None:
        held.end(at_once=True)
    _refuse(sentence, number)


def _detach() -> None:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
