"""A list that was held when whoever ran it was killed, and that goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import anyio

from cc_executor.model.listrecord import Paused, Resumed
from cc_executor.store.home import StateHome
from cc_executor.store.tasklists import ListHome
from cc_executor.tasks import carry_on
from support.looks import eventually

ELSEWHERE: Final = """import sys; from cc_executor.tasks import cc_execute_task_list
cc_execute_task_list([{'id': 'one', 'run': 'touch up; while [ ! -e stop ]; do sleep 0.05; done'}], state=sys.argv[1], cwd=sys.argv[2])"""


def test_what_stands_still_goes_on_with_its_list(tmp_path: Path, state_folder: Path) -> None:
    home = StateHome(state_folder)
    process = subprocess.Popen([sys.executable, "-c", ELSEWHERE, str(state_folder), str(tmp_path)])
    try:
        eventually((tmp_path / "up").exists, within=30, what="the task runs")
        (folder,) = ListHome(home).folders()
        folder.append(Paused(at=time.time()))
        control = home.find(folder.state().task("one").run_id).path / "control.jsonl"
        eventually(lambda: '"paused"' in control.read_text(), within=30, what="its run stands still")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    folder.append(Resumed(at=time.time()))
    (tmp_path / "stop").touch()
    assert anyio.run(lambda: carry_on(folder, home=home, environ=dict(os.environ))).status.value == "ok"
