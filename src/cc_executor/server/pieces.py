"""Pieces of a run's output as JSON, one after the other. The same for server-sent events and for WebSockets."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cc_executor.server.tail import Tail, Told

PIECE: Final = 64 * 1024  # bytes of one answer: a slow reader costs this much memory, and the journal is the buffer
LOOK: Final = 0.1  # seconds between looks of somebody who waits for a while
BEAT: Final = 15.0  # seconds; proxies close what is silent for a minute


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a stream. `is_last`: nothing comes after it."""

    offset: int
    data: bytes
    is_last: bool

    @property
    def next_offset(self) -> int:
        """Where the next piece begins."""
        return self.offset + len(self.data)


def shown(piece: Piece) -> dict[str, Any]:
    """A piece as JSON: text where it is text, whole characters at its end, and base64 where it is not."""
    told: dict[str, Any] = {"offset": piece.offset, "last": piece.is_last}
    data = piece.data
    try:
        return {**told, "next_offset": piece.next_offset, "encoding": "utf-8", "data": data.decode()}
    except UnicodeDecodeError as error:
        # The first bytes of a character that goes on in the next piece.
        whole = error.start if error.reason == "unexpected end of data" and error.start and not piece.is_last else None
    if whole is None:
        return {**told, "next_offset": piece.next_offset, "encoding": "base64", "data": base64.b64encode(data).decode()}
    return {**told, "next_offset": piece.offset + whole, "encoding": "utf-8", "data": data[:whole].decode()}


async def pieces(tail: Tail, offset: int) -> AsyncGenerator[Told | None]:
    """Every piece from `offset` on until the run has ended; None where nothing has come for `BEAT` seconds.

    Raises
    ------
    CCExecutorError
        The run's folder is gone, or cannot be read any more.
    """
    while True:
        if offset < tail.size:
            told = await tail.piece(offset)
            offset = told.next_offset
            yield told
        elif tail.has_ended:
            return
        elif not await tail.news(BEAT):
            yield None
