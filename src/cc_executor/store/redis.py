"""History rows in a Redis that several machines share: an extra (`pip install 'cc-executor[redis]'`), a mirror, and never in the path of a run.

redis-py 8.1 tries ten times by default: 2.7-4.6 s for each call to a server that is dead, more than 45 s to one that hangs. So here everything is tried
once, each answer is waited for `PATIENCE` seconds, and whoever calls has a thread for it. What comes back was written by others: it is decoded strictly,
has bounds, and is cleaned.

Two keys: a hash with a row of JSON for each run, and a sorted set that gives their order in time.
"""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, Final, cast
from urllib.parse import parse_qsl, urlsplit

import msgspec

from cc_executor.errors import HistoryNotShared, InvalidRequest
from cc_executor.model.ansi import clean, encodable
from cc_executor.store.historyrow import HistoryRow
from cc_executor.store.place import RUN_ID

ROWS: Final = "cc_executor:history:1:rows"
ORDER: Final = "cc_executor:history:1:order"
PATIENCE: Final = 0.5  # seconds for a connection, and for each answer
PULL_PATIENCE: Final = 5.0  # seconds for all rows that somebody reads
CHUNK: Final = 200  # rows of one command
KEPT: Final = 100_000  # rows, some 100 MB; the oldest go
PULLED: Final = 10_000  # rows that are read at most
ROW_LIMIT: Final = 16_384  # bytes; ours have about 600
LATEST: Final = 100e9  # seconds since the epoch: a year that every calendar can show, and every time zone of it
LARGEST: Final = 1e16  # of any number in a row: sums of them are still numbers
TEXT_LIMIT: Final = 4_096  # characters of one field: as long as a path may be

SCHEMES: Final = frozenset({"redis", "rediss", "unix"})
# What an address may say besides; the rest of redis-py's options would take our bounds away.
OPTIONS: Final = frozenset({"db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname", "username", "password"})

UNREADABLE: Final = "The address of Redis cannot be read. It looks like redis://:PASSWORD@HOST:6379/0; in a password write / as %2F, ? as %3F, # as %23 and % as %25."

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(HistoryRow)


def check_url(url: str) -> None:
    """Refuse an address that is none, or that would let anybody read and write.

    Raises
    ------
    InvalidRequest
    """
    try:
        parts = urlsplit(url)
        host, named = parts.hostname or "", dict(parse_qsl(parts.query))
        _ = parts.port
    except ValueError:  # whose words would show a part of the password
        raise InvalidRequest(UNREADABLE) from None
    if parts.netloc and "@" not in parts.netloc and "@" in parts.path + parts.fragment:  # the password has ended the name of the host
        raise InvalidRequest(UNREADABLE)
    if parts.scheme not in SCHEMES:
        raise InvalidRequest("The address of Redis must begin with redis://, rediss:// (TLS) or unix:// (a socket's path).")
    if unknown := named.keys() - OPTIONS:
        raise InvalidRequest(f"The address of Redis has an option that is not taken: {', '.join(sorted(unknown))}. Remove it.")
    if parts.scheme != "rediss" and (tls := sorted(name for name in named if name.startswith("ssl_"))):
        raise InvalidRequest(f"The address of Redis has {tls[0]}, which is for TLS alone: begin with rediss://, or remove it.")
    is_socket = parts.scheme == "unix"
    if is_socket and not parts.path:
        raise InvalidRequest("The address of Redis names no socket. It looks like unix:///run/redis.sock.")
    database = named.get("db") or ("" if is_socket else parts.path.strip("/"))
    if database and not (database.isascii() and database.isdigit()):
        raise InvalidRequest(
            f"The database in the address of Redis must be a number, as in redis://:PASSWORD@HOST:6379/0 (given: {database[:40]!r})."
        )
    if not is_socket and not _is_loopback(host) and not (parts.password or named.get("password")):
        raise InvalidRequest(
            f"Redis on {host} has no password in its address: anybody there could read and forge the history. "
            "Use rediss://USER:PASSWORD@HOST, or a Redis of this machine."
        )


