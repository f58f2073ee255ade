"""Ends that no script brings about: signals from elsewhere, and words that are recorded or that some later version may say."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from cc_executor import cc_execute
from cc_executor.api import make_request
from cc_executor.model.event import Event, RateLimited, TextWritten, Unrecognised
from cc_executor.model.outcome import OutcomeKind
from cc_executor.rehearsal.loopback import API_KEY
from cc_executor.rehearsal.server import serving
from cc_executor.runtime.run import Run
from cc_executor.store.home import StateHome

pytestmark = pytest.mark.usefixtures("claude_cli")

RECORDED: Final = Path(__file__).parents[1] / "recordings"


# --- signals from elsewhere: the CLI itself is the agent, without the wrapper that a rehearsal puts around it ------------------


@asynccontextmanager
async def talking(
    script: str, tmp_path: Path, home: StateHome, *, pace: float = 1.0, **options: Any
) -> AsyncGenerator[tuple[Run, list[Event]]]:
    """A run of the CLI that has begun to answer, and its events so far."""
    with serving(script, cwd=str(tmp_path), pace=pace) as served:
        environ = {**os.environ, "ANTHROPIC_BASE_URL": served.url, "ANTHROPIC_API_KEY": API_KEY}
        request = make_request("Do it.", cwd=tmp_path, **{"timeout": 60, **options})
        run = await Run.start(request, home=home, environ=environ)
        events: list[Event] = []
        try:
            async with aclosing(run.follow()) as batches:
                async for batch in batches:
                    events += batch.events
                    if any(isinstance(event, TextWritten) for event in events):
                        break
            yield run, events
        finally:
            await run.end(reason="interrupt", by="test", now=True)


def agent_of(run: Run) -> int:
    return int(run.send("status")["agent_pid"])


@pytest.mark.row("outcomes", "CLI killed (SIGKILL)", "crashed; cure: run it again, or resume the session")
async def test_a_killed_cli_has_crashed(tmp_path: Path, home: StateHome, saw: Callable[[str], None]) -> None:
    async with talking("slow-text", tmp_path, home) as (run, _):
        os.kill(agent_of(run), signal.SIGKILL)
        killed = time.monotonic()
        with anyio.fail_after(60):
            receipt = await run.finish()
        seconds = time.monotonic() - killed
    saw(f"{receipt.outcome.kind.value}, {seconds:.1f} s after the signal; {receipt.outcome.evidence[0]}")
    assert receipt.outcome.kind is OutcomeKind.CRASHED, receipt.outcome
    assert "signal = SIGKILL" in receipt.outcome.evidence
    assert "resume the session" in receipt.outcome.cure
    assert receipt.session_id
    assert seconds < 10


@pytest.mark.row("outcomes", "CLI stopped (SIGSTOP) for ever", "stalled after the limit without a sign of life, and gone")
async def test_a_cli_that_somebody_stopped_stalls_and_is_ended(tmp_path: Path, home: StateHome, saw: Callable[[str], None]) -> None:
    # Long enough for the CLI to begin on a busy machine, where nothing is to be heard of it for a while.
    async with talking("slow-text", tmp_path, home, stall_timeout=15) as (run, _):
        os.kill(agent_of(run), signal.SIGSTOP)
        stopped = time.monotonic()
        with anyio.fail_after(90):
            receipt = await run.finish()
        seconds = time.monotonic() - stopped
    saw(f"{receipt.outcome.kind.value}, {seconds:.1f} s after the signal; {receipt.outcome.evidence[0]}")
    assert receipt.outcome.kind is OutcomeKind.STALLED, receipt.outcome
    assert "limit stall = 15 s" in receipt.outcome.evidence
    assert "--stall-timeout" in receipt.outcome.cure
    assert receipt.exit.survivors == 0
    assert seconds < 15 + 6


@pytest.mark.row("outcomes", "CLI stopped (SIGSTOP) and continued", "ok, nothing lost")
async def test_a_cli_that_was_stopped_for_a_moment_goes_on(tmp_path: Path, home: StateHome, saw: Callable[[str], None]) -> None:
    async with talking("slow-text", tmp_path, home, pace=0.4) as (run, _):
        agent = agent_of(run)
        os.kill(agent, signal.SIGSTOP)
        try:
            await anyio.sleep(1.5)  # the length of the stop
        finally:
            os.kill(agent, signal.SIGCONT)
        with anyio.fail_after(90):
            receipt = await run.finish()
    saw(f"{receipt.outcome.kind.value}, {receipt.times.elapsed:.1f} s")
    assert receipt.outcome.ok, receipt.outcome
    assert receipt.text == "".join(f"line {n}\n" for n in range(1, 41))


# --- what the real CLI cannot be brought to: a program that says what was recorded, or what some later version may say ---------


def said(recording: str) -> bytes:
    """The exact output of a run of the CLI."""
    return (RECORDED / f"{recording}.jsonl").read_bytes()


HELLO: Final = "01-success-text"
# (output, exit code, outcome, evidence, cure, about)
SPOKEN: Final[dict[str, tuple[bytes, int, OutcomeKind, str, str, str]]] = {
    "usage limit reached": (
        said("14e-v329-ratelimit-rejected-subscriber"), 1, OutcomeKind.USAGE_LIMITED, "rate_limit_event.status = rejected (five_hour)",
        "after 2026-11-21 01:36 UTC", "the time of the reset is in the cure (recorded)",
    ),
    "usage limit near": (said("14d-v329-ratelimit-event-subscriber"), 0, OutcomeKind.OK, "result.is_error = false", "", "shown live (recorded)"),
    "unknown events": (
        b'{"type":"hologram","frames":[1,2]}\n{"type":"system","subtype":"dreaming"}\nno JSON at all\n' + said(HELLO), 0, OutcomeKind.OK, "result.is_error = false", "",
        "each kept as it came, none breaks the run (a program)",
    ),
    "truncated JSON": (
        said(HELLO)[: said(HELLO).rindex(b'"type":"result"') + 60], 0, OutcomeKind.CRASHED, "no closing statement (result)", "look at its files",
        "exit code 0 and half a closing statement are no success (a program)",
    ),
    "no output, exit code 0": (b"", 0, OutcomeKind.CRASHED, "no closing statement (result)", "look at its files", "(a program)"),
    "unknown option": (b"", 1, OutcomeKind.FAILED, "stderr: error: unknown option", "standard error", "(a program)"),
}  # fmt: skip

SPEAKER: Final = """#!{python} -IS
import os, sys
if "--version" in sys.argv:
    print("2.1.329 (Claude Code)")
    sys.exit()
