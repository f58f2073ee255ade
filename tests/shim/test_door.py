"""The control socket: who may speak, what is answered, and that nobody can disturb the run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cc_executor.shim.records as fmt
from cc_executor.shim import door
from support.shims import BOUND, SHIM, Client, Run, until, watch

Start = Callable[..., Run]

SLEEPER = "import os, time; os.write(1, b'ready'); time.sleep(100)"
STRANGER = r"""
import os, socket, sys
os.setuid(65534)
sock = socket.socket(fileno=0)
sock.connect(sys.argv[1])
sock.sendall(b'{"op": "status"}\n')
print(repr(sock.recv(10)))
"""
STEPS = """
import os, sys
for line in sys.stdin:
    os.write(1, line.encode())
"""


@pytest.fixture
def run(start: Start) -> Iterator[Run]:
    run = start(SLEEPER)
    until(lambda: run.read() == b"ready")
    yield run
    run.ask(op="cancel", now=True)
    run.wait()
    assert run.read(fmt.LOG) == b""


def test_the_status_tells_what_it_promises(run: Run) -> None:
    status = run.ask(op="status")
    assert tuple(status) == fmt.STATUS_FIELDS
    assert (status["ok"], status["state"], status["agent_pid"], status["processes"]) == (True, "running", run.agent, 1)
    assert status["written"] == {"stdout": 5, "stderr": 0, "control.jsonl": len(run.read(fmt.CONTROL))}
    assert status["active"] > 0


@pytest.mark.parametrize(
    "line",
    [b"nonsense", b"[1]", b"null", b"{}", b'{"op": 3}', b'{"op": "explode"}', b'{"op": ["status"]}', b"\xff\xff", b"[" * 100_000, b'{"op": "stdin", "data": 1}'],
)  # fmt: skip
def test_a_bad_request_is_refused_and_the_connection_goes_on(run: Run, line: bytes) -> None:
    client = Client(run.folder)
    client.sock.sendall(line + b"\n\n")
    reply = client.receive()
    assert reply is not None
    assert reply["ok"] is False
    assert reply["error"]
    assert client.ask(op="status")["ok"]
    client.close()


def test_many_requests_at_once_are_answered_in_order(run: Run) -> None:
    client = Client(run.folder)
    client.sock.sendall(b'{"op": "status"}\n{"op": "x"}\n' * 500 + b'{"op": "pause"}\n{"op": "status"}\n{"op": "resume"}\n')
    replies = [client.receive() for _ in range(1003)]
    assert [reply is not None and reply["ok"] for reply in replies] == [True, False] * 500 + [True] * 3
    assert [reply["state"] for reply in replies[-3:] if reply] == ["paused", "paused", "running"]
    client.close()


def test_a_client_may_shut_its_sending_half(run: Run) -> None:
    client = Client(run.folder)
    client.send(op="status")
    client.send(op="pause")
    client.sock.shutdown(socket.SHUT_WR)
    first, second = client.receive(), client.receive()
    assert first is not None
    assert second is not None
    assert second["state"] == "paused"
    assert client.receive() is None
    client.close()
    run.ask(op="resume")


def test_a_request_that_is_too_long_ends_its_connection_only(run: Run) -> None:
    client = Client(run.folder)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        client.sock.sendall(b"x" * 100 * 65536)
    client.close()
    assert run.ask(op="status")["ok"]


@pytest.mark.row("faults", "subscriber that never reads", "blocks nobody, costs no memory")
def test_who_never_reads_holds_up_nobody(start: Start) -> None:
    run = start("import os\nwhile True: os.write(1, b'x' * 1000)")
    followers = [Client(run.folder) for _ in range(5)]
    for client in followers:
        client.send(op="follow")
    asker = Client(run.folder)
    asker.sock.settimeout(2)
    with pytest.raises(TimeoutError):
        asker.sock.sendall(b'{"op": "status"}\n' * 10**6)
    before = rss(run)
    size = run.ask(op="status")["written"]["stdout"]
    until(lambda: run.ask(op="status")["written"]["stdout"] > size + 20 * 2**20)
    watch(0.3)
    assert rss(run) < before + 2**20
    asker.close()
    run.ask(op="cancel", now=True)
    run.wait()
    for client in followers:
        client.close()


def rss(run: Run) -> int:
    return int(Path(f"/proc/{run.process.pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.row("faults", "subscribers that vanish", "blocks nobody")
def test_vanishing_clients_disturb_nothing(run: Run) -> None:
    for number in range(200):
        client = Client(run.folder)
        if number % 3:
            client.send(op="follow" if number % 2 else "status")
        if number % 5 == 0:
            client.sock.sendall(b'{"op": "half')
        client.close()
    assert run.ask(op="status")["ok"]
    until(lambda: len(os.listdir(f"/proc/{run.process.pid}/fd")) < 30)


def test_only_so_many_connections_are_held(run: Run) -> None:
    clients = [Client(run.folder) for _ in range(door.CONNECTIONS)]
    for client in clients:
        assert client.ask(op="status")["ok"]
    extra = Client(run.folder)
    assert extra.receive() is None
    extra.close()
    for client in clients:
        client.close()
    until(lambda: answers(run))


def answers(run: Run) -> bool:
    client = Client(run.folder)
    try:
        client.send(op="status")
        return client.receive() is not None
    except BrokenPipeError:
        return False
    finally:
        client.close()


def test_a_shim_without_a_descriptor_for_a_client_listens_again(start: Start) -> None:
    run = start(("/bin/sleep", "60"), prefix=("/bin/sh", "-c", 'ulimit -n 40; exec "$@"', "sh"))
    clients = [Client(run.folder) for _ in range(60)]
    for client in clients[:5]:
        assert client.ask(op="status")["ok"]
    for client in clients:
        client.close()
    assert run.ask(op="cancel", now=True)["ok"]
    run.wait()


def test_a_follower_is_told_what_happens_until_the_end(start: Start) -> None:
    run = start(STEPS, stdin="open")
    client = Client(run.folder)
    first = client.ask(op="follow")
    assert (first["state"], first["written"]["stdout"]) == ("running", 0)
    run.ask(op="stdin", data="one\n")
    until(lambda: (news := client.receive()) and news["written"]["stdout"] == 4)
    run.ask(op="pause")
    until(lambda: (news := client.receive()) and news["state"] == "paused")
    run.ask(op="resume")
    until(lambda: (news := client.receive()) and news["state"] == "running")
    run.ask(op="stdin", data="two\n", close=True)
    last: list[dict[str, object]] = []
    while news := client.receive():
        last.append(news)
    run.wait()
    assert last[-1]["state"] == "exited"
    assert last[-1]["written"] == {"stdout": 8, "stderr": 0, "control.jsonl": len(run.read(fmt.CONTROL))}
    client.close()


def test_pushes_are_coalesced_in_a_flood(start: Start, tmp_path: Path) -> None:
    run = start("import os\nwhile not os.path.exists('enough'): os.write(1, b'x\\n')")
    client = Client(run.folder)
    client.send(op="follow")
    pushes = 0
    while client.receive():
        pushes += 1
        if pushes == 50:
            (tmp_path / "enough").touch()
    facts = run.wait()
    assert 50 <= pushes <= facts["elapsed"] / fmt.NUDGE_INTERVAL + 10
    client.close()


# A shim whose sockets take no more than a few answers that nobody reads.
NARROW = f"""
import _socket, sys
sys.path.append({str(SHIM.parents[2])!r})
from cc_executor.shim import door, start
def admit(self, sock, peer, admit=door.Door._admit):
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, 1)
    admit(self, sock, peer)
