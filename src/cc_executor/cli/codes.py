"""Exit codes, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from cc_executor.cli import INTERRUPTED
from cc_executor.cli.streams import OUTPUT_LOST
from cc_executor.model.outcome import OutcomeKind

# 1 and 2 as every command has them; 124 as timeout(1).
OUTCOME_CODES: Final[Mapping[OutcomeKind, int]] = MappingProxyType(
    {
        OutcomeKind.OK: 0,
        OutcomeKind.FAILED: 1,
        OutcomeKind.DENIED: 10,
        OutcomeKind.AUTH: 11,
        OutcomeKind.RATE_LIMITED: 12,
        OutcomeKind.USAGE_LIMITED: 13,
        OutcomeKind.BUDGET: 14,
        OutcomeKind.MAX_TURNS: 15,
        OutcomeKind.SCHEMA: 16,
        OutcomeKind.CRASHED: 17,
        OutcomeKind.LOST: 18,
        OutcomeKind.TIMEOUT: 124,
        OutcomeKind.STALLED: 125,
        OutcomeKind.CANCELLED: INTERRUPTED,
    }
)
CONTRADICTED: Final = 1  # of `verify`
UNVERIFIABLE: Final = 3  # of `verify`


def outcome_table() -> str:
    """The table as one line, for the help."""
    kinds = ", ".join(f"{code} {kind.value}" for kind, code in OUTCOME_CODES.items())
    return f"{kinds}, 2 wrong call or nothing could be started, {OUTPUT_LOST} ok, but its output could not be written"
