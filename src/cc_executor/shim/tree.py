"""All descendants of this process: who they are, stopping them, ending them. Knows process tables and signals; knows no run and no record.

On Linux the shim is a subreaper: every orphan of its tree falls to it, so that "descendant of the shim" is exact, whatever a process does with sessions,
groups, double forks or its environment. Elsewhere `ps` gives the table, and what left the tree in the meantime is remembered by its number.
"""

from __future__ import annotations

import os
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

STOPPED: Final = "TtZXx"  # proc(5): stopped by a signal or a tracer, or dead
DEAD: Final = "ZXx"
SAME_BIRTH: Final = 2.0  # seconds; `ps` tells ages in whole seconds
HAS_PROC: Final = os.path.exists("/proc/loadavg")
HAS_CHILDREN: Final = os.path.exists("/proc/thread-self/children")  # CONFIG_PROC_CHILDREN
THREADS: Final = 17  # place of num_threads among the fields after the name
COMMAND_LENGTH: Final = 200  # characters of a command that are told; enough to recognise it
COMMAND_READ: Final = 64 * 1024  # bytes of it that are read; far more, so that a secret in it is seen whole and masked
MANY: Final = 256  # descendants; of more, each by itself costs more than reading the whole table
CHILDREN_READ: Final = 4096  # bytes of one thread's children; /proc gives no more at a time, and it is more than `MANY` take (8 bytes each)
BURST: Final = 0.02  # seconds; how long newborns are hunted before the pipes are looked after again
CALM: Final = 3  # looks in which nothing was born; then the hunt is over
FAR: Final = 4096  # process numbers; beyond that, reading the whole table is cheaper than asking for each


class Process:
    """One row of the process table."""

    __slots__ = ("born", "group", "parent", "pid", "session", "state")

    def __init__(self, pid: int, state: str, parent: int, group: int, session: int, *, born: float = 0.0) -> None:
        self.pid = pid
        self.state = state
        self.parent = parent
        self.group = group
        self.session = session
        self.born = born  # monotonic seconds, to a second; only from `ps`


