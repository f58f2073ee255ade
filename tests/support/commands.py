"""Commands of the command line in this process: a process for each costs seconds on a busy machine."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cc_executor.cli import main


@dataclass(frozen=True)
class Said:
    """What a command has said, and its exit code."""

    code: int
    out: str
    err: str


@contextlib.contextmanager
def hangups(handler: signal.Handlers = signal.SIG_DFL) -> Iterator[None]:
    """Processes that are started in here do this at a hangup. They inherit it, and these tests may have been started by nohup."""
    before = signal.signal(signal.SIGHUP, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def command(*arguments: str | Path | Any) -> Said:
    """Run `cc-executor` with these arguments."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    argv = ["cc-executor", *map(str, arguments)]
    with patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Said(code, out.getvalue(), err.getvalue())
