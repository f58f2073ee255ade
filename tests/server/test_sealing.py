"""Receipts that are made because somebody asks for them: real runs that have ended, whose check goes on while the server comes to its end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from cc_executor.errors import StateUnusable
from cc_executor.runtime import seal
from cc_executor.runtime.run import Run
from cc_executor.server import sealing
from cc_executor.server.sealing import Sealing
from cc_executor.shim import records
from cc_executor.store.home import StateHome
from support.runs import BOUND, eventually, started, to_end
from support.shims import alive

pytestmark = pytest.mark.anyio

CHECK: Final = "echo $$ >> pids; until [ -e go ]; do sleep 0.02; done"


@pytest.fixture
async def asked(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sealing]:
    monkeypatch.setattr(sealing, "PATIENCE", BOUND)
    monkeypatch.setattr(seal, "HEAD_START", 0.0)  # whoever started these runs does not come
    made = Sealing()
    yield made
    await made.aclose()


@pytest.fixture
def brief(asked: Sealing, monkeypatch: pytest.MonkeyPatch) -> Sealing:
    """One that soon says that it takes long: for a check that cannot end before the test has heard that."""
    monkeypatch.setattr(sealing, "PATIENCE", 0.05)
    return asked


async def ended(folder: Path, home: StateHome, *, verify: str) -> Run:
    """A run that has ended and that nobody has followed, as a server looks at it."""
    run = await started("echo done", home=home, cwd=folder, verify=verify)
    await to_end(run)
    return await Run.attach(home, run.run_id, environ=os.environ)


def has_begun(folder: Path) -> bool:
    """Whether a check has said its number, whole."""
    pids = folder / "pids"
    return pids.exists() and pids.read_text().endswith("\n")


async def test_a_check_that_takes_long_is_made_once_however_often_somebody_asks(
    tmp_path: Path, home: StateHome, brief: Sealing, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await ended(tmp_path, home, verify=CHECK)
    for _ in range(3):
        assert await brief.receipt(run) is None, "nobody's request waits for it"
    await eventually(lambda: has_begun(tmp_path))
    both = [brief.receipt(run), brief.receipt(await Run.attach(home, run.run_id, environ=os.environ))]
    assert await asyncio.gather(*both) == [None, None]
    monkeypatch.setattr(sealing, "PATIENCE", BOUND)  # from here on it comes to its end
    (tmp_path / "go").touch()
    receipt = await brief.receipt(run)
    assert receipt == run.folder.receipt()
    assert receipt is not None
    assert receipt.checks[0].passed
    assert len((tmp_path / "pids").read_text().split()) == 1


async def test_who_gives_up_asking_ends_no_check(tmp_path: Path, home: StateHome, asked: Sealing) -> None:
    run = await ended(tmp_path, home, verify=CHECK)
    request = asyncio.get_running_loop().create_task(asked.receipt(run))
    await eventually(lambda: has_begun(tmp_path))
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    (tmp_path / "go").touch()
    receipt = await asked.receipt(run)
    assert receipt is not None
    assert receipt.checks[0].passed
    assert len((tmp_path / "pids").read_text().split()) == 1


async def test_a_server_that_ends_ends_its_checks_and_the_next_one_makes_them_anew(
    tmp_path: Path, home: StateHome, brief: Sealing, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await ended(tmp_path, home, verify=CHECK)
    assert await brief.receipt(run) is None
    await eventually(lambda: has_begun(tmp_path))
    await brief.aclose()
    (pid,) = (tmp_path / "pids").read_text().split()
    assert not alive(int(pid))
    assert not run.folder.has_receipt, "it was not made, so nothing is said of it"
    monkeypatch.setattr(sealing, "PATIENCE", BOUND)
    (tmp_path / "go").touch()
    later = Sealing()
    receipt = await later.receipt(run)
    assert receipt is not None
    assert receipt.checks[0].passed
    await later.aclose()


async def test_a_receipt_that_cannot_be_made_is_told_of_and_tried_again(tmp_path: Path, home: StateHome, asked: Sealing) -> None:
    run = await ended(tmp_path, home, verify="true")
    plan = run.folder.path / "plan.json"
    whole = plan.read_bytes()
    plan.write_bytes(b"{")
    for _ in range(2):
        with pytest.raises(StateUnusable, match=run.run_id):
            await asked.receipt(run)
    plan.write_bytes(whole)
    assert await asked.receipt(run) is not None
    assert (run.folder.path / records.RECEIPT).exists()
