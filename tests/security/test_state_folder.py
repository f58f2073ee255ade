"""What lies in the state folder may have been put there: by the agent, which is the same user. It ends in a sentence, and nobody waits, follows or obeys."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from cc_executor import cc_execute, cc_execute_sync
from cc_executor.api import make_request
from cc_executor.cli.sealed import receipt_of
from cc_executor.errors import CCExecutorError, ControlFailed, RunNotFound, StateUnusable
from cc_executor.model.listrecord import Stopped
from cc_executor.runtime import once
from cc_executor.runtime.control import command
from cc_executor.runtime.run import Run
from cc_executor.runtime.summary import summaries
from cc_executor.runtime.verification import Verdict, verify
from cc_executor.shim import records
from cc_executor.store import underway, unshared
from cc_executor.store.bundle import BUNDLE, read_bundle
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder
from cc_executor.store.tasklists import JOURNAL, LIST, LOCK, ListHome
from cc_executor.taskplan import plan
from cc_executor.tasks import open_list
from support.runs import BASH, BOUND, remembered, shell, to_end, until

NOBODY = 65534
IS_ROOT = os.geteuid() == 0
SECRET = "canary-of-a-file-elsewhere"
pytestmark = pytest.mark.timeout(2 * BOUND)

PLANTED = pytest.mark.row(
    "threats",
    "planted file in a run's folder",
    "no link is followed, no pipe waited for, no content is more than one sentence",
)
IDS = pytest.mark.row("threats", "path as a run id", "an id is 26 hex digits or a part of one; nothing else names a run")
FOREIGN = pytest.mark.row("threats", "state folder of somebody else", "neither written nor read: refused in one sentence")
STRANGER = pytest.mark.row("threats", "another user at the control socket", "hung up on, also where the modes were opened by hand")


# --- files in a run's folder --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder of one finished run."""
    folder = tmp_path_factory.mktemp("template")
    result = cc_execute_sync("echo said; echo wrong >&2", **BASH, cwd=folder, state=folder / "state", environ={"PATH": os.environ["PATH"]})
    assert result.ok
    data = {"data": {"text/plain": "said", "text/html": "<p>said</p>"}, "metadata": {}}
    (result.folder / BUNDLE).write_text(json.dumps(data))
    remembered()  # nothing is written any more while it is copied
    return folder / "state"


def a_pipe(file: Path, _: Path) -> None:
    os.mkfifo(file)


def a_link_elsewhere(file: Path, secret: Path) -> None:
    file.symlink_to(secret)


def a_link_to_itself(file: Path, _: Path) -> None:
    file.symlink_to(file)


def a_device(file: Path, _: Path) -> None:
    file.symlink_to("/dev/zero")


def a_folder(file: Path, _: Path) -> None:
    file.mkdir()


def nothing_in_it(file: Path, _: Path) -> None:
    file.write_bytes(b"")


def a_list(file: Path, _: Path) -> None:
    file.write_bytes(b"[1, null, {}]\n")


def wrong_types(file: Path, _: Path) -> None:
    names = [
        "prompt",
        "cwd",
        "agent",
        "argv",
        "code",
        "signal",
        "run_id",
        "outcome",
        "times",
        "exit",
        "data",
        "metadata",
        "journal",
        "seq",
        "t",
        "at",
        "kind",
        "before",
    ]
    file.write_text(json.dumps({name: {"a": [True]} for name in names}) + "\n")


def deep(file: Path, _: Path) -> None:
    file.write_bytes(b'{"data":' + b"[" * 200_000 + b"]" * 200_000 + b"}\n")


def deep_objects(file: Path, _: Path) -> None:
    file.write_bytes(b'{"kind":"started","x":' * 20_000 + b"1" + b"}" * 20_000 + b"\n")


def a_huge_number(file: Path, _: Path) -> None:
    file.write_bytes(b'{"data": 1' + b"0" * 100_000 + b"}\n")


def huge(file: Path, _: Path) -> None:
    file.touch()
    os.truncate(file, 2**28)  # a hole: it takes no room


def no_text(file: Path, _: Path) -> None:
    file.write_bytes(bytes(range(256)) * 10)


