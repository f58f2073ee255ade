"""The runs whose rows have not gone out to the shared history: empty files named after them; and what is to be said of it. Knows files; knows no Redis."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cc_executor.store.place import RUN_ID
from cc_executor.store.plain import read_plain, write_whole

FOLDER: Final = "unshared"  # below the state folder
TROUBLE: Final = "trouble"  # in it: what is to be said; with the other name, what was
SAID: Final = "trouble-said"
LIMIT: Final = 10_000  # runs; later ones are not remembered while nothing goes out, and are shared by `cc-executor history share --all`
WORDS_LIMIT: Final = 2_000  # bytes


class Unshared:
    """What waits in one state folder. From any process and thread."""

    def __init__(self, root: Path) -> None:
        self._folder = root / FOLDER

    def add(self, run_ids: Iterable[str], *, limit: int = LIMIT) -> None:
        """Remember runs.

        Raises
        ------
        OSError
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        room = limit - len(os.listdir(self._folder))
        for run_id in run_ids:
            if room > 0:
                os.close(os.open(self._folder / run_id, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
                room -= 1

    def names(self) -> list[str]:
        """The runs that wait, oldest first."""
        try:
            return sorted(name for name in os.listdir(self._folder) if RUN_ID.match(name))
        except OSError:
            return []

    def remove(self, run_ids: Iterable[str]) -> None:
        """They have gone out."""
        for run_id in run_ids:
            with contextlib.suppress(FileNotFoundError):  # another process has sent it, too
                os.unlink(self._folder / run_id)

    def tell(self, words: str) -> None:
        """Leave a sentence to be said, unless this outage was told already."""
        with contextlib.suppress(OSError):
            if not (self._folder / SAID).exists():
                write_whole(self._folder / TROUBLE, words.encode("utf-8", "replace")[:WORDS_LIMIT], sync=False)

    def told(self) -> str:
        """What is to be said, to the first who asks; mostly nothing."""
        try:
            os.rename(self._folder / TROUBLE, self._folder / SAID)
            return read_plain(self._folder / SAID, WORDS_LIMIT).decode("utf-8", "replace")
        except OSError:
            return ""

    def settle(self) -> None:
        """The outage is over: the next one is told again."""
        for name in (TROUBLE, SAID):
            with contextlib.suppress(OSError):
                os.unlink(self._folder / name)
