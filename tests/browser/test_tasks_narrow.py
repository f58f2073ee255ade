"""The table that stays of a list, as narrow as a phone or a split pane: nothing is cut, and every column can be read. As it is, and as JupyterLab leaves it."""

from __future__ import annotations

from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Locator

from browser.test_attacks import CARD, notebook, shown, write
from cc_executor.model.listrecord import ListState, ListStatus, TaskState, TaskStatus
from cc_executor.model.taskcard import EndedList, list_card
from cc_executor.model.tasklist import Task, TaskKind, TaskList
from support.lab import Lab, NotebookPage

pytestmark = pytest.mark.timeout(300)

LONG: Final = "lint-the-whole-tree-of-packages"
RUN: Final = "019ab0c3d4e5f60718293a4b5c"
HEADS: Final = ["#", "task", "state", "what became of it", "time", "cost"]
# Of each row the left edges of its cells; all that sticks out of the table or of its cell; and the narrowest of what holds sentences. As wide as it is
# told in the same breath: JupyterLab, while it opens a notebook, may draw a cell anew.
LOOK: Final = """(card, width) => {
    if (width) card.style.width = `${width}px`;
    const right = card.getBoundingClientRect().right;
    const cells = [...card.querySelectorAll('th, td')];
    const sentences = [...card.querySelectorAll('td:nth-child(2), td:nth-child(4)')];
    return {
        width: card.clientWidth,
        heads: [...card.querySelectorAll('th')].map((cell) => cell.textContent),
        edges: [...card.querySelectorAll('tr')].map((row) => [...row.children].map((cell) => Math.round(cell.getBoundingClientRect().left))),
        lines: [...card.querySelectorAll('tr')].map((row) => new Set([...row.children].map((cell) => cell.getBoundingClientRect().top)).size),
        cut: cells.filter((cell) => cell.scrollWidth > cell.clientWidth || cell.getBoundingClientRect().right > right + 1).map((cell) => cell.textContent),
        scrolls: card.scrollWidth > card.clientWidth,
        least: Math.min(...sentences.map((cell) => cell.getBoundingClientRect().width)),
    };
}"""


def table() -> str:
    """A list with every ending, a long name and long figures."""
    lint = Task(id=LONG, kind=TaskKind.SHELL, text="lint")
    survey = Task(id="survey", title="Read the code and list what has to change", text="Read.")
    tidy = Task(id="tidy", title="Mend what the linter has found", text="Mend it.", needs=(LONG,))
    said = "Seventeen modules have to change; the largest is server/rest.py, whose handlers want one door."
    known = {
        "survey": TaskState(status=TaskStatus.OK, text=said, begun=1, seconds=95.0, spent=1234.5, run_id=RUN, outcome="ok"),
        LONG: TaskState(status=TaskStatus.FAILED, summary="it exited with 1", text="E501\n" * 3, begun=12, seconds=7140.0, run_id=RUN, outcome="failed"),
        "tidy": TaskState(status=TaskStatus.SKIPPED, summary=f"{LONG} failed, which it needs"),
    }  # fmt: skip
    tasks = TaskList(name="Release 2.1", cwd="/", tasks=(survey, lint, tidy))
    state = ListState(tasks=known, status=ListStatus.FAILED, summary="1 of 3 tasks ended well, 1 failed, 1 skipped")
    return list_card(EndedList(list_id="0123456789abcdef0123-1", tasks=tasks, state=state))


def assert_reads(card: Locator, *, is_wide: bool, width: int | None = None) -> None:
    seen: dict[str, Any] = card.evaluate(LOOK, width)
    assert seen["heads"] == HEADS
    assert seen["cut"] == []
    assert not seen["scrolls"]
    assert seen["least"] >= 120, "pixels: a dozen letters"
    assert len(set(map(tuple, seen["edges"]))) == 1, "the columns are below their heads"
    assert set(seen["lines"]) == {1} if is_wide else 1 not in seen["lines"]


@pytest.mark.parametrize("width", [320, 400, 500, 700, 1000])
def test_the_table_of_an_ended_list_reads_at_every_width(browser: Browser, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.set_content(f'<meta charset="utf-8"><body style="margin:8px;font-family:sans-serif">{table()}')
    assert_reads(page.locator("body > div"), is_wide=width >= 700)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()


@pytest.mark.parametrize("is_trusted", [True, False])
def test_it_reads_in_a_narrow_notebook_that_jupyterlab_does_not_trust(lab: Lab, browser: Browser, *, is_trusted: bool) -> None:
    name = f"narrow-{is_trusted}.ipynb"
    write(lab, name, notebook(shown({"text/html": table()})), trusted=is_trusted)
    page = NotebookPage(lab, browser, name)
    card = page.page.locator(CARD).first
    card.wait_for()
    for width in (380, 900):
        assert_reads(card, is_wide=width == 900, width=width)
    page.close()
