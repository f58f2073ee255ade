"""A real redis-server of a test's own: in a folder of its own, on a socket and a port of its own, and gone afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import redis

from support.environments import Missing
from support.ports import free_port
from support.runs import wait_for

START_BUDGET: Final = 60.0  # seconds; 50 ms on an idle machine


def redis_server() -> Path:
    """The executable; the same search as in `.ci/redis`."""
    named = Path(os.environ.get("REDIS_SERVER", "/usr/bin/redis-server"))
    if named.exists():
        return named
    found = shutil.which("redis-server")
    if found:
        return Path(found)
    raise Missing("There is no redis-server: `make redis` installs it, or name one with REDIS_SERVER=/path/to/it.")


@dataclass
class RedisServer:
    """One server."""

    process: subprocess.Popen[bytes]
    socket: Path
    port: int
    password: str

    @property
    def url(self) -> str:
        """By its socket."""
        return f"unix://{f':{self.password}@' if self.password else ''}{self.socket}"

    @property
    def tcp_url(self) -> str:
        """By its port on loopback."""
        return f"redis://{f':{self.password}@' if self.password else ''}127.0.0.1:{self.port}/0"

    @property
    def client(self) -> Any:
        """For a test that looks for itself."""
        return cast("Any", redis.Redis)(unix_socket_path=str(self.socket), password=self.password or None)

    def hang(self) -> None:
        """Answer nobody any more, without being gone."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def running_redis(*settings: str, password: str = "", socket: Path | None = None) -> Iterator[RedisServer]:
    """A server that keeps nothing on disk. `settings`: as in its configuration, `maxmemory 2mb`. `socket`: where one was before, and went down."""
    folder = Path(tempfile.mkdtemp(prefix="cc-redis-"))  # a short path: a socket's name holds 107 bytes
    port, place = free_port(), socket or folder / "s"
    lines = ["bind 127.0.0.1", f"port {port}", f"unixsocket {place}", "unixsocketperm 700", f"dir {folder}", 'save ""', "appendonly no"]
    lines += [f"requirepass {password}"] if password else []
    (folder / "redis.conf").write_text("\n".join([*lines, *settings]) + "\n")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([redis_server(), folder / "redis.conf"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    server = RedisServer(process, place, port, password)

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        with contextlib.suppress(redis.RedisError), contextlib.closing(server.client) as client:
            return bool(client.ping())
        return False

    try:
        wait_for(answers, within=START_BUDGET)
        yield server
    finally:
        process.kill()  # it may be stopped
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
