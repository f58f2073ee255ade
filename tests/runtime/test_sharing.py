"""A history that machines share by Redis, and a Redis that is down, hangs, is slow or refuses: no run is the worse for it, and it is said once."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
import pytest

from cc_executor import cc_execute
from cc_executor.errors import HistoryNotShared, InvalidRequest
from cc_executor.model.outcome import OutcomeKind
from cc_executor.model.receipt import Receipt
from cc_executor.runtime import sharing
from cc_executor.runtime.workspace import remark
from cc_executor.store.historyrow import Filters
from cc_executor.store.home import StateHome
from cc_executor.store.redis import PATIENCE, PULL_PATIENCE, RedisMirror
from cc_executor.store.unshared import Unshared
from cc_executor.tasks import cc_execute_list
from support.redis import RedisServer, running_redis
from support.runs import BASH, eventually, remembered

UNAFFECTED = 5.0  # seconds that a run may take on a busy machine; the retries of redis-py held one up for 45


@pytest.fixture(autouse=True)
def rested(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test finds this process rested, and leaves no thread that sends."""
    monkeypatch.setattr(sharing, "_rests_until", {})
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("cc_executor share"):
            thread.join(20)
            assert not thread.is_alive()


def of(url: str) -> dict[str, str]:
    return {**os.environ, "CC_EXECUTOR_REDIS": url}


async def run(command: str, folder: Path, url: str = "") -> Receipt:
    return (await cc_execute(command, **BASH, cwd=folder, environ=of(url), label="a label")).receipt


def rows(server: RedisServer) -> list[str]:
    with closing(RedisMirror(server.url)) as mirror:
        return [row.run_id for row in mirror.rows()[0]]


async def test_a_run_is_shared_when_it_has_ended_and_other_machines_read_it(tmp_path: Path, home: StateHome) -> None:
    with running_redis() as server:
        result = await run("echo hi", tmp_path, server.url)
        await eventually(lambda: rows(server) == [result.run_id])
        await eventually(lambda: Unshared(home.root).names() == [])
        (row,) = sharing.shared(Filters(label="a label"), environ=of(server.url))
        assert (row.run_id, row.outcome, row.prompt_line, row.agent) == (result.run_id, "ok", "echo hi", "shell")
        assert len(sharing.shared(Filters(outcome="failed"), environ=of(server.url))) == 0


async def test_a_shared_run_of_a_list_knows_its_list(tmp_path: Path, home: StateHome) -> None:
    with running_redis() as server:
        listed = await cc_execute_list([{"id": "a", "run": "true"}, {"id": "b", "run": "true"}], cwd=tmp_path, environ=of(server.url))
        await run("true", tmp_path, server.url)
        sharing.offer_all(home)
        sharing.send(home, of(server.url))
        found = sharing.shared(Filters(list_id=listed.list_id), environ=of(server.url))
        assert [row.task_id for row in found] == ["b", "a"]
        assert len(sharing.shared(Filters(), environ=of(server.url))) == 3


async def test_without_an_address_nothing_is_remembered_and_nothing_is_loaded(tmp_path: Path, home: StateHome) -> None:
    await run("true", tmp_path)
    assert not (home.root / "unshared").exists()
    with pytest.raises(InvalidRequest, match="CC_EXECUTOR_REDIS is not set"):
        sharing.send(home, {})


async def test_a_redis_that_is_down_is_said_once_and_gets_everything_later(
    tmp_path: Path, home: StateHome, saw: Callable[[str], None]
) -> None:
    with running_redis() as server:
        place = server.socket
    began = time.monotonic()
    first = await run("true", tmp_path, server.url)
    saw(f"down: a run of {time.monotonic() - began:.2f} s")
    assert first.outcome.kind is OutcomeKind.OK
    await eventually((home.root / "unshared" / "trouble").exists)
    second = await run("true", tmp_path, server.url)
    said = remark(home.find(second.run_id))
    assert said.startswith("The history is not shared now: Redis cannot be reached")
    third = await run("true", tmp_path, server.url)
    assert [remark(home.find(each.run_id)) for each in (second, third)] == ["", ""]
    assert Unshared(home.root).names() == [each.run_id for each in (first, second, third)]
    place.parent.mkdir()
    with running_redis(socket=place) as server:
        assert sharing.send(home, of(server.url)) == 3
        assert rows(server) == [each.run_id for each in (third, second, first)]
    assert list((home.root / "unshared").iterdir()) == [], "the next outage is told again"
    shutil.rmtree(place.parent)


