"""A cell whose run or list is in the hands of a process that was stopped (SIGSTOP): the kernel answers meanwhile, and an interrupt ends the cell."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from cc_executor.store.tasklists import FOLDER, JOURNAL, LOCK
from kernel.cells import WAIT, WIDGET_MIME, living, make_gate, shell_cell, wait_for_pid
from kernel.test_endings import shim_of
from support.kernel import Kernel
from support.locks import held_by_a_stopped_process
from support.looks import eventually

LIST: Final = "%%cc_tasks\ntasks:\n  - {id: a, run: 'exit 1'}"
WAIT_SHORT: Final = "touch up; cat gate"
LONG: Final = 100.0  # seconds; it is one that people wait for
PATCH: Final = """
from cc_executor.kernel import commands, taskcell
from cc_executor.runtime import control, run
from cc_executor.store import plain
kept = control.ANSWER_BUDGET, control.wake, run.wake, taskcell.TaskCommands.kill, plain.PATIENCE, commands.command
"""


@pytest.fixture
def patched(kernel: Kernel) -> Iterator[Kernel]:
    """A kernel in which a test may change what `PATCH` keeps."""
    assert kernel.run(PATCH).status == "ok"
    yield kernel
    assert (
        kernel.run(
            "control.ANSWER_BUDGET, control.wake, run.wake, taskcell.TaskCommands.kill, plain.PATIENCE, commands.command = kept"
        ).status
        == "ok"
    )


def stopped(folder: Path, state: Path) -> int:
    """The supervisor of the one run, which stands still from now on."""
    wait_for_pid(folder)
    shim = shim_of(state)
    os.kill(shim, signal.SIGSTOP)
    return shim


def still_answers(kernel: Kernel) -> None:
    """Whether the kernel's loop is free, though it waits for somebody."""
    began = time.monotonic()
    for _ in range(3):  # the first may have been on its way before
        asked = kernel.client.kernel_info()
        reply = kernel.client.get_shell_msg(timeout=LONG / 2)
        assert reply["parent_header"]["msg_id"] == asked
        time.sleep(0.2)  # that an interrupt or a command was felt cannot be seen from outside while the supervisor stands still
    assert time.monotonic() - began < LONG


def hear(kernel: Kernel, op: str) -> None:
    """Wait for what a view is told."""
    end = time.monotonic() + 60
    while True:
        message = kernel.client.get_iopub_msg(timeout=max(0.1, end - time.monotonic()))
        if message["msg_type"] == "comm_msg" and message["content"]["data"].get("content", {}).get("op") == op:
            return


@pytest.mark.row(
    "faults", "interrupt of a cell whose supervisor is stopped (SIGSTOP), real kernel", "the kernel answers meanwhile, and the run is ended"
)
def test_a_kernel_answers_while_a_stopped_supervisor_is_told_to_end(patched: Kernel, tmp_path: Path, state_folder: Path) -> None:
    make_gate(tmp_path)
    patched.run(f"control.ANSWER_BUDGET = {LONG}")
    sent = patched.send(shell_cell(WAIT))
    begun = patched.wait(sent, until=lambda answer: answer.displays)  # before that it is a launch that is interrupted
    shim = stopped(tmp_path, state_folder)
    patched.interrupt()
    still_answers(patched)
    os.kill(shim, signal.SIGCONT)
    answer = patched.wait(sent, answer=begun)
    assert re.fullmatch(r"run \w{26} was ended; its receipt is kept", answer.evalue)
    assert living(tmp_path) == []


@pytest.mark.row(
    "faults",
    "Pause in a view, `%cc resume` and `%cc cancel` of a run whose supervisor is stopped (SIGSTOP), real kernel",
    "the kernel answers meanwhile",
)
def test_a_kernel_answers_while_a_stopped_supervisor_is_commanded(patched: Kernel, tmp_path: Path, state_folder: Path) -> None:
    make_gate(tmp_path)
    patched.run(
        "from pathlib import Path\n"
        "def command(folder, op, **fields):\n    Path(op).touch()\n    return kept[-1](folder, op, **fields)\n"
        f"commands.command, control.ANSWER_BUDGET = command, {LONG}"
    )
    view = patched.run(shell_cell(WAIT, "--bg")).displays[0][WIDGET_MIME]["model_id"]
    shim = stopped(tmp_path, state_folder)
    patched.tell(view, {"method": "custom", "content": {"op": "command", "command": "pause"}})
    still_answers(patched)
    os.kill(shim, signal.SIGCONT)
    hear(patched, "taken")
    for code, op, said in (("%cc resume", "resume", "goes on"), ("%cc_cancel", "cancel", "is being ended")):
        os.kill(shim, signal.SIGSTOP)
        sent = patched.send(code)
        eventually((tmp_path / op).exists, within=60, what="the cell asks")
        still_answers(patched)
        os.kill(shim, signal.SIGCONT)
        assert said in patched.wait(sent).stream
    eventually(lambda: living(tmp_path) == [], within=60, what="it is ended")


