"""The standard streams as a command may find them: closed, of a narrow encoding, or on a full disk. Knows no command."""

from __future__ import annotations

import errno
import os
import sys
from typing import Final, TextIO

from cc_executor.runtime.narrow import bear_every_character

OUTPUT_LOST: Final = 74  # exit code: EX_IOERR of sysexits.h
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def make_ready() -> None:
    """Let every stream be there, and bear every character: what its encoding lacks is written as an escape, never refused in the midst of a run."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # whoever started us has closed it (`>&-`); its number must not become that of another file
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        bear_every_character(stream)


def is_about_output(error: OSError) -> bool:
    """Whether it says that a stream could not be written; an error of a file has that file's name."""
    return error.filename is None and error.errno in _FULL


def lead_nowhere(stream: TextIO) -> None:
    """Let it lead nowhere: what is still buffered must not fail again, not even at the interpreter's end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def sentence(error: OSError) -> str:
    """What is told of it."""
    return f"The output cannot be written: {error.strerror}. Make room, or send it elsewhere."
