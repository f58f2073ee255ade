"""What agents write that is no text, or too much of it: kept as it came, shown bounded and clean."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from cc_executor.api import make_request
from cc_executor.model.event import Event, ToolCalled, ToolReturned, Unrecognised
from cc_executor.model.item import Kind
from cc_executor.model.outcome import OutcomeKind
from cc_executor.model.transcript import Bounds, Transcript
from cc_executor.runtime.run import Run
from cc_executor.shim import records
from cc_executor.store.home import StateHome
from floods.conftest import Writer
from support.runs import shell, to_end

Saw = Callable[[str], None]

ODD: Final = {
    "ANSI": b"\x1b[1;31mred\x1b[0m \x1b]0;a title\x07\x1b[2K\x1b[10;20Hmoved \x1b]52;c;c3RvbGVu\x1b\\end of it\n",
    "invalid UTF-8": b"caf\xe9 \xff\xfe\xc3( \xed\xa0\x80 \xf0\x9f\x98 end of it\n",
    "NUL": b"zero\0\0\0one\x01\x02\x7f end of it\n",
}


def page_of(events: list[Event]) -> Transcript:
    page = Transcript()
    for event in events:
        page.feed((event,))
    return page


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            "ANSI",
            marks=pytest.mark.row(
                "floods", "ANSI at 1 MB/s", "kept byte for byte; what is shown holds no control character and is bounded"
            ),
        ),
        pytest.param(
            "invalid UTF-8",
            marks=pytest.mark.row("floods", "invalid UTF-8", "kept byte for byte; shown with replacement characters, bounded"),
        ),
        pytest.param("NUL", marks=pytest.mark.row("floods", "NUL and other control characters", "kept byte for byte; not shown, bounded")),
    ],
)
async def test_a_flood_of_odd_bytes_is_kept_as_it_came_and_shown_clean(
    home: StateHome, writer: Writer, tmp_path: Path, saw: Saw, kind: str
) -> None:
    line, size = ODD[kind], 2 * 10**6
    run = await Run.start(shell(writer.command(size, pace=1e6, line=line), cwd=tmp_path), home=home, environ=os.environ)
    events = await to_end(run)
    receipt = await run.finish()
    assert receipt.outcome.ok, receipt.outcome
    kept = run.folder.read(records.STDOUT, 0, size + 1)
    assert kept == (line * (size // len(line) + 1))[:size]
    page = page_of(events)
    bounds = Bounds()
    shown = [item.text for item in page.items if item.kind is Kind.OUTPUT]
    assert page.held_lines <= bounds.lines + 1000, "the newest item is kept whole"
    assert sum(map(len, shown)) <= bounds.chars
    text = "".join(shown)
    assert "end of it\n" in text
    assert not [character for character in set(text) if character < " " and character not in "\n\t"]
    assert not set(text) & {"\x7f", *map(chr, range(0x80, 0xA0))}
    assert ("\N{REPLACEMENT CHARACTER}" in text) == (kind == "invalid UTF-8")
    saw(f"{len(shown)} items held, longest write of the child {writer.told['longest'] * 1e3:.1f} ms")


LONG_LINE: Final = """#!{python} -IS
import sys
if "--version" in sys.argv:
    print("2.1.329 (Claude Code)")
    raise SystemExit
sys.stdin.read()
print('{{"type":"system","subtype":"init","session_id":"s","model":"m"}}')
sys.stdout.flush()
sys.stdout.buffer.write(b'{{"type":"assistant","text":"')
for _ in range(1000):
    sys.stdout.buffer.write(b"x" * 100_000)
sys.stdout.buffer.write(b'"}}\\n')
print('{{"type":"assistant","message":{{"id":"m1","model":"m","role":"assistant","content":[{{"type":"text","text":"done"}}]}},"session_id":"s"}}')
print('{{"type":"result","subtype":"success","is_error":false,"result":"done","session_id":"s","num_turns":1,"total_cost_usd":0,"duration_ms":1}}')
"""


@pytest.mark.row(
    "floods", "a line of 100 MB of an agent's own protocol", "counted as overlong, whole in the journal; what comes after it is read"
)
async def test_a_line_of_a_hundred_megabytes_ends_no_session(home: StateHome, tmp_path: Path, saw: Saw) -> None:
    program = tmp_path / "claude"
    program.write_text(LONG_LINE.format(python=sys.executable), encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    run = await Run.start(make_request("go", cli=str(program), cwd=tmp_path), home=home, environ=os.environ)
    events = await to_end(run)
    receipt = await run.finish()
    assert receipt.outcome.ok, receipt.outcome
    assert receipt.text == "done"
    (overlong,) = [event for event in events if isinstance(event, Unrecognised)]
    assert overlong.what == "overlong"
    assert "100,000," in overlong.raw
    assert len(overlong.raw) < 10_000
    assert run.folder.size(records.STDOUT) > 10**8
    saw(f"{overlong.what}: {run.folder.size(records.STDOUT):,} bytes kept")


WRITE: Final = """
description = "a file of 5 MB"
allow = ["Write"]

[[turn]]

[[turn.block]]
tool = "Write"
input = {{ file_path = "{path}", content = "a line of twenty-five chr\\n" }}
repeat_input = {{ content = {times} }}
piece = 65536
"""


@pytest.mark.usefixtures("claude_cli")
@pytest.mark.row(
    "floods",
    "a tool call and its result of 5 MB, real CLI",
    "the run ends well; the call, its result and the file are seen; the page stays bounded",
)
async def test_a_tool_of_five_megabytes_through_the_real_cli(home: StateHome, tmp_path: Path, saw: Saw) -> None:
    script, path, times = tmp_path / "big.toml", tmp_path / "big.txt", 200_000
    script.write_text(WRITE.format(path=path, times=times), encoding="utf-8")
    request = make_request("Write it.", cwd=tmp_path, rehearse=str(script), tools="Write", max_turns=1)
    run = await Run.start(request, home=home, environ=os.environ)
    events = await to_end(run)
    receipt = await run.finish()
    assert receipt.outcome.kind is OutcomeKind.MAX_TURNS, receipt.outcome  # the CLI would send it all back, find it too long, and compact
    size = path.stat().st_size
    assert size == 26 * times
    called: list[Any] = [event for event in events if isinstance(event, ToolCalled) and event.whole]
    returned = [event for event in events if isinstance(event, ToolReturned)]
    assert [len(event.input) > size for event in called] == [True]
    assert [(event.path, event.is_error) for event in returned] == [(str(path), False)]
    page = page_of(events)
    assert sum(len(item.text) + len(item.input) for item in page.items) < 200_000
    longest = max(map(len, run.folder.read(records.STDOUT, 0, 2**30).split(b"\n")))
    assert longest > size
    saw(f"longest line {longest:,} bytes, journal {run.folder.size(records.STDOUT):,}")
