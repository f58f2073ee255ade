"""A run's spans, folded from recordings of the real CLI."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cc_executor.model.event import Event, Finished, Started, ToolCalled, ToolReturned
from cc_executor.model.outcome import Outcome, OutcomeKind
from cc_executor.model.receipt import Receipt, Times
from cc_executor.model.request import RunRequest
from cc_executor.model.spans import CHILDREN, DENIED, LEFT_OUT, Span, run_spans
from cc_executor.policy.redact import MASK, Redactor
from support import receipts
from support.recordings import events_of

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
STEP = 0.01  # seconds from one event to the next


def receipt(outcome: OutcomeKind = OutcomeKind.OK, *, agent: str = "claude") -> Receipt:
    times = Times(started=START, ended=START + timedelta(seconds=1000), elapsed=1000.0, active=1000.0)
    return receipts.receipt(times=times, outcome=Outcome(kind=outcome, summary=""), agent=agent, session_id="the-session")


def spans(events: list[Event], sealed: Receipt | None = None, *, content: bool = False, prompt: str = "hello") -> list[Span]:
    timed = [(STEP * number, [event]) for number, event in enumerate(events)]
    request = RunRequest(prompt=prompt, cwd="/")
    return run_spans(sealed or receipt(), request, timed, provider="anthropic", mask=Redactor().text, has_content=content)


def recorded(name: str) -> list[Event]:
    return list(events_of(name))


def under(all_spans: list[Span], parent: Span | None) -> list[str]:
    return [span.name for span in all_spans[1:] if span.parent is parent]


def test_turns_and_tools_are_told_with_the_tokens_of_each() -> None:
    run, *children = spans(recorded("02b-tools-bypass-sandbox"))
    assert run.name == "invoke_agent claude"
    assert run.attributes["gen_ai.conversation.id"] == "the-session"
    assert {span.name.partition(" ")[0] for span in children} == {"chat", "execute_tool"}
    assert all(run.start <= span.start <= span.end <= run.end for span in children)
    turns = [span for span in children if span.is_client]
    assert all(span.attributes["gen_ai.usage.input_tokens"] for span in turns)
    assert not any(name in span.attributes for span in children for name in ("gen_ai.output.messages", "gen_ai.tool.call.arguments"))


@pytest.mark.parametrize("name", ["14a-subagent", "14a-v329-subagent"])
def test_what_a_subagent_does_is_below_its_call(name: str) -> None:
    found = spans(recorded(name))
    call = next(span for span in found if span.name in {"execute_tool Task", "execute_tool Agent"})
    below = under(found, call)
    assert any(each.startswith("chat") for each in below), [span.name for span in found]
    assert found.index(call) < min(found.index(span) for span in found if span.parent is call)


def test_a_request_that_was_tried_again_is_one_turn() -> None:
    found = spans(recorded("03f-429-once-then-ok"))
    assert [(span.name.partition(" ")[0], span.error) for span in found[1:]] == [("chat", "")]


def test_a_refused_key_is_a_turn_that_failed() -> None:
    found = spans(recorded("16-v329-401"), receipt(OutcomeKind.AUTH))
    assert found[0].error == "auth"
    assert [span.error for span in found[1:]] != [""]
    assert all(span.name.startswith("chat") for span in found[1:])


def test_a_denied_call_says_so() -> None:
    events = recorded("02f-default-denied")
    [finished] = [event for event in events if isinstance(event, Finished)]
    denied = [span.attributes["gen_ai.tool.call.id"] for span in spans(events) if span.error == DENIED]
    assert denied == [denial.tool_id for denial in finished.denials] != []


def test_content_is_told_only_on_demand_and_never_a_secret() -> None:
    secret = "sk-ant-0123456789abcdef"
    events: list[Event] = [
        *recorded("02b-tools-bypass-sandbox"),
        ToolCalled(tool_id="t", name="Bash", input=f'{{"command": "echo {secret}"}}'),
    ]
    found = spans(events, content=True, prompt=f"use {secret}")
    told = str([span.attributes for span in found])
    assert secret not in told
    assert MASK in str(found[0].attributes["gen_ai.input.messages"])
    assert MASK in str(found[-1].attributes["gen_ai.tool.call.arguments"])
    assert any("gen_ai.output.messages" in span.attributes for span in found[1:])
    assert secret not in str([span.attributes for span in spans(events, prompt=f"use {secret}")])


def test_what_was_cut_off_ends_with_the_run() -> None:
    calls: list[Event] = [ToolCalled(tool_id="t", name="Bash")]
    [run, call] = spans(calls, receipt(OutcomeKind.CANCELLED))
    assert (call.end, call.error) == (run.end, "cancelled")


def test_a_run_in_which_the_clock_was_set_back_took_as_long_as_it_took() -> None:
    sealed = receipt()
    times = sealed.times.model_copy(update={"ended": START - timedelta(hours=1), "elapsed": 20.0})
    timed: list[tuple[float, list[Event]]] = [(5.0, [ToolCalled(tool_id="t", name="Bash")]), (8.0, [ToolReturned(tool_id="t", text="")])]
    request = RunRequest(prompt="-", cwd="/")
    [run, call] = run_spans(sealed.model_copy(update={"times": times}), request, timed, provider="anthropic", mask=str)
    assert (run.start, run.end) == (START.timestamp(), START.timestamp() + 20)
    assert (call.start, call.end) == (START.timestamp() + 5, START.timestamp() + 8)


def test_a_sleep_of_the_machine_moves_what_comes_after_it() -> None:
    base = START.timestamp()
    events: list[Event] = [
        Started(seq=0, t=1.0, at=base + 1, shim_pid=1, agent_pid=2),
        Started(seq=1, t=2.0, at=base + 502, shim_pid=1, agent_pid=2),
    ]
    call = ToolCalled(tool_id="t", name="Bash")
    [_, span] = run_spans(
        receipt(), RunRequest(prompt="-", cwd="/"), [(1.0, events[:1]), (2.0, events[1:]), (3.0, [call])], provider="anthropic", mask=str
    )
    assert span.start == pytest.approx(base + 503)


def test_more_than_an_exporter_takes_is_counted() -> None:
    found = spans([ToolCalled(tool_id=str(number), name="Bash") for number in range(CHILDREN + 5)])
    assert len(found) == CHILDREN + 1
    assert found[0].attributes[LEFT_OUT] == 5


def test_a_command_is_no_agent() -> None:
    [run] = run_spans(receipt(agent="shell"), RunRequest(prompt="-", cwd="/", agent="shell"), (), provider="", mask=str)
    assert run.name == "run shell"
    assert not any(name.startswith("gen_ai.") for name in run.attributes)
