from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from browser.view_page import LAB_DARK, LAB_LIGHT, WAIT, ViewPage, reader
from cc_executor.agents.claude.decode import ClaudeDecoder
from cc_executor.errors import ControlFailed
from cc_executor.kernel.render import static_bundle
from cc_executor.model.event import (
    ApiRetried,
    Event,
    MessageStarted,
    StderrWritten,
    TextWritten,
    ThinkingWritten,
    ToolCalled,
    ToolReturned,
)
from cc_executor.model.outcome import Outcome, OutcomeKind
from cc_executor.model.pager import Page
from cc_executor.model.receipt import Check
from cc_executor.wire.feed import ViewStatus
from kernel.attacks import HOST, PAYLOADS
from kernel.test_render import receipt
from support.recordings import Recording


def text(value: str, block: str = "a:0", *, whole: bool = False) -> TextWritten:
    return TextWritten(block=block, text=value, whole=whole)


def output(value: str) -> TextWritten:
    return TextWritten(block="stdout", text=value)


def lines(start: int, stop: int) -> str:
    return "".join(f"line {n:06d}\n" for n in range(start, stop))


def log_state(view_page: ViewPage) -> dict[str, float]:
    return view_page.root().locator(".ccx-log").evaluate("n => ({ top: n.scrollTop, height: n.scrollHeight, client: n.clientHeight })")


def at_end(view_page: ViewPage) -> bool:
    state = log_state(view_page)
    return state["height"] - state["top"] - state["client"] < 2


def resting(view_page: ViewPage) -> float:
    """Where the log stands when it scrolls no more: a wheel moves it for some frames. Frames are counted, for a busy browser draws none for a while."""
    still = """n => new Promise((done) => {
      let [top, frames] = [n.scrollTop, 0];
      const look = () => {
        frames = n.scrollTop === top ? frames + 1 : 0;
        top = n.scrollTop;
        if (frames < 12) requestAnimationFrame(look); else done(top);
      };
      look();
    })"""
    return view_page.root().get_by_role("log").evaluate(still)


def wheel_up(view_page: ViewPage) -> None:
    """Turn the wheel once, and again where nothing has moved: a busy browser may give a turn to the page behind what it has not painted yet."""
    log = view_page.root().get_by_role("log")
    log.evaluate("(n) => n.addEventListener('scroll', () => { n.dataset.moved = 'yes'; }, { once: true })")
    for _ in range(10):
        view_page.page.mouse.wheel(0, -600)
        with suppress(AssertionError):
            return expect(log).to_have_attribute("data-moved", "yes", timeout=2000)
    raise AssertionError("the log does not scroll")


def ended(detail: str) -> ViewStatus:
    return ViewStatus(phase="ended", elapsed=2.0, detail=detail)


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_text_streams_as_text_and_becomes_markdown_when_it_is_whole(view_page: ViewPage) -> None:
    view_page.open()
    view_page.feed(text("Hello **wo"))
    view_page.until(lambda: view_page.items() == ["Hello **wo"], "the first piece")
    view_page.feed(text("rld**"))
    view_page.until(lambda: view_page.items() == ["Hello **world**"], "the second piece")
    view_page.feed(text("Hello **world**", whole=True))
    view_page.until(lambda: view_page.root().locator("strong").count() == 1, "Markdown")
    assert view_page.items() == ["Hello world\n"]


def test_tools_and_thinking_are_folded_and_open_by_click_and_by_key(view_page: ViewPage) -> None:
    view_page.open()
    view_page.feed(
        ThinkingWritten(block="a:0", text="Hmm, hmm.", whole=True), ToolCalled(tool_id="t", name="Bash", input='{"command": "ls -l"}')
    )
    view_page.settle()
    thinking, tool = view_page.root().locator("details").all()
    assert "Hmm" not in view_page.text()
    thinking.locator("summary").click()
    expect(thinking).to_contain_text("Hmm, hmm.")
    expect(tool).to_have_text("Bashls -l")
    expect(tool.get_by_role("img")).to_have_accessible_name("running")
    tool.locator("summary").focus()
    view_page.page.keyboard.press("Enter")
    expect(tool.get_by_label("Input")).to_have_text("ls -l")
    view_page.feed(ToolReturned(tool_id="t", text="total 0"))
    view_page.until(lambda: tool.get_by_label("Result").inner_text() == "total 0", "the result")
    expect(tool.get_by_role("img")).to_have_accessible_name("done")
    assert tool.get_attribute("open") is not None, "it stays open"


def test_every_kind_of_item_is_in_order(view_page: ViewPage) -> None:
    view_page.open()
    view_page.feed(
        text("One", "a:0", whole=True), StderrWritten(text="two\n"), ApiRetried(attempt=3, max_attempts=10, delay=4, status=429),
        ToolCalled(tool_id="t", name="Read", input='{"file_path": "/a"}'), output("five\n"),
    )  # fmt: skip
    view_page.settle()
    assert view_page.items() == ["One\n", "two\n", "The API answered 429 Too Many Requests; attempt 3 of 10 in 4.0 s", "Read/a", "five\n"]


def test_a_text_that_is_void_disappears(view_page: ViewPage) -> None:
    view_page.open()
    view_page.feed(text("Half an ans", "a:0"))
    view_page.settle()
    view_page.feed(MessageStarted(message_id="b"), text("Whole", "b:0", whole=True))
    view_page.until(lambda: view_page.items() == ["Whole\n"], "the new text alone")


