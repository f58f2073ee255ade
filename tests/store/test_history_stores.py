"""What holds for every store of the history: the SQLite file of one machine, and a Redis that several share. And what holds for Redis alone."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final, Protocol

import msgspec
import pytest

from cc_executor.errors import HistoryNotShared, InvalidRequest
from cc_executor.policy.hindsight import calibration
from cc_executor.runtime.past import History
from cc_executor.store import history as store
from cc_executor.store import redis as mirror
from cc_executor.store.history import HistoryIndex
from cc_executor.store.historyrow import Filters, HistoryRow
from cc_executor.store.redis import LARGEST, LATEST, ORDER, ROW_LIMIT, ROWS, RedisMirror, check_url
from support.redis import RedisServer, running_redis

PASSWORD: Final = "correct-horse-battery"


def row(number: int, **more: object) -> HistoryRow:
    return HistoryRow(
        **{
            "run_id": f"{number:012x}{number:014x}",
            "started": number / 1000,
            "agent": "claude",
            "outcome": "ok",
            "prompt_line": f"do {number}",
            **more,
        }
    )


class Store(Protocol):
    """The contract."""

    def put(self, rows: Iterable[HistoryRow]) -> None: ...
    def remove(self, run_ids: Iterable[str]) -> None: ...
    def find(self, filters: Filters) -> list[HistoryRow]: ...


class OfOneMachine:
    def __init__(self, folder: Path) -> None:
        self._index = HistoryIndex(folder)

    def put(self, rows: Iterable[HistoryRow]) -> None:
        with self._index.writing() as connection, store.transaction(connection):
            store.put(connection, rows)

    def remove(self, run_ids: Iterable[str]) -> None:
        with self._index.writing() as connection, store.transaction(connection):
            store.remove(connection, run_ids)

    def find(self, filters: Filters) -> list[HistoryRow]:
        with self._index.reading() as connection:
            return store.query(connection, filters)


class OfSeveral:
    def __init__(self, mirror: RedisMirror) -> None:
        self._mirror = mirror
        self.put = mirror.put
        self.remove = mirror.remove

    def find(self, filters: Filters) -> list[HistoryRow]:
        rows, strange = self._mirror.rows()
        assert strange == 0
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as memory:
            store.make_tables(memory)
            with store.transaction(memory):
                store.put(memory, rows)
            found = store.query(memory, filters)
        if filters == Filters():
            assert found == rows, "they come in the order of time already"
        return found


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_redis(password=PASSWORD) as server:
        yield server


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers is waited for, however slow the machine is: for what is not about one that does not."""
    monkeypatch.setattr(mirror, "PATIENCE", 60.0)
    monkeypatch.setattr(mirror, "PULL_PATIENCE", 60.0)


@pytest.fixture
def shared(server: RedisServer, unhurried: None) -> Iterator[RedisMirror]:
    with closing(server.client) as client:
        client.flushall()
    with closing(RedisMirror(server.url)) as found:
        yield found


