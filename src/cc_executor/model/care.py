"""What is done about a run that met a limit, and about one whose work is to be looked at: words and bounds. Knows no run and no clock."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec
from pydantic import BaseModel, ConfigDict, Field

LIMIT_WAIT_MAX: Final = 6 * 3600.0  # seconds; the longest window that a subscription's reset is awaited in is five hours
OUTPUT_TRIES: Final = 2  # further attempts of an answer that was cut
VALIDATOR_COST: Final = 0.5  # US dollars
VALIDATOR_TURNS: Final = 20
VALIDATOR_TIMEOUT: Final = 600.0  # seconds
# A validator looks; what it looks at stands as the task has left it.
VALIDATOR_TOOLS: Final = ("Read", "Glob", "Grep")


class OnLimit(StrEnum):
    """What a usage limit does whose reset time is known."""

    STOP = "stop"  # the run, and the list, end with that time told
    WAIT = "wait"  # until then; and then go on


class OnOutputLimit(StrEnum):
    """What is done with an answer that was cut at the model's output limit."""

    STOP = "stop"
    CONTINUE = "continue"  # go on in the same session where it stopped
    CONCISE = "concise"  # the answer again, shorter
    OUTLINE = "outline"  # an outline first, and the long parts in files


class OnUnchecked(StrEnum):
    """What a validation that could not be made means for the task."""

    FAIL = "fail"
    ACCEPT = "accept"


class LoopGuard(StrEnum):
    """What is done about an agent that goes round in a circle."""

    OFF = "off"
    TELL = "tell"  # a notice in the view
    STOP = "stop"  # the run is ended


class Care(msgspec.Struct, frozen=True, kw_only=True):
    """What the user wants done about limits.

    Attributes
    ----------
    limit_wait_max : float
        Seconds that a usage limit may be waited for.
    reask : bool
        Whether a structured result that is missing is asked for once more.
    retry : int
        Further attempts against chance.
    backs_off : bool
        Whether these wait: an agent's do; a command is tried again at once.
    """

    on_limit: OnLimit = OnLimit.STOP
    limit_wait_max: float = LIMIT_WAIT_MAX
    on_output_limit: OnOutputLimit = OnOutputLimit.STOP
    reask: bool = False
    retry: int = 0
    backs_off: bool = True

    @property
    def wants_more(self) -> bool:
        """Whether a single run may be followed by another attempt, for which somebody has to be there."""
        return self.on_limit is not OnLimit.STOP or self.on_output_limit is not OnOutputLimit.STOP or self.reask


NO_CARE: Final = Care()  # nothing is done that was not asked for


class Verdict(StrEnum):
    """What a validator says."""

    PASS = "pass"  # noqa: S105 - a word
    FAIL = "fail"
    UNCHECKED = "could_not_check"


class Validation(BaseModel):
    """A look at a task's work by a fresh agent that can only read.

    Attributes
    ----------
    prompt : str
        What has to hold.
    max_cost, max_turns, timeout
        The validator's own limits: US dollars, agent turns, seconds.
    rehearse : str or None
        A script in its model's place; the task's own if not given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str = Field(min_length=1)
    model: str | None = None
    max_cost: float = Field(default=VALIDATOR_COST, gt=0, allow_inf_nan=False)
    max_turns: int = Field(default=VALIDATOR_TURNS, ge=1)
    timeout: float = Field(default=VALIDATOR_TIMEOUT, gt=0, allow_inf_nan=False)
    rehearse: str | None = None
