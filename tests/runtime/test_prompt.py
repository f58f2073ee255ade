"""A question at a terminal: which of the lines that somebody types answer it."""

from __future__ import annotations

import os
import pty
from collections.abc import Iterator

import anyio
import pytest

from cc_executor.model.ask import ShownAsk
from cc_executor.model.event import Option, Question
from cc_executor.runtime.prompt import prompted

FRUIT = (Option(label="Apples"), Option(label="Pears"))


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    """The two ends of a terminal: where somebody types, and where it is read."""
    person, terminal = pty.openpty()
    yield person, terminal
    os.close(person)
    os.close(terminal)


async def test_what_is_typed_before_a_question_is_shown_answers_none(ends: tuple[int, int]) -> None:
    person, terminal = ends
    typed = {"First?": b"1\n1\n", "Second?": b"2\n"}  # twice, before the second one is shown
    os.write(person, b"1\n")
    ask = ShownAsk(id="q", kind="question", title="The agent", questions=tuple(Question(text=text, options=FRUIT) for text in typed))

    def say(text: str) -> None:
        for question, keys in typed.items():
            if question in text:
                os.write(person, keys)

    with anyio.fail_after(60):
        answer = await prompted(ask, fd=terminal, say=say)
    assert answer.answers == ("Apples", "Pears")


async def test_an_empty_line_leaves_out_what_is_optional_and_nothing_else(ends: tuple[int, int]) -> None:
    person, terminal = ends
    questions = (Question(text="Team?", optional=True, options=FRUIT), Question(text="Who?"))
    told: list[str] = []

    def say(text: str) -> None:
        told.append(text)
        os.write(person, b"\n" if "Team?" in text else b"\nAda\n" if "Who?" in text else b"")

    with anyio.fail_after(60):
        answer = await prompted(ShownAsk(id="q", kind="question", title="A form", questions=questions), fd=terminal, say=say)
    assert answer.answers == ("", "Ada")
    assert [text.splitlines()[-1].split(": ")[-1] for text in told[1:]] == ["it is optional.", "    Type the answer."]
