"""Which signals end what a terminal watches."""

from __future__ import annotations

import signal


def ending() -> tuple[signal.Signals, ...]:
    """The signals that mean the end. A hangup is none of them where whoever has started us has it ignored, as `nohup` does."""
    always = (signal.SIGINT, signal.SIGTERM)
    return always if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (*always, signal.SIGHUP)
