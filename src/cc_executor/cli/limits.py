"""The options of `cc-executor run` about money and limits, and what is made of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from cc_executor.errors import InvalidRequest
from cc_executor.model.request import RunRequest
from cc_executor.runtime.again import Attempts
from cc_executor.store.home import StateHome

PerDay = Annotated[
    float | None, typer.Option(metavar="DOLLARS", help="Start nothing when today's runs have cost this much; what is left bounds the run.")
]
OnLimit = Annotated[
    str | None, typer.Option(metavar="POLICY", help="What a usage limit with a known end does: stop, or wait until then and go on.")
]
WaitMax = Annotated[float | None, typer.Option(metavar="SECONDS", help="How far away that end may be; 21600 (six hours) if not given.")]
OnOutputLimit = Annotated[
    str | None, typer.Option(metavar="POLICY", help="What is done with an answer that was cut: stop, continue, concise or outline.")
]
Reask = Annotated[
    bool, typer.Option("--reask", help="With --schema: ask once more, in the same session, for a structured result that is missing.")
]
LoopGuard = Annotated[
    str, typer.Option(metavar="POLICY", help="When an agent repeats a call with the same result 12 times: tell, stop or off.")
]


def attempts(request: RunRequest, further: Mapping[str, Any], *, max_cost_per_day: float | None, detach: bool, home: StateHome) -> Attempts:
    """The run with what may follow it.

    Raises
    ------
    InvalidRequest
        An option does not fit, or nobody would be there to make further attempts.
    """
    from cc_executor.api import take_care

    care, day = take_care({**further, "max_cost_per_day": max_cost_per_day, "schema": request.output_schema})
    if detach and care.wants_more:
        raise InvalidRequest("Nobody is there to make further attempts of a --detach run: leave --detach out, or make it a task list.")
    return Attempts(request, care, max_cost_per_day=day, home=home, environ=os.environ)
