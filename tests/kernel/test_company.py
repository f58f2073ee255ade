"""Kernels that share one state folder: each sees, watches and commands the runs of the others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cc_executor.model.receipt import RECEIPT_MIME
from kernel.cells import WAIT, make_gate, ok, shell_cell, wait_for_pid
from kernel.conftest import LOAD
from support.environments import KERNELS
from support.kernel import Kernel, running_kernel
from support.leaks import await_none


@pytest.fixture
def two(kernelspecs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Kernel, Kernel]]:
    """Two kernels, of two lines where there are two, in one folder and with one state folder."""
    monkeypatch.chdir(tmp_path)
    with running_kernel(KERNELS[0].name) as one, running_kernel(KERNELS[-1].name) as other:
        for kernel in (one, other):
            ok(kernel.run(LOAD))
        yield one, other


@pytest.mark.row(
    "kernels", "two kernels at once on one state folder", "their runs do not meet; each sees, pauses and cancels those of the other"
)
def test_two_kernels_run_at_once_and_command_each_other_s_runs(two: tuple[Kernel, Kernel], tmp_path: Path) -> None:
    one, other = two
    cells = [
        (kernel, kernel.send(shell_cell(f"echo {name}{number}", f"-o r{number}")))
        for number in range(3)
        for name, kernel in zip("ab", two, strict=True)
    ]
    for kernel, cell in cells:
        ok(kernel.wait(cell, within=60))
    for name, kernel in zip("ab", two, strict=True):
        assert kernel.value("[r.text.strip() for r in (r0, r1, r2)]") == repr([f"{name}{number}" for number in range(3)])

    make_gate(tmp_path)
    ok(one.run(shell_cell(WAIT, "--bg -o h")))
    pid = wait_for_pid(tmp_path)
    run_id = one.value("h.run_id").strip("'")
    for kernel in two:
        listed = json.dumps(ok(kernel.run("%cc list")).displays)
        assert listed.count("running") >= 1
        assert run_id in listed

    assert "stands still" in ok(other.run(f"%cc pause {run_id}")).stream
    assert psutil.Process(pid).status() == psutil.STATUS_STOPPED
    ok(other.run(f"%cc resume {run_id}"))
    watching = other.send(f"%cc attach {run_id}")
    begun = other.wait(watching, until=lambda answer: answer.displays)
    ok(one.run(f"%cc cancel {run_id}"))
    ended = ok(other.wait(watching, within=60, answer=begun))
    (shown,) = [display[RECEIPT_MIME] for display in ended.displays]
    assert shown["outcome"]["kind"] == "cancelled"
    assert one.value("(await h).receipt.digest") == repr(shown["digest"])
    assert await_none([tmp_path], budget=5) == []

    ids = {kernel.value(f"r{number}.receipt.run_id") for kernel in two for number in range(3)}
    assert len(ids) == 6
