"""Task lists with the real CLI and a model that counts what it is asked; and worlds in which a list cannot be kept."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from cc_executor.api import make_request
from cc_executor.errors import StateUnusable
from cc_executor.model.event import TextWritten
from cc_executor.model.listrecord import Begun, ListStatus, TaskStatus
from cc_executor.model.outcome import OutcomeKind
from cc_executor.rehearsal.loopback import API_KEY
from cc_executor.rehearsal.scripts import Block, Script, Turn
from cc_executor.rehearsal.server import ServedRehearsal, serving
from cc_executor.runtime import adoption
from cc_executor.runtime.attempt import Watcher
from cc_executor.runtime.plan import PLAN, Plan
from cc_executor.runtime.run import Batch
from cc_executor.runtime.tasklist import run_list
from cc_executor.shim import records
from cc_executor.store import tasklists
from cc_executor.store.home import StateHome, new_run_id
from cc_executor.store.journal import request_json
from cc_executor.store.tasklists import JOURNAL, ListHome
from cc_executor.taskplan import plan, request_of
from cc_executor.tasks import ListResult, cc_execute_list
from support.runs import eventually

pytestmark = pytest.mark.timeout(200)  # eight of the real CLI one after another, on a busy machine

SAYS_ITS_SESSION: Final = Script(turns=(Turn(blocks=(Block(text="This is {session}."),)),))
IS_ROOT: Final = os.geteuid() == 0


@pytest.fixture
def model(tmp_path: Path, claude_cli: Path) -> Iterator[ServedRehearsal]:
    """A model that says to every session its id."""
    with serving(SAYS_ITS_SESSION, cwd=str(tmp_path), pace=0) as served:
        yield served


async def execute(folder: Path, model: ServedRehearsal, *tasks: object, path: str = "", **more: Any) -> ListResult:
    environ = {**os.environ, "ANTHROPIC_BASE_URL": model.url, "ANTHROPIC_API_KEY": API_KEY, "PATH": path or os.environ["PATH"]}
    with anyio.fail_after(180):
        return await cc_execute_list(tasks, cwd=folder, environ=environ, **more)


def asked(model: ServedRehearsal) -> list[str]:
    """The sessions that have asked the model, in order."""
    return [request.session for request in model.requests if request.kind == "main"]


def agent(task_id: str, *needs: str, **more: object) -> dict[str, object]:
    told = " ".join(f"{{{{ needs.{need}.text }}}}" for need in needs)
    return {"id": task_id, "prompt": f"Task {task_id}. {told}", **more}


WAITS_FOR_TWO_MORE: Final = """#!/bin/sh
case "$*" in *--version*) exec {cli} "$@" ;; esac
touch {folder}/$$
until [ $(ls {folder} | wc -l) -ge 3 ]; do sleep 0.02; done
exec {cli} "$@"
"""


def with_waiting_cli(folder: Path, cli: Path) -> str:
    """A PATH on which the CLI begins when three were started, so that one that is slow to start is no reason for another to have ended."""
    (folder / "bin").mkdir()
    (folder / "begun").mkdir()
    program = folder / "bin" / "claude"
    program.write_text(WAITS_FOR_TWO_MORE.format(cli=cli, folder=folder / "begun"))
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


def beginning(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Another Python that runs a list."""
    return subprocess.Popen([sys.executable, *arguments], cwd=folder, stdout=subprocess.PIPE, start_new_session=True)


async def test_the_seventh_fails_and_its_dependants_alone_are_left_out(tmp_path: Path, model: ServedRehearsal, claude_cli: Path) -> None:
    tasks = [
        *(agent(f"t{number}", group="first") for number in range(1, 4)),
        agent("t4", "t1", "t2", "t3"),
        agent("t5", "t4"),
        agent("t6"),
        agent("t7", "t6", expect="never.txt"),
        agent("t8", "t7"),
        agent("t9", "t5"),
        agent("t10", "t8"),
    ]
    result = await execute(tmp_path, model, *tasks, path=with_waiting_cli(tmp_path, claude_cli), on_failure="skip", parallel=3)
    skipped = {"t8", "t10"}
    assert {name: task.status.value for name, task in result.tasks.items()} == {
        str(task["id"]): "skipped" if task["id"] in skipped else "failed" if task["id"] == "t7" else "ok" for task in tasks
    }
    assert result.result("t7").receipt.outcome.kind is OutcomeKind.FAILED
    sessions = {name: result.result(name).receipt.session_id for name in result.tasks if name not in skipped}
    assert sorted(asked(model)) == sorted(sessions.values()), "one request for each task that was begun, and none for the others"
    assert set(asked(model)[:3]) == {sessions[name] for name in ("t1", "t2", "t3")}
    times = {name: result.result(name).receipt.times for name in sessions}
    assert max(times[f"t{n}"].started for n in (1, 2, 3)) < min(times[f"t{n}"].ended for n in (1, 2, 3)), "they ran side by side"
    assert times["t4"].started > max(times[f"t{n}"].ended for n in (1, 2, 3))
    prompt = (result.result("t4").folder / "prompt").read_text()
    assert prompt == f"Task t4. This is {sessions['t1']}. This is {sessions['t2']}. This is {sessions['t3']}."


