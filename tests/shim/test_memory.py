"""Out of memory is named as the reason, where the system counts it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

import cc_executor.shim.records as fmt
from cc_executor.model.exit import ExitFacts
from cc_executor.model.outcome import Outcome, OutcomeKind
from cc_executor.model.request import RunRequest
from cc_executor.model.state import RunState
from cc_executor.policy.verdict import judge
from cc_executor.shim import memory
from cc_executor.shim.memory import OomKills
from support.shims import SHIM, Run, until

Start = Callable[..., Run]
Saw = Callable[[str], None]

ROOM = 96 * 2**20
# A little at a time: the system ends whoever asks for the page that is one too many, by its score.
GREEDY = "import os\nos.write(1, b'begun')\nkept = []\nwhile True: kept.append(bytearray(os.urandom(2**20)))"
# A shim whose system tells of control groups elsewhere.
ELSEWHERE = """
import sys
sys.path.append({source!r})
from cc_executor.shim import memory, start
memory.OomKills.__init__.__defaults__ = ({membership!r}, {root!r})
start.main()
"""


def outcome_of(run: Run, *, agent: str) -> Outcome:
    facts = msgspec.json.decode(run.read(fmt.EXIT), type=ExitFacts)
    return judge(RunState(), request=RunRequest(prompt="x", agent=agent, cwd="/"), exit=facts)


@pytest.fixture
def group() -> Iterator[Path | None]:
    """A control group with little memory, below our own; None where we may not make one."""
    with contextlib.suppress(OSError):
        counter = Path(memory._counter(Path(memory.MEMBERSHIP).read_text(), memory.ROOT))
        folder = counter.with_name(f"cc-executor-{os.getpid()}")
        folder.mkdir()
        try:
            (folder / ("memory.max" if counter.name == "memory.events" else "memory.limit_in_bytes")).write_text(str(ROOM))
            yield folder
        finally:
            until(lambda: not (folder / "cgroup.procs").read_text())
            folder.rmdir()
        return
    yield None


@pytest.mark.row("faults", "out of memory", "exit by SIGKILL, and the outcome says that memory was the reason")
@pytest.mark.parametrize("agent", ["claude", "shell"])
def test_an_agent_that_the_system_ends_for_want_of_memory_is_said_to_be(
    start: Start, tmp_path: Path, group: Path | None, agent: str, saw: Saw
) -> None:
    if group is not None:
        run = start(GREEDY, prefix=("/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs")))
        saw("a real control group of 96 MB")
    else:
        root, membership = layout(tmp_path, "0::/user/me\n", "user/me/memory.events")
        code = ELSEWHERE.format(source=str(SHIM.parents[2]), membership=str(membership), root=str(root))
        run = start("import os, time\nos.write(1, b'begun')\ntime.sleep(60)", program=("-c", code))
        (root / "user/me/memory.events").write_text("low 0\noom_kill 8\n")
        os.kill(run.agent, signal.SIGKILL)
        saw("a counter that the test wrote")
    facts = run.wait()
    assert (facts["signal"], facts["stop_reason"]) == ("SIGKILL", None)
    assert facts["oom_kills"] >= 1
    outcome = outcome_of(run, agent=agent)
    assert outcome.kind is OutcomeKind.CRASHED
    assert "out of memory" in outcome.summary
    assert f"the control group's oom_kill grew by {facts['oom_kills']}" in outcome.evidence
    assert "more memory" in outcome.cure


def test_a_kill_without_want_of_memory_is_not_called_that(start: Start, tmp_path: Path) -> None:
    # By a counter of its own: the real one counts what the test above has ended, too, which may run at the same time in another process.
    root, membership = layout(tmp_path, "0::/user/me\n", "user/me/memory.events")
    code = ELSEWHERE.format(source=str(SHIM.parents[2]), membership=str(membership), root=str(root))
    run = start(("/bin/sleep", "60"), program=("-c", code))
    os.kill(run.agent, signal.SIGKILL)
    facts = run.wait()
    assert facts["oom_kills"] == 0
    assert "which did not come from us" in outcome_of(run, agent="claude").summary


def test_a_kill_of_ours_is_never_laid_to_memory() -> None:
    exit_ = ExitFacts(run_id="r", started_at=0, ended_at=1, elapsed=1, active=1, signal="SIGKILL", stop_reason="timeout", oom_kills=1)
    outcome = judge(RunState(), request=RunRequest(prompt="x", cwd="/"), exit=exit_)
    assert outcome.kind is OutcomeKind.TIMEOUT
    assert "the control group's oom_kill grew by 1" in outcome.evidence


def layout(folder: Path, lines: str, *counters: str) -> tuple[Path, Path]:
    """Files as the system shows them: where the groups are, and which is ours."""
    root, membership = folder / "cgroup", folder / "membership"
    for counter in counters:
        (root / counter).parent.mkdir(parents=True, exist_ok=True)
        (root / counter).write_text("low 0\noom 3\noom_kill 7\n")
    membership.write_text(lines)
    return root, membership


@pytest.mark.parametrize(
    ("lines", "counter"),
    [
        ("0::/user.slice/me\n", "user.slice/me/memory.events"),
        ("0::/\n", "memory.events"),
        ("0::/docker/abc\n", "memory.events"),
        ("5:pids:/\n4:cpu,memory:/a:b\n0::/\n", "memory/a:b/memory.oom_control"),
        ("4:memory:/docker/abc\n0::/\n", "memory/memory.oom_control"),
    ],
)
def test_the_counter_is_found_in_every_layout(tmp_path: Path, lines: str, counter: str) -> None:
    root, membership = layout(tmp_path, lines, counter)
    kills = OomKills(str(membership), str(root))
    assert kills.since() == 0
    (root / counter).write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 9\n")
    assert kills.since() == 2
    (root / counter).unlink()
    assert kills.since() == 0


@pytest.mark.parametrize("lines", ["", "nonsense", "0::/gone\n", "1:name=systemd:/\n"])
def test_where_nobody_counts_there_is_no_growth(tmp_path: Path, lines: str) -> None:
    root, membership = layout(tmp_path, lines)
    assert OomKills(str(membership), str(root)).since() == 0
    assert OomKills(str(tmp_path / "nowhere"), str(root)).since() == 0
