"""The runs that a server sees through to their receipts: what it does meanwhile, whoever looks."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import anyio
import pytest

from cc_executor.api import make_request
from cc_executor.model.receipt import Receipt
from cc_executor.runtime.run import Run
from cc_executor.server.following import Following
from cc_executor.store.home import StateHome
from support.runs import BOUND

pytestmark = pytest.mark.anyio


@pytest.mark.usefixtures("claude_cli")
async def test_an_agent_whose_key_is_refused_is_ended_at_once(tmp_path: Path, home: StateHome) -> None:
    receipts, over = list[Receipt](), asyncio.Event()
    following = Following(sealed=lambda _, receipt: receipts.append(receipt), over=over.set)
    run = await Run.start(make_request("x", cwd=tmp_path, rehearse="bad-key"), home=home, environ=os.environ)
    following.take(run)
    with anyio.fail_after(BOUND):  # the CLI alone tries for 180 s
        await over.wait()
    (receipt,) = receipts
    assert (receipt.outcome.kind, receipt.exit.stopped_for) == ("auth", "auth")
    assert run.run_id not in following
