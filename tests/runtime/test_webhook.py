"""Messages to addresses, with a real server on loopback: signed as the standard says, in bounded time, and nowhere they may not go."""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import hmac
import itertools
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from cc_executor.errors import InvalidRequest
from cc_executor.model.notify import Notify, NotifyOn, notify_from, shown
from cc_executor.runtime.webhook import is_named, is_public, send, signature
from support.receiver import Receiver, certified, receiving
from support.runs import BOUND, wait_for

CANARY = "T0K3N-canary-7351"
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
NO_WAITS = (0.0, 0.0)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def told(receiver: Receiver, *, path: str = "/hook", body: bytes = b"{}", secret: str = "", timeout: float = BOUND) -> str:
    return send(receiver.url(path), body, message_id="msg_1", secret=secret, waits=NO_WAITS, timeout=timeout)


def test_a_message_is_signed_as_standard_webhooks_says(receiver: Receiver) -> None:
    body = b'{"type":"run.done"}'
    assert told(receiver, path=f"/a/{CANARY}?key=1", body=body, secret=SECRET) == ""
    [got] = receiver.received
    assert (got.path, got.body, got.headers["content-type"]) == (f"/a/{CANARY}?key=1", body, "application/json")
    assert abs(int(got.headers["webhook-timestamp"]) - time.time()) < 60
    signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + got.body
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert got.headers["webhook-signature"] == f"v1,{expected}"


