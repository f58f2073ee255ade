"""A table of texts: as lines for a terminal, as HTML for what a notebook shows. Knows no notebook."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from html import escape
from itertools import repeat
from typing import Final

from cc_executor.model.ansi import clean

_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")
_UNBROKEN: Final = r'<span style="white-space:nowrap">\g<0></span>'


def columns(table: list[tuple[str, ...]]) -> list[str]:
    """Lines of text, one for each row, each column as wide as it needs."""
    table = [tuple(map(flat, row)) for row in table]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def html_table(rows: Sequence[Sequence[str]], *, wrapped: Collection[str]) -> str:
    """The table, its head the first of `rows`.

    Parameters
    ----------
    rows : sequence of sequence of str
        Plain texts; all rows are as long as the first.
    wrapped : collection of str
        Heads of the columns whose cells may take several lines: a time or a cost is not broken, and nowhere a date.
    """
    styles = [f"text-align:left{'' if head in wrapped else ';white-space:nowrap'}" for head in rows[0]]
    head, *body = ("".join(map(_cell, row, styles, repeat(tag))) for row, tag in zip(rows, ["th", *["td"] * (len(rows) - 1)], strict=True))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(f'<tr>{row}</tr>' for row in body)}</tbody></table>"


def _cell(text: str, style: str, tag: str) -> str:
    return f'<{tag} style="{style}">{_DATE.sub(_UNBROKEN, untypeset(flat(text)))}</{tag}>'


def flat(text: str) -> str:
    """The text on one line and without what a terminal takes for commands: people name their runs, and agents write texts."""
    return " ".join(clean(text).split())


def untypeset(text: str) -> str:
    """A text as HTML. Notebooks typeset what stands between two dollar signs of one piece of text as mathematics: here each has a piece to itself."""
    return escape(text).replace("$", "<span>$</span>")
