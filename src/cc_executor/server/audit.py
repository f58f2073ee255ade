"""Who wanted what, and what was decided: lines in the state folder that are only ever added. Knows no tornado; imports nothing heavy before its first line.

No prompt, no output and no argument is written: people, routes, ids of runs, decisions and the reasons that the rules give. What looks like a secret in them
is masked.
"""

from __future__ import annotations

import heapq
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cc_executor.errors import CCExecutorError, InvalidRequest
from cc_executor.policy.redact import Redactor, secret_values
from cc_executor.server.strangers import Strangers
from cc_executor.server.trail import Row, Trail

logger = logging.getLogger(__name__)

FILE: Final = "audit.jsonl"
FILE_LIMIT: Final = 2 * 2**20  # bytes; some 8,000 lines
OLDER: Final = 4  # files besides the newest; what is older than they are is gone
STRANGERS: Final = "strangers.jsonl"  # of those who did not get in; with a bound of its own, so that they push out nothing else
STRANGERS_LIMIT: Final = 2**20  # bytes, and one older file
TEXT: Final = 300  # characters of a name or a reason
FIRST_ERROR: Final = 400  # HTTP's
FIRST_FAILURE: Final = 500
_ALLOWED, _FAILED, _REFUSED = DECISIONS = ("allowed", "failed", "refused")

_ID: Final = re.compile(r"[0-9a-f]{1,64}(?:-[0-9]{1,6})?")  # of a run or a list; nothing else that somebody has put into an address


class Audit:
    """The trail of one state folder.

    Parameters
    ----------
    root : Path
        The state folder.
    environ : mapping
        Whose secrets are masked.
    by_name : bool
        Whether names mean people; else nobody's is written down.
    told : callable, optional
        Called with each row after it was written.
    """

    def __init__(self, root: Path, *, environ: Mapping[str, str], by_name: bool, told: Callable[[Row], object] = lambda row: None) -> None:
        self._trail = Trail(root, FILE, limit=FILE_LIMIT, older=OLDER)
        self._outside = Trail(root, STRANGERS, limit=STRANGERS_LIMIT, older=1)
        self._strangers = Strangers(lambda row: self._written(self._outside, {**row, "at": _now()}))
        self._redactor = Redactor(secret_values(environ))
        self._by_name = by_name
        self._told = told

    def note(
        self, *, who: str | None, door: str, what: str, status: int, run: str = "", reason: str = "", request: str = "", origin: str = ""
    ) -> None:
        """Add a line. Never raises: whoever asked for something is owed the answer, and the log says what was not written.

        Parameters
        ----------
        who : str or None
            The name; None: nobody who is known here. Of these not every request becomes a line, see `Strangers`.
        door : str
            ``rest``, ``websocket``, ``mcp`` or ``queue``.
        what : str
            A route or a method, without what was asked in it.
        status : int
            HTTP's number for what was answered.
        run, reason, request : str
            The run, why it was refused, the id of the request.
        origin : str
            The address that it came from; noted of those who are not known.
        """
        decision = _ALLOWED if status < FIRST_ERROR else _REFUSED if status < FIRST_FAILURE else _FAILED
        row: Row = {
            "at": _now(),
            "who": who if who is None or self._by_name else "",
            "door": door,
            "what": what,
            "run": run if _ID.fullmatch(run) else "",
            "decision": decision,
            "status": status,
            "reason": reason,
            "request": request,
        }
        row = {name: self._redactor.text(value)[:TEXT] if isinstance(value, str) else value for name, value in row.items()}
        if who is not None:
            self._written(self._trail, row)
        elif not self._strangers.take(row, origin, now=time.monotonic()):
            return
        self._told(row)

    def settle(self) -> None:
        """Write what is counted of those who are not known here, and not told yet. Blocking."""
        self._strangers.settle()

    def page(self, limit: int, *, who: str | None = None, decision: str = "", before: str = "") -> tuple[list[Row], str]:
        """The newest rows, as `rows`, and the `before` of the next page (empty: there is none). Blocking.

        What was noted at the same time as the last of them is among them, too: the next page begins before that time. Raises `InvalidRequest`
        for a decision that there is not, or a `before` that is no time.
        """
        _check(decision)
        before = _moment(before) if before else ""
        found: list[Row] = []
        for row in self.rows(who=who, decision=decision, before=before):
            if len(found) >= limit and row["at"] != found[-1]["at"]:
                return found, found[-1]["at"]
            found.append(row)
        return found, ""

    def rows(self, *, who: str | None = None, decision: str = "", before: str = "") -> Iterator[Row]:
        """What is kept, newest first. Blocking.

        Parameters
        ----------
        who, decision : str
            Only these.
        before : str
            Only what was earlier than this time, in the form of ``at``.
        """
        self.settle()
        for row in heapq.merge(self._trail.rows(), self._outside.rows(), key=lambda row: row["at"], reverse=True):
            is_wanted = (who is None or row.get("who") == who) and decision in {"", row.get("decision")}
            if is_wanted and (not before or row["at"] < before):
                yield row

    def _written(self, trail: Trail, row: Row) -> None:
        try:
            trail.append(row)
        except (OSError, CCExecutorError) as error:  # the state folder may be full, unsafe or gone
            logger.warning("%s of request %s could not be audited: %s", row["what"], row["request"], error)


def _check(decision: str) -> None:
    if decision and decision not in DECISIONS:
        raise InvalidRequest(f"There is no decision {decision[:40]!r}. It is one of {', '.join(DECISIONS)}.")


def _moment(before: str) -> str:
    """A time as ``at`` has it, for they are compared as texts. Without an offset it is in UTC. Raises `InvalidRequest`."""
    try:
        given = datetime.fromisoformat(before)
        return (given if given.tzinfo else given.replace(tzinfo=UTC)).astimezone(UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError):
        raise InvalidRequest(f"before must be a time in the form of `at`, with + as %2B (given: {before[:40]!r}).") from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
