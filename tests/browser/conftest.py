from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from browser.view_page import ViewPage
from support.lab import CHROMIUM_ARGUMENTS


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Browser]:
    """One Chromium for the tests of a file; each opens a context of its own in it. Closed after them: its loop would be in the way of async tests."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=str(chromium), args=list(CHROMIUM_ARGUMENTS))
        yield launched
        launched.close()


@pytest.fixture
def view_page(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> Iterator[ViewPage]:
    """A bare page for `view.js`, wired to the real `RunView`."""
    with ViewPage(browser, monkeypatch) as page:
        yield page
