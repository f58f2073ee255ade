"""Markup in which nothing acts: the last filter before a page, over the whole corpus of attacks, and that it changes nothing of ours."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cc_executor.model.card import card
from cc_executor.model.inert import NO_MATH, inert
from cc_executor.model.markdown import markdown_html
from kernel.attacks import EVERY
from support.receipts import receipt

TAGS = {
    "a", "b", "blockquote", "br", "code", "del", "details", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "li", "ol", "p", "pre", "s", "span",
    "strong", "summary", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
ATTRIBUTES = {"class", "href", "rel", "start", "style", "target", "title"}
STYLE = re.compile(r"url|image|src|expression|position|\\|@")


class Wrong(HTMLParser):
    """What of some markup could act, load, or lie over the page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given_ = {name: value or "" for name, value in attrs}
        is_right = (
            tag in TAGS
            and given_.keys() <= ATTRIBUTES
            and given_.get("href", "http://").lower().startswith(("http://", "https://", "mailto:"))
            and given_.get("class", NO_MATH) in {NO_MATH, "mathjax_ignore"}
            and STYLE.search(given_.get("style", "")) is None
        )
        if not is_right:
            self.found.append(self.get_starttag_text() or tag)

    def handle_comment(self, data: str) -> None:
        self.found.append(data)


@pytest.mark.row("threats", "attack in markup", "what is left can neither act nor load nor lie over the page")
@pytest.mark.parametrize("payload", EVERY, ids=lambda payload: payload[:24].encode("ascii", "replace").decode())
def test_of_an_attack_only_text_is_left(payload: str) -> None:
    payload = payload.encode("utf-8", "replace").decode()
    for html in (inert(payload), markdown_html(payload), card(receipt(text=payload, model=payload), [])):
        assert Wrong(html).found == []


@pytest.mark.parametrize(
    "style",
    [
        "background:url(//x)", "background:u\\72l(//x)", "position:fixed", "color:red;POSITION : fixed", "width:expression(x)", "background:image-set('//x' 1x)",
        "background:/**/url(//x)", "@import '//x'", "content:'x'", "transform:scale(9)", "background:-webkit-image-set(x)",
    ],
)  # fmt: skip
def test_a_style_neither_loads_nor_leaves_its_place(style: str) -> None:
    assert inert(f'<p style="{style}">x</p>') == "<p>x</p>"


MARKUP = st.lists(
    st.sampled_from(
        [
            "<", "</", ">", " ", '"', "'", "<a ", "<p ", "<div ", "<span ", "style=", "color:red", "url(", "position:", "\\", "href=", "http://x", "javascript:",
            "class=", "mathjax_ignore", "title=", "onclick=", "<!--", "-->", "<![CDATA[", "]]>", "<svg>", "<math>", "<mtext>", "<annotation-xml encoding='text/html'>",
            "<foreignObject>", "<table>", "</table>", "<td>", "<style>", "</style>", "<p>", "</p>", "<a href='http://x'>", "</a>", "&lt;", "&#x3c;", "&", "<select>",
            "<noscript>", "<template>", "<title>", "<textarea>", "<xmp>", "<plaintext>", "<pre>", "\n", "</pre>", "<ul>", "<ol start=3>", "<li>", "<h1>", "<br/>",
            "<details>", "<summary>", "\0", "é",
        ]
    )
    | st.text(max_size=3),
    max_size=20,
).map("".join)  # fmt: skip


@given(MARKUP | st.text(max_size=300))
@example("<li><table><li>")
@example("<pre>\n\n\nx")
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    once = inert(text)
    assert Wrong(once).found == []
    assert inert(once) == once


MARKDOWN = st.lists(
    st.sampled_from(
        [
            "[", "](", "http://x", ")", "![", "*", "**", "`", "```\n", "~~", "|", "|-|\n", "\n", "\n\n", "> ", "- ", "1. ", "# ", "<b>", "&lt;", "\\", "javascript:",
            "<http://x>", "<a@b>", '"', "'", "&#x6a;", "data:", "\t", "    ", "[a]: http://x\n", "\0", "é", "$", "  \n", "<script>", "</pre>",
        ]
    )
    | st.text(max_size=3),
    max_size=25,
).map("".join)  # fmt: skip


@given(MARKDOWN)
def test_of_any_markdown_only_text_is_left(text: str) -> None:
    html = markdown_html(text)
    assert Wrong(html).found == []
    assert inert(inert(html)) == inert(html)


@given(st.lists(st.sampled_from(["", "x = 1 < 2", "    # é", "</pre>", '"&amp;"', "\t"]), min_size=1, max_size=6))
@example(["", "", "x"])
def test_no_line_of_a_block_of_code_is_lost(lines: list[str]) -> None:
    code = "\n".join(lines)
    html = markdown_html(f"```\n{code}\n```")
    for shown in (html, inert(html), inert(inert(html))):
        found = re.search("<pre>(.*?)</pre>", shown, re.DOTALL)
        assert found is not None
        assert unescape(found[1].removeprefix("\n")) == f"{code}\n", "as a page reads it, which takes a newline at the beginning for none"


@pytest.mark.parametrize(
    "text",
    [
        "# Title\n\n- a\n- b\n\n|a|b|\n|-|-|\n|1|2|\n\n> q\n\n```py\nx = 'y' & 1 < 2\n```\n[l](https://e.org) *e* ~~d~~ `c`",
        'It\'s "so" & <so>',
    ],
)
def test_a_card_is_as_it_was_made(text: str) -> None:
    made = card(receipt(text=text), [])
    assert inert(made) == made
    assert 'style="' in made
    assert 'class="mathjax_ignore tex2jax_ignore"' in made, "for MathJax 3 in JupyterLab, and for MathJax 2 in pages that nbconvert makes"
    stored_before = made.replace(" tex2jax_ignore", "")
    assert inert(stored_before) == stored_before