class Tree:
    """The descendants of process `root`.

    Parameters
    ----------
    root : int
        This process.
    portable : bool
        Use `ps` instead of /proc.
    """

    def __init__(self, root: int, *, portable: bool | None = None) -> None:
        self._root = root
        self._portable = not HAS_PROC if portable is None else portable
        self._members: set[int] = set()
        self._newest = 0
        self._strays: dict[int, Process] = {}  # portable only: members of an earlier look, in case that they leave the tree
        self._count = 0
        self._counted_at = float("-inf")

    def is_empty(self, *, childless: bool) -> bool:
        """Whether nothing is left, when there are no children to wait for (`childless`): on Linux that says it all."""
        return childless and (not self._portable or not self.scan())

    def scan(self) -> list[Process]:
        """Every living descendant."""
        if self._portable:
            found = self._living(self._portable_rows())
        else:
            self._newest = _newest_pid()
            found = self._living(_rows(int(name) for name in os.listdir("/proc") if name[0] in "123456789"))
        self._count = len(found)  # an older count may not be told after a newer look: a tree that was just stopped has as many as stand
        return found

    def is_foreign(self, pid: int) -> bool:
        """Whether this is a living process that is none of the tree."""
        row = next(iter(_rows((pid,))), None) if HAS_PROC else None
        if HAS_PROC and (row is None or row.state in DEAD):
            return False
        return all(process.pid != pid for process in self.scan())

    def count(self, now: float, max_age: float) -> int:
        """How many descendants live, as of at most `max_age` seconds ago."""
        if now - self._counted_at > max_age:
            few = None if self._portable or not HAS_CHILDREN else _few_descendants(self._root)
            if few is None:
                self.scan()
            else:
                self._count = sum(process.state not in DEAD for process in _rows(few))
            self._counted_at = now
        return self._count

    def stop(self) -> tuple[bool, int]:
        """Send SIGSTOP to all that do not stand; returns whether the whole tree stood, and how many processes stood."""
        members = self.scan()
        moving = [process for process in members if process.state not in STOPPED]
        _send(signal.SIGSTOP, moving)
        born = self._hunt(signal.SIGSTOP)
        return not moving and not born, len(members) - len(moving)

    def resume(self) -> int:
        """Send SIGCONT to all."""
        return _send(signal.SIGCONT, self.scan())

    def signal(self, signum: int) -> int:
        """Send `signum` to all, and SIGCONT, for a stopped process acts on nothing but SIGKILL. One that was told to stop may not stand yet."""
        members = self.scan()
        sent = _send(signum, members)
        _send(signal.SIGCONT, members)
        return sent

    def signal_group(self, group: int, signum: int) -> int:
        """Send `signum` to one process group, and SIGCONT to all, as `signal`."""
        members = self.scan()
        sent = sum(process.group == group for process in members)
        if sent:
            try:
                os.killpg(group, signum)
            except OSError:  # it has just ended, or every member of it belongs to somebody else (sudo)
                sent = 0
        _send(signal.SIGCONT, members)
        return sent

    def kill(self) -> int:
        """Send SIGKILL to all, and to those that are born meanwhile. Call it until there is no child left to wait for."""
        return _send(signal.SIGKILL, self.scan()) + self._hunt(signal.SIGKILL)

    def _hunt(self, signum: int) -> int:
        """Signal what was born since the last look.

        Processes that fork and end every 300 µs, each in a new session, outrun a reading of the whole table, which takes milliseconds. The kernel tells the
        newest process number (/proc/loadavg, last field), so only the numbers since the last look need reading.
        """
        if self._portable:
            return 0
        sent = calm = 0
        end = time.monotonic() + BURST
        while calm < CALM and time.monotonic() < end:
            born = self._newborns()
            sent += _send(signum, born)
            calm = 0 if born else calm + 1
        return sent

    def _newborns(self) -> list[Process]:
        newest = _newest_pid()
        if newest == self._newest:
            return []
        first, self._newest = self._newest + 1, newest
        if not 0 <= newest - first < FAR:  # the numbers have begun anew, or very many were born
            known = set(self._members)
            return [process for process in self.scan() if process.pid not in known]
        born: list[Process] = []
        for process in _rows(range(first, newest + 1)):
            if (process.parent == self._root or process.parent in self._members) and process.state not in DEAD:
                self._members.add(process.pid)
                born.append(process)
        return born

    def _living(self, rows: Iterable[Process]) -> list[Process]:
        children: dict[int, list[Process]] = {}
        for process in rows:
            children.setdefault(process.parent, []).append(process)
        found: list[Process] = []
        pending = [self._root]
        while pending:
            for process in children.get(pending.pop(), ()):
                found.append(process)
                pending.append(process.pid)
        self._members = {process.pid for process in found}
        return [process for process in found if process.state not in DEAD]

    def _portable_rows(self) -> list[Process]:
        rows = _ps_rows()
        now = {process.pid: process for process in rows}
        for pid, before in list(self._strays.items()):
            stray = now.get(pid)
            if stray is None or abs(stray.born - before.born) > SAME_BIRTH:  # the number was given to another
                del self._strays[pid]
            elif stray.parent == 1:
                stray.parent = self._root  # an orphan of ours that fell to init
        self._living(rows)
        self._strays.update((pid, now[pid]) for pid in self._members)
        return rows


def command_of(pid: int) -> str:
    """What a process was started as, on one line; its short name when it hides that, and empty when it has ended."""
    if not HAS_PROC:
        return _ps("-p", str(pid), "-o", "command=")[1].decode("utf-8", "replace").strip()
    for name in ("cmdline", "comm"):
        data = _read(f"/proc/{pid}/{name}", COMMAND_READ)
        text = data.replace(b"\0", b" ").decode("utf-8", "replace").strip()
        if text:
            return text
    return ""


