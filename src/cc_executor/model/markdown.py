"""Markdown of an agent to HTML that is safe in a notebook and in a report. The only place in which HTML is made from what an agent wrote.

JupyterLab runs the scripts of a live cell's `text/html` and `text/markdown`, so both are out of bounds for agent text: Markdown becomes HTML here,
and then only what is on the list below is left. Nothing is loaded from anywhere: no images (an image's address can carry what the agent has read).
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING, Any, Final

import nh3

from cc_executor.model.inert import EMPTIED, with_first_lines

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.renderer import RendererHTML
    from markdown_it.token import Token
    from markdown_it.utils import OptionsDict

NESTING: Final = 60  # lists in lists; what is nested deeper is left out by the parser

_TAGS: Final = {
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "s", "strong",
    "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
_ATTRIBUTES: Final = {"a": {"href"}, "ol": {"start"}}
_SCHEMES: Final = {"http", "https", "mailto"}
_PREFIXES: Final = ("http://", "https://", "mailto:")


def _image(_self: RendererHTML, tokens: Sequence[Token], index: int, _options: OptionsDict, _env: MutableMapping[str, Any]) -> str:
    """An image as a link: it is the reader who decides whether to load it."""
    token = tokens[index]
    label = escape(f"image: {token.content or token.attrGet('src') or ''}")
    return f'<a href="{escape(str(token.attrGet("src") or ""), quote=True)}">{label}</a>'


def _code(_self: RendererHTML, tokens: Sequence[Token], index: int, _options: OptionsDict, _env: MutableMapping[str, Any]) -> str:
    """A block of code. Without `<code>` inside: pages give that one a ground of its own, which shows as a band behind every line."""
    return f"<pre>\n{escape(tokens[index].content)}</pre>\n"


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt  # 50 ms of CPU, which a run without Markdown is spared

    # breaks: agents write line by line, and the text has streamed so; paragraphs as CommonMark makes them would join the lines.
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": NESTING}).enable(["table", "strikethrough"])
    parser.add_render_rule("image", _image)
    parser.add_render_rule("fence", _code)
    parser.add_render_rule("code_block", _code)
    return parser


def _only_absolute(_tag: str, name: str, value: str) -> str | None:
    """Links name their scheme. A relative one would point into the Jupyter server."""
    return value if name != "href" or value.lower().startswith(_PREFIXES) else None


_LINK: Final = {"target": "_blank"}


def markdown_html(source: str, *, styles: Mapping[str, str] | None = None) -> str:
    """`source` (CommonMark, tables, strike-through) as HTML without scripts, images, frames, ids, classes, and styles but ours.

    `styles` gives tags an inline style, for a page that has no style sheet.
    Links are absolute `http`, `https` or `mailto`, and open in a new tab that knows nothing of the notebook.
    """
    try:
        html = str(_parser().render(source))
    except Exception:  # noqa: BLE001 - whatever a parser of somebody else's text trips over, the text is shown and the run goes on
        html = f"<pre>\n{escape(source)}</pre>"
    cleaned = nh3.clean(
        html,
        tags=_TAGS,
        clean_content_tags=EMPTIED,
        attributes=_ATTRIBUTES,
        attribute_filter=_only_absolute,
        url_schemes=_SCHEMES,
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": _LINK}
        | {tag: (_LINK if tag == "a" else {}) | {"style": style} for tag, style in (styles or {}).items()},
    )
    return with_first_lines(cleaned)
