"""The control socket: requests in, answers and status out. Knows lines of JSON and bounds; what a request means is decided by whom it calls.

No client can disturb the run: nothing here waits, every buffer is bounded, and whoever does not read is skipped.
"""

from __future__ import annotations

import _socket  # `socket` builds its enumerations at import, 7 ms of the shim's start
import json
import os
import struct

from cc_executor.shim.poller import GONE, IN, OUT
from cc_executor.shim.records import NUDGE_INTERVAL, SOCKET
from cc_executor.shim.spec import is_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from cc_executor.shim.poller import Poller

CONNECTIONS: Final = 64  # ten viewers of one run are many
ACCEPTS: Final = 16  # at a time; between them those that have gone are noticed, which would else take the places
REQUEST_LIMIT: Final = 2**20  # bytes of one request; a `stdin` message of a whole file fits
CHUNK: Final = 64 * 1024
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Connection:
    """One client."""

    def __init__(self, sock: _socket.socket, peer: int = 0) -> None:
        self.sock = sock
        self.peer = peer  # the process that has connected; 0 where the system does not tell
        self.fd = sock.fileno()
        self.incoming = bytearray()
        self.outgoing = b""
        self.following = False
        self.stale = False  # follows, and has not been sent the newest status
        self.waiting = False  # its answer comes later
        self.finished = False  # sends no more


