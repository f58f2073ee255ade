"""The supervisor of a run has no secret of whoever started it: any process of the same user reads its environment in /proc."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cc_executor.shim import records
from cc_executor.store.home import StateHome
from support.runs import started, until

CANARY = "canary-of-the-kernel-0123456789"


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


@pytest.mark.row(
    "threats",
    "environment of the supervisor",
    "no secret of the kernel's environment is in its /proc entry; the agent has what it was given",
)
async def test_a_supervisor_has_nothing_of_the_kernel_s_environment(
    tmp_path: Path, state_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", CANARY)
    monkeypatch.setenv("MY_OWN_PASSWORD", CANARY)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    # With something behind `sleep`: a shell that becomes its last command has no environment for a moment.
    run = await started("echo up; sleep 60; :", home=StateHome(state_folder), cwd=tmp_path, env_names="LD_LIBRARY_PATH")
    try:
        await until(run, lambda state: "up" in state.text)
        first = json.loads(run.folder.read(records.CONTROL, 0).splitlines()[0])
        supervisor, agent = environment_of(first["shim_pid"]), environment_of(first["agent_pid"])
        assert supervisor.startswith(b"LD_LIBRARY_PATH=")
        names = {line.partition(b"=")[0] for line in supervisor.split(b"\0") if line}
        assert names <= {b"LD_LIBRARY_PATH", b"LC_CTYPE", records.RUN_MARK.encode()}, "LC_CTYPE: set by Python itself (PEP 538)"
        assert CANARY.encode() not in supervisor + agent
        assert f"HOME={os.environ['HOME']}".encode() in agent.split(b"\0")
    finally:
        await run.end(reason="cancel", by="test", now=True)
