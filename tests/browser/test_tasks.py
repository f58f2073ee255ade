"""A task list as a person uses it: a real JupyterLab, a real kernel, real runs, and a real Chromium."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, expect

from cc_executor.model.listrecord import Stopped
from cc_executor.store.home import StateHome
from cc_executor.store.tasklists import ListHome
from support.environments import KERNELS
from support.lab import Lab, NotebookPage, ticks
from support.leaks import await_none
from support.looks import eventually

pytestmark = [pytest.mark.usefixtures("kernelspecs", "claude_cli"), pytest.mark.timeout(300)]

LOAD = "%load_ext cc_executor\nimport os; os.chdir({folder!r})"
CELL = """%%cc_tasks -o done --name steered --on-failure skip
tasks:
  - {id: talk, title: Say hello, prompt: Say hello., rehearse: hello}
  - {id: left, run: 'for n in $(seq 3000); do echo tick >> ticks.txt; echo left $n; sleep 0.1; done', group: pair}
  - {id: right, run: 'cat gate; echo right is through', group: pair}
  - {id: flaky, run: 'echo try >> tries; test -e ready || { echo not ready; exit 3; }'}
  - {id: unwanted, run: 'echo never > unwanted.txt'}
  - {id: hold, run: 'cat gate'}
  - {id: last, run: 'echo as it was', needs: [right]}
