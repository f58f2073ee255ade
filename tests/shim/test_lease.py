"""The process that wants the run ends: what becomes of the run is the spec's word."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cc_executor.shim.records as fmt
from cc_executor.shim import native
from cc_executor.shim.lease import Lease
from support.shims import BOUND, SHIM, Run, marked, until, watch

Start = Callable[..., Run]

CHATTY = "import os, time\nwhile True: os.write(1, b'.'); time.sleep(0.02)"


@pytest.fixture
def kernel() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(("/bin/sleep", "100")) as process:
        yield process
        process.kill()


@pytest.mark.row("faults", "kernel killed, policy cancel", "every process of the run is gone within 3 s, receipt facts written")
def test_with_cancel_the_run_ends_with_its_kernel(start: Start, kernel: subprocess.Popen[bytes]) -> None:
    run = start(CHATTY, lease_pid=kernel.pid)
    until(run.read)
    kernel.kill()
    facts = run.wait(5)
    assert facts["stop_reason"] == "kernel_exit"
    assert run.record("stop_requested")["by"] == "lease"


def test_with_cancel_a_paused_run_ends_too(start: Start, kernel: subprocess.Popen[bytes]) -> None:
    run = start(CHATTY, lease_pid=kernel.pid)
    run.ask(op="pause")
    kernel.kill()
    assert run.wait(5)["stop_reason"] == "kernel_exit"


@pytest.mark.row("faults", "kernel killed, policy continue", "the run goes on to its own end")
def test_with_continue_the_run_goes_on(start: Start, kernel: subprocess.Popen[bytes]) -> None:
    run = start(CHATTY, lease_pid=kernel.pid, on_lease_end="continue")
    until(run.read)
    kernel.kill()
    kernel.wait()
    watch(0.3)
    size = len(run.read())
    until(lambda: len(run.read()) > size + 3)
    assert run.kinds() == ["started"]
    run.ask(op="cancel", now=True)
    assert run.wait()["stop_reason"] == "cancel"


def test_a_kernel_that_is_gone_already_is_gone(start: Start, kernel: subprocess.Popen[bytes]) -> None:
    kernel.kill()
    kernel.wait()
    assert start(CHATTY, lease_pid=kernel.pid).wait()["stop_reason"] == "kernel_exit"
    run = start("print('done')", lease_pid=kernel.pid, on_lease_end="continue")
    assert run.wait()["stop_reason"] is None
    assert run.read() == b"done\n"


def test_nobody_needs_to_want_a_run(start: Start) -> None:
    assert start("print('done')", lease_pid=None).wait()["code"] == 0


LAUNCHER = """
import os, subprocess, sys
spec = sys.argv[3].replace('"lease_pid": null', '"lease_pid": %d' % os.getpid())
shim = subprocess.Popen(sys.argv[1:3] + ["-S", sys.argv[4]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
shim.stdin.write(spec.encode())
shim.stdin.close()
print(shim.pid, flush=True)
os._exit(0)
"""


def test_a_launcher_that_ends_before_the_answer_takes_its_run_along(tmp_path: Path) -> None:
    run_id = f"orphan-{os.getpid()}"
    spec = json.dumps({
        "version": fmt.FORMAT_VERSION, "run_dir": str(tmp_path), "run_id": run_id, "argv": ["/bin/sleep", "100"], "env": {}, "cwd": "/",
        "stdin": "none", "wall": None, "stall": None, "lease_pid": None, "on_lease_end": "cancel", "secrets": [], "keep_background": False,
    })  # fmt: skip
    subprocess.run(
        (sys.executable, "-c", LAUNCHER, sys.executable, "-I", spec, str(SHIM)), check=True, timeout=BOUND, stdout=subprocess.DEVNULL
    )
    until((tmp_path / fmt.EXIT).exists)
    assert json.loads((tmp_path / fmt.EXIT).read_bytes())["stop_reason"] == "kernel_exit"
    until(lambda: not marked(run_id))


def test_without_process_descriptors_the_lease_is_looked_at(monkeypatch: pytest.MonkeyPatch, kernel: subprocess.Popen[bytes]) -> None:
    def no_descriptor(_pid: int) -> None:
        return None

    monkeypatch.setattr(native, "watch_process", no_descriptor)
    lease = Lease(kernel.pid)
    assert lease.fd is None
    assert not lease.ended()
    kernel.kill()
    kernel.wait()
    assert lease.ended()
    assert lease.ended()