def test_a_recorded_run_is_shown(view_page: ViewPage) -> None:
    view_page.open()
    recorded = Recording("02e-allowedTools").stdout
    decoder = ClaudeDecoder()
    for at in range(0, len(recorded), 1000):
        view_page.feed(*decoder.feed(recorded[at : at + 1000]))
        view_page.turn()
    view_page.feed(*decoder.close())
    view_page.settle()
    held = view_page.transcript.items
    assert len(view_page.items()) == len(held) > 5
    assert view_page.root().locator("details").count() == sum(item.kind in {"tool", "thinking"} for item in held)
    assert view_page.errors == []


# --- the status line --------------------------------------------------------------------------------------------------


def test_the_status_line_says_what_is_going_on(view_page: ViewPage) -> None:
    view_page.open()
    assert view_page.status() == "Connecting…"
    view_page.show("starting", is_ticking=True)  # a command that writes nothing stays so
    view_page.until(lambda: view_page.status() == "Starting", "the kernel has spoken")
    expect(view_page.button("Pause")).to_be_enabled()
    view_page.show(
        "tool", elapsed=3725.0, tool="Bash(pytest -q)", model="claude-opus-4-8", input_tokens=14_204, output_tokens=532, cost=0.0421
    )
    view_page.until(lambda: view_page.status() == "Running", "the phase")
    bar = view_page.root().locator(".ccx-bar")
    for words in ("1:02:05", "Bash(pytest -q)", "14.2k in / 532 out", "$0.0421", "claude-opus-4-8"):
        expect(bar).to_contain_text(words)
    view_page.show("retrying", elapsed=3726.0, detail="the API answered 529; attempt 2 of 10 in 4 s")
    view_page.until(lambda: view_page.status() == "Retrying", "the phase")
    expect(bar).to_contain_text("attempt 2 of 10")


def test_the_clock_ticks_in_the_browser_and_stands_still_while_paused(view_page: ViewPage) -> None:
    view_page.hold_clock()
    view_page.open()
    clock = view_page.root().get_by_role("timer")
    view_page.show("writing", elapsed=58.1, is_ticking=True)
    view_page.until(lambda: view_page.status() == "Writing", "the start")
    count = len(view_page.frames)
    assert clock.inner_text() == "0:58"
    view_page.page.clock.run_for(2000)  # no message comes meanwhile
    assert clock.inner_text() == "1:00"
    assert len(view_page.frames) == count
    view_page.show("paused", elapsed=61.0)
    view_page.until(lambda: view_page.status() == "Paused", "the pause")
    view_page.page.clock.run_for(1500)
    assert clock.inner_text() == "1:01"


def test_a_rehearsal_is_marked(view_page: ViewPage) -> None:
    view_page.open()
    view_page.show("writing", rehearsal=True)
    note = view_page.root().get_by_text("Rehearsal: scripted model")
    view_page.until(note.is_visible, "the mark")
    expect(view_page.root().locator(".ccx-bar")).to_contain_text("nothing spent")


# --- the buttons ------------------------------------------------------------------------------------------------------


def test_pause_and_resume_show_what_they_did(view_page: ViewPage) -> None:
    view_page.hold_clock()
    view_page.open()
    view_page.show("writing", elapsed=1.0, is_ticking=True)
    view_page.until(lambda: view_page.status() == "Writing", "a start")
    view_page.button("Pause").click()
    expect(view_page.button("Pausing…")).to_be_disabled()
    view_page.button("Pausing…").click(force=True)
    view_page.until(lambda: view_page.commands == ["pause"], "the command")
    assert view_page.status() == "Pausing…"
    view_page.show("paused", elapsed=1.0)
    view_page.until(lambda: view_page.status() == "Paused", "the answer")
    view_page.button("Resume").click()
    expect(view_page.button("Resuming…")).to_be_disabled()
    view_page.until(lambda: view_page.commands == ["pause", "resume"], "the command")
    view_page.show("writing", elapsed=1.0, is_ticking=True)
    view_page.until(lambda: view_page.status() == "Writing", "the answer")
    expect(view_page.button("Pause")).to_be_enabled()


def test_a_second_click_on_cancel_kills_but_a_double_click_does_not(view_page: ViewPage) -> None:
    view_page.hold_clock()
    view_page.open()
    view_page.show("writing", elapsed=1.0)
    view_page.until(lambda: view_page.status() == "Writing", "a start")
    view_page.button("Cancel").dblclick()
    view_page.until(lambda: view_page.commands, "the command")
    assert view_page.status() == "Cancelling…"
    expect(view_page.button("Pause")).to_be_disabled()
    view_page.show("stopping", elapsed=1.0)
    view_page.until(lambda: view_page.button("Kill now").count(), "the second rung")
    assert view_page.commands == ["cancel"]
    view_page.button("Kill now").click()
    expect(view_page.button("Killing…")).to_be_disabled()
    view_page.until(lambda: view_page.commands == ["cancel", "kill"], "the command")
    view_page.view.finish(ended("cancelled"))
    view_page.until(lambda: view_page.status() == "cancelled", "the end")
    assert view_page.root().get_by_role("group").get_by_role("button").count() == 0


