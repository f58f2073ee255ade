"""What a page shows of hooks that did not end well, while the list goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from browser.test_tasks_view import TasksPage, begun
from cc_executor.model.listrecord import HookTold
from cc_executor.model.tasklist import Task, TaskKind, TaskList
from kernel.attacks import PAYLOADS


@pytest.fixture
def page(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> Iterator[TasksPage]:
    TasksPage.tasks = TaskList(tasks=(Task(id="a", kind=TaskKind.SHELL, text="true"),), cwd="/")
    with TasksPage(browser, monkeypatch) as made:
        yield made


def test_a_hook_that_fails_is_told_at_once_and_by_a_screen_reader(page: TasksPage) -> None:
    page.open()
    page.add(begun("a"))
    page.settle()
    note = page.root().locator(".ccx-note")
    expect(note).to_be_hidden()
    page.add(HookTold(at=time.time(), task="a", text="The hook 'gate' (after_task) failed: exit code 3"))
    page.settle()
    expect(note).to_have_text("a: The hook 'gate' (after_task) failed: exit code 3")
    expect(note).to_have_attribute("role", "alert")
    page.add(HookTold(at=time.time(), text=PAYLOADS[0]))
    page.settle()
    expect(note).to_have_text(PAYLOADS[0])
    assert page.page.evaluate("window.__pwned") is None
