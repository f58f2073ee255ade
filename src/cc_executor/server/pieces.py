"""Pieces of a run's output as JSON, and how long to wait for the next one. The same for server-sent events and for WebSockets."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cc_executor.server.service import Piece

PIECE: Final = 64 * 1024  # bytes of one answer: a slow reader costs this much memory, and the journal is the buffer
LOOK: Final = 0.1  # seconds between looks at a journal that grows
BEAT: Final = 15.0  # seconds; proxies close what is silent for a minute

# One look at a stream: offset and limit in, a piece out. Blocking.
Look = Callable[[int, int], "Piece"]


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


async def pieces(look: Look, offset: int) -> AsyncGenerator[dict[str, Any] | None]:
    """Every piece from `offset` on until the run has ended, as `shown`; None where nothing has come for `BEAT` seconds."""
    silent = 0.0
    while True:
        piece = await asyncio.to_thread(look, offset, PIECE)
        if piece.data:
            silent = 0.0
            told = shown(piece)
            offset = told["next_offset"]
            yield told
        if piece.is_last:
            return
        if not piece.data:
            await asyncio.sleep(LOOK)
            silent += LOOK
            if silent >= BEAT:
                silent = 0.0
                yield None