@pytest.fixture(params=["sqlite", "redis"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return OfOneMachine(tmp_path) if request.param == "sqlite" else OfSeveral(request.getfixturevalue("shared"))


ALL: Final = HistoryRow(
    run_id="0" * 25 + "1", started=1.5, agent="claude", model="m", asked_model="a", cwd="/c", label="l", prompt_digest="d", prompt_line="p é ☃",
    prompt_chars=1, category="code", complexity="low", outcome="ok", standing="claimed", active=1.25, elapsed=2.5, cost=0.25, input_tokens=1,
    output_tokens=2, cache_tokens=2**53 + 1, turns=3, retries=4, tools=5, load=0.5, rehearsed="hello", list_id="l", task_id="t", notebook="n.ipynb",
    size=6, p50=1.0, p90=2.0, cost_p50=3.0, cost_p90=4.0, based_on=7, is_pruned=1,
)  # fmt: skip


def test_every_field_comes_back_as_it_went_in(kept: Store) -> None:
    plain = HistoryRow(run_id="0" * 26, started=1.0, agent="shell", outcome="failed")
    kept.put([plain, ALL])
    assert kept.find(Filters()) == [ALL, plain]


def test_the_newest_come_first_and_a_row_that_is_put_again_is_replaced(kept: Store) -> None:
    kept.put(row(number) for number in (3, 1, 700, 2))
    kept.put([row(2, outcome="failed")])
    assert [found.run_id for found in kept.find(Filters())] == [row(number).run_id for number in (700, 3, 2, 1)]
    assert [found.outcome for found in kept.find(Filters(outcome="failed"))] == ["failed"]


def test_what_is_removed_is_gone_and_what_is_not_there_can_be_removed(kept: Store) -> None:
    kept.put(row(number) for number in range(5))
    kept.remove([row(1).run_id, row(3).run_id, "f" * 26])
    assert [found.prompt_line for found in kept.find(Filters())] == ["do 4", "do 2", "do 0"]


def test_many_rows_are_many_rows(kept: Store) -> None:
    kept.put(row(number) for number in range(1, 1002))
    assert len(kept.find(Filters())) == 1001
    assert [found.started for found in kept.find(Filters(limit=2))] == [1.001, 1.0]


def test_texts_that_are_no_unicode_are_kept_as_far_as_they_are(kept: Store) -> None:
    kept.put([row(1, cwd="/caf\udce9", label="x\ud800y")])
    (found,) = kept.find(Filters())
    assert (found.cwd, found.label) == ("/caf\ufffd", "x\ufffdy")


@pytest.mark.parametrize(
    ("filters", "numbers"),
    [
        (Filters(agent="shell"), [4, 2]),
        (Filters(outcome="failed"), [3]),
        (Filters(text="100%"), [2]),
        (Filters(text="DO 3"), [3]),
        (Filters(since=0.003), [4, 3]),
        (Filters(until=0.003), [2, 1]),
        (Filters(rehearsed=True), [1]),
        (Filters(rehearsed=False, limit=2), [4, 3]),
        (Filters(agent="shell", outcome="failed"), []),
        (Filters(limit=0), []),
    ],
)
def test_filters(kept: Store, filters: Filters, numbers: list[int]) -> None:
    kept.put(
        [
            row(1, rehearsed="hello"),
            row(2, agent="shell", label="at 100%"),
            row(3, outcome="failed"),
            row(4, agent="shell", label="at 1000"),
        ]
    )
    assert [found.run_id for found in kept.find(filters)] == [row(number).run_id for number in numbers]


# --- Redis alone ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "redis://", "redis://localhost", "redis://127.0.0.1:1/0", "redis://[::1]:6379", "rediss://u:p@example.org", "redis://:p@10.0.0.1",
        "unix:///run/redis.sock", "unix:///run/a@b/redis.sock", "rediss://u:p@h?ssl_ca_certs=/ca.pem", "unix:///s?db=2",
    ],
)  # fmt: skip
def test_addresses_that_are_taken(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://example.org", "no password"),
        ("rediss://user@example.org", "no password"),
        ("redis://127.0.0.1.example.org", "no password"),
        ("redis://0.0.0.0", "no password"),
        ("http://localhost", "redis://"),
        ("localhost:6379", "redis://"),
        ("", "redis://"),
        ("redis://localhost:port", "cannot be read"),
        ("redis://[::1", "cannot be read"),
        ("redis://localhost/staging", "must be a number"),
        ("redis://localhost/0?db=staging", "must be a number"),
        ("unix:///s?db=-1", "must be a number"),
        ("redis://localhost?ssl_ca_certs=/ca.pem", "ssl_ca_certs.*rediss://"),
        ("unix://", "socket"),
        ("redis://localhost?socket_timeout=100", "socket_timeout"),
        ("redis://localhost?retry_on_timeout=yes&db=1", "retry_on_timeout"),
    ],
)
def test_addresses_that_are_refused(url: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:part-of-it/x@127.0.0.1:6379/0",
        "redis://:part-of-it?x@127.0.0.1/0",
        "redis://:#part-of-it@127.0.0.1/0",
        "redis://:/part-of-it@127.0.0.1/0",
        "unix://:part-of-it/x@/run/redis.sock",
    ],
)
def test_a_password_that_ends_the_address_too_early_is_not_shown_and_the_cure_is(url: str) -> None:
    with pytest.raises(InvalidRequest, match=r"cannot be read.*%2F") as refused:
        check_url(url)
    assert "part" not in str(refused.value)


def test_both_ways_to_a_server_lead_to_the_same_rows(server: RedisServer, shared: RedisMirror) -> None:
    shared.put([ALL])
    with closing(RedisMirror(server.tcp_url)) as other:
        assert other.rows() == ([ALL], 0)


