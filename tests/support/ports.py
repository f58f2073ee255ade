"""Ports for servers that must be told one."""

from __future__ import annotations

import random
import socket
from typing import Final

# Below net.ipv4.ip_local_port_range (Linux: 32768 and up): whoever asks the system for any port, before the server has bound this one, does not get it.
PORTS: Final = range(20_000, 32_000)


def free_port() -> int:
    """A port of loopback that nobody listens on now, and that nobody gets who does not ask for it by number."""
    choose = random.SystemRandom()  # the tests' own generators are seeded alike in every worker
    while True:
        port = choose.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
