"""Runs seen from outside: followed by several, from several processes, commanded from threads, lost, and sealed once."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec
import psutil
import pytest

from cc_executor import cc_execute
from cc_executor.errors import ControlFailed, RunNotFound, StateUnusable
from cc_executor.model.event import Event, Exited, Paused, Resumed, Started, TextWritten
from cc_executor.model.fold import advance_all
from cc_executor.model.item import Item
from cc_executor.model.outcome import OutcomeKind
from cc_executor.model.phase import Phase
from cc_executor.model.receipt import Receipt, Standing
from cc_executor.model.state import RunState
from cc_executor.model.transcript import Transcript
from cc_executor.policy.redact import Redactor
from cc_executor.runtime import checks, control, errand, plan, seal, supervisor
from cc_executor.runtime.control import command
from cc_executor.runtime.reader import replay
from cc_executor.runtime.run import Run
from cc_executor.runtime.summary import summaries
from cc_executor.shim import records
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder
from support.environments import CHECKOUT
from support.leaks import await_none, marked_processes
from support.recordings import together
from support.runs import BASH, BOUND, eventually, remembered, shell, started, to_end, until
from support.shims import alive

Json = dict[str, Any]
SOURCE: Final = str(CHECKOUT / "src")


@pytest.fixture
def gate(tmp_path: Path) -> Callable[[], None]:
    """Lets a command go on that waits with ``read x < gate``."""
    os.mkfifo(tmp_path / "gate")

    def open_it() -> None:
        (tmp_path / "gate").write_text("go\n")

    return open_it


def items(events: list[Event]) -> list[Item]:
    transcript = Transcript()
    transcript.feed(events)
    return list(transcript.items)


def replayed(folder: RunFolder, agent: str) -> list[Event]:
    return [event for batch in replay(folder, agent=agent) for event in batch]


def joined(state: RunState) -> RunState:
    """Without what depends on how the output was cut into pieces on the way."""
    return msgspec.structs.replace(state, events=0)


# --- following ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("claude_cli")
async def test_all_who_follow_see_the_same_story_live_later_and_elsewhere(tmp_path: Path, home: StateHome) -> None:
    request = shell("true").model_copy(
        update={"agent": "claude", "shell": None, "prompt": "Go.", "cwd": str(tmp_path), "rehearse": "tour", "tools": ("Write", "Bash")}
    )
    run = await Run.start(request, home=home, environ=os.environ)
    elsewhere = follower(run.run_id)
    attached = await Run.attach(home, run.run_id, environ=os.environ)
    stories: list[list[Event]] = [[], [], []]

    async def follow(place: int, who: Run) -> None:
        stories[place] = together(await to_end(who))

    async with anyio.create_task_group() as tasks:
        for place, who in enumerate([run, run, attached]):
            tasks.start_soon(follow, place, who)
    receipt = await run.finish()
    assert receipt.outcome.ok, receipt.outcome

    live = stories[0]
    assert isinstance(live[0], Started)
    assert isinstance(live[-1], Exited)
    assert stories[1] == live
    assert stories[2] == live
    assert together(await to_end(run)) == live, "after the end"
    again = together(replayed(run.folder, "claude"))
    assert again == live
    assert advance_all(RunState(), again) == advance_all(RunState(), live) == run.state == attached.state
    assert items(again) == items(live)

    out, _ = await anyio.to_thread.run_sync(elsewhere.communicate)
    told: Json = json.loads(out)
    assert (together(events_in(told)), told["digest"]) == (live, receipt.digest)
    later, _ = await anyio.to_thread.run_sync(follower(run.run_id[-6:]).communicate)
    assert (together(events_in(json.loads(later))), json.loads(later)["digest"]) == (live, receipt.digest)


FOLLOWER: Final = """
import asyncio, json, os, sys
import msgspec
from cc_executor.runtime.run import Run
from cc_executor.store.home import StateHome, state_path

async def main():
    run = await Run.attach(StateHome(state_path(os.environ)), sys.argv[1], environ=os.environ)
    events = []
    async for batch in run.follow():
        events += [msgspec.json.encode(event).decode() for event in batch.events]
    receipt = await run.finish()
    print(json.dumps({"events": events, "digest": receipt.digest}))

