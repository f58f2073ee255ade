"""Undo of runs: the real agent with tools that really write, and everything that can come between a run and its undo."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cc_executor.api import cc_execute, cc_execute_sync, make_request
from cc_executor.errors import UndoRefused
from cc_executor.model.request import RunRequest
from cc_executor.model.tree import Change, Entry, Kind, Tree
from cc_executor.runtime.retention import plan_pruning
from cc_executor.runtime.run import Run
from cc_executor.runtime.snapshot import SLACK
from cc_executor.runtime.undo import redo, undo
from cc_executor.shim import records
from cc_executor.store import lookaround
from cc_executor.store.blobs import Blobs
from cc_executor.store.claims import Claims
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder
from cc_executor.store.lookaround import FILE_BYTES, FILES, GIT_SECONDS, Look, TooLarge
from cc_executor.store.restore import Disturbed, Ground
from cc_executor.store.snapshot import ACT, AFTER, AGAIN, BEFORE, SnapshotStore
from cc_executor.tasks import cc_execute_list
from support.locks import as_its_last_sync
from support.runs import BASH, BOUND, started, to_end
from support.trees import begun, ended, walk, worked

# What an agent does in one run: an edit, a new file in a new folder, and with a command a removal, a new name, a mode and a link.
SCRIPT = """
description = "changes a tree in every way"
allow = ["Read", "Edit", "Write", "Bash"]

[[turn]]
[[turn.block]]
tool = "Read"
input = { file_path = "{cwd}/edited.txt" }

[[turn]]
[[turn.block]]
tool = "Edit"
input = { file_path = "{cwd}/edited.txt", old_string = "two", new_string = "TWO" }

[[turn]]
[[turn.block]]
tool = "Write"
input = { file_path = "{cwd}/new/deep/made.txt", content = "made" }

[[turn]]
[[turn.block]]
tool = "Bash"
[turn.block.input]
command = "rm gone.txt && mv old-name.txt new-name.txt && chmod 700 script.sh && ln -s edited.txt link && ln -sfn elsewhere repointed && rm -r folder"
description = "Tidy up"

[[turn]]
[[turn.block]]
text = "Done."
"""


@pytest.fixture
def git_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A git that answers late, on a busy machine, is asked for nothing more: then what it ignores is looked at like everything else."""
    monkeypatch.setattr(lookaround, "GIT_SECONDS", BOUND)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir()
    (path / "edited.txt").write_bytes(b"one\r\ntwo\r\n")
    (path / "gone.txt").write_text("precious")
    (path / "old-name.txt").write_text("moved about")
    (path / "script.sh").write_text("#!/bin/sh\n")
    (path / "script.sh").chmod(0o755)
    (path / "repointed").symlink_to("edited.txt")
    (path / "folder").mkdir(mode=0o750)
    (path / "folder" / "inside").write_text("inside")
    (path / "folder" / "empty").mkdir()
    return path


def repository(path: Path) -> None:
    for argv in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first"],
        ["branch", "other"],
    ):
        subprocess.run(["git", *argv], cwd=path, check=True)
    (path / "edited.txt").write_bytes((path / "edited.txt").read_bytes() + b"not staged")
    (path / "staged.txt").write_text("staged")
    subprocess.run(["git", "add", "staged.txt"], cwd=path, check=True)


@pytest.mark.usefixtures("claude_cli")
@pytest.mark.row(
    "faults",
    "undo of a run that edited, made, removed, renamed, chmod-ed and linked",
    "the tree is as before, byte for byte; .git untouched",
)
@pytest.mark.parametrize("in_git", [True, False], ids=["git", "plain"])
async def test_what_a_real_agent_did_is_undone_to_the_byte_and_redone(root: Path, tmp_path: Path, in_git: bool) -> None:
    script = tmp_path / "script.toml"
    script.write_text(SCRIPT)
    if in_git:
        repository(root)
    before = walk(root)  # with .git: HEAD, index, refs and objects, byte for byte
    result = await cc_execute("Do it.", cwd=root, tools=["Bash", "Edit", "Write"], rehearse=str(script))
    assert result.ok, result.receipt.outcome
    after = walk(root)
    assert {str(Path(file.path).relative_to(root)): file.words for file in result.files} == {
        "edited.txt": "changed",
        "folder/inside": "gone",
        "gone.txt": "gone",
        "link": "new, link to edited.txt",
        "new-name.txt": f"new, was {root / 'old-name.txt'}",
        "new/deep/made.txt": "new",
        "old-name.txt": "gone",
        "repointed": "changed, link to elsewhere",
        "script.sh": "same content, mode 755 → 700",
    }
    assert result.receipt.undo is not None
    assert (result.receipt.undo.ready, result.receipt.undo.note, result.receipt.undo.changes) == (True, "", 9)
    assert result.receipt.is_intact

    would = result.rollback(dry_run=True)
    assert walk(root) == after
    done = result.rollback()
    assert walk(root) == before
    assert [step.path for step in would.steps] == [step.path for step in done.steps] == [file.path for file in result.files]
    with pytest.raises(UndoRefused, match="undone already"):
        result.rollback()
    result.rollback(redo=True)
    assert walk(root) == after
    (root / "edited.txt").write_text("mine")
    mine = walk(root)
    with pytest.raises(UndoRefused, match=r"edited\.txt: it was changed since"):
        result.rollback()
    assert walk(root) == mine


