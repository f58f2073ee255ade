"""The picture of what needs what, on a bare page, with the real widget on the other side of the wire."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from browser.test_tasks_view import TasksPage, begun, ended
from browser.view_page import LAB_DARK, LAB_LIGHT
from cc_executor.model.listrecord import Ended, Skipped, Stopped
from cc_executor.model.tasklist import Task, TaskKind, TaskList


def shell(task_id: str, *needs: str, **more: Any) -> Task:
    return Task(id=task_id, kind=TaskKind.SHELL, text="true", needs=needs, **more)


RELEASE = (
    shell("survey"),
    shell("tests", "survey"),
    shell("lint"),
    shell("tidy", "lint"),
    shell("api", "survey", group="docs"),
    shell("guide", "survey", group="docs"),
    shell("review", "api", "guide"),
    shell("publish", "review", "tests", "survey"),
)
# Fifty tasks, three at a time after each other, with a line that passes over all of it.
WEAVE = tuple(shell(f"t{n}", *(f"t{k}" for k in (n - 3, n - 4) if k >= 0 and n > 3), *(["t0"] if n > 4 else [])) for n in range(50))

Open = Callable[..., TasksPage]


@pytest.fixture
def page_of(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    made: list[TasksPage] = []

    def open_list(*tasks: Task, **options: Any) -> TasksPage:
        TasksPage.tasks = TaskList(tasks=tasks, cwd="/", parallel=64)
        page = TasksPage(browser, monkeypatch, **options)
        page.__enter__()
        made.append(page)
        page.open()
        page.settle()
        return page

    yield open_list
    for page in made:
        page.__exit__(None, None, None)


def spot(page: TasksPage, task_id: str) -> Any:
    return page.root().locator("g.ccx-spot").nth([task.id for task in page.board.order].index(task_id))


def test_each_state_has_a_shape_a_sign_and_a_word(page_of: Open) -> None:
    page = page_of(*RELEASE)
    page.add(
        begun("survey"), ended("survey"), begun("lint"), Ended(at=time.time(), task="lint", attempt=1, outcome="failed", summary="exit 1")
    )
    page.add(Skipped(at=1, task="tidy", because="it needs lint"), begun("api"), begun("guide"), Stopped(at=1, task="guide"))
    page.add(Ended(at=time.time(), task="guide", attempt=1, outcome="cancelled"))
    page.settle()
    states = {name: spot(page, name) for name in ("survey", "lint", "tidy", "api", "guide", "publish")}
    said = {name: node.get_attribute("aria-label") for name, node in states.items()}
    assert said["survey"] == "1 survey: Done"
    assert "lint: Failed" in said["lint"]
    assert "tidy: Skipped, needs lint" in said["tidy"]
    assert "api: Running" in said["api"]
    assert "guide: Stopped" in said["guide"]
    assert "publish: Waiting, needs review, tests, survey" in said["publish"]
    signs = {name: node.locator(".ccx-spot-sign").text_content() for name, node in states.items()}
    assert len(set(signs.values())) == len(signs), signs
    x = {name: node.bounding_box()["x"] for name, node in states.items()}
    widths = {name: node.bounding_box()["width"] for name, node in states.items()}
    shapes = {
        name: node.locator("path").evaluate("(path) => path.getAttribute('d').replace(/^M\\S+ \\S+/, '')") for name, node in states.items()
    }
    styles = {
        name: node.locator("path").evaluate("(path) => getComputedStyle(path).strokeDasharray + getComputedStyle(path).strokeWidth")
        for name, node in states.items()
    }
    assert len({(shapes[name], styles[name]) for name in states}) == len(states), "told apart without colours"
    assert abs(x["survey"] - x["lint"]) < 5 < x["api"] - x["lint"]  # the width of the outline
    assert x["api"] < x["publish"]
    assert min(widths.values()) > 90, "few columns: with names"
    # Every line but the one that follows from others.
    assert page.root().locator("path.ccx-need").count() == len([need for task in RELEASE for need in task.needs]) - 1
    assert page.requests == []
    assert page.errors == []


def test_a_click_and_the_keyboard_lead_to_the_row(page_of: Open) -> None:
    page = page_of(*RELEASE)
    spot(page, "guide").click()
    row = page.root().locator("li.ccx-task", has=page.page.get_by_text("guide", exact=True)).first
    expect(row.locator(".ccx-task-title")).to_be_focused()
    assert spot(page, "guide").get_attribute("data-selected") is not None
    assert page.root().locator("path.ccx-need[data-near]").count() == 2
    expect(page.root().locator("g.ccx-spot[tabindex='0']")).to_have_count(1)
    spot(page, "guide").focus()
    page.page.keyboard.press("ArrowRight")
    expect(spot(page, "review")).to_be_focused()
    page.page.keyboard.press("ArrowLeft")
    page.page.keyboard.press("ArrowLeft")
    expect(spot(page, "survey")).to_be_focused()
    page.page.keyboard.press("End")
    expect(spot(page, "publish")).to_be_focused()
    page.page.keyboard.press("Enter")
    expect(page.row(len(RELEASE) - 1).locator(".ccx-task-title")).to_be_focused()


def test_a_list_without_needs_has_no_picture_and_a_second_view_has_its_own(page_of: Open) -> None:
    page = page_of(shell("a"), shell("b"))
    assert page.root().locator("svg, details.ccx-graph").count() == 0
    page = page_of(*RELEASE)
    page.open()
    page.settle()
    assert page.root(1).locator("g.ccx-spot").count() == len(RELEASE)


def test_the_picture_follows_what_runs_and_stays_smooth_with_fifty_tasks(page_of: Open) -> None:
    page = page_of(*WEAVE)
    scroller = page.root().locator(".ccx-graph-scroller")
    assert scroller.evaluate("(node) => node.scrollWidth > node.clientWidth"), "wider than the page"
    for number in range(40):
        page.add(begun(f"t{number}"), ended(f"t{number}"))
    page.add(begun("t40"))

    def write() -> None:
        for count in range(60):
            for number in range(50):
                page.write(f"t{number}", f"line {count}\n")
            page.turn()
        page.settle()

    page.smooth(write, below=200)
    page.until(lambda: "Running" in (spot(page, "t40").get_attribute("aria-label") or ""), "it is drawn")
    page.painted()
    outer, inner = scroller.bounding_box(), spot(page, "t40").bounding_box()
    assert outer is not None
    assert outer["x"] <= inner["x"] <= outer["x"] + outer["width"] - inner["width"]
    assert page.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_of_the_picture(page_of: Open, tmp_path: Path, scheme: str) -> None:
    folder = Path(os.environ.get("CC_EXECUTOR_TEST_PICTURES", str(tmp_path)))
    page = page_of(*RELEASE, scheme=scheme)
    page.page.add_style_tag(
        content=f":root {{ {LAB_LIGHT if scheme == 'light' else LAB_DARK} }} body {{ background: var(--jp-layout-color1) }}"
    )
    page.add(
        begun("survey"), ended("survey"), begun("lint"), Ended(at=time.time(), task="lint", attempt=1, outcome="failed", summary="exit 1")
    )
    page.add(Skipped(at=1, task="tidy", because="it needs lint"), begun("tests"), ended("tests"), begun("api"), begun("guide"))
    page.settle()
    contrast = page.root().evaluate(
        """(root) => {
        const channel = (value) => { return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4; };
        const parsed = (colour) => { const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
        const over = (top, ground) => [0, 1, 2].map((n) => top[n] * top[3] + ground[n] * (1 - top[3]));
        const light = ([r, g, b]) => 0.2126 * channel(r / 255) + 0.7152 * channel(g / 255) + 0.0722 * channel(b / 255);
        const below = parsed(getComputedStyle(root).backgroundColor);
        const ground = light(below);
        return [...root.querySelectorAll(".ccx-spot")].map((spot) => {
          const stroke = light(over(parsed(getComputedStyle(spot.querySelector("path")).stroke), below));
          const [a, b] = [stroke, ground].sort((x, y) => y - x);
          return (a + 0.05) / (b + 0.05);
        });
      }"""
    )
    assert min(contrast) >= 3, "outlines are seen (WCAG 2.2, 1.4.11)"
    page.root().screenshot(path=folder / f"graph-{scheme}.png")
