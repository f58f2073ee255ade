"""Hooks and reports from a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cc_executor.errors import InvalidRequest
from cc_executor.runtime.report import Report
from cc_executor.store.home import StateHome
from cli.test_cli import SHELL, beginning, cli, read_until
from support import receipts

LIST = """
name: nightly
hooks:
  before_task: echo $CC_TASK_ID >> called
  after_list: {run: exit 5, name: notify, timeout: 30}
tasks:
- {id: a, run: echo one}
- {id: b, run: exit 3, needs: a}
"""


def test_a_lists_hooks_are_shown_called_and_told(tmp_path: Path) -> None:
    file = tmp_path / "nightly.yaml"
    file.write_text(LIST)
    checked = cli("tasks", "check", file)
    assert checked.stdout.splitlines()[-2:] == [
        "hook before_task: echo $CC_TASK_ID >> called  (10 s, tell)",
        "hook after_list: exit 5  (30 s, tell)",
    ]
    assert not (tmp_path / "called").exists()
    done = cli("tasks", "run", file, "--cwd", tmp_path)
    assert done.returncode == 1
    told = "! The hook 'notify' (after_list) failed: exit code 5"
    assert told in done.stdout
    assert (tmp_path / "called").read_text() == "a\nb\n"
    assert told in cli("tasks", "show").stdout


def test_a_detached_list_has_its_hooks_too(tmp_path: Path) -> None:
    file = tmp_path / "nightly.yaml"
    file.write_text(LIST.replace("exit 5", "touch told"))
    list_id = cli("tasks", "run", file, "--cwd", tmp_path, "--detach").stdout.strip()
    done = cli("tasks", "run", list_id)  # watches, or finds it done
    assert done.returncode == 1
    assert (tmp_path / "told").exists()
    assert (tmp_path / "called").read_text().splitlines()[0] == "a"


def test_the_environments_hooks_are_called_and_what_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC_EXECUTOR_HOOKS", json.dumps({"before_run": "exit 2", "after_run": f"cat > {tmp_path}/given"}))
    done = cli("run", *SHELL, "echo hi", cwd=tmp_path)
    assert done.returncode == 0
    assert "The hook 'exit' (before_run) failed: exit code 2" in done.stderr
    assert json.loads((tmp_path / "given").read_text())["run"]["outcome"] == "ok"
    monkeypatch.setenv("CC_EXECUTOR_HOOKS", '{"before_run": {"run": "exit 2", "on_failure": "stop"}}')
    refused = cli("run", *SHELL, "touch made", cwd=tmp_path)
    assert refused.returncode == 2
    assert "has to end well (on_failure: stop). Nothing was started." in refused.stderr
    assert not (tmp_path / "made").exists()


def test_a_report_is_the_same_whenever_it_is_made(tmp_path: Path) -> None:
    cli("run", *SHELL, "echo '| a | <b> |'; exit 3", "--label", "my *run*", "--verify", "true", cwd=tmp_path)
    first, second = cli("report"), cli("report", "--markdown")
    assert first.stdout == second.stdout
    assert first.stdout.startswith("# my \\*run\\*\n\n**failed**, verified")
    page = tmp_path / "out" / "page"
    page.parent.mkdir()
    written = cli("report", "--html", page)
    assert written.stderr.strip() == f"Written: {page}.html"
    assert written.stdout == ""
    assert Path(f"{page}.html").read_text() == cli("report", "--html", "-").stdout
    assert cli("report", "--html", tmp_path / "nowhere" / "x.html").returncode == 2


@pytest.mark.parametrize("name", ["", ".", "..", "/", "~", "folder", "/dev/full"])
def test_a_report_goes_to_a_file_and_to_nothing_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    cli("run", *SHELL, "true", cwd=tmp_path)
    refused = cli("report", "--html", name, cwd=tmp_path / "folder" if name == ".." else tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith("--html takes the name of a file, such as report.html, or - for standard output (given: ")
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".html") == []
    nobody = cli("report", "--html", "~nobody-of-this-name/page", cwd=tmp_path)
    assert (nobody.returncode, nobody.stderr) == (
        2,
        "The report cannot be written to ~nobody-of-this-name/page.html: No such file or directory.\n",
    )


def test_a_list_is_reported_by_its_id(tmp_path: Path) -> None:
    file = tmp_path / "nightly.yaml"
    file.write_text(LIST)
    cli("tasks", "run", file, "--cwd", tmp_path)
    [row] = json.loads(cli("tasks", "list", "--json").stdout)
    report = cli("report", row["id"][:8]).stdout
    assert report.startswith("# nightly\n\n**failed**: b did not end well")
    assert "## Task b: b" in report
    assert f"`cc-executor tasks run {row['id']}` goes on from here" in report


def test_what_cannot_be_reported_is_said(state_folder: Path) -> None:
    assert "Nothing was run yet." in cli("report").stderr
    with beginning("run", *SHELL, "echo begun; sleep 60") as process:
        read_until(process, "begun")
        said = cli("report")
        assert said.returncode == 2
        assert "goes on; it can be reported when it has ended" in said.stderr
        cli("cancel", "--now")
    bare = receipts.receipt(7)
    receipts.keep(StateHome(state_folder), bare)  # a receipt whose journal is gone
    assert f"Run `{bare.run_id}`" in cli("report", bare.run_id).stdout


@pytest.mark.parametrize(("name", "wanted"), [("a.HTML", "page"), ("a.htm", "page"), ("a.md", "text"), ("a.txt", "text"), ("a", "text")])
def test_the_ending_of_a_name_says_how_a_report_is_written(name: str, wanted: str, tmp_path: Path) -> None:
    assert Report("text", "page").save(tmp_path / name).read_text() == wanted


def test_a_report_is_not_written_as_what_it_is_not(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"^A report cannot be written as \.pdf: .*\.html, .*\.md"):
        Report("text", "page").save(tmp_path / "a.pdf")
    assert list(tmp_path.iterdir()) == []


def test_what_is_neither_run_nor_list_is_said_of_both(state_folder: Path) -> None:
    said = cli("report", "zzz")
    assert (said.returncode, said.stdout) == (2, "")
    assert "There is no run 'zzz'" in said.stderr
    assert "There is no task list 'zzz'. `cc-executor tasks list` shows them." in said.stderr
