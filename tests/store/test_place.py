"""Where runs are kept, by the environment alone, and what an id says of its time."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from cc_executor.errors import StateUnusable
from cc_executor.store.home import new_run_id
from cc_executor.store.place import claimed_at, is_gone, process_mark, state_path

HOME = pwd.getpwuid(os.getuid()).pw_dir


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"CC_EXECUTOR_STATE": "/kept/here", "XDG_STATE_HOME": "/state", "HOME": "/me"}, "/kept/here"),
        ({"CC_EXECUTOR_STATE": "~no-such-user/kept"}, "~no-such-user/kept"),
        ({"CC_EXECUTOR_STATE": "", "XDG_STATE_HOME": "/state", "HOME": "/me"}, "/state/cc-executor"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/me"}, "/me/.local/state/cc-executor"),
        ({"HOME": "/me"}, "/me/.local/state/cc-executor"),
        ({"HOME": "relative"}, f"{HOME}/.local/state/cc-executor"),
        ({}, f"{HOME}/.local/state/cc-executor"),
    ],
)
def test_the_environment_says_where_runs_are_kept(environ: dict[str, str], path: str) -> None:
    assert state_path(environ) == Path(path)


def test_a_home_folder_may_stand_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/me")
    assert state_path({"CC_EXECUTOR_STATE": "~/kept"}) == Path("/me/kept")


@pytest.mark.parametrize("path", ["kept", "./kept", "../kept", "$HOME/kept"])
def test_a_relative_state_folder_is_refused_with_the_cure(path: str) -> None:
    with pytest.raises(StateUnusable, match="Set it to an absolute path"):
        state_path({"CC_EXECUTOR_STATE": path})


@pytest.mark.parametrize("at", [0.0, 0.001, 1_800_000_000.123, 281_474_976_710.655])
def test_an_id_says_when_it_was_made(at: float) -> None:
    assert claimed_at(new_run_id(at)) == pytest.approx(at, abs=0.001)


def test_a_process_that_is_there_is_not_gone() -> None:
    assert not is_gone(process_mark())
    assert not is_gone(process_mark(1)), "somebody else's is there, too"
