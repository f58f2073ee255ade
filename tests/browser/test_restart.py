"""A kernel restarted from the menu: a real JupyterLab, a real kernel of either line, the real CLI, and a real Chromium."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil
import pytest
from playwright.sync_api import Browser

from browser.test_lab import LOAD, TICKER
from support.environments import KERNELS
from support.lab import Lab, NotebookPage, ticks
from support.leaks import await_none
from support.looks import eventually

pytestmark = [pytest.mark.usefixtures("kernelspecs", "claude_cli"), pytest.mark.timeout(300)]


def kernels_of(lab: Lab) -> set[int]:
    """The processes of the server's kernels."""
    found: set[int] = set()
    for process in psutil.Process(lab.process.pid).children():
        with contextlib.suppress(psutil.Error):  # it has just ended
            if "ipykernel_launcher" in process.cmdline():
                found.add(process.pid)
    return found


RESTART_PROMISE: Final = 5.0  # seconds from the click until no process of the run is left


@pytest.mark.row(
    "kernels", "kernel restarted from JupyterLab's menu, policy cancel", "no process of the run is left after 5 s, and the page works on"
)
@pytest.mark.parametrize(("kernel", "paused"), [(KERNELS[0].name, False), *((environment.name, True) for environment in KERNELS)], ids=str)
def test_a_restart_from_the_menu_ends_the_run_and_the_page_works_on(
    lab: Lab, browser: Browser, tmp_path: Path, *, kernel: str, paused: bool, saw: Callable[[str], None]
) -> None:
    lab.write("restart.ipynb", LOAD.format(folder=str(tmp_path)), TICKER, "%load_ext cc_executor", "%cc receipt", kernel=kernel)
    page = NotebookPage(lab, browser, "restart.ipynb")
    page.wait_for_kernel()
    for cell in range(2):
        page.run(cell)
    eventually(lambda: ticks(tmp_path) > 2, within=60, what="the agent's tool writes")
    if paused:
        page.output(1).get_by_role("button", name="Pause").click()
        page.output(1).get_by_role("button", name="Resume").wait_for()

    before = kernels_of(lab)
    page.page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.page.locator(".lm-Menu-itemLabel").get_by_text("Restart Kernel…", exact=True).click()
    page.page.locator(".jp-Dialog").get_by_role("button", name="Confirm Kernel Restart").click()
    begun = time.monotonic()
    assert not await_none([tmp_path], budget=RESTART_PROMISE), f"processes of the run were alive {RESTART_PROMISE} s after the restart"
    saw(f"{time.monotonic() - begun:.1f} s")

    eventually(lambda: kernels_of(lab) and not kernels_of(lab) & before, within=60, what="another kernel is there")
    page.wait_for_kernel()
    for cell in (2, 3):
        page.run(cell)
        page.wait_done(cell)
    eventually(
        lambda: '"kind": "cancelled"' in page.output(3).inner_text(),
        within=60,
        what=f"the new kernel tells the end: {page.output(3).inner_text()}",
    )
    page.close()
