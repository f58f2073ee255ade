"""Whatever a receipt and the events of a run say, its spans are a tree in time, bounded, and hold no secret."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from cc_executor.model.event import Event, Finished, MessageStarted, StatusChanged, TextWritten, ToolCalled, ToolReturned, UsageCounted
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import RunRequest
from cc_executor.model.spans import CHILDREN, LEFT_OUT, Span, run_spans
from model.test_receipt import RECEIPTS
from model.test_whole_way import EVENTS, REQUESTS

SECRET = "sk-ant-0123"
WORDS = st.sampled_from(["", "a", SECRET, f"use {SECRET}"])
IDS = st.sampled_from(["t1", "t2", SECRET])
PARENTS = st.none() | IDS
# Of a kind that opens and closes spans, and so few names that they meet.
MEETING: st.SearchStrategy[Event] = st.one_of(
    st.builds(MessageStarted, message_id=st.sampled_from(["m1", "m2"]), parent=PARENTS, model=WORDS),
    st.builds(TextWritten, block=st.just("b"), text=WORDS, whole=st.booleans(), synthetic=st.booleans(), parent=PARENTS),
    st.builds(UsageCounted, message_id=st.sampled_from(["m1", "m2"]), input_tokens=st.integers(0, 9), output_tokens=st.integers(0, 9)),
    st.builds(ToolCalled, tool_id=IDS, name=WORDS, input=WORDS, whole=st.booleans(), parent=PARENTS),
    st.builds(ToolReturned, tool_id=IDS, text=WORDS, is_error=st.booleans(), parent=PARENTS),
    st.builds(StatusChanged, status=st.just("requesting")),
)
TIMES = st.floats(-10, 2e9, allow_nan=False)
TIMED = st.lists(st.tuples(TIMES, st.lists(MEETING | EVENTS, max_size=3)), max_size=10)
PROVIDERS = st.sampled_from(["anthropic", ""])
GIVEN = (RECEIPTS, REQUESTS, TIMED, PROVIDERS, st.booleans())


def masked(text: str) -> str:
    return text.replace(SECRET, "[masked]")


@given(*GIVEN)
def test_spans_are_a_tree_in_time_and_can_be_sent(
    receipt: Receipt, request: RunRequest, timed: list[tuple[float, list[Event]]], provider: str, has_content: bool
) -> None:
    spans = run_spans(receipt, request, timed, provider=provider, mask=masked, has_content=has_content)
    run, *children = spans
    assert run.parent is None
    assert run.start == receipt.times.started.timestamp() <= run.end, "whatever the clocks were set to"
    seen: list[Span] = [run]
    for span in children:
        assert span.parent is None or any(span.parent is each for each in seen), "a parent stands before its children"
        assert run.start <= span.start <= span.end <= run.end, span
        seen.append(span)
    for span in spans:
        assert span.name.strip()
        assert all(isinstance(value, str | int | float | bool) for value in span.attributes.values())
        assert all(math.isfinite(value) for value in span.attributes.values() if isinstance(value, float))
        if not has_content:
            assert not {name for name in span.attributes if name.endswith((".messages", ".arguments", ".result"))}
    if not provider:
        assert not [span for span in children if span.is_client], "no model is at work"


@given(TIMED.filter(lambda timed: not any(isinstance(event, Finished) for _, events in timed for event in events)), st.booleans())
def test_no_secret_is_in_any_span(timed: list[tuple[float, list[Event]]], has_content: bool) -> None:
    receipt, request = _quiet()
    spans = run_spans(receipt, request.model_copy(update={"prompt": SECRET}), timed, provider="x", mask=masked, has_content=has_content)
    assert SECRET not in str([(span.name, span.attributes, span.error) for span in spans])


def _quiet() -> tuple[Receipt, RunRequest]:
    from support import receipts

    return receipts.receipt(session_id="s"), RunRequest(prompt="p", cwd="/")


@given(st.integers(0, 2 * CHILDREN), st.integers(0, CHILDREN))
def test_a_run_of_any_length_has_so_many_spans_and_says_how_many_more_there_were(calls: int, turns: int) -> None:
    receipt, request = _quiet()
    events: list[Event] = [
        *(MessageStarted(message_id=f"m{number}") for number in range(turns)),
        *(ToolCalled(tool_id=f"t{number}", name="Bash", parent=f"t{number - 1}") for number in range(calls)),
    ]
    run, *children = run_spans(receipt, request, [(0.5, events)], provider="x", mask=masked)
    assert len(children) == min(CHILDREN, calls + turns)
    assert run.attributes.get(LEFT_OUT, 0) == calls + turns - len(children)
    known = {id(span) for span in children}
    assert all(span.parent is None or id(span.parent) in known for span in children)
