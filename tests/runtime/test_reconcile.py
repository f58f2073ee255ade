"""Runs whose supervisor was killed and at which nobody looks any more: whoever comes by ends what they left, and seals them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from cc_executor import cc_execute
from cc_executor.api import make_request
from cc_executor.cli import listing
from cc_executor.errors import LaunchFailed, StateUnusable
from cc_executor.model.outcome import OutcomeKind
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import RunId
from cc_executor.runtime import launch as launching
from cc_executor.runtime.errand import in_thread
from cc_executor.runtime.leftovers import end_marked
from cc_executor.runtime.lost import settle
from cc_executor.runtime.reconcile import reconcile
from cc_executor.runtime.run import Run
from cc_executor.runtime.seal import claimed
from cc_executor.runtime.summary import summaries
from cc_executor.shim import records
from cc_executor.store import roll
from cc_executor.store.home import StateHome, new_run_id
from cc_executor.store.journal import RunFolder, RunStanding, request_json
from support.commands import command
from support.leaks import marked_processes
from support.runs import BASH, BOUND, eventually, started, to_end, until
from support.shims import alive, ended

Saw = Callable[[str], None]

# The agent's tools: in sessions of their own, so that the kernel does not end them with their supervisor.
TOOLS: Final = "echo begun; setsid bash -c 'echo $$ > tool; exec sleep 1000' & setsid bash -c 'setsid sleep 1000 & wait' & wait"
PROMISE: Final = 5.0  # seconds


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that belongs to no run."""
    with subprocess.Popen(("/bin/sleep", "100")) as process:
        yield process
        process.kill()


async def running(home: StateHome, folder: Path, **options: Any) -> tuple[Run, int]:
    """A run, and a process of it that would outlive its agent."""
    run = await started(TOOLS, home=home, cwd=folder, **options)
    tool = folder / "tool"
    await eventually(lambda: tool.exists() and tool.read_text().strip())
    return run, int(tool.read_text())


async def kill_supervisor(run: Run) -> None:
    state = await until(run, lambda state: "begun" in state.text)
    assert state.started is not None
    os.kill(state.started.shim_pid, signal.SIGKILL)
    await eventually(lambda: run.folder.standing(time.time()) is RunStanding.LOST)


async def lost(home: StateHome, folder: Path, **options: Any) -> tuple[RunFolder, int]:
    """A run whose supervisor was killed, and a process that it left."""
    run, tool = await running(home, folder, **options)
    await kill_supervisor(run)
    assert alive(tool)
    return run.folder, tool


async def settled(home: StateHome) -> list[str]:
    return await in_thread(lambda: settle(home, environ=os.environ))


def receipt_of(folder: RunFolder) -> Receipt:
    receipt = folder.receipt()
    assert receipt is not None
    return receipt


def alive_or_made(folder: Path) -> list[object]:
    """What a run in this folder has left, as processes or as files."""
    return [*folder.iterdir(), *marked_processes([folder])]


def on_the_roll(home: StateHome) -> list[str]:
    return sorted(path.name for path in (home.root / roll.FOLDER).iterdir())


LOST_ROW = pytest.mark.row(
    "faults", "supervisor killed, nobody looks", "its tools are ended and it is sealed as lost when anybody comes by, within 5 s"
)


@LOST_ROW
async def test_a_later_run_settles_what_was_lost_before(tmp_path: Path, home: StateHome, saw: Saw) -> None:
    folder, tool = await lost(home, tmp_path)
    begun = time.monotonic()
    assert (await cc_execute("echo later", **BASH, cwd=tmp_path)).ok
    await eventually((folder.path / records.RECEIPT).exists, within=PROMISE)
    saw(f"at a later run: {time.monotonic() - begun:.1f} s")
    assert ended(tool)
    assert not marked_processes([tmp_path])
    receipt = receipt_of(folder)
    assert receipt.outcome.kind is OutcomeKind.LOST
    assert (receipt.text, receipt.is_intact) == ("begun\n", True)
    assert not (folder.path / records.EXIT_PART).exists(), "the room that was set aside for the supervisor's last words is free"
    await eventually(lambda: on_the_roll(home) == [])  # it is struck off after its receipt is there


