"""Tables as HTML: what a notebook makes of them."""

from __future__ import annotations

from cc_executor.model.table import html_table


def test_no_two_dollar_signs_stand_in_one_piece_of_text_and_no_markup_comes_through() -> None:
    table = html_table([("cost", "prompt"), ("$0.10", "for n in $(seq 3); do echo $n; done"), ("", "<b>x</b>")], wrapped={"prompt"})
    pieces = table.replace("<", ">").split(">")
    assert all(piece.count("$") < 2 and piece in {"$", piece.replace("$", "")} for piece in pieces)
    assert "<b>" not in table
    assert "&lt;b&gt;x" in table


def test_only_what_may_wrap_does() -> None:
    head, row = html_table([("time", "prompt"), ("1 min 18 s", "many words")], wrapped={"prompt"}).split("</thead>")
    assert (head.count("<th "), row.count("<td ")) == (2, 2)
    for part in (head, row):
        assert part.count("white-space:nowrap") == 1
        assert part.index("nowrap") < part.index("prompt" if part is head else "many")


def test_a_date_is_not_broken_at_its_hyphens() -> None:
    table = html_table([("started",), ("2026-11-21 12:00:00",)], wrapped={"started"})
    assert '<span style="white-space:nowrap">2026-11-21</span> 12:00:00' in table
