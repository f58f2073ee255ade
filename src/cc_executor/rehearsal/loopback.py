"""Where a rehearsal listens, and the key that it shows. Light: the wrapper needs it before anything else is loaded."""

from __future__ import annotations

import socket
from typing import Final

HOST: Final = "127.0.0.1"
API_KEY: Final = "sk-ant-rehearsal-not-a-key"  # what a rehearsed run shows; the server accepts any key
CONNECTIONS_LIMIT: Final = 64  # one CLI opens a handful


def open_listener() -> socket.socket:
    """A socket that listens on an ephemeral port of 127.0.0.1 and nowhere else."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.bind((HOST, 0))
        listener.listen(CONNECTIONS_LIMIT)
    except OSError:
        listener.close()
        raise
    return listener


def url_of(listener: socket.socket) -> str:
    """For ``ANTHROPIC_BASE_URL``."""
    return f"http://{HOST}:{listener.getsockname()[1]}"
