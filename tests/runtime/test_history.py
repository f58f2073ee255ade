"""The history of real runs: filled at the seal, caught up, made anew, read where it cannot be written, and never in the way of a run."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sqlite3
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any, Final

import pytest

import cc_executor
from cc_executor.agents.claude.census import count_tool_calls
from cc_executor.api import cc_execute_sync, make_request
from cc_executor.errors import InvalidRequest
from cc_executor.model.event import ToolCalled
from cc_executor.model.fold import advance_all
from cc_executor.model.receipt import Receipt
from cc_executor.model.request import RunId
from cc_executor.model.state import RunState
from cc_executor.policy.redact import MASK, Redactor
from cc_executor.runtime.forecast import estimate, forecast_list, usual_words
from cc_executor.runtime.history import SAID, prompt_line, rebuild, remember
from cc_executor.runtime.past import History, history, when
from cc_executor.runtime.plan import Plan
from cc_executor.runtime.retention import plan_pruning, prune
from cc_executor.runtime.run import Run
from cc_executor.runtime.summary import summaries, summary
from cc_executor.runtime.verification import Verdict, verify
from cc_executor.shim import records
from cc_executor.store.bundle import BUNDLE
from cc_executor.store.history import DAMAGED, FILE, HistoryIndex, Trouble, transaction
from cc_executor.store.home import StateHome
from cc_executor.store.keys import own_keys
from cc_executor.store.tasklists import ListHome
from cc_executor.taskplan import plan, request_of
from cc_executor.tasks import cc_execute_list
from runtime.test_nemesis import close_off
from support.locks import as_its_last_sync
from support.recordings import CLAUDE, Recording, events_of
from support.runs import BASH, remembered, run_folders

SECRET: Final = "sk-ant-api03-" + "Zq7" * 12


def shell(script: str, **options: Any) -> Receipt:
    receipt = cc_execute_sync(script, **BASH, **options).receipt
    remembered()
    return receipt


def ids(found: History) -> list[str]:
    return [row.run_id for row in found]


def indexed(home: StateHome) -> int:
    """Rows that are in the file, without catching up."""
    with closing(sqlite3.connect(home.root / FILE)) as connection:
        return connection.execute("SELECT count(*) FROM runs").fetchone()[0]


def test_a_run_is_in_the_history_when_its_receipt_is_sealed_and_rebuilt_it_is_the_same(
    home: StateHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (6.0, 5.0, 4.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    receipt = shell("echo one; echo two", cwd=tmp_path, label="pair", verify="true")
    assert indexed(home) == 1
    (row,) = history()
    assert (row.run_id, row.outcome, row.standing, row.agent, row.label) == (receipt.run_id, "ok", "verified", "shell", "pair")
    assert (row.cwd, row.prompt_line, row.category) == (str(tmp_path), "echo one; echo two", "command:echo")
    assert row.prompt_digest == receipt.prompt_sha256
    assert row.active == receipt.times.active
    assert row.started == pytest.approx(receipt.times.started.timestamp())
    assert row.load == 1.5, "per core"
    assert row.size > 1000
    assert rebuild(home, environ=os.environ)[0] == 1
    (again,) = history()
    assert again.as_dict() == row.as_dict()


def test_the_tool_calls_that_a_run_counted_are_those_that_are_found_in_its_output(home: StateHome, tmp_path: Path) -> None:
    speaker = tmp_path / "speaker"
    speaker.write_text(f"#!/bin/sh\ncat > {tmp_path}/prompt\ncat {Recording('02d-acceptEdits').path}\n")
    speaker.chmod(0o700)
    cc_execute_sync("Speak.", cwd=tmp_path, cli=str(speaker))
    remembered()
    (row,) = history()
    assert row.tools == 5
    assert rebuild(home, environ=os.environ)[0] == 1
    (again,) = history()
    assert again.as_dict() == row.as_dict()


def test_runs_that_the_index_missed_are_caught_up_and_those_that_are_gone_leave_it(home: StateHome) -> None:
    receipts = [shell(f"exit {number}") for number in range(3)]
    with HistoryIndex(home.root).writing() as connection, transaction(connection):
        connection.execute("DELETE FROM runs WHERE run_id = ?", (receipts[0].run_id,))
    assert ids(history()) == [receipt.run_id for receipt in reversed(receipts)]
    home.discard(RunId(receipts[1].run_id))
    assert ids(history()) == [receipts[2].run_id, receipts[0].run_id]
    assert {row.outcome for row in history(outcome="failed")} == {"failed"}
    (home.root / FILE).unlink()
    assert ids(history()) == [receipts[2].run_id, receipts[0].run_id]


def test_a_run_that_goes_on_is_added_when_it_has_ended(home: StateHome) -> None:
    ended = shell("true")
    path = home.folder(ended.run_id).path / "receipt.json"
    kept = path.rename(path.with_name("later"))
    (home.root / FILE).unlink()
    assert len(history()) == 0
    # As if a second had passed since the folder was made, so that the listing is final and only what is pending is looked at.
    os.utime(home.runs_path, (time.time() - 10, time.time() - 10))
    assert len(history()) == 0
    kept.rename(path)
    assert ids(history()) == [ended.run_id]


@pytest.mark.row("faults", "history damaged", "made anew from the receipts, told once, no run hurt")
@pytest.mark.parametrize("by_a_run", [False, True])
def test_a_damaged_history_is_told_once_and_made_anew(home: StateHome, by_a_run: bool) -> None:
    first = shell("true")
    (home.root / FILE).write_bytes(os.urandom(20_000))
    wanted = [first.run_id]
    if by_a_run:
        wanted.insert(0, shell("true").run_id)
    found = history()
    assert ids(found) == wanted
    assert found.notes == (SAID[Trouble.DAMAGED],)
    assert history().notes == ()
    assert (home.root / DAMAGED).exists()


@pytest.mark.parametrize("change", ["UPDATE runs SET active = 'long'", "UPDATE runs SET p90 = 1, p50 = NULL"])
def test_a_history_in_which_somebody_else_has_written_is_made_anew(home: StateHome, tmp_path: Path, change: str) -> None:
    ended = shell("true", cwd=tmp_path)
    assert len(history()) == 1
    with closing(sqlite3.connect(home.root / FILE)) as connection:
        connection.execute(change)
        connection.commit()
    found = history()
    assert [row.run_id for row in found] == [ended.run_id]
    assert found.notes == (SAID[Trouble.DAMAGED],)
    assert history().notes == ()


@pytest.mark.row("faults", "history locked", "runs and reads go on, what was missed is caught up")
def test_while_somebody_holds_the_history_runs_and_reads_go_on(home: StateHome) -> None:
    first = shell("true")
    with HistoryIndex(home.root).writing() as other:
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        second = shell("true")
        assert second.outcome.ok
        assert time.monotonic() - began < 30
        remembered()
        found = history()
        assert ids(found) == [second.run_id, first.run_id], "what the index lacks is read from the receipts"
        assert found.notes == (SAID[Trouble.BUSY],)
        other.execute("ROLLBACK")
    assert ids(history()) == [second.run_id, first.run_id]
    assert history().notes == ()
    assert indexed(home) == 2


@pytest.mark.row("faults", "state folder cannot be written", "the history is read all the same, and that is told")
@pytest.mark.parametrize("has_index", [True, False])
def test_a_state_folder_that_cannot_be_written_is_read_all_the_same(home: StateHome, has_index: bool) -> None:
    receipt = shell("true")
    for path in home.root.glob(f"{FILE}*"):
        if not has_index:
            path.unlink()
    (home.root / "history.lock").unlink()
    if has_index:
        (home.root / FILE).chmod(0o400)
    before = sorted(home.root.iterdir())
    close_off(home.root, True)
    try:
        found = history()
        prediction, _ = estimate(home, make_request("true", **BASH), environ=os.environ)
    finally:
        close_off(home.root, False)
    assert ids(found) == [receipt.run_id]
    assert found.notes == (SAID[Trouble.UNWRITABLE],)
    assert prediction.seconds is None
    assert sorted(home.root.iterdir()) == before


def test_nothing_was_ever_run(state_folder: Path) -> None:
    found = history()
    assert (len(found), found.notes) == (0, ())
    assert not state_folder.exists()


def test_no_secret_and_no_more_than_a_line_of_a_prompt_gets_in(home: StateHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "correct horse battery")
    shell(f"\n  true {SECRET} 'correct horse battery'\n# the second line {'x' * 500}", label=f"with {SECRET}")
    (row,) = history()
    assert MASK in row.prompt_line
    data = b"".join(path.read_bytes() for path in home.root.glob(f"{FILE}*"))
    for word in (SECRET, "correct horse", "the second line"):
        assert word.encode() not in data
    assert prompt_line("a" * 300, Redactor()) == "a" * 80
    assert prompt_line("\n\n \x1b[31mred\x07\n", Redactor()) == "red"
    assert prompt_line(f"{SECRET[:20]}\x1b[31m{SECRET[20:]}", Redactor()) == MASK, "grep --color marks what it has found"


def test_in_a_list_of_runs_the_prompt_is_masked_before_it_is_cut(home: StateHome) -> None:
    receipt = shell(f"#{'x' * 60} {SECRET}", label=SECRET)
    row = summary(home.folder(receipt.run_id), now=time.time(), mask=Redactor().text)
    assert (row.label, row.prompt) == (MASK, f"#{'x' * 60} {MASK}")


def test_what_is_no_utf_8_is_marked_and_costs_the_row_nothing_else(home: StateHome) -> None:
    shell("true caf\udce9", label="odd")  # bytes of Latin-1, as a terminal hands them on
    (row,) = history()
    assert (row.prompt_line, row.label, row.prompt_chars, row.category) == ("true caf\ufffd", "odd", 9, "command:true")
    assert rebuild(home, environ=os.environ)[0] == 1
    (again,) = history()
    assert again.as_dict() == row.as_dict()


async def test_runs_of_a_list_know_it(home: StateHome, tmp_path: Path) -> None:
    listed = await cc_execute_list([{"id": "a", "run": "true"}, {"id": "b", "run": "true", "needs": "a"}], cwd=tmp_path)
    rows = {row.task_id: row for row in history(list_id=listed.list_id)}
    assert {name: row.run_id for name, row in rows.items()} == {name: task.run_id for name, task in listed.tasks.items()}
    for row in rows.values():  # as who seals a run does, perhaps after somebody else has put it there
        remember(home.folder(row.run_id), Redactor(()))
    assert {row.task_id for row in history(list_id=listed.list_id)} == {"a", "b"}
    rebuild(home, environ=os.environ)
    assert len(history(list_id=listed.list_id)) == 2


def test_a_prediction_is_made_at_the_start_kept_with_the_run_and_judged(home: StateHome, tmp_path: Path) -> None:
    for number in range(6):
        shell(f"sleep 0.0{number}", cwd=tmp_path)
    last = home.folder(shell("sleep 0.03", cwd=tmp_path).run_id)
    prediction = Plan.of(last).prediction
    assert prediction is not None
    assert prediction.seconds is not None
    assert prediction.seconds.based_on >= 5
    assert usual_words(last) == prediction.seconds.words()
    found = history()
    assert found[0].p90 == prediction.seconds.p90
    assert found.calibration.runs == sum(row.p90 is not None for row in found) > 0
    asked, said = estimate(home, make_request("sleep 0.03", cwd=tmp_path, **BASH), environ=os.environ)
    assert said == []
    assert asked.seconds is not None
    assert asked.cost is None
    planned = plan([{"id": "a", "run": "sleep 1"}, {"id": "b", "run": "unheard of"}], cwd=tmp_path).tasks
    forecast = forecast_list(planned, home.root, lambda task: request_of(planned, task, task.text, None, ""))
    assert forecast.words("a")
    assert forecast.words("b") == ""
    assert "for 1 of 2 tasks" in forecast.summary()


def test_a_run_starts_also_where_its_history_is_broken(home: StateHome) -> None:
    shell("true")
    (home.root / FILE).unlink()
    (home.root / FILE).mkdir()
    receipt = shell("true")
    assert receipt.outcome.ok
    prediction = Plan.of(home.folder(receipt.run_id)).prediction
    assert prediction is not None
    assert prediction.seconds is None


def test_a_plan_of_an_older_version_still_reads(home: StateHome) -> None:
    folder = home.folder(shell("true").run_id)
    old = json.loads((folder.path / "plan.json").read_bytes())
    for name in ("prediction", "load", "notebook"):
        del old[name]
    (folder.path / "plan.json").write_text(json.dumps(old))
    assert Plan.of(folder).prediction is None
    assert usual_words(folder) == ""
    rebuild(home, environ=os.environ)
    assert history()[0].load is None


# --- export ----------------------------------------------------------------------------------------------------------------


def test_n_runs_in_are_n_rows_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        shell(f'exit {number % 2} # a, "b"', label="with\nlines, and a 'quote'")
    found = cc_executor.history(outcome="failed")
    assert len(found) == 2
    assert json.loads(found.to_json()) == found.to_dicts()
    table = list(csv.DictReader(io.StringIO(found.to_csv(), newline="")))
    assert [line["run_id"] for line in table] == ids(found)
    assert table[0]["label"] == "with\nlines, and a 'quote'"
    assert datetime.fromisoformat(table[0]["started"]).timestamp() == pytest.approx(found[0].started, abs=1e-3)
    assert len(found.to_csv().splitlines()) > 2
    assert "2 runs (2 failed)" in found.summary()
    assert found[0].run_id in repr(found)
    assert "<table>" in found._repr_html_()
    frame = found.to_frame()
    assert list(frame.index) == ids(found)
    assert frame["started"].dt.tz is not None
    assert [moment.timestamp() for moment in frame["started"]] == pytest.approx([row.started for row in found], abs=1e-3)
    assert list(frame["outcome"]) == ["failed", "failed"]
    assert list(History((), found.calibration).to_frame().columns) == list(frame.columns), "no runs are a table, too"
    monkeypatch.setitem(sys.modules, "pandas", None)  # as where it is not installed
    with pytest.raises(InvalidRequest, match="pip install pandas"):
        found.to_frame()


def test_times_and_filters_as_people_write_them() -> None:
    now = datetime(2026, 5, 5, tzinfo=UTC).timestamp()
    assert when("7d", now=now) == now - 7 * 86400
    assert when("1.5h", now=now) == now - 5400
    assert when(12, now=now) == 12
    assert when("2026-05-05T00:00+00:00", now=0) == now
    assert when(datetime(2026, 5, 5, tzinfo=UTC), now=0) == now
    assert when(None, now=now) is None
    refused: list[tuple[dict[str, Any], str]] = [
        ({"since": "soon"}, "is no time"),
        ({"outcome": "good"}, "There is no outcome"),
        ({"limit": 0}, "1 or more"),
        ({"limit": 10**20}, "leave it out for all"),
        ({"limit": 2.5}, "leave it out for all"),
        ({"limit": "5"}, "leave it out for all"),
        ({"since": float("inf")}, "is no time"),
        ({"until": float("nan")}, "is no time"),
        ({"since": 10**400}, "is no time"),
        ({"since": date(1, 1, 1)}, "is no time"),
        ({"since": timedelta(days=7)}, "is no time"),
        ({"label": ["a", "b"]}, "label must be a text"),
        ({"text": "x" * 100_000}, "text must be"),
        ({"cwd": 5}, "cwd must be"),
        ({"rehearsed": "no"}, "rehearsed must be"),
    ]
    for wrong, complaint in refused:
        with pytest.raises(InvalidRequest, match=complaint):
            history(**wrong)
    assert len(history(text="\ud800")) == 0, "half a pair of surrogates is in no text"
    with pytest.raises(InvalidRequest, match=r"no filter 'list'. It is one of agent, .*list_id, .*rehearsed"):
        history(list="nightly")


def test_no_cell_of_a_csv_is_a_formula(tmp_path: Path) -> None:
    shell("true", cwd=tmp_path, label='=HYPERLINK("http://example.org/"&A1)')
    shell("true", cwd=tmp_path, label="-1 day")
    (table,) = [list(csv.DictReader(io.StringIO(history().to_csv(), newline="")))]
    assert [row["label"] for row in table] == ["'-1 day", '\'=HYPERLINK("http://example.org/"&A1)']
    assert [row.label for row in history()] == ["-1 day", '=HYPERLINK("http://example.org/"&A1)'], "in CSV alone"


# --- retention -------------------------------------------------------------------------------------------------------------


def test_pruned_journals_are_told_and_receipts_stay(home: StateHome) -> None:
    receipts = [shell(f"echo {number} {'x' * 20_000}") for number in range(3)]
    with pytest.raises(InvalidRequest, match="--older-than"):
        plan_pruning(home, environ=os.environ, now=time.time())
    planned = plan_pruning(home, environ=os.environ, now=time.time(), keep=1)
    assert [each.row.run_id for each in planned.candidates] == [receipt.run_id for receipt in receipts[:2]]
    assert planned.freed > 40_000
    assert planned.total > planned.freed
    assert verify(receipts[0], home=home, transcript_roots=()).verdict is Verdict.VERIFIED, "only looked at"
    now = time.time()
    freed = prune(home, planned, environ=os.environ, now=now)
    assert freed == planned.freed
    found = verify(receipts[0], home=home, transcript_roots=())
    assert found.verdict is Verdict.UNVERIFIABLE
    assert f"The journal was removed on {datetime.fromtimestamp(now, UTC):%Y-%m-%d} by `history prune`" in found.reasons[0]
    named = verify(receipts[0], home=home, transcript_roots=(), keys=own_keys(home))
    assert named.verdict is Verdict.VERIFIED, "as where the run's folder is not at hand"
    assert found.reasons[0] in named.reasons
    assert home.folder(receipts[0].run_id).receipt() == receipts[0]
    assert verify(receipts[2], home=home, transcript_roots=()).verdict is Verdict.VERIFIED
    rows = history()
    assert [row.is_pruned for row in rows] == [0, 1, 1]
    rebuild(home, environ=os.environ)
    assert [row.as_dict() for row in history()] == [row.as_dict() for row in rows]
    assert plan_pruning(home, environ=os.environ, now=time.time(), keep=1).candidates == ()


def test_whole_runs_go_but_a_known_notebook_or_list_keeps_its_receipts(home: StateHome, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = shell("true")
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/analysis.ipynb")
    shown = shell("true")
    monkeypatch.setenv("JPY_SESSION_NAME", "0c7e-a-session-id")
    assert Plan.of(home.folder(shell("true").run_id)).notebook == ""
    planned = plan_pruning(home, environ=os.environ, now=time.time(), keep=0, whole=True)
    reasons = {each.row.run_id: (each.is_whole, each.because) for each in planned.candidates}
    assert reasons[plain.run_id] == (True, "")
    assert reasons[shown.run_id] == (False, "the notebook analysis.ipynb shows it")
    assert any("1 keeps its receipt all the same" in line for line in planned.words())
    prune(home, planned, environ=os.environ, now=time.time())
    assert [path.name for path in run_folders(home.root)] == [shown.run_id]
    assert home.folder(shown.run_id).receipt() == shown
    assert ids(history()) == [shown.run_id]


async def test_a_list_keeps_what_it_was_made_of(home: StateHome, tmp_path: Path) -> None:
    listed = await cc_execute_list([{"id": "a", "run": "echo made"}], cwd=tmp_path)
    planned = plan_pruning(home, environ=os.environ, now=time.time(), keep=0, whole=True)
    assert [each.because for each in planned.candidates] == [f"the task list {listed.list_id} needs it"]
    prune(home, planned, environ=os.environ, now=time.time())
    assert listed.result("a").text.strip() == "made"
    assert history()[0].list_id == listed.list_id
    assert ListHome(home).find(listed.list_id).state().status.value == "ok"


def test_who_is_killed_while_a_whole_run_goes_leaves_no_run_without_its_receipt(home: StateHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be sealed again by whoever looks at it next, over a journal that is gone, and be a run that failed."""
    gone = shell("echo said")
    planned = plan_pruning(home, environ=os.environ, now=time.time(), keep=0, whole=True)

    def killed(path: Path, **_: object) -> None:
        (path / records.RECEIPT).unlink()  # the first file that goes, as it may be
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            prune(home, planned, environ=os.environ, now=time.time())
    assert list(home.runs()) == []
    assert ids(history()) == []
    prune(home, plan_pruning(home, environ=os.environ, now=time.time(), keep=0), environ=os.environ, now=time.time())
    assert list(home.runs_path.iterdir()) == [], f"the rest of {gone.run_id} goes with the next pruning"


