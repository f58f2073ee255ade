"""Whoever reads a stream from wherever: its pieces have no gap and no repeat, are whole characters where it is text, and each is bounded."""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path
from typing import Any

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from cc_executor.server.pieces import PIECE, Piece, pieces, shown
from cc_executor.server.tail import GRID, Tails, Told
from cc_executor.shim import records
from cc_executor.store.journal import RunFolder
from support.receipts import run_id


def data_of(told: dict[str, Any]) -> bytes:
    return base64.b64decode(told["data"]) if told["encoding"] == "base64" else told["data"].encode()


@given(
    st.binary(max_size=12) | st.text(max_size=6).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.integers(0, 5),
    st.integers(0, 12),
)
def test_a_piece_is_text_where_it_can_be_and_the_next_one_begins_where_it_ends(data: bytes, offset: int, cut: int) -> None:
    whole, read = b"", data[:cut]
    while read:
        is_last = len(whole) + len(read) == len(data)
        told = shown(Piece(offset + len(whole), read, is_last))
        assert (told["offset"], told["last"]) == (offset + len(whole), is_last)
        assert told["next_offset"] == told["offset"] + len(data_of(told)) > told["offset"], "it comes to an end"
        assert json.loads(json.dumps(told)) == told
        whole += data_of(told)
        read = data[len(whole) :]
    assert data.startswith(whole)


BLOCKS = st.tuples(
    st.sampled_from([b"a", "ü".encode(), "€".encode(), "😀".encode(), b"\xff"]), st.sampled_from([1, 2, 3, GRID - 1, GRID, PIECE + 1])
)


@settings(max_examples=25)
@given(
    st.lists(BLOCKS, max_size=5), st.lists(st.sampled_from([0, 1, 2, GRID - 1, GRID, GRID + 1, PIECE, 2 * PIECE]), min_size=1, max_size=4)
)
def test_all_who_read_one_stream_get_all_of_it_from_where_they_began(blocks: list[tuple[bytes, int]], offsets: list[int]) -> None:
    data = b"".join(block * count for block, count in blocks)

    async def read(tails: Tails, folder: RunFolder, offset: int, found: list[Told]) -> None:
        async with tails.watching(folder, records.STDOUT) as tail:
            async for told in pieces(tail, offset):
                assert told is not None
                found.append(told)

    async def read_all(folder: RunFolder) -> list[list[Told]]:
        tails = Tails(lambda _: None)
        found: list[list[Told]] = [[] for _ in offsets]
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                for offset, mine in zip(offsets, found, strict=True):
                    group.start_soon(read, tails, folder, offset, mine)
        return found

    with tempfile.TemporaryDirectory() as root:
        path = Path(root) / "runs" / run_id(1)
        path.mkdir(parents=True)
        (path / records.STDOUT).write_bytes(data)
        (path / records.EXIT).touch()
        everybody = anyio.run(read_all, RunFolder(path))
    for offset, mine in zip(offsets, everybody, strict=True):
        told = [json.loads(each.text) for each in mine]
        at = offset
        for piece, each in zip(told, mine, strict=True):
            assert (piece["offset"], piece["next_offset"]) == (at, each.next_offset)
            assert len(data_of(piece)) <= PIECE
            at = each.next_offset
        assert b"".join(map(data_of, told)) == data[offset:]
        assert [piece["last"] for piece in told] == [False] * (len(told) - 1) + [True] * bool(told)
