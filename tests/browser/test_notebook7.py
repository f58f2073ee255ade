"""The cell in Notebook 7, with the real CLI and a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from cc_executor.model.receipt import RECEIPT_MIME
from kernel.cells import WIDGET_MIME
from support.lab import Lab, NotebookPage, running_lab, ticks
from support.leaks import await_none
from support.looks import eventually

pytestmark = [pytest.mark.usefixtures("claude_cli"), pytest.mark.timeout(300)]

LOAD = "%load_ext cc_executor\nimport pathlib\nfolder = pathlib.Path({folder!r})"
TICKER = "%%cc_execute --vars --cwd {{folder}} --tools Bash --rehearse ticker -o ticks\nWrite a line into ticks.txt, five times a second."


@pytest.fixture(scope="module")
def notebook7(tmp_path_factory: pytest.TempPathFactory, kernelspecs: Path) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("notebook7"), app="notebook") as server:
        yield server


@pytest.mark.row("kernels", "Notebook 7", "pause, resume and cancel by its buttons; the static end stays")
def test_a_run_is_paused_resumed_and_cancelled_by_its_buttons_and_its_end_stays(notebook7: Lab, browser: Browser, tmp_path: Path) -> None:
    notebook7.write("ticker.ipynb", LOAD.format(folder=str(tmp_path)), TICKER, "print('next', ticks.status)", kernel="ipykernel7")
    page = NotebookPage(notebook7, browser, "ticker.ipynb", classic=True)
    page.wait_for_kernel()
    for cell in range(2):
        page.run(cell)
    view = page.output(1)
    eventually(lambda: ticks(tmp_path) > 2, within=60, what="the agent's tool writes")
    assert page.prompt(1) == "[*]:"
    eventually(lambda: "Bash" in view.inner_text(), within=60, what="the view names the tool")

    view.get_by_role("button", name="Pause").click()
    view.get_by_role("button", name="Resume").wait_for()
    before = ticks(tmp_path)
    page.page.wait_for_timeout(2000)  # that nothing is written, only time can show
    assert ticks(tmp_path) == before, "the tool wrote while the run was paused"

    view.get_by_role("button", name="Resume").focus()
    for key in ("d", "d", "x"):  # heard by the document before the view hears of them, unlike in JupyterLab
        page.page.keyboard.press(key)
    page.save()
    expect(page.page.locator(".jp-Notebook .jp-CodeCell")).to_have_count(3)

    view.get_by_role("button", name="Resume").click()
    eventually(lambda: ticks(tmp_path) > before + 3, within=60, what="the tool goes on")

    view.get_by_role("button", name="Cancel").click()
    assert not await_none([tmp_path], budget=3.0), "processes of the run were alive 3 s after Cancel"
    page.wait_done(1)
    eventually(lambda: "cancelled" in view.inner_text(), within=60, what="the static end says how it ended")
    expect(view.get_by_role("button", name="Cancel")).to_have_count(0)
    expect(view.locator(".jp-OutputArea")).to_be_focused()  # that button had the keyboard

    page.run(2)
    eventually(lambda: "next cancelled" in page.output(2).inner_text(), within=60, what="the next cell runs")
    notebook = page.save()
    (static,) = [output for output in notebook.cells[1].outputs if output.output_type == "display_data"]
    assert static.data[RECEIPT_MIME]["outcome"]["kind"] == "cancelled"
    assert WIDGET_MIME not in static.data
    (record,) = notebook.metadata["cc_executor"]["receipts"].values()
    assert record["digest"] == static.data[RECEIPT_MIME]["digest"]

    page.page.reload()
    page.page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
    eventually(lambda: "cancelled" in page.output(1).inner_text(), within=60, what="the end is there after a reload")
    page.close()
