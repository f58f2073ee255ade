"""The cell as a person uses it: a real JupyterLab, a real kernel of either line, the real CLI, and a real Chromium."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from cc_executor.model.receipt import RECEIPT_MIME
from support.environments import KERNELS
from support.lab import Lab, NotebookPage, ticks
from support.leaks import await_none
from support.looks import eventually

pytestmark = [pytest.mark.usefixtures("kernelspecs", "claude_cli"), pytest.mark.timeout(300)]

LOAD = "%load_ext cc_executor\nimport pathlib\nfolder = pathlib.Path({folder!r})"
TICKER = "%%cc_execute --vars --cwd {{folder}} --tools Bash --rehearse ticker -o ticks\nWrite a line into ticks.txt, five times a second."
SLOW = "%%cc_execute --agent shell --shell bash -o slow\nuntil [ -e go ]; do echo line $((n += 1)); sleep 0.5; done"


def still_for(seconds: float, page: NotebookPage, folder: Path) -> bool:
    """Whether no tick is written for a while. The browser's clock waits, because this is the one thing that only time can show."""
    before = ticks(folder)
    page.page.wait_for_timeout(seconds * 1000)
    return ticks(folder) == before


@pytest.mark.row("kernels", "JupyterLab", "buttons reach the agent's tools while its cell runs, and the sliders of other cells answer")
@pytest.mark.parametrize("kernel", [environment.name for environment in KERNELS])
def test_pause_resume_and_cancel_reach_the_tools_of_the_agent_while_other_cells_answer(
    lab: Lab, browser: Browser, tmp_path: Path, kernel: str
) -> None:
    slider = "import ipywidgets\ns = ipywidgets.IntSlider(description='size')\ns.observe(lambda change: (folder / 'size').write_text(str(change['new'])), 'value')\ns"
    lab.write("stop.ipynb", LOAD.format(folder=str(tmp_path)), slider, TICKER, "print('next', 6 * 7)", kernel=kernel)
    page = NotebookPage(lab, browser, "stop.ipynb")
    page.wait_for_kernel()
    for cell in range(4):
        page.run(cell)
    view = page.output(2)

    eventually(lambda: ticks(tmp_path) > 2, within=60, what="the agent's tool writes")
    assert page.prompt(2) == "[*]:"
    eventually(lambda: "Bash" in view.inner_text(), within=60, what="the view names the tool")

    view.get_by_role("button", name="Pause").click()
    view.get_by_role("button", name="Resume").wait_for()
    eventually(lambda: "paused" in view.inner_text().lower(), within=60, what="the view says that it is paused")
    assert still_for(3, page, tmp_path), "the tool wrote while the run was paused"

    view.get_by_role("button", name="Resume").click()
    before = ticks(tmp_path)
    eventually(lambda: ticks(tmp_path) > before + 3, within=60, what="the tool goes on")

    page.cell(1).get_by_role("slider").first.focus()
    page.page.keyboard.press("ArrowRight")
    eventually((tmp_path / "size").exists, within=60, what="the slider in another cell answers during the run")

    view.get_by_role("button", name="Cancel").click()
    assert not await_none([tmp_path], budget=3.0), "processes of the run were alive 3 s after Cancel"
    page.wait_done(2)
    for word in ("cancelled", "CCExecutionError"):
        eventually(lambda word=word: word in view.inner_text(), within=60, what=f"the cell says {word}")

    page.run(3)
    eventually(lambda: "next 42" in page.output(3).inner_text(), within=60, what="the next cell runs")
    notebook = page.save()
    (static, *_) = [output for output in notebook.cells[2].outputs if output.output_type == "display_data"]
    assert static.data[RECEIPT_MIME]["outcome"]["kind"] == "cancelled"
    assert "application/vnd.jupyter.widget-view+json" not in static.data
    (record,) = notebook.metadata["cc_executor"]["receipts"].values()
    assert record["digest"] == static.data[RECEIPT_MIME]["digest"]
    page.close()


