"""How a run ended: a value that we decide, with the evidence for it and the cure."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict


class OutcomeKind(StrEnum):
    """The fourteen ways a run can end. Only `OK` is success."""

    OK = "ok"
    FAILED = "failed"  # the agent or the command says so itself
    DENIED = "denied"  # a tool it needed was not allowed
    AUTH = "auth"  # no login, a bad key, no access
    RATE_LIMITED = "rate_limited"  # the API throttles
    USAGE_LIMITED = "usage_limited"  # a subscription's window or the credit is used up
    BUDGET = "budget"
    MAX_TURNS = "max_turns"
    SCHEMA = "schema"  # structured output was asked for and is missing
    TIMEOUT = "timeout"  # the wall clock
    STALLED = "stalled"  # no sign of life
    CANCELLED = "cancelled"
    CRASHED = "crashed"  # ended without a closing statement
    LOST = "lost"  # its supervisor died; nobody saw the end


ENDED_WELL: Final = "The run ended well"  # what a success says of itself before anything that stands beside it


class Outcome(BaseModel):
    """An outcome with what proves it.

    Attributes
    ----------
    kind : OutcomeKind
    summary : str
        One sentence without a final cure.
    evidence : tuple of str
        The structured facts that decided, e.g. ``"result.api_error_status = 401"``.
    cure : str
        One sentence that says what to do, or empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: OutcomeKind
    summary: str
    evidence: tuple[str, ...] = ()
    cure: str = ""

    @property
    def ok(self) -> bool:
        """Whether this is success."""
        return self.kind is OutcomeKind.OK

    @property
    def is_plain(self) -> bool:
        """Whether this is success, and nothing stands beside it that should be known, such as output that could not be kept."""
        return self.ok and not self.summary.startswith(f"{ENDED_WELL};")
