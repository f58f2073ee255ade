"""What an agent wrote and the tools it called, as far as a run's state keeps them. Knows shapes and bounds."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from cc_executor.model.clipped import Clipped

BLOCK_LIMIT: Final = 64 * 1024  # characters of one text or thinking block; a long answer has some 10,000
TOOL_TEXT_LIMIT: Final = 64 * 1024  # characters of a tool's input, and of its result; a model sees at most 30,000 of a command's output


class BlockKind(StrEnum):
    """What a block is."""

    TEXT = "text"
    THINKING = "thinking"


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """One block of text or thinking, in the order of appearance. `whole=False`: still being written, or cut off; it may become void."""

    name: str
    kind: BlockKind
    body: Clipped
    whole: bool = False
    parent: str | None = None
    synthetic: bool = False

    @property
    def message(self) -> str:
        """The message that it belongs to; empty for a stream of an agent without messages."""
        return self.name.rpartition(":")[0]


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call. `whole=False`: its input is still being written; `result` None: no result yet."""

    tool_id: str
    name: str
    input: Clipped = Clipped()
    result: Clipped | None = None
    is_error: bool = False
    parent: str | None = None
    path: str | None = None
    whole: bool = False

    @property
    def is_running(self) -> bool:
        """Whether it was called and has not returned."""
        return self.whole and self.result is None
