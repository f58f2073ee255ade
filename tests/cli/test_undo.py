"""`cc-executor undo` and `cc-executor tasks undo` as processes of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from cc_executor.shim import records
from cli.test_cli import SHELL, cli
from support.environments import CHECKOUT
from support.trees import walk

IS_ROOT: Final = os.geteuid() == 0

# In a namespace of its own, so that the disk is gone with the process.
FULL_DISK = """
mount -t tmpfs -o size=2m,mode=0700 none "$CC_EXECUTOR_STATE" && cp -R "$0/." "$CC_EXECUTOR_STATE" && chmod 700 "$CC_EXECUTOR_STATE" || exit 99
dd if=/dev/zero of="$CC_EXECUTOR_STATE/filler" bs=4k 2> "$1"
"$2" -m cc_executor.cli undo --dry-run || exit 98
"$2" -m cc_executor.cli undo && exit 97
rm "$CC_EXECUTOR_STATE/filler"
exec "$2" -m cc_executor.cli undo
"""
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
    (work / "b").write_text("made since")
    refused = cli("undo", "--redo")
    assert refused.returncode == 2
    assert refused.stderr.startswith(
        "1 file is not as the undo left it, or cannot be brought back; nothing was changed.\n  b: something stands there again\n"
    )


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


def test_what_stands_in_place_of_a_run_s_lock_is_named(tmp_path: Path, state_folder: Path) -> None:
    cli("run", "echo x > a", *SHELL, "--undo", "--cwd", tmp_path)
    lock = next((state_folder / "runs").iterdir()) / records.LOCK
    lock.unlink()
    lock.mkdir()
    refused = cli("undo")
    assert (refused.returncode, str(lock) in refused.stderr) == (2, True)


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
    again = cli("tasks", "run", file, "--cwd", work)
    assert walk(work).keys() == {b"a"}
    (retry,) = re.findall(r"Undone since then: second.*`cc-executor (tasks retry second .*)`", again.stderr)
    assert cli("tasks", "undo", "--redo").returncode == 0
    assert {name: content for name, (_, _, content) in walk(work).items()} == {b"a": b"one\ntwo\n", b"b": b"b\n"}
    assert cli("tasks", "undo", "--redo").returncode == 2
    assert "Undone" not in cli("tasks", "run", file, "--cwd", work).stderr
    assert cli("tasks", "undo", "--from", "second").returncode == 0
    assert cli(*retry.split()).returncode == 0
    assert "Undone" not in cli("tasks", "run", file, "--cwd", work).stderr
    assert {name: content for name, (_, _, content) in walk(work).items()} == {b"a": b"one\ntwo\n", b"b": b"b\n"}


@pytest.mark.row("faults", "no room for an undo", "refused with the folder and the cure; nothing was changed")
def test_an_undo_for_which_there_is_no_room_says_where_to_make_some(tmp_path: Path, state_folder: Path) -> None:
    work, kept = tmp_path / "work", tmp_path / "kept"
    work.mkdir()
    (work / "a").write_text("before")
    before = walk(work)
    assert cli("run", "echo after > a; echo new > b", *SHELL, "--undo", "--cwd", work).returncode == 0
    state_folder.rename(kept)
    state_folder.mkdir()
    namespace = ("unshare", "--mount") if IS_ROOT else ("unshare", "--user", "--map-root-user", "--mount")
    command = [*namespace, "sh", "-c", FULL_DISK, kept, os.devnull, sys.executable]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(CHECKOUT / "src")}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "would change 2 files; nothing was changed" in done.stdout
    assert done.stderr.startswith(f"Nothing was changed: {state_folder}")
    assert done.stderr.endswith(": No space left on device. Make room there, and undo again.\n")
    assert walk(work) == before
