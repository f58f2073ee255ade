"""`%cc lint` for the next cell, and what the setting switches off, in a real kernel. What is found is tested without one, in test_lint_order.py."""

from __future__ import annotations

from pathlib import Path

from kernel.cells import NEWEST_LINE, ok, shell_cell
from support.kernel import Kernel
from support.runs import run_folders

pytestmark = NEWEST_LINE

CELL = "%%cc_execute {}\nHelp me write a greeting for README.md."


def test_the_cell_that_is_only_looked_over_is_the_next_one_that_can_be(kernel: Kernel, state_folder: Path) -> None:
    ok(kernel.run("%cc lint"))
    assert kernel.run(CELL.format("--nonsense --rehearse hello")).ename == "InvalidRequest"
    assert "hint     dialogue" in ok(kernel.run(CELL.format("--rehearse hello"))).stream, "mended it is looked over, and not started"
    assert run_folders(state_folder) == []


def test_a_command_is_not_looked_over_and_says_so_and_starts_when_it_is_run_again(
    kernel: Kernel, tmp_path: Path, state_folder: Path
) -> None:
    ok(kernel.run("%cc lint"))
    said = ok(kernel.run(shell_cell("echo made > made"))).stream
    assert said == "Lint: this cell is a command, and no prompt; it was not started.\n"
    assert run_folders(state_folder) == []
    ok(kernel.run(shell_cell("echo made > made")))
    assert (tmp_path / "made").read_text() == "made\n"


def test_what_the_setting_switches_off_is_not_asked_of_lists_either(kernel: Kernel) -> None:
    cell = "%%cc_tasks --dry-run\ntasks:\n- Update the documentation.\n- {prompt: Fix it, lint_off: vague}\n"
    assert "hint few-words" in ok(kernel.run(cell)).stream
    kernel.run("%config CCExecutor.lint_off = ['few-words']")
    said = ok(kernel.run(cell)).stream
    assert "few-words" not in said
    assert "vague" not in said, "what the list itself switches off stays so"
    assert "warning too-short" in said