class Door:
    """All clients.

    Parameters
    ----------
    listener : _socket.socket
        Bound and listening, non-blocking.
    poller : Poller
        Where to wait for them.
    serve : Callable[[dict, Connection], dict | None]
        Carries out one request; None when the answer comes later, through `answer`.
    """

    def __init__(
        self, listener: _socket.socket, poller: Poller, serve: Callable[[dict[str, object], Connection], dict[str, Any] | None]
    ) -> None:
        self._listener = listener
        self._take: Callable[[], tuple[int, object]] = getattr(listener, "_accept")  # noqa: B009  # what `socket.accept` calls; no stub has it
        self._poller = poller
        self._serve = serve
        self._connections: dict[int, Connection] = {}
        self._news = False
        self._told_at = float("-inf")
        self._deaf = False
        poller.add(listener.fileno(), IN, self._accept)

    def nudge(self) -> None:
        """Something was written or the state changed."""
        self._news = True

    def tell(self, now: float, status: Callable[[], dict[str, Any]]) -> float:
        """Push the status to whoever follows, if there is news and it is time; returns when to call again."""
        if not self._news:
            return float("inf")
        followers = [connection for connection in self._connections.values() if connection.following]
        if not followers:
            self._news = False
            return float("inf")
        if now < self._told_at + NUDGE_INTERVAL:
            return self._told_at + NUDGE_INTERVAL
        self._told_at = now
        self._news = False
        line = _line(status())
        for connection in followers:
            if connection.outgoing:  # has not read the last one: skipped now, and sent the newest when it has
                connection.stale = True
            else:
                self._send(connection, line)
        return float("inf")

    def answer(self, connection: Connection, reply: dict[str, Any]) -> None:
        """The answer that `serve` owed."""
        if self._here(connection) and connection.waiting:
            connection.waiting = False
            self._send(connection, _line(reply))
            self._take_requests(connection)

    def listen_again(self) -> None:
        """After a failure to accept, which would repeat at once for ever, listen again a tick later."""
        if self._deaf:
            self._deaf = False
            self._poller.add(self._listener.fileno(), IN, self._accept)

    def close(self, status: dict[str, Any]) -> None:
        """Say the last word to everybody who listens, and close."""
        line = _line(status)
        for connection in list(self._connections.values()):
            if (connection.following or connection.waiting) and not connection.outgoing:
                self._send(connection, line)
            self._drop(connection)
        if not self._deaf:
            self._poller.remove(self._listener.fileno())
        self._listener.close()
        try:
            os.unlink(SOCKET)
        except OSError:  # the folder was removed
            return

    def _accept(self, _bits: int) -> None:
        for _ in range(ACCEPTS):
            try:
                fd, _ = self._take()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # no descriptor left
                self._deaf = True
                self._poller.remove(self._listener.fileno())
                return
            sock = _socket.socket(fileno=fd)
            peer, may_command = _peer(sock)
            if len(self._connections) < CONNECTIONS and may_command:
                self._admit(sock, peer)
            else:
                sock.close()

    def _admit(self, sock: _socket.socket, peer: int) -> None:
        sock.setblocking(False)
        connection = Connection(sock, peer)
        self._connections[connection.fd] = connection
        self._poller.add(connection.fd, IN, lambda bits: self._ready(connection, bits))

    def _ready(self, connection: Connection, bits: int) -> None:
        if bits & OUT:
            self._flush(connection)
            self._take_requests(connection)
        elif bits & IN:
            self._read(connection)
        elif bits & GONE:
            self._drop(connection)

    def _read(self, connection: Connection) -> None:
        try:
            chunk = connection.sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection)
            return
        connection.finished = not chunk  # it may still read: `nc -N` shuts its sending half down
        if not connection.following:  # a follower has nothing more to say
            connection.incoming += chunk
        self._take_requests(connection)

    def _take_requests(self, connection: Connection) -> None:
        """Carry out the whole requests, one at a time: the next one only when the answer to the last has been taken."""
        while self._here(connection) and not (connection.waiting or connection.outgoing or connection.following):
            end = connection.incoming.find(b"\n")
            if end < 0 or end > REQUEST_LIMIT:
                if len(connection.incoming) > REQUEST_LIMIT:
                    self._send(connection, _line({"ok": False, "error": f"a request may have {REQUEST_LIMIT} bytes"}))
                    self._drop(connection)
                elif connection.finished:
                    self._drop(connection)
                break
            line = bytes(connection.incoming[:end])
            del connection.incoming[: end + 1]
            if not line.strip():
                continue
            reply = self._reply(line, connection)
            if reply is None:
                connection.waiting = True
            else:
                self._send(connection, _line(reply))
        self._watch(connection)

    def _reply(self, line: bytes, connection: Connection) -> dict[str, Any] | None:
        try:
            request: object = json.loads(line)
        except (ValueError, RecursionError):
            return {"ok": False, "error": "the request is not JSON"}
        if not is_object(request):
            return {"ok": False, "error": "the request is not a JSON object"}
        return self._serve(request, connection)

    def _send(self, connection: Connection, data: bytes) -> None:
        connection.outgoing += data
        self._flush(connection)

    def _flush(self, connection: Connection) -> None:
        if connection.outgoing:
            try:
                sent = connection.sock.send(connection.outgoing)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._drop(connection)
                return
            connection.outgoing = connection.outgoing[sent:]
        if not connection.outgoing:
            self._news = self._news or connection.stale
            connection.stale = False
        self._watch(connection)

    def _watch(self, connection: Connection) -> None:
        if not self._here(connection):
            return
        if connection.outgoing:
            mask = OUT  # nothing more is read from it until it has read
        elif connection.waiting or connection.finished:
            mask = 0  # poll still tells when it is gone
        else:
            mask = IN
        self._poller.change(connection.fd, mask)

    def _here(self, connection: Connection) -> bool:
        return self._connections.get(connection.fd) is connection

    def _drop(self, connection: Connection) -> None:
        if self._here(connection):
            del self._connections[connection.fd]
            self._poller.remove(connection.fd)
            connection.sock.close()


def listen() -> _socket.socket:
    """The control socket in the working folder: bound by its short name, for a socket's path holds 107 bytes.

    Raises
    ------
    OSError
        The folder cannot hold one.
    """
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    listener.bind(SOCKET)
    os.chmod(SOCKET, 0o600)
    listener.listen(CONNECTIONS)
    listener.setblocking(False)
    return listener


def _peer(sock: _socket.socket) -> tuple[int, bool]:
    """The client's process, and whether it is ours or root's. Where the system cannot tell, the modes of socket and folder stand guard alone."""
    if not hasattr(_socket, "SO_PEERCRED"):
        return 0, True
    try:
        pid, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS.size))
    except OSError:
        return 0, False
    return pid, uid in (os.geteuid(), 0)


def _line(reply: dict[str, Any]) -> bytes:
    return json.dumps(reply).encode() + b"\n"
