"""Text streams that bear less than others: an encoding lacks characters, a terminal has no cursor. Knows streams alone."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import TextIO


def bear_every_character(stream: TextIO | None) -> Callable[[], None]:
    """Let a standard stream write what its encoding lacks as an escape, instead of failing in the midst of a run. Others, and none, stay as they are.

    Gives what makes it as it was.
    """
    # In the locale C without UTF-8 mode, Python lets a stream write what it has read, and nothing else that its encoding lacks (`surrogateescape`).
    narrow = {"strict"} if is_utf8(stream) else {"strict", "surrogateescape"}
    if isinstance(stream, io.TextIOWrapper) and stream.errors in narrow:
        before = stream.errors
        stream.reconfigure(errors="backslashreplace")
        return lambda: stream.reconfigure(errors=before)
    return lambda: None


def is_utf8(stream: TextIO | None) -> bool:
    """Whether this stream bears every character by itself."""
    return str(getattr(stream, "encoding", "")).lower().replace("-", "").replace("_", "") == "utf8"


def has_a_cursor(stream: TextIO) -> bool:
    """Whether a line can be written over: a terminal, and none that shows the orders for it instead (a shell in Emacs, some logs of builds)."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"