def test_buttons_work_by_keyboard_and_escape_does_nothing(view_page: ViewPage) -> None:
    view_page.open()
    view_page.show("writing", elapsed=1.0)
    view_page.until(lambda: view_page.status() == "Writing", "a start")
    keyboard = view_page.page.keyboard
    keyboard.press("Tab")
    expect(view_page.button("Pause")).to_be_focused()
    keyboard.press("Escape")
    keyboard.press("Space")
    view_page.until(lambda: view_page.commands == ["pause"], "the command")
    view_page.show("paused", elapsed=1.0)
    view_page.until(lambda: view_page.status() == "Paused", "the answer")
    expect(view_page.button("Resume")).to_be_focused()  # the focus stays where it was
    keyboard.press("Enter")
    view_page.until(lambda: view_page.commands == ["pause", "resume"], "the command")
    keyboard.press("Tab")
    expect(view_page.button("Cancel")).to_be_focused()
    keyboard.press("Escape")
    keyboard.press("Tab")
    expect(view_page.root().get_by_role("log")).to_be_focused()
    keyboard.press("Escape")
    view_page.settle()
    assert view_page.commands == ["pause", "resume"]
    outline = view_page.root().get_by_role("log").evaluate("n => getComputedStyle(n).outlineStyle")
    assert outline == "solid", "the focus is seen"


def test_a_refused_command_is_said(view_page: ViewPage) -> None:
    def refuse(command: str) -> None:
        raise ControlFailed(f"The run has ended; it cannot {command}.")

    view_page.on_command = refuse
    view_page.hold_clock()
    view_page.open()
    view_page.show("writing", elapsed=1.0)
    view_page.until(lambda: view_page.status() == "Writing", "a start")
    view_page.button("Pause").click()
    view_page.until(lambda: view_page.root().get_by_role("alert").is_visible(), "the refusal")
    expect(view_page.root().get_by_role("alert")).to_have_text("The run has ended; it cannot pause.")
    expect(view_page.button("Pause")).to_be_enabled()


def test_a_kernel_that_does_not_answer_is_said(view_page: ViewPage) -> None:
    view_page.open()
    view_page.show("writing", elapsed=1.0)
    view_page.until(lambda: view_page.status() == "Writing", "a start")
    view_page.button("Cancel").click()
    expect(view_page.root().get_by_role("alert")).to_contain_text("does not answer")
    expect(view_page.button("Kill now")).to_be_enabled()


# --- the protocol -----------------------------------------------------------------------------------------------------


def test_a_lost_frame_is_noticed_and_everything_is_asked_for_again(view_page: ViewPage) -> None:
    view_page.hold_clock()
    view_page.open()
    view_page.feed(text("one", "a:0", whole=True))
    view_page.settle()
    syncs = len(view_page.said("sync"))
    lost: list[Any] = []

    def lose(message: dict[str, Any]) -> bool:
        if lost or "content" not in message:
            return False
        lost.append(message)
        return True

    view_page.lose = lose
    view_page.feed(text("two", "a:1", whole=True))
    view_page.until(lambda: lost, "a frame on its way")
    view_page.feed(text("three", "a:2", whole=True))
    view_page.until(lambda: view_page.items() == ["one\n", "two\n", "three\n"], "all of it")
    assert len(view_page.said("sync")) == syncs + 1


def test_a_lost_last_frame_is_noticed_by_the_state(view_page: ViewPage) -> None:
    view_page.open()
    view_page.feed(text("one", "a:0", whole=True))
    view_page.settle()
    view_page.lose = lambda message: "content" in message
    view_page.feed(text("two", "a:1", whole=True))
    view_page.view.finish(ended("done"))
    view_page.turn()
    assert view_page.items() == ["one\n"]
    view_page.lose = lambda _: False
    view_page.until(lambda: view_page.items() == ["one\n", "two\n"], "the rest")


def test_a_lost_answer_to_a_sync_is_asked_for_again(view_page: ViewPage) -> None:
    view_page.feed(text("one", "a:0", whole=True))
    lost: list[Any] = []
    view_page.lose = lambda message: "reset" in message.get("content", {}) and len(lost) < 2 and not lost.append(message)
    view_page.open()
    view_page.until(lambda: view_page.items() == ["one\n"], "the text")
    assert len(lost) == 2


def test_a_view_that_nobody_answers_gives_up(view_page: ViewPage) -> None:
    view_page.page.clock.install()
    view_page.open()
    for _ in range(60):
        view_page.page.clock.run_for(1000)
    syncs = [message for message in view_page.inbox if message["content"]["op"] == "sync"]
    assert len(syncs) == 4
    assert view_page.errors == []


def test_a_page_reload_and_a_second_tab_get_everything(view_page: ViewPage) -> None:
    view_page.open()
    view_page.feed(*(text(f"text {n}", f"a:{n}", whole=True) for n in range(50)), text("grow", "b:0"))
    view_page.show("writing", elapsed=5.0)
    view_page.settle()
    view_page.reload()
    for view in range(3):
        view_page.open()
        view_page.until(lambda view=view: len(view_page.items(view)) == 51, "all items")
    view_page.feed(text("ing", "b:0"))
    view_page.until(lambda: all(view_page.items(view)[-1] == "growing" for view in range(3)), "the next piece in each")
    assert {view_page.status(view) for view in range(3)} == {"Writing"}
    view_page.button("Pause", 2).click()
    view_page.until(lambda: view_page.commands == ["pause"], "a command from the last")


