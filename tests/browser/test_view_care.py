"""A view in the moment when something changes under a hand, an ear or a keyboard; what a removed one leaves behind; and where there is little room."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Locator, Route, expect

from browser.test_view import at_end, ended, lines, log_state, output, paged, text
from browser.view_page import GUARD, ViewPage
from cc_executor.model.ask import Body, ShownAsk
from cc_executor.model.event import Option, Question, ToolCalled, ToolReturned

SERVER = '<script id="jupyter-config-data" type="application/json">{"baseUrl": "/", "ccExecutor": true}</script>'
# Every timer, frame and listener of the page that is not taken back.
COUNTED = """() => {
  const held = (window.held = { timeouts: new Set(), intervals: new Set(), listeners: new Set() });
  for (const [set, clear, name] of [["setTimeout", "clearTimeout", "timeouts"], ["setInterval", "clearInterval", "intervals"]]) {
    const [begin, end] = [window[set], window[clear]];
    window[set] = (act, ...rest) => {
      const id = begin(() => { if (name === "timeouts") held[name].delete(id); act(); }, ...rest);
      held[name].add(id);
      return id;
    };
    window[clear] = (id) => { held.timeouts.delete(id); held.intervals.delete(id); end(id); };
  }
  for (const target of [window, document]) {
    const { addEventListener: add, removeEventListener: remove } = target;
    target.addEventListener = (name, act, ...rest) => { held.listeners.add(act); add.call(target, name, act, ...rest); };
    target.removeEventListener = (name, act, ...rest) => { held.listeners.delete(act); remove.call(target, name, act, ...rest); };
  }
}"""
LEFT = "Object.fromEntries(Object.entries(held).map(([name, set]) => [name, set.size]))"


def leave(ask_id: str, words: str = "ls") -> ShownAsk:
    return ShownAsk(id=ask_id, kind="permission", title="Bash", body=words, body_kind=Body.COMMAND)


def focused(view_page: ViewPage) -> str:
    return view_page.page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.textContent")


def asks_of(view_page: ViewPage) -> list[tuple[str, str]]:
    return [(said["ask"], said["decision"]) for said in view_page.said("answer")]


# --- a hand -----------------------------------------------------------------------------------------------------------


def test_a_cancel_that_comes_after_another_pages_cancel_is_no_kill(view_page: ViewPage) -> None:
    view_page.hold_clock()
    view_page.open()
    view_page.show("writing", elapsed=1.0)
    view_page.until(lambda: view_page.status() == "Writing", "a start")
    view_page.show("stopping", elapsed=1.0)
    view_page.until(lambda: view_page.status() == "Cancelling…", "somebody else has cancelled")
    view_page.root().locator(".ccx-cancel").dispatch_event("click")  # on its way when the word changed
    view_page.settle()
    assert view_page.commands == []
    view_page.page.clock.run_for(GUARD)
    view_page.button("Kill now").click()
    view_page.until(lambda: view_page.commands == ["kill"], "a later click")


def test_a_double_click_on_one_question_does_not_answer_the_next(view_page: ViewPage) -> None:
    view_page.make_view(on_answer=lambda _: None)
    view_page.hold_clock()
    view_page.open()
    view_page.show("asking", asks=(leave("a"), leave("b", "rm -rf /")))
    first = view_page.root().locator("[data-ask=a]").get_by_role("button", name="Allow once")
    view_page.until(first.count, "the questions")
    view_page.page.clock.run_for(GUARD)
    box = first.bounding_box()
    first.click()
    view_page.show("asking", asks=(leave("b", "rm -rf /"),))
    view_page.until(lambda: not first.count(), "the first is answered")
    assert box is not None
    view_page.page.mouse.click(box["x"] + 5, box["y"] + 5)  # there is the other one's button now
    view_page.settle()
    assert asks_of(view_page) == [("a", "allow")]
    view_page.page.clock.run_for(GUARD)
    view_page.root().get_by_role("button", name="Deny", exact=True).click()
    view_page.until(lambda: asks_of(view_page) == [("a", "allow"), ("b", "deny")], "a later click")


# --- a keyboard -------------------------------------------------------------------------------------------------------


def test_the_focus_stays_in_the_view_when_what_had_it_goes(view_page: ViewPage) -> None:
    paged(view_page, 7000)
    view_page.show("asking", asks=(leave("a"), leave("b")))
    view_page.until(lambda: view_page.root().locator("[data-ask=b]").count(), "the questions")
    view_page.root().get_by_label("Reason to deny, which the agent sees").first.focus()
    view_page.show("asking", asks=(leave("b"),))
    view_page.until(lambda: not view_page.root().locator("[data-ask=a]").count(), "somebody else has answered")
    assert focused(view_page) == "Output of the run", "keys that were meant for a text are no notebook commands, and answer nothing"

    view_page.button("Show earlier").focus()
    for pages in (1, 2):
        view_page.page.keyboard.press("Enter")
        view_page.until(lambda pages=pages: view_page.text().startswith(f"line {2000 - 1000 * pages:06d}"), "a page")
        view_page.painted()
        assert focused(view_page) == ("Show earlier" if pages == 1 else "Output of the run")

    view_page.button("Cancel").focus()
    view_page.view.finish(ended("cancelled: you"))
    view_page.until(lambda: view_page.status() == "cancelled: you", "the end")
    view_page.painted()
    assert focused(view_page) == "Output of the run"


def test_what_somebody_has_opened_and_reads_stays_when_everything_is_sent_anew(view_page: ViewPage) -> None:
    view_page.open()
    for number in range(150):
        call = f'{{"command": "ls {number}"}}'
        view_page.feed(
            ToolCalled(tool_id=f"t{number}", name="Bash", input=call), ToolReturned(tool_id=f"t{number}", text=f"result {number}\n" * 9)
        )
    view_page.settle()
    opened = view_page.root().locator("details", has_text="ls 70")
    opened.locator("summary").focus()
    view_page.page.keyboard.press("Enter")
    expect(opened).to_contain_text("result 70")
    before = opened.bounding_box()
    lost: list[Any] = []
    view_page.lose = lambda message: "content" in message and not lost and not lost.append(message)
    view_page.feed(text("lost", "a:0", whole=True))
    view_page.until(lambda: lost, "a frame on its way")
    view_page.feed(text("after", "a:1", whole=True))
    view_page.until(lambda: "lost" in view_page.text() and "ls 0" in view_page.text(), "everything")
    view_page.settle()
    assert opened.get_attribute("open") is not None
    assert opened.bounding_box() == before
    assert not at_end(view_page)
    assert view_page.root().locator(".ccx-item").count() == 152
    assert "Bashls 70" in view_page.items()[70]
    assert view_page.page.evaluate("Boolean(document.activeElement.closest('.ccx-log'))")


# --- an ear -----------------------------------------------------------------------------------------------------------


def test_steps_of_an_agent_are_not_read_aloud_but_what_the_run_comes_to_is(view_page: ViewPage) -> None:
    view_page.hold_clock()
    view_page.open()
    spoken = view_page.root().locator("[aria-live=polite]")
    for phase in ("thinking", "tool", "writing"):
        view_page.show(phase, elapsed=1.0)
        view_page.until(lambda phase=phase: view_page.page.locator(f"[data-phase={phase}]").count(), phase)
    expect(view_page.root().get_by_role("status")).to_have_attribute("aria-live", "off")
    view_page.show("paused", elapsed=1.0)
    view_page.feed(text("So far so good.", whole=True))
    view_page.until(lambda: view_page.status() == "Paused" and "So far" in view_page.text(), "the pause")
    view_page.page.clock.run_for(5000)
    expect(spoken).to_have_text("Paused. So far so good.")


# --- what is left -----------------------------------------------------------------------------------------------------


def test_a_view_that_is_removed_leaves_no_timer_no_listener_and_no_socket(view_page: ViewPage) -> None:
    view_page.config = SERVER
    view_page.make_view(run_id="0" * 26, read_page=lambda before, done: None, bell="{}")
    answers: list[Route] = []

    def hold(route: Route) -> None:
        answers.append(route)

    view_page.page.route("**/control", hold)
    view_page.hold_clock()
    view_page.page.evaluate(COUNTED)
    view_page.open()
    view_page.feed(output(lines(0, 6000)))
    view_page.show("asking", elapsed=1.0, is_ticking=True, asks=(leave("a"),))
    view_page.settle()
    view_page.root().get_by_role("log").evaluate("n => { n.scrollTop = 0; }")
    view_page.button("Show earlier").click()  # nobody answers that
    view_page.page.clock.run_for(GUARD)
    view_page.button("Allow once").click()
    view_page.button("Cancel").click()
    view_page.page.clock.run_for(2000)  # longer than the kernel has to take it, and shorter than it may be silent
    view_page.happens(lambda: answers, "the command goes past a kernel that says nothing")
    view_page.page.evaluate("""() => {
      const { model } = views[0];
      const body = new DataView(new TextEncoder().encode("{}").buffer);
      const frame = (seq) => ({ op: "f", seq, floor: 0, elided: 0, ask: true, status: { phase: "writing" } });
      model.emit("msg:custom", { ...frame(1), reset: ["*"] }, [body]);
      model.emit("msg:custom", frame(2), [body]);
      model.state.state = JSON.stringify({ seq: 99 });
      model.emit("change:state");
      views[0].close();
    }""")
    sent = len(view_page.inbox)
    with view_page.page.expect_event("requestfinished"):
        answers[0].fulfill(status=202, body="{}")
    view_page.painted()
    assert view_page.page.evaluate(LEFT) == {"timeouts": 0, "intervals": 0, "listeners": 0}
    assert view_page.page.evaluate("Object.values(views[0].model.handlers).map((each) => each.size)") == [0, 0]
    assert (view_page.sockets, view_page.errors, len(view_page.inbox)) == ([], [], sent)


# --- little room, and another direction -------------------------------------------------------------------------------


def right_of(locator: Locator) -> float:
    box = locator.bounding_box()
    assert box is not None
    return box["x"] + box["width"]


def test_a_narrow_output_in_a_wide_window_has_nothing_over_nothing_and_nothing_cut(view_page: ViewPage) -> None:
    view_page.open()
    view_page.page.evaluate("document.body.style.width = '360px'")
    question = Question(text="W" * 200, header="H", options=(Option(label="L" * 200), Option(label="B")))
    asks = (ShownAsk(id="q", kind="question", title="Agent", questions=(question,)),)
    view_page.show("requesting", elapsed=3725.0, tool="Bash", model="claude-opus-4-8", cost=0.1, asks=asks)
    view_page.until(lambda: view_page.root().locator(".ccx-ask-option").count(), "the question")
    edge = right_of(view_page.root())
    for words in (".ccx-phase", ".ccx-figures", ".ccx-ask-legend", ".ccx-ask-label >> nth=0"):
        assert right_of(view_page.root().locator(words)) <= edge
    overlaps = view_page.root().evaluate("""(root) => {
      const parts = [...root.querySelectorAll(".ccx-phase, .ccx-clock, .ccx-figures, .ccx-button")].filter((n) => n.textContent && n.offsetParent);
      const boxes = parts.map((n) => n.getBoundingClientRect());
      return boxes.flatMap((a, i) => boxes.slice(i + 1).filter((b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)).length;
    }""")
    assert overlaps == 0


def test_what_is_written_from_right_to_left_begins_at_the_right(view_page: ViewPage) -> None:
    view_page.open()
    view_page.feed(text("שלום עולם!\n\nHello!", whole=True))
    view_page.settle()
    starts = (
        view_page.root()
        .locator(".ccx-text p")
        .evaluate_all("""(all) => all.map((node) => {
      const range = document.createRange();
      range.selectNodeContents(node);
      const [box, text] = [node.getBoundingClientRect(), range.getBoundingClientRect()];
      return text.left - box.left < box.right - text.right ? "left" : "right";
    })""")
    )
    assert starts == ["right", "left"]
    assert log_state(view_page)["height"] > 0
