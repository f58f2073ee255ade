"""What the extension logs, as one JSON object for each line, with the id of the request that it is about. Secrets are masked."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO

from cc_executor.policy.redact import Redactor, secret_values
from cc_executor.server.requestid import REQUEST


class JsonLines(logging.Formatter):
    """The format.

    Parameters
    ----------
    environ : mapping
        Whose secrets are masked.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__()
        self._redactor = Redactor(secret_values(environ))

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        row = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._redactor.text(record.getMessage()),
            "request": self._redactor.text(getattr(record, "request_id", "") or REQUEST.get()),  # the client may have chosen it
        }
        if record.exc_info:
            row["trace"] = self._redactor.text(self.formatException(record.exc_info))
        return json.dumps(row)


def log_as_json(environ: Mapping[str, str], stream: TextIO) -> logging.Handler:
    """Let the package's loggers write to `stream`; returns the handler, for whoever takes it away again."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines(environ))
    ours = logging.getLogger("cc_executor")
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False  # else the server writes the same a second time, in its own form
    return handler
