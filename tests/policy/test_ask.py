"""Who is asked: a table, and what is said where nobody is."""

from __future__ import annotations

import pytest

from cc_executor.model.ask import Answer, Decision
from cc_executor.model.event import Answered, Denial, Event, Finished, PermissionAsked, SessionOpened, TextWritten
from cc_executor.model.exit import ExitFacts
from cc_executor.model.fold import advance_all
from cc_executor.model.outcome import OutcomeKind
from cc_executor.model.request import RunRequest
from cc_executor.model.state import RunState
from cc_executor.policy.ask import Place, answerer, cure_of, in_kernel, in_terminal, message_for_agent
from cc_executor.policy.verdict import judge
from policy.test_verdict import facts


@pytest.mark.parametrize(
    ("is_shown", "takes_input", "was_looked_at", "place"),
    [
        (True, True, False, Place.VIEW),  # JupyterLab, before its page has spoken
        (True, False, True, Place.VIEW),  # a page has opened the view of a notebook that a program executes
        (True, False, False, Place.HEADLESS),  # nbclient, papermill
        (False, True, True, Place.CAPTURED),  # %%capture
    ],
)
def test_a_notebook_is_asked_if_somebody_can_see_it(*, is_shown: bool, takes_input: bool, was_looked_at: bool, place: Place) -> None:
    who = in_kernel(is_shown=is_shown, takes_input=takes_input, was_looked_at=was_looked_at)
    assert (who.place, who.is_there) == (place, place is Place.VIEW)


@pytest.mark.parametrize(("reads", "shows"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_terminal_is_asked_if_it_is_one_in_both_directions(*, reads: bool, shows: bool) -> None:
    assert in_terminal(reads=reads, shows=shows).is_there == (reads and shows)


@pytest.mark.parametrize("place", [place for place in Place if not answerer(place).is_there])
def test_every_refusal_tells_the_agent_why_and_the_user_the_cure(place: Place) -> None:
    assert answerer(place).refusal in message_for_agent(answerer(place))
    assert cure_of(place.value, "Bash").endswith(', or allow it beforehand with --tools "Bash".')
    assert cure_of(place.value, "") != cure_of("another", "")


def outcome_of(*events: Event) -> tuple[OutcomeKind, str, str]:
    denial = Denial(name="Bash", tool_id="t1")
    state = advance_all(
        RunState(),
        [
            SessionOpened(session_id="s"), TextWritten(block="A:0", text="x", whole=True), PermissionAsked(ask_id="q", tool_id="t1", name="Bash"), *events,
            Finished(subtype="success", is_error=False, text="x", terminal_reason="completed", stop_reason="end_turn", denials=(denial,)),
        ],
    )  # fmt: skip
    outcome = judge(state, request=RunRequest(prompt="p", cwd="/", ask=True), exit=_ended_well())
    return outcome.kind, outcome.summary, outcome.cure


def _ended_well() -> ExitFacts:
    return facts(code=0)


def test_what_a_person_denied_is_no_failure_and_what_nobody_could_answer_is_one() -> None:
    assert outcome_of(Answered(ask_id="q", decision="deny", by="view"))[0] is OutcomeKind.OK
    assert outcome_of()[0] is OutcomeKind.DENIED
    kind, summary, cure = outcome_of(Answered(ask_id="q", decision="refused", by="cc_executor", note="headless"))
    assert kind is OutcomeKind.DENIED
    assert "executed without anybody at its front end" in summary
    assert cure == 'Run the cell in JupyterLab, or allow it beforehand with --tools "Bash".'


def test_a_note_is_what_was_said_and_bounded() -> None:
    assert Answer(decision=Decision.ANSWER, text="no", answers=("a", "b")).note == "a · b"
    assert len(Answer(decision=Decision.DENY, text="x" * 10_000).note) == 2000