def damage(root: Path) -> None:
    (root / "edited.txt").write_text("changed")
    (root / "gone.txt").unlink()
    (root / "new").mkdir()
    (root / "new" / "made.txt").write_text("made")
    (root / "script.sh").chmod(0o600)
    (root / "link").symlink_to("nowhere")


EDITS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "edited": (lambda root: (root / "edited.txt").write_text("mine"), "edited.txt", "it was changed since"),
    "removed": (lambda root: (root / "new" / "made.txt").unlink(), "", ""),  # it is as it was before the run
    "removed what was changed": (lambda root: (root / "edited.txt").unlink(), "edited.txt", "it was removed since"),
    "made again": (lambda root: (root / "gone.txt").write_text("mine"), "gone.txt", "something stands there again"),
    "mode": (lambda root: (root / "script.sh").chmod(0o640), "script.sh", "it was changed since"),
    "pointed elsewhere": (
        lambda root: ((root / "link").unlink(), (root / "link").symlink_to("mine")),
        "link",
        "it was changed since",
    ),
    "a file beside": (lambda root: (root / "new" / "mine").write_text("mine"), "", ""),
    "made again as it was": (lambda root: (root / "gone.txt").write_text("precious"), "", ""),
}


@pytest.mark.row("faults", "undo after a later edit of the user", "refused, the file named, nothing changed")
@pytest.mark.parametrize("edit", EDITS)
def test_later_edits_of_the_user_are_never_written_over(home: StateHome, root: Path, edit: str) -> None:
    change, path, why = EDITS[edit]
    before = walk(root)
    run_id = worked(home, root, lambda: damage(root))
    change(root)
    mine = walk(root)
    if not path:
        undo(home, [run_id])
        assert walk(root) == before | ({b"new": mine[b"new"], b"new/mine": mine[b"new/mine"]} if edit == "a file beside" else {})
        return
    with pytest.raises(UndoRefused, match=why) as refused:
        undo(home, [run_id])
    assert refused.value.conflicts == ((str(root / path), why),)
    assert walk(root) == mine
    assert undo(home, [run_id], dry_run=True).left == refused.value.conflicts
    done = undo(home, [run_id], keep_mine=True)
    name = os.fsencode(path)
    assert walk(root) == {**{key: value for key, value in before.items() if key != name}, **({name: mine[name]} if name in mine else {})}
    assert done.left == refused.value.conflicts
    redo(home, run_id)
    assert walk(root) == mine


def test_what_was_changed_after_the_end_of_a_run_that_nobody_watched_is_not_the_run_s(home: StateHome, root: Path) -> None:
    folder, request = begun(home, root)
    damage(root)
    over = time.time() - 60  # the run has ended a minute ago, and somebody has worked there since
    run_id = ended(folder, request, at=over)
    with pytest.raises(UndoRefused, match="changed after the run had ended"):
        undo(home, [run_id])

    folder, request = begun(home, root)  # the same, ended just now, and seen late
    (root / "old-name.txt").unlink()
    (root / "by-run").write_text("run")
    over = time.time()
    inside = root / "folder" / "inside"
    while inside.stat().st_ctime <= over + SLACK:  # files have no other clock
        inside.write_text("mine")
    run_id = ended(folder, request, at=over)
    done = undo(home, [run_id], keep_mine=True)
    assert [path for path, _ in done.left] == [str(inside)]
    assert (root / "old-name.txt").exists()
    assert not (root / "by-run").exists()


@pytest.mark.parametrize("in_git", [True, False], ids=["git", "plain"])
def test_a_run_that_removed_its_own_folder_is_undone_in_a_new_one(home: StateHome, root: Path, in_git: bool) -> None:
    if in_git:
        repository(root)
    before = {path: what for path, what in walk(root).items() if path.partition(b"/")[0] != b".git"}
    receipt = cc_execute_sync(f"rm -rf {root}", **BASH, cwd=root, undo=True).receipt
    assert receipt.undo is not None
    assert receipt.undo.ready, receipt.undo.note
    assert {file.change for file in receipt.files} == {"deleted"}
    with pytest.raises(UndoRefused, match="make it, empty, and undo again"):
        undo(home, [receipt.run_id])
    root.mkdir()
    undo(home, [receipt.run_id])
    assert walk(root) == before
    redo(home, receipt.run_id)
    assert walk(root) == {}


