"""Whatever a run does to whatever tree: undo brings the tree back, redo what the run left, in any order and as often as one likes."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cc_executor.runtime.undo import redo, undo
from cc_executor.store.home import StateHome
from support.trees import walk, worked

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # thousands of small folders: no disk has to hear of them

# Few names, so that what is created, removed and replaced meets; two that differ in case, one that is no UTF-8, one with a newline, one that is an option.
NAMES = st.sampled_from([b"a", b"A", b"b", b"\xff", b"n\nl", b"-rf", b"d"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)
CONTENT = st.sampled_from([b"", b"x", b"y" * 300_000, b"same"])
MODES = st.sampled_from([0o644, 0o600, 0o755, 0o400, 0o4755])
FOLDER_MODES = st.sampled_from([0o755, 0o700, 0o555, 0o2755])
ACTS = st.one_of(
    st.tuples(st.just("file"), PATHS, CONTENT, MODES),
    st.tuples(st.just("link"), PATHS, st.sampled_from([b"a", b"nowhere", b".", b"../..", b"/etc/hostname"])),
    st.tuples(st.just("folder"), PATHS, FOLDER_MODES),
    st.tuples(st.just("remove"), PATHS),
    st.tuples(st.just("move"), PATHS, PATHS),
    st.tuples(st.just("mode"), PATHS, MODES),
    st.tuples(st.just("append"), PATHS),
)


def act(root: Path, step: tuple) -> None:
    """One thing that somebody may do to a tree. What is impossible is not done."""
    what, name, *more = step
    path = root / os.fsdecode(name)
    with contextlib.suppress(OSError):
        if what in {"file", "link", "folder"}:
            if path.parent.is_symlink():
                return
            path.parent.mkdir(parents=True, exist_ok=True)
        match what:
            case "file":
                path.write_bytes(more[0])
                path.chmod(more[1])
            case "link":
                path.symlink_to(os.fsdecode(more[0]))
            case "folder":
                path.mkdir()
                path.chmod(more[0])
            case "remove":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            case "move":
                path.rename(root / os.fsdecode(more[0]))
            case "mode" if not path.is_symlink():
                path.chmod(more[0] | 0o300 * path.is_dir())
            case "append" if not path.is_symlink():
                with path.open("ab") as file:
                    file.write(b"more")
            case _:
                pass


@given(st.lists(ACTS, max_size=12), st.lists(ACTS, max_size=12), st.lists(ACTS, max_size=6))
def test_undo_and_redo_are_each_other_s_way_back(first: list[tuple], second: list[tuple], third: list[tuple]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as place:
        home, root = StateHome(Path(place) / "state"), Path(place) / "work"
        root.mkdir()
        for step in first:
            act(root, step)
        before = walk(root)
        one = worked(home, root, lambda: [act(root, step) for step in second])
        between = walk(root)
        two = worked(home, root, lambda: [act(root, step) for step in third])
        after = walk(root)

        undo(home, [two])
        assert walk(root) == between
        undo(home, [one])
        assert walk(root) == before
        redo(home, one)
        assert walk(root) == between
        redo(home, two)
        assert walk(root) == after
        undo(home, [one, two])  # as one
        assert walk(root) == before
        redo(home, two)
        assert walk(root) == after
        assert not [name for name in os.listdir(root) if name.startswith(".cc-undo")]