asyncio.run(main())
"""


def events_in(told: Json) -> list[Event]:
    """What a follower has told."""
    return [msgspec.json.decode(event, type=Event) for event in told["events"]]


def follower(run_id: str) -> subprocess.Popen[str]:
    """Another process that follows a run and tells its events and its receipt's digest."""
    return subprocess.Popen(
        [sys.executable, "-c", FOLLOWER, run_id], env={**os.environ, "PYTHONPATH": SOURCE}, stdout=subprocess.PIPE, text=True
    )


async def test_a_story_with_pauses_and_both_streams_is_told_alike_again(tmp_path: Path, home: StateHome, gate: Callable[[], None]) -> None:
    run = await started("echo one; echo two >&2; read x < gate; echo three; exit 3", home=home, cwd=tmp_path)
    events: list[Event] = []
    async with anyio.create_task_group() as tasks:

        async def follow() -> None:
            events.extend(await to_end(run))

        tasks.start_soon(follow)
        await until(run, lambda state: "one" in state.text and "two" in state.stderr.text)
        await run.pause(by="test")
        await run.resume(by="test")
        await anyio.to_thread.run_sync(gate)
    state = advance_all(RunState(), events)
    again = replayed(run.folder, "shell")
    assert joined(advance_all(RunState(), again)) == joined(state)
    assert items(again) == items(events)
    kinds = [type(event) for event in again]
    assert kinds.index(TextWritten) < kinds.index(Paused) < kinds.index(Resumed) < len(kinds) - 2
    assert (await run.finish()).exit.code == 3


async def test_who_stops_following_can_begin_again(tmp_path: Path, home: StateHome, gate: Callable[[], None]) -> None:
    run = await started("echo one; read x < gate; echo two", home=home, cwd=tmp_path)
    for _ in range(3):
        await until(run, lambda state: "one" in state.text)
    await anyio.to_thread.run_sync(gate)
    receipt = await run.finish()  # without following: it does that itself
    assert (receipt.outcome.ok, receipt.text) == (True, "one\ntwo\n")
    assert run.state.phase is Phase.ENDED


async def test_a_receipt_of_a_run_that_goes_on_is_waited_for(tmp_path: Path, home: StateHome, gate: Callable[[], None]) -> None:
    run = await started("read x < gate; echo done", home=home, cwd=tmp_path)
    found: list[Receipt] = []
    async with anyio.create_task_group() as tasks:

        async def finish() -> None:
            found.append(await (await Run.attach(home, run.run_id, environ=os.environ)).finish())

        tasks.start_soon(finish)
        await until(run, lambda state: state.started is not None)
        await anyio.wait_all_tasks_blocked()
        assert not (run.folder.path / records.RECEIPT).exists()
        await anyio.to_thread.run_sync(gate)
    assert found[0].text == "done\n"


async def test_there_is_no_run_of_that_name(tmp_path: Path, home: StateHome) -> None:
    run = await started("true", home=home, cwd=tmp_path)
    await run.finish()
    for name in ("", "zzzz", run.run_id[:3], "f" * 26, "../x", f"{run.run_id}/../{run.run_id}"):
        with pytest.raises(RunNotFound):
            await Run.attach(home, name, environ=os.environ)
    for name in (run.run_id, run.run_id[:12], run.run_id[-6:].upper(), f" {run.run_id}\n"):
        assert (await Run.attach(home, name, environ=os.environ)).run_id == run.run_id


# --- commands -----------------------------------------------------------------------------------------------------


async def test_pause_stands_everything_still_and_resume_lets_it_go_on(tmp_path: Path, home: StateHome) -> None:
    ticks = tmp_path / "ticks"
    run = await started("setsid bash -c 'while :; do echo tick >> ticks; sleep 0.02; done' & wait", home=home, cwd=tmp_path)
    await eventually(lambda: ticks.exists() and ticks.stat().st_size > 20)
    status = await run.pause(by="test")
    assert status["state"] == "paused"
    assert status["processes"] >= 2
    size = ticks.stat().st_size
    await anyio.sleep(0.3)  # nothing happens: that is what is looked at
    assert ticks.stat().st_size == size
    assert (await run.pause(by="again"))["state"] == "paused"
    assert (await run.resume(by="test"))["state"] == "running"
    await eventually(lambda: ticks.stat().st_size > size + 20)
    await run.cancel(by="test")
    receipt = await run.finish()
    assert receipt.outcome.kind is OutcomeKind.CANCELLED
    assert receipt.times.paused >= 0.3
    assert receipt.times.active <= receipt.times.elapsed - 0.3
    assert not await_none([tmp_path])