@pytest.mark.parametrize("notebook", ["", "by-its-name.ipynb"])
def test_whoever_looks_may_have_no_current_folder(
    home: StateHome, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notebook: str
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", notebook)
    before = walk(root)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    run_id = worked(home, root, lambda: damage(root))
    undo(home, [run_id])
    assert walk(root) == before


def test_a_folder_that_was_removed_after_the_run_had_ended_is_not_the_run_s_work(home: StateHome, root: Path) -> None:
    folder, request = begun(home, root)
    shutil.rmtree(root)
    run_id = ended(folder, request, at=time.time() - 60)  # somebody had a minute for it
    root.mkdir()
    with pytest.raises(UndoRefused, match="changed after the run had ended"):
        undo(home, [run_id])


async def test_the_look_after_a_run_is_that_of_its_end_and_not_of_its_checks(home: StateHome, tmp_path: Path) -> None:
    run = await started("echo run > by-run", home=home, cwd=tmp_path, undo=True, verify="echo check > by-check")
    await to_end(run)
    receipt = await run.finish()
    assert [Path(file.path).name for file in receipt.files] == ["by-run"]


@pytest.mark.usefixtures("git_is_awaited")
def test_what_git_ignores_is_neither_looked_at_nor_removed_whatever_the_run_does_to_the_rules(home: StateHome, root: Path) -> None:
    repository(root)
    (root / ".gitignore").write_text("data/\n*.log\n")
    (root / "data").mkdir()
    (root / "data" / "precious").write_text("the only copy")
    (root / "server.log").write_text("line")
    before = walk(root)

    def work() -> None:
        (root / ".gitignore").write_text("edited.txt\nbuild/\n")  # data/ is not ignored any more, a file of the project is
        (root / "edited.txt").write_text("changed")
        (root / "build").mkdir()
        (root / "build" / "out").write_text("made")

    run_id = worked(home, root, work)
    with (root / "server.log").open("a") as log:
        log.write("another line")
    (root / "data" / "new").write_text("mine")
    undo(home, [run_id])
    left = walk(root)
    mine = {b"server.log", b"data/new", b"build", b"build/out"}
    assert {name: what for name, what in left.items() if name not in mine} == {
        name: what for name, what in before.items() if name not in mine
    }
    assert mine <= left.keys()


@pytest.mark.usefixtures("git_is_awaited")
def test_nested_repositories_are_folders_whose_git_is_left_alone(home: StateHome, root: Path) -> None:
    repository(root)
    nested = root / "nested"
    nested.mkdir()
    (nested / "code").write_text("1")
    (nested / ".gitignore").write_text("*.o\n")
    repository_of_its_own = ["git", "init", "-q"]
    subprocess.run(repository_of_its_own, cwd=nested, check=True)
    (nested / "a.o").write_text("object")
    before = walk(root)

    def work() -> None:
        (nested / "code").write_text("2")
        (nested / "a.o").write_text("built")
        (root / "cloned").mkdir()
        subprocess.run(repository_of_its_own, cwd=root / "cloned", check=True)
        (root / "cloned" / "file").write_text("x")

    run_id = worked(home, root, work)
    after = walk(root)
    undo(home, [run_id])
    assert walk(root) == before | {b"nested/a.o": after[b"nested/a.o"]}
    redo(home, run_id)
    assert walk(root) == after


def test_odd_things_in_a_folder_hinder_nothing(home: StateHome, root: Path) -> None:
    os.mkfifo(root / "pipe")
    (root / "around").symlink_to(".")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(root / "s"))
    (root / ("x" * 255)).write_text("long")
    (root / "hard").hardlink_to(root / "edited.txt")
    before = walk(root)
    run_id = worked(home, root, lambda: ((root / "edited.txt").write_text("changed"), (root / ("x" * 255)).unlink()))
    undo(home, [run_id])
    server.close()
    assert walk(root) == before


@pytest.mark.parametrize("was_folder", [False, True])
def test_a_pipe_in_the_place_of_what_was_there_is_named_and_what_was_there_comes_back_when_it_is_gone(
    home: StateHome, root: Path, was_folder: bool
) -> None:
    place = root / ("folder" if was_folder else "edited.txt")
    before = walk(root)

    def work() -> None:
        shutil.rmtree(place) if was_folder else place.unlink()
        os.mkfifo(place)
        (root / "old-name.txt").write_text("changed")

    run_id = worked(home, root, work)
    with pytest.raises(UndoRefused, match=rf"\n  {place.name}: it cannot be looked at \(a pipe, a socket or a device stands there\)"):
        undo(home, [run_id])
    done = undo(home, [run_id], keep_mine=True)
    assert str(place) in dict(done.left)
    assert (root / "old-name.txt").read_text() == "moved about"
    redo(home, run_id)
    place.unlink()
    undo(home, [run_id])
    assert walk(root) == before


def test_a_pipe_that_stands_there_since_hinders_no_other_file(home: StateHome, root: Path) -> None:
    run_id = worked(home, root, lambda: [path.write_text("run") for path in (root / "edited.txt", root / "old-name.txt")])
    (root / "edited.txt").unlink()
    os.mkfifo(root / "edited.txt")
    with pytest.raises(UndoRefused, match=r"\n  edited\.txt: it cannot be looked at"):
        undo(home, [run_id])
    undo(home, [run_id], keep_mine=True)
    assert (root / "old-name.txt").read_text() == "moved about"


