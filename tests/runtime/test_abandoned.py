"""What nobody waits for any more: a check whose maker was killed; and a receipt that no longer stands for an unchanged cell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from cc_executor import cc_execute
from cc_executor.api import make_request
from cc_executor.model.outcome import OutcomeKind
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import RunRequest
from cc_executor.runtime import once
from cc_executor.runtime.errand import in_thread
from cc_executor.runtime.hooks import hooks_given
from cc_executor.runtime.lost import settle
from cc_executor.runtime.reconcile import reconcile
from cc_executor.runtime.retention import plan_pruning, prune
from cc_executor.runtime.run import Run
from cc_executor.runtime.undo import redo, undo
from cc_executor.runtime.workspace import trust, untrust
from cc_executor.shim import records
from cc_executor.store import underway
from cc_executor.store.home import StateHome
from cc_executor.store.journal import request_json
from cc_executor.store.snapshot import SnapshotStore
from support.environments import CHECKOUT
from support.runs import eventually, shell, started, to_end, until
from support.shims import alive, ended

HANGING = "echo $$ >> pids; setsid sh -c 'echo $$ >> pids; exec sleep 1000' & exec sleep 1000"
SEALER = """
import asyncio, os, sys
from cc_executor.runtime.run import Run
from cc_executor.store.home import StateHome, state_path
async def main():
    run = await Run.attach(StateHome(state_path(os.environ)), sys.argv[1], environ=os.environ)
    await run.finish()