async def test_a_run_that_was_away_for_a_while_is_of_its_list_again(home: StateHome, tmp_path: Path) -> None:
    listed = await cc_execute_list([{"id": "a", "run": "true"}], cwd=tmp_path)
    (row,) = history(list_id=listed.list_id)
    away = home.folder(row.run_id).path.rename(tmp_path / "away")
    assert ids(history()) == []
    away.rename(home.folder(row.run_id).path)
    assert [(row.list_id, row.task_id) for row in history()] == [(listed.list_id, "a")]


async def test_a_run_that_goes_on_is_not_pruned(home: StateHome, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    run = await Run.start(make_request("cat gate", cwd=tmp_path, **BASH), home=home, environ=os.environ)
    planned = plan_pruning(home, environ=os.environ, now=time.time(), keep=0, whole=True)
    assert (planned.candidates, planned.unsealed) == ((), 1)
    (tmp_path / "gate").write_text("go")
    assert (await run.finish()).outcome.ok


def test_a_run_whose_supervisor_syncs_its_journal_still_has_ended_and_is_pruned(home: StateHome) -> None:
    ended = home.folder(shell("echo").run_id)
    with as_its_last_sync(ended):
        prune(home, plan_pruning(home, environ=os.environ, now=time.time(), keep=0), environ=os.environ, now=time.time())
    assert not (ended.path / records.STDOUT).exists()


def test_what_is_being_written_into_a_run_s_folder_is_not_pruned(home: StateHome, tmp_path: Path) -> None:
    folder = home.folder(cc_execute_sync("echo", cwd=tmp_path, **BASH).receipt.run_id)
    remembered()
    part = folder.path / f".{BUNDLE}.0123456789ab"
    part.write_text("half")
    planned = plan_pruning(home, environ=os.environ, now=time.time(), keep=0)
    assert prune(home, planned, environ=os.environ, now=time.time())
    assert part.read_text() == "half"
    assert not (folder.path / records.STDOUT).exists()


@pytest.mark.parametrize("whole", [False, True])
def test_prunings_at_the_same_time_are_in_nobody_s_way(home: StateHome, tmp_path: Path, whole: bool) -> None:
    folder = home.folder(cc_execute_sync("echo", cwd=tmp_path, **BASH).receipt.run_id)
    remembered()
    for number in range(300):
        (folder.path / "agent" / str(number)).mkdir(parents=True)
    planned = plan_pruning(home, environ=os.environ, now=time.time(), keep=0, whole=whole)
    with ThreadPoolExecutor(4) as threads:
        begun = Barrier(4)
        for done in [threads.submit(lambda: (begun.wait(60), prune(home, planned, environ=os.environ, now=time.time()))) for _ in range(4)]:
            done.result(60)
    assert (folder.path / records.RECEIPT).exists() is not whole
    assert not (folder.path / "agent").exists()
    assert [path.name for path in home.runs_path.iterdir()] == ([] if whole else [folder.run_id])


def test_a_run_that_cannot_be_looked_into_is_left_alone_and_hides_no_other(home: StateHome, tmp_path: Path) -> None:
    odd, other = [home.folder(cc_execute_sync("echo", cwd=tmp_path, **BASH).receipt.run_id) for _ in range(2)]
    remembered()
    (odd.path / records.LOCK).unlink()
    (odd.path / records.LOCK).mkdir()
    planned = plan_pruning(home, environ=os.environ, now=time.time(), keep=0)
    assert [each.row.run_id for each in planned.candidates] == [other.run_id]
    assert prune(home, planned, environ=os.environ, now=time.time())
    for name in (records.EXIT, records.RECEIPT):
        (odd.path / name).unlink()
    assert [(row.id, row.status) for row in summaries(home, now=time.time())] == [(other.run_id, "ok"), (odd.run_id, "unreadable")]


# --- what is counted in a transcript ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("recording", CLAUDE, ids=str)
def test_tool_calls_are_counted_as_the_decoder_counts_them(recording: Recording) -> None:
    calls = {event.tool_id for event in events_of(recording.name) if isinstance(event, ToolCalled)}
    data = recording.stdout
    for size in (7, 777):
        blocks = [data[start : start + size] for start in range(0, len(data), size)]
        assert count_tool_calls(blocks) == count_tool_calls([data]) == len(calls)
    state = advance_all(RunState(), events_of(recording.name))
    assert len(state.tools) + state.tools_left_out == len(calls), "whoever seals a run has counted them"
