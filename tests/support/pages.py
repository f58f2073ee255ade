"""The code blocks of a Markdown page, and what each of them promises. Reads text; runs nothing.

Every fenced block says in its first line what it is:

=============================  ====================================================================================================
``python``, ``ipython``        A cell. The cells of one page run in order in one real kernel, as if the page were a notebook.
``… raises=NAME``              The same, and it must end with this exception.
``python script``              A file, run by the interpreter of its own.
``bash run``                   Commands, run by bash where the page's files are; any failure counts.
``text output``                What the block before it writes; ``...`` stands for anything.
``python signature``           Shown, must parse, is not run.
``json``, ``toml``             Shown, must parse.
``text``                       Shown.
=============================  ====================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt

from support.environments import CHECKOUT

PAGES: Final = (CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md")))


class Kind(Enum):
    CELL = auto()
    SCRIPT = auto()
    BASH = auto()
    OUTPUT = auto()
    SIGNATURE = auto()
    JSON = auto()
    TOML = auto()
    TEXT = auto()


KINDS: Final = {
    ("python",): Kind.CELL,
    ("ipython",): Kind.CELL,
    ("python", "script"): Kind.SCRIPT,
    ("bash", "run"): Kind.BASH,
    ("text", "output"): Kind.OUTPUT,
    ("python", "signature"): Kind.SIGNATURE,
    ("json",): Kind.JSON,
    ("toml",): Kind.TOML,
    ("text",): Kind.TEXT,
}
RUN: Final = frozenset({Kind.CELL, Kind.SCRIPT, Kind.BASH})
_RAISES: Final = "raises="


class UnknownBlock(Exception):
    """A block that does not say what it is, or says what nobody knows."""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. `place` is page and line, for messages; `language` the first word."""

    place: str
    language: str
    kind: Kind
    text: str
    raises: str | None = None


def name(page: Path) -> str:
    """How messages name the page."""
    return str(page.relative_to(CHECKOUT)) if page.is_relative_to(CHECKOUT) else page.name


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of `page` in order."""
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type not in {"fence", "code_block"}:
            continue
        line = token.map[0] + 1 if token.map else 0
        place = f"{name(page)}:{line}"
        words = token.info.split()
        raises = [word.removeprefix(_RAISES) for word in words if word.startswith(_RAISES)]
        kind = KINDS.get(tuple(word for word in words if not word.startswith(_RAISES)))
        if kind is None or (raises and kind is not Kind.CELL):
            known = ", ".join(" ".join(names) for names in KINDS)
            raise UnknownBlock(f"{place}: a block is one of: {known}; this one says {token.info!r}")
        yield Block(place, words[0], kind, token.content, raises[0] if raises else None)


def links(page: Path) -> Iterator[str]:
    """The targets of links and images of `page` that lie in this project."""
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        for child in token.children or ():
            target = child.attrGet("href") or child.attrGet("src")
            if isinstance(target, str) and "://" not in target and not target.startswith(("#", "mailto:")):
                yield target.partition("#")[0]