def test_a_view_that_is_closed_is_silent(view_page: ViewPage) -> None:
    view_page.open()
    view_page.open()
    view_page.settle()
    view_page.page.evaluate("views[0].close()")
    view_page.feed(text("later", whole=True))
    view_page.until(lambda: view_page.items(1) == ["later\n"], "the other view")
    assert view_page.items(0) == []
    assert view_page.errors == []


def test_a_new_page_shows_the_last_state_before_anybody_answers(view_page: ViewPage) -> None:
    view_page.show("paused", elapsed=83.0)
    view_page.open()
    assert view_page.status() == "Paused"
    assert view_page.root().get_by_role("timer").inner_text() == "1:23"


def test_the_notebook_is_saved_once(view_page: ViewPage) -> None:
    view_page.show("writing", elapsed=1.0)
    view_page.open()
    view_page.until(lambda: view_page.view.save_on_start is False, "the flag is down in the kernel")
    view_page.open()
    view_page.settle()
    assert view_page.page.evaluate("views.map((view) => view.model.saves)") == [1, 0]


def test_no_two_views_save_at_once_nor_while_somebody_else_does(view_page: ViewPage) -> None:
    """JupyterLab would say that the file has changed on disk."""
    view_page.open()
    view_page.open()
    view_page.open()
    view_page.page.evaluate("""() => {
      window.log = [];
      const slots = [];
      const tell = (state) => slots.forEach((slot) => slot(null, state));
      const context = {
        saveState: { connect: (slot) => slots.push(slot) },
        save: async () => { log.push("begun"); tell("started"); await new Promise((done) => (window.release = done)); log.push("done"); tell("completed"); },
      };
      for (const { model } of views) { model.state.save_on_start = true; model.widget_manager = { context }; }
      window.saves = context;
      window.save = context.save;
    }""")
    view_page.feed(text("one", whole=True))
    view_page.settle()
    assert view_page.page.evaluate("log") == ["begun"]
    view_page.page.evaluate("void (views[1].model.state.save_on_start = true)")
    view_page.feed(text("two", whole=True))
    view_page.settle()
    assert view_page.page.evaluate("log") == ["begun"]
    view_page.page.evaluate("release()")
    view_page.happens(lambda: view_page.page.evaluate("log.length") == 3, "the next save")
    assert view_page.page.evaluate("log") == ["begun", "done", "begun"]
    view_page.page.evaluate("release()")
    view_page.happens(lambda: view_page.page.evaluate("log.length") == 4, "its end")
    view_page.page.evaluate("() => { saves.save(); views[0].model.state.save_on_start = true; }")
    view_page.feed(text("three", whole=True))
    view_page.settle()
    assert view_page.page.evaluate("log.length") == 5
    view_page.page.evaluate("release()")
    view_page.happens(lambda: view_page.page.evaluate("log.length") == 7, "the view's save")
    assert view_page.page.evaluate("log") == ["begun", "done"] * 3 + ["begun"]
    view_page.page.evaluate("void saves.save()")  # Ctrl+S
    view_page.settle()
    assert view_page.page.evaluate("log.length") == 7
    view_page.page.evaluate("release()")
    view_page.happens(lambda: view_page.page.evaluate("log.length") == 9, "the person's save")
    assert view_page.page.evaluate("log") == ["begun", "done"] * 4 + ["begun"]
    assert view_page.page.evaluate("saves.save === window.save"), "it is as it was"


@pytest.mark.parametrize("how", ["off", "elsewhere", "failing", "shared", "forbidden", "ended"])
def test_nothing_is_saved_where_it_cannot_or_should_not_be(view_page: ViewPage, how: str) -> None:
    if how == "off":
        view_page.make_view(save_on_start=False)
    view_page.open()
    script = {
        "elsewhere": "delete views[0].model.widget_manager",
        "failing": "views[0].model.widget_manager.context.save = async () => { throw new Error('no') }",
        "shared": "views[0].model.widget_manager.context.model = { collaborative: true }",
        "forbidden": "views[0].model.widget_manager.context.contentsModel = { writable: false }",
    }
    view_page.page.evaluate(f"void ({script.get(how, 0)})")
    if how == "ended":
        view_page.view.finish(ended("done"))
    view_page.feed(text("one", whole=True))
    view_page.until(lambda: view_page.items() == ["one\n"], "the text")
    assert view_page.page.evaluate("views[0].model.saves") == 0
    assert view_page.errors == []


# --- a flood ----------------------------------------------------------------------------------------------------------


def test_a_flood_of_100000_lines_stays_bounded(view_page: ViewPage) -> None:
    view_page.open()
    view_page.settle()
    start = time.monotonic()

    def flood() -> None:
        for at in range(0, 100_000, 500):
            view_page.feed(output(lines(at, at + 500)))
            view_page.turn()
        view_page.settle()

    view_page.smooth(flood, below=2000)  # a tenth of that, mostly
    seconds = time.monotonic() - start
    assert len(view_page.frames) <= 25 * seconds + 5
    assert view_page.page.evaluate("document.querySelectorAll('.ccx *').length") < 200
    shown = view_page.text()
    assert shown.endswith("line 099999\n")
    assert 4800 <= shown.count("\n") <= 5200
    assert at_end(view_page)
    expect(view_page.root().locator(".ccx-pager")).to_contain_text("lines in the journal")


