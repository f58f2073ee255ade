"""What cannot be undone, and whether the cure that is said helps."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cc_executor.api import cc_execute_sync
from cc_executor.errors import UndoRefused
from cc_executor.model.receipt import Undo
from cc_executor.runtime.undo import undo
from cc_executor.store import lookaround
from cc_executor.store.home import StateHome
from support.runs import BASH, BOUND


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in a repository, with more in it than a look may take."""
    monkeypatch.setattr(lookaround, "GIT_SECONDS", BOUND)
    monkeypatch.setattr(lookaround, "TREE_BYTES", 1000)
    path = tmp_path / "work"
    (path / "data").mkdir(parents=True)
    (path / "data" / "large").write_bytes(bytes(2000))
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    return path


def run_there(work: Path) -> Undo:
    found = cc_execute_sync("echo done > made", cwd=work, undo=True, **BASH).receipt.undo
    assert found is not None
    return found


@pytest.mark.parametrize("where", [".gitignore", "../.gitignore", "../.git/info/exclude"])
def test_what_git_is_told_to_ignore_counts_for_the_next_run(where: str, work: Path) -> None:
    assert "its files hold more than 0 MB. Let git ignore what is large" in run_there(work).note
    again = run_there(work).note
    assert "as was found less than 10 minutes ago; after that, or when .gitignore has changed, it is looked at again. Let git" in again
    with (work / where).open("a") as file:  # the cure, letter by letter
        file.write("data\n")
    assert run_there(work) == Undo(ready=True)


def test_where_one_of_several_runs_was_not_looked_at_the_way_to_undo_the_others_is_said(home: StateHome, tmp_path: Path) -> None:
    seen = cc_execute_sync("echo a > a", cwd=tmp_path, undo=True, **BASH).receipt.run_id
    unseen = cc_execute_sync("echo b > b", cwd=tmp_path, undo=False, **BASH).receipt.run_id
    with pytest.raises(UndoRefused, match=rf"before run {unseen}.* `--keep-mine` .* undoes the others\.$"):
        undo(home, [unseen, seen])
    assert {path.name for path in tmp_path.iterdir()} >= {"a", "b"}
    done = undo(home, [unseen, seen], keep_mine=True)
    assert (done.runs, [what for what, _ in done.left]) == ((seen,), [f"run {unseen}"])
    assert not (tmp_path / "a").exists()
    assert (tmp_path / "b").exists()
