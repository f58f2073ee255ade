"""A task list in plain `ipython`: a line when a task begins, one when it ends, a table at the end; Ctrl-C stops it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.cells import living, make_gate, wait_for_pid
from kernel.test_terminal import START_BUDGET, Terminal


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path, simple=False)
    try:
        terminal.ready(within=START_BUDGET)
        terminal.run("%load_ext cc_executor")
        yield terminal
    finally:
        terminal.close()


def test_lines_as_tasks_begin_and_end_and_a_table_and_ctrl_c_stops_the_list(terminal: Terminal, tmp_path: Path) -> None:
    make_gate(tmp_path)
    written = terminal.run(
        "%%cc_tasks --name few\ntasks:\n  - {id: one, run: echo fir''st}\n  - {id: two, run: echo sec''ond, title: Number two}"
    )
    lines = [line.strip() for line in written.replace("\r", "\n").split("\n") if line.strip()]
    table = next(place for place, line in enumerate(lines) if line.startswith("✓ few: ok, 2 of 2 tasks ended well"))
    assert lines[table - 4] == "▶ 1/2 one"
    assert lines[table - 3].startswith("✓ 1/2 one ok · ")
    assert lines[table - 3].endswith("· first")
    assert lines[table - 2] == "▶ 2/2 two: Number two"
    assert [line.split()[:2] for line in lines[table + 1 : table + 4]] == [["#", "task"], ["1", "one"], ["2", "two"]]
    terminal.enter("%%cc_tasks -o held\ntasks:\n  - {id: one, run: 'echo $$ > pid; cat gate'}\n  - {id: two, run: echo never}")
    wait_for_pid(tmp_path)
    terminal.child.sendintr()
    stopped = terminal.ready()
    assert "■ 1/2 one stopped" in stopped
    assert "KeyboardInterrupt: list " in stopped
    assert living(tmp_path) == []
    assert "'stopped'" in terminal.run("held.status")