def test_many_small_items_stay_bounded(view_page: ViewPage) -> None:
    view_page.open()
    for turn in range(40):
        for n in range(100):
            tool_id = f"{turn}-{n}"
            view_page.feed(
                ToolCalled(tool_id=tool_id, name="Bash", input='{"command": "ls"}'), ToolReturned(tool_id=tool_id, text="out\n" * 5)
            )
        view_page.turn()
    view_page.settle()
    assert view_page.root().locator(".ccx-item").count() <= 1001
    assert view_page.page.evaluate("document.querySelectorAll('.ccx *').length") < 10_000


def test_a_view_that_does_not_paint_gets_one_frame_a_second(view_page: ViewPage) -> None:
    view_page.open()
    view_page.settle()
    view_page.page.evaluate("window.requestAnimationFrame = () => 1")  # what a hidden tab is
    start = time.monotonic()

    def write(until: Callable[[], bool]) -> None:
        while not until():
            assert time.monotonic() < start + WAIT
            view_page.feed(output("x\n"))
            view_page.turn()

    before = len(view_page.frames)
    write(lambda: not view_page.view.feed.is_watched)
    count = len(view_page.frames)
    assert count - before <= 18, "three of them ask, five a second, and nobody answers"
    write(lambda: len(view_page.frames) == count + 3)
    late = [at for at, _ in view_page.frames[count:]]
    assert min(later - at for at, later in pairwise(late)) > 0.5, "one that paints gets twenty a second"
    assert not view_page.view.feed.is_watched


def test_acknowledgements_are_at_most_five_a_second(view_page: ViewPage) -> None:
    view_page.open()
    view_page.settle()
    count, start = len(view_page.said("ack")), time.monotonic()
    while time.monotonic() < start + 3 or len(view_page.said("ack")) < count + 3:
        assert time.monotonic() < start + WAIT
        view_page.feed(output("x\n"))
        view_page.turn()
    assert len(view_page.said("ack")) - count <= 5 * (time.monotonic() - start) + 2
    view_page.until(lambda: view_page.view.feed.is_watched, "the newest acknowledgement")


# --- scrolling and paging ---------------------------------------------------------------------------------------------


def test_the_view_follows_until_somebody_scrolls_up(view_page: ViewPage) -> None:
    view_page.open()
    view_page.feed(output(lines(0, 300)))
    view_page.settle()
    assert at_end(view_page)
    log = view_page.root().get_by_role("log")
    jump = view_page.button("Jump to latest ↓")
    expect(jump).to_be_hidden()
    log.hover()
    wheel_up(view_page)
    expect(jump).to_be_visible()
    top = resting(view_page)
    view_page.feed(output(lines(300, 400)))
    view_page.settle()
    assert log_state(view_page)["top"] == top
    jump.click()
    view_page.until(lambda: at_end(view_page), "the end")
    expect(jump).to_be_hidden()
    view_page.feed(output(lines(400, 500)))
    view_page.settle()
    assert at_end(view_page)
    log.focus()
    view_page.page.keyboard.press("Home")
    expect(jump).to_be_visible()
    view_page.page.keyboard.press("End")
    expect(jump).to_be_hidden()
    view_page.page.keyboard.press("Home")
    expect(jump).to_be_visible()
    resting(view_page)
    jump.focus()
    log.evaluate("n => { n.scrollTop = n.scrollHeight; }")  # as a wheel does, with the keyboard on the button
    expect(jump).to_be_hidden()
    expect(log).to_be_focused()


def test_who_scrolls_up_while_the_view_changes_its_height_stays_there(view_page: ViewPage) -> None:
    view_page.open()
    view_page.feed(output(lines(0, 300)))
    view_page.settle()
    log = view_page.root().get_by_role("log")
    log.evaluate("n => { n.style.height = `${n.clientHeight - 20}px`; n.scrollTop = n.scrollHeight / 2; }")
    expect(view_page.button("Jump to latest ↓")).to_be_visible()
    top = resting(view_page)
    view_page.feed(output(lines(300, 400)))
    view_page.settle()
    assert log_state(view_page)["top"] == top


def test_a_view_in_a_tab_that_was_hidden_is_at_the_end_again(view_page: ViewPage) -> None:
    view_page.open()
    view_page.feed(output(lines(0, 300)))
    view_page.settle()
    view_page.page.evaluate("views[0].el.style.display = 'none'")
    view_page.feed(output(lines(300, 600)))
    view_page.settle()
    view_page.page.evaluate("views[0].el.style.display = ''")
    view_page.until(lambda: at_end(view_page), "the end")
    expect(view_page.button("Jump to latest ↓")).to_be_hidden()
    assert view_page.text().endswith("line 000599\n")


def test_what_somebody_reads_does_not_move_while_older_lines_go(view_page: ViewPage) -> None:
    view_page.open()
    view_page.feed(output(lines(0, 5000)))
    view_page.settle()
    log = view_page.root().get_by_role("log")
    log.evaluate("n => { n.scrollTop = n.scrollHeight / 2; }")
    view_page.painted()
    where = """n => {
      const box = n.getBoundingClientRect();
      const range = document.caretRangeFromPoint(box.left + 40, box.top + 100);
      return range.startContainer.textContent.slice(range.startOffset - range.startOffset % 12).slice(0, 11);
    }"""
    before = log.evaluate(where)
    assert before.startswith("line 00")
    view_page.feed(output(lines(5000, 9000)))
    view_page.settle()
    assert log.evaluate(where) == before


