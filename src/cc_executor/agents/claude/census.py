"""How many tools a transcript calls, without decoding it. Pure: bytes in, ids out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

# As the API writes it and the CLI passes it on (2.1.197 and 2.1.329, recordings). Inside of a text the quotes would be escaped.
_CALL: Final = re.compile(rb'"type":"tool_use","id":"([^"\\]{1,100})"')
_LONGEST: Final = 160  # bytes of a match: so much of a block is looked at again with the next one


def count_tool_calls(blocks: Iterable[bytes]) -> int:
    """Tool calls in the agent's output; one that is written piece by piece and then whole counts once."""
    found: set[bytes] = set()
    tail = b""
    for block in blocks:
        data = tail + block
        found.update(_CALL.findall(data))
        tail = data[-_LONGEST:]
    return len(found)