DAMAGES = (
    a_pipe, a_link_elsewhere, a_link_to_itself, a_device, a_folder, nothing_in_it, a_list, wrong_types, deep, deep_objects, a_huge_number, huge, no_text,
)  # fmt: skip
NAMES = (
    "request.json",
    "plan.json",
    records.RECEIPT,
    BUNDLE,
    records.EXIT,
    records.CONTROL,
    records.STDOUT,
    records.INDEX_FILE,
    records.LOCK,
    "sealing",
)


def readers(home: StateHome, run_id: str) -> Iterator[Callable[[], object]]:
    """Everything that looks at a run that has ended."""
    folder = home.find(run_id)

    def examined() -> object:
        sealed = folder.receipt()
        return None if sealed is None else verify(sealed, home=home, transcript_roots=()).reasons

    yield lambda: summaries(home, now=time.time())
    yield folder.receipt
    yield lambda: read_bundle(folder)
    yield lambda: folder.standing(time.time())
    yield examined
    yield lambda: command(folder, "status")
    yield lambda: anyio.run(receipt_of, home, run_id)


@PLANTED
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", [each for each in DAMAGES if each is not huge])
def test_whatever_stands_in_place_of_a_file_ends_in_a_sentence(
    name: str, damage: Callable[[Path, Path], None], template: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(json.dumps({"prompt": SECRET, "data": {"text/plain": SECRET}, "metadata": {}, "text": SECRET}))
    examine(name, damage, template, secret)


@PLANTED
@pytest.mark.parametrize("name", [name for name in NAMES if name not in {records.STDOUT, records.INDEX_FILE}])  # these may be large
def test_a_huge_file_is_not_read_whole(name: str, template: Path, tmp_path: Path) -> None:
    examine(name, huge, template, tmp_path / "none")


def examine(name: str, damage: Callable[[Path, Path], None], template: Path, secret: Path) -> None:
    state = secret.parent / "state"
    shutil.copytree(template, state)
    home = StateHome(state)
    (run,) = home.runs()
    (run.path / name).unlink(missing_ok=True)
    damage(run.path / name, secret)
    began = time.monotonic()
    for read in readers(home, run.run_id):
        try:
            answer = read()
        except CCExecutorError as error:
            answer = str(error)
            assert "\n" not in answer
            assert len(answer) < 1000
        assert SECRET not in repr(answer)
    assert time.monotonic() - began < BOUND
    if secret.exists():
        assert SECRET in secret.read_text(), "it was written through a link"


@PLANTED
@pytest.mark.parametrize("damage", [a_pipe, a_link_to_itself, a_device, a_folder, no_text, huge])
async def test_a_shortcut_and_a_memory_of_versions_that_were_planted_are_none(
    damage: Callable[[Path, Path], None], home: StateHome, tmp_path: Path
) -> None:
    home.prepare()
    request = make_request("true", **BASH, cwd=tmp_path)
    (home.root / "once").mkdir(mode=0o700)
    damage(home.root / "once" / request.digest(), tmp_path)
    damage(home.root / "agents.json", tmp_path)
    assert once.recall(home, request) is None
    result = await cc_execute("true", **BASH, cwd=tmp_path, state=home.root)
    assert result.ok


@PLANTED
def test_a_pipe_in_place_of_what_is_written_down_is_waited_for_by_nobody(template: Path, tmp_path: Path) -> None:
    home = StateHome(shutil.copytree(template, tmp_path / "state"))
    (run,) = home.runs()
    receipt = run.receipt()
    assert receipt is not None
    (home.root / underway.FOLDER).mkdir(exist_ok=True)
    a_pipe(home.root / underway.FOLDER / run.run_id, tmp_path)
    with underway.noted(home.root, run.run_id):
        pass
    shortcut = home.root / "once" / receipt.request_digest
    shortcut.parent.mkdir(exist_ok=True)
    a_pipe(shortcut.with_name(f".{shortcut.name}.{os.getpid()}"), tmp_path)  # where somebody could guess that it is written first
    once.remember(home, receipt)
    assert shortcut.read_text() == run.run_id
    (home.root / unshared.FOLDER).mkdir(parents=True)
    a_pipe(home.root / unshared.FOLDER / run.run_id, tmp_path)
    with pytest.raises(OSError, match="No such device"):
        unshared.Unshared(home.root).add([run.run_id])


@PLANTED
@pytest.mark.parametrize("name", [LIST, JOURNAL, LOCK])
@pytest.mark.parametrize("damage", [a_pipe, a_link_to_itself, a_device, a_folder])
def test_whatever_stands_in_place_of_a_file_of_a_list_is_waited_for_by_nobody(
    name: str, damage: Callable[[Path, Path], None], home: StateHome, tmp_path: Path
) -> None:
    folder = open_list(plan("tasks:\n  - {id: a, run: 'true'}", cwd=tmp_path), home)
    folder.append(Stopped(at=1.0))
    (folder.path / name).unlink(missing_ok=True)
    damage(folder.path / name, tmp_path)
    if name == LOCK:
        assert not folder.is_run()
    else:
        with pytest.raises(StateUnusable, match="cannot be read"):
            folder.tasks() if name == LIST else folder.state()


@PLANTED
def test_what_is_stored_to_be_shown_is_made_harmless(template: Path, tmp_path: Path) -> None:
    shutil.copytree(template, tmp_path / "state")
    (run,) = StateHome(tmp_path / "state").runs()
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)><p style='background:url(https://evil.invalid)'>kept</p>"
    data: dict[str, Any] = {
        "text/plain": "plain", "text/html": evil, "text/markdown": evil, "application/javascript": "alert(1)", "image/svg+xml": evil,
        "application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/latex": evil,
    }  # fmt: skip
    (run.path / BUNDLE).write_text(json.dumps({"data": data, "metadata": {"isolated": True, "text/html": {"isolated": True}}}))
    assert read_bundle(run) == ({"text/plain": "plain", "text/html": "<p>kept</p>"}, {"cc_executor": {}})


