"""Whatever a receipt and the events of a run say, what is shown of them is text: no terminal control, nothing that acts in a page, no exception."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cc_executor.model.ansi import has_control
from cc_executor.model.card import card
from cc_executor.model.event import Event
from cc_executor.model.inert import inert
from cc_executor.model.receipt import Receipt
from cc_executor.model.report import run_report
from cc_executor.model.reportpage import notebook_html, run_page
from cc_executor.model.reporttext import run_text
from cc_executor.model.transcript import Transcript
from cc_executor.model.words import plain_text
from model.test_receipt import RECEIPTS
from model.test_whole_way import EVENTS
from security.test_markup import Wrong
from support.receipts import receipt


@given(RECEIPTS, st.lists(EVENTS, max_size=8))
def test_a_card_and_its_text_say_anything_and_do_nothing(seen: Receipt, events: list[Event]) -> None:
    transcript = Transcript()
    transcript.feed(events)
    html = card(seen, list(transcript.items))
    assert Wrong(html).found == []
    assert inert(html) == html, "a notebook that is opened again shows the same"
    text = plain_text(seen)
    assert not has_control(text)
    assert (html + text).encode()


@given(RECEIPTS, st.lists(st.tuples(st.floats(0, 1e6), EVENTS), max_size=10))
def test_a_report_says_anything_and_does_nothing(seen: Receipt, told: list[tuple[float, Event]]) -> None:
    report = run_report(seen, [(at, [event]) for at, event in sorted(told, key=lambda pair: pair[0])])
    text = run_text(report)
    assert not has_control(text)
    assert Wrong(notebook_html(text)).found == []
    assert (run_page(report) + text).encode()


def test_the_id_in_a_receipt_of_somebody_else_is_shown_and_not_obeyed() -> None:
    seen = receipt(run_id="\x1b]0;x\x07r`<b>\n1")
    assert plain_text(seen).endswith(" · run r`<b> 1")
    assert "Run `r<b> 1`, receipt" in run_text(run_report(seen, []))