def paged(view_page: ViewPage, count: int) -> list[Event]:
    events: list[Event] = [output(lines(at, at + 100)) for at in range(0, count, 100)]
    view_page.make_view(read_page=reader(events, view_page.transcript))
    view_page.open()
    view_page.feed(*events)
    view_page.settle()
    return events


def test_older_lines_come_page_by_page(view_page: ViewPage) -> None:
    paged(view_page, 8000)
    log = view_page.root().get_by_role("log")
    pager = view_page.root().locator(".ccx-pager")
    expect(pager).to_contain_text("3,000 more lines in the journal")
    log.evaluate("n => { n.scrollTop = 0; }")
    for left in ("2,000 more lines", "1,000 more lines"):
        view_page.button("Show earlier").click()
        view_page.until(lambda left=left: left in pager.inner_text(), left)
        assert log_state(view_page)["top"] > 0, "what was read stays where it was"
    view_page.button("Show earlier").click()
    view_page.until(pager.is_hidden, "the beginning")
    assert view_page.text() == lines(0, 8000)
    view_page.button("Jump to latest ↓").click()
    view_page.until(lambda: "3,000 more lines" in pager.inner_text(), "older pages are let go")
    assert view_page.text() == lines(3000, 8000)


def test_older_pages_join_on_to_a_run_that_goes_on(view_page: ViewPage) -> None:
    events = paged(view_page, 8000)
    view_page.root().get_by_role("log").evaluate("n => { n.scrollTop = 0; }")
    view_page.button("Show earlier").click()
    view_page.until(lambda: view_page.text().startswith("line 002000"), "the page")
    for at in range(8000, 10_000, 100):
        events.append(output(lines(at, at + 100)))
        view_page.feed(events[-1])
        view_page.turn()
    view_page.settle()
    assert view_page.text() == lines(2000, 10_000)


def test_a_page_that_comes_after_everything_was_sent_anew_leaves_no_gap(view_page: ViewPage) -> None:
    events: list[Event] = [output(lines(at, at + 100)) for at in range(0, 8000, 100)]
    read, asked = reader(events, view_page.transcript), list[tuple[int, Callable[[Page], None]]]()
    view_page.make_view(read_page=lambda before, done: asked.append((before, done)))
    view_page.open()
    view_page.feed(*events)
    view_page.settle()
    view_page.root().get_by_role("log").evaluate("n => { n.scrollTop = 0; }")
    view_page.button("Show earlier").click()
    view_page.until(lambda: asked, "the question")
    view_page.lose = lambda message: "content" in message  # a flood of the cell's own, say
    for at in range(8000, 14_000, 1000):
        events.append(output(lines(at, at + 1000)))
        view_page.feed(events[-1])
        view_page.turn()
    view_page.lose = lambda _: False
    view_page.until(lambda: view_page.text() == lines(9000, 14_000), "what is newest")
    for question in asked:  # the journal is long
        read(*question)
    view_page.settle()
    shown = view_page.text()
    assert shown == lines(int(shown[5:11]), 14_000), "without a gap"
    view_page.button("Show earlier").click()
    view_page.until(lambda: len(asked) == 2, "it can be asked for again")


def test_pages_are_bounded_too(view_page: ViewPage) -> None:
    events = paged(view_page, 6000)
    view_page.root().get_by_role("log").evaluate("n => { n.scrollTop = 100; }")
    view_page.painted()
    for at in range(6000, 30_000, 1000):
        events.append(output(lines(at, at + 1000)))
        view_page.feed(events[-1])
        view_page.turn()
    view_page.settle()
    shown = view_page.text()
    assert shown.count("\n") <= 10_000 + 5000 + 200
    assert shown == lines(int(shown[5:11]), 30_000), "without a gap"


def test_paging_works_by_keyboard(view_page: ViewPage) -> None:
    paged(view_page, 6000)
    view_page.button("Show earlier").focus()
    view_page.page.keyboard.press("Enter")
    view_page.until(lambda: view_page.text() == lines(0, 6000), "everything")


# --- who does not see -------------------------------------------------------------------------------------------------


def test_roles_and_labels(view_page: ViewPage) -> None:
    view_page.make_view(title="Agent run abc")
    view_page.open()
    view_page.show("writing", elapsed=1.0)
    view_page.feed(text("Hello", whole=True))
    view_page.settle()
    page = view_page.page
    expect(page.get_by_role("region", name="Agent run abc")).to_be_visible()
    expect(page.get_by_role("log", name="Output of the run")).to_have_attribute("aria-live", "off")
    expect(page.get_by_role("status")).to_have_text("Writing")
    expect(page.get_by_role("group", name="Control the run").get_by_role("button")).to_have_count(2)


def test_a_screen_reader_is_told_the_newest_at_its_own_pace(view_page: ViewPage) -> None:
    view_page.open()
    changes = "(() => { window.heard = []; new MutationObserver(() => heard.push(document.querySelector('[aria-live=polite]').textContent))"
    view_page.page.evaluate(
        f"{changes}.observe(document.querySelector('[aria-live=polite]'), {{ childList: true, characterData: true, subtree: true }}); }})()"
    )
    start = time.monotonic()
    for n in range(100):
        view_page.feed(text(f"Message {n}", f"a:{n}", whole=True))
        view_page.turn()
    view_page.until(lambda: "Message 99" in view_page.page.evaluate("heard"), "an announcement")
    assert len(view_page.page.evaluate("heard")) <= 1 + (time.monotonic() - start) / 4, "one in four seconds"


