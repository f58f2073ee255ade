"""Who wanted what, and what was decided: lines in the state folder that are only ever added. Knows no tornado; imports nothing heavy before its first line.

No prompt, no output and no argument is written: people, routes, ids of runs, decisions and the reasons that the rules give. What looks like a secret in them
is masked.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

from cc_executor.errors import CCExecutorError
from cc_executor.policy.redact import Redactor, secret_values
from cc_executor.store.plain import read_plain

logger = logging.getLogger(__name__)

FILE: Final = "audit.jsonl"
FILE_LIMIT: Final = 2 * 2**20  # bytes; some 8,000 lines
OLDER: Final = 4  # files besides the newest; what is older than they are is gone
TEXT: Final = 300  # characters of a name or a reason
FIRST_ERROR: Final = 400  # HTTP's
FIRST_FAILURE: Final = 500

_ID: Final = re.compile(r"[0-9a-f]{1,64}(?:-[0-9]{1,6})?")  # of a run or a list; nothing else that somebody has put into an address

Row = dict[str, Any]


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
        self._root = root
        self._path = root / "server" / FILE
        self._redactor = Redactor(secret_values(environ))
        self._by_name = by_name
        self._told = told
        self._is_checked = False

    def note(self, *, who: str | None, door: str, what: str, status: int, run: str = "", reason: str = "", request: str = "") -> None:
        """Add a line. Never raises: whoever asked for something is owed the answer, and the log says what was not written.

        Parameters
        ----------
        who : str or None
            The name; None: nobody who is known here.
        door : str
            ``rest``, ``websocket``, ``mcp`` or ``queue``.
        what : str
            A route or a method, without what was asked in it.
        status : int
            HTTP's number for what was answered.
        run, reason, request : str
            The run, why it was refused, the id of the request.
        """
        decision = "allowed" if status < FIRST_ERROR else "refused" if status < FIRST_FAILURE else "failed"
        row: Row = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
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
        try:
            self._append(json.dumps(row).encode("ascii") + b"\n")
        except (OSError, CCExecutorError) as error:  # the state folder may be full, unsafe or gone
            logger.warning("%s of request %s could not be audited: %s", what, request, error)
        self._told(row)

    def page(self, limit: int, *, who: str | None = None, decision: str = "", before: str = "") -> tuple[list[Row], str]:
        """The newest rows, as `rows`, and the `before` of the next page (empty: there is none). Blocking.

        What was noted at the same time as the last of them is among them, too: the next page begins before that time.
        """
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
        for path in (self._path, *(self._older(number) for number in range(1, OLDER + 1))):
            try:
                lines = read_plain(path, 2 * FILE_LIMIT).splitlines()
            except OSError:
                continue
            for line in reversed(lines):
                row = _row(line)
                if row is None or (before and row["at"] >= before):
                    continue
                if (who is None or row.get("who") == who) and decision in {"", row.get("decision")}:
                    yield row

    def _older(self, number: int) -> Path:
        return self._path.with_name(f"{FILE}.{number}")

    def _append(self, line: bytes) -> None:
        if not self._is_checked:
            from cc_executor.store.home import StateHome

            StateHome(self._root).prepare()  # as for runs: no link, nobody else's, closed to others
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._is_checked = True
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":  # a server was killed, or the disk full, in the midst of a line
                line = b"\n" + line
            os.write(descriptor, line)
            if size + len(line) > FILE_LIMIT:
                self._rotate(descriptor)
        finally:
            os.close(descriptor)

    def _rotate(self, descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # another server of this folder may have the same in mind
        if not os.path.samestat(os.fstat(descriptor), self._path.stat()):
            return
        for number in range(OLDER, 0, -1):
            newer = self._older(number - 1) if number > 1 else self._path
            if newer.exists():
                newer.replace(self._older(number))


def _row(line: bytes) -> Row | None:
    try:
        row: Any = json.loads(line)
    except ValueError:  # torn
        return None
    return cast("Row", row) if isinstance(row, dict) and isinstance(row.get("at"), str) else None  # pyright: ignore[reportUnknownMemberType] - JSON of our own
