"""Who opens or saves a notebook at this moment, and what of the state folder may therefore be put into it. Knows jupyter_server's call context."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from jupyter_server.base.call_context import CallContext

SETTING: Final = "cc_executor_may_take"  # of the web application: `(handler, id) -> bool`

T = TypeVar("T")


def for_who_asks(kept: Callable[[str], T | None]) -> Callable[[str], T | None]:
    """`kept` by the id of a run or a list, with None for those of other people. A server that saves by itself, as in a collaboration, is nobody."""
    handler: Any = CallContext.get(CallContext.JUPYTER_HANDLER)
    if handler is None or handler.current_user is None:
        return kept
    may_take: Callable[[Any, str], bool] | None = handler.settings.get(SETTING)
    return kept if may_take is None else lambda wanted: kept(wanted) if may_take(handler, wanted) else None