@LOST_ROW
async def test_a_list_of_runs_settles_them(tmp_path: Path, home: StateHome, saw: Saw, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, tool = await lost(home, tmp_path)
    monkeypatch.setattr(listing, "LIST_PATIENCE", BOUND)  # what is not settled within 2 s is left to the next who comes by
    said = command("list", "--json")
    assert said.code == 0, said.err
    assert [(row["id"], row["status"]) for row in json.loads(said.out)] == [(folder.run_id, "lost")]
    assert ended(tool)
    assert receipt_of(folder).outcome.kind is OutcomeKind.LOST
    saw("at `cc-executor list`: before it answers")


async def test_what_is_lost_after_others_were_settled_is_settled_too(tmp_path: Path, home: StateHome) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        folder, tool = await lost(home, tmp_path / name)
        await in_thread(lambda: reconcile(home, environ=os.environ, patience=PROMISE))
        assert receipt_of(folder).outcome.kind is OutcomeKind.LOST
        assert ended(tool)


async def test_several_are_settled_together_and_only_once(tmp_path: Path, home: StateHome) -> None:
    folders = [tmp_path / str(number) for number in range(3)]
    for folder in folders:
        folder.mkdir()
    many = [await running(home, folder) for folder in folders]
    for run, _ in many:
        await kill_supervisor(run)
    assert await settled(home) == sorted(run.run_id for run, _ in many)
    assert [receipt_of(run.folder).outcome.kind for run, _ in many] == [OutcomeKind.LOST] * 3
    assert all(ended(tool) for _, tool in many)
    assert await settled(home) == []


async def test_one_that_somebody_is_sealing_holds_up_no_other(tmp_path: Path, home: StateHome) -> None:
    folders = [tmp_path / str(number) for number in range(2)]
    for folder in folders:
        folder.mkdir()
    runs = [(await running(home, folder))[0] for folder in folders]
    for run in runs:
        await kill_supervisor(run)
    with claimed(runs[0].folder) as is_ours, anyio.fail_after(PROMISE):
        assert is_ours
        await settled(home)
    assert runs[0].folder.receipt() is None
    assert receipt_of(runs[1].folder).outcome.kind is OutcomeKind.LOST
    assert on_the_roll(home) == [runs[0].run_id]


async def test_what_shall_be_kept_is_kept(tmp_path: Path, home: StateHome) -> None:
    folder, tool = await lost(home, tmp_path, keep_background=True)
    try:
        assert await settled(home) == [folder.run_id]
        assert receipt_of(folder).outcome.kind is OutcomeKind.LOST
        assert alive(tool)
    finally:
        for process in marked_processes([tmp_path]):
            os.kill(process.pid, signal.SIGKILL)


@pytest.mark.row("faults", "lost on another host", "left alone")
async def test_a_run_of_another_host_is_left_alone(tmp_path: Path, home: StateHome) -> None:
    folder, tool = await lost(home, tmp_path)
    (home.root / roll.FOLDER / folder.run_id).write_bytes(b"another-host")
    assert await settled(home) == []
    assert alive(tool)
    assert folder.receipt() is None
    await (await Run.attach(home, folder.run_id, environ=os.environ)).finish()  # who looks at it seals it all the same


@pytest.mark.row(
    "faults", "host reboot, container stop: process numbers are given anew", "the run is lost, whoever has its numbers now is left alone"
)
async def test_a_process_with_the_number_of_a_lost_run_s_is_not_taken_for_it(
    tmp_path: Path, home: StateHome, stranger: subprocess.Popen[bytes]
) -> None:
    folder, tool = await lost(home, tmp_path)
    os.kill(tool, signal.SIGKILL)
    control = folder.path / records.CONTROL
    record = json.loads(control.read_bytes().splitlines()[0])
    control.write_text(json.dumps(record | {"shim_pid": stranger.pid, "agent_pid": os.getpid()}) + "\n")
    assert folder.standing(time.time()) is RunStanding.LOST
    assert [row.status for row in summaries(home, now=time.time())] == ["lost"]
    assert await settled(home) == [folder.run_id]
    assert receipt_of(folder).outcome.kind is OutcomeKind.LOST
    assert stranger.poll() is None


async def test_runs_that_live_or_start_are_never_touched(tmp_path: Path, home: StateHome) -> None:
    os.mkfifo(tmp_path / "gate")
    run = await started("echo begun; read x < gate; echo through", home=home, cwd=tmp_path)
    starting = home.create(new_run_id(time.time()))
    assert await settled(home) == []
    assert on_the_roll(home) == sorted([run.run_id, starting.run_id])
    (tmp_path / "gate").write_text("go\n")
    assert (await run.finish()).text == "begun\nthrough\n"
    assert on_the_roll(home) == [starting.run_id]


async def test_a_run_that_has_ended_is_left_to_whoever_looks_at_it(tmp_path: Path, home: StateHome) -> None:
    """Its supervisor has ended the tree; its check is to be made in the environment of somebody who waits for it."""
    os.mkfifo(tmp_path / "gate")  # a start looks at the roll, too: the run must not have ended by then
    run = await started("read x < gate; echo done", home=home, cwd=tmp_path, verify="true")
    (tmp_path / "gate").write_text("go\n")
    await until(run, lambda state: state.exited is not None)
    await eventually(lambda: not run.folder.is_supervised())
    assert on_the_roll(home) == [run.run_id]
    assert await settled(home) == []
    assert run.folder.receipt() is None
    assert on_the_roll(home) == []


@pytest.mark.parametrize("at", ["bare folder", "no folder", "half a request", "no plan"])
@pytest.mark.parametrize("ago", [60.0, -86400.0], ids=["a minute ago", "before the clock was set back by a day"])
async def test_what_a_killed_launcher_left_is_cleared_away(at: str, ago: float, home: StateHome) -> None:
    folder = home.create(new_run_id(then := time.time() - ago))
    os.utime(home.root / roll.FOLDER / folder.run_id, (then, then))
    assert folder.standing(time.time()) is RunStanding.LOST
    if at == "no folder":
        folder.path.rmdir()
    elif at == "half a request":
        folder.write_new(records.REQUEST, b"")
    elif at == "no plan":
        folder.write_new(records.REQUEST, request_json(make_request("true", agent="shell")))
    assert await settled(home) == [folder.run_id]
    assert (on_the_roll(home), list(home.runs())) == ([], [])


async def test_a_run_whose_id_has_waited_is_starting_and_not_lost(home: StateHome) -> None:
    folder = home.create(new_run_id(time.time() - 3600))
    assert await settled(home) == []
    assert folder.standing(time.time()) is RunStanding.STARTING


@pytest.mark.row(
    "faults", "launcher frozen before its supervisor starts", "the run is sealed as lost, and a supervisor that comes late starts nothing"
)
async def test_a_supervisor_that_comes_too_late_starts_nothing(tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch) -> None:
    start, sealed = launching._start_shim, list[Receipt]()

    def frozen(spec: dict[str, Any], folder: RunFolder, spare: object) -> None:
        assert spare is None
        monkeypatch.setattr(roll, "STARTING_GRACE", 0.0)  # so long was it frozen
        monkeypatch.setattr(RunFolder.standing, "__kwdefaults__", {"grace": 0.0})
        assert settle(home, environ=os.environ) == [folder.run_id]
        sealed.append(receipt_of(folder))
        start(spec, folder)

    monkeypatch.setattr(launching, "_start_shim", frozen)
    with pytest.raises(LaunchFailed, match="started before"):
        await cc_execute("touch proof", **BASH, cwd=tmp_path)
    assert sealed[0].outcome.kind is OutcomeKind.LOST
    assert not alive_or_made(tmp_path)
    assert list(home.runs()) == []


async def test_a_run_whose_supervisor_is_just_about_to_take_its_lock_is_left_alone(home: StateHome) -> None:
    folder = home.create(new_run_id(time.time()))
    folder.write_new(records.REQUEST, request_json(make_request("true", agent="shell")))
    folder.write_new(records.LOCK, b"")  # it is made a moment before it is locked
    assert folder.standing(time.time()) is RunStanding.STARTING
    assert await settled(home) == []
    assert [each.run_id for each in home.runs()] == [folder.run_id]


async def test_a_damaged_run_is_ended_and_not_looked_at_again(tmp_path: Path, home: StateHome) -> None:
    folder, tool = await lost(home, tmp_path)
    (folder.path / records.REQUEST).write_bytes(b"{")
    assert await settled(home) == [folder.run_id]
    assert ended(tool)
    assert on_the_roll(home) == []
    assert folder.read(records.STDOUT, 0, 100) == b"begun\n", "what it wrote is kept"


async def test_a_lost_run_lasted_until_its_last_sign_of_life(tmp_path: Path, home: StateHome) -> None:
    folder, _ = await lost(home, tmp_path)
    end_marked(folder.run_id)
    a_day_ago = time.time() - 86400
    aged = folder.path.rename(home.runs_path / new_run_id(a_day_ago))
    for path in aged.iterdir():
        os.utime(path, (a_day_ago + 7, a_day_ago + 7))
    receipt = await (await Run.attach(home, aged.name, environ=os.environ)).finish()
    assert receipt.times.elapsed == pytest.approx(7, abs=0.1)


async def test_a_lost_run_has_ended_before_it_is_sealed_whatever_the_clocks_were_set_to(tmp_path: Path, home: StateHome) -> None:
    folder, _ = await lost(home, tmp_path)
    os.utime(folder.path / records.STDOUT, (time.time() + 86400, time.time() + 86400))
    receipt = await (await Run.attach(home, folder.run_id, environ=os.environ)).finish()
    assert receipt.times.started.timestamp() <= receipt.times.ended.timestamp() <= time.time()


async def test_of_a_lost_run_half_a_letter_is_told_too(tmp_path: Path, home: StateHome) -> None:
    run = await started(r"printf 'half \303' >&2; echo begun; sleep 1000", home=home, cwd=tmp_path)
    await kill_supervisor(run)
    await to_end(run)
    assert run.state.stderr.text == "half \ufffd"


async def test_nothing_is_left_on_the_roll_by_a_run_that_was_refused(tmp_path: Path, home: StateHome) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)
    with pytest.raises(LaunchFailed):
        await cc_execute(str(broken), agent="shell", cwd=tmp_path)
    assert on_the_roll(home) == []
    (home.root / roll.FOLDER).rmdir()
    (home.root / roll.FOLDER).write_text("in the way")
    with pytest.raises(StateUnusable, match="cannot be written"):
        await cc_execute("true", **BASH, cwd=tmp_path)
    assert list(home.runs()) == []


