from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_executor.agents.framing import HEAD_LIMIT, LineSplitter, Overlong, StderrDecoder, TextStream
from cc_executor.model.event import StderrWritten


def split(chunks: Iterable[bytes], *, limit: int = 1000) -> list[bytes | Overlong]:
    lines = LineSplitter(limit=limit)
    return [line for chunk in chunks for line in lines.feed(chunk)] + lines.close()


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def expected(data: bytes, limit: int) -> list[bytes | Overlong]:
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [Overlong(line[:HEAD_LIMIT], len(line)) if len(line) > limit else line for line in lines]


@given(
    st.lists(st.sampled_from([b"", b"a", b"{}", "é\u0085\u2028".encode(), b"\r", b"x" * 30, b"\n", b"\n\n"])), st.lists(st.integers(0, 300))
)
def test_any_cut_of_a_stream_gives_the_same_lines(pieces: list[bytes], places: list[int]) -> None:
    data = b"".join(pieces)
    assert split(cut(data, places), limit=25) == expected(data, 25)


def test_only_a_newline_ends_a_line() -> None:
    text = "a\u0085b\u2028c\rd\x0be\x0cf\x1cg".encode()
    assert split([text + b"\nnext\n"]) == [text, b"next"]


def test_an_overlong_line_is_one_counted_piece_with_its_beginning() -> None:
    lines = LineSplitter(limit=10_000)
    assert lines.feed(b"first\n" + b"x" * 9_000) == [b"first"]
    assert lines.feed(b"y" * 9_000) == []
    assert lines.feed(b"z" * 5) == []
    (piece, after) = lines.feed(b"\nafter\n")
    assert piece == Overlong(b"x" * HEAD_LIMIT, 18_005)
    assert after == b"after"


def test_an_overlong_line_without_a_newline_is_told_at_the_end() -> None:
    lines = LineSplitter(limit=10)
    assert lines.feed(b"0123456789ABC") == []
    assert lines.close() == [Overlong(b"0123456789ABC"[:HEAD_LIMIT], 13)]
    assert lines.close() == []


def test_a_copy_made_within_an_overlong_line_tells_the_rest_of_it() -> None:
    lines = LineSplitter(limit=10)
    lines.feed(b"x" * (HEAD_LIMIT + 11))
    assert lines.copy().feed(b"yz\nafter\n") == lines.feed(b"yz\nafter\n") == [Overlong(b"x" * HEAD_LIMIT, HEAD_LIMIT + 13), b"after"]


def test_overlong_lines_inside_one_chunk_are_found_too() -> None:
    assert split([b"ok\n" + b"x" * 11 + b"\nok\n"], limit=10) == [b"ok", Overlong(b"x" * 11, 11), b"ok"]


def test_a_copy_goes_its_own_way() -> None:
    lines = LineSplitter(limit=10)
    lines.feed(b"abc")
    twin = lines.copy()
    assert lines.feed(b"1\n") == [b"abc1"]
    assert twin.feed(b"2\n") == [b"abc2"]
    twin.feed(b"x" * 11)
    again = twin.copy()
    assert again.feed(b"\n") == twin.feed(b"\n") == [Overlong(b"x" * 11, 11)]


def test_a_line_of_sixty_megabytes_in_small_chunks_costs_its_own_size_in_memory() -> None:
    lines = LineSplitter()
    chunk = b"x" * 65_536
    tracemalloc.start()
    try:
        for _ in range(960):
            assert lines.feed(chunk) == []
        (line,) = lines.feed(b"\n")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(line) == 960 * 65_536
    assert peak <= 2.5 * len(line)


def test_the_work_grows_with_the_bytes_and_not_with_their_square() -> None:
    def calls(chunks: int) -> int:
        lines, count = LineSplitter(), 0

        def profile(_frame: object, _event: str, _arg: object) -> None:
            nonlocal count
            count += 1

        sys.setprofile(profile)
        try:
            for _ in range(chunks):
                lines.feed(b"x" * 100)
        finally:
            sys.setprofile(None)
        return count

    assert calls(2_000) <= 2.2 * calls(1_000)


@given(st.text(), st.lists(st.integers(0, 200)))
def test_characters_cut_by_a_chunk_are_put_together(text: str, places: list[int]) -> None:
    data = text.encode("utf-8", "replace")
    stream = TextStream()
    assert "".join(map(stream.feed, cut(data, places))) + stream.close() == data.decode()


@pytest.mark.row("faults", "invalid UTF-8, NUL, half a character", "every byte is kept")
@given(st.binary(max_size=60), st.lists(st.integers(0, 60)))
def test_bytes_that_are_not_utf8_become_the_same_text_however_they_are_cut(data: bytes, places: list[int]) -> None:
    stream = TextStream()
    assert "".join(map(stream.feed, cut(data, places))) + stream.close() == data.decode("utf-8", "replace")


def test_stderr_is_text_and_an_unfinished_character_is_told_at_the_end() -> None:
    stderr = StderrDecoder()
    assert stderr.feed("é".encode()[:1]) == []
    twin = stderr.copy()
    assert stderr.feed("é".encode()[1:] + b"!") == [StderrWritten(text="é!")]
    assert twin.close() == [StderrWritten(text="\ufffd")]
    assert stderr.close() == []
