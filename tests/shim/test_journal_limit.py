"""A journal with a limit: the agent is never held up, the beginning and the last lines are kept, and every byte is accounted for."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import cc_executor.shim.records as fmt
from cc_executor.shim.tail import Tail, end_of
from support.shims import Run, until

Start = Callable[..., Run]

LIMIT = 4 * 10**6
NUMBERED = r"""
import os
for first in range(0, 400_000, 1000):
    os.write(1, b"".join(b"line %07d of the flood\n" % number for number in range(first, first + 1000)))
os.write(2, b"all is written")
"""
SIZE = 400_000 * len(b"line 0000000 of the flood\n")


def test_beginning_and_end_are_kept_and_the_rest_is_counted(start: Start) -> None:
    run = start(NUMBERED, journal_limit=LIMIT)
    facts = run.wait()
    kept = run.read()
    assert (facts["code"], facts["written"]["stdout"]) == (0, len(kept))
    assert len(kept) + facts["dropped"]["stdout"] == SIZE
    assert run.read(fmt.STDERR) == b"all is written"
    assert facts["dropped"]["stderr"] == 0
    mine = LIMIT - LIMIT // 4
    assert mine * 0.9 < len(kept) <= mine
    lines = kept.splitlines(keepends=True)
    whole = [int(line[5:12]) for line in lines if len(line) == 26]
    assert len(lines) - len(whole) <= 2, "where the rest was left out, one line is cut, and its newline may stand alone"
    assert (whole[0], whole[-1]) == (0, 399_999)
    gaps = [(a, b) for a, b in pairwise(whole) if b != a + 1]
    assert len(gaps) == 1
    assert len(whole) - whole.index(gaps[0][1]) > end_of(mine) // 26 * 0.9
    (degraded,) = [record for record in run.records() if record["kind"] == "degraded"]
    assert degraded["stream"] == "stdout"
    assert "limit of its journal, 3,000,000 bytes, is reached" in degraded["error"]


def test_standard_error_has_a_share_of_its_own(start: Start) -> None:
    run = start(
        NUMBERED.replace("os.write(2", "os.write(3").replace("os.write(1", "os.write(2").replace("os.write(3", "os.write(1"),
        journal_limit=LIMIT,
    )
    facts = run.wait()
    assert run.read() == b"all is written"
    assert LIMIT // 4 * 0.8 < len(run.read(fmt.STDERR)) <= LIMIT // 4
    assert facts["written"]["stderr"] + facts["dropped"]["stderr"] == SIZE


def test_what_is_just_too_long_for_its_beginning_loses_nothing(start: Start) -> None:
    mine = LIMIT - LIMIT // 4
    run = start(f"import os\nleft = {mine} - 70_000\nwhile left: left -= os.write(1, b'x' * min(left, 5000))", journal_limit=LIMIT)
    facts = run.wait()
    assert run.read() == b"x" * (mine - 70_000)
    assert facts["dropped"] == {"stdout": 0, "stderr": 0}
    assert "degraded" not in run.kinds()


def test_the_end_that_is_held_survives_a_cancel(start: Start, tmp_path: Path) -> None:
    code = NUMBERED + "open(os.environ['FOLDER'] + '/full', 'w').close()\nimport time; time.sleep(100)"
    run = start(code, journal_limit=LIMIT)
    until((tmp_path / "full").exists)
    assert run.ask(op="status")["written"]["stdout"] <= LIMIT - LIMIT // 4 - end_of(LIMIT - LIMIT // 4)
    run.ask(op="cancel")
    run.wait()
    assert run.read().endswith(b"line 0399999 of the flood\n")


def test_a_secret_across_the_gap_of_the_limit_is_masked(start: Start) -> None:
    secret = "canary-0123456789"
    code = f"import os\nfor _ in range(20000): os.write(1, b'x' * 480 + b'{secret[:9]}'); os.write(1, b'{secret[9:]}\\n')"
    run = start(code, journal_limit=LIMIT, secrets=[secret])
    facts = run.wait()
    assert secret.encode() not in run.read()
    assert facts["dropped"]["stdout"] > 0
    assert facts["masked"]["stdout"] == 20000
    assert len(run.read()) + facts["dropped"]["stdout"] == 20000 * (480 + len("[masked]\n"))


def test_a_limit_that_is_none_is_refused(start: Start) -> None:
    assert "journal_limit must be" in start("", journal_limit=0).answer["error"]


@given(st.lists(st.binary(max_size=40) | st.just(b"line\n"), max_size=60), st.integers(1, 30))
def test_a_tail_accounts_for_every_byte_and_keeps_whole_lines(pieces: list[bytes], room: int) -> None:
    tail, story = Tail(room), b"".join(pieces)
    lost = 0
    for number, piece in enumerate(pieces):
        lost += tail.take(piece)
        assert len(b"".join(pieces[: number + 1])) - lost <= 2 * room, "only so much is held"
    kept, more = tail.rest()
    assert len(kept) + lost + more == len(story)
    assert story.endswith(kept)
    assert len(kept) <= room
    if lost + more and b"\n" in kept[:-1]:
        assert kept.startswith(b"\n")
    assert bool(kept) == bool(story), "something of the end is always kept"
    if len(story) <= room:
        assert kept == story


def test_of_a_last_line_that_is_too_long_the_end_is_kept() -> None:
    tail = Tail(10)
    lost = tail.take(b"first\n" + b"x" * 30 + b" the end\n")
    assert tail.rest() == (b"x the end\n", 45 - 10 - lost)
