"""Where runs are kept, how they are called, and which kernel shows them. Loads nothing heavy: a kernel asks before anything else is loaded. Knows no run."""

from __future__ import annotations

import functools
import hashlib
import os
import pwd
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

STATE_VARIABLE: Final = "CC_EXECUTOR_STATE"
REDIS_VARIABLE: Final = "CC_EXECUTOR_REDIS"  # the address of a history that several machines share
NOTIFY_VARIABLE: Final = "CC_EXECUTOR_NOTIFY"  # who is told of runs and lists
NOTIFY_SECRET: Final = "CC_EXECUTOR_NOTIFY_SECRET"  # noqa: S105 - the name of one: messages to webhooks are signed by it
RUNS: Final = "runs"  # the folder below the state folder that has one folder for each run
WISH: Final = "notify.json"  # in the folder of a run or a list: who is to be told, until they are
LONGEST_WAIT: Final = 24 * 3600.0  # seconds from the making of an id to its run's start: a server lets runs wait for their turn
# 12 hex digits of milliseconds, so that names sort by start, and 14 random ones. `\Z`, not `$`: the latter allows a final newline.
RUN_ID: Final = re.compile(r"[0-9a-f]{26}\Z")

_PROCESS: Final = re.compile(r"([0-9]{1,9})@([0-9a-f]{8})\Z")


def state_path(environ: Mapping[str, str]) -> Path:
    """Where runs are kept: `CC_EXECUTOR_STATE`, or `cc-executor` under `XDG_STATE_HOME` or `~/.local/state`.

    Begins with ``~`` where that stands for no folder that is known.

    Raises
    ------
    StateUnusable
        `CC_EXECUTOR_STATE` is relative: a server and its kernels, which start in other folders, would not know each other's runs.
    """
    chosen = environ.get(STATE_VARIABLE)
    if chosen:
        path = os.path.expanduser(chosen)
        if path.startswith("~") or os.path.isabs(path):
            return Path(path)
        from cc_executor.errors import StateUnusable

        raise StateUnusable(
            f"{STATE_VARIABLE} is relative ({chosen}), and would be another folder wherever a program starts. "
            "Set it to an absolute path, or to one that begins with ~/."
        )
    base = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):  # the XDG Base Directory Specification has such a path ignored
        home = environ.get("HOME", "")
        base = os.path.join(home if os.path.isabs(home) else _home(), ".local", "state")
    return Path(base) / "cc-executor"


def _home() -> str:
    """That of the system's list of users, for an environment that names none; in a container the user may be in no list."""
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "~"
    return home if os.path.isabs(home) else "~"  # an entry that is made when a container starts may have none


def claimed_at(run_id: str) -> float:
    """Seconds since the epoch when the id was made."""
    return int(run_id[:12], 16) / 1000


def process_mark(pid: int | None = None) -> str:
    """A process (the one that asks), for whoever looks on the same machine whether it is still there; empty where that cannot be told (not on Linux)."""
    return f"{os.getpid() if pid is None else pid}@{where}" if (where := _where()) else ""


def is_gone(mark: object) -> bool:
    """Whether the process of a `process_mark` has surely ended. False for anything else, and for a mark of another machine, container or boot."""
    found = _PROCESS.match(mark) if isinstance(mark, str) else None
    if found is None or found[2] != _where():
        return False
    try:
        os.kill(int(found[1]), 0)
        state = Path(f"/proc/{found[1]}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's
        return False
    return state in {b"Z", b"X"}  # ended, and its parent has not taken note: a server looks after its kernels every three seconds


@functools.cache
def _where() -> str:
    """Of the boot and the namespace in which process numbers hold (namespaces(7)), 8 hex digits."""
    try:
        known = Path("/proc/sys/kernel/random/boot_id").read_bytes() + os.readlink("/proc/self/ns/pid").encode()
    except OSError:
        return ""
    return hashlib.sha256(known).hexdigest()[:8]
