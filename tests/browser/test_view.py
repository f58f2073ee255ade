from __future__ import annotations

from browser.view_page import ViewPage
from cc_executor.model.event import TextWritten


def test_a_view_shows_what_there_is(view_page: ViewPage) -> None:
    view_page.feed(TextWritten(block="a:0", text="Hello **world**", whole=True))
    view_page.open()
    view_page.until(lambda: view_page.items() == ["Hello world\n"], "the text")
    assert view_page.errors == []