@pytest.mark.usefixtures("unhurried")
def test_a_wrong_password_is_said_and_not_shown(server: RedisServer) -> None:
    with pytest.raises(HistoryNotShared, match="refuses the password") as caught:
        RedisMirror(server.url.replace(PASSWORD, "wrong-horse-battery")).rows()
    assert "horse" not in str(caught.value)


def test_what_others_wrote_is_left_out_or_made_harmless(server: RedisServer, shared: RedisMirror) -> None:
    shared.put([row(5)])
    odd = {
        row(6).run_id: b"no JSON", row(7).run_id: b"[]", row(8).run_id: msgspec.json.encode(row(9)), row(10).run_id: b"{" + b" " * ROW_LIMIT,
        "../../etc/passwd": msgspec.json.encode(row(11, run_id="../../etc/passwd")), row(12).run_id: b'{"run_id": 3}', row(13).run_id: b"\xff\xfe",
        row(14).run_id: msgspec.json.encode({**row(14).as_dict(), "started": "soon"}),
        row(17).run_id: msgspec.json.encode(row(17, started=1e300)), row(18).run_id: msgspec.json.encode(row(18, started=-1.0)),
        row(19).run_id: msgspec.json.encode(row(19, active=1e300)), row(20).run_id: msgspec.json.encode(row(20, cost=-1e300)),
    }  # fmt: skip
    with closing(server.client) as client:
        client.hset(ROWS, mapping=odd)
        client.zadd(ORDER, dict.fromkeys([*odd, row(15).run_id], 0))  # the last is named, and not there
        client.hset(ROWS, row(16).run_id, msgspec.json.encode(row(16, label="\x1b]0;title\x07\x1b[31mred", prompt_line="x" * 5_000)))
        client.zadd(ORDER, {row(16).run_id: 0})
    rows, strange = shared.rows()
    assert strange == len(odd) + 1
    assert [found.run_id for found in rows] == [row(16).run_id, row(5).run_id]
    assert (rows[0].label, len(rows[0].prompt_line)) == ("red", 4_096)
    shared.put([row(21, started=LATEST, active=LARGEST, elapsed=LARGEST, cost=LARGEST, p50=LARGEST, p90=LARGEST)])
    most = History((shared.rows()[0][0],), calibration(()))
    assert "9999" not in f"{most!r}{most.to_csv()}{most._repr_html_()}", "what is let through can be shown"


def test_a_key_of_another_kind_is_a_sentence(server: RedisServer, shared: RedisMirror) -> None:
    with closing(server.client) as client:
        client.set(ROWS, "not ours")
    with pytest.raises(HistoryNotShared, match="answers with an error"):
        shared.put([ALL])


def test_the_oldest_go_when_there_are_too_many(shared: RedisMirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "KEPT", 10)
    shared.put(row(number) for number in range(300))
    assert [found.run_id for found in shared.rows()[0]] == [row(number).run_id for number in range(299, 289, -1)]


@pytest.mark.usefixtures("unhurried")
def test_a_full_server_is_said() -> None:
    with running_redis("maxmemory 2mb", "maxmemory-policy noeviction") as full, closing(RedisMirror(full.url)) as shared:
        with pytest.raises(HistoryNotShared, match="no memory left"):
            shared.put(row(number, prompt_line="x" * 4_000) for number in range(2_000))
        assert shared.rows()[0], "reading goes on"


def test_a_server_that_hangs_or_is_gone_costs_one_try(saw: Callable[[str], None]) -> None:
    with running_redis() as server, closing(RedisMirror(server.url)) as shared:
        shared.put([ALL])
        server.hang()
        for said in ("does not answer", "does not answer"):
            began = time.monotonic()
            with pytest.raises(HistoryNotShared, match=said):
                shared.rows()
            assert time.monotonic() - began < 4 * mirror.PATIENCE
        server.go_on()
        assert shared.rows() == ([ALL], 0), "the connection is good again"
    began = time.monotonic()
    with pytest.raises(HistoryNotShared, match="cannot be reached"):
        shared.rows()
    seconds = time.monotonic() - began
    saw(f"{seconds:.3f} s when it is gone")
    assert seconds < 4 * mirror.PATIENCE
