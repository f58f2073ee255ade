"""What the view of a run does where no kernel answers: it asks the server of its page, if that has said that it can be asked, and nobody else."""

from __future__ import annotations

from typing import Final

import pytest
from playwright.sync_api import expect

from browser.view_page import SITE, ViewPage

RUN: Final = "0199e8d2b1c07a3f5e6d7c8b9a"
HERE: Final = '<script id="jupyter-config-data" type="application/json">{"baseUrl": "/user/a/", "ccExecutor": true}</script>'
MINUTE: Final = 60_000


def silent(view_page: ViewPage, *, config: str, run_id: str = RUN) -> None:
    """A view whose kernel has spoken once and never again. The page's clock goes as it is told: on a slow machine, too, that was just now."""
    view_page.page.goto("about:blank")
    view_page.config = config
    view_page.make_view(run_id=run_id)
    view_page.hold_clock()
    view_page.open()
    view_page.show("writing", elapsed=1.0)
    view_page.until(lambda: view_page.status() == "Writing", "the kernel has spoken")


NOWHERE: Final = {
    "no Jupyter": "",
    "without the extension": HERE.replace(', "ccExecutor": true', ""),
    "not quite": HERE.replace("true", '"true"'),
    "of another site": HERE.replace("/user/a/", "https://evil.example/"),
    "of another scheme": HERE.replace("/user/a/", "javascript:alert(1)//"),
    "broken": HERE.replace("{", ""),
}


def test_without_a_server_that_can_be_asked_nobody_is(view_page: ViewPage) -> None:
    for name, config in NOWHERE.items():
        silent(view_page, config=config)
        view_page.button("Cancel").click()
        view_page.page.clock.run_for(MINUTE)
        expect(view_page.root().get_by_role("alert"), name).to_contain_text("does not answer")
        assert (view_page.requests, view_page.sockets, view_page.errors) == ([], [], []), name


@pytest.mark.row("threats", "saved or forged view", "asks no server for anything, whatever it is called and whoever clicks in it")
def test_what_is_no_run_is_not_asked_for(view_page: ViewPage) -> None:
    for run_id in ("", "../../../api/kernels/1/restart", RUN.upper(), f"{RUN}/../x", f"{RUN}\n"):
        silent(view_page, config=HERE, run_id=run_id)
        view_page.button("Cancel").click()
        view_page.page.clock.run_for(MINUTE)
        assert (view_page.requests, view_page.sockets, view_page.errors) == ([], [], []), run_id


@pytest.mark.row("threats", "saved or forged view", "asks no server for anything, whatever it is called and whoever clicks in it")
def test_a_view_that_no_kernel_has_spoken_to_asks_nobody(view_page: ViewPage) -> None:
    view_page.config = HERE
    view_page.make_view(run_id=RUN, title=RUN)
    view_page.show("writing", elapsed=1.0)
    view_page.view.state = f'{{"seq": 5, "run": "{RUN}", "status": {{"phase": "writing", "run": "{RUN}"}}}}'  # as it would be saved
    view_page.hold_clock()
    view_page.open()
    view_page.page.clock.run_for(MINUTE)
    for name in ("Pause", "Cancel"):
        view_page.button(name).click()
        view_page.page.clock.run_for(MINUTE)
    assert (view_page.requests, view_page.sockets, view_page.errors) == ([], [], [])


def test_one_click_is_one_request_and_a_server_that_is_gone_is_not_stormed(view_page: ViewPage) -> None:
    silent(view_page, config=HERE)
    view_page.button("Pause").click()
    view_page.page.clock.run_for(900)
    assert view_page.requests == [], "the kernel goes first"
    view_page.page.clock.run_for(MINUTE)
    view_page.happens(lambda: view_page.requests, "the request")
    assert view_page.requests == [f"{SITE}user/a/cc-executor/api/v1/executions/{RUN}/control"]
    expect(view_page.root().get_by_role("alert")).to_contain_text("does not answer")
    view_page.page.clock.run_for(10 * MINUTE)
    view_page.happens(lambda: view_page.sockets, "the socket")
    assert set(view_page.sockets) == {f"{SITE.replace('http', 'ws')}user/a/cc-executor/ws"}
    assert len(view_page.sockets) <= 6
    assert len(view_page.requests) == 1
    assert view_page.errors == []


def test_a_kernel_that_takes_the_click_keeps_it(view_page: ViewPage) -> None:
    silent(view_page, config=HERE)
    view_page.button("Pause").click()
    view_page.happens(lambda: view_page.inbox, "the click")
    view_page.turn()  # it is obeyed, and told so
    assert view_page.commands == ["pause"]
    for look in range(20):  # it goes on speaking, as often as one that has nothing to say
        view_page.page.clock.run_for(2000)
        view_page.show("paused", elapsed=1.0, detail=f"look {look}")
        view_page.until(lambda look=look: f"look {look}" in view_page.root().inner_text(), "what it says")
    assert (view_page.requests, view_page.sockets, view_page.errors) == ([], [], []), "a kernel that answers is enough"