@pytest.mark.parametrize("now", ["nothing", "a pipe"])
def test_a_folder_that_is_gone_since_hinders_no_file_elsewhere(home: StateHome, root: Path, now: str) -> None:
    run_id = worked(home, root, lambda: ((root / "folder" / "inside").unlink(), (root / "edited.txt").write_text("run")))
    shutil.rmtree(root / "folder")
    if now == "a pipe":
        os.mkfifo(root / "folder")
    mine = walk(root)
    with pytest.raises(UndoRefused, match=r"\n  folder/inside: its folder is not there any more\n"):
        undo(home, [run_id])
    assert walk(root) == mine
    undo(home, [run_id], keep_mine=True)
    assert (root / "edited.txt").read_bytes() == b"one\r\ntwo\r\n"
    redo(home, run_id)
    assert walk(root) == mine


def test_what_is_left_alone_may_have_any_name(home: StateHome, root: Path) -> None:
    odd = root / os.fsdecode(b"\xff")
    run_id = worked(home, root, lambda: [path.write_text("run") for path in (odd, root / "edited.txt")])
    odd.write_text("mine")
    done = undo(home, [run_id], keep_mine=True)
    assert dict(done.left) == {str(odd): "it was changed since"}
    assert (root / "edited.txt").read_bytes() == b"one\r\ntwo\r\n"


def test_undos_that_were_made_apart_are_not_taken_back_as_one(home: StateHome, root: Path) -> None:
    before = walk(root)
    both = [worked(home, root, lambda name=name: (root / name).write_text(name)) for name in ("by-one", "by-two")]
    after = walk(root)
    for run_id in both:
        undo(home, [run_id])
    with pytest.raises(UndoRefused, match="not undone together"):
        redo(home, *both)
    assert walk(root) == before
    for run_id in both:
        redo(home, run_id)
    undo(home, both)
    assert walk(root) == before
    redo(home, *both)
    assert walk(root) == after


def look(root: Path, state: Path, **bounds: float) -> Look:
    return Look(os.fsencode(root), blobs=Blobs(state / "blobs"), environ=os.environ, **bounds)  # pyright: ignore[reportArgumentType]


def test_a_look_has_bounds(root: Path, tmp_path: Path) -> None:
    count = len(look(root, tmp_path).take().entries)
    assert len(look(root, tmp_path, files=count).take().entries) == count
    with pytest.raises(TooLarge, match=f"it has more than {count - 1} files"):
        look(root, tmp_path, files=count - 1).take()
    for number in range(200):
        (root / str(number)).touch()
    short = look(root, tmp_path, seconds=0)
    with pytest.raises(TooLarge, match="takes longer than 0 s"):
        short.take()
    assert short.is_slow


def test_no_git_and_no_large_file_makes_a_look_longer_than_it_may_be(root: Path, tmp_path: Path) -> None:
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text(f"#!/bin/sh\n[ $PWD = {root} ] || exec tail -f /dev/null\n")
    slow.chmod(0o755)
    for number in range(3):
        (root / f"nested{number}" / ".git").mkdir(parents=True)
    (root / ".git").mkdir()
    environ = {"PATH": f"{slow.parent}:{os.environ['PATH']}"}
    nested = Look(os.fsencode(root), blobs=Blobs(tmp_path / "blobs"), environ=environ, seconds=0.5)
    began = time.monotonic()
    with pytest.raises(TooLarge, match="takes longer"):
        nested.take()
    assert nested.is_slow
    assert time.monotonic() - began < GIT_SECONDS, "it is not asked about each of them for so long"

    few = tmp_path / "few"
    few.mkdir()
    for name in "ab":
        (few / name).write_bytes(b"x" * 10_000_000)
    short = look(few, tmp_path, seconds=0)
    with pytest.raises(TooLarge, match="takes longer"):
        short.take()
    assert len(short.entries) == 1, "the next look has the other one to read"


async def test_a_folder_that_is_not_looked_at_costs_the_undo_and_not_the_run(home: StateHome, root: Path) -> None:
    store = SnapshotStore(home)
    home.prepare()
    store.prepare()
    store.keep_over(os.fsencode(root), f"it has more than {FILES:,} files and folders")  # as a look a minute ago has found
    result = await cc_execute("echo done > made", cwd=root, undo=True, **BASH)
    assert result.ok
    assert result.receipt.undo is not None
    assert not result.receipt.undo.ready
    assert f"it has more than {FILES:,} files" in result.receipt.undo.note
    assert "switch undo off (`--no-undo`)" in result.receipt.undo.note
    with pytest.raises(UndoRefused, match="more than"):
        result.rollback()
    assert "as was found less than 10 minutes ago" in result.receipt.undo.note
    assert not store.over(os.fsencode(root), time.time() + AGAIN)  # then it is looked at again


