"""What a folder of a run or a list knows of who is to be told: the wish, until it is fulfilled, and a mark for each thing that was told.

A mark is made before anybody is told, by whoever can make it first. So nothing is told twice, whoever watches. The wish holds addresses that may be
secret; it goes when it is fulfilled, and what stays names hosts alone.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from cc_executor.model.notify import Notify
from cc_executor.store.place import WISH
from cc_executor.store.plain import append_line, read_plain, write_whole

_MARK: Final = "told."
_LIMIT: Final = 1024 * 1024  # bytes
_PLAIN: Final = re.compile(r"[A-Za-z0-9-]{1,80}")


def keep(folder: Path, wish: Notify) -> None:
    """Write the wish down, 0600, whole or not at all; what stood there is replaced. Raises `OSError`."""
    write_whole(folder / WISH, wish.model_dump_json().encode(), sync=False)


def wish_in(folder: Path) -> Notify | None:
    """The wish, if there is one that is not fulfilled."""
    try:
        return Notify.model_validate_json(read_plain(folder / WISH, _LIMIT))
    except (OSError, ValidationError):
        return None


def forget(folder: Path) -> None:
    """The wish is fulfilled, or nothing is left of it."""
    with suppress(OSError):
        (folder / WISH).unlink()


def claim(folder: Path, what: str) -> Path | None:
    """Make the mark of `what` (any text); None if somebody has it, or if none can be made: then nobody is told."""
    name = what if _PLAIN.fullmatch(what) else hashlib.sha256(what.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    path = folder / f"{_MARK}{name}"
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except OSError:
        return None
    return path


def note(mark: Path, sentence: str) -> None:
    """Write down, in a mark, what became of telling somebody."""
    with suppress(OSError):
        append_line(mark, sentence.encode("utf-8", "replace") + b"\n")
