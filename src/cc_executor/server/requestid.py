"""The id of the request that is being answered, for whoever logs or notes something. Standard library only."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

REQUEST: Final[ContextVar[str]] = ContextVar("cc_executor request", default="")
