"""State folders on file systems that lack something, as network disks do: said before anything is paid, and nothing is lost."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from cc_executor.store import filesystem
from cc_executor.store.history import FILE, HistoryIndex
from support.environments import CHECKOUT
from support.refusing import refusing

CLI = (sys.executable, "-m", "cc_executor.cli")


def told(*program: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(CHECKOUT / "src"), str(CHECKOUT / "tests")]), "COLUMNS": "120"}
    return subprocess.run(program, env=environ, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.row(
    "faults", "the state folder's file system has no locks or sockets", "refused before the launch, with the cure; `doctor` says it, too"
)
@pytest.mark.parametrize(("call", "error", "what"), [("flock", "ENOLCK", "locks"), ("bind", "EPERM", "sockets")])
def test_what_cannot_keep_runs_is_refused_before_anything_starts(
    call: str, error: str, what: str, state_folder: Path, tmp_path: Path
) -> None:
    made = tmp_path / "made by the agent"
    done = told(*refusing(call, error, *CLI, "run", "--agent", "shell", f"touch '{made}'"))
    assert (done.returncode, made.exists(), list((state_folder / "runs").iterdir())) == (2, False, [])
    said = f"The state folder {state_folder} lies on a file system without {what} ({os.strerror(getattr(errno, error))}), which every run needs."
    assert done.stderr.strip() == f"{said} Set CC_EXECUTOR_STATE to a folder on a local disk."
    assert f"✗ state folder: {said}" in told(*refusing(call, error, *CLI, "doctor")).stdout
    assert not list(state_folder.glob(".probe*"))


def test_where_files_share_no_memory_the_history_is_kept_all_the_same(state_folder: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return told(*refusing("mmap shared", "ENODEV", *CLI, *arguments))

    assert run("run", "--agent", "shell", "true").returncode == 0
    assert run("run", "--agent", "shell", "false").returncode != 0
    listed = run("history", "--csv")
    assert (listed.stderr, len(listed.stdout.splitlines())) == ("", 3)
    assert _journal_mode(state_folder) == "delete"
    assert sorted(path.name for path in state_folder.glob("*history*")) == ["history.lock", FILE]
    assert list(state_folder.glob(".*")) == []


def test_a_disk_that_several_machines_have_gets_no_wal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path.stat().st_dev
    where = f"{os.major(device)}:{os.minor(device)}"
    for kind, is_shared in (("ext4", False), ("nfs4", True), ("fuse.sshfs", True), ("fuseblk", False)):
        mounts = tmp_path / f"{kind}.mounts"
        mounts.write_text(f"22 1 0:5 / /proc rw - proc proc rw\n36 22 {where} / {tmp_path} rw,noatime master:1 - {kind} server:/home rw\n")
        monkeypatch.setattr(filesystem, "_MOUNTS", str(mounts))
        folder = tmp_path / f"state on {kind}"
        folder.mkdir()
        assert filesystem.is_shared(folder) is is_shared
        with HistoryIndex(folder).writing():
            pass
        assert _journal_mode(folder) == ("delete" if is_shared else "wal")


def test_a_disk_that_keeps_what_is_open_does_not_stop_a_pruning(state_folder: Path) -> None:
    for program in ("true", "echo 2"):
        assert told(*CLI, "run", "--agent", "shell", program).returncode == 0
    prune = (*CLI, "history", "prune", "--whole", "--keep", "0", "--yes")
    done = told(*refusing("rmdir,unlinkat of a folder", "ENOTEMPTY", *prune))
    assert (done.returncode, "2 go whole" in done.stderr, "cannot" in done.stderr) == (0, True, False), done.stderr
    assert {path.name[-6:] for path in (state_folder / "runs").iterdir()} == {".going"}, "their folders are left, empty"
    assert told(*prune).returncode == 0
    assert list((state_folder / "runs").iterdir()) == []


LOCKS_LOST = """
import os, anyio
from cc_executor.api import make_request
from cc_executor.runtime.run import Run
from cc_executor.store.home import StateHome, state_path
from support.refusing import refuse

async def main():
    run = await Run.start(make_request("echo done", agent="shell"), home=StateHome(state_path(os.environ)), environ=os.environ)
    async for _ in run.follow():
        pass
    refuse("flock", "ENOLCK")
    print((await run.finish()).outcome.kind)

anyio.run(main)
"""


@pytest.mark.row("faults", "the file system loses its locks during a run", "whoever waits gets the receipt")
def test_a_run_whose_locks_are_lost_is_sealed(state_folder: Path) -> None:
    done = told(sys.executable, "-c", LOCKS_LOST)
    assert done.stdout == "ok\n", done.stderr
    (folder,) = (state_folder / "runs").iterdir()
    assert (folder / "receipt.json").exists()


def _journal_mode(folder: Path) -> str:
    with closing(sqlite3.connect(folder / FILE)) as connection:
        return connection.execute("PRAGMA journal_mode").fetchone()[0]