asyncio.run(main())
"""


def sealer(run_id: str) -> subprocess.Popen[bytes]:
    """Another process that makes the check of this run and seals it."""
    return subprocess.Popen([sys.executable, "-c", SEALER, run_id], env={**os.environ, "PYTHONPATH": str(CHECKOUT / "src")})


def pids(folder: Path) -> list[int]:
    path = folder / "pids"
    return [int(word) for word in path.read_text().split()] if path.exists() else []


async def abandoned(home: StateHome, folder: Path, what: str = "check") -> Run:
    """A run that has ended, and whose check or hook goes on although its maker was killed."""
    request = shell("true", cwd=folder, verify=HANGING if what == "check" else None)
    run = await Run.start(request, home=home, environ=os.environ, hooks=hooks_given({"after_run": HANGING} if what == "hook" else None))
    await to_end(run)
    maker = sealer(run.run_id)
    await eventually(lambda: len(pids(folder)) == 2)
    assert underway.noted_runs(home.root) == [run.run_id]
    maker.kill()
    await anyio.to_thread.run_sync(maker.wait)
    assert all(map(alive, pids(folder)))
    return run


@pytest.mark.row(
    "faults",
    "killed while its check or hook was made, nobody looks",
    "the command is ended when anybody comes by; the run is sealed by who looks at it",
)
@pytest.mark.parametrize("what", ["check", "hook"])
async def test_a_command_whose_maker_was_killed_is_ended_by_whoever_comes_by(
    what: str, tmp_path: Path, home: StateHome, saw: Callable[[str], None]
) -> None:
    run = await abandoned(home, tmp_path, what)
    reconcile(home, environ=os.environ, patience=5.0)
    await eventually(lambda: not any(map(alive, pids(tmp_path))))
    await eventually(lambda: underway.noted_runs(home.root) == [])
    assert run.folder.receipt() is None
    saw(f"{what}: 0 of 2 processes")


async def test_a_check_that_is_being_made_is_left_alone(tmp_path: Path, home: StateHome) -> None:
    run = await started("true", home=home, cwd=tmp_path, verify="echo $$ > pids; read x < gate; test $x = go")
    os.mkfifo(tmp_path / "gate")
    receipts: list[Receipt] = []
    async with anyio.create_task_group() as tasks:

        async def finish() -> None:
            receipts.append(await run.finish())

        tasks.start_soon(finish)
        await eventually(lambda: pids(tmp_path))
        assert await in_thread(lambda: settle(home, environ=os.environ)) == []
        assert all(map(alive, pids(tmp_path)))
        await anyio.Path(tmp_path / "gate").write_text("go\n")
    assert receipts[0].checks[0].passed
    assert underway.noted_runs(home.root) == []


async def test_a_note_of_another_host_is_left_alone(tmp_path: Path, home: StateHome) -> None:
    run = await abandoned(home, tmp_path)
    await anyio.Path(home.root / underway.FOLDER / run.run_id).write_text("elsewhere")
    await in_thread(lambda: settle(home, environ=os.environ))
    assert all(map(alive, pids(tmp_path)))
    await anyio.Path(home.root / underway.FOLDER / run.run_id).write_text("")
    await in_thread(lambda: settle(home, environ=os.environ))
    assert all(map(ended, pids(tmp_path)))


async def test_the_room_that_a_killed_supervisor_had_set_aside_is_the_receipt_s(tmp_path: Path, home: StateHome) -> None:
    """On a disk that the run itself has filled there is no other."""
    run = await started("echo begun; sleep 1000", home=home, cwd=tmp_path)
    state = await until(run, lambda state: "begun" in state.text)
    part = run.folder.path / records.EXIT_PART
    assert part.stat().st_size > 100_000
    assert state.started is not None
    os.kill(state.started.shim_pid, signal.SIGKILL)
    receipt = await run.finish()
    assert receipt.outcome.kind is OutcomeKind.LOST
    assert not part.exists()
    assert run.folder.receipt() == receipt


# --- --once ---------------------------------------------------------------------------------------------------------------


async def test_only_an_intact_success_of_the_same_request_answers_a_cell(tmp_path: Path, home: StateHome) -> None:
    good, bad = shell("true", cwd=tmp_path), shell("exit 3", cwd=tmp_path)
    first, failed = await receipt_of(good, home), await receipt_of(bad, home)
    once.remember(home, first)
    once.remember(home, failed)
    pointers = anyio.Path(home.root / "once")
    assert [pointer.name async for pointer in pointers.iterdir()] == [good.digest()], "a failure answers nobody"
    found = once.recall(home, good)
    assert found is not None
    assert found[1] == first
    for change in ({"prompt": "true "}, {"verify": "true"}, {"expect": ("a",)}, {"model": "other"}, {"cwd": "/"}):
        assert once.recall(home, good.model_copy(update=change)) is None, change
    await (pointers / bad.digest()).write_text(failed.run_id)
    await (pointers / shell("false", cwd=tmp_path).digest()).write_text(first.run_id)
    assert once.recall(home, bad) is None
    assert once.recall(home, shell("false", cwd=tmp_path)) is None
    asked = anyio.Path(home.find(first.run_id).path / records.REQUEST)
    kept = await asked.read_bytes()
    await asked.write_bytes(request_json(shell("false", cwd=tmp_path)))
    assert once.recall(home, shell("false", cwd=tmp_path)) is None, "the receipt is that of another request"
    await asked.write_bytes(kept)
    assert once.recall(home, good) is not None
    path = anyio.Path(home.find(first.run_id).path / "receipt.json")
    changed = first.model_copy(update={"text": "another"})
    await path.chmod(0o600)
    await path.write_text(changed.model_dump_json())
    assert home.find(first.run_id).receipt() == changed
    assert once.recall(home, good) is None


async def test_a_run_answers_no_longer_when_a_file_that_it_was_to_make_is_gone(tmp_path: Path, home: StateHome) -> None:
    makes = shell("echo made > 'a file'; echo made > other", cwd=tmp_path, expect=("a file", str(tmp_path / "other")))
    first = await receipt_of(makes, home)
    once.remember(home, first)
    (tmp_path / "other").write_text("edited since")
    assert once.recall(home, makes) is not None, "what was made of it since is nobody's reason to make it again"
    (tmp_path / "a file").unlink()
    assert once.recall(home, makes) is None


async def test_a_further_attempt_answers_for_the_run_that_it_goes_on_with_and_for_no_other(tmp_path: Path, home: StateHome) -> None:
    good, other = shell("true", cwd=tmp_path), shell("true", cwd=tmp_path, verify="true")
    first = await receipt_of(good, home)
    again = await receipt_of(shell("true # once more", cwd=tmp_path), home)
    strange, stranger = await receipt_of(shell("echo", cwd=tmp_path), home), await receipt_of(other, home)
    for attempt, answers in ((again, True), (strange, False), (stranger, False)):
        once.remember(home, attempt, first=first.run_id)
        found = once.recall(home, good)
        assert (None if found is None else found[1]) == (attempt if answers else None)
    once.remember(home, again, first=first.run_id)
    (home.find(first.run_id).path / "receipt.json").unlink()
    assert once.recall(home, good) is None


@pytest.mark.parametrize("which", [0, 1], ids=["the run that began", "its further attempt"])
async def test_a_run_that_is_undone_answers_nobody(tmp_path: Path, home: StateHome, which: int) -> None:
    work = tmp_path / "work"
    work.mkdir()
    good = shell("date +%s%N > made", cwd=work, undo=True)
    runs = [await receipt_of(good, home), await receipt_of(shell("date +%s%N > made # once more", cwd=work, undo=True), home)]
    once.remember(home, runs[1], first=runs[0].run_id)
    undo(home, [each.run_id for each in runs[which:]])
    assert once.recall(home, good) is None
    everything = plan_pruning(home, environ=os.environ, now=time.time(), keep=0)
    prune(home, everything, environ=os.environ, now=time.time())
    SnapshotStore(home).sweep(time.time() + 1e9)
    assert once.recall(home, good) is None, "nor when it can no longer be redone"


async def test_a_run_that_is_redone_answers_again(tmp_path: Path, home: StateHome) -> None:
    good = shell("echo hello > made", cwd=tmp_path / "work", undo=True)
    (tmp_path / "work").mkdir()
    receipt = await receipt_of(good, home)
    once.remember(home, receipt)
    undo(home, [receipt.run_id])
    assert once.recall(home, good) is None
    redo(home, receipt.run_id)
    found = once.recall(home, good)
    assert found is not None
    assert found[1] == receipt


async def test_an_undo_that_had_nothing_to_undo_costs_no_second_run(tmp_path: Path, home: StateHome) -> None:
    good = shell("true", cwd=tmp_path / "work", undo=True)
    (tmp_path / "work").mkdir()
    receipt = await receipt_of(good, home)
    once.remember(home, receipt)
    assert not undo(home, [receipt.run_id]).steps
    assert once.recall(home, good) is not None


async def receipt_of(request: RunRequest, home: StateHome) -> Receipt:
    run = await Run.start(request, home=home, environ=os.environ)
    return await run.finish()


@pytest.mark.usefixtures("claude_cli")
@pytest.mark.row(
    "threats", "--once and trust", "a receipt stands for a later cell only if the folder's own settings were in effect as they would be now"
)
async def test_trust_that_came_or_went_makes_a_run_anew(tmp_path: Path, home: StateHome) -> None:
    folder = tmp_path / "workspace"
    (folder / ".claude").mkdir(parents=True)
    (folder / ".claude" / "settings.json").write_text("{}")
    request = await remembered(folder, home)
    assert once.recall(home, request) is not None
    trust(str(folder), home=home, environ=os.environ)
    assert once.recall(home, request) is None
    await remembered(folder, home)
    found = once.recall(home, request)
    assert found is not None
    assert found[1].workspace_trusted
    untrust(str(folder), home=home)
    assert once.recall(home, request) is None


@pytest.mark.usefixtures("claude_cli")
async def test_trust_in_a_folder_without_settings_costs_no_second_run(tmp_path: Path, home: StateHome) -> None:
    folder = tmp_path / "workspace"
    folder.mkdir()
    request = await remembered(folder, home)
    trust(str(folder), home=home, environ=os.environ)
    assert once.recall(home, request) is not None
    (folder / ".mcp.json").write_text("{}")
    assert once.recall(home, request) is None, "it has settings now, and they would take effect"


async def remembered(folder: Path, home: StateHome) -> RunRequest:
    """A run of the real CLI in this folder that a later cell may be answered with."""
    options = {"cwd": folder, "rehearse": "hello"}
    result = await cc_execute("Say hello.", **options, state=home.root)
    assert result.ok, result.receipt.outcome
    once.remember(home, result.receipt)
    return make_request("Say hello.", **options)
