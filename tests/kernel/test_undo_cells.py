"""Undo in a notebook: what a cell's run did, brought back by `%cc undo` and by the result itself."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from cc_executor.model.receipt import RECEIPT_MIME
from kernel.cells import NEWEST_LINE, ok, shell_cell
from support.kernel import Kernel
from support.trees import walk

pytestmark = [NEWEST_LINE, pytest.mark.usefixtures("claude_cli")]


def test_a_cell_of_an_agent_is_undone_and_redone(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    before = walk(tmp_path)
    answer = kernel.run("%%cc_execute -o r --rehearse write-file\nWrite hello.txt.")
    assert answer.status == "ok", answer.traceback
    after = walk(tmp_path)
    assert after.keys() - before.keys()
    assert answer.displays[0][RECEIPT_MIME]["undo"]["ready"] is True
    assert re.findall(r"<b>Write</b> <span[^>]*>([^<]*)", answer.displays[0]["text/html"]) == ["hello.txt"], "as it is seen from the folder"
    assert [file["path"] for file in answer.displays[0][RECEIPT_MIME]["files"]] == [str(tmp_path / "hello.txt")], "as it is"
    would = kernel.run("%cc undo --dry-run")
    assert "nothing was changed" in would.stream
    assert walk(tmp_path) == after
    done = kernel.run("%cc undo")
    (cure,) = re.findall(r"is undone: 1 file. `(.*)` takes that back.", done.stream)
    assert walk(tmp_path) == before
    kernel.run("%%cc_execute --rehearse hello\nHello.")  # what was undone is no longer the newest run
    assert "is there again: 1 file." in ok(kernel.run(f"%cc {cure}")).stream
    assert walk(tmp_path) == after
    ok(kernel.run("r.rollback()"))
    assert walk(tmp_path) == before
    assert kernel.value("r.rollback(redo=True).summary").endswith("is there again: 1 file.'")
    assert walk(tmp_path) == after
    (made,) = after.keys() - before.keys()
    (tmp_path / made.decode()).write_text("mine now")
    refused = kernel.run("r.rollback()")
    assert refused.ename == "UndoRefused"
    assert "it was changed since" in refused.evalue
    assert "Traceback" not in refused.traceback
    assert kernel.run("%cc undo --al").ename == "InvalidRequest"


def test_a_run_that_changed_nothing_has_nothing_to_undo(kernel: Kernel) -> None:
    kernel.run("%%cc_execute --rehearse hello\nHello.")
    assert kernel.run("%cc undo").stream.endswith("changed no file that undo looks at: there was nothing to undo.\n")


def test_a_name_that_an_agent_has_chosen_reaches_no_terminal_as_a_command(kernel: Kernel, tmp_path: Path) -> None:
    ok(kernel.run(shell_cell(r"echo made > $'a\e[8mb\xff'", "-o r --undo")))
    (odd,) = (path for path in os.listdir(os.fsencode(tmp_path)) if path.startswith(b"a"))
    shown = f"  removed      {tmp_path}/ab"
    for code in ("%cc undo --dry-run", "%cc undo", "print(r.rollback(redo=True), r.rollback(dry_run=True))"):
        said = ok(kernel.run(code)).stream
        assert (shown in said, "\x1b" in said) == (True, False)
    Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), odd))).write_text("mine")
    refused = kernel.run("%cc undo")
    assert refused.ename == "UndoRefused"
    assert "\x1b" not in refused.evalue
    assert "  ab" in refused.evalue


def test_the_setting_is_for_agents_and_the_option_wins(kernel: Kernel) -> None:
    for setting, option, expected in (("True", "", True), ("True", "--no-undo", False), ("False", "--undo", True)):
        kernel.run(f"%config CCExecutor.undo = {setting}")
        kernel.run(f"%%cc_execute -o r {option} --rehearse hello\nHello.")
        assert kernel.value("r.receipt.undo is not None") == str(expected)
        kernel.run(shell_cell("true", f"-o s {option}"))
        assert kernel.value("s.receipt.undo is not None") == str(option == "--undo")
    kernel.run("%config CCExecutor.undo = True")


def test_a_relative_state_folder_is_refused_and_another_is_the_same_wherever_the_notebook_goes(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    kernel.run("os.environ['CC_EXECUTOR_STATE'] = 'kept'")
    for cell in (shell_cell("true"), "%cc list", "%load_ext cc_executor\n%cc list"):
        assert "absolute path" in kernel.run(cell).traceback
    kernel.run("os.environ['CC_EXECUTOR_STATE'] = os.path.abspath('kept')")
    ok(kernel.run("%%cc_execute -o r --rehearse write-file\nWrite hello.txt."))
    kernel.run("os.chdir('elsewhere')")
    ok(kernel.run(shell_cell("true", "-o s --cwd ..")))
    assert kernel.value("s.folder.parent == r.folder.parent") == "True"
    run_id = kernel.value("r.receipt.run_id").strip("'")
    assert kernel.run(f"%cc show {run_id}").displays
    assert "is undone: 1 file" in ok(kernel.run(f"%cc undo {run_id}")).stream
    assert not (tmp_path / "hello.txt").exists()
    assert [path.parent for path in tmp_path.rglob("runs")] == [tmp_path / "kept"]


def test_a_list_whose_work_was_undone_says_so_when_it_is_run_again(kernel: Kernel, tmp_path: Path) -> None:
    cell = "%%cc_tasks -o made\ntasks:\n- {id: a, run: echo a > a}\n- {id: b, run: echo b > b}"
    assert "Undone" not in ok(kernel.run(cell)).displays[0]["text/plain"]
    run_id = kernel.value("made.tasks['b'].run_id").strip("'")
    ok(kernel.run(f"%cc undo {run_id}"))
    assert "Undone since then: b. " in ok(kernel.run(cell)).displays[0]["text/plain"]
    ok(kernel.run(f"%cc undo --redo {run_id}"))
    assert "Undone" not in ok(kernel.run(cell)).displays[0]["text/plain"]
