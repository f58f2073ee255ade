"""A cell's view when its kernel does not answer: the server that has served the page takes over, in a real JupyterLab, and the kernel takes it back."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, Route, WebSocket, expect

from browser.test_restart import kernels_of
from cc_executor.model.receipt import RECEIPT_MIME
from kernel.cells import WIDGET_MIME
from support.environments import IPYKERNEL6, IPYKERNEL7
from support.lab import Lab, NotebookPage, as_saved, running_lab, ticks
from support.leaks import await_none
from support.looks import eventually

pytestmark = [pytest.mark.usefixtures("kernelspecs"), pytest.mark.timeout(300)]

LOAD: Final = "%load_ext cc_executor"
COUNT: Final = """%%cc_execute --bg --agent shell --shell bash --cwd {folder}
i=0; while [ ! -e stop ] && [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; echo $i >> ticks.txt; sleep 0.1; done"""
# What is tested is a kernel that answers nobody, so it sleeps until the test interrupts it or ends it; the file says that it does.
BUSY: Final = "import pathlib, time; pathlib.Path({folder!r}, 'busy').touch(); time.sleep(1000)"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, kernelspecs: Path) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("past")) as lab:
        yield lab


@pytest.fixture(autouse=True)
def end_kernels(lab: Lab) -> Iterator[None]:
    yield
    lab.end_kernels()


class PastPage(NotebookPage):
    """A notebook's page that remembers what it has asked of the extension, and what it complained of."""

    def open(self) -> None:
        self.asked: list[str] = []
        self.sockets: list[WebSocket] = []
        self.complaints: list[str] = []
        self.page.on(
            "request", lambda request: self.asked.append(f"{request.method} {request.url}") if "/cc-executor/" in request.url else None
        )
        self.page.on("websocket", lambda socket: self.sockets.append(socket) if "/cc-executor/" in socket.url else None)
        # JupyterLab asks every kernel for a subshell, and complains where that one is restarted before it has answered.
        self.page.on("pageerror", lambda error: None if "create_subshell_request" in str(error) else self.complaints.append(str(error)))
        super().open()

    def numbers(self, cell: int) -> list[int]:
        return [int(number) for number in re.findall(r"\bline (\d+)\b", self.output(cell).inner_text())]

    def button(self, cell: int, name: str) -> Locator:
        return self.output(cell).get_by_role("button", name=name, exact=True)

    def interrupt(self) -> None:
        (kernel,) = [session["kernel"]["id"] for session in self.lab.api("sessions") if session["path"] == self.name]
        self.lab.api(f"kernels/{kernel}/interrupt", "POST")

    def grows(self, cell: int, by: int, *, within: float = 60) -> None:
        """Wait for more lines, without a gap or a repeat."""
        before = len(self.numbers(cell))
        eventually(lambda: len(self.numbers(cell)) >= before + by, within=within, what=f"text goes on after line {before}")
        numbers = self.numbers(cell)
        assert numbers == list(range(1, len(numbers) + 1))

    def has_all(self, cell: int, folder: Path) -> None:
        """Wait until every line is there once, in order; the page says how a run ended before it draws the last of them."""
        lines = list(range(1, ticks(folder) + 1))
        eventually(lambda: self.numbers(cell) == lines, within=60, what=f"there are {len(lines)} lines, each once")


def begun(lab: Lab, browser: Browser, folder: Path, name: str, kernel: str) -> PastPage:
    """A page whose second cell has a run in the background, and whose third keeps the kernel busy."""
    lab.write(name, LOAD, COUNT.format(folder=folder), BUSY.format(folder=str(folder)), kernel=kernel)
    page = PastPage(lab, browser, name)
    page.wait_for_kernel()
    page.run(0)
    page.run(1)
    page.grows(1, 3, within=60)
    page.run(2)  # it is sent then; a slow kernel takes what is pressed before it comes to it
    eventually((folder / "busy").exists, within=60, what="the kernel is busy")
    return page


def attach_in_another_page(lab: Lab, browser: Browser, name: str) -> None:
    """A page that is opened without the run's kernel says what is to be run, and that shows the run live."""
    page = PastPage(lab, browser, name)
    page.wait_for_kernel()
    # Its outputs may be drawn after that.
    eventually(lambda: "attach" in page.output(1).inner_text(), within=60, what="the text says what is to be run")
    shown = page.output(1).inner_text()
    assert page.output(1).locator(".ccx").count() == 0
    assert page.asked == [], "nothing is asked for a notebook that is opened"
    (attach,) = re.findall(r"`(%cc attach [0-9a-f]{26})`", shown)
    (load,) = re.findall(r"`(%load_ext \w+)`", shown)
    for words in (load, attach):
        page.cell(2).locator(".cm-content").first.fill(words)
        page.run(2)
        if words is load:  # a cell that is at work looks the same when it is taken again
            page.wait_done(2)
    page.grows(2, 5, within=60)
    assert page.complaints == []
    page.close()


@pytest.mark.row(
    "kernels", "kernel busy, killed with -9; policy continue", "buttons and text go on through the server, without gap or repeat"
)
def test_a_busy_kernel_and_then_a_dead_one_hold_up_neither_buttons_nor_text(lab: Lab, browser: Browser, tmp_path: Path) -> None:
    page = begun(lab, browser, tmp_path, "killed.ipynb", IPYKERNEL7.name)
    page.button(1, "Pause").click()
    page.button(1, "Resume").wait_for(timeout=60_000)
    before = ticks(tmp_path)
    page.page.wait_for_timeout(1000)  # only time can show that nothing is written
    assert ticks(tmp_path) == before
    page.button(1, "Resume").click()
    page.grows(1, 5)
    assert page.prompt(2) == "[*]:"

    page.interrupt()
    page.wait_done(2)
    eventually(
        lambda: page.numbers(1) and all(socket.is_closed() for socket in page.sockets), within=60, what="the kernel has the view again"
    )
    page.grows(1, 5)
    expect(page.button(1, "Pause")).to_be_visible()  # the click that the kernel took so late has changed nothing
    assert len([each for each in page.asked if each.startswith("POST")]) == 2, page.asked

    (pid,) = kernels_of(lab)
    os.kill(pid, signal.SIGKILL)
    page.grows(1, 20)
    attach_in_another_page(lab, browser, "killed.ipynb")
    (tmp_path / "stop").touch()
    eventually(lambda: "ok: " in page.output(1).inner_text().lower(), within=60, what="the view shows the end")
    page.has_all(1, tmp_path)
    assert page.complaints == []
    page.close()

    reopened = PastPage(lab, browser, "killed.ipynb")
    eventually(lambda: f"line {ticks(tmp_path)}" in reopened.output(1).inner_text(), within=60, what="the end, when it is opened again")
    assert reopened.output(1).locator(".ccx").count() == 0
    assert "model not found" not in reopened.output(1).inner_text()
    reopened.close()


@pytest.mark.row(
    "kernels", "kernel busy, killed with -9; policy continue", "buttons and text go on through the server, without gap or repeat"
)
def test_cancel_reaches_the_run_of_a_busy_kernel_of_the_older_line(lab: Lab, browser: Browser, tmp_path: Path) -> None:
    page = begun(lab, browser, tmp_path, "busy.ipynb", IPYKERNEL6.name)
    page.button(1, "Cancel").click()
    assert not await_none([tmp_path], budget=10.0)
    eventually(lambda: "cancelled: " in page.output(1).inner_text().lower(), within=60, what="the view says how it ended")
    page.interrupt()
    page.wait_done(2)
    eventually(lambda: page.output(1).locator(".ccx").count() == 0, within=60, what="the card stands in its place")
    assert page.complaints == []
    page.close()


@pytest.mark.row("kernels", "page loaded anew while the kernel is busy", "the view is there, whole, when the kernel answers")
def test_a_page_that_is_loaded_anew_beside_a_busy_kernel_has_the_whole_view_when_the_kernel_answers(
    lab: Lab, browser: Browser, tmp_path: Path
) -> None:
    page = begun(lab, browser, tmp_path, "anew.ipynb", IPYKERNEL7.name)
    page.save()
    page.page.reload()
    # What JupyterLab says in the place of a widget that it does not know yet, whatever else the output holds; the docs quote it.
    expect(page.output(1).get_by_text("Loading widget...", exact=True)).to_be_visible()
    before = ticks(tmp_path)
    eventually(lambda: ticks(tmp_path) > before + 5, within=60, what="the run goes on meanwhile")
    assert page.output(1).locator(".ccx").count() == 0
    page.interrupt()
    eventually(lambda: len(page.numbers(1)) > before, within=60, what="the view is there")
    page.grows(1, 3)
    (tmp_path / "stop").touch()
    eventually(lambda: "ok: " in page.output(1).inner_text().lower(), within=60, what="the view says how it ended")
    page.has_all(1, tmp_path)
    assert page.complaints == []
    page.close()


def hold_saves(page: PastPage) -> Callable[[], None]:
    """Have no save of this page's notebook arrive, as on a machine that is too slow for it. What is returned reloads the page; then saves arrive again."""
    contents = re.compile(rf"/api/contents/{page.name}")

    def hold(route: Route) -> None:
        if route.request.method not in {"PUT", "PATCH"}:
            route.fallback()

    def reload() -> None:
        page.page.reload(wait_until="commit")  # with the page goes what it has not sent; without the route that would be sent after all
        page.page.unroute(contents, hold)

    page.page.route(contents, hold)
    return reload


@pytest.mark.row(
    "kernels", "page reloaded before the notebook was saved", "what goes on is there with every line; what was cleared stays away"
)
def test_what_goes_on_is_there_in_a_page_that_was_reloaded_before_it_was_saved(lab: Lab, browser: Browser, tmp_path: Path) -> None:
    cleared = tmp_path / "cleared"
    cleared.mkdir()
    cells = (LOAD, COUNT.format(folder=tmp_path), COUNT.format(folder=cleared), LIST.format(folder=tmp_path))
    path = lab.write("unsaved.ipynb", *cells, kernel=IPYKERNEL7.name)
    page = PastPage(lab, browser, "unsaved.ipynb")
    page.wait_for_kernel()
    reload_unsaved = hold_saves(page)
    for cell in range(4):
        page.run(cell)
    page.grows(1, 3, within=60)
    page.grows(2, 1, within=60)
    page.output(3).get_by_text("0 of 1").wait_for()
    page.clear(2)
    assert [cell["outputs"] for cell in nbformat.read(path, as_version=4).cells] == [[]] * 4

    reload_unsaved()
    page.grows(1, 3)
    page.output(3).get_by_text("0 of 1").wait_for(timeout=60_000)
    assert page.output(2).locator(".ccx").count() == 0
    eventually(lambda: shows_views(path, [0, 1, 0, 1]), within=60, what="the page has saved what it has found")

    page.button(1, "Cancel").click()
    eventually(lambda: "cancelled: " in page.output(1).inner_text().lower(), within=60, what="the view says how it ended")
    for folder in (tmp_path, cleared):
        (folder / "stop").touch()
    eventually(lambda: "1 of 1" in page.output(3).inner_text().lower(), within=60, what="the list's view says that it is done")
    numbers = page.numbers(1)
    assert numbers == list(range(1, len(numbers) + 1))
    assert page.output(3).locator(".ccx-tasks").count() == 1
    _, run, away, tasks = page.save().cells
    assert [output.data[RECEIPT_MIME]["outcome"]["kind"] for output in run.outputs] == ["cancelled"]
    assert away.outputs == []
    assert [output.metadata["cc_executor"]["status"] for output in tasks.outputs] == ["ok"]
    assert page.complaints == []
    page.close()


@pytest.mark.parametrize("name", ["before_ids.ipynb", "format3.ipynb"])
def test_what_goes_on_is_there_in_a_reloaded_page_of_a_notebook_whose_cells_have_no_ids(
    lab: Lab, browser: Browser, tmp_path: Path, name: str
) -> None:
    path = lab.write(name, LOAD, COUNT.format(folder=tmp_path), kernel=IPYKERNEL7.name)
    older = json.loads(path.read_text("utf-8")) | {"nbformat_minor": 4}
    for cell in older["cells"]:
        del cell["id"]
    path.write_text(json.dumps(nbformat.convert(nbformat.from_dict(older), 3) if name == "format3.ipynb" else older))
    page = PastPage(lab, browser, name)
    page.wait_for_kernel()
    reload_unsaved = hold_saves(page)
    for cell in range(2):
        page.run(cell)
    page.grows(1, 3, within=60)
    reload_unsaved()
    page.grows(1, 3)
    (tmp_path / "stop").touch()
    eventually(lambda: "ok: " in page.output(1).inner_text().lower(), within=60, what="the view says how it ended")
    page.close()


def shows_views(path: Path, counts: list[int]) -> bool:
    """Whether the saved cells have so many live views each."""
    notebook = as_saved(path)
    return (
        notebook is not None
        and [sum(WIDGET_MIME in output.get("data", {}) for output in cell.outputs) for cell in notebook.cells] == counts
    )


LIST: Final = """%%cc_tasks
tasks:
  - {{id: long, run: 'cd {folder} && while [ ! -e stop ]; do sleep 0.1; done'}}"""
# JupyterLab looks for the widget of an output every 100 ms, for 2 s; the kernel's answer comes before it has looked a second time, and too late for a third.
SLOW_LOOK: Final = (
    "const later = window.setTimeout; window.setTimeout = (work, wait, ...more) => later(work, wait === 100 ? 4000 : wait, ...more);"
)


@pytest.mark.row("kernels", "page loaded anew, kernel's answer when the page has just given up", "the view is there all the same")
def test_views_that_the_page_has_given_up_just_when_the_kernel_answered_are_there(lab: Lab, browser: Browser, tmp_path: Path) -> None:
    lab.write("late.ipynb", LOAD, COUNT.format(folder=tmp_path), LIST.format(folder=tmp_path), kernel=IPYKERNEL7.name)
    page = PastPage(lab, browser, "late.ipynb")
    page.wait_for_kernel()
    for cell in range(3):
        page.run(cell)
    page.grows(1, 3, within=60)
    page.output(2).get_by_text("0 of 1").wait_for()
    page.save()
    page.page.add_init_script(SLOW_LOOK)
    with page.page.expect_console_message(lambda message: "widget model not found" in message.text, timeout=60_000):
        page.page.reload()
    page.grows(1, 3)
    page.output(2).get_by_text("0 of 1").wait_for(timeout=60_000)
    assert [page.output(cell).locator(".jp-OutputArea-child").count() for cell in range(3)] == [0, 1, 1], "each once, as they were saved"
    (tmp_path / "stop").touch()
    for cell, end in ((1, "ok: "), (2, "1 of 1")):
        eventually(lambda cell=cell, end=end: end in page.output(cell).inner_text().lower(), within=60, what="the view says how it ended")
    page.close()
