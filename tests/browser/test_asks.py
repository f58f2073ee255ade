"""What an agent asks, shown and answered in a real JupyterLab, with the real CLI and a scripted model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, expect

from browser.view_page import ViewPage
from cc_executor.errors import ControlFailed
from cc_executor.model.ask import Body, ShownAsk
from cc_executor.model.event import Option, Question
from cc_executor.model.receipt import RECEIPT_MIME
from kernel.attacks import PAYLOADS
from support.lab import Lab, NotebookPage
from support.looks import eventually

pytestmark = [pytest.mark.usefixtures("kernelspecs", "claude_cli"), pytest.mark.timeout(300)]

LOAD = "%load_ext cc_executor\nimport pathlib\nfolder = pathlib.Path({folder!r})"
APPROVAL = "%%cc_execute --vars --cwd {{folder}} --ask --permission-mode default --rehearse approval -o r\nWrite the plan, then begin."
QUESTION = "%%cc_execute --vars --cwd {{folder}} --ask --rehearse question -o r\nMake the report."
TASKS = """%%cc_tasks --cwd {folder}
tasks:
  - id: begin
    prompt: Write the plan, then begin.
    rehearse: approval
    permission_mode: default
    tools: Write
    ask: true
"""
LOOK = "[(one.kind, one.decision, one.note, one.by) for one in r.receipt.asked]"
PLAN = "# Plan\n\n1. Look at the data\n2. Fit the model\n"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return Path(os.environ.get("CC_EXECUTOR_TEST_PICTURES", tmp_path))


def opened(lab: Lab, browser: Browser, folder: Path, cell: str, name: str) -> tuple[NotebookPage, Locator]:
    lab.write(name, LOAD.format(folder=str(folder)), cell, LOOK, kernel="ipykernel7")
    page = NotebookPage(lab, browser, name)
    page.wait_for_kernel()
    page.run(0)
    page.wait_done(0)
    page.run(1)
    return page, page.output(1)


def picture(page: NotebookPage, path: Path) -> None:
    page.cell(1).scroll_into_view_if_needed()
    page.cell(1).screenshot(path=path)


def asked(view: Locator, words: str) -> Locator:
    """The question with these words, when it is there."""
    ask = view.locator(".ccx-ask", has_text=words)
    ask.wait_for(timeout=60_000)
    return ask


def test_leave_is_asked_for_and_given_in_the_cell(lab: Lab, browser: Browser, tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "plan.md").write_text(PLAN)
    page, view = opened(lab, browser, tmp_path, APPROVAL, "approval.ipynb")

    ask = asked(view, "Write")
    expect(ask.get_by_label("What would change")).to_contain_text("-1. Look at the data\n+1. Read the data")
    expect(view.get_by_role("status")).to_have_text("Needs you")
    assert (tmp_path / "plan.md").read_text() == PLAN
    picture(page, pictures / "asks-light.png")
    page.page.keyboard.press("Escape")
    allow = ask.get_by_role("button", name="Allow once")
    expect(allow).to_be_enabled()  # what has just come takes no click for a moment, and a key waits for nothing
    allow.focus()
    page.page.keyboard.press("Enter")

    ask = asked(view, "touch approved.txt")
    assert "3. Write the report" in (tmp_path / "plan.md").read_text()
    expect(ask).to_contain_text("Bash(touch approved.txt)")
    ask.get_by_label("Reason to deny, which the agent sees").fill("Only after lunch")
    ask.get_by_role("button", name="Deny").click()

    ask = asked(view, "Once more")
    ask.get_by_role("button", name="Allow for this run").click()
    page.wait_done(1)
    assert (tmp_path / "approved.txt").exists()

    notebook = page.save()
    (static, *_) = [output for output in notebook.cells[1].outputs if output.output_type == "display_data"]
    receipt = static.data[RECEIPT_MIME]
    assert receipt["outcome"]["kind"] == "ok"
    assert [(one["decision"], one["by"], one["note"]) for one in receipt["asked"]] == [
        ("allow", "view", ""),
        ("deny", "view", "Only after lunch"),
        ("allow_run", "view", ""),
    ]
    page.close()


def test_a_question_is_still_open_after_the_page_was_reloaded_and_is_answered_there(
    lab: Lab, browser: Browser, tmp_path: Path, pictures: Path
) -> None:
    page, view = opened(lab, browser, tmp_path, QUESTION, "question.ipynb")
    asked(view, "Which data should the report use?")
    eventually(lambda: page.prompt(1) == "[*]:", within=60, what="the cell waits")

    page.page.reload()
    page.page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
    ask = asked(page.output(1), "Which data should the report use?")
    send = ask.get_by_role("button", name="Send")
    expect(send).to_have_attribute("aria-disabled", "true")
    ask.get_by_label("All years").check()
    ask.get_by_label("Tables").check()
    ask.get_by_label("Plots").check()
    picture(page, pictures / "question-light.png")
    send.click()
    page.run(2)
    answered = "('question', 'answer', 'All years · Tables, Plots', 'view')"
    eventually(lambda: answered in page.output(2).inner_text(), within=60, what="the answer stands in the receipt")
    page.close()


def test_a_task_of_a_list_is_answered_in_its_row(lab: Lab, browser: Browser, tmp_path: Path) -> None:
    page, view = opened(lab, browser, tmp_path, TASKS.format(folder=tmp_path), "asking-tasks.ipynb")
    row = view.locator(".ccx-task", has_text="begin")
    expect(row).to_contain_text("Needs you", timeout=60_000)
    expect(row).to_contain_text("asks: Bash: touch approved.txt; rm -f draft.txt")
    row.get_by_role("button", expanded=False).click()
    asked(row, "touch approved.txt").get_by_role("button", name="Allow for this run").click()
    page.wait_done(1)
    assert (tmp_path / "approved.txt").exists()
    page.close()


def questions(ask_id: str, words: str) -> ShownAsk:
    options = (Option(label=words, description=words), Option(label="B"))
    return ShownAsk(
        id=ask_id,
        kind="question",
        title=words,
        questions=(Question(text=words, header=words, options=options), Question(text="Several?", options=options, multiple=True)),
    )


@pytest.mark.row("threats", "attack in a request for leave and in a question", "0 scripts, 0 requests, nothing but text")
def test_what_an_agent_asks_is_text_and_nothing_else(view_page: ViewPage) -> None:
    view_page.open()
    for number, payload in enumerate(PAYLOADS):
        leave = ShownAsk(
            id=f"p{number}", kind="permission", title=payload, about=payload, body=f"+{payload}", body_kind=Body.DIFF, scope=payload
        )
        view_page.show("asking", asks=(leave, questions(f"q{number}", payload)))
        node = view_page.root().locator(f"[data-ask=p{number}]")
        view_page.until(lambda node=node: node.count() == 1, "the request")
        assert node.locator(".ccx-ask-about").text_content() == payload
        assert node.locator("pre").text_content() == f"+{payload}"
    tags = view_page.page.evaluate("[...new Set([...document.querySelectorAll('.ccx-ask *')].map((n) => n.tagName))].sort().join(' ')")
    assert tags == "B BUTTON CODE DIV FIELDSET INPUT LABEL LEGEND PRE SPAN"
    assert view_page.page.evaluate("window.__pwned") is None
    assert view_page.requests == []
    assert view_page.errors == []
    view_page.show("tool")
    view_page.until(lambda: view_page.root().locator(".ccx-ask").count() == 0, "what is answered is gone")


def test_answers_are_given_by_hand_and_by_key_and_a_refused_one_can_be_given_again(view_page: ViewPage) -> None:
    def refuse(_: object) -> None:
        raise ControlFailed("That question is not open any more.")

    view_page.make_view(on_answer=refuse)
    view_page.open()
    view_page.show("asking", asks=(questions("q", "A"),))
    ask = view_page.root().locator(".ccx-ask")
    send = ask.get_by_role("button", name="Send")
    view_page.until(lambda: ask.count() == 1, "the questions")
    expect(send).to_have_attribute("aria-disabled", "true")
    ask.get_by_label("B").first.check()
    own = ask.get_by_placeholder("Or in your own words")
    own.first.fill("neither")
    expect(ask.get_by_label("B").first).not_to_be_checked()
    ask.get_by_label("B").nth(1).check()
    own.nth(1).fill("and more")
    view_page.show("asking", asks=(questions("q", "A"),), elapsed=2.0)
    view_page.settle()
    expect(own.first).to_have_value("neither")
    view_page.page.keyboard.press("Enter")
    view_page.until(lambda: view_page.said("answer"), "the answer")
    assert [(said["ask"], said["decision"], said["answers"]) for said in view_page.said("answer")] == [
        ("q", "answer", ["neither", "B, and more"])
    ]
    view_page.until(lambda: "not open any more" in ask.inner_text(), "why it was not taken")
    expect(send).not_to_have_attribute("aria-disabled", "true")
    send.click()
    view_page.until(lambda: len(view_page.said("answer")) == 2, "the answer again")


def test_of_a_form_what_is_optional_may_be_left_empty(view_page: ViewPage) -> None:
    questions = (Question(text="Your name"), Question(text="Your team", optional=True))
    view_page.make_view(on_answer=lambda _: None)
    view_page.open()
    view_page.show("asking", asks=(ShownAsk(id="q", kind="question", title="calendar", questions=questions),))
    ask = view_page.root().locator(".ccx-ask")
    view_page.until(lambda: ask.count() == 1, "the form")
    assert [legend.inner_text() for legend in ask.locator("legend").all()] == ["Your name", "Your team optional"]
    send = ask.get_by_role("button", name="Send")
    expect(send).to_have_attribute("aria-disabled", "true")
    ask.get_by_label("Your answer: Your name").fill("Ada")
    send.click()
    view_page.until(lambda: view_page.said("answer"), "the answer")
    assert view_page.said("answer")[0]["answers"] == ["Ada", ""]
