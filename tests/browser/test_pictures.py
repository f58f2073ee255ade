"""The pictures of the docs, taken from a real JupyterLab in both of its themes. `make pictures` keeps them in docs/images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from support.lab import Lab, NotebookPage
from support.looks import eventually

pytestmark = [pytest.mark.usefixtures("kernelspecs", "claude_cli"), pytest.mark.timeout(300)]

FINISHED = "%%cc_execute --tools Bash --expect haiku.md --rehearse tour\nWrite a haiku about notebooks into haiku.md, then print the file."
LIVE = "%%cc_execute --tools Bash --rehearse ./flaky.toml\nFind out which test is flaky. Run the suite until it fails."
ASKS = "%%cc_execute --ask --permission-mode default --no-raise-error --rehearse approval\nWrite the plan, then begin."
PLAN = "# Plan\n\n1. Look at the data\n2. Fit the model\n"
SCRIPT = """
description = "runs a command for a while"
allow = ["Bash"]

[[turn]]
[[turn.block]]
thinking = "One pass shows nothing. I run the suite several times and look at what differs."
[[turn.block]]
text = "I run the suite **twenty times** and note what fails."
[[turn.block]]
tool = "Bash"
[turn.block.input]
command = "for run in $(seq 20); do echo run $run; sleep 5; done"
description = "Run the suite twenty times"
"""
THEMES = ("Light", "Dark")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    named = os.environ.get("CC_EXECUTOR_TEST_PICTURES")
    return Path(named) if named else tmp_path


@pytest.fixture
def page(lab: Lab, browser: Browser) -> Iterator[NotebookPage]:
    (lab.root / "flaky.toml").write_text(SCRIPT)
    lab.write("haiku.ipynb", "%load_ext cc_executor", FINISHED, LIVE, ASKS, kernel="ipykernel7")
    page = NotebookPage(lab, browser, "haiku.ipynb")
    yield page
    page.close()
    lab.use_theme("Light")


def test_a_live_cell_and_a_finished_one(page: NotebookPage, folder: Path) -> None:
    page.wait_for_kernel()
    for cell in range(3):
        page.run(cell)
    page.wait_done(1)
    view = page.output(2)
    eventually(lambda: view.get_by_text("Bash").count(), within=60, what="the agent is at work")
    for theme in THEMES:
        page.use_theme(theme)
        for name, cell in (("live", 2), ("cell", 1)):
            page.cell(cell).scroll_into_view_if_needed()
            page.cell(cell).screenshot(path=folder / f"{name}-{theme.lower()}.png")
    view.get_by_role("button", name="Cancel").click()
    page.wait_done(2)
    (page.lab.root / "plan.md").write_text(PLAN)
    page.run(3)
    added = page.output(3).locator(".ccx-ask .ccx-add").first
    added.wait_for(timeout=60_000)
    for theme in reversed(THEMES):
        page.use_theme(theme)
        red, green, blue = added.evaluate("n => getComputedStyle(n).color.match(/[\\d.]+/g).map(Number)")
        assert green > max(red, blue)
        assert (green > 150) == (theme == "Dark")
        page.cell(3).scroll_into_view_if_needed()
        page.cell(3).screenshot(path=folder / f"asks-{theme.lower()}.png")
    page.output(3).get_by_role("button", name="Cancel").click()
    page.wait_done(3)
