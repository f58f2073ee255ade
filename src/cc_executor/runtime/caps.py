"""What nothing that this process runs may cost more than, as a notebook's settings say. Nothing heavy: a kernel says so while it loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from cc_executor.errors import InvalidRequest
from cc_executor.model.number import is_finite

_said: Final[dict[int, Callable[[], Mapping[str, float | None]]]] = {}


def keep_caps(who: int, caps: Callable[[], Mapping[str, float | None]]) -> None:
    """Let caps hold for runs that name none of their own, until `drop_caps`.

    Parameters
    ----------
    who : int
        Says it; what the same one has said before holds no more.
    caps : callable
        Asked for each run; gives US dollars, or None for no cap, under `max_cost` and `max_cost_per_day`.
    """
    _said[who] = caps


def drop_caps(who: int) -> None:
    """Let them hold no more."""
    _said.pop(who, None)


def standing_caps() -> dict[str, float]:
    """The caps that hold now; where several have said one, the smallest.

    Raises
    ------
    InvalidRequest
        One is no bound.
    """
    found: dict[str, float] = {}
    for caps in tuple(_said.values()):
        for name, value in caps().items():
            if value is not None:
                if not (is_finite(value) and value > 0):
                    raise InvalidRequest(
                        f"The setting CCExecutor.{name} is {value!r}; it must be a number greater than 0, or None. Change it."
                    )
                found[name] = min(value, found.get(name, value))
    return found
