"""A row of a list's live view that somebody opens: its run is shown, also when it was opened before there was one."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cc_executor.api import make_request
from cc_executor.kernel.taskview import TaskListView
from cc_executor.model.listrecord import Begun, ListState, advance
from cc_executor.model.taskrows import TaskBoard
from cc_executor.runtime.run import Run
from cc_executor.store.home import StateHome, new_run_id
from cc_executor.store.tasklists import ListFolder
from cc_executor.taskcommands import TaskCommands
from cc_executor.taskplan import plan
from support.runs import eventually


async def test_a_row_that_is_opened_before_its_run_is_there_shows_it(
    tmp_path: Path, state_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, tasks, run_id = (
        StateHome(state_folder),
        plan([{"id": "a", "run": "echo what it wrote"}], cwd=tmp_path).tasks,
        new_run_id(time.time()),
    )
    board = TaskBoard(tasks)
    board.show(advance(ListState(), Begun(at=time.time(), task="a", attempt=1, run_id=run_id)))  # its hook is being called
    said: list[tuple[Any, bytes]] = []
    monkeypatch.setattr(
        TaskListView, "_transmit", lambda _, content, buffers: said.append((content, b"".join(buffers)))
    )  # as a page hears it
    looks: list[str] = []
    attach = Run.attach

    async def looked(home: StateHome, run_id: str, *, environ: Mapping[str, str]) -> Run:
        looks.append(run_id)
        return await attach(home, run_id, environ=environ)

    monkeypatch.setattr(Run, "attach", looked)
    view = TaskListView(board, commands=TaskCommands(ListFolder(tmp_path), tasks, home), home=home)

    def hear(content: dict[str, object]) -> None:
        view._handle_custom_msg(content, [])  # as a page says it

    def is_shown() -> bool:
        view.tick()
        return any(content.get("run") == run_id and b"what it wrote" in body for content, body in said)

    hear({"op": "open", "run": run_id, "view": "v"})
    hear({"op": "run", "run": run_id, "content": {"op": "sync", "view": "v"}})
    await eventually(lambda: len(looks) >= 2)  # it was looked for, and is not there
    assert not any(content.get("content", {}).get("op") == "refused" for content, _ in said)
    request = make_request("echo what it wrote", agent="shell", cwd=tmp_path)
    run = await Run.start(request, home=home, environ=os.environ, run_id=run_id)
    await run.finish()
    await eventually(is_shown)
    view.close()
