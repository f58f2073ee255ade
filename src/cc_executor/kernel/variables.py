"""`{{name}}` in a cell, replaced by the notebook's variables when `--vars` asks for it. Pure: the namespace is a parameter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from cc_executor.errors import InvalidRequest

_REFERENCE: Final = re.compile(r"\{\{\s*([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\s*\}\}")


def filled(text: str, namespace: Mapping[str, Any]) -> str:
    """`text` with every `{{name}}` or `{{name.attribute}}` replaced by its `str`.

    Raises
    ------
    InvalidRequest
        Names that are not there, all of them at once.
    """
    missing: dict[str, None] = {}

    def value(match: re.Match[str]) -> str:
        first, *rest = match.group(1).split(".")
        if first not in namespace:
            missing[match.group(1)] = None
            return ""
        found = namespace[first]
        for name in rest:
            if not hasattr(found, name):
                missing[match.group(1)] = None
                return ""
            found = getattr(found, name)
        return str(found)

    made = _REFERENCE.sub(value, text)
    if missing:
        names = ", ".join(f"{{{{{name}}}}}" for name in missing)
        raise InvalidRequest(f"Not defined in this notebook: {names}. Define it, or leave --vars out to send the braces as they stand.")
    return made
