"""A process of its own that runs a task list, and outlives whoever started it: a terminal, a server. Blocking; knows processes and list folders."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from cc_executor.errors import LaunchFailed, StateUnusable
from cc_executor.runtime.supervisor import SHIM_NEEDS
from cc_executor.runtime.telemetry import carried
from cc_executor.store.place import STATE_VARIABLE
from cc_executor.store.tasklists import ListFolder

RUNNER: Final = "cc_executor.listrunner"
LOG: Final = "runner.log"  # in the list's folder
PIPE_ROOM: Final = 2**20  # bytes; what anybody may ask for (/proc/sys/fs/pipe-max-size)
# What finds the same Python and the same packages as here, and the language of its messages. All else goes by pipe: what a process is started with can be
# read in /proc, and the environment holds keys.
_NEEDS: Final = (
    *SHIM_NEEDS,
    "HOME",
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONUSERBASE",
    "PYTHONNOUSERSITE",
)


def start_runner(folder: ListFolder, *, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a process that runs a list as it stands to its end; if somebody runs it already, it watches, and goes on in his place.

    Parameters
    ----------
    folder : ListFolder
    environ : mapping of str to str
        What the agents' environment is chosen from.

    Returns
    -------
    Popen
        To be reaped.

    Raises
    ------
    StateUnusable, LaunchFailed
        Nobody was started; what the list's journal says stands.
    """
    whole = dict(environ) | carried(environ) | {STATE_VARIABLE: str(folder.path.parent.parent)}  # absolute: the process works elsewhere
    # -P: nothing in the current folder may stand in for a module of ours.
    argv = [sys.executable, "-P", "-m", RUNNER, folder.list_id]
    try:
        log = os.open(folder.path / LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateUnusable(f"{folder.path} cannot be written: {error.strerror}. Make room, or mend the folder.") from error
    try:
        runner = subprocess.Popen(
            argv,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env={name: os.environ[name] for name in _NEEDS if name in os.environ},
        )
    except OSError as error:
        raise LaunchFailed(
            f"The list's runner could not be started ({error.strerror}). If the machine is out of processes or memory, end some, and try again."
        ) from error
    finally:
        os.close(log)
    assert runner.stdin is not None  # a pipe was asked for
    with suppress(BrokenPipeError), runner.stdin as pipe:  # it has ended already, and its log says why
        with suppress(OSError, AttributeError):  # so that a large environment has room before the runner is up; not on macOS
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_ROOM)
        pipe.write(json.dumps(whole).encode("ascii"))
    return runner
