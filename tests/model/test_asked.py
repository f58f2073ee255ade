"""What came with questions leaves what was before as it was."""

from __future__ import annotations

from datetime import UTC, datetime

from cc_executor.model.outcome import Outcome, OutcomeKind
from cc_executor.model.receipt import AskedFor, Exit, Receipt, Times
from cc_executor.model.request import RunRequest

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RECEIPT = Receipt(
    run_id="r",
    request_digest="d",
    agent="claude",
    prompt_sha256="p",
    times=Times(started=MOMENT, ended=MOMENT, elapsed=1.5, active=1.0),
    outcome=Outcome(kind=OutcomeKind.OK, summary="s"),
    exit=Exit(code=0),
)


def test_receipts_and_requests_keep_the_digests_that_they_had_before_there_were_questions() -> None:
    assert RECEIPT.expected_digest() == "dcdff0fd23c2fae5a71fe3c5e424f0d4f069dd60014d656b025541d17c2e5f67"
    assert RunRequest(prompt="p", cwd="/").digest() == "aefbde9d935453e21a7d2dc09a0306efc5402d0e71f5c23495d1c3589656f565"


def test_a_question_and_its_answer_are_part_of_what_is_sealed() -> None:
    asked = AskedFor(kind="permission", what="Bash: make", decision="allow", by="view", at=MOMENT)
    sealed = RECEIPT.model_copy(update={"asked": (asked,)}).sealed()
    assert sealed.digest != RECEIPT.expected_digest()
    assert Receipt.model_validate_json(sealed.model_dump_json()).is_intact
    forged = sealed.model_copy(update={"asked": (asked.model_copy(update={"by": "cli"}),)})
    assert not forged.is_intact
    assert RunRequest(prompt="p", cwd="/", ask=True).digest() != RunRequest(prompt="p", cwd="/").digest()
