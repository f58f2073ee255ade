"""The list of trusted folders, written by several at once: no trust that was taken back comes again, and none that was given is lost."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cc_executor.store.home import StateHome
from cc_executor.store.trust import Trusted, TrustList


@pytest.fixture
def home(state_folder: Path) -> StateHome:
    made = StateHome(state_folder)
    made.prepare()
    return made


def folder(tmp_path: Path, name: str) -> str:
    path = tmp_path / name
    path.mkdir()
    return str(path)


def test_trust_that_is_taken_back_while_somebody_trusts_another_folder_stays_taken_back(
    home: StateHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = folder(tmp_path, "old"), folder(tmp_path, "new")
    TrustList(home).add(old)
    look, has_read, is_removed = TrustList.folders, threading.Event(), threading.Event()

    def folders(trusted: TrustList) -> list[Trusted]:
        found = look(trusted)
        if threading.current_thread() is adder:
            has_read.set()
            is_removed.wait(0.5)  # with a lock it cannot come: whoever removes waits for us
        return found

    monkeypatch.setattr(TrustList, "folders", folders)
    adder = threading.Thread(target=TrustList(home).add, args=(new,))
    adder.start()
    assert has_read.wait(60)
    assert TrustList(home).remove(old) == old
    is_removed.set()
    adder.join(60)
    assert [each.path for each in TrustList(home).folders()] == [new]
