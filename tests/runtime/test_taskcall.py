"""What a user's own code may do when a task list calls it: each is an answer, and nothing breaks the list or the program."""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import anyio
import pytest

from cc_executor.model.listrecord import TEXT_LIMIT
from cc_executor.model.reference import Made
from cc_executor.runtime.taskcall import DATA_LIMIT, ERROR_LIMIT, call

NEEDS = {"a": Made("made", None, (), "ok", 0.0)}


class Wordless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Later:
    async def __call__(self, needs: dict[str, Made]) -> str:
        await asyncio.sleep(0)
        return needs["a"].text


async def later(needs: dict[str, Made], suffix: str = "") -> str:
    return needs["a"].text + suffix


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def raiser(error: BaseException) -> Callable[[], object]:
    def work() -> object:
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "text", "data"),
    [
        (lambda: None, "", None),
        (lambda: "words", "words", None),
        (lambda name="given": name, "given", None),
        (lambda needs=None: needs and needs["a"].text, "made", None),
        (lambda: {"n": (1, 2)}, "{'n': (1, 2)}", {"n": [1, 2]}),
        (lambda: float("nan"), "nan", None),
        (lambda: Path("a/table.csv"), "a/table.csv", None),
        (lambda needs: needs["a"].text, "made", None),
        (len, "1", 1),
        (later, "made", None),
        (functools.partial(later, suffix="!"), "made!", None),
        (Later(), "made", None),
        (lambda: later(NEEDS), "made", None),
        (lambda: nested(100_000), "<list>", None),
        (lambda: [Wordless()], "<list>", None),
        (raiser(SystemExit()), "", None),
        (lambda: threading.current_thread() is not threading.main_thread(), "True", True),
    ],
)
async def test_what_comes_back_is_text_and_data(work: Callable[..., object], text: str, data: object) -> None:
    returned = await call(work, NEEDS)
    assert (returned.text, returned.data, returned.error) == (text, data, "")


async def test_what_data_looks_like_is_cut_with_a_word_and_the_data_is_whole() -> None:
    data = {"k": "x" * TEXT_LIMIT}
    returned = await call(lambda: data, NEEDS)
    assert (returned.data, returned.error) == (data, "")
    assert len(returned.text) <= TEXT_LIMIT
    begun, said = returned.text.split("\n")
    assert said == f"[cut here: {len(repr(data)) - len(begun):,} of {len(repr(data)):,} characters are left out]"


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ZeroDivisionError("no"), "ZeroDivisionError: no"),
        (Wordless(), "Wordless"),
        (SystemExit(3), "SystemExit: 3"),
        (SystemExit(["no", "such"]), "SystemExit: ['no', 'such']"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (asyncio.CancelledError("mine"), "CancelledError: mine"),
        (CancelledError(), "CancelledError"),
        (ExceptionGroup("several", [ValueError("1")]), "ExceptionGroup: several (1 sub-exception)"),
        (ValueError("x" * 1_000_000), f"ValueError: {'x' * 1_000_000}"[:ERROR_LIMIT]),
        (StopIteration("at its end"), "RuntimeError: "),
    ],
)
async def test_whatever_it_raises_is_said_in_words(error: BaseException, words: str, *, is_async: bool) -> None:
    async def work() -> object:
        raise error

    with anyio.fail_after(10):
        returned = await call(work if is_async else raiser(error), NEEDS)
    assert returned.error.startswith(words)
    assert len(returned.error) <= ERROR_LIMIT
    assert (returned.text, returned.data) == ("", None)


@pytest.mark.parametrize("work", [raiser(ValueError("no")), later], ids=["thread", "async"])
async def test_the_log_has_the_trace_of_the_user_s_own_code_alone(work: Callable[..., object], caplog: pytest.LogCaptureFixture) -> None:
    assert (await call(work, {})).error
    (told,) = caplog.records
    assert told.getMessage() == f"{work.__module__}.{work.__qualname__}, which a task list calls, raised"
    assert told.exc_info is not None
    frames = traceback.extract_tb(told.exc_info[2])
    assert [frame.filename for frame in frames] == [__file__] * len(frames)
    assert frames


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "awaitable"])
async def test_who_waits_can_be_cancelled(*, is_async: bool) -> None:
    scope = anyio.CancelScope()

    async def wait() -> None:
        scope.cancel()
        await asyncio.Event().wait()

    def brings_an_awaitable() -> object:
        return wait()

    with anyio.fail_after(30), scope:
        await call(wait if is_async else brings_an_awaitable, {})
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("x" * (TEXT_LIMIT + 1), "32,001 characters"),
        ({"x": "y" * DATA_LIMIT}, "65,545 bytes of JSON"),
        ({complex(n) for n in range(TEXT_LIMIT)}, "characters, and a list keeps 32,000"),
    ],
)
async def test_a_result_that_cannot_be_kept_whole_is_none(value: object, said: str) -> None:
    returned = await call(lambda: value, {})
    assert said in returned.error
    assert "write it to a file" in returned.error


async def test_the_largest_results_are_kept_whole() -> None:
    assert (await call(lambda: "x" * TEXT_LIMIT, {})).text == "x" * TEXT_LIMIT
    data = {"x": "y" * (DATA_LIMIT - 9)}
    assert (await call(lambda: data, {})).data == data


async def test_what_a_program_says_when_it_ends_is_its_error() -> None:
    def main() -> None:
        sys.exit("no such file")

    assert (await call(main, {})).error == "SystemExit: no such file"
