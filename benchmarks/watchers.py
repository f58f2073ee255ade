"""Clients that watch a run, many in one process that does little else: bytes are counted and searched, JSON is not read.

``python -m benchmarks.watchers JSON`` with ``host``, ``port``, ``token``, ``run``, ``sockets`` and ``streams`` (how many of each), ``silent`` (how many of each never
read), ``plain`` (the path of a file: from the plain handlers instead). Says in one line of JSON what came.
"""

from __future__ import annotations

import itertools
import json
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import websocket

from benchmarks.plain import END as PLAIN_END
from benchmarks.stamper import CLOSING, MARK, WIDTH

ENDS: Final = (b'"method": "end"', b"event: end", PLAIN_END)
RECEIVED: Final = 256 * 1024
LONGEST: Final = 300.0  # seconds


@dataclass
class Watcher:
    """One connection."""

    socket: socket.socket
    tail: bytes = b""
    received: int = 0
    done: bool = False


class Clients:
    """All of one measurement."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self._asked = asked
        self.lags: list[float] = []

    def _connected(self) -> Iterator[tuple[socket.socket, Callable[[], object]]]:
        """Each client's socket, and how it says what it wants to watch."""
        asked = self._asked
        where, token, plain = f"{asked['host']}:{asked['port']}", asked["token"], asked.get("plain", "")
        for _ in range(asked["sockets"]):
            url = f"ws://{where}/{'plain' if plain else 'cc-executor'}/ws"
            client = websocket.create_connection(url, header={"Authorization": f"token {token}"}, suppress_origin=True, timeout=60)
            call = {"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": {"id": asked["run"]}}
            assert isinstance(client.sock, socket.socket)
            yield client.sock, partial(client.send, plain or json.dumps(call))
        path = f"/plain/stream?path={plain}" if plain else f"/cc-executor/api/v1/executions/{asked['run']}/events"
        for _ in range(asked["streams"]):
            stream = socket.create_connection((asked["host"], asked["port"]), timeout=60)
            head = f"GET {path} HTTP/1.1\r\nHost: {where}\r\nAuthorization: token {token}\r\nAccept: text/event-stream\r\n\r\n"
            yield stream, partial(stream.sendall, head.encode())

    def watch(self) -> dict[str, Any]:
        """Read until every client that reads has seen the end."""
        asked = self._asked
        connected, selector, buffer = list(self._connected()), selectors.DefaultSelector(), bytearray(RECEIVED)
        silent = {*range(asked["silent"]), *range(asked["sockets"], asked["sockets"] + asked["silent"])}
        watchers = [Watcher(each) for number, (each, _) in enumerate(connected) if number not in silent]
        began = time.monotonic()
        for _, begin in connected:
            begin()
        for each in watchers:
            each.socket.setblocking(False)
            selector.register(each.socket, selectors.EVENT_READ, each)
        print("ready", flush=True)
        end, left = began + LONGEST, len(watchers)
        while left and time.monotonic() < end:
            for key, _ in selector.select(1.0):
                each: Watcher = key.data
                count = each.socket.recv_into(buffer)
                self._take(each, buffer, count)
                if each.done or not count:
                    selector.unregister(each.socket)
                    left -= 1
        seconds = time.monotonic() - began
        ordered = sorted(self.lags)
        return {
            "seconds": seconds,
            "bytes": sum(each.received for each in watchers),
            "least": min(each.received for each in watchers),
            "ended": sum(each.done for each in watchers),
            "lags": {str(share): ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.9, 0.99, 1.0)}
            if ordered
            else {},
            "looks": len(ordered),
        }

    def _take(self, each: Watcher, buffer: bytearray, count: int) -> None:
        now = time.monotonic()
        each.received += count
        # The oldest byte of what came is the latest: the first whole stamp of it.
        start = buffer.find(MARK, 0, count)
        if start >= 0 and start + WIDTH <= count and buffer[start + WIDTH - 1] == CLOSING:  # else a frame begins within it
            self.lags.append(now - float(buffer[start + 1 : start + WIDTH - 1]))
        whole = each.tail + bytes(buffer[max(0, count - 256) : count])
        each.done = any(end in whole for end in ENDS)
        each.tail = whole[-256:]


def main() -> None:
    """Watch and say."""
    clients = Clients(json.loads(sys.argv[1]))
    print(json.dumps(clients.watch()), flush=True)
    for _ in itertools.takewhile(bool, iter(sys.stdin.readline, "")):  # those that do not read stay until whoever asked has looked
        pass


if __name__ == "__main__":
    main()
