"""Bounds that the environment and a notebook's caps set for what is run outside of cells, whose settings have the same names. Knows no run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from cc_executor.errors import InvalidRequest
from cc_executor.model.request import Limits
from cc_executor.runtime.caps import standing_caps

PREFIX: Final = "CC_EXECUTOR_"
DAY: Final = "max_cost_per_day"
_FIELDS: Final = {"timeout": "wall", "max_cost": "cost", "max_turns": "turns", DAY: ""}  # of `Limits`


def bounds_of(environ: Mapping[str, str]) -> dict[str, float]:
    """What the environment says of timeout, max_cost, max_turns and max_cost_per_day; or the notebook, in whose kernel this is, of money, if that is less.

    Raises
    ------
    InvalidRequest
        A variable's value, or a setting's, is no bound.
    """
    found: dict[str, float] = {}
    for name in _FIELDS:
        variable = PREFIX + name.upper()
        text = environ.get(variable, "")
        if text.strip().lower() in {"", "none"}:
            continue
        try:
            value = int(text) if name == "max_turns" else float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            raise InvalidRequest(
                f"The environment variable {variable} is {text!r}; it must be a number greater than 0, or none. Change or unset it."
            )
        found[name] = value
    for name, value in standing_caps().items():
        found[name] = min(value, found.get(name, value))
    return found


def bounded(options: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """The options of a run with those bounds that they leave open. What is given, by itself or in `limits`, counts."""
    limits = options.get("limits")
    given = {name for name in _FIELDS if options.get(name) is not None}
    if isinstance(limits, Limits):
        given |= {name for name, field in _FIELDS.items() if field and getattr(limits, field) is not None}
    return {**options, **{name: value for name, value in bounds_of(environ).items() if name not in given}}
