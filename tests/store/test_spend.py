"""What today's runs have cost, out of the receipts that are kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cc_executor.errors import StateUnusable
from cc_executor.store.home import StateHome, new_run_id
from cc_executor.store.localtime import local, local_day
from cc_executor.store.spend import DaySpend, EndedRun, ended_run, spent_today

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
HOUR = 3600.0


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Puts this process into a time zone, and back."""

    def change(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield change
    monkeypatch.delenv("TZ")
    time.tzset()


@pytest.fixture
def home(state_folder: Path, zone: Callable[[str], None]) -> StateHome:
    zone("UTC")
    return StateHome(state_folder)


def sealed(home: StateHome, cost: str, *, began: float, ended: float, rehearsed: str = "null") -> Path:
    folder = home.create(new_run_id(began))
    at = datetime.fromtimestamp(ended, UTC).isoformat().replace("+00:00", "Z")
    text = f'{{"schema_version": 1, "times": {{"started": "x", "ended": "{at}"}}, "cost": {cost}, "rehearsed": {rehearsed}}}'
    (folder.path / "receipt.json").write_text(text)
    return folder.path / "receipt.json"


def test_what_ended_today_counts_and_nothing_else(home: StateHome) -> None:
    sealed(home, "1.0", began=NOON - 60, ended=NOON)
    sealed(home, "0.5", began=NOON - 13 * HOUR, ended=NOON - 11 * HOUR)  # over midnight
    sealed(home, "64", began=NOON - 15 * HOUR, ended=NOON - 13 * HOUR)  # yesterday
    sealed(home, "32", began=NOON - 60, ended=NOON, rehearsed='"hello"')
    sealed(home, "null", began=NOON - 60, ended=NOON)
    (sealed(home, "16", began=NOON, ended=NOON)).write_bytes(b"{")
    home.create(new_run_id(NOON))  # it goes on
    day = DaySpend(home)
    assert day.total(NOON) == 1.5
    sealed(home, "0.25", began=NOON + 1, ended=NOON + 2)
    assert day.total(NOON) == 1.75
    assert day.total(NOON + 24 * HOUR) == 0
    assert day.total(NOON - 24 * HOUR) == 64, "what has ended after a day is not that day's"


def test_a_long_run_that_waited_for_its_turn_for_a_day_counts(home: StateHome) -> None:
    """Its id was made when it was asked for."""
    sealed(home, "2.0", began=NOON - (12 + 20 + 23) * HOUR, ended=NOON)
    assert DaySpend(home).total(NOON) == 2.0


def test_what_ends_at_midnight_is_the_new_day_s(home: StateHome) -> None:
    sealed(home, "2.0", began=NOON, ended=NOON + 12 * HOUR)
    assert [DaySpend(home).total(NOON + hours * HOUR) for hours in (0, 12, 24)] == [0, 2, 2]


def test_tokens_are_those_that_count_and_a_rehearsal_has_none() -> None:
    times = '"times": {"ended": "2026-11-21T12:00:00Z"}'
    usage = '"usage": {"input_tokens": 1, "output_tokens": 10, "cache_creation_tokens": 100, "cache_read_tokens": 1000}'
    assert ended_run("r", f'{{{times}, {usage}, "cost": 0.5}}'.encode()) == EndedRun("r", NOON, 0.5, 111)
    assert ended_run("r", f'{{{times}, {usage}, "cost": 0.5, "rehearsed": "hello"}}'.encode()) == EndedRun("r", NOON, 0.0, 0)
    assert ended_run("r", f'{{{times}, "usage": {{}}, "cost": -1}}'.encode()) == EndedRun("r", NOON, 0.0, 0)
    assert ended_run("r", f"{{{times}}}".encode()) == EndedRun("r", NOON, 0.0, 0)


def test_where_nothing_was_ever_run_nothing_is_spent(state_folder: Path) -> None:
    assert spent_today(StateHome(state_folder), NOON) == 0


def test_of_a_folder_that_cannot_be_read_nothing_is_known_to_be_spent(state_folder: Path) -> None:
    state_folder.write_text("no folder")
    with pytest.raises(StateUnusable):
        DaySpend(StateHome(state_folder)).total(NOON)
    assert spent_today(StateHome(state_folder), NOON) == 0


@pytest.mark.parametrize(("month", "hours"), [(3, 23), (6, 24), (10, 25)])
def test_a_day_is_as_long_as_its_clocks_say(month: int, hours: int, zone: Callable[[str], None]) -> None:
    zone("CET-1CEST,M3.5.0,M10.5.0/3")
    day = {3: 29, 6: 15, 10: 25}[month]  # 2026
    start, end = local_day(datetime(2026, month, day, 12, tzinfo=UTC).timestamp())
    assert (end - start) / HOUR == hours


@pytest.mark.parametrize("name", ["XXX-30", "XXX+30", "XXX-167:59:59"])
def test_clocks_may_be_a_day_and_more_from_utc(name: str, zone: Callable[[str], None]) -> None:
    zone(name)
    start, end = local_day(NOON)
    assert start <= NOON < end == start + 24 * HOUR
    assert f"{local(start):%H:%M:%S}" == f"{local(end):%H:%M:%S}" == "00:00:00"


def test_a_thousand_runs_are_read_in_a_moment_and_once(home: StateHome) -> None:
    for _ in range(1000):
        sealed(home, "0.001", began=NOON, ended=NOON)
    day = DaySpend(home)
    began = time.process_time()
    assert day.total(NOON) == pytest.approx(1)
    first, again = time.process_time() - began, time.process_time()
    assert day.total(NOON) == pytest.approx(1)
    assert time.process_time() - again < first < 20
