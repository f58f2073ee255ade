"""From any bytes to what is shown: lines, events, state, verdict, transcript. Nothing raises, and how the bytes came in pieces changes nothing."""

from __future__ import annotations

import json
import types
from itertools import pairwise
from typing import Any, Final, Union, get_args, get_origin

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_executor.agents import agent_named
from cc_executor.model.event import AgentEvent, Event, Exited
from cc_executor.model.exit import ExitFacts
from cc_executor.model.fold import advance, advance_all
from cc_executor.model.joined import pieces_of
from cc_executor.model.receipt import Check
from cc_executor.model.request import RunRequest
from cc_executor.model.state import RunState
from cc_executor.model.transcript import Transcript
from cc_executor.policy.verdict import judge
from support.recordings import CLAUDE, together

# Few enough that events meet: the same tool, the same block, a status that means something.
WORDS: Final = st.sampled_from(
    [
        "",
        "a",
        "b",
        "A:0",
        "A:1",
        "stdout",
        "completed",
        "failed",
        "idle",
        "running",
        "success",
        "rejected",
        "rate_limit",
        "{",
        '"x"',
        "\x1b[31m",
        "\r",
        "\n",
    ]
)
SCALARS: Final[dict[Any, st.SearchStrategy[Any]]] = {
    str: WORDS | st.text(max_size=5),
    bool: st.booleans(),
    int: st.integers(-3, 3) | st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    type(None): st.none(),
    msgspec.Raw: st.sampled_from([b"{}", b"[1]", b'"s"', b"null"]).map(msgspec.Raw),
}


def of_type(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type."""
    if kind in SCALARS:
        return SCALARS[kind]
    arguments = get_args(kind)
    if get_origin(kind) in (types.UnionType, Union):
        return st.one_of(*map(of_type, arguments))
    if get_origin(kind) is tuple:
        if arguments[1:] == (...,):
            return st.lists(of_type(arguments[0]), max_size=2).map(tuple)
        return st.tuples(*map(of_type, arguments))
    if get_origin(kind) is dict:
        return st.dictionaries(*map(of_type, arguments), max_size=2)
    return st.builds(kind, **{field.name: of_type(field.type) for field in msgspec.structs.fields(kind)})


EVENTS: Final = st.one_of(*map(of_type, get_args(Event)))
# None: nobody saw the end. Else the supervisor has seen exactly one of exit code and signal.
EXITS: Final = st.none() | st.builds(
    msgspec.structs.replace,
    of_type(ExitFacts),
    code=st.shared(st.none() | st.integers(0, 255), key="code"),
    signal=st.shared(st.none() | st.integers(0, 255), key="code").map(lambda code: "SIGKILL" if code is None else None),
)
CHECKS: Final = st.lists(st.builds(Check, what=st.just("make"), passed=st.none() | st.booleans()), max_size=2)
REQUESTS: Final = st.builds(
    RunRequest,
    prompt=st.just("p"),
    cwd=st.just("/"),
    agent=st.sampled_from(["claude", "shell"]),
    output_schema=st.none() | st.just({"type": "object"}),
)


def cut(whole: Any, places: list[int]) -> list[Any]:
    edges = [0, *sorted(place % (len(whole) + 1) for place in places), len(whole)]
    return [whole[a:b] for a, b in pairwise(edges)]


PLACES: Final = st.lists(st.integers(0, 10_000), max_size=6)


# --- any events at all ------------------------------------------------------------------------------------------------


@given(st.lists(EVENTS, max_size=25), PLACES)
def test_any_events_have_one_state_however_they_are_handed_on(events: list[Event], places: list[int]) -> None:
    live = RunState()
    for event in events:
        live = advance(live, event)
    for batches in (cut(events, places), [events]):
        replayed = RunState()
        for batch in batches:
            replayed = advance_all(replayed, batch)
        assert replayed == live
    assert live.events == sum(pieces_of(event) for event in events)


@given(st.lists(EVENTS, max_size=25), PLACES)
def test_any_events_have_one_transcript_however_they_are_handed_on(events: list[Event], places: list[int]) -> None:
    whole, pieces = Transcript(), Transcript()
    whole.feed(events)
    for batch in cut(events, places):
        pieces.feed(batch)
    assert pieces.items == whole.items


@given(st.lists(EVENTS, max_size=15), EXITS, CHECKS, REQUESTS)
def test_any_run_has_an_outcome(events: list[Event], exit_: ExitFacts | None, checks: list[Check], request: RunRequest) -> None:
    outcome = judge(advance_all(RunState(), events), request=request, exit=exit_, checks=checks)
    assert outcome.summary
    if outcome.ok:
        assert exit_ is not None, "nobody saw the end"
        assert not any(check.passed is False for check in checks)
    else:
        assert outcome.evidence


# --- any bytes at all -------------------------------------------------------------------------------------------------

# Real lines, whole, torn and twice; JSON that is nothing; bytes that are no text.
LINES: Final = sorted(
    {line + b"\n" for recording in CLAUDE for line in recording.stdout.split(b"\n") if line and len(line) < 1500}, key=len
)
BYTES: Final = st.lists(
    st.sampled_from(LINES)
    | st.tuples(st.sampled_from(LINES), st.integers(0, 1500)).map(lambda pair: pair[0][: pair[1]])
    | st.sampled_from(
        [
            b"\n",
            b"{}\n",
            b"[]\n",
            b"null\n",
            b'{"type":',
            b"\r\n",
            b"\x00",
            b"\xff\xfe",
            b"\xf0\x9f",
            b"\x1b[2J",
            b'"\\ud800"\n',
            b"1e999\n",
        ]
    )
    | st.binary(max_size=12),
    max_size=12,
).map(b"".join)


def told(agent: str, pieces: list[bytes]) -> list[AgentEvent]:
    decoder = agent_named(agent).decoder()
    return [event for piece in pieces for event in decoder.feed(piece)] + list(decoder.close())


@pytest.mark.parametrize("agent", ["claude", "shell"])
@given(data=BYTES, places=PLACES)
def test_any_bytes_go_the_whole_way_and_their_pieces_do_not_matter(agent: str, data: bytes, places: list[int]) -> None:
    whole = told(agent, [data])
    state = advance_all(RunState(), [*whole, Exited(code=0)])
    in_pieces = told(agent, cut(data, places))
    assert advance_all(RunState(), in_pieces).text == advance_all(RunState(), whole).text
    if agent == "claude":  # a stream without lines is told as it comes
        assert together(in_pieces) == together(whole)
    transcript = Transcript()
    transcript.feed(whole)
    shown = json.dumps([msgspec.to_builtins(item) for item in transcript.items])
    assert "\\u001b" not in shown, "terminal control reaches the page"
    assert state.events == sum(pieces_of(event) for event in whole) + 1
