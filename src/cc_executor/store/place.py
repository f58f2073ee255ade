"""Where runs are kept, and how they are called. Standard library only: a kernel asks before anything heavy is loaded. Knows no run."""

from __future__ import annotations

import os
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
# 12 hex digits of milliseconds, so that names sort by start, and 14 random ones. `\Z`, not `$`: the latter allows a final newline.
RUN_ID: Final = re.compile(r"[0-9a-f]{26}\Z")


def state_path(environ: Mapping[str, str]) -> Path:
    """Where runs are kept: `CC_EXECUTOR_STATE`, or `cc-executor` under `XDG_STATE_HOME` or `~/.local/state`."""
    chosen = environ.get(STATE_VARIABLE)
    if chosen:
        return Path(os.path.expanduser(chosen))
    base = environ.get("XDG_STATE_HOME") or os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".local", "state")
    return Path(base) / "cc-executor"


def claimed_at(run_id: str) -> float:
    """Seconds since the epoch when the id was made."""
    return int(run_id[:12], 16) / 1000
