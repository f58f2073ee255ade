"""One message to one address, signed, bounded in time, and only where it may go. Knows HTTP and addresses of the network; knows no run. Blocking.

Headers and signature are those of Standard Webhooks 1.0.0 (github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final
from urllib.parse import SplitResult

from cc_executor import __version__
from cc_executor.model.notify import address, is_loopback, secret_bytes

TIMEOUT: Final = 10.0  # seconds for one attempt
WAITS: Final = (1.0, 3.0)  # seconds between attempts: somebody who restarts is there again, and nobody's terminal stands still for long
_AGAIN: Final = frozenset({408, 425, 429})  # what a receiver may say that is well in a moment, besides all that it takes upon itself (5xx)
_PORTS: Final = {"https": 443, "http": 80}

IP = ipaddress.IPv4Address | ipaddress.IPv6Address


class _NotSent(Exception):
    """Why an attempt failed, in words without anything of the address; `is_final`: a further one would fail, too."""

    def __init__(self, why: str, *, is_final: bool = False) -> None:
        super().__init__(why)
        self.is_final = is_final


def send(
    target: str,
    body: bytes,
    *,
    message_id: str,
    secret: str = "",
    guarded: bool = False,
    hosts: Sequence[str] = (),
    waits: Sequence[float] = WAITS,
    timeout: float = TIMEOUT,
) -> str:
    """Post a message; why it did not arrive, or an empty text. The answer is not read, a redirect is not followed, and no proxy is asked.

    Parameters
    ----------
    target : str
        As `cc_executor.model.notify.notify_from` lets it through.
    message_id : str
        The same for every attempt; without full stops.
    secret : str
        ``whsec_…``; empty: no signature.
    guarded : bool
        Nothing goes to an address that is not everybody's (this machine, a private network, a cloud's own service), but for `hosts`. What is looked at is
        the address that is connected to.
    """
    parts = address(target)
    if parts is None:
        return "it is no address"
    why = ""
    for wait in (*waits, None):
        try:
            _attempt(parts, body, message_id, secret, check=guarded and not is_named(parts.hostname or "", hosts), timeout=timeout)
        except _NotSent as error:
            why = str(error)
            if error.is_final or wait is None:
                break
            time.sleep(wait)  # between two attempts, in a thread of its own: an address that does not answer tells of nothing
        else:
            return ""
    return why


def is_named(host: str, hosts: Sequence[str]) -> bool:
    """Whether a host is one of those; ``*.example.org`` names everything below it."""
    host = host.lower().rstrip(".")
    return any(host == each.lower() or (each.startswith("*.") and host.endswith(each[1:].lower())) for each in hosts)


def _attempt(parts: SplitResult, body: bytes, message_id: str, secret: str, *, check: bool, timeout: float) -> None:
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    places = _resolved(host, port, check=check, is_plain=parts.scheme == "http")
    at = str(int(time.time()))
    headers = {
        "Host": parts.netloc,
        "Content-Type": "application/json",
        "User-Agent": f"cc-executor/{__version__}",
        "webhook-id": message_id,
        "webhook-timestamp": at,
    }
    if secret:
        headers["webhook-signature"] = signature(secret, message_id, at, body)
    until = time.monotonic() + timeout
    try:
        with _connected(places, port, until) as raw, _over(raw, parts.scheme, host) as stream:
            # An answer that comes byte by byte would be within every timeout of a socket.
            guard = threading.Timer(max(0.0, until - time.monotonic()), _cut, (stream,))
            guard.daemon = True
            guard.start()
            try:
                status = _exchange(stream, parts, port, body, headers)
            finally:
                guard.cancel()
    except ssl.SSLCertVerificationError as error:
        raise _NotSent(f"its certificate does not hold ({error.verify_message})", is_final=True) from error
    except TimeoutError as error:
        raise _NotSent(f"no answer within {timeout:g} s") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        if time.monotonic() >= until:
            raise _NotSent(f"no answer within {timeout:g} s") from error
        said = error.strerror if isinstance(error, OSError) else ""
        raise _NotSent(said or f"the connection failed ({type(error).__name__})") from error
    if not http.HTTPStatus.OK <= status < http.HTTPStatus.MULTIPLE_CHOICES:
        is_redirect = http.HTTPStatus.MULTIPLE_CHOICES <= status < http.HTTPStatus.BAD_REQUEST
        is_passing = status in _AGAIN or status >= http.HTTPStatus.INTERNAL_SERVER_ERROR
        raise _NotSent(f"it answered {status}{' (redirects are not followed)' if is_redirect else ''}", is_final=not is_passing)


def _connected(places: Sequence[str], port: int, until: float) -> socket.socket:
    """A connection to the first of these addresses that takes one."""
    for number, place in enumerate(places, 1):
        try:
            raw = socket.create_connection((place, port), timeout=max(0.01, (until - time.monotonic()) / (len(places) - number + 1)))
        except OSError:
            if number == len(places):
                raise
        else:
            # Else whoever has many addresses would have a part of the time to answer, and the message again.
            raw.settimeout(max(0.01, until - time.monotonic()))
            return raw
    raise _NotSent("there is no such host")


def _over(raw: socket.socket, scheme: str, host: str) -> socket.socket:
    if scheme == "http":
        return raw
    return ssl.create_default_context().wrap_socket(raw, server_hostname=host, do_handshake_on_connect=False)


def _exchange(stream: socket.socket, parts: SplitResult, port: int, body: bytes, headers: dict[str, str]) -> int:
    if isinstance(stream, ssl.SSLSocket):
        stream.do_handshake()
    connection = http.client.HTTPConnection(parts.hostname or "", port)
    connection.sock = stream
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.request("POST", path, body=body, headers=headers)
    return connection.getresponse().status


def _cut(stream: socket.socket) -> None:
    with suppress(OSError):  # it is over
        socket.socket.shutdown(stream, socket.SHUT_RDWR)  # that of TLS would say good-bye first, and wait


def _resolved(host: str, port: int, *, check: bool, is_plain: bool) -> list[str]:
    """The addresses to connect to. Where it matters which ones they are, all that the name stands for must be fit."""
    try:
        found = list(dict.fromkeys(str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
    except (OSError, UnicodeError) as error:
        raise _NotSent("there is no such host") from error
    if is_plain and not all(map(is_loopback, found)):
        raise _NotSent("http goes to this machine alone", is_final=True)
    if check and not all(map(is_public, found)):
        raise _NotSent("its address is of this machine or of a private network, which is not allowed here", is_final=True)
    return found


def is_public(text: str) -> bool:
    """Whether an address is everybody's, and so are those that are hidden in it (mapped, NAT64 of RFC 6052, 6to4, Teredo)."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return all(each.is_global and not each.is_multicast for each in _with_hidden(found))


_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


def _with_hidden(found: IP) -> list[IP]:
    if isinstance(found, ipaddress.IPv4Address):
        return [found]
    if found.ipv4_mapped is not None:
        return [found.ipv4_mapped]
    hidden: list[IP | None] = [found.sixtofour, *(found.teredo or ())]
    if found in _NAT64:
        hidden.append(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF))
    return [found, *(each for each in hidden if each is not None)]


def signature(secret: str, message_id: str, at: str, body: bytes) -> str:
    """The header's value: HMAC-SHA256 over id, time and body, as Standard Webhooks says in "Signature scheme"."""
    signed = b".".join((message_id.encode("ascii"), at.encode("ascii"), body))
    return "v1," + base64.b64encode(hmac.new(secret_bytes(secret), signed, hashlib.sha256).digest()).decode("ascii")
