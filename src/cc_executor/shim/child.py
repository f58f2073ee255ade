"""Starting the agent, and waiting for everything that ends. Knows fork, exec and wait; knows no record."""

from __future__ import annotations

import fcntl
import os
import resource
import signal

from cc_executor.shim import native
from cc_executor.shim.records import RUN_MARK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NoReturn

    from cc_executor.shim.spec import Spec

OOM_SCORE: Final = 500  # added to the agent's, so that a machine out of memory ends the agent rather than the kernel that started it
# The CLI loses its last output when 64 KiB are pending for 0.3 s; a larger pipe forgives a longer hiccup. Not the largest possible: all pipes of an ordinary
# user share 64 MiB (pipe(7), pipe-user-pages-soft), and beyond that each new one, in whatever program, holds 8 KiB.
PIPE_SIZE: Final = 256 * 1024
LEAST_ROOM: Final = 16 * 1024  # bytes that a pipe of macOS holds at first
_CANNOT_BE_HANDLED: Final = (signal.SIGKILL, signal.SIGSTOP)


class StartFailed(Exception):
    """The agent could not be started; the message is a sentence. Nothing is left running."""

    def __init__(self, sentence: str, number: int) -> None:
        super().__init__(sentence)
        self.errno = number


class Reaper:
    """Waits for the agent and for every orphan that fell to the shim, and adds up what they used."""

    def __init__(self) -> None:
        self.agent = 0
        self.status: int | None = None  # the agent's wait status, once it has ended
        self.empty = False  # no child is left; as the shim adopts every orphan, no descendant either
        self.cpu = 0.0
        self.max_rss = 0

    def reap(self) -> None:
        """Take every child that has ended. Never waits."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                self.empty = True
                return
            if not pid:
                self.empty = False
                return
            self.cpu += usage.ru_utime + usage.ru_stime
            self.max_rss = max(self.max_rss, usage.ru_maxrss)
            if pid == self.agent:
                self.status = status

    def max_rss_bytes(self) -> int:
        """The largest resident size of one process."""
        return self.max_rss * (1 if os.uname().sysname == "Darwin" else 1024)  # getrusage(2): bytes on macOS, KiB elsewhere

    def ended_how(self) -> tuple[int | None, str | None]:
        """Exit code and signal name; exactly one is set."""
        if self.status is None:  # it could not be ended: stuck in the kernel after SIGKILL
            return None, "SIGKILL"
        code = os.waitstatus_to_exitcode(self.status)
        return (code, None) if code >= 0 else (None, signal_name(-code))


def signal_name(number: int) -> str:
    """`SIGTERM` for 15; a real-time signal has only its number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def widen(pipe: int) -> None:
    """Make a pipe larger than it is by default, where the system allows it."""
    if not hasattr(fcntl, "F_SETPIPE_SZ"):
        return
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except OSError:  # the user's pipes hold very much already
        return


def room(pipe: int) -> int:
    """How many bytes a pipe holds. An agent may change that; and of a user whose pipes hold very much already each new one holds 8 KiB (pipe(7))."""
    if not hasattr(fcntl, "F_GETPIPE_SZ"):
        return LEAST_ROOM
    return fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)


def start(spec: Spec, streams: tuple[int, int, int], umask: int) -> int:
    """Fork and execute the agent; returns its process id when it runs.

    `streams` become its 0, 1 and 2; `umask` is the launcher's, for the shim's own is not the agent's affair.

    Raises
    ------
    StartFailed
        The folder or the executable cannot be used.
    """
    owner = os.getpid()
    reading, writing = os.pipe()  # closes itself at exec: end of file means that the agent runs
    pid = os.fork()
    if not pid:
        _become(spec, owner, writing, streams, umask)
    os.close(writing)
    report = b""
    while chunk := os.read(reading, 256):
        report += chunk
    os.close(reading)
    if not report:
        return pid
    os.waitpid(pid, 0)
    number, stage = report.split(b" ", 1)
    raise StartFailed(_sentence(spec, int(number), stage.decode()), int(number))


def _sentence(spec: Spec, number: int, stage: str) -> str:
    reason = os.strerror(number)
    executable = os.fsdecode(spec.argv[0])
    if stage == "cwd":
        return f"the working folder {os.fsdecode(spec.cwd)} cannot be entered: {reason}"
    if stage != "exec":
        return f"the agent's process could not be prepared ({stage}): {reason}"
    if os.path.exists(spec.argv[0]) and not os.path.isdir(spec.argv[0]):
        if not os.access(spec.argv[0], os.X_OK):
            reason += "; it is not executable"
        elif number in (2, 8):  # ENOENT, ENOEXEC
            reason += "; the file is there, but not what it needs to run (its interpreter, or a #! line)"
    return f"{executable} cannot be started: {reason}"


def _become(spec: Spec, owner: int, report: int, streams: tuple[int, int, int], umask: int) -> NoReturn:
    """In the child: turn into the agent, or say why not."""
    stage = "session"
    try:
        signal.set_wakeup_fd(-1)
        os.setsid()
        stage = "signals"
        _default_signals()
        stage = "owner"
        native.die_with_parent(signal.SIGKILL)
        if os.getppid() != owner:  # the shim ended before the line above
            os._exit(127)
        stage = "limits"
        _expose_to_oom()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the API key
        stage = "streams"
        for target, source in enumerate(streams):
            os.dup2(source, target)
        os.umask(umask)
        stage = "cwd"
        os.chdir(spec.cwd)
        stage = "exec"
        mark = {RUN_MARK.encode(): spec.run_id.encode("utf-8", "replace")}
        os.execve(spec.argv[0], spec.argv, spec.env | mark)  # noqa: S606  # no shell is the point
    except OSError as problem:
        os.write(report, f"{problem.errno or 5} {stage}".encode())
    except BaseException:  # noqa: BLE001  # whatever it is, two copies of the shim must not go on
        os.write(report, f"5 {stage}".encode())  # EIO
    os._exit(127)


def _default_signals() -> None:
    # Python ignores SIGPIPE and SIGXFSZ, nohup ignores SIGHUP; what is ignored stays ignored across exec, and would make an agent deaf.
    for number in range(1, signal.NSIG):
        if number not in _CANNOT_BE_HANDLED:
            try:
                signal.signal(number, signal.SIG_DFL)
            except OSError:  # the C library's own (32 and 33 on Linux)
                continue


def _expose_to_oom() -> None:
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return  # no Linux, or no right to
    try:
        score = min(1000, int(os.read(fd, 16)) + OOM_SCORE)
        os.pwrite(fd, str(score).encode(), 0)
    except OSError:
        return
    finally:
        os.close(fd)