def test_the_example_of_the_standard_s_own_libraries_has_its_signature() -> None:
    # The vector with which the reference libraries test themselves (libraries/python/tests/test_webhooks.py).
    found = signature("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_without_a_secret_nothing_is_signed(receiver: Receiver) -> None:
    assert told(receiver) == ""
    assert "webhook-signature" not in receiver.received[0].headers


@pytest.mark.parametrize(
    ("answers", "sent", "why"),
    [
        ([500, 503], 3, ""),
        ([429, 500, 502], 3, "it answered 502"),
        ([408, 425], 3, ""),
        ([520, 507], 3, ""),
        ([404], 1, "it answered 404"),
        ([302], 1, "it answered 302 (redirects are not followed)"),
    ],
)
def test_what_may_pass_is_tried_again_and_what_will_not_is_not(receiver: Receiver, answers: list[int], sent: int, why: str) -> None:
    receiver.answers = list(answers)
    assert told(receiver) == why
    assert [each.path for each in receiver.received] == ["/hook"] * sent
    assert len({each.headers["webhook-id"] for each in receiver.received}) == 1


def test_between_two_attempts_it_waits_and_no_thread_is_left_of_either(receiver: Receiver) -> None:
    receiver.answers = [500, 500]
    began = time.monotonic()
    assert send(receiver.url(), b"{}", message_id="msg_1", waits=(0.05, 0.1), timeout=10 * BOUND) == ""
    assert time.monotonic() - began >= 0.15
    wait_for(
        lambda: not [each for each in threading.enumerate() if isinstance(each, threading.Timer)]
    )  # none that has all of its time before it


def test_a_port_that_is_not_named_is_the_scheme_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def nowhere(host: str, port: int, **more: object) -> list[Any]:
        asked.append((host, port))
        raise socket.gaierror(socket.EAI_NONAME, "no such host")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    for target in ("https://hooks.example/x", "http://localhost/x", "https://hooks.example:8443/x"):
        assert send(target, b"{}", message_id="msg_1", waits=()) == "there is no such host"
    assert asked == [("hooks.example", 443), ("localhost", 80), ("hooks.example", 8443)]


def test_an_address_without_a_path_is_its_root(receiver: Receiver) -> None:
    assert told(receiver, path="?key=1") == ""
    assert receiver.received[0].path == "/?key=1"


def test_what_is_no_address_is_said_to_be_none() -> None:
    assert send(f"command:{CANARY}", b"{}", message_id="msg_1") == "it is no address"


def _silent(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.recv(1)  # until the other side goes


def _dripping(handler: BaseHTTPRequestHandler) -> None:
    with contextlib.suppress(OSError):  # the other side has gone
        handler.wfile.write(b"HTTP/1.1 ")
        while True:
            handler.wfile.write(b"2")
            time.sleep(0.05)  # slower than no timeout of a socket, faster than each


@pytest.mark.parametrize("reply", [_silent, _dripping])
def test_a_receiver_that_says_nothing_or_never_ends_is_left(
    receiver: Receiver, reply: Callable[[BaseHTTPRequestHandler], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = itertools.count(1)

    class SinceHeard(threading.Timer):
        """Begins when the attempt was heard, however long a busy machine takes for that."""

        def run(self) -> None:
            receiver.wait(next(attempts))
            super().run()

    monkeypatch.setattr(threading, "Timer", SinceHeard)
    receiver.reply = reply
    began = time.monotonic()
    assert told(receiver, timeout=0.5) == "no answer within 0.5 s"
    assert len(receiver.wait(3)) == 3
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(("answer", "why"), [(b"", "RemoteDisconnected"), (b"SSH-2.0-OpenSSH_9.6\r\n", "BadStatusLine")])
def test_who_hangs_up_or_speaks_something_else_is_tried_again_and_named(receiver: Receiver, answer: bytes, why: str) -> None:
    def speak(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(answer)

    receiver.reply = speak
    assert told(receiver) == f"the connection failed ({why})"
    assert len(receiver.received) == 3


def standing_for(addresses: list[str], *, known: str = "localhost") -> Callable[..., list[Any]]:
    """`getaddrinfo` of a machine where that name has these."""
    look_up = socket.getaddrinfo

    def looked_up(host: str, *more: Any, **others: Any) -> list[Any]:
        return [each for name in (addresses if host == known else [host]) for each in look_up(name, *more, **others)]

    return looked_up


@contextlib.contextmanager
def taking_no_connection(address: str, port: int = 0) -> Iterator[int]:
    """The port of somebody who neither takes nor refuses a connection."""
    with socket.socket() as full, contextlib.ExitStack() as others:
        full.bind((address, port))
        full.listen(0)
        for _ in range(20):  # nobody takes them, and there is no room for one more
            other = others.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        yield full.getsockname()[1]


def test_a_receiver_with_many_addresses_has_all_the_time_to_answer_and_hears_it_once(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(handler: BaseHTTPRequestHandler) -> None:
        select.select([handler.connection], [], [], 0.3)  # longer than what each address has to take the connection
        handler.send_response(204)
        handler.end_headers()

    monkeypatch.setattr(socket, "getaddrinfo", standing_for([f"127.0.{number % 2}.{number // 2 + 1}" for number in range(400)]))
    receiver.reply = slowly
    assert send(f"http://localhost:{receiver.port}/", b"{}", message_id="msg_1", waits=NO_WAITS, timeout=BOUND) == ""
    assert len(receiver.received) == 1


def test_an_address_that_takes_no_connection_is_left_for_the_next_one(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with taking_no_connection("127.0.0.1") as port:
        assert send(f"http://127.0.0.1:{port}/{CANARY}", b"{}", message_id="msg_1", waits=(), timeout=0.2) == "no answer within 0.2 s"
    monkeypatch.setattr(socket, "getaddrinfo", standing_for(["127.0.0.2", "127.0.0.1", *(f"127.0.1.{number}" for number in range(1, 19))]))
    with taking_no_connection("127.0.0.2", receiver.port):
        assert send(f"http://localhost:{receiver.port}/", b"{}", message_id="msg_1", waits=(), timeout=BOUND) == ""  # 3 s for each of 20


def test_nobody_there_is_said_without_the_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        why = send(f"http://127.0.0.1:{port}/{CANARY}", b"{}", message_id="msg_1", waits=NO_WAITS)
    assert why == "Connection refused"
    why = send(f"https://does-not-exist.invalid/{CANARY}", b"{}", message_id="msg_1", waits=())
    assert why == "there is no such host"


def test_tls_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = certified(tmp_path)
    with receiving(certificate) as receiver:
        began = time.monotonic()
        why = send(receiver.url(), b"{}", message_id="msg_1", waits=(BOUND,), timeout=BOUND)
        assert why.startswith("its certificate does not hold")
        assert time.monotonic() - began < BOUND, "a further attempt would end in the same way"
        assert receiver.received == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert told(receiver, secret=SECRET) == ""
        other = send(f"https://127.0.0.1:{receiver.port}/", b"{}", message_id="msg_1", waits=NO_WAITS, timeout=BOUND)
        assert other.startswith("its certificate does not hold"), "it is localhost's, not 127.0.0.1's"
    assert len(receiver.received) == 1


@pytest.mark.row("threats", "a webhook to an address that only the server can reach", "refused by the address that would be connected to")
def test_a_guarded_message_goes_to_no_address_of_this_machine_but_those_that_are_named(receiver: Receiver) -> None:
    def guarded(url: str, *hosts: str) -> str:
        waits = (BOUND,) * 2  # nothing is tried again
        return send(url, b"{}", message_id="msg_1", guarded=True, hosts=hosts, waits=waits, timeout=BOUND)

    refused = "its address is of this machine or of a private network, which is not allowed here"
    assert guarded(receiver.url()) == refused
    assert guarded(f"http://localhost:{receiver.port}/") == refused
    assert guarded(f"https://localhost:{receiver.port}/") == refused, "a name is looked up before anything is sent"
    assert guarded(f"https://[::ffff:127.0.0.1]:{receiver.port}/") == refused
    assert guarded(f"https://127.1:{receiver.port}/") == refused
    assert receiver.received == []
    assert guarded(receiver.url(), "127.0.0.1") == ""
    assert len(receiver.received) == 1


def test_every_address_of_a_name_is_looked_at_and_no_other_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    connected: list[object] = []

    def refusing(address: object, **more: object) -> socket.socket:
        connected.append(address)
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    def said(url: str, *addresses: str) -> str:
        with monkeypatch.context() as here:
            here.setattr(socket, "getaddrinfo", standing_for(list(addresses), known="the.name"))
            here.setattr(socket, "create_connection", refusing)
            return send(url, b"{}", message_id="msg_1", guarded=url.startswith("https"), waits=())

    assert said("https://the.name/x", "8.8.8.8", "10.0.0.8").startswith("its address is of this machine or of a private network")
    assert connected == []
    assert said("https://the.name/x", "8.8.8.8", "9.9.9.9") == "Connection refused"
    assert connected == [("8.8.8.8", 443), ("9.9.9.9", 443)], (
        "the addresses that were looked at: a name may stand for others a moment later"
    )


def test_a_message_in_the_clear_does_not_leave_this_machine_whatever_localhost_is(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", standing_for(["127.0.0.1", "192.0.2.1"]))
    why = send(f"http://localhost:{receiver.port}/", b"{}", message_id="msg_1", waits=(BOUND,) * 2)
    assert (why, receiver.received) == ("http goes to this machine alone", [])


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1", "10.0.0.8", "172.16.5.5", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.1", "224.0.0.1", "255.255.255.255", "::1", "::",
     "fe80::1%eth0", "fd00:ec2::254", "ff02::1", "::ffff:10.0.0.8", "64:ff9b::a00:8", "2002:a00:8::", "not an address"],
)  # fmt: skip
def test_addresses_that_are_not_everybodys(text: str) -> None:
    assert not is_public(text)


@pytest.mark.parametrize("text", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_that_are(text: str) -> None:
    assert is_public(text)


def test_hosts_are_named_whole_or_from_a_dot_on() -> None:
    hosts = ("hooks.example.org", "*.corp.example")
    assert is_named("Hooks.example.org.", hosts)
    assert is_named("a.corp.example", hosts)
    assert not is_named("evilhooks.example.org", hosts)
    assert not is_named("corp.example", hosts)
    assert not is_named("xcorp.example", hosts)


# --- as people write it -----------------------------------------------------------------------------------------------


def wish(*targets: str, **more: object) -> Notify:
    return notify_from(list(targets), environ={"TEAM": f"https://hooks.example/{CANARY}"}, **more)  # pyright: ignore[reportArgumentType] - tests give what users may


@pytest.mark.parametrize(
    ("targets", "why"),
    [
        ((f"http://hooks.example/{CANARY}",), "http://hooks.example would be told in the clear"),
        ((f"ftp://hooks.example/{CANARY}",), "one of the addresses is none that can be used"),
        ((f"https://user:{CANARY}@hooks.example/",), "the address of hooks.example holds a user name"),
        ((f"https://hooks.example/{CANARY}\n",), None),
        ((f"https://hooks.example/{CANARY} {CANARY}",), "one of the addresses is none"),
        ((f"https://hooks.example\\@127.0.0.1/{CANARY}",), "one of the addresses is none"),
        ((f"https:///{CANARY}",), "one of the addresses is none"),
        ((f"https://hooks.example:99999/{CANARY}",), "one of the addresses is none"),
        ((CANARY,), "one of the targets is none"),
        (("env:MISSING",), "the environment variable MISSING is not set"),
        (("env:A-B",), "env: needs the name"),
        (("command:",), "needs a command"),
        ((f"command:say '{CANARY}",), "cannot be split into words"),
        (("browser",) * 21, "more than the limit"),
    ],
)
def test_what_is_no_target_is_refused_in_a_sentence_without_its_secrets(targets: tuple[str, ...], why: str | None) -> None:
    if why is None:
        assert wish(*targets).targets == (targets[0].strip(),)
        return
    with pytest.raises(InvalidRequest) as caught:
        wish(*targets)
    assert why in str(caught.value)
    assert CANARY not in str(caught.value)


def test_what_is_a_target() -> None:
    made = wish("browser", "env:TEAM", "command:notify-send 'all done'", "http://localhost:8080/x", "env:TEAM", after=0, on="done, input")
    assert made.targets == (f"https://hooks.example/{CANARY}", "command:notify-send 'all done'", "http://localhost:8080/x")
    assert (made.browser, made.after, made.on) == (True, 0.0, (NotifyOn.DONE, NotifyOn.INPUT))
    assert [shown(each) for each in made.targets] == ["https://hooks.example", "command notify-send", "http://localhost:8080"]
    assert wish("none") == Notify(browser=False)
    assert notify_from("env:TEAM", environ={"TEAM": "none"}) == Notify(browser=False)


@pytest.mark.parametrize(
    "more",
    [{"after": -1}, {"after": "soon"}, {"after": float("nan")}, {"on": ["ended"]}, {"secret": "whsec_c2hvcnQ="}, {"secret": "plain"}],
)
def test_other_words_are_refused(more: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        wish("browser", **more)
