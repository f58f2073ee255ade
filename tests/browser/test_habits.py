"""What people do around a cell that runs or has ended, and what becomes of it then: a real JupyterLab, a real kernel, a real Chromium."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import nbformat
import pytest
from playwright.sync_api import Browser, expect

from cc_executor.model.receipt import RECEIPT_MIME
from support.environments import IPYKERNEL7
from support.lab import Lab, NotebookPage, as_saved, running_lab
from support.looks import eventually

pytestmark = [pytest.mark.usefixtures("kernelspecs"), pytest.mark.timeout(300)]

LOAD: Final = "%load_ext cc_executor\nimport pathlib\nfolder = pathlib.Path({folder!r})"
WAITS: Final = (
    "%%cc_execute --vars --cwd {{folder}} --agent shell --shell bash\nuntil [ -e go ]; do echo line $((n += 1)); sleep 0.5; done; echo gone"
)
LIST: Final = "%%cc_tasks --fresh --cwd {folder}\ntasks:\n  - {{id: waits, run: 'until [ -e go ]; do sleep 0.2; done; echo gone'}}"
AREA: Final = "[...document.querySelectorAll('.jp-OutputArea')].findIndex((area) => area === document.activeElement)"


@pytest.fixture
def page(lab: Lab, browser: Browser, tmp_path: Path, request: pytest.FixtureRequest) -> NotebookPage:
    """A notebook whose second cell runs until there is a file `go` in `tmp_path`, and which its view has saved."""
    name = f"{request.node.name.partition('[')[0]}.ipynb"
    file = lab.write(name, LOAD.format(folder=str(tmp_path)), WAITS, "print('next')", kernel=IPYKERNEL7.name)
    page = NotebookPage(lab, browser, name)
    page.wait_for_kernel()
    page.run(0)
    page.run(1)
    eventually(lambda: "line 2" in page.output(1).inner_text(), within=60, what="the run writes")
    eventually(lambda: "widget-view" in str(as_saved(file)), within=60, what="the notebook is saved with the view")
    return page


def test_keys_pressed_in_the_view_are_no_notebook_commands_except_that_for_saving(page: NotebookPage, tmp_path: Path) -> None:
    page.output(1).get_by_role("button", name="Pause").click()
    resume = page.output(1).get_by_role("button", name="Resume")
    resume.wait_for()
    page.cell(2).locator(".cm-content").first.click()
    page.page.keyboard.type(" # typed")
    resume.focus()
    saved = page.save()
    assert saved.cells[2].source.endswith("# typed")
    expect(resume).to_be_focused()
    for key in ("d", "d", "x", "y", "m", "Control+x", "Control+Enter"):
        page.page.keyboard.press(key)
    resume.click()
    (tmp_path / "go").touch()
    page.wait_done(1)
    assert page.page.locator(".jp-Notebook .jp-CodeCell").count() == 3
    assert any(RECEIPT_MIME in output.get("data", {}) for output in page.save().cells[1].outputs)


def test_shift_enter_in_a_cell_that_runs_leaves_its_view_and_later_both_receipts(page: NotebookPage, tmp_path: Path) -> None:
    page.cell(1).locator(".cm-content").first.click()
    page.page.keyboard.press("Shift+Enter")
    expect(page.output(1).get_by_text("queued once more")).to_be_visible()
    page.output(1).get_by_role("button", name="Pause").click()
    page.output(1).get_by_role("button", name="Resume").click()
    (tmp_path / "go").touch()
    page.wait_done(1)
    texts = [output["data"][RECEIPT_MIME]["text"] for output in page.save().cells[1].outputs]
    assert texts[0].startswith("line 1")
    assert texts[1].strip() == "gone", "the second run, which found the file"


def test_who_has_the_keyboard_in_a_view_has_it_in_the_output_when_the_end_takes_its_place(
    lab: Lab, browser: Browser, tmp_path: Path
) -> None:
    # A list's view; that of a run is looked at in Notebook 7.
    lab.write("keyboard.ipynb", LOAD.format(folder=str(tmp_path)), LIST.format(folder=tmp_path), "print('next')", kernel=IPYKERNEL7.name)
    page = NotebookPage(lab, browser, "keyboard.ipynb")
    page.wait_for_kernel()
    page.run(0)
    page.run(1)
    page.output(1).get_by_role("button", name="Stop", exact=True).focus()
    (tmp_path / "go").touch()
    page.wait_done(1)
    expect(page.output(1)).to_contain_text("gone")
    eventually(lambda: page.page.evaluate(AREA) == 1, within=60, what="the output has the keyboard")
    for key in ("d", "d", "x"):  # they were meant for the view
        page.page.keyboard.press(key)
    saved = page.save()
    assert len(saved.cells) == 3
    expect(page.cell(1)).to_contain_class("jp-mod-active")
    page.page.keyboard.press("Shift+Tab")
    assert page.page.evaluate(AREA) == -1
    expect(page.output(1).locator("[tabindex='-1'].jp-OutputArea")).to_have_count(0)

    (tmp_path / "go").unlink()
    page.run(1)
    page.output(1).get_by_role("button", name="Stop", exact=True).focus()
    typed = page.cell(2).locator(".cm-content").first
    typed.click()
    (tmp_path / "go").touch()
    page.wait_done(1)
    expect(page.output(1)).to_contain_text("gone")
    expect(page.output(1).get_by_role("button", name="Stop", exact=True)).to_have_count(0)
    expect(typed).to_be_focused()
    page.close()


def test_a_copy_of_a_notebook_whose_cell_runs_says_how_to_see_the_run_and_shows_its_end(
    page: NotebookPage, lab: Lab, browser: Browser, tmp_path: Path
) -> None:
    name = page.name.replace(".ipynb", "-Copy1.ipynb")
    nbformat.write(eventually(lambda: as_saved(lab.root / page.name), within=60, what="the notebook is whole"), lab.root / name)
    copy = NotebookPage(lab, browser, name)
    copy.wait_for_kernel()
    expect(copy.output(1)).to_contain_text("is going on: `%cc attach")  # and not: "Error displaying widget: model not found"

    renamed = page.name.replace(".ipynb", " renamed.ipynb")  # a kernel goes with its notebook
    page.page.bring_to_front()
    page.page.get_by_role("menuitem", name="File", exact=True).click()
    page.page.locator(".lm-Menu-itemLabel").get_by_text("Rename Notebook").click()
    page.page.locator(".jp-Dialog input").fill(renamed)
    page.page.keyboard.press("Enter")
    eventually(lambda: [each for each in lab.api("sessions") if each["path"] == renamed], within=60, what="the notebook has its new name")
    page.name, page.path = renamed, page.path.replace(page.name, renamed.replace(" ", "%20"))
    page.open()
    expect(page.output(1).get_by_role("button", name="Cancel")).to_be_visible()

    (tmp_path / "go").touch()
    expect(page.output(1)).to_contain_text("ok: ")  # the run has ended, and has its receipt
    copy.page.bring_to_front()
    copy.open()
    expect(copy.output(1)).to_contain_text("gone")


@pytest.mark.usefixtures("claude_cli")
def test_long_words_are_broken_or_scrolled_and_not_cut_in_a_notebook_that_came_from_somebody_else(
    lab: Lab, browser: Browser, tmp_path: Path
) -> None:
    long = f"echo {'x' * 400}; echo {'y' * 400} >&2; exit 3"
    table = f"| a | b |\\n|---|---|\\n| {'z' * 200} | {'z' * 200} |"
    (tmp_path / "table.toml").write_text(f'[[turn]]\n[[turn.block]]\ntext = "{table}"\n')
    cells = (f"%%cc_execute --agent shell --shell bash\n{long}", f"%%cc_execute --rehearse {tmp_path / 'table.toml'}\nGo.")
    lab.write("mine.ipynb", LOAD.format(folder=str(tmp_path)), *cells, kernel=IPYKERNEL7.name)
    page = NotebookPage(lab, browser, "mine.ipynb")
    page.wait_for_kernel()
    for cell in range(3):
        page.run(cell)
        page.wait_done(cell)
    theirs = page.save()
    page.close()
    theirs.cells.append(
        nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", {"text/html": "<b>not seen before</b>"})])
    )
    nbformat.write(theirs, lab.root / "theirs.ipynb")
    page = NotebookPage(lab, browser, "theirs.ipynb")
    for number, outcome in ((1, "failed"), (2, "ok")):
        card = page.output(number).locator("div[style*='max-width']").first
        expect(card).to_contain_text(outcome)
        card.locator("details").evaluate_all("nodes => nodes.forEach((node) => { node.open = true; })")
        assert "anywhere" not in card.inner_html(), "JupyterLab does not trust it"
        cut = card.evaluate("""card => [card, ...card.querySelectorAll("*")]
            .filter((node) => node.clientWidth && node.scrollWidth > node.clientWidth && getComputedStyle(node).overflowX !== "auto")
            .map((node) => node.outerHTML.slice(0, 120))""")
        assert cut == []


def test_a_page_without_anywidget_shows_text_says_what_to_install_and_shows_the_views_when_it_is_loaded_anew_with_it(
    tmp_path_factory: pytest.TempPathFactory, browser: Browser, tmp_path: Path
) -> None:
    folder = tmp_path_factory.mktemp("apart")  # as where the kernel's environment is not that of JupyterLab
    (folder / "config" / "labconfig").mkdir(parents=True)
    page_config = folder / "config" / "labconfig" / "page_config.json"
    page_config.write_text('{"disabledExtensions": {"anywidget": true}}')
    with running_lab(folder) as lab:
        later = WAITS.replace(" --vars", " --bg --vars")
        lab.write("apart.ipynb", LOAD.format(folder=str(tmp_path)), WAITS, later, LIST.format(folder=tmp_path), kernel=IPYKERNEL7.name)
        page = NotebookPage(lab, browser, "apart.ipynb")
        page.wait_for_kernel()
        page.run(0)
        page.run(1)
        expect(page.output(1)).to_contain_text("pip install ipywidgets 'anywidget==", timeout=60_000)
        expect(page.output(1)).to_contain_text("line 20", timeout=60_000)  # it goes on
        (tmp_path / "go").touch()
        page.wait_done(1)
        expect(page.output(1)).to_contain_text("gone")
        expect(page.output(1)).not_to_contain_text("pip install")

        (tmp_path / "go").unlink()
        for number in (2, 3):
            page.run(number)
            expect(page.output(number)).to_contain_text("pip install ipywidgets 'anywidget==", timeout=60_000)
        assert "widget-view" not in str([cell.outputs for cell in page.save().cells])
        page_config.write_text("{}")
        page.page.reload()
        for number, button in ((2, "Cancel"), (3, "Stop")):
            expect(page.output(number).get_by_role("button", name=button, exact=True)).to_be_visible(timeout=60_000)
            expect(page.output(number)).not_to_contain_text("pip install")
        line = len(page.output(2).locator(".ccx-output").inner_text().splitlines())
        expect(page.output(2)).to_contain_text(f"line {line + 2}")
        (tmp_path / "go").touch()
        for number in (2, 3):
            expect(page.output(number)).to_contain_text("gone")
        eventually(lambda: "widget-view" not in str(page.save()), within=60, what="the ends are saved")
        page.close()