# --- which run is meant -------------------------------------------------------------------------------------------

NO_IDS = (
    "..", "../..", ".", "/", "/etc", "~", "runs", "*", "????", "%2e%2e", "..%2f..", "0199/../../x", "a" * 25, "a" * 27, "0" * 26 + "\n", "0" * 26 + "/..",
    "\0", "０１９９", "-rf", "--help", "zzzz", "000", "", "\ud800", "0" * 100_000,
)  # fmt: skip


@IDS
@pytest.mark.parametrize("name", NO_IDS, ids=lambda name: repr(name)[:20])
def test_only_an_id_names_a_run(name: str, home: StateHome) -> None:
    home.prepare()
    (home.root / "x").mkdir()
    with pytest.raises(RunNotFound):
        home.find(name)


@IDS
def test_a_link_or_a_file_with_an_id_for_its_name_is_no_run(template: Path, home: StateHome) -> None:
    (real,) = StateHome(template).runs()
    home.prepare()
    for number, make in enumerate([lambda path: path.symlink_to(real.path), Path.touch, os.mkfifo, lambda path: path.symlink_to(path)]):
        path = home.runs_path / f"{number:026x}"
        make(path)
        with pytest.raises(RunNotFound):
            home.find(path.name)
    assert list(home.runs()) == []
    assert summaries(home, now=time.time()) == []


# --- whose it is --------------------------------------------------------------------------------------------------