def _is_loopback(host: str) -> bool:
    if host in {"", "localhost"}:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class RedisMirror:
    """The shared history. Every method may take `PATIENCE` and blocks: not for an event loop, and not for anybody in a hurry.

    Parameters
    ----------
    url : str
        See `check_url`.

    Raises
    ------
    InvalidRequest
    HistoryNotShared
        The extra is not installed.
    """

    def __init__(self, url: str) -> None:
        check_url(url)
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise HistoryNotShared("The shared history needs redis-py: `pip install 'cc-executor[redis]'`.") from error
        self._errors = (redis.RedisError, OSError)
        self._client: Any = cast("Any", redis.Redis).from_url(  # its keywords are typed as partly unknown
            url,
            socket_connect_timeout=PATIENCE,
            socket_timeout=PATIENCE,
            retry=Retry(NoBackoff(), 0),
            retry_on_timeout=False,
            protocol=2,  # the third one asks the server more questions than we have
            max_connections=1,
        )

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    @contextlib.contextmanager
    def _asking(self) -> Generator[Any]:
        try:
            yield self._client
        except self._errors as error:
            with contextlib.suppress(*self._errors):  # what is half read belongs to no later question
                self._client.connection_pool.disconnect()
            raise HistoryNotShared(_sentence(error)) from error

    def check(self) -> None:
        """Whether the server is there and takes us.

        Raises
        ------
        HistoryNotShared
        """
        with self._asking() as client:
            client.ping()

    def put(self, rows: Iterable[HistoryRow]) -> None:
        """Add rows, or replace those of the same runs.

        Raises
        ------
        HistoryNotShared
        """
        with self._asking() as client:
            for some in _chunks(list(rows)):
                pipe = client.pipeline(transaction=True)
                pipe.hset(ROWS, mapping={row.run_id: _line(row) for row in some})
                pipe.zadd(ORDER, dict.fromkeys((row.run_id for row in some), 0))  # in the order of the ids, which is that of time
                pipe.zcard(ORDER)
                surplus = int(pipe.execute()[-1]) - KEPT
                if surplus > 0 and (oldest := [name for name, _ in client.zpopmin(ORDER, surplus)]):
                    client.hdel(ROWS, *oldest)

    def remove(self, run_ids: Iterable[str]) -> None:
        """Take rows out.

        Raises
        ------
        HistoryNotShared
        """
        with self._asking() as client:
            for some in _chunks(list(run_ids)):
                pipe = client.pipeline(transaction=True)
                pipe.hdel(ROWS, *some)
                pipe.zrem(ORDER, *some)
                pipe.execute()

    def rows(self, *, limit: int = PULLED) -> tuple[list[HistoryRow], int]:
        """The newest rows, newest first, and how many of them are none: damaged, forged, or of a newer version.

        Raises
        ------
        HistoryNotShared
            Also when they do not come within `PULL_PATIENCE`.
        """
        found: list[HistoryRow] = []
        strange = 0
        ends = time.monotonic() + PULL_PATIENCE
        with self._asking() as client:
            names = cast("list[bytes]", client.zrevrange(ORDER, 0, min(limit, PULLED) - 1))
            for some in _chunks(names):
                if time.monotonic() > ends:
                    raise HistoryNotShared(f"Redis is too slow: {len(found):,} of {len(names):,} rows came within {PULL_PATIENCE:g} s.")
                for name, data in zip(some, cast("list[bytes | None]", client.hmget(ROWS, some)), strict=True):
                    row = _row(name, data)
                    if row is None:
                        strange += 1
                    else:
                        found.append(row)
        return found, strange


def _chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


def _line(row: HistoryRow) -> bytes:
    """A row as it is kept: what is no Unicode is replaced, what is too long is cut."""
    plain = {name: encodable(value[:TEXT_LIMIT]) if isinstance(value, str) else value for name, value in row.as_dict().items()}
    return _encoder.encode(plain)


def _row(name: bytes, data: bytes | None) -> HistoryRow | None:
    """A row as others wrote it; None when it is none."""
    if data is None or len(data) > ROW_LIMIT:
        return None
    try:
        row = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if row.run_id.encode("utf-8", "replace") != name or not RUN_ID.match(row.run_id):
        return None
    if not 0 <= row.started <= LATEST or any(isinstance(value, int | float) and abs(value) > LARGEST for value in row.as_dict().values()):
        return None
    texts = {name: clean(value)[:TEXT_LIMIT] for name, value in row.as_dict().items() if isinstance(value, str)}
    return msgspec.structs.replace(row, **texts)


def _sentence(error: BaseException) -> str:
    """What went wrong, and what helps. Never the address: it holds the password."""
    name, said = type(error).__name__, " ".join(str(error).split())[:200]
    match name:
        case "AuthenticationError" | "AuthenticationWrongNumberOfArgsError" | "NoPermissionError":
            return f"Redis refuses the password or the user ({said}). Mend CC_EXECUTOR_REDIS."
        case "OutOfMemoryError":
            return "Redis has no memory left and takes no rows. Give it more (maxmemory), or remove old rows."
        case "TimeoutError":
            return f"Redis does not answer within {PATIENCE:g} s."
        case "ConnectionError" | "ConnectionRefusedError" | "FileNotFoundError" | "BusyLoadingError":
            return f"Redis cannot be reached ({said})."
        case _:
            return f"Redis answers with an error ({name}: {said})."
