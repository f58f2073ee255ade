"""Terminal text to plain text, in any chunking. Knows escape sequences and control characters; knows no terminal.

Colours, cursor moves, titles and clipboard writes (OSC 52) are removed: what an agent prints must not reach a terminal or a page as a command.
"""

from __future__ import annotations

import re
from typing import Final

# ECMA-48: CSI parameters are a handful of bytes; an operating-system command (a title, a link) seldom exceeds a URL. A longer one is taken for text.
CSI_LIMIT: Final = 256
OSC_LIMIT: Final = 4096

_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # with one of these everything begins that `Cleaner` minds
_HALF: Final = re.compile("[\ud800-\udfff]")
_ASCII_CONTROL: Final = bytes(code for code in range(0x80) if _CONTROL.match(chr(code)))

# It begins with one set of characters, so that `re` looks for those and runs over everything else at a nanosecond a character; with alternatives in
# front it tried each of them at each character, and a flood of plain text cost 120 ms for each MB.
_SEQUENCE: Final = re.compile(
    rf"""
    [\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]                                                     # any control character, or half of a pair
    (?:
      (?: (?:(?<=\x1b)\[|(?<=\x9b)) [0-?]{{0,{CSI_LIMIT}}} [ -/]{{0,8}} [@-~]                         # CSI: colours, cursor
        | (?:(?<=\x1b)[\]PX^_]|(?<=[\x90\x98\x9d-\x9f])) [^\x07\x1b\x9c]{{0,{OSC_LIMIT}}} (?:\x07|\x9c|\x1b\\) # OSC, DCS, …
        | (?<=\x1b) [ -/]{{1,8}} [0-~]                                                                # character sets
        | (?<=\x1b) [0-OQ-WYZ\\`-~]                                                                  # two characters
      )
    | (?P<held>                                                                                      # what may still become one of these
        (?: (?<=[\x1b\r])
          | (?:(?<=\x1b)\[|(?<=\x9b)) [0-?]{{0,{CSI_LIMIT}}} [ -/]{{0,8}}
          | (?:(?<=\x1b)[\]PX^_]|(?<=[\x90\x98\x9d-\x9f])) [^\x07\x1b\x9c]{{0,{OSC_LIMIT}}} \x1b?
          | (?<=\x1b) [ -/]{{1,8}}
        ) \Z )
    | (?P<newline> (?<=\r) \n )
    | (?P<return> (?<=\r) )
    |                                                                                                # alone it is nothing
    )
    """,
    re.VERBOSE,
)


class Cleaner:
    """One stream's text without terminal control, in any chunking.

    A lone carriage return is kept: it starts the line anew, and only who holds the line can do that.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        """The clean text that `text` completes."""
        text = self._held + text
        self._held = ""
        return _SEQUENCE.sub(self._replace, text)

    def copy(self) -> Cleaner:
        """An independent cleaner in the same state."""
        other = Cleaner()
        other._held = self._held
        return other

    def _replace(self, match: re.Match[str]) -> str:
        if match["held"] is not None:
            self._held = match[0]
            return ""
        if match["newline"] is not None:
            return "\n"
        return "\r" if match["return"] is not None else ""


def has_control(text: str) -> bool:
    """Whether a `Cleaner` would find something to do in `text`."""
    if text.isascii():  # five times as fast as `re`: a flood of plain text is nearly all that it costs to show it
        data = text.encode()
        return len(data.translate(None, _ASCII_CONTROL)) < len(data)
    return _CONTROL.search(text) is not None


def encodable(text: str) -> str:
    """`text` for whatever takes UTF-8: halves of surrogate pairs, which Python has for bytes that are none, are U+FFFD."""
    return _HALF.sub("\ufffd", text)


def clean(text: str) -> str:
    """`text` as a terminal would leave it: no escape sequences, no control characters, overwritten lines gone."""
    if not has_control(text):
        return text
    text = Cleaner().feed(text)
    return "\n".join(line[line.rfind("\r") + 1 :] for line in text.split("\n")) if "\r" in text else text