def test_a_file_that_is_too_large_to_be_kept_is_told_and_not_half_restored(home: StateHome, root: Path) -> None:
    large = root / "large.bin"
    with large.open("wb") as file:
        file.truncate(FILE_BYTES + 1)
    before = walk(root)
    kept = worked(home, root, lambda: ((root / "edited.txt").write_text("x"), large.chmod(0o600)))
    undo(home, [kept])
    assert walk(root) == before
    made = worked(home, root, lambda: (root / "larger.bin").write_bytes(b"z" * (FILE_BYTES + 2)))
    after = walk(root)
    undo(home, [made])
    assert walk(root) == before
    redo(home, made)  # however large: who removes it can bring it back
    assert walk(root) == after
    lost = worked(home, root, lambda: large.write_bytes(b"new"))
    with pytest.raises(UndoRefused, match="its content before the run was not kept"):
        undo(home, [lost])


def test_a_state_folder_within_the_workspace_is_not_looked_at(root: Path) -> None:
    home = StateHome(root / "state")
    before = walk(root)
    run_id = worked(home, root, lambda: damage(root))
    tree = SnapshotStore(home).before(home.folder(run_id))
    assert tree is not None
    assert tree.tree is not None
    assert not [path for path in tree.tree.entries if path.startswith(b"state")]
    undo(home, [run_id])
    assert {name: what for name, what in walk(root).items() if not name.startswith(b"state")} == before
    inside = worked(home, home.root, lambda: None)
    with pytest.raises(UndoRefused, match="belongs to the state folder"):
        undo(home, [inside])


