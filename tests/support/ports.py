"""Ports for servers that must be told one."""

from __future__ import annotations

import itertools
import os
import random
import socket
from typing import Final

# Below net.ipv4.ip_local_port_range (Linux: 32768 and up): whoever asks the system for any port, before the server has bound this one, does not get it.
PORTS: Final = range(20_000, 32_000)
WORKERS: Final = 8  # processes that test at the same time, at most; each has ports of its own

# In an order by chance, for other tests may run on this machine; and none twice before all were given, for one that was told is bound seconds later.
_mine: Final = list(PORTS[int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS :: WORKERS])
random.SystemRandom().shuffle(_mine)
_next: Final = itertools.cycle(_mine)


def free_port() -> int:
    """A port of loopback that nobody listens on now, and that nobody gets who does not ask for it by number."""
    while True:
        port = next(_next)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