# --- attacks ----------------------------------------------------------------------------------------------------------


BAD = """() => [...document.querySelectorAll(".ccx *, #static *")].filter((node) =>
  /^(script|img|iframe|object|embed|style|link|meta|base|form|input|video|svg|math|template)$/i.test(node.tagName)
  || [...node.attributes].some(({ name }) => /^on|^srcdoc$|^formaction$|commandlinker/.test(name))
  || (node.href && !/^(https?|mailto):/.test(node.href))
).map((node) => node.outerHTML)"""

# As JupyterLab puts a trusted text/html output into the page: scripts in it are run.
PUT = """(html) => {
  window.__pwned = undefined;
  const box = document.createElement("div");
  box.id = "static";
  document.body.append(box);
  box.append(document.createRange().createContextualFragment(html));
}"""


def assert_harmless(view_page: ViewPage, payload: str) -> None:
    page = view_page.page
    page.mouse.move(300, 200)
    page.evaluate("document.querySelectorAll('details').forEach((node) => { node.open = true; })")
    view_page.painted()
    page.evaluate("() => new Promise((done) => setTimeout(done, 30))")
    assert page.evaluate("window.__pwned") is None, payload
    assert view_page.requests == [], payload
    assert view_page.errors == [], payload
    assert page.evaluate(BAD) == [], payload


@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_that_an_agent_writes_acts_in_the_browser(view_page: ViewPage, payload: str) -> None:
    view_page.open()
    view_page.show("tool", elapsed=1.0, tool=payload, model=payload, detail=payload, estimate=payload)
    view_page.feed(text(payload, "a:0"))
    view_page.settle()
    assert_harmless(view_page, payload)
    view_page.feed(
        text(payload, "a:0", whole=True),
        ThinkingWritten(block="a:1", text=payload, whole=True),
        ToolCalled(tool_id="t", name=payload, input=json.dumps({payload: payload})),
        ToolReturned(tool_id="t", text=payload),
        ToolCalled(tool_id="u", name="Bash", input=json.dumps({"command": payload})),
        ToolReturned(tool_id="u", text=payload, is_error=True),
        StderrWritten(text=payload),
        ApiRetried(attempt=1, max_attempts=2, delay=1, error=payload),
        output(payload),
    )
    view_page.settle()
    assert_harmless(view_page, payload)
    static, _ = static_bundle(receipt(text=payload, model=payload), view_page.transcript)
    view_page.page.evaluate(PUT, static["text/html"])
    assert_harmless(view_page, payload)


def test_the_attacks_are_real(view_page: ViewPage) -> None:
    """Without cleaning, most of them act; so the test above tests something."""
    view_page.open()
    acted = 0
    for payload in PAYLOADS:
        if "http-equiv" in payload:
            continue  # it acts so well that the page is gone
        view_page.page.evaluate(PUT, payload)
        view_page.page.evaluate("() => new Promise((done) => setTimeout(done, 30))")
        acted += bool(view_page.page.evaluate("window.__pwned")) or any(HOST in url for url in view_page.requests)
        view_page.requests.clear()
    assert acted >= 8


# --- looks ------------------------------------------------------------------------------------------------------------


CONTRASTS = """(ground) => {
  const rgba = (text) => { const c = text.match(/[\\d.]+/g).map(Number); return c.length === 4 ? c : [...c, 1]; };
  const over = (top, below) => below.map((value, i) => top[i] * top[3] + value * (1 - top[3]));
  const channel = (v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = (c) => { const [r, g, b] = c.map((v) => channel(v / 255)); return .2126 * r + .7152 * g + .0722 * b; };
  const result = { ground: getComputedStyle(document.querySelector(".ccx")).backgroundColor };
  for (const name of ["phase", "figures", "doing", "name", "about", "mark", "text p", "text code", "text a", "notice", "stderr", "toggle"]) {
    const ink = rgba(getComputedStyle(document.querySelector(`.ccx-${name}`)).color);
    const [a, b] = [light(over(ink, ground)), light(ground)];
    result[name] = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  }
  return result;
}"""
# The words of the card, and their contrast where it is too low; a single sign is a drawing, for which 3 is enough.
CARD_CONTRASTS = """(root, page) => {
  const rgba = (text) => { const c = text.match(/[\\d.]+/g).map(Number); return c.length === 4 ? c : [...c, 1]; };
  const over = (top, below) => below.map((value, i) => top[i] * top[3] + value * (1 - top[3]));
  const channel = (v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = (c) => { const [r, g, b] = c.map((v) => channel(v / 255)); return .2126 * r + .7152 * g + .0722 * b; };
  const low = {};
  for (const node of root.querySelectorAll("*")) {
    const words = [...node.childNodes].filter((each) => each.nodeType === 3).map((each) => each.data.trim()).join("");
    if (!words) continue;
    const up = [];
    for (let each = node; each !== root; each = each.parentElement) up.unshift(getComputedStyle(each));
    const below = up.reduce((ground, style) => over(rgba(style.backgroundColor), ground), page);
    const seen = up.reduce((share, style) => share * style.opacity, 1);
    const [r, g, b, a] = rgba(getComputedStyle(node).color);
    const [one, other] = [light(over([r, g, b, a * seen], below)), light(below)];
    const contrast = (Math.max(one, other) + .05) / (Math.min(one, other) + .05);
    if (contrast < (words.length > 1 ? 4.5 : 3)) low[words] = contrast;
  }
  return low;
}"""
CANCELLED = Outcome(kind=OutcomeKind.CANCELLED, summary="Somebody cancelled it.", evidence=("SIGINT",), cure="Run it again.")
CHECKS = (Check(what="tests pass", passed=True), Check(what="file a.py", passed=False), Check(what="other", passed=None))
THEMES = [
    ("light", "", (255, 255, 255)),
    ("dark", "", (22, 24, 28)),
    ("dark", LAB_LIGHT, (255, 255, 255)),
    ("light", LAB_DARK, (17, 17, 17)),
]


