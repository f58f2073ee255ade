"""The words by which the status of a run or a list is told in a list of them, and what a filter may say. Knows no door: all of them ask here."""

from __future__ import annotations

from typing import Final

from cc_executor.errors import InvalidRequest
from cc_executor.model.listrecord import INTERRUPTED, ListStatus
from cc_executor.model.outcome import OutcomeKind
from cc_executor.model.phase import Phase
from cc_executor.store.journal import RunStanding
from cc_executor.store.place import RUN_ID

UNSEALED: Final = frozenset({"queued", "starting", "running", "paused", "ended"})  # no run with a receipt is called so
STATUSES: Final = tuple(
    sorted(
        {
            *(kind.value for kind in OutcomeKind),
            *(standing.value for standing in RunStanding),
            *(status.value for status in ListStatus if status is not ListStatus.OPEN),  # told as running, paused, starting or interrupted
            INTERRUPTED,
            Phase.QUEUED.value,
            Phase.PAUSED.value,
            "refused",  # it waited for its turn, and was never started
            "unreadable",
        }
    )
)


def check_filters(*, status: str, before: str) -> None:
    """What a list of runs is filtered by; empty: by nothing.

    Raises
    ------
    InvalidRequest
        It is no status that anything has, or no place in the list.
    """
    if status and status not in STATUSES:
        raise InvalidRequest(f"There is no status {status[:40]!r}. It is one of {', '.join(STATUSES)}.")
    if before:
        check_before(before)


def check_before(before: str) -> None:
    """Where a page of runs begins. Raises `InvalidRequest` if that is nothing that a page has told."""
    if not RUN_ID.match(before):
        raise InvalidRequest(f"before must be the next of the page before (given: {before[:40]!r}).")
