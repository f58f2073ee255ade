"""`cc-executor tasks` as a process of its own: run, look at and command a list from a terminal."""

from __future__ import annotations

import contextlib
import json
import re
import signal
from pathlib import Path

import pytest

from cc_executor.store.home import StateHome
from cc_executor.store.tasklists import ListHome
from cli.test_cli import BUDGET, beginning, cli
from support.commands import hangups
from support.leaks import await_none
from support.looks import eventually

LIST = """
name: demo
on_failure: skip
tasks:
- id: first
  title: The first
  run: echo one >> log
- id: wait
  run: until [ -e go ]; do sleep 0.05; done
- id: broken
  run: exit 3
- id: after
  run: echo never
  needs: broken
"""


def cures(said: str) -> list[list[str]]:
    """The commands that a message names, in their order."""
    return [command.split() for command in re.findall(r"`cc-executor (.*?)`", said)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "demo.yaml"
    path.write_text(LIST)
    return path


def test_a_list_is_checked_run_shown_and_not_done_twice(file: Path, tmp_path: Path) -> None:
    checked = cli("tasks", "check", file)
    assert [line.split()[1] for line in checked.stdout.splitlines()] == ["first", "wait", "broken", "after"]
    assert "No task list was run yet." in cli("tasks", "list").stdout
    (tmp_path / "go").touch()
    done = cli("tasks", "run", file, "--cwd", tmp_path)
    assert done.returncode == 1
    assert "failed: 2 of 4 tasks ended well" in done.stdout
    assert [line.split()[:3] for line in done.stdout.splitlines()[:3]] == [
        ["▶", "first", "running"],
        ["✓", "first", "ok"],
        ["▶", "wait", "running"],
    ]
    shown = json.loads(cli("tasks", "show", "--json").stdout)
    assert [task["status"] for task in shown["tasks"]] == ["ok", "ok", "failed", "skipped"]
    cli("tasks", "run", file, "--cwd", tmp_path)
    assert (tmp_path / "log").read_text() == "one\n"


def test_a_list_that_runs_is_commanded_from_elsewhere(file: Path, tmp_path: Path, state_folder: Path) -> None:
    started = cli("tasks", "run", file, "--cwd", tmp_path, "--detach")
    list_id = started.stdout.strip()

    def state() -> dict[str, str]:
        shown = json.loads(cli("tasks", "show", list_id, "--json").stdout)
        return {"list": shown["status"]} | {task["task"]: task["status"] for task in shown["tasks"]}

    eventually(lambda: state().get("wait") == "running", within=BUDGET, what="the second task runs")
    assert "not UTF-8 text (byte 8)" in cli("tasks", "edit", "after", b"echo caf\xe9").stderr
    assert cli("tasks", "edit", "after", "echo edited").returncode == 0
    cli("tasks", "skip", "broken")
    refused = cli("tasks", "edit", "first", "echo no")
    assert refused.returncode == 1
    assert "has begun already" in refused.stderr
    assert cli("tasks", "pause").stderr == ""
    eventually(lambda: state()["list"] == "paused", within=BUDGET, what="the list is held")
    left_out = cli("tasks", "edit", "broken", "echo no").stderr
    assert "is left out" in left_out
    assert cures(left_out) == [["tasks", "retry", "broken", list_id]]
    cli("tasks", "resume")
    early = cli("tasks", "edit", "wait", "echo no")
    assert early.returncode == 1
    stop, set_back = cures(early.stderr)
    assert cures(cli("tasks", "retry", "wait").stderr) == [stop]
    cli(*stop)
    eventually(lambda: state()["list"] == "stopped", within=BUDGET, what="the list is stopped")
    assert state() == {"list": "stopped", "first": "ok", "wait": "stopped", "broken": "skipped", "after": "skipped"}
    assert not await_none([tmp_path])
    folder = ListHome(StateHome(state_folder)).find(list_id)
    eventually(lambda: not folder.is_run(), within=BUDGET, what="whoever ran it is gone")
    noted = cli(*set_back)
    assert cli("tasks", "edit", "wait", "echo edited").returncode == 0
    assert f"Nobody runs this list now: `cc-executor tasks run {list_id}` does." in noted.stderr


def test_the_file_that_is_named_is_the_one_that_is_run_wherever_its_tasks_work(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "list.yaml").write_text("tasks: [{id: meant, run: pwd}]")
    (work / "list.yaml").write_text("tasks: [{id: another, run: pwd}]")
    done = cli("tasks", "run", "list.yaml", "--cwd", work, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = json.loads(cli("tasks", "show", "--json").stdout)
    assert [row["task"] for row in shown["tasks"]] == ["meant"]
    elsewhere = cli("tasks", "run", shown["id"], "--cwd", tmp_path)
    assert elsewhere.returncode == 2
    assert f"goes on where it was begun, in {work}: leave --cwd out" in elsewhere.stderr
    assert cli("show").stdout.splitlines()[0] == str(work)
    assert "meant" in cli("tasks", "check", "list.yaml", "--cwd", work, cwd=tmp_path).stdout
    (work / "list.yaml").unlink()
    assert cli("validate", "list.yaml", "--cwd", work, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_and_kill_and_a_hangup_stop_the_list(file: Path, tmp_path: Path, number: signal.Signals) -> None:
    with contextlib.ExitStack() as stack:
        with hangups():
            process = stack.enter_context(beginning("tasks", "run", str(file), "--cwd", str(tmp_path)))
        eventually((tmp_path / "log").exists, within=BUDGET, what="the list runs")
        process.send_signal(number)
        said, hint = process.communicate(timeout=BUDGET)
        assert process.returncode == 130
    assert re.fullmatch(r"stopped: [01] of 4 tasks ended well .*", said.splitlines()[-1])
    assert "goes on" in hint
    assert json.loads(cli("tasks", "list", "--json").stdout)[0]["status"] == "stopped"
    assert not await_none([tmp_path])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "nothing.yaml"), "nothing.yaml"),
        (("show", "ffff"), "There is no task list 'ffff'"),
        (("show",), "No task list was run yet."),
        (("pause",), "cc-executor tasks run FILE"),
    ],
)
def test_what_is_not_there_is_said(arguments: tuple[str, ...], said: str) -> None:
    done = cli("tasks", *arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("tasks:\n- id: a\n  prompt: x\n  timeout: -1\n- id: a\n  run: y\n  needs: z\n")
    done = cli("tasks", "check", file)
    assert done.returncode == 2
    assert "(line 2): timeout must be" in done.stderr
    assert "(line 5): needs 'z'" in done.stderr
    assert len(json.loads(cli("tasks", "check", file, "--json").stdout)["problems"]) == 4
    # Of one task, too, of which both the shape and the options are wrong.
    file.write_text("tasks:\n- {id: a, prompt: x, retry: many, expect: 5}\n- {id: b, prompt: x, parallel: 3, modle: m}\n")
    said = cli("tasks", "check", file).stderr
    for words in (
        "retry must be a valid integer",
        "expect must be a text or a list",
        "parallel is said of the whole list",
        "Did you mean model?",
    ):
        assert words in said