sys.stdin.buffer.read()
with open({output!r}, "rb") as file:
    sys.stdout.buffer.write(file.read())
if {code} and not os.path.getsize({output!r}):
    print("error: unknown option '--later'", file=sys.stderr)
sys.exit({code})
"""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=pytest.mark.row("outcomes", name, f"{kind.value}{f'; cure: {cure}' if cure else ''}; {about}".replace("; (", " ("))
        )
        for name, (_, _, kind, _, cure, about) in SPOKEN.items()
    ],
)
async def test_what_an_agent_says_is_judged(name: str, tmp_path: Path, saw: Callable[[str], None]) -> None:
    output, code, kind, evidence, cure, _ = SPOKEN[name]
    (tmp_path / "output").write_bytes(output)
    speaker = tmp_path / "speaker"
    speaker.write_text(SPEAKER.format(python=sys.executable, output=str(tmp_path / "output"), code=code))
    speaker.chmod(0o700)
    events: list[Event] = []
    result = await cc_execute("Speak.", cwd=tmp_path, cli=str(speaker), on_event=events.append, timeout=60)
    outcome = result.receipt.outcome
    assert outcome.kind is kind, outcome
    found = [item for item in outcome.evidence if evidence in item]
    assert found, outcome.evidence
    saw(f"{outcome.kind.value}, {result.receipt.times.elapsed:.1f} s; {found[0][:60]}")
    assert cure in outcome.cure
    assert bool(cure) is bool(outcome.cure)
    if name == "unknown events":
        assert [event.what for event in events if isinstance(event, Unrecognised)] == ["hologram", "system/dreaming", "not JSON"]
    if name.startswith("usage limit"):
        assert any(isinstance(event, RateLimited) for event in events)
