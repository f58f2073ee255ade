"""What every agent's adapter offers: how to command it, and how to understand it. Pure: no I/O, no clock, no environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol, Self

import msgspec

from cc_executor.model.event import AgentEvent
from cc_executor.model.request import RunRequest

# Linux takes at most 32 pages for one argument, its NUL included (MAX_ARG_STRLEN); 131,072 bytes gave E2BIG.
ARGUMENT_LIMIT: Final = 131_071


class Talk(msgspec.Struct, frozen=True, kw_only=True):
    """How lines of an agent's stdout begin that ask something, and that take it back; its id follows, to the next quotation mark."""

    asked: tuple[str, ...]
    withdrawn: tuple[str, ...] = ()


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A process to start: absolute argv[0], what to add to its environment (no secrets), and the bytes for its stdin (None: no stdin).

    A line of its stdout that begins with one of `done` is its last word, until one begins with one of `anew`. Without `done` its end is its last word.
    With `talk`, stdin stays open until then, for answers to what it asks. A line that begins with one of `quiet` is no sign of life.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = {}
    stdin: bytes | None = None
    done: tuple[str, ...] = ()
    anew: tuple[str, ...] = ()
    talk: Talk | None = None
    quiet: tuple[str, ...] = ()


class Decoder(Protocol):
    """Bytes of one run's stdout, in any chunking, to events. Never raises; keeps what it does not know."""

    def feed(self, data: bytes) -> list[AgentEvent]:
        """The events of every line that `data` completes."""
        ...

    def close(self) -> list[AgentEvent]:
        """The events of an unfinished last line."""
        ...

    def copy(self) -> Self:
        """An independent decoder in the same state: a checkpoint from which a journal can be read again."""
        ...


class Agent(Protocol):
    """One dialect."""

    name: str
    can_wait: bool  # whether it can be started before its prompt is known

    def command(self, request: RunRequest, *, executable: str, session_id: str, version: str = "", waits: bool = False) -> Command:
        """The process for `request`. `executable`: absolute path; `session_id`: a UUID that the agent is to use, if it can.

        `waits`: it is started before its prompt is known, which comes on a stdin that stays open.
        """
        ...

    def decoder(self) -> Decoder:
        """A fresh decoder."""
        ...
