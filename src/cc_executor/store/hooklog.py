"""What is known of the hooks of one run or one list: which were meant, which were begun, what became of them. One file of lines, appended only.

A hook is written down before it is called. So whoever goes on where somebody died calls what was not begun, and nothing twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from pydantic import TypeAdapter, ValidationError

from cc_executor.errors import StateUnusable
from cc_executor.model.hook import HookReport, StoredHook
from cc_executor.store.plain import append_line, read_plain

HOOKS: Final = "hooks.jsonl"
# What is not read of it would be called twice: ten thousand tasks with two hooks each, which all fail and say as much as is kept, write some 30 MB a round.
_LIMIT: Final = 256 * 2**20  # bytes

_stored: Final = TypeAdapter(tuple[StoredHook, ...])


class HookStory(msgspec.Struct):
    """The log, read.

    Attributes
    ----------
    names : dict
        What commands are told by their environment.
    rounds : int
        How often a list was begun.
    is_open : bool
        The newest of them has not been brought to its end.
    """

    hooks: tuple[StoredHook, ...] = ()
    begun: set[str] = set()
    reports: dict[str, HookReport] = {}
    names: dict[str, str] = {}
    rounds: int = 0
    is_open: bool = False


class HookLog:
    """The log of the folder of a run or of a list."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / HOOKS

    def exists(self) -> bool:
        """Whether hooks were ever meant."""
        return self._path.exists()

    def plan(self, hooks: tuple[StoredHook, ...], *, names: Mapping[str, str] | None = None) -> None:
        """Write down what is meant: a new round."""
        if names:
            self._append("names", _names.dump_json(dict(names)))
        self._append("plan", _stored.dump_json(hooks))

    def begin(self, key: str) -> None:
        """Write down that a hook is about to be called.

        Raises
        ------
        StateUnusable
            It cannot be written down, and so must not be called.
        """
        self._append("begun", _text.dump_json(key))

    def end(self, key: str, report: HookReport) -> None:
        """Write down what became of it."""
        self._append("ended", _pair.dump_json((key, report)))

    def close(self) -> None:
        """Write down that the round is over."""
        self._append("closed", b"null")

    def read(self) -> HookStory:
        """What is known; nothing, if there is no log. Lines that are none of ours are passed over."""
        story = HookStory()
        try:
            data = read_plain(self._path, _LIMIT)
        except OSError:
            return story
        for line in data.splitlines():
            word, _, rest = line.partition(b" ")
            with contextlib.suppress(ValidationError):  # torn by a kill, or of a newer version
                match word:
                    case b"plan":
                        story.hooks = _stored.validate_json(rest)
                        story.rounds += 1
                        story.is_open = True
                    case b"names":
                        story.names = _names.validate_json(rest)
                    case b"begun":
                        story.begun.add(_text.validate_json(rest))
                    case b"ended":
                        key, report = _pair.validate_json(rest)
                        story.reports[key] = report
                    case b"closed":
                        story.is_open = False
                    case _:
                        pass
        return story

    def _append(self, word: str, value: bytes) -> None:
        try:
            append_line(self._path, word.encode() + b" " + value + b"\n")
        except OSError as error:
            raise StateUnusable(f"{self._path} cannot be written: {error.strerror or error}.") from error


_text: Final = TypeAdapter(str)
_names: Final = TypeAdapter(dict[str, str])
_pair: Final = TypeAdapter(tuple[str, HookReport])
