"""What the options and settings of a cell make of the lint; the cells themselves are on docs/lint.md and in notebooks/validation.ipynb."""

from __future__ import annotations

from typing import Any

import pytest

from cc_executor.errors import InvalidRequest
from cc_executor.kernel.config import CCExecutor
from cc_executor.kernel.order import Order, order_of

PROMPT = "Help me write a parser for the files in logs/, and ask me first."


def order(line: str, body: str = PROMPT, *, environ: dict[str, str] | None = None, **more: Any) -> Order:
    return order_of(line, f"{body}\n", settings=CCExecutor(environ or {}), namespace={"column": 1}, **more)


def test_without_the_options_nothing_is_said_and_nothing_changed() -> None:
    found = order("")
    assert (found.remarks, found.request.prompt, found.request.amended) == ("", PROMPT, ())


def test_findings_are_said_and_the_prompt_is_sent_as_it_stands() -> None:
    found = order("--lint")
    assert "dialogue" in found.remarks
    assert "asks-back" in found.remarks
    assert (found.request.prompt, found.request.amended) == (PROMPT, ())
    assert order("", lint=True).remarks == found.remarks


@pytest.mark.parametrize(
    ("line", "environ"),
    [("--lint --lint-off asks-back", {}), ("--lint", {"CC_EXECUTOR_LINT_OFF": "asks-back, too-short"})],
    ids=["option", "setting"],
)
def test_rules_are_switched_off_by_option_and_setting(line: str, environ: dict[str, str]) -> None:
    remarks = order(line, environ=environ).remarks
    assert "dialogue" in remarks
    assert "asks-back" not in remarks


def test_only_a_suggestion_that_is_asked_for_is_put_in_and_shown() -> None:
    found = order("--lint-apply dialogue")
    assert found.request.prompt == PROMPT.replace("Help me write", "Write")
    assert found.request.amended == ("dialogue",)
    assert f"-{PROMPT}" in found.remarks
    assert order("", found.request.prompt).request.digest() == found.request.digest(), "the same prompt is the same work"


def test_a_variable_of_the_notebook_that_is_not_filled_in_is_found_and_other_braces_are_not() -> None:
    assert "unfilled-variable" in order("--lint", "Read {{column}} of a.csv and write its mean to b.txt").remarks
    assert "unfilled-variable" not in order("--lint", "Read {{row}} of a.csv and write its mean to b.txt").remarks
    assert "unfilled-variable" not in order("--lint --vars", "Read {{column}} of a.csv and write its mean to b.txt").remarks


def test_a_prompt_that_may_be_too_long_is_told_of_in_any_case() -> None:
    assert order("", "word " * 160_000).remarks.startswith("This prompt may be more than the model can take. It has about")
    assert order("--lint-off context-size", "word " * 160_000).remarks == ""


@pytest.mark.parametrize("line", ["--lint", "--lint-apply dialogue", "--lint-off nonsense"])
def test_a_command_is_not_looked_over(line: str) -> None:
    with pytest.raises(InvalidRequest, match="for prompts"):
        order(f"--agent shell {line}")
    assert order("--agent shell", "make").remarks == ""


@pytest.mark.parametrize(("line", "said"), [("--lint-off vage", "no lint rule 'vage'"), ("--lint-apply vague", "no text to put in")])
def test_a_rule_that_cannot_be_is_refused_before_anything_starts(line: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        order(line)
