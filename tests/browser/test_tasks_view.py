"""The view of a task list on a bare page, with the real widget on the other side of the wire."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import comm
import pytest
from playwright.sync_api import Browser, Route, expect

from browser.test_view_care import COUNTED, LEFT
from browser.view_page import GUARD, SITE, ViewPage, WireComm
from cc_executor.kernel.taskview import TaskListView, script, style
from cc_executor.model.event import TextWritten
from cc_executor.model.listrecord import Begun, Ended, ListState, Paused, Record, Resumed, Skipped, Stopped, advance
from cc_executor.model.phase import Phase
from cc_executor.model.state import RunState
from cc_executor.model.tasklist import Task, TaskKind, TaskList
from cc_executor.model.taskrows import TaskBoard
from cc_executor.store.home import StateHome, state_path
from cc_executor.store.tasklists import JOURNAL, ListHome
from cc_executor.taskcommands import TaskCommands
from kernel.attacks import PAYLOADS

COUNT = 50
# Where the text itself stands, which may be longer than its element is wide.
TEXT_BOX = (
    "node => { const range = document.createRange(); range.selectNodeContents(node); return range.getBoundingClientRect().toJSON(); }"
)


class TasksPage(ViewPage):
    """A list, its board, and views of it in a browser."""

    tasks: TaskList

    def make_view(self, **options: Any) -> None:
        home = StateHome(state_path(os.environ))
        self.folder = ListHome(home).open(self.tasks)
        self.board = TaskBoard(self.tasks, list_id=self.folder.list_id)
        self.state = ListState()
        outbox = self.outbox

        def create(*arguments: Any, **keys: Any) -> WireComm:
            wire = WireComm(*arguments, **keys)
            wire.outbox = outbox
            return wire

        with self._monkeypatch.context() as patch:
            patch.setattr(comm, "create_comm", create)
            commands = TaskCommands(self.folder, self.tasks, home)
            self.view = TaskListView(self.board, commands=commands, home=home, title="The list", clock=self.now, **options)  # type: ignore[assignment] # one page serves both
        self.outbox.clear()

    def _serve(self, route: Route) -> None:
        if route.request.url == f"{SITE}view.js":
            route.fulfill(body=script(), content_type="text/javascript")
        elif route.request.url == f"{SITE}view.css":
            route.fulfill(body=style(), content_type="text/css")
        else:
            super()._serve(route)

    def add(self, *records: Record) -> None:
        """What whoever runs the list writes down."""
        for record in records:
            self.folder.append(record)
            self.state = advance(self.state, record)
        self.board.show(self.state)

    def write(self, task_id: str, text: str) -> None:
        self.board.apply(task_id, [TextWritten(block="b", text=text)], RunState(activity=Phase.WRITING), time.time())

    def row(self, number: int) -> Any:
        return self.root().locator("li.ccx-task").nth(number)


def begun(task_id: str) -> Begun:
    return Begun(at=time.time(), task=task_id, attempt=1)


def ended(task_id: str, **more: Any) -> Ended:
    return Ended(at=time.time(), task=task_id, attempt=1, outcome="ok", **more)


@pytest.fixture
def page(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> Iterator[TasksPage]:
    TasksPage.tasks = TaskList(
        tasks=tuple(
            Task(id=f"t{number}", kind=TaskKind.SHELL, text="true", group="all", title=f"Task {number}") for number in range(COUNT)
        ),
        cwd="/",
        parallel=64,
    )
    with TasksPage(browser, monkeypatch) as made:
        yield made


def test_fifty_flooding_rows_stay_smooth(page: TasksPage) -> None:
    page.open()
    page.add(*(begun(f"t{number}") for number in range(COUNT)))
    page.settle()

    def flood() -> None:
        page.frames.clear()
        start, count = time.monotonic(), 0
        while time.monotonic() < start + 3.0 or len(page.frames) < 2:
            count += 1
            for number in range(COUNT):
                page.write(f"t{number}", f"{count} {'x' * 5000}\nline {count} of task {number}\n")
            page.turn()
        assert len(page.frames) <= 26 * (time.monotonic() - start)
        line = page.row(COUNT - 1).locator(".ccx-task-line")
        page.until(lambda: line.inner_text() == f"line {count} of task {COUNT - 1}", "the last line")

    page.smooth(flood, below=200)
    assert page.errors == []


def test_what_agents_write_is_text_and_nothing_is_loaded(page: TasksPage) -> None:
    page.open()
    page.add(*(begun(f"t{number}") for number in range(len(PAYLOADS))))
    for number, payload in enumerate(PAYLOADS):
        page.write(f"t{number}", str(payload))
    page.add(*(ended(f"t{number}", text=str(payload)) for number, payload in enumerate(PAYLOADS)))
    page.settle()
    assert page.root().locator("script, img, iframe, svg, a, style, object, embed").count() == 0
    assert page.requests == []
    assert page.errors == []


def test_a_screen_reader_has_names_states_and_one_live_region(page: TasksPage) -> None:
    page.open()
    page.add(begun("t0"))
    page.settle()
    root = page.root()
    assert root.locator("[aria-live=polite], [role=status]").count() == 1
    expect(page.page.get_by_role("region", name="The list")).to_be_visible()
    expect(root.get_by_role("list", name="Tasks").get_by_role("listitem")).to_have_count(COUNT + 1)  # and the group's name
    expect(root.get_by_role("button", name="Stop t0", exact=True)).to_be_visible()
    page.add(ended("t0"))
    page.until(lambda: "Task 0: Done" in root.locator("[aria-live=polite]").inner_text(), "the news")
    page.page.keyboard.press("Tab")
    page.page.keyboard.press("Tab")
    page.page.keyboard.press("Tab")
    expect(page.row(0).locator(".ccx-task-title")).to_be_focused()
    page.page.keyboard.press("End")
    expect(page.row(COUNT - 1).locator(".ccx-task-title")).to_be_focused()
    page.page.keyboard.press("Tab")
    expect(page.root().get_by_role("button", name=f"Edit t{COUNT - 1}")).to_be_focused()


def test_pause_is_confirmed_by_the_list_and_what_is_refused_is_said(page: TasksPage) -> None:
    page.hold_clock()
    page.open()
    page.add(begun("t0"))
    page.settle()
    page.button("Pause").click()
    expect(page.button("Pausing…")).to_be_disabled()
    page.until(lambda: page.folder.state().is_paused, "the record")
    page.add(Paused(at=1))
    page.until(lambda: page.button("Resume").count(), "the answer")
    page.add(Resumed(at=1), begun("t1"))
    page.until(lambda: page.button("Pause").count(), "the answer")
    page.folder.append(begun("t2"))  # the page does not know it yet
    page.root().get_by_role("button", name="Edit t2", exact=True).click()
    page.until(lambda: page.root().get_by_label("New text of task t2", exact=True).count(), "the form")
    page.root().get_by_label("New text of task t2", exact=True).fill("other")
    page.root().get_by_role("button", name="Save").click()
    page.until(lambda: page.root().get_by_role("alert").is_visible(), "the refusal")
    expect(page.root().get_by_role("alert")).to_have_text("Task t2 is running: too late for 'edit'.")
    expect(page.root().get_by_label("New text of task t2", exact=True)).to_have_value("other")  # what was typed is not lost
    page.root().get_by_role("button", name="Leave as it was").click()
    expect(page.root().get_by_role("button", name="Edit t2", exact=True)).to_be_focused()


def test_a_row_whose_text_cannot_be_read_says_so_and_is_not_edited(page: TasksPage) -> None:
    page.open()
    page.settle()
    title = page.row(1).locator(".ccx-task-title")
    title.click()
    page.until(lambda: page.row(1).locator(".ccx-task-text").inner_text() == "true", "its text")
    title.click()
    (page.folder.path / JOURNAL).write_bytes(b"nothing of ours\n")
    title.click()
    page.until(lambda: page.root().get_by_role("alert").is_visible(), "why")
    expect(page.root().get_by_role("alert")).to_contain_text("cannot be read")
    page.painted()
    assert page.root().get_by_role("textbox").count() == 0, "nobody has asked for the form"
    expect(title).to_be_focused()


def test_a_double_click_on_skip_does_not_bring_the_task_back_and_the_keyboard_stays_in_the_row(page: TasksPage) -> None:
    page.hold_clock()
    page.open()
    page.settle()
    skip = page.root().get_by_role("button", name="Skip t1", exact=True)
    box = skip.bounding_box()
    assert box is not None
    skip.click()
    page.until(lambda: page.folder.state().task("t1").is_unwanted, "the record")
    page.state = page.folder.state()
    page.add(Skipped(at=time.time(), task="t1", because="unwanted"))
    retry = page.root().get_by_role("button", name="Retry t1", exact=True)
    page.until(retry.count, "another button is in its place")
    expect(page.row(1).locator(".ccx-task-title")).to_be_focused()
    page.page.mouse.click(box["x"] + 5, box["y"] + 5)
    page.settle()
    assert [said["command"] for said in page.said("command")] == ["skip"]
    page.page.clock.run_for(GUARD)
    retry.click()
    page.until(lambda: len(page.said("command")) == 2, "a later click")


def test_a_list_that_somebody_else_stops_under_the_hand_is_not_killed(page: TasksPage) -> None:
    page.hold_clock()
    page.open()
    page.add(begun("t0"))
    page.settle()
    page.add(Stopped(at=time.time()))
    page.until(lambda: page.page.locator(".ccx-dot[data-phase=stopping]").count(), "somebody else has stopped it")
    page.root().locator(".ccx-bar .ccx-cancel").dispatch_event("click")
    page.settle()
    assert page.said("command") == []
    page.page.clock.run_for(GUARD)
    page.button("Kill now").click()
    page.until(lambda: [said["command"] for said in page.said("command")] == ["kill"], "a later click")


def test_a_kill_that_was_taken_is_not_said_to_be_unanswered_when_the_end_takes_its_time(page: TasksPage) -> None:
    page.hold_clock()
    page.open()
    page.add(begun("t0"))
    page.settle()
    page.button("Stop").click()
    page.until(lambda: page.folder.state().is_stopped, "the record")
    page.add(Stopped(at=time.time()))
    page.until(lambda: page.button("Kill now").count(), "the second rung")
    page.button("Kill now").click()
    expect(page.button("Killing…")).to_be_disabled()
    page.until(lambda: len([each for each in page.folder.read()[0] if isinstance(each, Stopped) and each.click]) == 2, "the record")
    page.page.clock.run_for(20_000)  # a hook is waited for
    expect(page.root().get_by_role("alert")).to_be_hidden()
    expect(page.button("Kill now")).to_be_enabled()


def test_a_list_that_is_removed_leaves_no_timer_and_no_listener(page: TasksPage) -> None:
    page.make_view(bell="{}")
    page.hold_clock()
    page.page.evaluate(COUNTED)
    page.open()
    page.add(begun("t0"))
    page.settle()
    page.root().get_by_role("button", name="Stop t0", exact=True).click()
    page.button("Stop").click()
    page.add(begun("t1"))
    page.turn()
    page.page.evaluate("views[0].close()")
    page.painted()
    assert page.page.evaluate(LEFT) == {"timeouts": 0, "intervals": 0, "listeners": 0}
    assert page.errors == []


def test_a_lost_frame_is_noticed_and_a_second_view_has_everything(page: TasksPage) -> None:
    page.open()
    page.settle()
    lost: list[Any] = []
    page.lose = lambda message: "content" in message and not lost.append(message)
    page.add(begun("t0"))
    page.until(lambda: lost, "a frame on its way")
    page.lose = lambda _: False
    page.add(begun("t1"))
    page.until(lambda: page.row(0).locator(".ccx-task-word").inner_text() == "Running", "the lost one")
    page.open()
    page.until(lambda: page.root(1).locator("li.ccx-task").count() == COUNT, "the second view")
    page.settle()
    assert page.root(1).locator("[data-status=running]").count() == 2


def test_a_row_says_how_long_it_usually_takes_until_it_has_ended(page: TasksPage) -> None:
    page.open()
    page.board.expect({"t0": "12–40 s (n=9)"})
    page.add(begun("t0"), begun("t1"))
    page.settle()
    assert page.row(0).locator(".ccx-task-figures").inner_text() == "usually 12–40 s (n=9)"
    assert page.row(1).locator(".ccx-task-figures").inner_text() == ""
    page.add(ended("t0"))
    page.until(lambda: page.row(0).locator(".ccx-task-figures").inner_text() == "", "the end")


@pytest.mark.parametrize("width", [320, 680, 1000])
def test_a_long_estimate_stands_beside_the_buttons_and_not_under_them(page: TasksPage, width: int) -> None:
    page.page.set_viewport_size({"width": width, "height": 800})
    page.open()
    page.board.expect({"t0": "1 min 12 s–13 min 40 s (n=23)"})
    page.add(begun("t1"))
    page.settle()
    assert page.row(0).get_by_role("button").count() > 1
    text = page.row(0).locator(".ccx-task-figures").evaluate(TEXT_BOX)
    for button in page.row(0).get_by_role("button").all():
        box = button.bounding_box()
        assert box is not None
        is_beside = text["right"] <= box["x"] or text["left"] >= box["x"] + box["width"]
        assert is_beside or text["bottom"] <= box["y"] or text["top"] >= box["y"] + box["height"]


@pytest.mark.parametrize("width", [320, 1000])
def test_nothing_is_cut_off_on_narrow_pages_and_states_are_words_in_forced_colours(page: TasksPage, width: int) -> None:
    page.page.set_viewport_size({"width": width, "height": 800})
    page.page.emulate_media(forced_colors="active", reduced_motion="reduce")
    page.open()
    page.add(begun("t0"), ended("t0", text="x" * 500), begun("t1"))
    page.settle()
    assert page.root().evaluate("(root) => root.scrollWidth <= root.clientWidth + 1")
    box = page.root().bounding_box()
    assert box is not None
    for button in page.row(1).get_by_role("button").all():
        inner = button.bounding_box()
        assert inner is not None
        assert inner["x"] + inner["width"] <= box["x"] + box["width"]
    assert page.row(1).locator(".ccx-task-word").inner_text() == "Running"
    assert page.row(1).locator(".ccx-task-icon").evaluate("(node) => getComputedStyle(node).animationName") == "none"


def test_a_list_whose_kernel_is_silent_asks_the_server_of_its_page_and_nobody_else(page: TasksPage) -> None:
    here = '<script id="jupyter-config-data" type="application/json">{"baseUrl": "/user/a/", "ccExecutor": true}</script>'
    for config, asks in (("", False), (here, True)):
        page.page.goto("about:blank")
        page.config = config
        page.make_view()
        page.hold_clock()
        page.open()
        page.until(page.row(0).count, "the list")
        assert (page.requests, page.sockets) == ([], []), "a kernel that speaks is enough"
        page.button("Pause").click()
        page.page.clock.run_for(900)
        assert (page.requests, page.sockets) == ([], [])
        page.page.clock.run_for(20_000)
        expect(page.root().get_by_role("alert").first).to_contain_text("The kernel does not answer")
        if asks:
            page.happens(lambda: page.requests and page.sockets, "the request and the socket")
        assert page.requests == ([f"{SITE}user/a/cc-executor/api/v1/executions/{page.folder.list_id}/control"] if asks else [])
        assert set(page.sockets) == ({"ws://view.test/user/a/cc-executor/ws"} if asks else set())
    assert page.errors == []