@pytest.mark.parametrize("theme", THEMES)
def test_text_is_readable_in_every_theme(
    browser: Browser, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, theme: tuple[Any, str, tuple[int, ...]]
) -> None:
    scheme, variables, ground = theme
    with ViewPage(browser, monkeypatch, scheme=scheme) as view_page:
        view_page.open()
        view_page.page.add_style_tag(content=f"body {{ {variables} }}")
        if variables:
            view_page.page.evaluate("(dark) => { document.body.dataset.jpThemeLight = dark ? 'false' : 'true'; }", variables == LAB_DARK)
        view_page.show("tool", elapsed=12.0, tool="Bash(ls)", model="claude-opus-4-8", cost=0.1)
        view_page.feed(
            text("Some `code` and a [link](https://example.org).", "a:0", whole=True),
            ToolCalled(tool_id="t", name="Bash", input='{"command": "ls"}'), ToolReturned(tool_id="t", text="x", is_error=True),
            ApiRetried(attempt=1, max_attempts=2, delay=1, status=529), StderrWritten(text="err\n"),
        )  # fmt: skip
        view_page.settle()
        contrasts = view_page.page.evaluate(CONTRASTS, list(ground))
        assert contrasts.pop("ground") == f"rgb{ground}"
        assert {
            name: round(value, 1) for name, value in contrasts.items() if value < 4.4
        } == {}  # WCAG 2.2 AA is 4.5; Lab's own secondary ink is 4.4
        told = receipt(outcome=CANCELLED, rehearsed="tour", checks=CHECKS, text="Some `code` and a [link](https://example.org).")
        view_page.page.evaluate(PUT, static_bundle(told, view_page.transcript)[0]["text/html"])
        view_page.page.evaluate(f"document.body.style.color = '{'#fff' if ground[0] < 128 else 'rgba(0,0,0,.87)'}'")
        low = view_page.page.locator("#static").evaluate(CARD_CONTRASTS, list(ground))
        assert low == {}, "words of the card that are hard to read"
        view_page.page.screenshot(path=tmp_path / "view.png")
        assert (tmp_path / "view.png").stat().st_size > 5000


@pytest.mark.parametrize("width", [1000, 880, 700, 620, 360, 226])
def test_the_parts_of_the_status_line_stand_beside_each_other(view_page: ViewPage, width: int) -> None:
    view_page.page.set_viewport_size({"width": width, "height": 640})
    view_page.open()
    sentence = "cancelled: The run was ended because the process that had started it was gone."
    for phase, detail in (("writing", ""), ("tool", ""), ("asking", ""), ("requesting", "the API is slow"), ("ended", sentence)):
        word = {"writing": "Writing", "tool": "Running", "asking": "Needs you", "requesting": "Waiting for the model"}.get(phase, detail)
        view_page.show(
            phase,
            elapsed=3725.0,
            detail=detail,
            estimate="4 min 12 s–2 h 42 min (n=13)",
            tool="Bash(pytest -q)",
            model="claude-opus-4-8",
            input_tokens=14_204,
            output_tokens=532,
            cost=0.1,
        )
        view_page.until(lambda word=word: view_page.status() == word, "the phase")
        boxes = [
            view_page.root().locator(f".ccx-bar .{part}").bounding_box()
            for part in ("ccx-phase", "ccx-clock", "ccx-figures", "ccx-buttons")
        ]
        shown = [box for box in boxes if box is not None and box["width"]]
        assert len(shown) >= 3
        assert phase == "ended" or width < 360 or boxes[0] is None or boxes[0]["height"] < 30, "what it does stands in one line"
        assert view_page.root().locator(".ccx-bar").evaluate("bar => bar.scrollWidth <= bar.clientWidth"), "nothing is cut off"
        for one, other in itertools.combinations(shown, 2):
            apart = one["x"] + one["width"] <= other["x"] + 0.5 or other["x"] + other["width"] <= one["x"] + 0.5
            assert apart or one["y"] + one["height"] <= other["y"] + 0.5 or other["y"] + other["height"] <= one["y"] + 0.5, (one, other)


def test_the_view_fits_a_narrow_page(view_page: ViewPage) -> None:
    view_page.page.set_viewport_size({"width": 360, "height": 640})
    view_page.open()
    view_page.show("tool", elapsed=12.0, tool="Bash " + "x" * 300, model="claude-opus-4-8", cost=0.1, input_tokens=10, output_tokens=3)
    view_page.feed(output("y" * 500 + "\n"), text("|a|b|\n|-|-|\n|" + "z" * 300 + "|w|", whole=True))
    view_page.settle()
    assert view_page.page.evaluate("document.documentElement.scrollWidth") <= 360
    expect(view_page.button("Cancel")).to_be_in_viewport()
