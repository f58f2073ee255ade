"""What is said in a terminal to a list that is kept: noted where it holds, refused with the reason where it cannot."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cc_executor.cli.commands import app
from cc_executor.model.listrecord import Begun, Closed, ListState, ListStatus, Stopped
from cc_executor.store.home import StateHome
from cc_executor.store.tasklists import LIST, ListFolder, ListHome
from cc_executor.taskplan import kept, plan
from cc_executor.tasks import cc_execute_task_list
from cli.test_cli import cli


@pytest.fixture
def lists(state_folder: Path) -> ListHome:
    return ListHome(StateHome(state_folder))


def given(lists: ListHome, folder: Path, *commands: str) -> ListFolder:
    """A list of commands, a, b, …, each of which needs the one before."""
    tasks = [{"id": "abc"[number], "run": command, "needs": list("abc"[:number][-1:])} for number, command in enumerate(commands)]
    return lists.open(plan(tasks, cwd=folder).tasks)


def said(*words: str) -> Result:
    """One command, in this process."""
    return CliRunner().invoke(app, ["tasks", *words])


def test_a_text_that_is_no_utf_8_is_refused_in_every_locale(lists: ListHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8:strict")  # as in a locale like en_US.UTF-8
    folder = given(lists, tmp_path, "true", "true")
    for words in (("tasks", "edit", "b", "-"), ("estimate", "-")):
        refused = cli(*words, stdin=b"echo \xff", cwd=tmp_path)
        assert (refused.returncode, "is not UTF-8 text (byte 5)" in refused.stderr) == (2, True)
    assert cli("tasks", "edit", "b", "-", stdin=b"echo fine").returncode == 0
    assert folder.state().texts == {"b": "echo fine"}


def test_a_list_that_cannot_be_read_hides_no_other(lists: ListHome, tmp_path: Path) -> None:
    bad, good = given(lists, tmp_path, "false"), given(lists, tmp_path, "true")
    (bad.path / LIST).write_text("{")
    known = {bad.list_id: "unreadable", good.list_id: "interrupted"}
    assert {line.split()[0]: line.split()[1] for line in said("list").stdout.splitlines()} == known
    assert {each["id"]: each["status"] for each in json.loads(said("list", "--json").stdout)} == known


def test_a_list_and_a_task_take_one_line_whatever_they_are_called(lists: ListHome, tmp_path: Path) -> None:
    file = tmp_path / "list.yaml"
    file.write_text('name: "my\\nlist"\ntasks: [{id: a, run: "true", title: "first\\nsecond"}]\n')
    lists.open(plan(file, cwd=tmp_path).tasks)
    for words, end in ((("list",), "my list"), (("show",), "first second"), (("check", str(file)), "first second")):
        assert any(line.endswith(end) for line in said(*words).stdout.splitlines()), words


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("edit", "b", "{{ needs.c.text }}"), "only a prompt can"),
        (("edit", "b", " "), "nothing to do"),
        (("retry", "a"), "Task a runs"),
    ],
)
def test_what_cannot_hold_is_refused(lists: ListHome, tmp_path: Path, words: tuple[str, ...], why: str) -> None:
    folder = given(lists, tmp_path, "sleep 60", "echo b")
    folder.append(Begun(at=0.0, task="a", attempt=1))
    before = folder.state()
    assert why in str(said(*words).exception)
    assert folder.state() == before


def test_a_list_that_has_ended_takes_what_is_for_its_next_run_alone(lists: ListHome, tmp_path: Path) -> None:
    folder = given(lists, tmp_path, "test -e go", "echo b > made")
    assert cc_execute_task_list(kept(folder)).status == "failed"
    for word in ("pause", "stop"):
        assert "has ended" in str(said(word).exception)
        assert folder.state().status is ListStatus.FAILED
    assert said("edit", "b", "echo other > made").exit_code == 0
    (tmp_path / "go").touch()
    assert "Nobody runs this list now" in said("resume").output
    assert cc_execute_task_list(kept(folder)).ok
    assert (tmp_path / "made").read_text() == "other\n"
    assert "ended well" in str(said("resume").exception)
    assert folder.state().status is ListStatus.OK


def test_a_failed_task_is_left_out_and_the_rest_is_done(lists: ListHome, tmp_path: Path) -> None:
    planned = plan([{"id": "a", "run": "echo a >> log; false"}, {"id": "b", "run": "echo b >> log"}], cwd=tmp_path)
    assert cc_execute_task_list(planned).status == "failed"
    assert said("skip", "a").exit_code == 0
    assert cc_execute_task_list(planned).ok
    assert (tmp_path / "log").read_text() == "a\nb\n"


def test_a_list_that_is_being_stopped_is_not_said_to_go_on(lists: ListHome, tmp_path: Path) -> None:
    folder = given(lists, tmp_path, "true")
    with folder.claimed():
        folder.append(Stopped(at=0.0))
        refused = cli("tasks", "run", folder.list_id, "--detach")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "is being stopped" in refused.stderr


def test_a_list_that_ends_while_it_is_looked_at_is_not_said_to_be_interrupted(
    lists: ListHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = given(lists, tmp_path, "true")
    read, runner = ListFolder.state, contextlib.ExitStack()

    def then_it_ends(told: ListFolder) -> ListState:
        before = read(told)
        told.append(Closed(at=0.0, status=ListStatus.OK))
        runner.close()
        return before

    runner.enter_context(folder.claimed())
    monkeypatch.setattr(ListFolder, "state", then_it_ends)
    shown = said("show", "--json")
    assert json.loads(shown.stdout)["status"] == "running"
