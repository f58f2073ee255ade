"""Which signals end what a terminal watches, and what Ctrl-C does until a command is there to answer it."""

from __future__ import annotations

import os
import signal
from typing import Any, NoReturn

from cc_executor.cli import INTERRUPTED


def leave(_number: int, _frame: Any) -> NoReturn:
    """End at once, without a word and as every command does that Ctrl-C has ended: while it is loaded, or a list of all is printed, there is nothing to undo."""
    os._exit(INTERRUPTED)


def ending() -> tuple[signal.Signals, ...]:
    """The signals that mean the end. A hangup is none of them where whoever has started us has it ignored, as `nohup` does."""
    always = (signal.SIGINT, signal.SIGTERM)
    return always if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (*always, signal.SIGHUP)
