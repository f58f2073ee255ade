"""`cc-executor undo` and `cc-executor tasks undo` as processes of their own."""

from __future__ import annotations

import json
from pathlib import Path

from cli.test_cli import SHELL, cli
from support.trees import walk

LIST = """
name: demo
tasks:
- {id: first, run: echo one > a}
- {id: second, run: echo two >> a; echo b > b}
"""


def test_a_run_is_undone_and_redone_and_refused_over_later_edits(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "a").write_text("before")
    before = walk(work)
    ran = cli("run", "echo after > a; echo new > b", *SHELL, "--undo", "--cwd", work, "--json")
    receipt = json.loads(ran.stdout)
    assert receipt["undo"] == {"ready": True, "note": "", "changes": 2, "shared_with": []}
    after = walk(work)
    would = json.loads(cli("undo", "--dry-run", "--json").stdout)
    assert [(Path(step["path"]).name, step["what"]) for step in would["steps"]] == [("a", "restored"), ("b", "removed")]
    assert walk(work) == after
    undone = cli("undo", receipt["run_id"][-6:])
    assert (undone.returncode, walk(work)) == (0, before)
    again = cli("undo")
    assert (again.returncode, again.stderr.startswith(f"Run {receipt['run_id']} is undone already.")) == (2, True)
    assert cli("undo", "--redo").returncode == 0
    assert walk(work) == after
    (work / "a").write_text("mine")
    refused = cli("undo")
    assert refused.returncode == 2
    assert "  a: it was changed since" in refused.stderr
    kept = cli("undo", "--keep-mine")
    assert "left as it is" in kept.stdout
    assert {name: content for name, (_, _, content) in walk(work).items()} == {b"a": b"mine"}


def test_a_name_in_a_refusal_hides_nothing_of_it(tmp_path: Path) -> None:
    odd = tmp_path / "a\x1b[8mb"
    cli("run", "echo after > a$'\\e[8m'b", *SHELL, "--undo", "--cwd", tmp_path)
    odd.write_text("mine")
    refused = cli("undo")
    assert refused.returncode == 2
    assert "  ab: it was changed since\n" in refused.stderr


def test_a_run_without_looks_says_why_it_cannot_be_undone(tmp_path: Path) -> None:
    cli("run", "echo x > a", *SHELL, "--cwd", tmp_path)
    refused = cli("undo")
    assert refused.returncode == 2
    assert "commands with `--undo`" in refused.stderr


def test_a_list_is_undone_from_a_task_on(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    file = tmp_path / "demo.yaml"
    file.write_text(LIST)
    assert cli("tasks", "run", file, "--cwd", work).returncode == 0
    assert cli("tasks", "undo", "--from", "nobody").returncode == 2
    undone = cli("tasks", "undo", "--from", "second")
    assert undone.returncode == 0, undone.stderr
    assert {name: content for name, (_, _, content) in walk(work).items()} == {b"a": b"one\n"}
    assert cli("tasks", "undo").returncode == 0
    assert not walk(work)
    assert cli("tasks", "undo", "--redo").returncode == 0
    assert walk(work).keys() == {b"a"}
    assert cli("tasks", "undo", "--redo").returncode == 0
    assert {name: content for name, (_, _, content) in walk(work).items()} == {b"a": b"one\ntwo\n", b"b": b"b\n"}
    assert cli("tasks", "undo", "--redo").returncode == 2
