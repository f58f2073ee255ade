"""Turns at a file: told who does not get one, and over with the process that had it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cc_executor.errors import StateUnusable
from cc_executor.store import lock
from support.environments import CHECKOUT


def test_who_does_not_get_a_turn_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.05)  # of five seconds
    path = tmp_path / "server" / "one.lock"
    with lock.locked(path), pytest.raises(StateUnusable, match="has held"), lock.locked(path):
        pass
    path.unlink()
    path.symlink_to("elsewhere")
    with pytest.raises(StateUnusable, match="cannot be written"), lock.locked(path):
        pass


def test_a_turn_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "server" / "one.lock"
    script = f"from pathlib import Path\nfrom cc_executor.store.lock import locked\nwith locked(Path({str(path)!r})):\n print('in', flush=True)\n input()"
    environ = os.environ | {"PYTHONPATH": str(CHECKOUT / "src")}
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        other.kill()
        with lock.locked(path):
            assert path.stat().st_mode & 0o777 == 0o600