@pytest.mark.row(
    "faults", "Pause in a list's view while somebody who was stopped holds its journal, real kernel", "the kernel answers meanwhile"
)
def test_a_kernel_answers_while_a_list_cannot_be_told(patched: Kernel, tmp_path: Path, state_folder: Path) -> None:
    make_gate(tmp_path)
    patched.run(f"plain.PATIENCE = {LONG}")
    sent = patched.send(f"%%cc_tasks\ntasks:\n  - {{id: a, run: '{WAIT_SHORT}'}}")
    begun = patched.wait(sent, until=lambda answer: answer.displays)
    eventually((tmp_path / "up").exists, within=60, what="the task runs")
    (folder,) = (state_folder / FOLDER).iterdir()
    journal = folder / JOURNAL
    size = journal.stat().st_size
    with held_by_a_stopped_process(journal):
        for number, command in enumerate(("pause", "resume")):
            said = {"op": "command", "command": command, "task": "", "text": "", "click": f"v {number}"}
            patched.tell(begun.displays[0][WIDGET_MIME]["model_id"], {"method": "custom", "content": said})
        still_answers(patched)
    eventually(lambda: b'"resumed"' in journal.read_bytes()[size:], within=60, what="it goes on")
    kinds = [json.loads(line)["kind"] for line in journal.read_bytes()[size:].splitlines()]
    assert kinds[:2] == ["paused", "resumed"], "in the order in which they were pressed"
    (tmp_path / "gate").write_text("")
    assert patched.wait(sent, answer=begun).status == "ok"


@pytest.mark.row(
    "faults", "interrupt of a cell whose supervisor cannot go on, real kernel", "the cell ends after two commands' time and says so"
)
def test_a_cell_is_left_whose_supervisor_cannot_be_told_to_go_on(patched: Kernel, tmp_path: Path, state_folder: Path) -> None:
    make_gate(tmp_path)
    patched.run("control.ANSWER_BUDGET = 0.5\ncontrol.wake = run.wake = lambda folder: None")  # as in a control group that is frozen
    sent = patched.send(shell_cell(WAIT))
    begun = patched.wait(sent, until=lambda answer: answer.displays)  # as above
    shim = stopped(tmp_path, state_folder)
    patched.interrupt()
    answer = patched.wait(sent, answer=begun)
    os.kill(shim, signal.SIGCONT)
    assert (answer.status, answer.ename) == ("error", "KeyboardInterrupt")
    assert re.fullmatch(r"run (\w{26}) was told to end, and its supervisor stands still; `%cc attach \1` watches it again", answer.evalue)
    assert "supervisor stands still" in answer.displays[0]["text/plain"]
    eventually(lambda: living(tmp_path) == [], within=60, what="it is ended when it goes on")


@pytest.mark.row(
    "faults", "whoever runs a list is stopped (SIGSTOP), interrupt of a cell that watches, real kernel", "the third ends the cell"
)
def test_a_list_is_let_go_that_somebody_holds_who_was_stopped(patched: Kernel, tmp_path: Path, state_folder: Path) -> None:
    patched.run(
        "from pathlib import Path\n"
        "def kill(self, *args, **kwargs):\n    kept[3](self, *args, **kwargs)\n    Path('killed').touch()\n"
        "taskcell.TaskCommands.kill = kill"
    )
    assert patched.run(LIST).status == "error"
    (folder,) = (state_folder / FOLDER).iterdir()
    journal = folder / JOURNAL
    size = journal.stat().st_size
    with held_by_a_stopped_process(folder / LOCK):
        sent = patched.send(LIST)
        eventually(lambda: journal.stat().st_size > size, within=60, what="the list is open again")
        patched.interrupt()
        eventually(lambda: b'"stopped"' in journal.read_bytes()[size:], within=60, what="it is stopped")
        patched.interrupt()
        eventually((tmp_path / "killed").exists, within=60, what="it is stopped at once")
        patched.interrupt()
        answer = patched.wait(sent)
    assert (answer.status, answer.ename) == ("error", "KeyboardInterrupt")
    assert answer.evalue == f"list {folder.name} was told to stop and let go; whoever runs it stands still, or needs longer"
