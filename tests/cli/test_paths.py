"""Where paths are shown and where they are kept, with the real agent in a folder that is named through a link; and a folder that is gone."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from cc_executor.store.home import StateHome
from cli.test_cli import BUDGET, CLI, cli, environ

SCRIPT = """
description = "writes a file in the folder, and reads it and another one"
allow = ["Write", "Read"]

[[turn]]
[[turn.block]]
tool = "Write"
input = { file_path = "{cwd}/sub/made.txt", content = "made" }

[[turn]]
[[turn.block]]
tool = "Read"
input = { file_path = "{cwd}/sub/made.txt" }

[[turn]]
[[turn.block]]
tool = "Read"
input = { file_path = "/etc/hostname" }

[[turn]]
[[turn.block]]
text = "Done."
"""


@pytest.mark.usefixtures("claude_cli")
def test_a_file_is_shown_from_the_runs_folder_and_kept_with_its_whole_path(tmp_path: Path, state_folder: Path) -> None:
    work, link, script = tmp_path / "project", tmp_path / "link", tmp_path / "script.toml"
    work.mkdir()
    link.symlink_to(work)
    script.write_text(SCRIPT)
    done = cli("run", "--cwd", link, "--tools", "Write,Read", "--rehearse", script, "Go.")
    assert done.returncode == 0, done.stderr
    lines = ["  → Write: sub/made.txt", "  → Read: sub/made.txt", "  → Read: /etc/hostname"]
    for said in (done, cli("attach")):
        assert [line for line in said.stderr.splitlines() if "→" in line] == lines
    assert "\n  file sub/made.txt: " in cli("show").stdout
    report = cli("report").stdout
    assert "\n| sub/made.txt |" in report
    assert re.search(r"\| Write \| /[^|]+/project/sub/made\.txt \|", report), (
        "where the link leads is in no record, and a report is made of these alone"
    )

    (folder,) = StateHome(state_folder).runs()
    assert f'"file_path":"{work}/sub/made.txt"'.encode() in (folder.path / "stdout").read_bytes()
    (change,) = json.loads(cli("show", "--json").stdout)["files"]
    assert change["path"] == f"{link}/sub/made.txt"


@pytest.mark.parametrize("words", [("history", "--cwd", "."), ("untrust", "."), ("run", "--agent", "shell", "true")])
def test_a_current_folder_that_is_gone_is_said(tmp_path: Path, words: tuple[str, ...]) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    argv = ("bash", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', gone, *CLI, *words)
    done = subprocess.run(argv, env=environ(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BUDGET, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("The current folder does not exist any more. Change to another")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("tasks", "run"), "cannot be read: File name too long"),
        (("tasks", "graph"), "cannot be read: File name too long"),
        (("verify",), "cannot be read: File name too long"),
        (("lift",), "cannot be read: File name too long"),
        (("report", "--html"), "cannot be written to "),
        (("mcp", "--cwd"), "is no folder: name one with --cwd."),
    ],
)
def test_a_name_that_no_disk_takes_is_said_in_a_sentence(state_folder: Path, words: tuple[str, ...], says: str) -> None:
    """Mostly the text itself, in the place of its file."""
    cli("run", "--agent", "shell", "true")
    done = cli(*words, "Tidy up. " * 40)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_notebook_whose_link_leads_in_a_circle_is_said_in_a_sentence(tmp_path: Path, state_folder: Path) -> None:
    link = tmp_path / "link.ipynb"
    link.symlink_to(link)
    done = cli("lift", link)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("link.ipynb cannot be read: Too many levels of symbolic links.\n")
