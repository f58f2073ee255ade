"""How many tools a transcript calls, without decoding it. Pure: bytes in, ids out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

# As the API writes it and the CLI passes it on (2.1.197 and 2.1.329, recordings). Inside of a text the quotes would be escaped.
_SIGN: Final = b'"type":"tool_use","id":"'
_CALL: Final = re.compile(_SIGN + rb'([^"\\]{1,100})"')
_LONGEST: Final = 160  # bytes of a match: so much of a block is looked at again with the next one


def count_tool_calls(blocks: Iterable[bytes]) -> int:
    """Tool calls in the agent's output; one that is written piece by piece and then whole counts once."""
    found: set[bytes] = set()
    tail = b""
    for block in blocks:
        for data in (tail + block[:_LONGEST], block):  # where two blocks meet, and then inside of this one, without a copy of it
            if _SIGN in data:  # in half the time of the expression
                found.update(_CALL.findall(data))
        tail = (tail + block)[-_LONGEST:] if len(block) < _LONGEST else block[-_LONGEST:]
    return len(found)
