"""Claude Code's own transcripts of a run: finding them, and comparing what they tell with the journal. Reads files; judges no receipt.

A transcript is `projects/<folder>/<session id>.jsonl` below the agent's configuration folder, those of subagents are
`projects/<folder>/<session id>/subagents/agent-*.jsonl` (2.1.197 and 2.1.329). The folder's name is not unique, so it is found by the session.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cc_executor.agents.claude.testimony import Statement, difference, statement
from cc_executor.shim import records
from cc_executor.store.journal import RunFolder

LINE_LIMIT: Final = 64 * 2**20  # the longest line in the recordings is 5.8 MB; a longer one is counted and not compared
_SESSION_ID: Final = re.compile(r"[0-9A-Za-z-]{8,64}\Z")
_NAMED: Final = 3  # statements that a reason names


@dataclass(slots=True)
class Comparison:
    """What the transcripts say. `missing`: whether there should be one, and is none; `agreeing`: statements that both tell alike."""

    missing: bool = False
    agreeing: int = 0
    against: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])


def find_transcripts(session_id: str, roots: Sequence[Path]) -> list[Path]:
    """The transcript of a session and those of its subagents."""
    if not _SESSION_ID.match(session_id):
        return []
    found: dict[Path, None] = {}
    for root in roots:
        for path in sorted((root / "projects").glob(f"*/{session_id}.jsonl")):
            found[path] = None
            found |= dict.fromkeys(sorted((path.parent / session_id / "subagents").glob("agent-*.jsonl")))
    return [path for path in found if path.is_file()]


def compare(folder: RunFolder, *, session_id: str, roots: Sequence[Path], ended_by_force: bool, mask: str) -> Comparison:
    """Look up every message of the journal's stdout in the transcripts.

    Parameters
    ----------
    ended_by_force : bool
        The run was stopped, died, or gave no closing statement: its last messages may then be in no transcript.
    mask : str
        What stands in the journal in place of a secret.
    """
    result = Comparison()
    stream = folder.path / records.STDOUT
    told = {said.uuid: (offset, len(line), said.parent) for offset, line in _lines(stream) if (said := statement(line)) is not None}
    paths = find_transcripts(session_id, roots)
    result.missing = bool(told) and not paths
    if not paths and not told:
        result.notes.append("The agent ended before its first whole message, so there is no transcript of its own to compare.")
        return result
    if result.missing:
        where = ", ".join(str(root / "projects") for root in roots) or "nowhere to look"
        result.notes.append(f"The agent's own transcript was not found ({where}), so that part could not be compared.")
        return result
    differing: list[str] = []
    seen: set[str] = set()
    for path in paths:
        for _, line in _lines(path):
            theirs = statement(line)
            if theirs is None or theirs.uuid not in told or theirs.uuid in seen:
                continue
            seen.add(theirs.uuid)
            offset, size, _ = told[theirs.uuid]
            ours = statement(folder.read(records.STDOUT, offset, size))
            assert ours is not None  # it was one a moment ago, and a sealed journal does not change
            what = difference(ours, theirs, mask=mask)
            if what is None:
                result.agreeing += 1
            else:
                differing.append(f"{_name(ours)} ({what})")
    missing = [uuid for uuid in told if uuid not in seen]
    of_subagents = [uuid for uuid in missing if told[uuid][2] is not None]
    unexplained = [uuid for uuid in missing if told[uuid][2] is None]
    if differing:
        result.against.append(f"The agent's own transcript tells {len(differing)} message(s) otherwise: {_listed(differing)}.")
    if unexplained and not ended_by_force:
        result.against.append(f"The agent's own transcript lacks {len(unexplained)} message(s) of the journal: {_listed(unexplained)}.")
    elif unexplained:
        result.notes.append(f"{len(unexplained)} message(s) are not in the agent's transcript, as may be when a run is stopped.")
    if of_subagents:
        result.notes.append(f"{len(of_subagents)} message(s) of subagents are in no transcript here.")
    result.notes.append(f"The agent's own transcript tells {result.agreeing} of {len(told)} messages alike ({paths[0]}).")
    return result


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Offset and text of every line that is not too long."""
    try:
        with path.open("rb") as file:
            offset = 0
            while line := file.readline(LINE_LIMIT):
                if len(line) < LINE_LIMIT or line.endswith(b"\n"):
                    yield offset, line
                else:
                    while (rest := file.readline(LINE_LIMIT)) and not rest.endswith(b"\n"):
                        pass
                offset = file.tell()
    except OSError:
        return


def _name(said: Statement) -> str:
    return f"{said.kind} {said.uuid}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