async def test_what_is_done_again_asks_the_model_for_what_failed_alone(tmp_path: Path, model: ServedRehearsal) -> None:
    tasks = (agent("a"), agent("b", "a", verify="test -e there.txt"), agent("c", "b"))
    assert not (await execute(tmp_path, model, *tasks)).ok
    assert len(asked(model)) == 2
    (tmp_path / "there.txt").touch()
    assert (await execute(tmp_path, model, *tasks)).ok
    assert len(asked(model)) == 4
    again = await execute(tmp_path, model, *tasks)
    assert again.ok
    assert len(asked(model)) == 4, "a list that is done asks nothing"


# --- a list that cannot be kept ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def read_only(path: Path) -> Generator[None]:
    """Root, whom modes do not stop, is stopped by the immutable flag (ioctl_iflags(2))."""

    def set_to(closed: bool) -> None:
        if not IS_ROOT:
            path.chmod((0o500 if path.is_dir() else 0o400) if closed else 0o700)
            return
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, 0x40086602, struct.pack("l", 0x10 if closed else 0))  # FS_IOC_SETFLAGS, FS_IMMUTABLE_FL
        finally:
            os.close(descriptor)

    set_to(True)
    try:
        yield
    finally:
        set_to(False)


async def test_a_state_folder_that_is_read_only_is_told_and_what_is_in_it_can_be_read(tmp_path: Path, home: StateHome) -> None:
    tasks = [{"id": "a", "run": "echo x >> runs"}]
    planned = plan(tasks, cwd=tmp_path)
    home.prepare()
    with read_only(home.root), pytest.raises(StateUnusable, match="CC_EXECUTOR_STATE"):
        await cc_execute_list(planned)
    folder = ListHome(home).open(planned.tasks)
    with read_only(folder.path):
        with pytest.raises(StateUnusable, match="cannot be"):
            await cc_execute_list(planned)
        assert not folder.is_run()
    assert (await cc_execute_list(planned)).ok
    with read_only(folder.path):
        assert folder.state().task("a").status is TaskStatus.OK
        assert not folder.is_run()
    assert (tmp_path / "runs").read_text() == "x\n"


async def test_a_journal_that_can_no_longer_be_written_is_told_as_such_and_the_list_goes_on_later(tmp_path: Path, home: StateHome) -> None:
    planned = plan([{"id": "a", "run": "echo x >> runs; cat gate"}, {"id": "b", "run": "echo x >> runs"}], cwd=tmp_path)
    folder = ListHome(home).open(planned.tasks)
    os.mkfifo(tmp_path / "gate")
    with contextlib.ExitStack() as stack:

        async def go_on() -> None:
            await eventually((tmp_path / "runs").exists)
            stack.enter_context(read_only(folder.path / JOURNAL))
            await anyio.to_thread.run_sync((tmp_path / "gate").write_text, "open")

        async with anyio.create_task_group() as beside:
            beside.start_soon(go_on)
            with pytest.raises(StateUnusable, match="cannot be written"), anyio.fail_after(90):  # and no group of exceptions
                await cc_execute_list(planned)
    assert (await cc_execute_list(planned)).ok
    assert (tmp_path / "runs").read_text() == "x\nx\n", "what had gone on was adopted"


