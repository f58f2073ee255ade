"""What an undo decides, as a table: what stood there before, what the run left, what stands there now."""

from __future__ import annotations

import pytest

from cc_executor.model.tree import Change, Entry, Kind
from cc_executor.policy.undo import AGAIN, BOTH, CHANGED, CROWDED, LATE, NO_FOLDER, NOT_KEPT, REMOVED, Conflict, Unit, plan


def file(content: str, mode: int = 0o644) -> Entry:
    return Entry(Kind.FILE, mode, len(content), content.encode(), mtime=1)


UNREAD = Entry(Kind.FILE, 0o644, 9, b"", mtime=1)
FOLDER, OTHER = Entry(Kind.FOLDER, 0o755, 0), Entry(Kind.FOLDER, 0o700, 0)
LINK = Entry(Kind.LINK, 0o777, 0, b"target")
A, B, C = file("a"), file("b"), file("c")


@pytest.mark.parametrize(
    ("before", "after", "now", "expected"),
    [
        (A, B, B, "done"),
        (A, B, A, "already"),
        (A, B, C, CHANGED),
        (A, B, file("b", 0o600), CHANGED),
        (A, B, None, REMOVED),
        (A, B, LINK, CHANGED),
        (A, None, None, "done"),
        (A, None, A, "already"),
        (A, None, B, AGAIN),
        (None, B, B, "done"),
        (None, B, None, "already"),
        (None, B, C, CHANGED),
        (A, file("a", 0o600), file("a", 0o600), "done"),
        (LINK, A, A, "done"),
        (A, LINK, LINK, "done"),
        (UNREAD, B, B, NOT_KEPT),
        (UNREAD, None, None, NOT_KEPT),
        (UNREAD, Entry(Kind.FILE, 0o600, 9, b"", mtime=1), Entry(Kind.FILE, 0o600, 9, b"", mtime=1), "done"),
        (None, FOLDER, FOLDER, "done"),
        (None, FOLDER, OTHER, "done"),
        (None, FOLDER, None, "already"),
        (None, FOLDER, A, CHANGED),
        (FOLDER, None, None, "done"),
        (FOLDER, None, OTHER, "already"),
        (FOLDER, None, A, AGAIN),
        (FOLDER, OTHER, OTHER, "done"),
        (FOLDER, OTHER, FOLDER, "already"),
        (FOLDER, OTHER, Entry(Kind.FOLDER, 0o711, 0), CHANGED),
    ],
)
def test_one_path(before: Entry | None, after: Entry | None, now: Entry | None, expected: str) -> None:
    made = plan([Unit([Change(b"/p", before, after)])], {b"/p": now}, {})
    if expected == "done":
        assert made.changes == {b"/p": Change(b"/p", before, now)}
        assert not made.conflicts
    elif expected == "already":
        assert (made.changes, made.conflicts, made.already) == ({}, [], 1)
    else:
        assert (made.changes, made.conflicts) == ({}, [Conflict(b"/p", expected)])


def test_what_is_late_doubtful_or_another_s_is_not_touched() -> None:
    changes = [Change(path, A, B) for path in (b"/late", b"/both", b"/theirs", b"/mine")]
    unit = Unit(changes, late={b"/late"}, foreign={b"/theirs"}, doubtful={b"/both": {"01b", "01a"}})
    made = plan([unit], {change.path: B for change in changes}, {})
    assert made.conflicts == [Conflict(b"/both", f"{BOTH}: 01a, 01b"), Conflict(b"/late", LATE)]
    assert list(made.changes) == [b"/mine"]


def test_several_runs_are_gone_back_through_one_by_one() -> None:
    newer, older = Unit([Change(b"/p", B, C), Change(b"/q", B, C)]), Unit([Change(b"/p", A, B), Change(b"/q", A, C)])
    made = plan([newer, older], {b"/p": C, b"/q": C}, {})
    assert made.changes == {b"/p": Change(b"/p", A, C)}
    assert made.conflicts == [Conflict(b"/q", CHANGED)]  # somebody wrote it between the two runs


def test_a_folder_with_things_of_the_user_is_not_replaced_by_a_file() -> None:
    changes = [Change(b"/d", A, FOLDER), Change(b"/d/run", None, B)]
    now = {b"/d": FOLDER, b"/d/run": B}
    assert plan([Unit(changes)], now, {b"/d": [b"/d/run"]}).conflicts == []
    assert plan([Unit(changes)], now, {b"/d": [b"/d/run", b"/d/mine"]}).conflicts == [Conflict(b"/d", CROWDED)]


def test_nothing_is_put_below_what_is_no_folder_any_more() -> None:
    changes = [Change(b"/d", FOLDER, None), Change(b"/d/a", A, None)]
    made = plan([Unit(changes)], {b"/d": LINK, b"/d/a": None}, {})
    assert made.conflicts == [Conflict(b"/d", AGAIN), Conflict(b"/d/a", NO_FOLDER)]