@pytest.mark.row("faults", "shared history: Redis hangs in the midst of a run", "the run is unaffected, its row goes out later")
async def test_a_redis_that_hangs_in_the_midst_of_a_run_does_not_hold_it_up(
    tmp_path: Path, home: StateHome, saw: Callable[[str], None]
) -> None:
    os.mkfifo(tmp_path / "gate")
    with running_redis() as server:
        before = await run("true", tmp_path, server.url)
        await eventually(lambda: rows(server) == [before.run_id])

        async def hang() -> None:
            await eventually((tmp_path / "began").exists)
            server.hang()
            await anyio.to_thread.run_sync((tmp_path / "gate").write_text, "open")
            opened.append(time.monotonic())

        opened: list[float] = []
        async with anyio.create_task_group() as beside:
            beside.start_soon(hang)
            result = await run(": > began; cat gate", tmp_path, server.url)
            seconds = time.monotonic() - opened[0]
        saw(f"ended {seconds:.2f} s after its last word")
        assert result.outcome.kind is OutcomeKind.OK
        assert seconds < UNAFFECTED
        await eventually(lambda: "does not answer within 0.5 s" in remark(home.find(result.run_id)))
        server.go_on()
        assert sharing.send(home, of(server.url)) == 1
        assert rows(server) == [result.run_id, before.run_id]


@pytest.mark.parametrize(
    ("url", "said"), [("redis://example.invalid", "no password"), ("no address", "must begin"), ("unix:///nowhere/s", "cannot be reached")]
)
async def test_an_address_that_is_no_good_is_said_by_the_next_run_and_nothing_else(
    tmp_path: Path, home: StateHome, url: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    result = await run("true", tmp_path, url)
    assert result.outcome.kind is OutcomeKind.OK
    await eventually(lambda: said in remark(home.find(result.run_id)))
    assert caplog.records == [], "users are told by the run, not by a log"


async def test_a_wrong_password_is_said_and_stands_nowhere(tmp_path: Path, home: StateHome) -> None:
    with running_redis(password="right-horse") as server:
        result = await run("env", tmp_path, server.url.replace("right", "wrong"))
        await eventually(lambda: "refuses the password" in remark(home.find(result.run_id)))
    remembered()  # while the history is written, it has files that go again
    kept = [path for path in home.root.rglob("*") if path.is_file()]
    assert [path for path in kept if b"wrong-horse" in path.read_bytes()] == []


async def test_while_redis_is_away_a_process_tries_it_now_and_then_and_not_at_every_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[float] = []
    monkeypatch.setattr(sharing, "send", lambda *_: tries.append(time.monotonic()) or (_ for _ in ()).throw(HistoryNotShared("away")))
    for _ in range(3):
        await run("true", tmp_path, "unix:///nowhere/s")
        await eventually(lambda: tries)
    assert len(tries) == 1


def test_what_waits_has_a_bound(home: StateHome) -> None:
    home.prepare()
    unshared = Unshared(home.root)
    unshared.add((f"{number:026x}" for number in range(8)), limit=5)
    assert len(unshared.names()) == 5
    unshared.add([f"{9:026x}"], limit=5)
    assert len(unshared.names()) == 5


async def test_runs_from_before_can_be_shared_too(tmp_path: Path, home: StateHome) -> None:
    result = await run("true", tmp_path)
    with running_redis() as server:
        sharing.offer_all(home)
        assert sharing.send(home, of(server.url)) == 1
        assert rows(server) == [result.run_id]


# --- slow -------------------------------------------------------------------------------------------------------------


@contextmanager
def trickling() -> Iterator[str]:
    """A server that begins every answer and never ends it: a byte from time to time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        is_over = threading.Event()

        def serve(peer: socket.socket) -> None:
            with closing(peer):
                try:
                    peer.recv(10_000)
                    peer.sendall(b"$1000000\r\n")
                    while not is_over.wait(PATIENCE / 2):
                        peer.sendall(b"x")
                except OSError:
                    pass

        def accept() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(peer,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        finally:
            is_over.set()
            listener.shutdown(socket.SHUT_RDWR)


async def test_a_redis_that_trickles_holds_up_no_run_and_no_reader_for_long(
    tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "PULL_PATIENCE", 0.5)
    with trickling() as url:
        for _ in range(2):
            began = time.monotonic()
            assert (await run("true", tmp_path, url)).outcome.kind is OutcomeKind.OK
            assert time.monotonic() - began < 3 * UNAFFECTED
        with pytest.raises(HistoryNotShared, match="too slow"):
            sharing.shared(Filters(), environ=of(url))
    assert PULL_PATIENCE <= 5
    assert len(Unshared(home.root).names()) == 2
