"""The history's index at rest: what goes in comes out, filters choose, damage is found and put aside, locks hurt nobody."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from cc_executor.store import history
from cc_executor.store.history import DAMAGED, HistoryIndex, Trouble, Unusable
from cc_executor.store.historyrow import Filters, HistoryRow


def row(number: int, **more: Any) -> HistoryRow:
    return HistoryRow(**({"run_id": f"{number:012x}{'0' * 14}", "started": number / 1000, "agent": "claude", "outcome": "ok"} | more))


@pytest.fixture
def index(tmp_path: Path) -> HistoryIndex:
    return HistoryIndex(tmp_path)


def fill(index: HistoryIndex, *rows: HistoryRow) -> None:
    with index.writing() as connection, history.transaction(connection):
        history.put(connection, rows)


def found(index: HistoryIndex, **filters: Any) -> list[HistoryRow]:
    with index.reading() as connection:
        return history.query(connection, Filters(**filters))


def test_what_goes_in_comes_out_newest_first_and_for_this_user_alone(index: HistoryIndex) -> None:
    whole = row(
        2,
        model="m",
        cwd="/ä",
        label="l",
        prompt_line="x\udcff",
        cost=0.5,
        turns=3,
        load=0.25,
        p50=1.0,
        p90=2.0,
        based_on=7,
        size=2**40,
        retries=2**70,
    )
    fill(index, row(1), whole)
    first, second = found(index)
    assert first.as_dict() == whole.as_dict() | {"prompt_line": "x\ufffd", "retries": 2**63 - 1}
    assert second == row(1)
    fill(index, row(1, outcome="failed"))
    assert [each.outcome for each in found(index)] == ["ok", "failed"]
    for path in index.root.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_filters_choose(index: HistoryIndex) -> None:
    fill(
        index,
        row(1_000_000, label="build", prompt_line="50% of a_b"),
        row(2_000_000, outcome="failed", cwd="/w", category="code"),
        row(3_000_000, agent="shell", rehearsed="hello", list_id="x-1", model="opus"),
    )
    expected: list[tuple[dict[str, Any], set[int]]] = [
        ({}, {1, 2, 3}), ({"label": "build"}, {1}), ({"outcome": "failed"}, {2}), ({"cwd": "/w"}, {2}), ({"agent": "shell"}, {3}),
        ({"category": "code"}, {2}), ({"list_id": "x-1"}, {3}), ({"model": "opus"}, {3}), ({"text": "50%"}, {1}), ({"text": "a_b"}, {1}),
        ({"text": "a%b"}, set()), ({"text": "BUILD"}, {1}), ({"rehearsed": True}, {3}), ({"rehearsed": False}, {1, 2}),
        ({"since": 2000.0}, {2, 3}), ({"until": 2000.0}, {1}), ({"limit": 1}, {3}), ({"outcome": "failed", "label": "build"}, set()),
    ]  # fmt: skip
    for filters, wanted in expected:
        assert {round(each.started / 1000) for each in found(index, **filters)} == wanted, filters


def test_a_run_that_waited_for_its_turn_counts_from_its_start(index: HistoryIndex) -> None:
    """Its id was made when it was asked for."""
    asked, started = 1_000_000_000, 1_000_000 + 20 * 3600
    fill(index, row(asked, started=float(started)))
    assert len(found(index, since=started - 1.0)) == 1
    assert len(found(index, since=started + 1.0)) == 0
    assert len(found(index, until=started - 1.0)) == 0
    assert len(found(index, until=started + 1.0)) == 1


def test_the_query_for_past_runs_uses_an_index(index: HistoryIndex) -> None:
    fill(index, row(1))
    with index.reading() as connection:
        for column in ("outcome", "label", "prompt_digest", "cwd", "category", "list_id", "model"):
            asked = f"EXPLAIN QUERY PLAN SELECT * FROM runs WHERE {column} = 'x' ORDER BY run_id DESC LIMIT 20"  # noqa: S608 - names of ours
            plan = connection.execute(asked).fetchall()
            assert "USING INDEX" in str(plan), plan
            assert "TEMP B-TREE" not in str(plan), plan


def test_an_estimate_reads_few_rows_however_many_there_are(index: HistoryIndex) -> None:
    fill(index, *(row(number, label="rare" if number == 7 else "often") for number in range(2000)))
    with index.reading() as connection:
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        connection.set_progress_handler(count, 100)
        found = history.newest(connection, limit=50, agent="claude", rehearsed="", label="rare")
        assert [each.run_id for each in found] == [row(7).run_id]
        assert len(history.newest(connection, limit=50, agent="claude", rehearsed="")) == 50
        assert steps < 50, "it looked at all of them"


def test_what_somebody_else_has_put_there_is_damage(index: HistoryIndex) -> None:
    fill(index, row(1))
    with closing(sqlite3.connect(index.path)) as connection:
        connection.execute("UPDATE runs SET active = 'long'")
        connection.commit()
    with index.reading() as connection:
        for ask in (lambda: history.query(connection, Filters()), lambda: history.newest(connection, limit=1, agent="claude")):
            with pytest.raises(Unusable) as error:
                ask()
            assert error.value.trouble is Trouble.DAMAGED


@pytest.mark.parametrize("change", ["UPDATE runs SET p50 = NULL", "UPDATE runs SET p50 = 'soon'", "UPDATE runs SET active = x'00'"])
def test_a_prediction_that_nobody_has_made_is_damage(index: HistoryIndex, change: str) -> None:
    fill(index, row(1, p50=1.0, p90=2.0, active=1.5))
    with index.reading() as connection:
        assert history.judged(connection, limit=9) == [(1.0, 2.0, 1.5, True)]
    with closing(sqlite3.connect(index.path)) as connection:
        connection.execute(change)
        connection.commit()
    with index.reading() as connection, pytest.raises(Unusable) as error:
        history.judged(connection, limit=9)
    assert error.value.trouble is Trouble.DAMAGED


def spoil_head(path: Path) -> None:
    path.write_bytes(b"this is no database" * 500)


def spoil_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def put_a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def add_a_trigger(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM runs; END")


@pytest.mark.parametrize("spoil", [spoil_head, spoil_middle, cut_short, empty, put_a_link, add_a_trigger])
def test_damage_is_found_and_put_aside_once(index: HistoryIndex, spoil: Any) -> None:
    fill(index, *(row(number, prompt_line="x" * 70) for number in range(300)))
    spoil(index.path)
    with pytest.raises(Unusable) as error:
        found(index)
    assert error.value.trouble is Trouble.DAMAGED
    assert index.heal()
    assert not index.path.is_symlink()
    fill(index, row(1))
    assert not index.heal(), "what is sound was put aside"
    assert found(index) == [row(1)]
    assert Path("/etc/passwd").read_text()
    assert (index.root / DAMAGED).exists() or spoil is put_a_link


def test_a_table_of_another_version_is_not_touched(index: HistoryIndex) -> None:
    fill(index, row(1))
    with closing(sqlite3.connect(index.path)) as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(Unusable) as error:
        found(index)
    assert error.value.trouble is Trouble.OLD


def test_while_somebody_writes_reads_work_and_a_write_gives_up_at_once(index: HistoryIndex) -> None:
    fill(index, row(1))
    with index.writing() as other:
        other.execute("BEGIN EXCLUSIVE")
        history.put(other, [row(2)])
        assert found(index) == [row(1)]
        began = time.monotonic()
        with (
            pytest.raises(Unusable) as error,
            index.writing(patience=history.WRITE_PATIENCE) as connection,
            history.transaction(connection),
        ):
            history.put(connection, [row(3)])
        assert error.value.trouble is Trouble.BUSY
        assert time.monotonic() - began < 2.0, "what a connection of SQLite waits by itself is 5 s"
        other.execute("COMMIT")
    assert found(index) == [row(2), row(1)]


def test_many_writers_at_once_make_one_file_and_lose_nothing_but_what_they_were_told(index: HistoryIndex) -> None:
    written: set[int] = set()

    def write(numbers: range) -> None:
        for number in numbers:
            with suppress(Unusable):
                fill(index, row(number))
                written.add(number)

    threads = [threading.Thread(target=write, args=(range(start, start + 20),)) for start in (100, 200, 300, 400)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) >= 40
    assert {round(each.started * 1000) for each in found(index)} == written


def test_a_lock_that_is_never_given_back_is_not_waited_for(index: HistoryIndex) -> None:
    with open(index.root / history.LOCK, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Unusable) as error:
            fill(index, row(1))
    assert error.value.trouble is Trouble.BUSY
    fill(index, row(1))
    assert found(index) == [row(1)]


def test_without_an_index_nothing_is_made_by_a_look(index: HistoryIndex) -> None:
    with pytest.raises(Unusable) as error:
        found(index)
    assert error.value.trouble is Trouble.OLD
    assert list(index.root.iterdir()) == []


def test_who_puts_a_run_once_more_keeps_the_list_that_it_was_assigned_to_and_replaces_the_rest(index: HistoryIndex) -> None:
    fill(index, row(1, list_id="l", task_id="t", model="opus"))
    fill(index, row(1, outcome="failed"))
    assert found(index) == [row(1, list_id="l", task_id="t", outcome="failed")]
    fill(index, row(1, list_id="other"))
    assert found(index) == [row(1, list_id="other", task_id="t")]


def test_a_transaction_that_fails_leaves_nothing_and_lets_the_next_begin(index: HistoryIndex) -> None:
    def broken() -> Iterator[HistoryRow]:
        yield row(1)
        raise KeyError

    with index.writing() as connection:
        with pytest.raises(KeyError), history.transaction(connection):
            history.put(connection, broken())
        with history.transaction(connection):
            history.put(connection, [row(2)])
    assert found(index) == [row(2)]


def test_who_reads_writes_nothing(index: HistoryIndex) -> None:
    fill(index, row(1))
    with index.reading() as connection, pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM runs")
    assert found(index) == [row(1)]


@pytest.mark.parametrize("put", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_neither_opened_nor_waited_for(index: HistoryIndex, put: Any) -> None:
    put(index.path)
    with pytest.raises(Unusable) as error:
        found(index)
    assert error.value.trouble is Trouble.DAMAGED
    assert index.heal()
    fill(index, row(1))
    assert found(index) == [row(1)]


def test_what_belonged_to_a_damaged_file_does_not_get_into_the_next(index: HistoryIndex) -> None:
    fill(index, row(1))
    spoil_head(index.path)
    left = [Path(f"{index.path}{ending}") for ending in ("-wal", "-shm", "-journal")]
    for path in left:
        path.write_bytes(b"of the damaged one")
    assert index.heal()
    assert not any(path.exists() for path in left)


@pytest.mark.parametrize("error", [OverflowError("too large"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no text")])
def test_bytes_that_are_no_text_or_no_number_are_damage(error: Exception) -> None:
    with pytest.raises(Unusable) as told, history.translated():
        raise error
    assert told.value.trouble is Trouble.DAMAGED