@pytest.mark.row("kernels", "page reloaded, tab closed and opened again", "every line is there, in order, and the run's end")
@pytest.mark.parametrize("kernel", [environment.name for environment in KERNELS])
def test_text_appears_while_the_cell_runs_and_a_reloaded_or_reopened_page_shows_every_line(lab: Lab, browser: Browser, kernel: str) -> None:
    (lab.root / "go").unlink(missing_ok=True)
    lab.write("reload.ipynb", "%load_ext cc_executor", SLOW, kernel=kernel)
    page = NotebookPage(lab, browser, "reload.ipynb")
    page.wait_for_kernel()
    page.run(0)
    page.wait_done(0)
    page.run(1)
    eventually(lambda: len(numbers(page)) >= 3, within=60, what="text appears")
    assert page.prompt(1) == "[*]:"

    page.page.reload()
    page.page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
    eventually(lambda: len(numbers(page)) >= 5, within=60, what="the reloaded page shows the run")
    seen = numbers(page)
    assert seen == list(range(1, len(seen) + 1))
    page.close()

    reopened = NotebookPage(lab, browser, "reload.ipynb")
    eventually(lambda: len(numbers(reopened)) > len(seen), within=60, what="the tab that was opened again goes on")
    again = numbers(reopened)
    assert again == list(range(1, len(again) + 1))
    (lab.root / "go").touch()
    eventually(lambda: "ok: " in status(reopened), within=60, what="the view shows the end")
    whole = numbers(reopened)
    assert whole == list(range(1, len(whole) + 1))
    notebook = reopened.save()
    (static,) = notebook.cells[1].outputs
    assert static.data[RECEIPT_MIME]["outcome"]["kind"] == "ok"
    reopened.close()


def numbers(page: NotebookPage) -> list[int]:
    """The numbers of the lines that the script counts, as they stand on the page."""
    return [int(number) for number in re.findall(r"\bline (\d+)\b", page.output(1).inner_text())]


def status(page: NotebookPage) -> str:
    return page.output(1).inner_text().lower()


def test_an_output_that_is_cleared_during_its_run_still_gets_the_end_and_the_receipt(lab: Lab, browser: Browser) -> None:
    slow = SLOW.partition("\n")[2]
    cells = ("%load_ext cc_executor", SLOW, f"%%cc_tasks\ntasks:\n  - {{id: slow, run: '{slow}'}}")
    lab.write("cleared.ipynb", *cells, kernel=KERNELS[0].name)
    page = NotebookPage(lab, browser, "cleared.ipynb")
    page.wait_for_kernel()
    page.run(0)
    for cell in (1, 2):  # a run, and a list
        (lab.root / "go").unlink(missing_ok=True)
        page.run(cell)
        output = page.output(cell)
        eventually(lambda output=output: re.search(r"\bline \d", output.inner_text()), within=60, what="text appears")
        page.clear(cell)
        (lab.root / "go").touch()
        page.wait_done(cell)
        eventually(lambda output=output: re.search(r"\bline \d", output.inner_text()), within=60, what="the end is there")
    notebook = page.save()
    (run,), (table,) = (notebook.cells[cell].outputs for cell in (1, 2))
    of_list = [receipt["run_id"] for receipt in table.metadata["cc_executor"]["receipts"]]
    assert sorted(notebook.metadata["cc_executor"]["receipts"]) == sorted([run.data[RECEIPT_MIME]["run_id"], *of_list])
    page.close()


def test_the_quickstart_runs_from_top_to_bottom(lab: Lab, browser: Browser) -> None:
    source = Path(__file__).resolve().parents[2] / "notebooks" / "quickstart.ipynb"
    text = source.read_text(encoding="utf-8").replace('"name": "python3"', '"name": "ipykernel7"')
    (lab.root / "quickstart.ipynb").write_text(text, encoding="utf-8")
    page = NotebookPage(lab, browser, "quickstart.ipynb")
    page.page.set_viewport_size({"width": 1180, "height": 3200})  # a page that shows fewer cells does not render the others
    page.wait_for_kernel()
    page.page.get_by_role("menuitem", name="Run", exact=True).click()
    page.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    prompts = page.page.locator(".jp-CodeCell .jp-InputPrompt")
    eventually(
        lambda: all(prompt.strip("[]: ").isdigit() for prompt in prompts.all_inner_texts()),
        within=150,
        what=f"every cell is done: {prompts.all_inner_texts()}",
    )
    notebook = page.save()
    errors = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs if output.output_type == "error"]
    assert errors == []
    assert len(notebook.metadata["cc_executor"]["receipts"]) >= 4
    page.close()
