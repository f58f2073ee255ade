"""Who is at the other end of a connection, as the operating system says; and when our tools are offered to jupyter-server-mcp."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cc_executor.server import servermcp
from cc_executor.server.servermcp import owner_of_peer

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
LINE = "   1: 0100007F:{port:04X} 0100007F:0BB9 01 00000000:00000000 00:00000000 00000000 {uid:5d}        0 {inode} 1 0000000000000000 20 4 0 10 -1\n"


@contextmanager
def connected(
    family: socket.AddressFamily, listen: str, dial: str, dialling: socket.AddressFamily
) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    """A connection; its other end and ours, as a server is told of them."""
    with (
        socket.create_server((listen, 0), family=family, dualstack_ipv6=family is socket.AF_INET6) as listener,
        socket.socket(dialling) as client,
    ):
        client.connect((dial, listener.getsockname()[1]))
        accepted, peer = listener.accept()
        with accepted:
            yield peer[:2], accepted.getsockname()[:2]


@pytest.mark.parametrize(
    ("family", "listen", "dial", "dialling"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1", socket.AF_INET),
        (socket.AF_INET6, "::", "::1", socket.AF_INET6),
        (socket.AF_INET6, "::", "127.0.0.1", socket.AF_INET),  # the server is told of ::ffff:127.0.0.1
    ],
)
def test_a_process_of_ours_is_known(family: socket.AddressFamily, listen: str, dial: str, dialling: socket.AddressFamily) -> None:
    with connected(family, listen, dial, dialling) as (client, server):
        assert owner_of_peer(client, server) == os.getuid()
        assert owner_of_peer((client[0], 1), server) is None
    assert owner_of_peer(client, server) is None  # gone


@pytest.mark.parametrize(("uid", "inode", "expected"), [(1001, 77, 1001), (0, 77, 0), (1001, 0, None)])
def test_whose_it_is_stands_in_the_table(tmp_path: Path, uid: int, inode: int, expected: int | None) -> None:
    table = tmp_path / "tcp"
    table.write_text(HEAD + LINE.format(port=40001, uid=uid, inode=inode))
    assert owner_of_peer(("127.0.0.1", 40001), ("127.0.0.1", 3001), tables=(tmp_path / "none", table)) == expected
    assert owner_of_peer(("127.0.0.1", 40001), ("127.0.0.1", 3002), tables=(table,)) is None


@pytest.mark.parametrize("client", ["a-name", "", "10.0.0.300"])
def test_what_is_no_address_is_nobodys(client: str) -> None:
    assert owner_of_peer((client, 1), ("127.0.0.1", 2)) is None


def test_without_a_server_there_are_no_tools() -> None:
    assert servermcp.tools() == []


def test_there_is_no_other_function() -> None:
    with pytest.raises(AttributeError):
        servermcp.__getattr__("execute")
