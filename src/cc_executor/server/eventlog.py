"""Runs as events of the Jupyter server: started, ended, refused. Knows jupyter_events' conventions, and says nothing of what is in a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

logger = logging.getLogger(__name__)

SCHEMAS: Final = Path(__file__).with_name("schemas")
NAMES: Final = ("started", "ended", "refused")
_STARTS: Final = ("execute", "execute_list")  # how what starts something ends, at every door
_BASE: Final = "https://events.jupyter.org/cc_executor"


class EventLogger(Protocol):
    """What we ask of the server's event logger (jupyter_events 0.11 and 0.12)."""

    def register_event_schema(self, schema: Any) -> None:
        """Make a schema known."""
        ...

    def emit(self, *, schema_id: str, data: dict[str, Any]) -> Any:
        """Tell handlers and listeners."""
        ...


class RunEvents:
    """What is told of runs.

    Parameters
    ----------
    server : EventLogger
    """

    def __init__(self, server: EventLogger) -> None:
        self._server = server
        for name in NAMES:
            server.register_event_schema(SCHEMAS / f"run_{name}.yaml")

    def tell(self, name: str, about: Mapping[str, Any]) -> None:
        """Emit ``started``, ``ended`` or ``refused``. Never raises: a handler that is set up wrongly costs no run."""
        try:
            self._server.emit(schema_id=f"{_BASE}/run_{name}/v1", data=dict(about))
        except Exception:  # root of somebody else's code; the run is owed its life, the administrator the log
            logger.exception("the event that a run was %s could not be told", name)

    def audited(self, row: Mapping[str, Any]) -> None:
        """Tell of a run that was refused, out of a row of the audit."""
        if row["decision"] != "allowed" and str(row["what"]).endswith(_STARTS):
            self.tell("refused", {"door": row["door"], "status": row["status"], "kind": str(row["reason"]).partition(":")[0]})
