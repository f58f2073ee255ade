"""What pydantic finds wrong with a value, in words for people. Pure text; knows no model."""

from __future__ import annotations

import re
from typing import Final

GIVEN_CHARS: Final = 80  # of a value in a sentence: enough to know it again
_SHOULD: Final = re.compile(r"[A-Z][a-z]+ should ")


def must(message: str) -> str:
    """A finding as the rest of a sentence that begins with the option's name: ``must be …``."""
    return _SHOULD.sub("must ", message.removeprefix("Value error, "), count=1)


def as_given(value: object) -> str:
    """What was given, in brackets; the beginning of a long one."""
    text = repr(value)
    return f"(given: {text if len(text) <= GIVEN_CHARS else f'{text[:GIVEN_CHARS]}…'})"
