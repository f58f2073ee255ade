"""A task list's view when its kernel does not answer, in a real JupyterLab: the server takes over, commands are obeyed once, and the list goes on."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, Locator, expect

from browser.test_past_the_kernel import PastPage
from browser.test_restart import kernels_of
from cc_executor.model.listrecord import Paused, Resumed
from cc_executor.store.home import StateHome
from cc_executor.store.tasklists import ListFolder, ListHome
from support.environments import IPYKERNEL7
from support.lab import Lab, ticks
from support.looks import eventually

pytestmark = [pytest.mark.usefixtures("kernelspecs"), pytest.mark.timeout(300)]

# Holds the interpreter in one call of the C library, so that no thread of the kernel can do anything, until the gate is opened for writing. The file
# `held` says that it does.
ARM: Final = """%load_ext cc_executor
import ctypes, os, pathlib, threading, time
os.chdir({folder!r})
def hold():
    while not pathlib.Path("busy").exists(): time.sleep(0.05)
    ctypes.PyDLL(None).system(b"touch held; : < gate")
threading.Thread(target=hold, daemon=True).start()"""
LIST: Final = """%%cc_tasks --name past --on-failure continue
tasks:
  - {id: left, run: 'i=0; while [ ! -e stop ] && [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; echo $i >> ticks.txt; sleep 0.1; done'}
  - {id: unwanted, run: 'echo never > unwanted.txt'}
  - {id: last, run: 'echo as it was'}
"""
BOUND: Final = 60.0


class ListPastPage(PastPage):
    """A notebook whose second cell has a list."""

    def row(self, task: str) -> Locator:
        return self.output(1).locator("li.ccx-task").filter(has=self.page.locator(f"[aria-label='Control task {task}']"))

    def until(self, task: str, state: str) -> None:
        eventually(lambda: self.row(task).locator(".ccx-task-word").inner_text() == state, within=BOUND, what=f"{task} is {state}")

    @property
    def head(self) -> Locator:
        return self.output(1).locator(".ccx-tasks > .ccx-bar")

    def press(self, name: str) -> None:
        """A button of the list, or of one of its tasks."""
        whole = "Control the list" if " " not in name else re.compile("Control task")
        self.output(1).get_by_role("group", name=whole).get_by_role("button", name=name, exact=True).click()

    def says(self, word: str) -> None:
        eventually(lambda: self.head.locator(".ccx-phase").inner_text() == word, within=BOUND, what=f"the list is {word}")

    def opened(self, task: str) -> list[int]:
        log = self.row(task).get_by_role("log")
        return [int(line.split()[1]) for line in log.inner_text().splitlines() if line.startswith("line ")]

    def opened_grows(self, task: str) -> None:
        """Wait for more text of the opened run, without a gap or a repeat."""
        before = len(self.opened(task))
        eventually(lambda: len(self.opened(task)) > before + 3, within=BOUND, what=f"the text of {task} goes on after line {before}")
        assert (numbers := self.opened(task)) == list(range(1, len(numbers) + 1))


def the_list(lab: Lab) -> ListFolder:
    (folder,) = [each for each in ListHome(StateHome(lab.state)).folders() if each.tasks().name == "past"]
    return folder


@pytest.mark.row(
    "kernels", "kernel of a task list busy, killed with -9", "rows and buttons go on through the server; Continue has it run to its end"
)
def test_a_list_is_watched_and_steered_past_a_busy_kernel_and_goes_on_without_a_dead_one(
    lab: Lab, browser: Browser, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "gate")
    lab.write("past-list.ipynb", ARM.format(folder=str(tmp_path)), LIST, kernel=IPYKERNEL7.name)
    page = ListPastPage(lab, browser, "past-list.ipynb")
    page.wait_for_kernel()
    page.run(0)
    page.run(1)
    page.until("left", "Running")
    eventually(lambda: ticks(tmp_path) > 3, within=BOUND, what="the task runs")

    # Busy in a call that lets nobody in: what is pressed goes to the server, and is done.
    (tmp_path / "busy").touch()
    eventually((tmp_path / "held").exists, within=BOUND, what="the kernel is busy")
    page.press("Pause")
    page.until("left", "Paused")
    before = ticks(tmp_path)
    page.page.wait_for_timeout(1000)  # only time can show that nothing is written
    assert ticks(tmp_path) == before
    page.press("Resume")
    page.until("left", "Running")
    page.row("left").get_by_role("button", expanded=False).click()
    page.opened_grows("left")
    page.press("Skip unwanted")
    page.until("unwanted", "Skipping…")
    page.press("Edit last")
    page.output(1).get_by_label("New text of task last").fill("echo edited past the kernel")
    page.output(1).get_by_role("button", name="Save").click()
    expect(page.row("last").get_by_text("edited", exact=True)).to_be_visible()
    page.press("Pause")
    page.until("left", "Paused")
    assert page.prompt(1) == "[*]:"

    # The kernel comes to itself, and takes what was pressed first all over: each press is obeyed once.
    (tmp_path / "gate").open("w").close()
    page.until("unwanted", "Skipped")
    eventually(
        lambda: page.opened("left") and all(socket.is_closed() for socket in page.sockets),
        within=BOUND,
        what="the kernel has the view again",
    )
    page.until("left", "Paused")
    page.press("Resume")
    page.until("left", "Running")
    page.opened_grows("left")
    pressed = [record for record in the_list(lab).read()[0] if isinstance(record, Paused | Resumed)]
    assert [type(record) for record in pressed] == [Paused, Resumed, Paused, Resumed]
    assert all(record.by != "view" for record in pressed[:3])  # a kernel that is slow once more leaves the last one to the server, too

    # Killed: nobody runs the list, the view says so, and somebody who wants it lets the server go on.
    (pid,) = kernels_of(lab)
    os.kill(pid, signal.SIGKILL)
    page.says("Interrupted")
    expect(page.output(1).get_by_role("alert").first).to_contain_text("Nobody runs this list now")
    page.opened_grows("left")
    page.page.get_by_role("dialog", name="Kernel Restarting").get_by_role("button").click()
    page.press("Continue")
    page.says("Running")
    (tmp_path / "stop").touch()
    page.says("Done")
    page.until("last", "Done")
    expect(page.row("last").locator(".ccx-task-line")).to_have_text("edited past the kernel")
    assert not (tmp_path / "unwanted.txt").exists()
    lines = list(range(1, ticks(tmp_path) + 1))
    eventually(lambda: page.opened("left") == lines, within=BOUND, what=f"there are {len(lines)} lines, each once")
    assert page.complaints == []
    page.close()

    reopened = PastPage(lab, browser, "past-list.ipynb")
    eventually(
        lambda: "2 of 3 tasks ended well" in reopened.output(1).inner_text(), within=BOUND, what="the table, when it is opened again"
    )
    assert reopened.output(1).locator(".ccx").count() == 0
    reopened.close()