async def test_a_paused_run_can_be_cancelled(tmp_path: Path, home: StateHome) -> None:
    run = await started("sleep 1000", home=home, cwd=tmp_path)
    await run.pause()
    began = time.monotonic()
    await run.cancel(by="test")
    receipt = await run.finish()
    assert receipt.outcome.kind is OutcomeKind.CANCELLED
    assert time.monotonic() - began < 20
    assert "by test" in receipt.outcome.evidence


async def test_threads_may_command_all_at_once(tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ANSWER_BUDGET", BOUND)  # twelve stand in a row, and a busy machine takes its time for each
    run = await started("while :; do echo x; sleep 0.01; done", home=home, cwd=tmp_path)
    problems: list[BaseException] = []

    def worry(number: int) -> None:
        try:
            for turn in range(5):
                command(run.folder, "status" if (number + turn) % 3 else "pause", by=f"thread {number}")
                command(run.folder, "resume", by=f"thread {number}")
        except ControlFailed as error:
            if "went on before" not in str(error):  # a pause that another thread's resume overtook says so
                problems.append(error)

    threads = [threading.Thread(target=worry, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    await anyio.to_thread.run_sync(lambda: [thread.join() for thread in threads])
    assert not problems
    run.send("cancel", by="thread", now=True)
    assert (await run.finish()).outcome.kind is OutcomeKind.CANCELLED


@pytest.mark.row("faults", "more callers than places", "each gets its answer")
async def test_more_callers_than_there_are_places_wait_for_one(tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket with a time limit does not wait for room in the queue; without care, cancel would fail when many look on."""
    monkeypatch.setattr(control, "ANSWER_BUDGET", BOUND)  # the first of them calls while 149 threads are still to be started
    run = await started("sleep 1000", home=home, cwd=tmp_path)
    shim = (await until(run, lambda state: state.started)).started
    assert shim is not None
    os.kill(shim.shim_pid, signal.SIGSTOP)
    answers: list[bool] = []

    def ask() -> None:
        answers.append(bool(command(run.folder, "status")["ok"]))

    threads = [threading.Thread(target=ask) for _ in range(150)]
    for thread in threads:
        thread.start()
    await anyio.sleep(0.3)  # they fill the queue
    os.kill(shim.shim_pid, signal.SIGCONT)
    await anyio.to_thread.run_sync(lambda: [thread.join() for thread in threads])
    assert len(answers) == 150
    await run.end(reason="cancel", by="test", now=True)


async def test_after_the_end_every_command_says_so(tmp_path: Path, home: StateHome) -> None:
    run = await started("true", home=home, cwd=tmp_path)
    await run.finish()
    for op in ("pause", "resume", "status", "nonsense", "cancel"):
        with pytest.raises(ControlFailed, match=f"Run {run.run_id} has ended; .* shows how"):
            run.send(op)
        assert run.is_unwanted is (op == "cancel"), "after a cancel that comes too late no further attempt follows"
        with pytest.raises(ControlFailed):
            command(run.folder, op)


async def test_a_command_that_there_is_not_is_refused(tmp_path: Path, home: StateHome) -> None:
    run = await started("sleep 1000", home=home, cwd=tmp_path)
    with pytest.raises(ControlFailed, match="no such command"):
        run.send("dance")
    await run.end(reason="cancel", by="test", now=True)


# --- what outlives the agent --------------------------------------------------------------------------------------

DAEMON: Final = "setsid sleep 1000 > /dev/null 2>&1 & echo $! > pid; echo done"


@pytest.mark.row("outcomes", "process left at a normal end", "ok; it is listed in the receipt, and ended")
async def test_what_a_command_leaves_behind_is_ended_and_named(tmp_path: Path) -> None:
    result = await cc_execute(DAEMON, **BASH, cwd=tmp_path)
    assert (result.status, result.text) == ("ok", "done\n")
    assert any("sleep 1000" in command for command in result.receipt.exit.left_behind)
    assert result.receipt.exit.survivors == 0
    assert not alive(int((tmp_path / "pid").read_text()))


@pytest.mark.row("outcomes", "process left at a normal end, kept", "ok; it is listed in the receipt, and lives on")
async def test_what_shall_be_kept_is_kept_and_named(tmp_path: Path) -> None:
    result = await cc_execute(DAEMON, **BASH, cwd=tmp_path, keep_background=True)
    pid = int((tmp_path / "pid").read_text())
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)
    assert result.status == "ok"
    assert result.receipt.exit.survivors == 1
    assert any("sleep 1000" in command for command in result.receipt.exit.left_behind)


# --- lost ---------------------------------------------------------------------------------------------------------


@pytest.mark.row("faults", "supervisor killed: its grandchildren", "ended by whoever seals the run")
@pytest.mark.parametrize("somebody_follows", [True, False])
async def test_a_run_whose_supervisor_is_killed_is_lost_and_nothing_of_it_lives_on(
    somebody_follows: bool, tmp_path: Path, home: StateHome
) -> None:
    script = "echo begun; setsid bash -c 'echo $$ > tool; exec sleep 1000' & setsid bash -c 'setsid sleep 1000 & wait' & wait"
    run = await started(script, home=home, cwd=tmp_path)
    tool = tmp_path / "tool"
    state = await until(run, lambda state: "begun" in state.text)
    await eventually(lambda: tool.exists() and tool.read_text().strip())
    assert state.started is not None

    def kill() -> None:
        assert state.started is not None
        os.kill(state.started.shim_pid, signal.SIGKILL)

    if somebody_follows:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(to_end, run)
            await anyio.wait_all_tasks_blocked()
            kill()
    else:
        kill()
        await eventually(lambda: summaries(home, now=time.time())[0].status == "lost")
    receipt = await run.finish()
    assert receipt.outcome.kind is OutcomeKind.LOST
    assert "no exit record" in receipt.outcome.evidence
    assert receipt.outcome.cure.endswith(".")
    assert (receipt.text, receipt.exit.code, receipt.exit.signal) == ("begun\n", None, None)
    assert receipt.is_intact
    assert [row.status for row in summaries(home, now=time.time())] == ["lost"]
    assert not alive(int(tool.read_text()))
    assert not marked_processes([tmp_path])
    assert (await (await Run.attach(home, run.run_id, environ=os.environ)).finish()) == receipt


@pytest.mark.row("faults", "the run's folder is removed while somebody waits", "ended, and the caller told")
async def test_a_run_whose_folder_is_removed_is_ended_and_the_caller_told(tmp_path: Path, home: StateHome) -> None:
    def on_event(event: Event) -> None:
        if isinstance(event, TextWritten):
            for folder in home.runs():
                shutil.rmtree(folder.path)

    with pytest.raises(StateUnusable, match="cannot be read"), anyio.fail_after(60):
        await cc_execute("setsid sleep 1000 & echo $! > pid; echo go; wait", **BASH, cwd=tmp_path, on_event=on_event)
    await eventually(lambda: not alive(int((tmp_path / "pid").read_text())))
    assert list(home.runs()) == []


@pytest.mark.row("faults", "agent killed", "crashed, with its signal")
async def test_a_run_whose_agent_is_killed_has_crashed(tmp_path: Path, home: StateHome) -> None:
    run = await started("echo begun; exec sleep 1000", home=home, cwd=tmp_path)
    state = await until(run, lambda state: "begun" in state.text)
    assert state.started is not None
    os.kill(state.started.agent_pid, signal.SIGKILL)
    receipt = await run.finish()
    assert receipt.outcome.kind is OutcomeKind.CRASHED
    assert receipt.exit.signal == "SIGKILL"


# --- sealing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_file", [True, False], ids=["a file", "no file can be made"])
async def test_many_who_finish_together_get_one_receipt_and_the_check_is_made_once(has_file: bool, tmp_path: Path, home: StateHome) -> None:
    run = await started("true", home=home, cwd=tmp_path, verify="echo checked >> checks; sleep 0.3")
    if not has_file:
        (run.folder.path / "sealing").mkdir()
    runs = [run, run, *[await Run.attach(home, run.run_id, environ=os.environ) for _ in range(4)]]
    elsewhere = follower(run.run_id)
    receipts: list[Receipt] = []

    async def finish(who: Run) -> None:
        receipts.append(await who.finish())

    async with anyio.create_task_group() as tasks:
        for who in runs:
            tasks.start_soon(finish, who)
    out, _ = await anyio.to_thread.run_sync(elsewhere.communicate)
    assert {receipt.digest for receipt in receipts} == {json.loads(out)["digest"]}
    assert receipts[0].standing is Standing.VERIFIED
    assert (tmp_path / "checks").read_text() == "checked\n"
    assert not list(run.folder.path.glob(".*")), "nothing temporary is left"


async def test_the_check_is_made_in_the_environment_of_whoever_started_the_run(
    tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal, "HEAD_START", 60.0)  # on a busy machine two seconds may pass before its owner comes
    request = shell("true", cwd=tmp_path, verify="echo $WHO > who")
    run = await Run.start(request, home=home, environ={**os.environ, "WHO": "owner"})
    watcher = await Run.attach(home, run.run_id, environ={**os.environ, "WHO": "watcher"})
    await to_end(run)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watcher.finish)
        await anyio.sleep(0.2)  # a head start that the watcher does not take
        await run.finish()
    assert (tmp_path / "who").read_text() == "owner\n"


def test_two_who_only_look_whether_somebody_seals_do_not_see_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would take the other for the one who has started the run, and leave it no head start."""
    lock, found = fcntl.flock, list[bool]()
    with (tmp_path / "sealing").open("w+b") as one, (tmp_path / "sealing").open("r+b") as other:

        def flock(descriptor: int, operation: int) -> None:
            lock(descriptor, operation)
            if descriptor == one.fileno() and operation != fcntl.LOCK_UN:
                found.append(seal._is_free(other.fileno()))

        monkeypatch.setattr(fcntl, "flock", flock)
        assert seal._is_free(one.fileno())
        assert seal._is_free(one.fileno(), take=True)
    assert found == [True, False]


async def test_a_watcher_makes_the_check_when_nobody_else_does(tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "HEAD_START", 0.2)
    run = await started("true", home=home, cwd=tmp_path, verify="true")
    receipt = await (await Run.attach(home, run.run_id, environ=os.environ)).finish()
    assert receipt.standing is Standing.VERIFIED


async def test_a_receipt_that_cannot_be_read_here_is_left_as_it_is(tmp_path: Path, home: StateHome) -> None:
    run = await started("echo done", home=home, cwd=tmp_path)
    stored = run.folder.path / records.RECEIPT
    stored.write_text('{"schema_version": 99, "of": "a version to come"}')
    assert (await run.finish()).text == "done\n"
    assert json.loads(stored.read_text())["schema_version"] == 99


@pytest.mark.parametrize("name", ["request.json", "plan.json", "exit.json", "control.jsonl"])
async def test_damaged_files_end_in_a_sentence_or_in_lost(name: str, tmp_path: Path, home: StateHome) -> None:
    run = await started("true", home=home, cwd=tmp_path)
    await to_end(run)
    for damage in (b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"code": "x"}'):
        (run.folder.path / name).write_bytes(damage)
        if name in {"request.json", "plan.json"}:
            with pytest.raises(StateUnusable, match=run.run_id):
                await (await Run.attach(home, run.run_id, environ=os.environ)).finish()
        else:
            receipt = await (await Run.attach(home, run.run_id, environ=os.environ)).finish()
            assert receipt.outcome.kind is (OutcomeKind.LOST if name == "exit.json" else OutcomeKind.OK)
            (run.folder.path / records.RECEIPT).unlink()


# --- the user's own check -----------------------------------------------------------------------------------------

HANGING: Final = "echo $$ >> pids; setsid sh -c 'echo $$ >> pids; exec sleep 1000' & setsid sh -c 'setsid sleep 1000 & echo $! >> pids; wait' & sleep 1000"


def hangs(folder: Path) -> Callable[[], bool]:
    return lambda: (folder / "pids").exists() and len((folder / "pids").read_text().split()) == 3


def nothing_lives(folder: Path) -> bool:
    return not any(alive(int(pid)) for pid in (folder / "pids").read_text().split())


async def test_a_check_that_hangs_ends_with_the_task_that_waits_for_it(tmp_path: Path, home: StateHome) -> None:
    task = asyncio.get_running_loop().create_task(cc_execute("echo done", **BASH, cwd=tmp_path, verify=HANGING))
    await eventually(hangs(tmp_path))
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 20
    assert nothing_lives(tmp_path)
    (folder,) = home.runs()
    receipt = folder.receipt()
    assert receipt is not None
    assert receipt.text == "done\n"
    assert receipt.outcome.kind is OutcomeKind.FAILED, "whoever asked for a check does not have it"
    assert receipt.checks[0].passed is None
    assert "not run" in receipt.checks[0].detail


async def test_cancel_ends_a_check_that_hangs_from_any_thread(tmp_path: Path, home: StateHome) -> None:
    run = await started("echo done", home=home, cwd=tmp_path, verify=HANGING)
    receipts: list[Receipt] = []
    async with anyio.create_task_group() as tasks:

        async def finish() -> None:
            receipts.append(await run.finish())

        tasks.start_soon(finish)
        await eventually(hangs(tmp_path))
        status = await anyio.to_thread.run_sync(lambda: run.send("cancel", by="thread"))
        assert status["ok"]
        with pytest.raises(ControlFailed):
            run.send("pause")
    assert nothing_lives(tmp_path)
    assert receipts[0].checks[0].passed is None
    assert "ended" in receipts[0].checks[0].detail
    assert receipts[0].standing is Standing.CLAIMED


async def test_checks_that_go_on_keep_no_other_run_waiting(tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errand, "THREADS", 1)
    run = await started("true", home=home, cwd=tmp_path, verify=HANGING)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run.finish)
        await eventually(hangs(tmp_path))
        with anyio.fail_after(BOUND):
            assert (await cc_execute("true", **BASH, cwd=tmp_path)).ok
        await anyio.to_thread.run_sync(lambda: run.send("cancel", by="test"))
    assert nothing_lives(tmp_path)


async def test_a_check_that_does_not_end_in_its_time_is_ended_and_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_there = hangs(tmp_path)
    assert checks.VERIFY_BUDGET == 600
    # A clock on which ten minutes pass as soon as everything of the check is there.
    monkeypatch.setattr(checks, "time", SimpleNamespace(monotonic=lambda: 600.0 if is_there() else 0.0))
    result = await cc_execute("true", **BASH, cwd=tmp_path, verify=HANGING)
    (check,) = result.receipt.checks
    assert (check.passed, check.detail) == (None, "did not end in 600 s and was ended")
    assert (result.ok, result.receipt.standing) == (False, Standing.CLAIMED)
    assert nothing_lives(tmp_path)


@pytest.mark.row("faults", "killed while its check was made", "the check is ended and made once more")
async def test_a_check_whose_maker_was_killed_is_ended_by_the_next(tmp_path: Path, home: StateHome) -> None:
    # The second time it looks whether the first is still there: two that are made at once would spoil each other's files.
    check = 'echo $$ >> pids; test $(wc -l < pids) -eq 2 || exec sleep 1000; test -z "$(cat /proc/$(head -n 1 pids)/cmdline)"'
    run = await started("true", home=home, cwd=tmp_path, verify=check)
    await to_end(run)
    other = follower(run.run_id)
    pids = tmp_path / "pids"
    await eventually(lambda: pids.exists() and pids.read_text())
    other.kill()
    await anyio.to_thread.run_sync(other.communicate)
    assert (await run.finish()).standing is Standing.VERIFIED
    assert len(pids.read_text().split()) == 2
    assert nothing_lives(tmp_path)


async def test_what_a_check_leaves_behind_neither_holds_it_nor_lives_on(tmp_path: Path) -> None:
    began = time.monotonic()
    result = await cc_execute(
        "true",
        **BASH,
        cwd=tmp_path,
        verify="setsid sh -c 'echo $$ >> pids; exec yes noise' & until [ -s pids ]; do :; done; exit 0",
    )
    assert time.monotonic() - began < 60
    assert result.receipt.standing is Standing.VERIFIED
    assert nothing_lives(tmp_path)


@pytest.mark.parametrize(
    ("verify", "passed", "words"),
    [
        ("exit 7", False, "exit code 7"),
        ("kill -9 $$", False, "ended by SIGKILL"),
        ("kill -40 $$", False, "ended by signal 40"),
        ("-nonsense", False, "exit code 127"),
        ("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo the end", True, "the end"),
        ("printf '\\377\\376'", True, "\ufffd"),
        ("cat", True, "exit code 0"),
        ("exec >&- 2>&-; sleep 0.2; exit 3", False, "exit code 3"),
        ("test $CC_EXECUTOR_RUN", True, "exit code 0"),
        ("no such \ud83d", None, "could not be started"),
    ],
)
async def test_a_check_is_what_its_exit_code_says(verify: str, passed: bool | None, words: str, tmp_path: Path) -> None:
    result = await cc_execute("true", **BASH, cwd=tmp_path, verify=verify)
    (check,) = result.receipt.checks
    assert (check.passed, words in check.detail) == (passed, True), check
    assert len(check.detail) < 2100
    assert not check.detail.rstrip().endswith(":")
    assert result.receipt.is_intact


def test_of_what_a_check_writes_only_the_end_is_held(tmp_path: Path) -> None:
    checking = checks.Checking(os.environ, Redactor())
    tracemalloc.start()
    try:
        check = checking._run("head -c 10000000 /dev/zero | tr '\\0' x; echo the end", str(tmp_path), "nobody's-verify", lambda: False)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert check.detail.endswith("the end")
    assert held < 2_000_000


async def test_a_stopped_run_s_check_is_not_made(tmp_path: Path, home: StateHome) -> None:
    run = await started("sleep 1000", home=home, cwd=tmp_path, verify="touch checked")
    await run.cancel(by="test")
    receipt = await run.finish()
    assert receipt.outcome.kind is OutcomeKind.CANCELLED
    assert not (tmp_path / "checked").exists()


async def test_expected_files_are_compared_by_content(tmp_path: Path) -> None:
    for name in ("changed", "same", "gone"):
        (tmp_path / name).write_text(name)
    names = ["new", "changed", "same", "gone", "never", "folder", str(tmp_path / "deep" / "new"), "./changed"]
    result = await cc_execute(
        "echo more >> changed; touch same; rm gone; mkdir folder deep; echo > new; echo > deep/new", **BASH, cwd=tmp_path, expect=names
    )
    assert [check.passed for check in result.receipt.checks] == [True, True, False, False, False, False, True, True]
    assert [check.detail for check in result.receipt.checks[:3]] == ["is new", "has changed", "is unchanged"]
    assert result.receipt.standing is Standing.CONTRADICTED
    changed = {Path(change.path).name: change for change in result.files}
    assert changed["changed"].before != changed["changed"].after
    assert changed["gone"].after is None


async def test_pipes_devices_and_files_beyond_all_measure_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SIZE_LIMIT", 1_000_000)
    with anyio.fail_after(60):
        result = await cc_execute(
            "mkfifo pipe; truncate -s 1T huge", **BASH, cwd=tmp_path, expect=["pipe", "huge", "/dev/zero", "/dev/tty", "x" * 300]
        )
    assert [check.passed for check in result.receipt.checks] == [False, None, False, False, False]
    assert "1,099,511,627,776 bytes" in result.receipt.checks[1].detail


# --- an agent that lies in wait -----------------------------------------------------------------------------------


def hostile(folder: Path, lines: list[bytes]) -> Path:
    """A `claude` that writes these lines, whatever it is asked."""
    (folder / "lines").write_bytes(b"".join(line + b"\n" for line in lines))
    path = folder / "claude"
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo 2.1.300 && exit\ncat {folder}/lines\n')
    path.chmod(0o755)
    return path


def written(path: str) -> bytes:
    """A tool's claim to have written a file."""
    return (
        b'{"type":"user","message":{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"ok"}]},"tool_use_result":'
        b'{"type":"create","filePath":' + json.dumps(path).encode() + b"}}"
    )


ASSISTANT: Final = b'{"type":"assistant","message":{"id":"m","model":"x","content":[{"type":"text","text":"It is done."}]}}'
RESULT: Final = b'{"type":"result","subtype":"success","is_error":false,"result":"It is done.","total_cost_usd":%s,"num_turns":%s%s}'


@pytest.mark.parametrize(
    ("structured", "data"),
    [
        (b'{"a":"\\ud83d"}', {"a": "\ufffd"}),
        (b'{"a":"\xff"}', {"a": "\ufffd"}),
        (b'{"a":1e999}', '{"a":1e999}'),
        (b'{"a":-1e400,"b":[1]}', '{"a":-1e400,"b":[1]}'),
        (b'{"a":' + b"9" * 5000 + b"}", '{"a":' + "9" * 5000 + "}"),
        (b"[" * 600 + b"]" * 600, "[" * 600 + "]" * 600),
        (b'{"a":18446744073709551617}', {"a": 18446744073709551617}),
        (b'{"a":"\\u0000"}', {"a": "\0"}),
    ],
)
async def test_structured_output_of_any_kind_is_sealed(structured: bytes, data: Any, tmp_path: Path) -> None:
    cli = hostile(tmp_path, [ASSISTANT, RESULT % (b"0.5", b"1", b',"structured_output":' + structured)])
    result = await cc_execute("x", cwd=tmp_path, cli=str(cli))
    assert result.receipt.is_intact
    assert result.data == data
    stored = RunFolder(result.folder).receipt()
    assert stored is not None
    assert stored.is_intact


@pytest.mark.parametrize("cost", [b"1e999", b"-5", b'"much"', b"null", b"[]"])
@pytest.mark.parametrize("turns", [b"1e999", b"-1", b"1.5", b"99999999999999999999"])
async def test_figures_of_any_kind_are_sealed(cost: bytes, turns: bytes, tmp_path: Path) -> None:
    cli = hostile(tmp_path, [ASSISTANT, RESULT % (cost, turns, b"")])
    receipt = (await cc_execute("x", cwd=tmp_path, cli=str(cli))).receipt
    assert receipt.is_intact
    assert receipt.text in {"It is done.", ""}


async def test_files_of_any_name_are_sealed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    names = [
        "nul\0", "half \ud83d", "/dev/zero", "/dev/stdin", "pipe", "~nobody/x", "~", "../" * 500, "/proc/self/mem", "x" * 5000, "", "/", "real",
        "/proc/kmsg", "\n", "%s{x}",
    ]  # fmt: skip
    (tmp_path / "real").write_text("real")
    cli = hostile(tmp_path, [*map(written, names), ASSISTANT, RESULT % (b"0", b"1", b"")])
    with anyio.fail_after(60):
        result = await cc_execute("x", cwd=tmp_path, cli=str(cli), undo=False)  # else looks say what was written, and not the agent
    assert result.ok, result.receipt.outcome
    assert result.receipt.is_intact
    real = {change.path: change for change in result.files}[str(tmp_path / "real")]
    assert real.size == 4
    assert RunFolder(result.folder).receipt() == result.receipt


# --- many ---------------------------------------------------------------------------------------------------------


async def test_fifty_runs_leave_no_descriptor_no_thread_and_no_zombie(tmp_path: Path) -> None:
    me = psutil.Process()

    async def several(count: int) -> None:
        for _ in range(count):
            assert (await cc_execute("echo x", **BASH, cwd=tmp_path, verify="true")).ok

    await several(3)
    await anyio.to_thread.run_sync(remembered)  # the history is written beside; its database has descriptors of its own
    gc.collect()
    descriptors, threads, children = me.num_fds(), threading.active_count(), {child.pid for child in me.children()}
    await several(50)
    await anyio.to_thread.run_sync(remembered)
    gc.collect()
    # A thread of the last run may be at its end still, and on a busy disk the last supervisors sync what they wrote: the next launch reaps those.
    await eventually(lambda: me.num_fds() <= descriptors)
    await eventually(lambda: threading.active_count() <= threads + 1)
    assert len({child.pid for child in me.children()} - children) < 10
    await eventually(lambda: supervisor.reap() or {child.pid for child in me.children()} <= children)


async def test_twenty_runs_at_once_do_not_disturb_each_other(tmp_path: Path, home: StateHome) -> None:
    texts: dict[int, str] = {}

    async def one(number: int) -> None:
        texts[number] = (await cc_execute(f"echo {number}; sleep 0.1; echo {number} >&2; echo {number}", **BASH, cwd=tmp_path)).text

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(one, number)
    assert texts == {number: f"{number}\n{number}\n" for number in range(20)}
    assert len(list(home.runs())) == 20