def test_a_run_that_cannot_be_looked_into_keeps_nobody_from_starting_or_listing_others(home: StateHome, tmp_path: Path) -> None:
    closed = home.create(new_run_id(time.time() - 1000)).path
    # Not as root, to whom nothing is closed.
    as_user = ("unshare", "--user", "--map-user=54321") if os.geteuid() == 0 else ()
    closed.chmod(0)
    try:
        for words in (("run", "--agent", "shell", "echo said"), ("list",)):
            argv = [*as_user, sys.executable, "-m", "cc_executor.cli", *words]
            done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=BOUND, check=False)
            assert done.returncode == 0, done.stderr
            assert ("said" if words[0] == "run" else closed.name) in done.stdout
    finally:
        closed.chmod(0o700)


@pytest.mark.row("faults", "thousands of runs are kept", "looking for lost ones costs nothing")
def test_the_roll_is_called_without_a_look_at_what_is_kept(home: StateHome, saw: Saw) -> None:
    home.prepare()
    now = time.time()
    for number in range(3000):
        (home.runs_path / RunId(f"{int((now - number) * 1000):012x}{number:014x}")).mkdir()
    (home.root / roll.FOLDER).mkdir()
    costs: list[float] = []
    for _ in range(20):
        before = time.process_time()
        assert roll.missing(home.root, now=now) == []
        costs.append(time.process_time() - before)
    assert min(costs) < 0.001
    saw(f"{min(costs) * 1e6:.0f} µs with 3,000 runs kept")
