"""The bell of the live views in a real browser: nothing is asked before it is pressed, and what is shown is shown once, to somebody who looks elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from browser import test_tasks_view, view_page
from browser.test_tasks_view import TasksPage, begun, ended
from browser.view_page import ViewPage
from cc_executor.kernel.notify import OFF
from cc_executor.model.ask import ShownAsk
from cc_executor.model.event import PermissionAsked, TextWritten
from cc_executor.model.fold import advance_all
from cc_executor.model.listrecord import Closed, ListStatus
from cc_executor.model.state import RunState
from cc_executor.model.tasklist import Task, TaskKind, TaskList
from cc_executor.wire.feed import ViewStatus
from support.lab import Lab, NotebookPage

if TYPE_CHECKING:
    from cc_executor.kernel.taskview import TaskListView

CANARY: Final = "c4n4ry-77b2"
SITE: Final = "https://view.test/"  # as a hub is: browsers let no other page tell anything
BELL: Final = "Tell me when it ends or needs me"
# Only looks on: what is made is a notification of the browser's own.
OBSERVER: Final = """
window.asked = 0; window.shown = [];
const Real = window.Notification;
const ask = Real.requestPermission.bind(Real);
window.Notification = class extends Real {
  constructor(title, options) {
    super(title, options);
    const entry = { title, tag: options.tag, body: options.body || "", state: "made" };
    window.shown.push(entry);
    this.addEventListener("show", () => { entry.state = "shown"; });
    this.addEventListener("error", () => { entry.state = "error"; });
    window.last = this;
  }
  static requestPermission() { window.asked += 1; return ask(); }
};
"""


@pytest.fixture(scope="module")
def shared_context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1000, "height": 700}, reduced_motion="reduce")
    made.add_init_script(OBSERVER)
    stays = made.new_page()  # as in `context_of`
    stays.route("**/*", lambda route: route.fulfill(body="", content_type="text/html"))
    stays.goto(SITE)
    yield made
    made.close()


@pytest.fixture
def context(shared_context: BrowserContext, monkeypatch: pytest.MonkeyPatch) -> BrowserContext:
    shared_context.grant_permissions(["notifications"], origin=SITE)
    shared_context.pages[0].evaluate("localStorage.clear()")
    monkeypatch.setattr(view_page, "SITE", SITE)
    monkeypatch.setattr(view_page, "context_of", lambda _browser, _scheme: shared_context)
    return shared_context


def elsewhere(context: BrowserContext, page: Page) -> None:
    """Look at another page, as people do; without this, Playwright makes every page believe that it is looked at."""
    context.new_cdp_session(page).send("Emulation.setFocusEmulationEnabled", {"enabled": False})
    context.pages[0].bring_to_front()
    page.wait_for_function("!document.hasFocus()")


def shown(page: Page) -> list[str]:
    """What has been told, when whoever is about to tell something has done so."""
    page.evaluate("navigator.locks.request('cc_executor.told', () => {})")
    return [entry["title"] for entry in page.evaluate("shown")]


def begin(view: ViewPage, *, name: str = "0123", **options: Any) -> None:
    view.make_view(title=f"Agent run {name}", **options)
    view.open()
    view.show("writing", elapsed=1.0)
    view.settle()


def end(view: ViewPage, detail: str, **fields: Any) -> None:
    view.view.finish(ViewStatus(phase="ended", detail=detail, **fields))


def ring(view: ViewPage) -> None:
    view.button(BELL).click()
    expect(view.button(BELL)).to_have_attribute("aria-pressed", "true")


def ask(name: str) -> ShownAsk:
    return ShownAsk(id=name, kind="permission", title=f"Write {CANARY}", about=CANARY)


@pytest.fixture
def view(browser: Browser, context: BrowserContext, monkeypatch: pytest.MonkeyPatch) -> Iterator[ViewPage]:
    del context  # it is that of the view
    with ViewPage(browser, monkeypatch) as made:
        yield made


def test_an_end_is_told_once_to_somebody_who_looks_elsewhere(view: ViewPage, context: BrowserContext) -> None:
    begin(view)
    ring(view)
    view.feed(TextWritten(block="b", text=CANARY))
    elsewhere(context, view.page)
    view.open()  # a second view of the same run
    view.settle()
    end(view, f"ok: {CANARY}", elapsed=725.0, cost=0.42)
    view.settle()
    view.page.wait_for_function("shown.length && shown[0].state == 'shown'")
    assert view.page.evaluate("shown") == [
        {"title": "Agent run done · 12 min · $0.42", "tag": "Agent run 0123 end", "body": "", "state": "shown"}
    ]
    assert view.page.evaluate("asked") == 0, "who has given leave before is not asked again"
    assert CANARY not in json.dumps(view.page.evaluate("[shown, {...localStorage}]"))
    view.page.evaluate("last.onclick()")
    view.open()  # who comes later is told nothing
    view.settle()
    assert len(shown(view.page)) == 1
    assert not view.button(BELL).first.is_visible()
    assert view.errors == []


ENDS: Final[tuple[tuple[str, float, str, str | None], ...]] = (
    ("timeout: it took too long", 3700.0, "", "Agent run failed: timeout · 1 h 2 min"),
    ("ok: fine", 29.0, "", None),
    ("ok: fine", 29.0, '{"after": 10, "on": ["done"]}', "Agent run done · 29 s"),
    ("failed: no", 90.0, '{"after": 10, "on": ["done", "input"]}', None),
    ("Run 0123 goes on; `%cc attach` watches it again.", 90.0, "", None),
    ("constructor: of all things", 90.0, "", None),
)


def test_what_is_told_and_what_is_not(view: ViewPage, context: BrowserContext) -> None:
    begin(view)
    ring(view)
    for number, (detail, seconds, bell, title) in enumerate(ENDS):
        view.reload()
        begin(view, name=str(number), bell=bell)
        elsewhere(context, view.page)
        end(view, detail, elapsed=seconds)
        view.settle()
        assert shown(view.page) == ([title] if title else []), detail


def test_who_looks_at_the_page_is_told_nothing_and_who_has_not_pressed_the_bell_neither(view: ViewPage, context: BrowserContext) -> None:
    begin(view)
    assert view.page.evaluate("asked") == 0
    assert view.button(BELL).get_attribute("aria-pressed") == "false"
    ring(view)
    end(view, "ok: fine", elapsed=90.0)
    view.settle()
    assert shown(view.page) == []
    view.reload()
    view.page.evaluate("localStorage.setItem('cc_executor.bell', 'off')")
    begin(view)
    elsewhere(context, view.page)
    end(view, "ok: fine", elapsed=90.0)
    view.settle()
    assert shown(view.page) == []


def test_a_question_is_told_when_it_waits_long_enough_and_each_once(view: ViewPage, context: BrowserContext) -> None:
    view.hold_clock()
    begin(view, bell=json.dumps({"after": 2, "on": ["input"]}))
    ring(view)
    elsewhere(context, view.page)
    view.show("asking", elapsed=1.0, asks=(ask("a1"),))
    view.settle()
    assert shown(view.page) == [], "too early"
    view.until(lambda: len(shown(view.page)) == 1, "it waits still")
    view.show("asking", elapsed=3.0, asks=(ask("a1"),))
    view.show("asking", elapsed=4.0, asks=(ask("a1"), ask("a2")))
    view.until(lambda: len(shown(view.page)) == 2, "the second one")
    view.show("writing", elapsed=5.0)
    view.settle()
    assert [title.partition(" · ")[0] for title in shown(view.page)] == ["Agent run needs you"] * 2
    assert CANARY not in json.dumps(view.page.evaluate("shown"))


def test_the_choice_stays_in_the_browser_and_can_be_taken_back(view: ViewPage) -> None:
    begin(view)
    view.open()
    view.settle()
    ring_first = view.root(0).get_by_role("button", name=BELL)
    ring_first.click()
    for number in (0, 1):
        expect(view.root(number).get_by_role("button", name=BELL)).to_have_attribute("aria-pressed", "true")
    view.reload()
    begin(view)
    expect(view.button(BELL)).to_have_attribute("aria-pressed", "true")
    view.button(BELL).focus()
    view.page.keyboard.press("Enter")
    expect(view.button(BELL)).to_have_attribute("aria-pressed", "false")


def test_a_browser_that_forbids_it_or_keeps_nothing_is_told_of(view: ViewPage, context: BrowserContext) -> None:
    context.clear_permissions()  # headless Chromium then says no by itself
    view.page.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('no'); } })")
    begin(view)
    view.button(BELL).click()
    view.until(lambda: "allow notifications" in view.root().locator(".ccx-note").inner_text(), "the sentence")
    assert view.button(BELL).get_attribute("aria-pressed") == "false"
    end(view, "ok: fine", elapsed=90.0)
    view.settle()
    assert (shown(view.page), view.errors) == ([], [])


def test_there_is_no_bell_where_it_is_not_wanted_or_could_tell_nothing(
    view: ViewPage, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(view, bell=OFF)
    assert view.button(BELL).count() == 0
    monkeypatch.undo()
    with ViewPage(browser, monkeypatch) as plain:  # http, and not this machine
        begin(plain)
        assert plain.button(BELL).count() == 0


def test_a_list_tells_once_for_all_and_what_its_tasks_ask(
    browser: Browser, context: BrowserContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_tasks_view, "SITE", SITE)
    tasks = tuple(Task(id=f"t{number}", kind=TaskKind.AGENT, text=CANARY, group="all", title=CANARY) for number in range(2))
    monkeypatch.setattr(TasksPage, "tasks", TaskList(tasks=tasks, cwd="/", name=CANARY), raising=False)
    with TasksPage(browser, monkeypatch) as page:
        page.make_view(bell=json.dumps({"after": 0, "on": ["done", "failed", "input"]}))
        page.open()
        page.add(begun("t0"), begun("t1"))
        page.settle()
        ring(page)
        elsewhere(context, page.page)
        asking = PermissionAsked(ask_id="a1", tool_id="t", name="Write", input="{}")
        page.board.apply("t0", [asking], advance_all(RunState(), [asking]), time.time())
        page.until(lambda: len(shown(page.page)) == 1, "the question")
        page.add(ended("t0"), ended("t1", cost=0.5), Closed(at=time.time(), status=ListStatus.OK, summary=CANARY))
        cast("TaskListView", page.view).finish()
        page.settle()
        page.until(lambda: len(shown(page.page)) == 2, "the end")
        assert [title.split(" · ")[0] for title in shown(page.page)] == ["Task list needs you", "Task list done"]
        assert shown(page.page)[1].endswith("· $0.50")
        assert CANARY not in json.dumps([entry["title"] for entry in page.page.evaluate("shown")])
        assert page.errors == []


@pytest.mark.timeout(300)
def test_a_run_and_a_list_in_jupyterlab_are_told_when_another_page_is_looked_at(lab: Lab, browser: Browser, tmp_path: Path) -> None:
    """The last word of a view comes before the table or card that takes its place."""
    gate = tmp_path / "gate"
    wait = f"while ! test -e {gate}; do sleep 0.05; done"
    cell = f"%%cc_execute --agent shell --shell bash --notify-after 0\n{wait}"
    tasks = f"%%cc_tasks --notify-after 0 --name {CANARY}\ntasks:\n- id: a\n  run: {wait}\n"
    lab.write("bell.ipynb", "%load_ext cc_executor", cell, tasks, kernel="ipykernel7")
    page = NotebookPage(lab, browser, "bell.ipynb")
    page.page.close()
    context = page.context
    context.grant_permissions(["notifications"], origin=lab.url)
    page.page = context.new_page()
    page.page.add_init_script(OBSERVER)
    page.open()
    page.wait_for_kernel()
    page.run(0)
    page.wait_done(0)
    other = context.new_page()
    for number, title in ((1, "Agent run done"), (2, "Task list done")):
        page.page.bring_to_front()
        page.run(number)
        bell = page.output(number).get_by_role("button", name=BELL)
        bell.wait_for(timeout=60_000)
        if number == 1:
            bell.click()
        expect(bell).to_have_attribute("aria-pressed", "true")
        context.new_cdp_session(page.page).send("Emulation.setFocusEmulationEnabled", {"enabled": False})
        other.bring_to_front()
        page.page.wait_for_function("!document.hasFocus()")
        gate.touch()
        page.page.wait_for_function("count => shown.length == count", arg=number, timeout=60_000)
        assert shown(page.page)[-1].startswith(title)
        gate.unlink()
    assert CANARY not in json.dumps(shown(page.page))
    other.close()
    page.close()
    context.clear_permissions()