door.Door._admit = admit
start.main()
"""


def test_a_follower_that_was_slow_gets_the_newest(start: Start) -> None:
    run = start(STEPS, stdin="open", program=("-c", NARROW))
    client = Client(run.folder)
    client.send(op="follow")
    for _ in range(100):
        run.ask(op="stdin", data="x" * 99 + "\n")
    until(lambda: run.ask(op="status")["written"]["stdout"] == 10_000)
    until(lambda: (news := client.receive()) and news["written"]["stdout"] == 10_000)
    run.ask(op="cancel", now=True)
    run.wait()
    client.close()


def test_names_that_no_record_can_hold_are_made_fit(start: Start) -> None:
    run = start(SLEEPER)
    client = Client(run.folder)
    client.sock.sendall(b'{"op": "pause", "by": "half \\ud800 ' + b"x" * 1000 + b'"}\n')
    assert client.receive()
    client.sock.sendall(b'{"op": "cancel", "by": 7, "reason": ["?"], "now": true}\n')
    assert client.receive()
    client.close()
    run.wait()
    by = run.record("paused")["by"]
    assert by.startswith("half ? x")
    assert len(by) == 200
    assert (run.record("stop_requested")["by"], run.record("stop_requested")["reason"]) == ("", "cancel")


@pytest.mark.row("threats", "another user at the control socket", "hung up on, also where the modes were opened by hand")
def test_somebody_else_may_not_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:  # nobody to become: the decision alone
        ours, theirs = socket.socketpair()
        with ours, theirs:
            monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
            assert not door._peer(ours)[1]
        return
    run.folder.chmod(0o755)
    (run.folder / fmt.SOCKET).chmod(0o666)
    with socket.socket(socket.AF_UNIX) as mine:
        command = (sys.executable, "-I", "-S", "-c", STRANGER, fmt.SOCKET)
        stranger = subprocess.Popen(command, stdin=mine.fileno(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=run.folder)
        output, _ = stranger.communicate(timeout=BOUND)
    assert output.strip() == b"b''" or b"BrokenPipeError" in output or b"ConnectionResetError" in output
    assert run.ask(op="status")["ok"]
