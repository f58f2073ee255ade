"""A flood beyond the journal's limit: the run goes on and ends as its last line says, and the receipt says what is missing."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from cc_executor.api import make_request
from cc_executor.errors import InvalidRequest
from cc_executor.model.event import Degraded, Noise, Unrecognised
from cc_executor.runtime.run import Run
from cc_executor.runtime.verification import Verdict, verify
from cc_executor.shim import records
from cc_executor.store.home import StateHome
from floods.conftest import Writer
from support.runs import shell, to_end

TALKATIVE: Final = """#!{python} -IS
import sys
if "--version" in sys.argv:
    print("2.1.329 (Claude Code)")
    raise SystemExit
sys.stdin.read()
print('{{"type":"system","subtype":"init","session_id":"s","model":"m"}}')
line = '{{"type":"assistant","message":{{"id":"m%d","model":"m","role":"assistant","content":[{{"type":"text","text":"%s"}}]}},"session_id":"s"}}'
for number in range(3000):
    print(line % (number, "word " * 2000))
print(line % (3000, "done"))
print('{{"type":"result","subtype":"success","is_error":false,"result":"done","session_id":"s","num_turns":1,"total_cost_usd":0.25,"duration_ms":1}}')
"""


@pytest.mark.row(
    "floods",
    "30 MB of an agent, --journal-limit 4MB",
    "judged by its closing line, which is kept; what is missing is counted, shown, and does not contradict the receipt",
)
async def test_a_run_beyond_the_limit_is_judged_by_its_last_line(state_folder: Path, tmp_path: Path, saw: Callable[[str], None]) -> None:
    program = tmp_path / "claude"
    program.write_text(TALKATIVE.format(python=sys.executable), encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    home = StateHome(state_folder)
    request = make_request("go", cli=str(program), cwd=tmp_path, journal_limit="4MB")
    run = await Run.start(request, home=home, environ=os.environ)
    events = await to_end(run)
    receipt = await run.finish()
    assert (receipt.outcome.ok, receipt.text, receipt.cost) == (True, "done", 0.25)
    assert "not all of its output could be kept" in receipt.outcome.summary
    (degraded,) = [event for event in events if isinstance(event, Degraded)]
    assert (degraded.stream, "the limit of its journal, 3,000,000 bytes, is reached" in degraded.error) == ("stdout", True)
    assert sum(isinstance(event, Unrecognised | Noise) for event in events) <= 1, "the one line that was cut off"
    kept = receipt.journal[records.STDOUT]
    assert kept.bytes <= 3 * 10**6
    assert kept.bytes + kept.dropped > 30 * 10**6
    assert verify(receipt, home=home, transcript_roots=()).verdict is Verdict.VERIFIED
    saw(f"{kept.bytes:,} bytes kept, {kept.dropped:,} counted")


async def test_without_a_limit_everything_is_kept(state_folder: Path, writer: Writer, tmp_path: Path) -> None:
    run = await Run.start(
        shell(writer.command(5 * 10**6), cwd=tmp_path, journal_limit="none"), home=StateHome(state_folder), environ=os.environ
    )
    receipt = await run.finish()
    assert (receipt.journal[records.STDOUT].bytes, receipt.journal[records.STDOUT].dropped) == (5 * 10**6, 0)


@pytest.mark.parametrize("limit", ["a lot", "0", "1e9", "-5 GB", "100 KB"])
def test_a_limit_that_is_none_is_refused_in_a_sentence(limit: str) -> None:
    with pytest.raises(InvalidRequest, match="journal_limit must be"):
        make_request("go", journal_limit=limit)