@pytest.mark.parametrize("by_link", [False, True], ids=["plain", "through a link"])
def test_the_notebook_that_is_saved_while_its_cell_runs_is_not_the_run_s(
    by_link: bool, home: StateHome, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = root / "own.ipynb"
    notebook.write_text("{}")
    (tmp_path / "home").symlink_to(root)  # as homes on clusters are
    monkeypatch.setenv(
        "JPY_SESSION_NAME", str((tmp_path / "home" if by_link else root) / "own.ipynb")
    )  # as jupyter_server tells its kernels
    before = walk(root)
    run_id = worked(home, root, lambda: (notebook.write_text('{"saved": 1}'), damage(root)))
    notebook.write_text('{"saved": 2}')
    saved = walk(root)[b"own.ipynb"]
    undo(home, [run_id])
    assert walk(root) == before | {b"own.ipynb": saved}


@pytest.fixture
def somebody(memory: Path) -> Iterator[Path]:
    """A folder of a user without root's rights, as whom the test goes on."""
    was_root = os.getuid() == 0
    if was_root:
        os.chown(memory, 65534, 65534)
        os.setresuid(65534, 65534, 0)
    try:
        yield memory
    finally:
        if was_root:
            os.setresuid(0, 0, 0)


def test_what_may_not_be_read_is_left_alone_and_what_may_not_be_written_is_restored(somebody: Path) -> None:
    home, root = StateHome(somebody / "state"), somebody / "work"
    for name in ("closed", "fixed", "fixed/below"):
        (root / name).mkdir(parents=True)
    (root / "closed" / "inside").write_text("inside")
    (root / "secret").write_text("secret")
    (root / "fixed" / "file").write_text("before")
    (root / "fixed" / "below" / "file").write_text("before")
    closed = [(root / "closed", 0o000), (root / "secret", 0o000), (root / "fixed" / "below", 0o555), (root / "fixed", 0o555)]

    def close() -> None:
        for path, mode in closed:
            path.chmod(mode)

    def open_() -> None:
        for path, _ in reversed(closed):
            path.chmod(0o700)

    def work() -> None:
        open_()
        (root / "fixed" / "file").unlink()
        (root / "fixed" / "below" / "file").write_text("after")
        (root / "fixed" / "below" / "new").write_text("new")
        (root / "closed" / "new").write_text("in the dark")
        close()

    close()
    run_id = worked(home, root, work)
    undo(home, [run_id])
    assert [path.stat().st_mode & 0o777 for path, _ in closed] == [mode for _, mode in closed]
    open_()
    assert (root / "fixed" / "file").read_text() == "before"
    assert (root / "fixed" / "below" / "file").read_text() == "before"
    assert not (root / "fixed" / "below" / "new").exists()
    assert (root / "closed" / "new").exists()
    assert (root / "secret").read_text() == "secret"
    assert (root / "closed" / "inside").read_text() == "inside"


def test_a_file_that_a_run_has_made_unreadable_is_readable_again(somebody: Path) -> None:
    home, root = StateHome(somebody / "state"), somebody / "work"
    root.mkdir()
    (root / "file").write_text("before")
    (root / "file").chmod(0o640)
    run_id = worked(home, root, lambda: (root / "file").chmod(0o000))
    undo(home, [run_id])
    assert (root / "file").stat().st_mode & 0o777 == 0o640
    redo(home, run_id)
    assert (root / "file").stat().st_mode & 0o777 == 0


def test_a_state_folder_in_which_an_undo_cannot_look_is_said(somebody: Path) -> None:
    home, root = StateHome(somebody / "state"), somebody / "work"
    root.mkdir()
    run_id = worked(home, root, lambda: (root / "file").write_text("made"))
    closed = home.root / "undo" / "working"
    closed.chmod(0o000)
    with pytest.raises(UndoRefused, match=f"Nothing was changed: {closed}: Permission denied"):
        undo(home, [run_id])
    closed.chmod(0o700)
    undo(home, [run_id])
    assert not (root / "file").exists()


def test_runs_that_met_in_one_folder_are_undone_together(home: StateHome, root: Path) -> None:
    before = walk(root)
    one, first = begun(home, root)
    two, second = begun(home, root)
    (root / "by-one").write_text("1")
    (root / "by-two").write_text("2")
    (root / "edited.txt").write_text("by both, or by nobody knows whom")
    ended(one, first, claimed=("by-one",))
    ended(two, second, claimed=(str(root / "by-two"),))
    after = walk(root)
    with pytest.raises(UndoRefused, match="another run worked on it at the same time") as refused:
        undo(home, [one.run_id])
    assert refused.value.conflicts == ((str(root / "edited.txt"), f"another run worked on it at the same time: {two.run_id}"),)
    assert f"`cc-executor undo {one.run_id} {two.run_id}`" in str(refused.value)
    assert walk(root) == after
    undo(home, [one.run_id], keep_mine=True)
    assert walk(root) == {name: what for name, what in after.items() if name != b"by-one"}
    redo(home, one.run_id)
    undo(home, [one.run_id, two.run_id])
    assert walk(root) == before
    redo(home, one.run_id)
    assert walk(root) == after


@pytest.mark.parametrize("why", ["in a folder within", "not looked at", "a pipe by now"])
def test_runs_that_met_and_cannot_be_undone_as_one_are_not_said_to_be(home: StateHome, root: Path, why: str) -> None:
    one, first = begun(home, root)
    two, second = begun(home, root / "folder" if why == "in a folder within" else root)
    (root / "folder" / "inside").write_text("by both, or by nobody knows whom")
    ended(one, first)
    ended(two, second)
    if why == "not looked at":
        (two.path / BEFORE).unlink()
    if why == "a pipe by now":
        (root / "folder" / "inside").unlink()
        os.mkfifo(root / "folder" / "inside")
    for runs in ([one.run_id], [one.run_id, two.run_id]):
        with pytest.raises(UndoRefused) as refused:
            undo(home, runs)
        assert "`cc-executor undo " not in str(refused.value)


def test_runs_that_begin_at_the_same_moment_know_each_other(home: StateHome, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one comes whole between this one's look for others and its own entry, whichever is first."""
    second: list[tuple[RunFolder, RunRequest]] = []
    look, is_inside = Claims.working, False

    def working(claims: Claims) -> list[tuple[str, bytes]]:
        nonlocal is_inside
        found = look(claims)
        if not is_inside:
            is_inside = True
            second.append(begun(home, root))
        return found

    monkeypatch.setattr(Claims, "working", working)
    one, first = begun(home, root)
    two, other = second[0]
    (root / "by-one").write_text("1")
    (root / "by-two").write_text("2")
    ended(one, first, claimed=("by-one",))
    ended(two, other, claimed=("by-two",))
    undo(home, [one.run_id])
    assert (root / "by-two").read_text() == "2", "what the other run made is not undone with this one"
    assert not (root / "by-one").exists()


def test_a_run_that_ends_while_the_next_one_looks_has_met_it(home: StateHome, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, first = begun(home, root)
    take = Look.take

    def takes(look: Look) -> Tree:
        monkeypatch.setattr(Look, "take", take)
        seen = take(look)
        (root / "by-one").write_text("its last words")  # after the next one's look, and before that is entered
        (one.path / records.EXIT).write_text("{}")
        ended(one, first, claimed=("by-one",))
        return seen

    monkeypatch.setattr(Look, "take", takes)
    two, other = begun(home, root)
    (root / "by-two").write_text("2")
    ended(two, other, claimed=("by-two",))
    undo(home, [two.run_id])
    assert (root / "by-one").exists(), "the one before made it"
    assert not (root / "by-two").exists()


async def test_nothing_is_undone_where_a_run_works(home: StateHome, tmp_path: Path) -> None:
    run_id = worked(home, tmp_path, lambda: (tmp_path / "made").write_text("x"))
    run = await started("read -t 60 < <(sleep 60)", home=home, cwd=tmp_path, undo=True)
    with pytest.raises(UndoRefused, match=f"Run {run.run_id} works in"):
        undo(home, [run_id])
    with pytest.raises(UndoRefused, match="goes on"):
        undo(home, [run.run_id])
    await run.end(reason="cancel", by="test")
    undo(home, [run_id])
    assert not (tmp_path / "made").exists()


def test_a_run_whose_supervisor_syncs_its_journal_still_has_ended_and_is_undone(home: StateHome, root: Path) -> None:
    before = walk(root)
    run_id = cc_execute_sync("rm gone.txt", **BASH, cwd=root, undo=True).receipt.run_id
    with as_its_last_sync(home.folder(run_id)):
        undo(home, [run_id])
    assert walk(root) == before


def test_a_content_that_is_damaged_is_never_put_anywhere(home: StateHome, root: Path) -> None:
    run_id = worked(home, root, lambda: damage(root))
    after = walk(root)
    for place in (home.root / "undo" / "contents").glob("*/*"):
        if place.read_bytes() == b"precious":
            place.write_bytes(b"garbage!")
    with pytest.raises(UndoRefused, match=r"gone\.txt: its kept content is damaged"):
        undo(home, [run_id])
    assert walk(root) == after
    assert not SnapshotStore(home).act(home.folder(run_id))


def entry_of(path: Path, blobs: Blobs) -> Entry:
    status = path.lstat()
    content = blobs.put(path.read_bytes()) if path.is_file() else b""
    kind = Kind.FILE if path.is_file() else Kind.FOLDER
    return Entry(
        kind, status.st_mode & 0o7777, status.st_size if kind is Kind.FILE else 0, content, status.st_mtime_ns, inode=status.st_ino
    )


def test_a_failure_in_the_midst_of_it_is_taken_back(root: Path, tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    top = os.fsencode(root)
    wanted = Entry(Kind.FILE, 0o644, 1, blobs.put(b"1"))
    changes = (
        Change(top + b"/gone.txt", None, entry_of(root / "gone.txt", blobs)),
        Change(top + b"/edited.txt", wanted, entry_of(root / "edited.txt", blobs)),
        Change(top + b"/folder", wanted, entry_of(root / "folder", blobs)),  # it is not empty: this cannot be done
    )
    blobs.flush()
    before = walk(root)
    with pytest.raises(OSError, match="not empty"):
        Ground([top], blobs, stage="x").carry_out(changes)
    assert walk(root) == before


def test_nothing_is_written_through_a_link_or_outside_of_the_folder(home: StateHome, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    run_id = worked(home, root, (root / "folder" / "inside").unlink)
    (root / "folder" / "empty").rmdir()
    (root / "folder").rmdir()
    (root / "folder").symlink_to(outside)
    with pytest.raises(UndoRefused):
        undo(home, [run_id])
    assert not list(outside.iterdir())
    blobs = Blobs(tmp_path / "blobs")
    with pytest.raises(OSError, match="not in the folder of the run"):
        Ground([os.fsencode(root)], blobs, stage="x").carry_out([Change(os.fsencode(root) + b"/../x", Entry(Kind.LINK, 0, 0, b"a"), None)])


def test_whoever_writes_at_the_very_moment_is_noticed(root: Path, tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    path = root / "edited.txt"
    change = Change(os.fsencode(path), Entry(Kind.FILE, 0o644, 1, blobs.put(b"1")), entry_of(path, blobs))
    path.write_text("mine")
    with pytest.raises(Disturbed):
        Ground([os.fsencode(root)], blobs, stage="x").carry_out([change])
    assert path.read_text() == "mine"


def test_snapshots_are_private_and_go_with_their_runs(home: StateHome, root: Path) -> None:
    one = worked(home, root, lambda: (root / "edited.txt").write_text("1"))
    two = worked(home, root, lambda: (root / "edited.txt").write_text("2"))
    store = SnapshotStore(home)
    for path in (home.root / "undo").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert (home.folder(one).path / BEFORE).stat().st_mode & 0o077 == 0

    def contents() -> set[bytes]:
        return {place.read_bytes() for place in (home.root / "undo" / "contents").glob("*/*")}

    original = b"one\r\ntwo\r\n"
    assert {original, b"1", b"2"} <= contents()
    store.sweep(time.time())
    assert {original, b"1", b"2"} <= contents()
    home.discard(home.folder(one).run_id)
    store.sweep(time.time())
    assert original not in contents()
    assert {b"1", b"2"} <= contents()
    undo(home, [two])
    assert (root / "edited.txt").read_text() == "1"
    store.sweep(time.time(), space=1)  # the newest look is kept, whatever its size
    redo(home, two)
    assert (root / "edited.txt").read_text() == "2"
    store.sweep(time.time() + 31 * 86400)
    assert not contents()
    assert not (home.folder(two).path / AFTER).exists()
    with pytest.raises(UndoRefused, match="not kept any more"):
        undo(home, [two])


@pytest.mark.parametrize("by", ["sweeping", "pruning"])
def test_an_undo_that_was_cut_short_keeps_what_completes_it(by: str, home: StateHome, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = walk(root)
    receipt = cc_execute_sync("rm gone.txt; echo x > edited.txt", **BASH, cwd=root, undo=True).receipt
    with monkeypatch.context() as patch:
        patch.setattr(Ground, "carry_out", killed)
        with pytest.raises(KeyboardInterrupt):
            undo(home, [receipt.run_id])
    if by == "sweeping":
        for days in (31, 3000):
            SnapshotStore(home).sweep(time.time() + days * 86400, space=1)
    else:
        planned = plan_pruning(home, environ=os.environ, now=time.time(), keep=0, whole=True)
        assert (planned.candidates, planned.unsealed) == ((), 0)
    undo(home, [receipt.run_id])
    assert walk(root) == before
    if by == "pruning":
        assert len(plan_pruning(home, environ=os.environ, now=time.time(), keep=0, whole=True).candidates) == 1


def test_an_undo_that_cannot_be_written_down_leaves_none_behind(home: StateHome, root: Path) -> None:
    """It would be completed later, by whoever wants to take an undo back."""
    one = worked(home, root, (root / "gone.txt").unlink)
    two = worked(home, root, (root / "old-name.txt").unlink)
    after = walk(root)
    (home.folder(one).path / ACT).mkdir()  # what is written second, for the newest run is the first
    with pytest.raises(UndoRefused, match="Nothing was changed"):
        undo(home, [one, two])
    assert walk(root) == after
    assert SnapshotStore(home).act(home.folder(two)) is None
    with pytest.raises(UndoRefused, match="is not undone"):
        redo(home, two)
    (home.folder(one).path / ACT).rmdir()
    undo(home, [one, two])
    assert (root / "gone.txt").exists()


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_unchanged_folder_is_not_read_again(home: StateHome, root: Path) -> None:
    worked(home, root, lambda: None)
    old = time.time() - 3600
    for path in root.iterdir():
        os.utime(path, (old, old), follow_symlinks=False)
    worked(home, root, lambda: None)
    tree = SnapshotStore(home).known(os.fsencode(root))
    assert tree is not None
    known = {path: entry.content for path, entry in tree.entries.items() if entry.kind is Kind.FILE}
    assert all(known.values())
    # Same size, same times: only who reads it finds out. It is racy for two seconds, so the stamp of its inode is what keeps it honest.
    (root / "gone.txt").write_text("PRECIOUS")
    os.utime(root / "gone.txt", (old, old))
    run_id = worked(home, root, lambda: (root / "gone.txt").write_text("other"))
    undo(home, [run_id])
    assert (root / "gone.txt").read_text() == "PRECIOUS"


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, True), ({"undo": False}, False), ({"agent": "shell"}, False), ({"agent": "shell", "undo": True}, True)],
)
def test_agents_are_looked_at_unless_somebody_says_no_and_commands_where_somebody_says_so(options: dict, expected: bool) -> None:
    request = make_request("x", **options)
    assert request.undo is expected
    assert request.digest() == make_request("x", **{**options, "undo": not expected}).digest()


async def test_a_list_is_undone_newest_first_from_any_task(home: StateHome, tmp_path: Path) -> None:
    from cc_executor.runtime.undo import runs_of_list
    from cc_executor.store.tasklists import ListHome

    tasks = [
        {"id": "one", "run": "echo 1 > a"},
        {"id": "two", "run": "echo 2 >> a; echo 2 > b"},
        {"id": "left", "run": "echo l > l; until [ -e r ]; do sleep 0.02; done", "group": "g"},
        {"id": "right", "run": "echo r > r; until [ -e l ]; do sleep 0.02; done; mv b c", "group": "g"},
        {"id": "last", "run": "rm a"},
    ]
    result = await cc_execute_list(tasks, cwd=tmp_path)
    assert result.ok, result
    assert walk(tmp_path).keys() == {b"c", b"l", b"r"}
    receipts = [result.result(name).receipt for name in ("left", "right")]
    assert [receipt.undo and receipt.undo.shared_with for receipt in receipts] == [(receipts[1].run_id,), (receipts[0].run_id,)]
    assert all(receipt.undo and "worked in this folder at the same time" in receipt.undo.note for receipt in receipts)
    listed = next(ListHome(home).folders())
    done = undo(home, runs_of_list(home, listed, since="left"))
    assert len(done.runs) == 3
    assert {name: content for name, (_, _, content) in walk(tmp_path).items()} == {b"a": b"1\n2\n", b"b": b"2\n"}
    undo(home, runs_of_list(home, listed))
    assert not walk(tmp_path)


async def test_a_lost_run_of_which_nobody_saw_the_end_is_undone_like_any_other(home: StateHome, state_folder: Path, tmp_path: Path) -> None:
    run = await started(
        f"echo x > made; until [ -e {state_folder}/go ]; do sleep 0.02; done; kill -9 $PPID", home=home, cwd=tmp_path, undo=True
    )
    (state_folder / "go").touch()
    await to_end(run)
    receipt = await (await Run.attach(home, run.run_id, environ=os.environ)).finish()
    assert receipt.outcome.kind.value == "lost"
    undo(home, [run.run_id])
    assert not walk(tmp_path)
