from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from browser.view_page import ViewPage
from support.lab import CHROMIUM_ARGUMENTS, Lab, running_lab

expect.set_options(timeout=30_000)  # milliseconds; what is expected takes some tens of them where nothing else runs


@pytest.fixture(scope="package")
def browser(chromium: Path) -> Iterator[Browser]:
    """One Chromium for the tests of this folder. Closed after them: its loop would be in the way of async tests."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=str(chromium), args=list(CHROMIUM_ARGUMENTS))
        yield launched
        launched.close()


@pytest.fixture(scope="package")
def shared_lab(browser: Browser, tmp_path_factory: pytest.TempPathFactory, kernelspecs: Path) -> Iterator[Lab]:
    """One JupyterLab for the tests of this folder."""
    with running_lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture
def lab(shared_lab: Lab) -> Iterator[Lab]:
    """That JupyterLab, with no page and no kernel of another test."""
    yield shared_lab
    shared_lab.leave()


@pytest.fixture
def view_page(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> Iterator[ViewPage]:
    """A bare page for `view.js`, wired to the real `RunView`."""
    with ViewPage(browser, monkeypatch) as page:
        yield page
