"""`cc-executor history` and `cc-executor estimate` as processes of their own, over real runs."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from cc_executor.api import cc_execute_sync
from cc_executor.runtime.history import SAID
from cc_executor.store.history import FILE, Trouble
from cli.test_cli import cli
from support.runs import BASH, remembered

LIST = """
tasks:
- {id: nap, run: sleep 0.01}
- {id: odd, run: nothing-that-was-ever-run}
"""


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Seven runs of a command that ended well, and one that did not."""
    ended = [cc_execute_sync(f"sleep 0.0{number}", cwd=tmp_path, **BASH).receipt.run_id for number in range(1, 8)]
    ended.append(cc_execute_sync("exit 3", cwd=tmp_path, label="broken", **BASH).receipt.run_id)
    remembered()
    return ended


def rows(*arguments: str) -> list[dict[str, Any]]:
    return json.loads(cli("history", "--json", *arguments).stdout)


def test_past_runs_are_listed_filtered_and_exported(runs: list[str], tmp_path: Path) -> None:
    shown = cli("history", "--limit", "2")
    assert shown.stdout.splitlines()[1].startswith(runs[-1])
    assert len(shown.stdout.splitlines()) == 3
    assert "2 runs (1 failed, 1 ok)" in shown.stderr
    assert [row["run_id"] for row in rows()] == runs[::-1]
    assert [row["run_id"] for row in rows("--outcome", "failed", "--since", "1h", "--cwd", str(tmp_path))] == [runs[-1]]
    assert rows("--label", "no such") == []
    assert "No such run is known." in cli("history", "--label", "no such").stderr
    table = list(csv.DictReader(io.StringIO(cli("history", "--csv", "--all").stdout)))
    assert [line["run_id"] for line in table] == runs[::-1]
    wrong = cli("history", "--since", "soon")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "is no time" in wrong.stderr


def test_clocks_that_are_a_day_and_more_from_utc_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XXX-30")  # 30 hours: C takes such an offset, a zone of datetime does not
    assert cli("run", "--agent", "shell", "true", "--max-cost-per-day", "1").returncode == 0
    for look in (["list"], ["show"], ["history"], ["history", "--since", "1h"], ["history", "prune", "--older-than", "0d"]):
        assert cli(*look).returncode == 0, look


@pytest.mark.usefixtures("claude_cli")
def test_a_rehearsal_costs_nothing_and_a_label_of_spaces_is_none(tmp_path: Path) -> None:
    run = cli("run", "Say hello.", "--rehearse", "hello", "--label", "  ", cwd=tmp_path)
    assert run.returncode == 0
    for said in (run.stderr, *(cli(look).stdout for look in ("list", "history", "show"))):
        assert "rehearsal" in said
        assert "$" not in said
    assert cli("list").stdout.splitlines()[-1].endswith("  Say hello.")


def test_a_run_takes_one_line_whatever_its_label_holds() -> None:
    assert cli("run", "--agent", "shell", "true", "--label", "one\ntwo").returncode == 0
    for look in (["list"], ["history"], ["history", "prune", "--older-than", "0d"]):
        assert [line.endswith("  one two") for line in cli(*look).stdout.splitlines()][-1:] == [True], look
        assert "\ntwo" not in cli(*look).stdout


def test_a_command_leaves_its_row_before_it_ends(state_folder: Path) -> None:
    assert cli("run", "--agent", "shell", "true", "--label", "only one").returncode == 0
    with contextlib.closing(sqlite3.connect(state_folder / FILE)) as index:  # who asks by `history` would have it made up for
        assert index.execute("SELECT label FROM runs").fetchall() == [("only one",)]


def test_the_history_heals_and_can_be_made_anew(runs: list[str], state_folder: Path) -> None:
    (state_folder / FILE).write_bytes(b"no database")
    first = cli("history", "--json")
    assert len(json.loads(first.stdout)) == len(runs)
    assert first.stderr.splitlines() == [SAID[Trouble.DAMAGED]]
    assert cli("history", "--json").stderr == ""
    assert cli("history", "rebuild").stdout == "The history has 8 runs.\n"
    assert json.loads(cli("history", "rebuild", "--json").stdout) == {"runs": 8}


def test_an_estimate_says_what_it_is_based_on_or_that_there_is_none(runs: list[str], tmp_path: Path) -> None:
    said = cli("estimate", "sleep 0.05", "--agent", "shell", cwd=tmp_path).stdout
    assert re.match(r"command:sleep, trivial\ntime  \d", said)
    assert "confidence" in said
    found = json.loads(cli("estimate", "-", "--agent", "shell", "--json", stdin=b"sleep 0.05", cwd=tmp_path).stdout)
    assert found["seconds"]["p50"] <= found["seconds"]["p90"]
    assert found["cost"] is None
    assert "no estimate: fewer than 5" in cli("estimate", "Explain this.").stdout


def test_a_list_is_checked_with_its_expected_time_and_cost(runs: list[str], tmp_path: Path) -> None:
    file = tmp_path / "list.yaml"
    file.write_text(LIST)
    assert len(rows()) == len(runs)  # makes up for a row that could not be written in time on a busy machine; an estimate does without it
    lines = cli("tasks", "check", file, "--cwd", tmp_path).stdout.splitlines()
    assert re.search(r"usually \d", lines[0])
    assert "(n=7)" in lines[0]
    assert "usually" not in lines[1]
    assert lines[2].startswith("Expected: ")
    assert "for 1 of 2 tasks" in lines[2]
    expected = json.loads(cli("tasks", "check", file, "--cwd", tmp_path, "--json").stdout)["expected"]
    assert expected["estimated"] == 1
    assert expected["tasks"]["odd"]["seconds"] is None


def test_pruning_shows_first_and_removes_only_when_told(runs: list[str], state_folder: Path) -> None:
    kept = state_folder / "runs" / runs[0]
    shown = cli("history", "prune", "--keep", "5")
    assert len(shown.stdout.splitlines()) == 3
    assert "Nothing was removed. --yes does it." in shown.stderr
    assert (kept / "stdout").exists()
    assert "3 lose their journal" in cli("history", "prune", "--keep", "5", "--yes").stderr
    assert not (kept / "stdout").exists()
    assert (kept / "receipt.json").exists()
    told = cli("verify", runs[0])
    assert told.returncode == 3
    assert "by `history prune`" in told.stdout
    for command in ("attach", "tail"):
        (cure,) = re.findall(r"by `history prune`: `cc-executor (.*)` has the text of the receipt", cli(command, runs[0]).stderr)
        assert cli(*cure.split()).stdout == cli("show", runs[0]).stdout
    assert "There is nothing to remove." in cli("history", "prune", "--older-than", "1d", "--yes").stderr
    gone = json.loads(cli("history", "prune", "--keep", "6", "--whole", "--yes", "--json").stdout)
    assert [run["run_id"] for run in gone["runs"]] == runs[:2]
    assert not kept.exists()
    assert cli("history", "prune").returncode == 2
