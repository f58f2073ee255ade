"""How many tokens a text has: within its bounds for three public tokenizers, never refused by mistake, and quick."""

from __future__ import annotations

import json
import time
from typing import Any, Final

import pytest

from cc_executor.api import make_request
from cc_executor.errors import InvalidRequest
from cc_executor.model.request import SURELY_FITS
from cc_executor.policy import tokens
from support.environments import CHECKOUT
from support.recordings import CLAUDE

SAMPLES: Final[list[dict[str, Any]]] = json.loads((CHECKOUT / "tests" / "policy" / "token_samples.json").read_bytes())["samples"]
EARLIER: Final = "claude-sonnet-4-5"  # with the tokenizer before the newer one
# What docs/lint.md promises of `likely`, against the published tokenizer.
WITHIN: Final = {
    0.15: "english russian greek arabic hebrew chinese japanese korean markdown css log hex integers capitals words",
    0.25: "german french spanish vietnamese hindi thai emoji",
    0.41: "polish finnish base64",
}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample["name"])
def test_the_true_count_is_within_the_bounds(sample: dict[str, Any]) -> None:
    found = tokens.count(sample["text"], EARLIER)
    assert found.least <= min(sample["claude"], sample["cl100k"], sample["o200k"])
    assert found.most >= max(sample["claude"], sample["cl100k"], sample["o200k"])
    assert found.least <= found.likely <= found.most
    newer = tokens.count(sample["text"])
    assert newer.least == found.least
    assert newer.most >= found.most


@pytest.mark.parametrize(("share", "name"), [(share, name) for share, names in WITHIN.items() for name in names.split()])
def test_the_likely_count_is_as_near_as_the_page_says(share: float, name: str) -> None:
    (sample,) = (sample for sample in SAMPLES if sample["name"] == name)
    assert abs(tokens.count(sample["text"], EARLIER).likely / sample["claude"] - 1) <= share


@pytest.mark.parametrize("name", ["python code", "javascript", "json lines", "notebook", "numbers csv"])
def test_code_and_data_are_within_fifteen_percent(name: str) -> None:
    test_the_likely_count_is_as_near_as_the_page_says(0.15, name)


def windows_that_the_cli_reports() -> dict[str, int]:
    found: dict[str, int] = {}
    for recording in CLAUDE:
        for line in recording.stdout.splitlines():
            if b'"contextWindow"' in line:
                for model, usage in json.loads(line).get("modelUsage", {}).items():
                    found[model] = usage["contextWindow"]
    return found


def test_the_table_of_contexts_agrees_with_what_the_cli_reports() -> None:
    reported = windows_that_the_cli_reports()
    assert len(reported) >= 6
    for model, size in reported.items():
        window = tokens.window_of(model)
        assert window is not tokens.ANY, model
        assert window.sure <= size <= window.largest, model


@pytest.mark.parametrize("model", [None, "claude-next-9"])
def test_what_a_context_of_a_million_may_hold_is_not_refused(model: str | None) -> None:
    text = "word " * 900_000
    assert tokens.over(text, model) is None
    assert make_request(text, model=model).prompt == text
    assert tokens.over("x" * 5_000_000, model) is None, "one word of five million letters, as far as anybody knows"


def test_what_surely_does_not_fit_is_refused_with_the_cure() -> None:
    with pytest.raises(
        InvalidRequest,
        match=r"prompt has more than the 1,000,000 tokens that the context of the largest model holds: put the material",
    ):
        make_request("word " * 1_500_000)
    with pytest.raises(InvalidRequest, match="more than the 200,000 tokens that the context of claude-haiku-4-5 holds"):
        make_request("字" * 1_200_000, model="claude-haiku-4-5")
    assert make_request("word " * 1_500_000, agent="shell").agent == "shell", "a command has no context"


def test_what_may_not_fit_is_told_and_what_surely_fits_is_not() -> None:
    assert tokens.tight("word " * 30_000) is None
    assert "of which the agent itself needs" in (tokens.tight("word " * 150_000) or "")
    assert tokens.tight("word " * 150_000, "claude-opus-5-5") is None


def test_prompts_in_which_nothing_is_counted_fit_into_every_context() -> None:
    smallest = min(window.sure for window in (*tokens.WINDOWS, tokens.ANY)) - tokens.OVERHEAD
    assert len("\U0001f600".encode()) * SURELY_FITS <= smallest  # a token is one byte at least


def test_of_a_long_text_slices_tell_enough() -> None:
    text = "The quick brown fox, 42 jumps over(the) lazy dog.\n" * 200_000  # 10 MB
    begun = time.process_time()
    found = tokens.count(text, EARLIER)
    assert time.process_time() - begun < 3
    whole = 200_000 * 15  # as the published tokenizer counts it
    assert found.least < whole < found.most
    assert abs(found.likely / whole - 1) < 0.15
    begun = time.process_time()
    assert tokens.over(text)
    assert tokens.over("x" * 9_000_000) is None
    assert time.process_time() - begun < 4
