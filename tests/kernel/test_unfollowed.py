"""What a cell shows that can no longer follow its run or its list: no live view is left that nobody speaks for."""

from __future__ import annotations

import json
import os
import time
from contextlib import aclosing
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from cc_executor.api import cc_execute, make_request
from cc_executor.kernel.taskview import TaskListView
from cc_executor.model.listrecord import Begun, ListState, advance
from cc_executor.model.pager import Page
from cc_executor.model.taskrows import TaskBoard
from cc_executor.runtime.run import Run
from cc_executor.runtime.runpage import RunPage
from cc_executor.shim.records import STDOUT
from cc_executor.store.home import StateHome
from cc_executor.store.tasklists import FOLDER, JOURNAL, ListFolder
from cc_executor.taskcommands import TaskCommands
from cc_executor.taskplan import plan
from kernel.cells import WAIT, WIDGET_MIME, make_gate, shell_cell, wait_for_pid
from support.kernel import Kernel
from support.runs import BASH, eventually


def test_a_view_of_a_run_that_cannot_be_read_any_more_says_so(kernel: Kernel, tmp_path: Path, state_folder: Path) -> None:
    make_gate(tmp_path)
    cell = kernel.send(shell_cell(WAIT))
    begun = kernel.wait(cell, until=lambda answer: answer.displays)
    wait_for_pid(tmp_path)
    (run,) = (state_folder / "runs").iterdir()
    (run / STDOUT).rename(run / "elsewhere")
    (run / STDOUT).symlink_to("elsewhere")
    answer = kernel.wait(cell, answer=begun)
    assert answer.ename == "StateUnusable"
    (left,) = answer.displays
    assert WIDGET_MIME not in left
    assert left["text/plain"].startswith(f"Run {run.name} cannot be followed any longer: ")
    assert answer.metadata[0]["cc_executor"]["run_id"] == run.name, "its end is put there when the notebook is saved"


def test_a_view_of_a_list_that_cannot_be_read_any_more_says_so(kernel: Kernel, tmp_path: Path, state_folder: Path) -> None:
    gate = make_gate(tmp_path)
    cell = kernel.send("%%cc_tasks\n- {id: one, run: 'echo $$ > pid; cat gate'}")
    begun = kernel.wait(cell, until=lambda answer: answer.displays)
    wait_for_pid(tmp_path)
    (folder,) = (state_folder / FOLDER).iterdir()
    with (folder / JOURNAL).open("ab") as journal:
        journal.write(b"nothing of ours\n")
    answer = kernel.wait(cell, answer=begun)
    gate.write_text("through\n")  # its run goes on
    assert answer.ename == "StateUnusable"
    assert "Traceback" not in answer.stream
    (left,) = answer.displays
    assert WIDGET_MIME not in left
    assert left["text/plain"].startswith(f"The task list {folder.name} cannot be followed any longer: ")
    assert answer.metadata[0]["cc_executor"]["list_id"] == folder.name


async def test_who_asks_for_older_lines_that_cannot_be_read_can_ask_again(tmp_path: Path, state_folder: Path) -> None:
    done = await cc_execute("seq 20000", cwd=tmp_path, **BASH)
    run = await Run.attach(StateHome(state_folder), done.receipt.run_id, environ=os.environ)
    page = RunPage(run)
    async with aclosing(run.follow()) as batches:
        async for batch in batches:
            page.apply(batch)
    pages: Queue[Page] = Queue()
    page.read_page(page.transcript.floor, pages.put)
    assert pages.get(timeout=60).items
    (done.folder / STDOUT).rename(done.folder / "elsewhere")
    (done.folder / STDOUT).symlink_to("elsewhere")
    page.read_page(page.transcript.floor, pages.put)
    assert pages.get(timeout=60) == Page(items=(), first=page.transcript.floor)


async def test_an_opened_run_that_cannot_be_read_any_more_says_so(
    tmp_path: Path, state_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, tasks = StateHome(state_folder), plan([{"id": "a", "run": "true"}], cwd=tmp_path).tasks
    make_gate(tmp_path)
    run = await Run.start(make_request(WAIT, cwd=tmp_path, **BASH), home=home, environ=os.environ)
    board = TaskBoard(tasks)
    board.show(advance(ListState(), Begun(at=time.time(), task="a", attempt=1, run_id=run.run_id)))
    said: list[tuple[Any, bytes]] = []
    monkeypatch.setattr(
        TaskListView, "_transmit", lambda _, content, buffers: said.append((content, b"".join(buffers)))
    )  # as a page hears it
    view = TaskListView(board, commands=TaskCommands(ListFolder(tmp_path), tasks, home), home=home)
    for content in (
        {"op": "open", "run": run.run_id, "view": "v"},
        {"op": "run", "run": run.run_id, "content": {"op": "sync", "view": "v"}},
    ):
        view._handle_custom_msg(content, [])  # as a page says it

    def hears(word: bytes) -> bool:
        view.tick()
        return any(word in json.dumps(content).encode() + body for content, body in said)

    await eventually(lambda: hears(b"started"))
    (run.folder.path / STDOUT).rename(run.folder.path / "elsewhere")
    (run.folder.path / STDOUT).symlink_to("elsewhere")
    await eventually(lambda: hears(b"stdout cannot be read"))
    await run.cancel(reason="cancel", by="test")
    await eventually(lambda: not run.folder.is_supervised())
    view.close()
