"""The pictures of a task list for the docs, live and ended, from a real JupyterLab in both of its themes. `make pictures` keeps them in docs/images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from browser.test_view import CARD_CONTRASTS
from support.lab import Lab, NotebookPage
from support.looks import eventually

pytestmark = [pytest.mark.usefixtures("kernelspecs", "claude_cli"), pytest.mark.timeout(300)]

LIST = """%%cc_tasks --name "Release 2.1" --max-cost 2 --on-failure skip --no-raise-error
tasks:
  - id: survey
    title: Read the code and list what has to change
    prompt: Read the code and list what has to change.
    rehearse: tour
    tools: Bash
  - id: tests
    title: Run the test suite
    run: 'for n in 1 2 3 4; do echo "tests/test_$n.py ........"; done; echo 58 passed'
    needs: survey
  - id: lint
    run: 'echo "src/app.py:12: E501 line too long"; exit 1'
  - id: tidy
    title: Mend what the linter has found
    prompt: Mend it.
    rehearse: hello
    needs: lint
  - {id: api, title: Write the reference, run: 'for n in $(seq 3000); do echo "module $n of the reference"; sleep 0.1; done', needs: survey, group: docs}
  - {id: guide, title: Write the guide, run: 'for n in $(seq 3000); do echo "page $n of the guide"; sleep 0.1; done', needs: survey, group: docs}
  - id: review
    title: Read everything once more with fresh eyes
    prompt: "Review {{ needs.api.text }} and {{ needs.guide.text }}."
    rehearse: hello
  - {id: publish, run: echo published, needs: [review, tests]}
"""
THEMES = ("Light", "Dark")
# The contrast of a row's texts with the ground behind them (WCAG 2.2, 1.4.3).
CONTRAST = """(root) => {
    const channel = (value) => { value /= 255; return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4; };
    const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
    const parsed = (colour) => { const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
    const over = (top, ground) => [0, 1, 2].map((n) => top[n] * top[3] + ground[n] * (1 - top[3]));
    const ground = (node) => {
        const layers = [];
        for (; node; node = node.parentElement) layers.unshift(parsed(getComputedStyle(node).backgroundColor));
        return layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
    };
    const worst = {};
    for (const node of root.querySelectorAll(".ccx-task-word, .ccx-task-line, .ccx-task-name, .ccx-task-clock, .ccx-figures, .ccx-budget-text")) {
        if (!node.textContent) continue;
        const below = ground(node);
        const [a, b] = [light(over(parsed(getComputedStyle(node).color), below)), light(below)].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        worst[node.className] = Math.min(worst[node.className] ?? 99, ratio);
    }
    return worst;
}"""


@pytest.fixture
def page(lab: Lab, browser: Browser) -> Iterator[NotebookPage]:
    lab.write("release.ipynb", "%load_ext cc_executor", LIST, kernel="ipykernel7")
    page = NotebookPage(lab, browser, "release.ipynb")
    yield page
    page.close()
    lab.use_theme("Light")


def test_a_live_list_and_an_ended_one(page: NotebookPage, tmp_path: Path) -> None:
    named = os.environ.get("CC_EXECUTOR_TEST_PICTURES")
    folder = Path(named) if named else tmp_path
    page.wait_for_kernel()
    for cell in range(2):
        page.run(cell)
    view = page.output(1)
    eventually(lambda: view.get_by_text("of the guide").count(), within=60, what="the list is at work")
    view.scroll_into_view_if_needed()
    for theme in THEMES:
        page.use_theme(theme)
        view.screenshot(path=folder / f"tasks-live-{theme.lower()}.png")
        low = {name: ratio for name, ratio in view.evaluate(CONTRAST).items() if ratio < 4.5}
        assert low == {}, "texts that are hard to read"
    for task in ("api", "guide"):
        view.get_by_role("button", name=f"Stop {task}").click()
    page.wait_done(1, within=120)
    for theme in reversed(THEMES):
        page.use_theme(theme)
        view.screenshot(path=folder / f"tasks-ended-{theme.lower()}.png")
        ground = [255] * 3 if theme == "Light" else [17] * 3
        assert view.locator(".jp-RenderedHTML").first.evaluate(CARD_CONTRASTS, ground) == {}, "texts that are hard to read"
