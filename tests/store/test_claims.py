"""Who says that he works in a folder, and what others find of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_executor.shim import records
from cc_executor.store.claims import FOLDERS, Claims, overlap
from support.receipts import run_id

ONE, TWO, THREE = run_id(1), run_id(2), run_id(3)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for each in (ONE, TWO, THREE):
        (tmp_path / "runs" / each).mkdir(parents=True)
    return tmp_path / "runs"


@pytest.fixture
def claims(tmp_path: Path, runs: Path) -> Claims:
    for name in FOLDERS:
        (tmp_path / "undo" / name).mkdir(parents=True)
    return Claims(tmp_path / "undo", runs=runs)


def test_where_nobody_ever_worked_nobody_is_at_work(tmp_path: Path) -> None:
    claims = Claims(tmp_path / "undo", runs=tmp_path / "runs")
    assert (claims.working(), claims.at_work(b"/"), claims.met(ONE)) == ([], [], ())
    claims.leave(ONE)


def test_those_who_work_in_one_folder_are_told_of_each_other_until_they_leave(claims: Claims) -> None:
    claims.enter(ONE, b"/project/a", met=[THREE, THREE])
    claims.enter(TWO, b"/project")
    claims.enter(THREE, b"/elsewhere")
    assert (claims.met(ONE), claims.met(TWO), claims.met(THREE)) == ((THREE, TWO), (ONE,), ())
    assert sorted(claims.at_work(b"/project/a/deep")) == [ONE, TWO]
    claims.leave(TWO)
    assert sorted(claims.working()) == [(ONE, b"/project/a"), (THREE, b"/elsewhere")]
    assert claims.met(ONE) == (THREE, TWO), "it has met it all the same"


def test_who_has_ended_is_not_at_work_but_was_met(claims: Claims, runs: Path) -> None:
    claims.enter(ONE, b"/project")
    (runs / ONE / records.EXIT).touch()
    assert claims.at_work(b"/project") == []
    assert claims.working() == [(ONE, b"/project")]
    claims.enter(TWO, b"/project")
    assert (claims.met(ONE), claims.met(TWO)) == ((), ())


def test_what_is_no_run_s_word_hides_no_other_and_that_of_a_removed_run_goes(claims: Claims, runs: Path, tmp_path: Path) -> None:
    working = tmp_path / "undo" / "working"
    (working / "no run").write_bytes(b"/project")
    (working / ONE).mkdir()
    claims.enter(TWO, b"/project")
    claims.enter(THREE, b"/project")
    (runs / THREE).rmdir()
    with (working / TWO).open("ab") as file:
        file.write(b"nonsense\n\xff\n")
    assert claims.working() == [(TWO, b"/project")]
    assert claims.met(TWO) == (THREE,)
    assert claims.met(ONE) == ()
    assert {path.name for path in working.iterdir()} == {"no run", ONE, TWO}


def test_who_begins_a_run_undoes_nothing_and_who_undoes_lets_none_begin(claims: Claims) -> None:
    def may_begin(root: bytes) -> bool:
        with claims.beginning(root, patience=60, is_over=lambda: True) as begins:
            return begins

    with claims.beginning(b"/project", patience=0, is_over=lambda: False) as begins:
        assert begins
        assert claims.undone_now() == []
        assert may_begin(b"/project"), "two runs may begin in one folder"
    with claims.undoing([b"/project", b"/other"]) as instead:
        assert instead is None
        assert claims.undone_now() == [b"/project", b"/other"]
        assert [may_begin(root) for root in (b"/project/below", b"/", b"/elsewhere")] == [False, False, True]
    assert claims.undone_now() == []


NAMES = st.lists(st.sampled_from([b"a", b"b", b"ab"]), max_size=3)


@given(NAMES, NAMES)
def test_two_folders_overlap_where_one_is_above_the_other(one: list[bytes], other: list[bytes]) -> None:
    length = min(len(one), len(other))
    expected = one[:length] == other[:length]
    assert overlap(b"/" + b"/".join(one), b"/" + b"/".join(other)) == expected
