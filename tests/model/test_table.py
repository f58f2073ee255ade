"""Tables as HTML: what a notebook makes of them."""

from __future__ import annotations

from cc_executor.model.table import columns, html_table


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


def test_one_row_is_one_line_without_commands_to_a_terminal() -> None:
    table = [("run", "prompt"), ("1", "one\ntwo\r\n\x1b[31mred\tend\x07")]
    assert columns(table) == ["run  prompt", "1    one two red end"]
    assert "<td" in (shown := html_table(table, wrapped=()))
    assert "one two red end" in shown
