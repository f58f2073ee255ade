"""HTML in which nothing acts and which loads nothing: what is left of a text when everything else is taken out. Knows a list of what may stay; makes no page.

For the card of a finished run, when it is made and whenever it comes back from a file: who can write that file must not be able to write a script into it.
"""

from __future__ import annotations

import re
from html import escape
from typing import Final

import nh3

_TAGS: Final = {
    "a", "b", "blockquote", "br", "code", "del", "details", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "li", "ol", "p", "pre", "s",
    "span", "strong", "summary", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
_ATTRIBUTES: Final = {"*": {"style", "title"}, "a": {"href", "target"}, "ol": {"start"}}
_PREFIXES: Final = ("http://", "https://", "mailto:")
# JupyterLab and nbconvert's pages set whatever stands between dollars as a formula, in every HTML output; in these classes MathJax leaves the text alone
# (JupyterLab's is version 3, nbconvert's version 2). Prices are no formulas, and a formula can hold links and styles that came past this list.
NO_MATH: Final = "mathjax_ignore tex2jax_ignore"
_CLASSES: Final = {NO_MATH, "mathjax_ignore"}  # the second alone is in cards that were stored before
# Text inside these is no text; without this, a script's source would be left to read.
EMPTIED: Final = {"script", "style", "iframe", "object", "embed", "template", "noscript", "title", "textarea", "svg", "math"}
# A style can load (`url()` and its kin, also behind an escape), and lie over what is not ours.
_LOADING: Final = re.compile(r"(?<![\w-])(?!(?:rgba?|var)\()[\w-]*\(|[\\@]|/\*")
_PLACING: Final = re.compile(r"(?:^|;)\s*(?:position|transform|z-index|content|behavior|-moz-binding)\s*:", re.IGNORECASE)
_EMPTY_FIRST_LINE: Final = re.compile(r"""(<pre(?:"[^"]*"|[^">])*>)(?=\n)""")
# What stands where it must not (a list's item in a table) is moved when it is read, and what is written then may be read in another way again. What was
# made by anybody but an attacker is the same after the second reading.
PASSES: Final = 8


def inert(html: str) -> str:
    """`html` less everything that could act, load, or leave its place. Doing it twice is doing it once."""
    for _ in range(PASSES):
        before, html = html, _cleaned(html)
        if html == before:
            return html
    return _cleaned(escape(html))


def with_first_lines(html: str) -> str:
    """What `nh3` has written, as it is to be read: the first newline of a ``<pre>`` is none (HTML, 13.2.6.4.7), and one that was meant has to stand twice."""
    return _EMPTY_FIRST_LINE.sub(r"\1\n", html)


def _cleaned(html: str) -> str:
    cleaned = nh3.clean(
        html,
        tags=_TAGS,
        clean_content_tags=EMPTIED,
        attributes=_ATTRIBUTES,
        attribute_filter=_harmless,
        tag_attribute_values={"div": {"class": _CLASSES}},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )
    return with_first_lines(cleaned)


def _harmless(_tag: str, name: str, value: str) -> str | None:
    if name == "style":
        return None if _LOADING.search(value) or _PLACING.search(value) else value
    if name == "href":  # links name their scheme: a relative one would point into the Jupyter server
        return value if value.lower().startswith(_PREFIXES) else None
    return value
