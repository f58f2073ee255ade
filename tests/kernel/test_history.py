"""History and estimates in notebooks: the verbs, the dry run, and what the live views say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from cc_executor.api import cc_execute_sync
from cc_executor.model.listrecord import Begun, Ended, ListState, advance
from cc_executor.model.tasklist import Task, TaskKind, TaskList
from cc_executor.model.taskrows import TaskBoard
from cc_executor.runtime.run import Run
from cc_executor.runtime.runpage import RunPage
from cc_executor.store.home import StateHome
from kernel.cells import NEWEST_LINE
from support.kernel import Kernel
from support.runs import BASH, remembered

pytestmark = pytest.mark.usefixtures("claude_cli")

DRY: Final = """%%cc_tasks --dry-run
tasks:
  - {id: nap, run: sleep 0.01}
  - {id: odd, run: nothing-that-was-ever-run}
"""


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Six runs of a command in the kernel's folder and state."""
    ended: list[str] = []
    for number in range(1, 7):
        ended.append(cc_execute_sync(f"sleep 0.0{number}", cwd=tmp_path, **BASH).receipt.run_id)
        remembered()
    return ended


@NEWEST_LINE
def test_the_verbs_and_the_dry_run_tell_of_past_runs(kernel: Kernel, runs: list[str]) -> None:
    ran = kernel.run("%%cc_execute --rehearse hello --label greeting\nGreet the reader; don't stop.", within=60)
    assert ran.status == "ok", ran.traceback
    assert kernel.run("found = %cc history --limit 50").status == "ok"
    assert kernel.value("' '.join(row.run_id for row in found)").strip("'").split()[1:] == runs[::-1]
    assert kernel.value("(found[0].label, found[0].rehearsed, found[0].agent, found[0].input_tokens > 0)") == (
        "('greeting', 'hello', 'claude', True)"
    )
    shown = kernel.run("%cc history --outcome ok --real")
    assert runs[0] in (shown.value or "")
    assert kernel.value("len(__import__('cc_executor').history(agent='shell'))") == "6"
    assert re.search(r"time  \d", kernel.run("%cc estimate --agent shell sleep 0.05").stream)
    assert "no estimate" in kernel.run("%cc_estimate Don't stop; explain this.").stream
    kernel.run("%config CCExecutor.agent = 'shell'")
    assert re.search(r"time  \d", kernel.run("%cc estimate sleep 0.05").stream), "of what the next cell would run"
    assert "no estimate" in kernel.run("%cc estimate --agent claude sleep 0.05").stream
    kernel.run("%config CCExecutor.agent = 'claude'")
    wrong = kernel.run("%cc history --colour red")
    assert (wrong.ename, "--outcome" in wrong.evalue) == ("InvalidRequest", True)
    dry = kernel.run(DRY).stream
    assert "usually" in dry.splitlines()[1]
    assert "(n=6)" in dry.splitlines()[2]
    assert dry.splitlines()[-1].startswith("Expected: ")


@NEWEST_LINE
def test_a_current_folder_that_is_gone_is_said(kernel: Kernel, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    assert kernel.run(f"import os; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r})").status == "ok"
    for line in ("%cc history --cwd .", "%cc untrust ."):
        said = kernel.run(line)
        assert (said.ename, said.evalue) == ("InvalidRequest", "The current folder does not exist any more. Change to another.")
    kernel.run(f"os.chdir({str(tmp_path)!r})")


async def test_the_view_of_a_run_says_how_long_it_usually_takes(runs: list[str], state_folder: Path) -> None:
    home = StateHome(state_folder)
    first, last = [await Run.attach(home, run_id, environ=os.environ) for run_id in (runs[0], runs[-1])]
    assert RunPage(first).status(first.state).estimate == ""
    assert RunPage(last).status(last.state).estimate.endswith("(n=5)")


def test_a_row_says_how_long_its_task_usually_takes_until_it_has_ended() -> None:
    tasks = (Task(id="a", kind=TaskKind.SHELL, text="true"), Task(id="b", kind=TaskKind.SHELL, text="true"))
    board = TaskBoard(TaskList(tasks=tasks, cwd="/"))
    board.dirty.clear()
    board.expect({"a": "12–40 s (n=9)"})
    assert list(board.dirty) == ["a"]
    state = ListState()
    seen: list[str] = []
    for record in (None, Begun(at=1, task="a", attempt=1), Ended(at=2, task="a", attempt=1, outcome="ok")):
        if record is not None:
            state = advance(state, record)
            board.show(state)
        seen.append(board.row("a").estimate)
    assert seen == ["12–40 s (n=9)", "12–40 s (n=9)", ""]
    assert board.row("b").estimate == ""


def test_loading_the_extension_loads_nothing_of_the_history() -> None:
    code = (
        "from IPython.core.interactiveshell import InteractiveShell as Shell; import sys\n"
        "before = set(sys.modules)\n"
        "Shell.instance().run_line_magic('load_ext', 'cc_executor')\n"
        "print(sorted(name for name in set(sys.modules) - before if name.startswith('cc_executor') and ('history' in name or 'pred' in name)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@NEWEST_LINE
def test_attaching_to_a_run_without_its_journal_shows_the_view_that_was_kept_and_keeps_it(kernel: Kernel, state_folder: Path) -> None:
    ran = kernel.run("%%cc_execute --rehearse write-file\nWrite hello.txt.")
    assert ran.status == "ok", ran.traceback
    pruned = subprocess.run([sys.executable, "-m", "cc_executor.cli", "history", "prune", "--keep", "0", "--yes"], check=True)
    assert pruned.returncode == 0
    attached, shown = kernel.run("%cc attach"), kernel.run("%cc show")
    assert "by `history prune`: this is the view that was kept." in attached.displays[0]["text/html"]
    assert attached.displays[0]["text/html"].endswith(ran.displays[0]["text/html"])
    assert shown.displays[0]["text/html"] == ran.displays[0]["text/html"]
