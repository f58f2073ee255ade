"""Canaries through both nets, the supervisor's over bytes and the receipt's over text: in no form, in no pieces, however they overlap."""

from __future__ import annotations

import itertools
import json
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_executor.policy.redact import MASK, SHORTEST, Redactor
from cc_executor.shim.mask import Masker, mask_text, patterns

# Few letters, so that canaries overlap; among them what JSON escapes. None that a mask could be part of.
LETTERS: Final = st.sampled_from('aab"\\\n/é\u2028\x7f\x1b😀\udce9')  # the last: a byte of an environment that is no UTF-8
CANARIES: Final = st.lists(
    st.text(LETTERS, min_size=SHORTEST, max_size=12).filter(lambda canary: len(canary.replace("\udce9", "")) >= SHORTEST),
    min_size=1,
    max_size=3,
)


def in_json(text: str, ways: tuple[bool, ...]) -> str:
    """The inside of a JSON string in a JSON string in …, each written in ASCII alone or not."""
    for ascii_only in ways:
        text = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
    return text


WAYS: Final = [ways for depth in range(3) for ways in itertools.product([False, True], repeat=depth)]


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[str], str]:
    """Canaries, and a text with them in any form, whole, cut short, and grown into each other."""
    canaries = draw(CANARIES)
    pieces: list[str] = []
    for _ in range(draw(st.integers(1, 6))):
        canary = draw(st.sampled_from(canaries))
        form = in_json(draw(st.sampled_from([canary, canary, as_text(canary)])), draw(st.sampled_from(WAYS)))
        start, end = draw(st.sampled_from([(0, None), (0, None), (0, -1), (1, None), (3, None)]))
        pieces += [draw(st.text(LETTERS, max_size=3)), form[start:end]]
    return canaries, "".join(pieces)


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def as_text(text: str) -> str:
    """As Node reads it, and whoever else takes everything for UTF-8."""
    return as_bytes(text).decode("utf-8", "replace")


def forms(canaries: list[str]) -> set[str]:
    return {in_json(written, ways) for canary in canaries for written in (canary, as_text(canary)) for ways in WAYS}


def test_there_are_stories_to_hide() -> None:
    """That the property below is about something."""
    assert any(form in in_json('a"b\\c\nd"e', (False, True)) for form in forms(['a"b\\c\nd"e']))


@given(stories(), st.lists(st.integers(0, 200), max_size=8))
def test_no_form_of_a_canary_passes_the_supervisor_s_net_in_any_pieces(story: tuple[list[str], str], places: list[int]) -> None:
    canaries, text = story
    data = as_bytes(text)
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    masker, whole = Masker(patterns(canaries)), Masker(patterns(canaries))
    written = b"".join(masker.feed(data[a:b]) for a, b in itertools.pairwise(edges)) + masker.close()
    assert not [form for form in forms(canaries) if as_bytes(form) in written]
    assert written == whole.feed(data) + whole.close()
    assert mask_text(text, patterns(canaries)) == written.decode("utf-8", "replace")


@given(stories())
def test_no_form_of_a_canary_passes_the_receipt_s_net(story: tuple[list[str], str]) -> None:
    canaries, text = story
    redactor = Redactor(canaries)
    masked = redactor.text(text)
    assert not [form for form in forms(canaries) if form in masked]
    assert redactor.json({"a": [text, {text: (text, 1)}]}) == {"a": [masked, {masked: [masked, 1]}]}


@given(stories())
def test_of_canaries_that_overlap_no_part_is_left(story: tuple[list[str], str]) -> None:
    canaries, text = story
    assert as_text(Redactor(canaries).text(text)) == mask_text(text, patterns(canaries))


@pytest.mark.parametrize("net", ["supervisor", "receipt"])
def test_a_canary_that_grew_into_another_leaves_nothing(net: str) -> None:
    canaries, text = ["abcdefgh-1", "gh-1-ijklmnop"], "<abcdefgh-1-ijklmnop>"
    masked = mask_text(text, patterns(canaries)) if net == "supervisor" else Redactor(canaries).text(text)
    assert masked == f"<{MASK}>"