def _send(signum: int, processes: Iterable[Process]) -> int:
    sent = 0
    for process in processes:
        try:
            os.kill(process.pid, signum)
        except OSError:  # it has just ended, or belongs to somebody else (sudo)
            continue
        sent += 1
    return sent


def _few_descendants(root: int) -> set[int] | None:
    """All below `root`, as each thread tells its children (proc(5)); None when they are more than `MANY`.

    Costs as much as the tree is large, not as the machine has processes. But it may miss one that is born or handed on meanwhile, so it is good for a
    count and not for a kill.
    """
    found: set[int] = set()
    pending = [root]
    while pending:
        if len(found) > MANY:
            return None
        pid = pending.pop()
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:  # it has just ended
            continue
        for thread in threads:
            children = {int(child) for child in _read(f"/proc/{pid}/task/{thread}/children", CHILDREN_READ).split()} - found
            found |= children
            pending += children
    return found


def _newest_pid() -> int:
    return int(_read("/proc/loadavg", 128).rsplit(b" ", 1)[-1] or 0)


def _rows(pids: Iterable[int]) -> Iterable[Process]:
    """The rows of those processes that exist. proc(5): `pid (comm) state ppid pgrp session …`, and comm may contain anything."""
    for pid in pids:
        data = _read(f"/proc/{pid}/stat", 512)
        fields = data[data.rfind(b")") + 2 :].split(b" ", THREADS + 1)
        if len(fields) > THREADS:
            state = fields[0].decode("ascii", "replace")
            if state == "Z" and fields[THREADS] != b"1":
                state = _thread_state(pid)
            yield Process(pid, state, int(fields[1]), int(fields[2]), int(fields[3]))


def _thread_state(pid: int) -> str:
    """The state of a process whose first thread has ended while others go on: that of another thread."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return "X"
    for thread in threads:
        if thread != str(pid):
            data = _read(f"/proc/{pid}/task/{thread}/stat", 512)
            state = data[data.rfind(b")") + 2 :][:1]
            if state and state not in b"ZXx":
                return state.decode("ascii", "replace")
    return "Z"


def _read(path: str, limit: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, limit)
    except OSError:  # ESRCH: it ended between the two calls
        return b""
    finally:
        os.close(fd)


def _ps_rows() -> list[Process]:
    """The process table as POSIX `ps` tells it; the session is asked for separately, for `ps` has no portable word for it."""
    pid, output = _ps("-A", "-o", "pid=,ppid=,pgid=,state=,etime=")
    now = time.monotonic()
    rows: list[Process] = []
    for line in output.splitlines():
        own, parent, group, state, age = line.split()
        if int(own) != pid:
            letter = state[:1].decode("ascii", "replace")
            seconds = _seconds(age)
            if seconds > now:  # older than the machine: procps gives the newly born an age below 0, printed without its sign
                seconds = 0
            rows.append(Process(int(own), letter, int(parent), int(group), _session_of(int(own)), born=now - seconds))
    return rows


def _seconds(age: bytes) -> int:
    """The seconds in POSIX's `[[dd-]hh:]mm:ss`."""
    days, _, rest = age.rpartition(b"-")
    total = 0
    for part in rest.split(b":"):
        total = 60 * total + int(part)
    return int(days or 0) * 86400 + total


def _ps(*options: str) -> tuple[int, bytes]:
    """The process id of a `ps`, and what it says."""
    reading, writing = os.pipe()
    try:
        redirect = [(os.POSIX_SPAWN_DUP2, writing, 1)]
        pid = os.posix_spawn("/bin/ps", ["ps", *options], {"PATH": os.defpath, "LC_ALL": "C"}, file_actions=redirect)
    finally:
        os.close(writing)
    try:
        chunks: list[bytes] = []
        while chunk := os.read(reading, 65536):
            chunks.append(chunk)
    finally:
        os.close(reading)
        os.waitpid(pid, 0)
    return pid, b"".join(chunks)


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0
