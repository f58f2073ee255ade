"""An agent that is started before its prompt is known: at most one in this process, for one run, and for one with the same options.

Claude Code takes 0.4 to 0.6 s from its start to its first word. A spare has that behind it. It has also read by then what it reads at its start (settings,
CLAUDE.md, the state of git), so it is used only while all of that is as it was; what it has not told anybody costs nothing, but 170 MB of memory.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import os
import secrets
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, Final

import msgspec

from cc_executor.agents import agent_named
from cc_executor.errors import CCExecutorError
from cc_executor.model.request import RunRequest
from cc_executor.runtime import supervisor
from cc_executor.runtime.executable import find_executable
from cc_executor.runtime.process import process_of, spec_of
from cc_executor.runtime.workspace import is_trusted
from cc_executor.shim import records
from cc_executor.store.home import StateHome

logger = logging.getLogger(__name__)

HOLD: Final = 300.0  # seconds that a spare waits for its run
MARGIN: Final = 5.0  # seconds before that, in which it is not taken any more
ENTRIES: Final = 2000  # files of settings that are looked at; of a folder with more there is no spare
# What a session reads at its start, in its folder and those above it, and in the user's own (2.1.330).
_IN_FOLDERS: Final = ("CLAUDE.md", "CLAUDE.local.md", "AGENTS.md", ".mcp.json", ".claude", ".git/HEAD", ".git/index")
_OF_THE_USER: Final = (
    *("CLAUDE.md", "settings.json", "settings.local.json", "agents", "commands", "skills", "rules", "hooks", "output-styles"),
    "plugins/installed_plugins.json",  # not all of them: the agent writes there itself
)
_OF_THE_MACHINE: Final = "/etc/claude-code"


class Spare(msgspec.Struct, frozen=True):
    """An agent that waits.

    Attributes
    ----------
    shim : subprocess.Popen
        Its supervisor.
    session_id, mark : str
        Those of its process.
    spec : dict
        With which it was started.
    seen : str
        What stood where it reads at its start; see `_seen`.
    since : float
        Monotonic seconds of its start.
    """

    shim: subprocess.Popen[bytes]
    session_id: str
    mark: str
    spec: dict[str, Any]
    seen: str
    since: float

    def fits(self, spec: Mapping[str, Any], environ: Mapping[str, str]) -> bool:
        """Whether it is the process that `spec` asks for, as one that was started now would be."""
        same = all(self.spec[name] == spec[name] for name in ("argv", "env", "cwd", "stdin"))
        return same and self.seen == _seen(spec["cwd"], spec["argv"][0], environ)

    def end(self) -> None:
        """Have it ended; its supervisor sees to that. Does not wait."""
        supervisor.close(self.shim)
        supervisor.keep(self.mark, self.shim)  # to be reaped


_kept: list[Spare] = []
_lock: Final = threading.Lock()


def prepare(request: RunRequest, *, home: StateHome, environ: Mapping[str, str], pid: int) -> None:
    """Keep a spare for the next run like this one; one that was kept is ended. Blocking. Where there can be none, there is none, without a word."""
    drop()
    if request.rehearse is not None or request.resume is not None or not agent_named(request.agent).can_wait:
        return
    if not hasattr(os, "waitid"):  # macOS with Python before 3.13: its supervisor could not see that it has ended
        return
    try:
        spare = _started(request, home, environ, pid)
    except (CCExecutorError, OSError):
        logger.debug("no spare could be started", exc_info=True)
        return
    with _lock:
        before, _kept[:] = list(_kept), [spare]
    for other in before:
        other.end()


def take() -> Spare | None:
    """The spare, if there is one that still waits. It is the caller's then, to be given a run or ended."""
    with _lock:
        spare = _kept.pop() if _kept else None
    if spare is None or (spare.shim.poll() is None and time.monotonic() - spare.since < HOLD - MARGIN):
        return spare
    spare.end()
    return None


def drop() -> None:
    """End the spare, if there is one."""
    with _lock:
        spare = _kept.pop() if _kept else None
    if spare is not None:
        spare.end()


def _started(request: RunRequest, home: StateHome, environ: Mapping[str, str], pid: int) -> Spare:
    session_id, mark = str(uuid.uuid4()), f"spare-{secrets.token_hex(8)}"
    asked = request.model_copy(update={"trust_workspace": is_trusted(request, home)})
    executable = find_executable(request, environ=environ, home=home)
    seen = _seen(request.cwd, executable.path, environ)  # before it looks: what changes meanwhile is a change
    process = process_of(asked, executable=executable, environ=environ, session_id=session_id, mark=mark, waits=True)
    spec = spec_of(request, process, run_dir="/", run_id=mark, pid=pid, secrets=())
    shim = supervisor.started()
    since = time.monotonic()
    answer = supervisor.answer_to({**spec, records.SPEC_HOLD: HOLD}, shim)
    if answer and answer.get("ok"):
        return Spare(shim, session_id, mark, spec, seen, since)
    supervisor.close(shim)
    shim.kill()
    with suppress(subprocess.TimeoutExpired):
        shim.wait(supervisor.START_BUDGET)
    raise OSError(f"no spare: {answer}")


def _seen(cwd: str, executable: str, environ: Mapping[str, str]) -> str:
    """A digest of what a session that starts now would read, by its files' times and sizes. Two of them are never the same where there is too much to look at."""
    hasher = hashlib.sha256(dt.date.today().isoformat().encode())  # noqa: DTZ011 - the agent is told the local day
    for number, path in enumerate(chain((executable,), _read_at_start(cwd, environ))):
        if number >= ENTRIES:
            return secrets.token_hex()
        with suppress(OSError):
            status = Path(path).stat()
            hasher.update(repr((path, status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode)).encode())
    return hasher.hexdigest()


def _read_at_start(cwd: str, environ: Mapping[str, str]) -> Iterator[str]:
    folder = Path(os.path.realpath(cwd))
    config = environ.get("CLAUDE_CONFIG_DIR") or os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".claude")
    for place in (folder, *folder.parents):
        for name in _IN_FOLDERS:
            # The user's own, which a project below the home folder has above it, holds what the agent itself writes with each run.
            if os.path.realpath(path := str(place / name)) != os.path.realpath(config):
                yield from _below(path)
    for name in _OF_THE_USER:
        yield from _below(os.path.join(config, name))
    yield from _below(_OF_THE_MACHINE)


def _below(path: str) -> Iterator[str]:
    yield path
    for place, folders, files in os.walk(path):  # nothing, if it is no folder
        folders.sort()  # and so they are walked
        yield from (os.path.join(place, name) for name in (*folders, *sorted(files)))
