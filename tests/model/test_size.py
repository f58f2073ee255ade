"""Sizes as people write them; and that how much is kept of a run is no part of what it was asked for."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from cc_executor.model.request import JOURNAL, Limits, RunRequest
from cc_executor.model.size import size_of


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1000000", 10**6),
        ("500MB", 500 * 10**6),
        ("500 mb", 500 * 10**6),
        ("1.5 GB", 15 * 10**8),
        ("20g", 2 * 10**10),
        ("1GiB", 2**30),
        ("2 TiB", 2**41),
        ("none", None),
        (" None ", None),
        (4096, 4096),
    ],
)
def test_a_size_is_what_people_mean(text: str | int, size: int | None) -> None:
    assert size_of(text) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "-1", "1e9", "20 XB", "1,5 GB", "inf", float("nan"), float("inf"), True, "9" * 400, "9" * 5000, 10**400, 2**63]
)
def test_what_is_no_size_is_refused(text: str | float) -> None:
    with pytest.raises(ValueError, match="must be"):
        size_of(text)


def test_a_limit_too_small_for_an_end_is_refused() -> None:
    with pytest.raises(ValidationError, match="1 MB or more"):
        Limits(journal=999_999)


@pytest.mark.parametrize("journal", [JOURNAL, 10**6, None])
def test_a_request_keeps_the_digest_that_it_had_before_there_was_a_limit(journal: int | None) -> None:
    request = RunRequest(prompt="Say hello.", cwd="/somewhere", limits=Limits(wall=60.0, journal=journal))
    assert request.digest() == "8c07087872d578744254cdd5f66f6d44678965a6c7311cf5ecec6619165ea5ca"
