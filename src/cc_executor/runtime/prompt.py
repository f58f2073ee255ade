"""A question of an agent, asked in a terminal without holding up the loop. Knows one terminal's input and output; knows no run.

Lines are read when there are some: no thread waits in `input()`, which nobody could take back when the question is answered elsewhere.
"""

from __future__ import annotations

import os
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import anyio

from cc_executor.model.ask import Answer, Body, Decision, ShownAsk
from cc_executor.model.event import Question

LINE_LIMIT: Final = 4096  # bytes: what a terminal hands over as one line at most (termios(3), canonical mode)
INDENT: Final = "      "
_ALLOW: Final = frozenset({"a", "allow", "y", "yes"})
_ALLOW_RUN: Final = frozenset({"r", "run"})
_DENY: Final = frozenset({"d", "deny", "n", "no"})


async def prompted(ask: ShownAsk, *, fd: int, say: Callable[[str], None]) -> Answer:
    """What somebody at the terminal says to `ask`. Cancelled, it has taken nothing.

    Parameters
    ----------
    fd : int
        The terminal's input.
    say : callable
        Writes a line there.
    """
    if ask.questions:
        return await _questions(ask, fd, say)
    _forget_typed(fd)
    say(heading(ask))
    while True:
        line = await _line(fd)
        answer = Answer(decision=Decision.DENY) if line is None else permission(line)
        if answer is not None:
            return answer
        say("    Type a, r or d, and press Enter.")


def heading(ask: ShownAsk) -> str:
    """The request and the ways to answer it."""
    about = f" — {ask.about}" if ask.about else ""
    body = "\n".join(INDENT + row for row in ask.body.split("\n"))
    verb = "change a file with " if ask.body_kind is Body.DIFF else "use "
    return (
        f"\n  ? The agent asks for leave to {verb}{ask.title}{about}\n{body}\n"
        f"    a  allow once\n    r  allow for this run: {ask.scope}\n    d  deny; d and a reason tells the agent why"
    )


def permission(line: str) -> Answer | None:
    """The answer that a line means; None when it means none."""
    word, _, rest = line.strip().partition(" ")
    if word.lower() in _DENY:
        return Answer(decision=Decision.DENY, text=rest.strip())
    if rest:
        return None
    if word.lower() in _ALLOW:
        return Answer(decision=Decision.ALLOW)
    return Answer(decision=Decision.ALLOW_RUN) if word.lower() in _ALLOW_RUN else None


async def _questions(ask: ShownAsk, fd: int, say: Callable[[str], None]) -> Answer:
    answers: list[str] = []
    say(f"\n  ? {ask.title} asks")
    for question in ask.questions:
        _forget_typed(fd)
        say(question_words(question))
        text: str | None = ""
        while text == "":
            line = await _line(fd)
            text = None if line is None else chosen(question, line)
            if question.optional and line is not None and not line.strip():
                break
        if text is None:
            return Answer(decision=Decision.DENY, text="The user did not want to answer.")
        answers.append(text)
    return Answer(decision=Decision.ANSWER, answers=tuple(answers))


def question_words(question: Question) -> str:
    """A question with its options."""
    rows = [f"    {question.text}"]
    for number, option in enumerate(question.options, start=1):
        rows.append(f"      {number}  {option.label}{f' — {option.description}' if option.description else ''}")
    how = "numbers, with commas between them, or words of your own" if question.multiple else "a number, or words of your own"
    rows.append(f"    Type {how if question.options else 'the answer'}{', or nothing: it is optional' if question.optional else ''}.")
    return "\n".join(rows)


def chosen(question: Question, line: str) -> str:
    """The answer that a line means: the labels of the numbers in it, else the line itself."""
    words = [word.strip() for word in line.split(",")]
    numbers = [int(word) for word in words if word.isascii() and word.isdigit()]
    if len(numbers) == len(words) and all(1 <= number <= len(question.options) for number in numbers):
        if len(numbers) == 1 or question.multiple:
            return ", ".join(question.options[number - 1].label for number in dict.fromkeys(numbers))
        return ""
    return line.strip()


def _forget_typed(fd: int) -> None:
    """Drop what was typed before a question was seen: it is no answer to it."""
    with suppress(termios.error):
        termios.tcflush(fd, termios.TCIFLUSH)


async def _line(fd: int) -> str | None:
    """The next line; None at the end of the input."""
    await anyio.wait_readable(fd)
    data = os.read(fd, LINE_LIMIT)
    return data.decode("utf-8", "replace").rstrip("\r\n") if data else None