"""
STEPS = 60.0


def row(page: NotebookPage, task: str) -> Locator:
    """The row of a task, live."""
    return page.output(1).locator("li.ccx-task").filter(has=page.page.locator(f"[aria-label='Control task {task}']"))


def until(page: NotebookPage, task: str, state: str, *, within: float = STEPS) -> None:
    eventually(lambda: row(page, task).locator(".ccx-task-word").inner_text() == state, within=within, what=f"{task} is {state}")


def press(page: NotebookPage, name: str) -> None:
    page.output(1).get_by_role("button", name=name, exact=True).click()


def test_a_list_is_watched_steered_reloaded_and_saved_with_every_receipt(lab: Lab, browser: Browser, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    lab.write("tasks.ipynb", LOAD.format(folder=str(tmp_path)), CELL, "print('next', 6 * 7)", kernel=KERNELS[0].name)
    page = NotebookPage(lab, browser, "tasks.ipynb")
    page.wait_for_kernel()
    for cell in range(3):
        page.run(cell)

    # Rows live while the cell runs.
    until(page, "talk", "Done", within=60)
    until(page, "left", "Running")
    line = row(page, "left").locator(".ccx-task-line")
    eventually(lambda: line.inner_text().startswith("left "), within=STEPS, what="the last line of the task")
    assert page.prompt(1) == "[*]:"
    expect(page.output(1).get_by_role("progressbar")).to_have_attribute("aria-valuenow", "1")
    until(page, "right", "Running")
    until(page, "last", "Waiting")
    expect(row(page, "last")).to_contain_text("waits for right")

    # Pause holds what runs, Resume lets it go on.
    press(page, "Pause")
    until(page, "left", "Paused")
    before = ticks(tmp_path)
    page.page.wait_for_timeout(1500)  # that nothing happens is the one thing that only time can show
    assert ticks(tmp_path) == before
    press(page, "Resume")
    until(page, "left", "Running")
    eventually(lambda: ticks(tmp_path) > before, within=STEPS, what="the task goes on")

    # A row opens to the whole run: of one that has ended, and of one that runs.
    row(page, "talk").get_by_role("button", expanded=False).click()
    eventually(lambda: "the agent is real" in row(page, "talk").inner_text(), within=STEPS, what="the run that has ended")
    row(page, "left").get_by_role("button", expanded=False).click()
    log = row(page, "left").get_by_role("log")
    eventually(lambda: "left 1\n" in log.inner_text(), within=STEPS, what="the run from its first line")
    seen = log.inner_text().count("\n")
    eventually(lambda: log.inner_text().count("\n") > seen + 3, within=STEPS, what="the run goes on")

    # The keyboard: the arrows go through the rows, and keys are no notebook commands.
    row(page, "left").get_by_role("button", expanded=True).press("ArrowDown")
    expect(row(page, "right").locator(".ccx-task-title")).to_be_focused()
    page.page.keyboard.press("Enter")
    expect(row(page, "right").locator(".ccx-task-title")).to_have_attribute("aria-expanded", "true")
    expect(row(page, "right").get_by_label("Text of task right")).to_contain_text("cat gate")
    expect(row(page, "right").get_by_role("status")).to_have_text("Starting")  # it grows no more under what is pressed next

    # A task that has not begun gets another text, another one is left out.
    press(page, "Edit last")
    field = page.output(1).get_by_label("New text of task last")
    expect(field).to_have_value("echo as it was")
    field.fill("echo {{ needs.right.text }}")
    page.output(1).get_by_role("button", name="Save").click()
    expect(page.output(1).locator(".ccx-note").first).to_contain_text("only a prompt can")
    press(page, "Edit last")
    field.fill("echo edited in the page")
    page.output(1).get_by_role("button", name="Save").click()
    expect(row(page, "last").get_by_text("edited", exact=True)).to_be_visible()
    press(page, "Skip unwanted")
    until(page, "unwanted", "Skipped")

    # The page is reloaded, then closed and opened again: everything is there.
    page.page.reload()
    page.page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
    until(page, "talk", "Done", within=60)
    until(page, "unwanted", "Skipped")
    row(page, "left").get_by_role("button", expanded=False).click()
    eventually(lambda: "left 1\n" in log.inner_text(), within=STEPS, what="the opened run after the reload")
    page.close()
    page = NotebookPage(lab, browser, "tasks.ipynb")
    until(page, "talk", "Done", within=60)

    # One task is stopped by itself; what needs it is skipped, the rest goes on.
    press(page, "Stop left")
    until(page, "left", "Stopped")
    expect(page.output(1).get_by_role("button", name="Retry left")).to_be_visible()
    with (tmp_path / "gate").open("w") as gate:
        gate.write("open\n")
    until(page, "right", "Done")

    # A failed task is tried again.
    until(page, "flaky", "Failed")
    expect(row(page, "flaky")).to_contain_text("exit code 3")
    until(page, "hold", "Running")
    (tmp_path / "ready").touch()
    press(page, "Retry flaky")
    until(page, "flaky", "Waiting")
    with (tmp_path / "gate").open("w") as gate:
        gate.write("open\n")

    # A page that was opened again keeps the live view; the kernel still answers it, and the save puts the table in its place.
    head = page.output(1).locator(".ccx-tasks > .ccx-bar")
    eventually(lambda: head.locator(".ccx-phase").inner_text() == "Failed", within=60, what="the end of the list")
    assert not await_none([tmp_path], budget=3.0)
    expect(head.get_by_role("button")).to_have_count(0)  # the bell goes with the last word
    expect(row(page, "last").locator(".ccx-task-line")).to_have_text("edited in the page")
    assert (tmp_path / "tries").read_text().split() == ["try", "try"]
    assert not (tmp_path / "unwanted.txt").exists()
    row(page, "flaky").get_by_role("button", expanded=False).click()
    eventually(lambda: "ok: " in row(page, "flaky").inner_text(), within=STEPS, what="a run that is opened after the end")

    page.run(2)
    eventually(lambda: "next 42" in page.output(2).inner_text(), within=60, what="the next cell runs")
    notebook = page.save()
    (static,) = [output for output in notebook.cells[1].outputs if output.output_type == "display_data"]
    assert sorted(static.data) == ["text/html", "text/plain"]
    assert "failed, 5 of 7 tasks ended well" in static.data["text/plain"]
    named = static.metadata["cc_executor"]["receipts"]
    assert sorted(receipt["status"] for receipt in named) == ["cancelled", "failed", "ok", "ok", "ok", "ok", "ok"]
    assert sorted(notebook.metadata["cc_executor"]["receipts"]) == sorted(receipt["run_id"] for receipt in named)
    page.close()


def test_stop_ends_what_runs_and_a_second_press_kills(lab: Lab, browser: Browser, tmp_path: Path) -> None:
    stubborn = "trap '' TERM INT; echo stubborn; while :; do sleep 0.1; done"
    os.mkfifo(tmp_path / "gate")  # a hook waits there when the task has been stopped: a second press has all the time that it needs
    hooks = "hooks:\n  after_run: {run: cat gate, name: held}\n"
    cell = f'%%cc_tasks --max-cost 5\n{hooks}tasks:\n  - {{id: deaf, run: "{stubborn}"}}\n  - {{id: never, run: echo}}\n'
    lab.write("stop-tasks.ipynb", LOAD.format(folder=str(tmp_path)), cell, kernel=KERNELS[0].name)
    page = NotebookPage(lab, browser, "stop-tasks.ipynb")
    page.wait_for_kernel()
    for number in range(2):
        page.run(number)
    eventually(lambda: "stubborn" in page.output(1).inner_text(), within=60, what="the task runs")
    expect(page.output(1).get_by_role("meter", name="Budget")).to_have_attribute("aria-valuetext", "$0.00 of $5.00 spent")
    press(page, "Stop")
    press(page, "Kill now")
    (folder,) = [each for each in ListHome(StateHome(lab.state)).folders() if each.tasks().max_cost == 5]
    eventually(lambda: [type(each) for each in folder.read()[0]].count(Stopped) == 2, within=STEPS, what="the second press is obeyed")
    with (tmp_path / "gate").open("w") as gate:
        gate.write("open\n")
    page.wait_done(1, within=STEPS)
    assert not await_none([tmp_path])
    eventually(lambda: "TaskListFailed: stopped" in page.output(1).inner_text(), within=STEPS, what="the cell says how the list ended")
    page.close()
