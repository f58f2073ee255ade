"""Bounds that the environment and a notebook's caps set for what is run outside of cells, whose settings have the same names. Knows no run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from cc_executor.errors import InvalidRequest
from cc_executor.model.number import is_finite
from cc_executor.model.request import Limits
from cc_executor.runtime.caps import standing_caps
from cc_executor.store.plain import read_plain, write_whole

if TYPE_CHECKING:  # single runs have no need of lists
    from cc_executor.store.tasklists import ListFolder

PREFIX: Final = "CC_EXECUTOR_"
DAY: Final = "max_cost_per_day"
COST: Final = "max_cost"
KEPT: Final = "max_cost.json"  # in a list's folder: what each of its runs may cost where its task does not say
_FIELDS: Final = {"timeout": "wall", COST: "cost", "max_turns": "turns", DAY: ""}  # of `Limits`


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
        if not (is_finite(value) and value > 0):
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


def keep_cap(folder: ListFolder, caps: Mapping[str, float]) -> None:
    """Write down what each run of a list may cost, for whoever goes on in the place of this process. Who joins a list that somebody runs lifts no cap."""
    cap, known = caps.get(COST), _kept(folder)
    if known is not None and folder.is_run():
        cap = min(known, cap or known)
    if cap != known:
        with suppress(OSError):  # who runs the list from here on has it all the same
            write_whole(folder.path / KEPT, json.dumps(cap).encode(), sync=False)


def with_kept_cap(environ: Mapping[str, str], folder: ListFolder) -> Mapping[str, str]:
    """The environment for the runs of a list that goes on, with what `keep_cap` has written down. Raises `InvalidRequest`."""
    cap = _kept(folder)
    return environ if cap is None else {**environ, PREFIX + COST.upper(): repr(min(cap, bounds_of(environ).get(COST, cap)))}


def _kept(folder: ListFolder) -> float | None:
    try:
        cap = json.loads(read_plain(folder.path / KEPT))
    except (OSError, ValueError):  # mostly: nobody has said one
        return None
    return float(cap) if isinstance(cap, int | float) and cap > 0 else None