@FOREIGN
async def test_a_state_folder_that_others_can_write_is_not_read_either(template: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    shutil.copytree(template, state)
    home = StateHome(state)
    (run,) = home.runs()
    changes: list[Callable[[], object]] = [lambda: state.chmod(0o777), lambda: (state.chmod(0o700), (state / "runs").chmod(0o770))]
    if IS_ROOT:
        changes.append(lambda: ((state / "runs").chmod(0o700), os.chown(state, NOBODY, NOBODY)))
    for change in changes:
        change()
        for look in (lambda: home.find(run.run_id), lambda: list(home.runs()), home.prepare, lambda: list(ListHome(home).folders())):
            with pytest.raises(StateUnusable, match=r"is open to others|belongs to another user"):
                look()
        with pytest.raises(StateUnusable):
            await Run.attach(home, run.run_id, environ={})


# --- the control socket -------------------------------------------------------------------------------------------

CALL = """
import os, socket, sys
os.setgroups(()); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
call = socket.socket(socket.AF_UNIX)
call.connect(sys.argv[1])
call.sendall(b'{"op": "cancel", "now": true}\\n')
print(repr(call.recv(10)))
"""


@STRANGER
async def test_another_user_cannot_cancel_a_run(home: StateHome, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    run = await Run.start(shell("echo ready; read x < gate; echo through", cwd=tmp_path), home=home, environ=os.environ)
    await until(run, lambda state: "ready" in state.text)
    if IS_ROOT:  # else there is nobody to become, and tests/shim/test_door.py shows the decision alone
        for folder in (home.root.parent, home.root, home.runs_path, run.folder.path):
            folder.chmod(0o755)
        socket_ = run.folder.path / records.SOCKET
        socket_.chmod(0o666)
        call = await anyio.to_thread.run_sync(
            lambda: subprocess.run(
                [sys.executable, "-I", "-S", "-c", CALL, str(socket_)], capture_output=True, text=True, timeout=BOUND, check=False
            )
        )
        assert call.stdout == "b''\n" or "BrokenPipeError" in call.stderr or "ConnectionResetError" in call.stderr, call
        for folder in (home.root, home.runs_path, run.folder.path):
            folder.chmod(0o700)
    assert (await run.status())["state"] == "running"
    (tmp_path / "gate").write_text("go\n")
    await to_end(run)
    assert (await run.finish()).outcome.ok


def answering(parts: list[bytes], pause: float) -> Callable[[socket.socket], None]:
    def serve(listener: socket.socket) -> None:
        while True:
            try:
                caller, _ = listener.accept()
            except OSError:
                return
            with caller:
                try:
                    for part in parts:
                        caller.sendall(part)
                        time.sleep(pause)  # it is slow on purpose
                except OSError:
                    continue

    return serve


@pytest.mark.row("threats", "false supervisor at the control socket", "what it answers is bounded in size and in time")
@pytest.mark.parametrize(
    ("parts", "pause"),
    [
        ([b"nonsense\n"], 0),
        ([b"[]\n"], 0),
        ([b'{"ok": false, "error": {"a": []}}\n'], 0),
        ([b'{"ok": false, "error": "' + b"a\\n\\u001b[2J" * 9000 + b'"}\n'], 0),
        ([b"x" * 65536] * 100, 0),
        ([b"x"] * 300, 0.05),
        ([b"[" * 100_000 + b"\n"], 0),
    ],
)
def test_a_false_supervisor_holds_nobody_up(parts: list[bytes], pause: float, home: StateHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cc_executor.runtime.control.ANSWER_BUDGET", 1.0)
    home.prepare()
    folder = home.runs_path / f"{1:026x}"
    folder.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / records.SOCKET))
        listener.listen()
        threading.Thread(target=answering(parts, pause), args=(listener,), daemon=True).start()
        began = time.monotonic()
        with pytest.raises(ControlFailed) as caught:
            command(RunFolder(folder), "status")
        assert time.monotonic() - began < 10, "to read all that it sends takes 15 s"
        assert len(str(caught.value)) < 500
        assert str(caught.value).isprintable()
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.row("threats", "damaged run of somebody's making", "attaching to it ends in a sentence and ends no process of anybody")
async def test_a_plan_that_was_written_by_hand_starts_and_ends_nothing(template: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    shutil.copytree(template, state)
    home = StateHome(state)
    (run,) = home.runs()
    for name in (records.RECEIPT, records.EXIT):
        (run.path / name).unlink()
    request = json.loads((run.path / records.REQUEST).read_text())
    (run.path / records.REQUEST).write_text(json.dumps({**request, "cli": f"{tmp_path}/evil", "shell": f"{tmp_path}/evil"}))
    bystander = subprocess.Popen(["sleep", "100"])  # noqa: ASYNC220 - it is only there to be alive
    try:
        (run.path / records.CONTROL).write_text(
            json.dumps({"seq": 0, "t": 0.0, "at": time.time(), "kind": "started", "pid": bystander.pid, "shim_pid": bystander.pid}) + "\n"
        )
        attached = await Run.attach(home, run.run_id, environ={"PATH": os.environ["PATH"]})
        with anyio.fail_after(BOUND):
            receipt = await attached.finish()
        assert receipt.outcome.kind.value == "lost"
        assert verify(receipt, home=home, transcript_roots=()).verdict is not Verdict.CONTRADICTED
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
