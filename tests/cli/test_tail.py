"""What a terminal shows of a run while it goes on: the end of its text, now and as it comes, and a line that says how long it works."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any, Final

import pexpect
import pytest

from cc_executor.api import cc_execute_sync
from cc_executor.cli.tail import Held
from support.commands import command
from support.environments import CHECKOUT
from support.runs import run_folders, wait_for
from support.terminals import written_by

BASH: Final[dict[str, Any]] = {"agent": "shell", "shell": "bash"}


@pytest.mark.parametrize(
    ("written", "lines", "shown"),
    [
        (["a\nb\nc\n"], 2, "b\nc\n"),
        (["a\n", "b", "c"], 2, "a\nbc"),
        (["a\nb\n"], 0, ""),
        (["a\nb"], 0, ""),
        ([], 3, ""),
        (["\n\n\n"], 2, "\n\n"),
        (["x" * 10 + "\n"] * 5, 9, ("x" * 10 + "\n") * 5),
    ],
)
def test_the_last_lines_are_kept_and_then_everything(written: list[str], lines: int, shown: str) -> None:
    out = io.StringIO()
    held = Held(out, lines)
    for piece in written:
        held.write(piece)
    assert out.getvalue() == ""
    held.let_go()
    assert out.getvalue() == shown
    held.write("more\n")
    assert out.getvalue() == f"{shown}more\n"


def test_the_end_of_a_run_is_shown_and_its_outcome_is_the_exit_code(tmp_path: Path) -> None:
    cc_execute_sync("seq 30; printf end; exit 3", **BASH, cwd=tmp_path)
    done = command("tail", "-n", "3")
    assert (done.code, done.out) == (0, "29\n30\nend\n")
    done = command("tail", "-n", "1", "-f")
    assert (done.code, done.out) == (1, "end\n")
    assert "failed" in done.err
    assert command("tail", "ffff").code == 2


def test_what_comes_is_shown_until_the_end(tmp_path: Path, state_folder: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    assert command("run", "--agent", "shell", "--shell", "bash", "--cwd", tmp_path, "--detach", "seq 100; cat gate").code == 0
    (folder,) = run_folders(state_folder)
    wait_for(lambda: (folder / "stdout").read_bytes().endswith(b"100\n"))
    assert command("tail", "-n", "2").out == "99\n100\n"
    terminal = pexpect.spawn(
        sys.executable, ["-m", "cc_executor.cli", "tail", "-n", "1", "-f"], env=os.environ | {"PYTHONPATH": str(CHECKOUT / "src")}, timeout=60
    )  # fmt: skip
    try:
        terminal.expect_exact("100\r\n")
        assert b"99" not in (terminal.before or b"")
        (tmp_path / "gate").write_text("through\n")
        terminal.expect_exact("through\r\n")
        terminal.expect_exact("ok")
        terminal.expect(pexpect.EOF)
    finally:
        terminal.close()
    assert terminal.exitstatus == 0


def test_on_a_terminal_a_line_says_how_long_the_run_works_and_goes_away(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    terminal = pexpect.spawn(
        sys.executable, ["-m", "cc_executor.cli", "run", "--agent", "shell", "--shell", "bash", "cat gate"], cwd=str(tmp_path),
        env=os.environ | {"PYTHONPATH": str(CHECKOUT / "src")}, timeout=60, encoding="utf-8",
    )  # fmt: skip
    try:
        terminal.expect(r"\r\x1b\[K  · \d+ s · \w+")
        terminal.expect(r"\r\x1b\[K  · \d+ s · \w+")
        (tmp_path / "gate").write_text("through\nend\n")  # at once: between two pieces the line might come again
        terminal.expect(r"\r\x1b\[Kthrough\r\nend\r\n")
        terminal.expect(pexpect.EOF)
        after = (terminal.before or "").replace("\x1b[K", "")
    finally:
        terminal.close()
    assert terminal.exitstatus == 0
    assert after.splitlines()[-1].startswith("ok · ")


def test_a_dumb_terminal_gets_no_line_that_would_have_to_go_away(tmp_path: Path) -> None:
    said = written_by(
        ["-m", "cc_executor.cli", "run", "--agent", "shell", "--shell", "bash", "sleep 1.5; echo end"], cwd=tmp_path, TERM="dumb"
    )
    assert "\x1b" not in said
    assert [line.split(" ")[0] for line in said.splitlines()] == ["run", "end", "ok"]
