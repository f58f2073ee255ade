"""What a client sends as a command for a run or a list, checked. Knows its shape; obeys nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cc_executor.errors import InvalidRequest

CLICK: Final = 100  # characters; a view's have some 40
_TEXTS: Final = ("op", "task", "text", "click")


def command_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `Service.control`; what is null was not given.

    Raises
    ------
    InvalidRequest
        Also for a name that there is not: a cancel whose task is misspelled would be one of the whole list.
    """
    if unknown := sorted(given.keys() - {*_TEXTS, "pauses"}):
        raise InvalidRequest(
            f"A command takes no {unknown[0][:100]!r}: it has op and, where they are needed, task, text, click and pauses."
        )
    found = {name: value for name, value in given.items() if value is not None}
    if wrong := [name for name in _TEXTS if not isinstance(found.get(name, ""), str)]:
        raise InvalidRequest(f"{wrong[0]} must be a text.")
    pauses: object = found.get("pauses", 0)
    if type(pauses) is not int or pauses < 0:
        raise InvalidRequest("pauses must be a whole number: how often the run had been paused.")
    return {"op": "", **found, "click": found.get("click", "")[:CLICK]}