@pytest.mark.parametrize("left", ["no folder", "bare folder", "half a request", "no plan", "no supervisor"])
async def test_an_attempt_whose_launcher_was_killed_before_anything_ran_is_made_again(
    tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    monkeypatch.setattr(adoption, "LATE", 0.2)
    planned = plan([{"id": "a", "run": "echo x >> runs"}], cwd=tmp_path)
    folder, run_id = ListHome(home).open(planned.tasks), new_run_id(time.time())
    folder.append(Begun(at=time.time(), task="a", attempt=1, run_id=run_id))
    if left != "no folder":
        run = home.create(run_id)
        if left != "bare folder":
            run.write_new(
                records.REQUEST, b"" if left == "half a request" else request_json(make_request("true", agent="shell", cwd=tmp_path))
            )
        if left == "no supervisor":
            run.write_new(
                PLAN, Plan(argv=("true",), agent_path="/bin/true", agent_version="", session_id="s", env_names=(), before={}).to_json()
            )
    with anyio.fail_after(90):
        result = await cc_execute_list(planned)
    assert result.ok, result
    assert result.tasks["a"].begun == 2
    assert (tmp_path / "runs").read_text() == "x\n"


async def test_a_long_journal_is_read_whole(tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasklists, "READ_LIMIT", 2_000)
    planned = plan([{"id": f"t{number}", "run": "echo"} for number in range(12)], cwd=tmp_path)
    result = await cc_execute_list(planned)
    folder = ListHome(home).open(planned.tasks)
    assert (folder.path / JOURNAL).stat().st_size > 2_000
    assert folder.state().tasks == result.tasks


async def test_names_and_texts_that_are_no_unicode_break_no_list(tmp_path: Path) -> None:
    def odd(needs: dict[str, Any]) -> dict[str, str]:
        return {"name": "caf\udce9", "before": needs["a"].text}

    result = await cc_execute_list([{"id": "a", "call": lambda: "x\ud800y"}, {"id": "b", "call": odd, "needs": "a"}], cwd=tmp_path)
    assert result.ok, result
    assert result["b"] == {"name": "caf?", "before": "x?y"}


FORKS: Final = """
import os, sys, time
from pathlib import Path
from cc_executor.tasks import cc_execute_task_list

def forks():
    child = os.fork()
    if child == 0:
        time.sleep(100)
        os._exit(0)
    Path("child").write_text(str(child))

made = cc_execute_task_list([{"id": "a", "call": forks}, {"id": "b", "run": "echo $$ > running; until [ -e go ]; do sleep 0.02; done", "needs": "a"}])
print(made.status)
"""


async def test_a_process_that_a_callable_forked_does_not_hold_the_list_of_a_killed_kernel(tmp_path: Path) -> None:
    (tmp_path / "forks.py").write_text(FORKS)

    first = beginning(tmp_path, "forks.py")
    try:
        await eventually((tmp_path / "running").exists)
        first.kill()
        first.wait()
        (tmp_path / "go").touch()
        second = beginning(tmp_path, "forks.py")
        out, _ = await anyio.to_thread.run_sync(lambda: second.communicate(timeout=100))
        assert out.decode().strip() == "ok"
    finally:
        first.kill()
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


async def test_who_watches_a_list_that_another_process_runs_sees_what_its_runs_write(tmp_path: Path, home: StateHome) -> None:
    commands = {name: f"echo {name} says; until [ -e {name} ]; do sleep 0.02; done" for name in ("one", "two")}
    tasks = [{"id": name, "run": command} for name, command in commands.items()]
    script = "import json, sys; from cc_executor.tasks import cc_execute_task_list as run; run(json.loads(sys.argv[1]))"
    process = beginning(tmp_path, "-c", script, json.dumps(tasks))
    planned = plan(tasks, cwd=tmp_path)
    folder = ListHome(home).open(planned.tasks)
    seen: list[tuple[str, str]] = []

    def see(task_id: str, batch: Batch) -> None:
        seen.extend((task_id, event.text) for event in batch.events if isinstance(event, TextWritten))
        if (task_id, f"{task_id} says\n") in seen and folder.state().task(task_id).status is TaskStatus.RUNNING:
            (tmp_path / task_id).touch()

    try:
        await eventually(folder.is_run)
        with anyio.fail_after(100):
            state = await run_list(
                folder,
                home=home,
                environ=os.environ,
                request_of=lambda task, text, max_cost, session: request_of(planned.tasks, task, text, max_cost, session),
                calls={},
                watcher=Watcher(on_batch=see),
            )
        assert state.status is ListStatus.OK
        assert seen == [("one", "one says\n"), ("two", "two says\n")]
    finally:
        process.kill()
        process.wait()
