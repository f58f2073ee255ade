"""A receipt travels: through JSON, through a browser's idea of numbers, through a notebook. It is the same afterwards, or it is found out."""

from __future__ import annotations

import contextlib
import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cc_executor.model.outcome import Outcome, OutcomeKind
from cc_executor.model.receipt import Check, Exit, FileChange, Receipt, Standing, StreamDigest, Times, TokenUsage
from cc_executor.model.request import canonical_digest

# UTF-8 carries no lone surrogates; a receipt is made without them.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
NUMBERS = st.integers() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)
SECONDS = st.floats(0, 1e9, allow_nan=False) | st.integers(0, 10**6).map(float)
COUNTS = st.integers(0, 2**53)
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis puts the zone in

RECEIPTS = st.builds(
    Receipt,
    run_id=TEXT,
    request_digest=TEXT,
    agent=TEXT,
    argv=TEXTS,
    prompt_sha256=TEXT,
    transcript=st.none() | TEXT,
    rehearsed=st.none() | TEXT,
    times=st.builds(Times, started=MOMENTS, ended=MOMENTS, elapsed=SECONDS, active=SECONDS, paused=SECONDS, frozen=SECONDS),
    outcome=st.builds(Outcome, kind=st.sampled_from(OutcomeKind), summary=TEXT, evidence=TEXTS, cure=TEXT),
    exit=st.builds(Exit, code=st.none() | st.integers(0, 255), signal=st.none() | TEXT, stopped_for=st.none() | TEXT, left_behind=TEXTS),
    usage=st.builds(TokenUsage, input_tokens=COUNTS, output_tokens=COUNTS),
    cost=st.none() | st.floats(0, 1e6) | st.integers(0, 9).map(float),
    turns=st.none() | COUNTS,
    text=TEXT,
    data=JSON,
    files=st.lists(st.builds(FileChange, path=TEXT, before=st.none() | TEXT, size=st.none() | COUNTS), max_size=2).map(tuple),
    checks=st.lists(st.builds(Check, what=TEXT, passed=st.none() | st.booleans(), detail=TEXT), max_size=2).map(tuple),
    standing=st.sampled_from(Standing),
    journal=st.dictionaries(TEXT, st.builds(StreamDigest, bytes=COUNTS, dropped=COUNTS, sha256=TEXT), max_size=2),
)


class Signer:
    """Signs with nothing: what is looked at here is what the digest covers."""

    fingerprint = "SHA256:somebody"

    def sign(self, message: bytes) -> bytes:
        return message[:64]


RECEIPTS = st.builds(Receipt.sealed, RECEIPTS, st.sampled_from([None, Signer()]))


def by_browser(value: Any) -> Any:
    """A value after `JSON.stringify(JSON.parse(text))`: every number is a double, written as ECMA-262 (Number::toString) says; V8 gave the same for 20,000."""
    match value:
        case dict():
            # Keys that are whole numbers come first, in order.
            return {
                name: by_browser(value[name])
                for name in sorted(value, key=lambda name: (not name.isdigit(), name if name.isdigit() else ""))
            }
        case list():
            return [by_browser(item) for item in value]
        case bool() | None | str():
            return value
        case _:
            number = float(value)
            return int(Decimal(repr(number))) if number.is_integer() and abs(number) < 1e21 else number


@given(RECEIPTS)
def test_a_receipt_comes_back_from_json_as_it_was_and_intact(receipt: Receipt) -> None:
    back = Receipt.model_validate_json(receipt.model_dump_json())
    assert back == receipt
    assert back.is_intact
    assert back.sealed(Signer() if receipt.signed_by else None) == receipt


@given(RECEIPTS)
def test_a_receipt_that_a_browser_has_saved_again_and_again_is_intact(receipt: Receipt) -> None:
    sent = receipt.model_dump(mode="json")
    for _ in range(2):
        sent = by_browser(json.loads(json.dumps(sent, indent=1, sort_keys=True, ensure_ascii=False)))
        assert Receipt.model_validate(sent).is_intact


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value that holds no other."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    return [path] if items is None else [found for key, item in items for found in leaves(item, (*path, key))]


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case None:
            return 0
        case str():
            return f"{value}x"
        case float() if value.is_integer() and abs(value) > 2**53:
            return value / 2
        case float():
            return math.nextafter(value, math.inf)
        case _:
            return value + 1 if abs(value) < 2**53 else value // 2


@given(RECEIPTS, st.data())
def test_any_change_of_any_value_is_found(receipt: Receipt, data: st.DataObject) -> None:
    forged = receipt.model_dump(mode="json")
    places = [
        place for place in leaves(forged) if place and place[:1] != ("digest",) and (place[:1] != ("signature",) or not receipt.signature)
    ]
    *way, last = data.draw(st.sampled_from(places))
    holder = forged
    for key in way:
        holder = holder[key]
    before = holder[last]
    if way[:1] == ["outcome"] and last == "kind":
        holder[last] = "lost" if before != "lost" else "ok"
    elif last == "standing":
        holder[last] = "verified" if before != "verified" else "claimed"
    elif last in {"started", "ended"}:
        holder[last] = "1999-12-31T23:59:59Z"
    else:
        holder[last] = changed(before)
    assume(holder[last] != before)
    with contextlib.suppress(ValueError):  # a value that no receipt can have is found even sooner
        assert not Receipt.model_validate(forged).is_intact


@given(st.dictionaries(TEXT, JSON, max_size=4))
def test_the_order_of_names_does_not_matter_to_a_digest(value: dict[str, Any]) -> None:
    assert canonical_digest(dict(reversed(value.items()))) == canonical_digest(value)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_json_number_has_no_digest(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_digest({"n": number})


@pytest.mark.parametrize("number", [math.inf, math.nan])
@given(receipt=RECEIPTS)
def test_what_has_a_number_that_json_has_not_is_not_intact(number: float, receipt: Receipt) -> None:
    assert not receipt.model_copy(update={"cost": number}).is_intact
    assert not receipt.model_copy(update={"data": {"a": [number]}}).is_intact
