"""However a run is ended or left, nothing of it lives on; and what was to go on goes on to its own end, and is found again whole."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from jupyter_client.blocking.client import BlockingKernelClient

from cc_executor.shim import records
from kernel.cells import make_gate, shell_cell, wait_for_pid
from support.kernel import START_BUDGET, Kernel, running_kernel
from support.lab import Lab, running_lab
from support.looks import eventually
from support.runs import run_folders
from support.shims import alive, marked

pytestmark = pytest.mark.usefixtures("claude_cli")

Saw = Callable[[str], None]

PROMISE: Final = 5.0  # seconds
TIME: Final = 8  # seconds, in which a busy machine starts the whole tree, too
TREE: Final = 5  # processes, with the agent and the supervisor
# Tools in sessions of their own; one of them is deaf to every polite signal.
SCATTERED: Final = "setsid bash -c 'exec sleep 1000' & setsid bash -c 'trap \"\" INT TERM HUP; echo $$ > pid; setsid sleep 1000 & wait' & echo started; wait"
LINES: Final = "echo $$ > pid; for n in $(seq 1 300); do echo line $n; done; cat gate; for n in $(seq 301 600); do echo line $n; done"


def rowed(case: str, required: str = "0 processes of the run alive within 5 s") -> pytest.MarkDecorator:
    return pytest.mark.row("faults", case, required)


def records_of(state: Path) -> list[dict[str, Any]]:
    """What the supervisor of the one run in this state folder has written down, in whole lines."""
    (folder,) = run_folders(state)
    data = (folder / records.CONTROL).read_bytes()
    return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]


def shim_of(state: Path) -> int:
    """The supervisor of the one run in this state folder. The agent may have begun before it says who it is."""
    return int(eventually(lambda: records_of(state), within=60, what="the supervisor has told who it is")[0]["shim_pid"])


def has(state: Path, kind: str) -> bool:
    """Whether the supervisor has written down such a thing."""
    return any(record["kind"] == kind for record in records_of(state))


def living(state: Path) -> list[int]:
    """What lives of the one run in this state folder, its supervisor included."""
    (folder,) = run_folders(state)
    shim = shim_of(state)
    return [*marked(folder.name), *([shim] if alive(shim) else [])]


def tree_of(folder: Path, state: Path) -> None:
    """Wait until the whole tree lives, and what it said first is in the journal."""
    wait_for_pid(folder)
    eventually(lambda: len(living(state)) >= TREE, within=60, what="the whole tree lives")
    (run,) = run_folders(state)
    eventually(lambda: (run / records.STDOUT).stat().st_size, within=60, what="the word of the tree is written down")


def measured(folder: Path, state: Path, deed: Callable[[], object]) -> float:
    """Seconds from a deed to the end of the last process of the run; fails after `PROMISE`."""
    tree_of(folder, state)
    begun = time.monotonic()
    deed()
    eventually(lambda: not living(state), within=PROMISE, what="nothing of the run lives")
    return time.monotonic() - begun


def cancel(_kernel: Kernel, _state: Path) -> None:
    subprocess.run([sys.executable, "-m", "cc_executor.cli", "cancel"], check=True, timeout=100, capture_output=True)


def interrupt(kernel: Kernel, _state: Path) -> None:
    kernel.interrupt()


def kill_supervisor(_kernel: Kernel, state: Path) -> None:
    os.kill(shim_of(state), signal.SIGKILL)


def kill_supervisor_of_what_stands(kernel: Kernel, state: Path) -> None:
    subprocess.run([sys.executable, "-m", "cc_executor.cli", "pause"], check=True, timeout=100, capture_output=True)
    kill_supervisor(kernel, state)


@pytest.mark.parametrize(
    "deed",
    [
        pytest.param(cancel, marks=rowed("cancelled from a terminal, real kernel")),
        pytest.param(interrupt, marks=rowed("interrupt, real kernel")),
        pytest.param(kill_supervisor, marks=rowed("supervisor killed under a cell, real kernel")),
        pytest.param(kill_supervisor_of_what_stands, marks=rowed("supervisor of a paused run killed, real kernel")),
    ],
)
def test_nothing_of_a_cell_s_run_outlives_its_end(
    kernel: Kernel, tmp_path: Path, state_folder: Path, deed: Callable[[Kernel, Path], None], saw: Saw
) -> None:
    cell = kernel.send(shell_cell(SCATTERED, "-o r"))
    begun = kernel.wait(cell, until=lambda answer: answer.displays)  # before that it is a launch that is interrupted
    saw(f"{measured(tmp_path, state_folder, lambda: deed(kernel, state_folder)):.1f} s")
    answer = kernel.wait(cell, within=60, answer=begun)
    assert (answer.status, answer.ename) == ("error", "KeyboardInterrupt" if deed is interrupt else "CCExecutionError")
    outcome = "cancelled" if deed in {cancel, interrupt} else "lost"
    assert kernel.value("r.status, r.text") == repr((outcome, "started\n"))


@rowed("timeout, real kernel")
def test_nothing_of_a_cell_s_run_outlives_its_time(kernel: Kernel, tmp_path: Path, state_folder: Path, saw: Saw) -> None:
    cell = kernel.send(shell_cell(SCATTERED, f"-o r --timeout {TIME}"))
    wait_for_pid(tmp_path)
    eventually(
        lambda: has(state_folder, "limit_reached"), within=60, what="the time is over"
    )  # of its clock, which a machine that stands still stops
    eventually(lambda: not living(state_folder), within=PROMISE, what="nothing of the run lives")
    # What an interrupt of the agent alone left of the tree, as its supervisor met it: so all of it was there.
    (met,) = [record["processes"] for record in records_of(state_folder) if record.get("signal") == "SIGTERM"]
    assert met >= TREE - 2
    assert kernel.wait(cell, within=60).ename == "CCExecutionError"
    assert kernel.value("r.status") == "'timeout'"
    saw(f"{float(kernel.value('r.receipt.times.elapsed')) - TIME:.1f} s")


def restart(kernel: Kernel) -> None:
    kernel.manager.restart_kernel()


def kill(kernel: Kernel) -> None:
    os.kill(kernel.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    "deed",
    [
        pytest.param(restart, marks=rowed("kernel restarted, policy cancel, real kernel")),
        pytest.param(kill, marks=rowed("kernel killed, policy cancel, real kernel")),
    ],
)
def test_nothing_of_an_attached_run_outlives_its_kernel(
    own_kernel: Kernel, tmp_path: Path, state_folder: Path, deed: Callable[[Kernel], None], saw: Saw
) -> None:
    own_kernel.send(shell_cell(SCATTERED))
    saw(f"{measured(tmp_path, state_folder, lambda: deed(own_kernel)):.1f} s")


def whole(kernel: Kernel, state: Path, gate: Path) -> None:
    """Attach to the newest run, half of which was written already, and see every line of it once."""
    kernel.run("%load_ext cc_executor\n%config CCExecutor.view = 'text'")
    cell = kernel.send("%cc attach")
    half = kernel.wait(cell, until="line 300\n")
    gate.write_text("through\n")
    answer = kernel.wait(cell, answer=half)
    assert answer.status == "ok", answer.traceback
    assert [int(number) for number in re.findall(r"^line (\d+)$", answer.stream, re.MULTILINE)] == list(range(1, 601))
    eventually(lambda: not living(state), within=PROMISE, what="nothing of the run lives")


@rowed("kernel killed, policy continue, real kernel", "the run ends by itself; another kernel shows all of it, without gap or repeat")
def test_a_background_run_outlives_the_kill_of_its_kernel_and_is_shown_whole_by_another(
    own_kernel: Kernel, kernel_name: str, tmp_path: Path, state_folder: Path
) -> None:
    gate = make_gate(tmp_path)
    own_kernel.run(shell_cell(LINES, "--bg"))
    pid = wait_for_pid(tmp_path)
    os.kill(own_kernel.pid, signal.SIGKILL)
    with running_kernel(kernel_name) as another:
        os.kill(pid, 0)
        whole(another, state_folder, gate)


CONTINUE: Final = "%load_ext cc_executor\n%config CCExecutor.on_kernel_exit = 'continue'"
# The word that the kernel is to end may come as late as it likes, and the wait for it can be seen.
PATIENT: Final = """
import cc_executor.kernel.cell, cc_executor.kernel.loop
from pathlib import Path
cc_executor.kernel.loop.GRACE = 60.0
async def is_ending(shell, wait=cc_executor.kernel.loop.is_ending):
    Path("felt").touch()
    return await wait(shell)
cc_executor.kernel.cell.is_ending = is_ending
"""


@rowed(
    "kernel restarted under a cell, policy continue, real kernel",
    "the run ends by itself; another kernel shows all of it, without gap or repeat",
)
def test_a_cell_s_run_outlives_a_restart_if_it_is_to(own_kernel: Kernel, kernel_name: str, tmp_path: Path, state_folder: Path) -> None:
    gate = make_gate(tmp_path)
    own_kernel.run(f"{CONTINUE}\n{PATIENT}")
    own_kernel.wait(
        own_kernel.send(shell_cell(LINES)), until=lambda answer: answer.displays
    )  # before that it is a launch that is interrupted
    pid = wait_for_pid(tmp_path)
    old = own_kernel.pid
    os.kill(old, signal.SIGINT)  # as jupyter_client does before it tells a kernel to shut down
    eventually((tmp_path / "felt").exists, within=60, what="the cell has felt the interrupt")
    os.kill(pid, 0)
    own_kernel.client.shutdown(restart=True)
    with running_kernel(kernel_name) as another:
        eventually(lambda: not alive(old), within=60, what="the kernel has ended")
        os.kill(pid, 0)
        whole(another, state_folder, gate)


@rowed("interrupt, policy continue, real kernel")
def test_an_interrupt_ends_what_would_outlive_its_kernel(own_kernel: Kernel, tmp_path: Path, state_folder: Path) -> None:
    own_kernel.run(CONTINUE)
    cell = own_kernel.send(shell_cell(SCATTERED))
    measured(tmp_path, state_folder, own_kernel.interrupt)
    assert own_kernel.wait(cell, within=60).ename == "KeyboardInterrupt"


# --- the server that owns the kernel --------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path, kernelspecs: Path) -> Iterator[Lab]:
    """A Jupyter server that the test may kill."""
    assert kernelspecs.exists()
    folder = tmp_path / "server"
    folder.mkdir()
    with running_lab(folder, app="jupyter_server") as lab:
        yield lab


@contextmanager
def kernel_of(server: Lab, name: str) -> Iterator[BlockingKernelClient]:
    """A kernel that this server has started, spoken to without the server."""
    body = json.dumps({"name": name}).encode()
    request = urllib.request.Request(f"{server.url}/api/kernels", body, {"Authorization": f"token {server.token}"})
    with urllib.request.urlopen(request, timeout=START_BUDGET) as answer:
        started: dict[str, Any] = json.loads(answer.read())
    client = BlockingKernelClient(connection_file=str(server.root.parent / "runtime" / f"kernel-{started['id']}.json"))
    client.load_connection_file()
    client.start_channels()
    try:
        client.kernel_info()
        client.get_shell_msg(timeout=START_BUDGET)
        yield client
    finally:
        client.stop_channels()


@pytest.mark.parametrize(
    ("kernel_name", "number"),
    [("ipykernel7", signal.SIGTERM), ("ipykernel7", signal.SIGKILL), ("ipykernel6", signal.SIGKILL)],
    ids=["ends-ipykernel7", "is killed-ipykernel7", "is killed-ipykernel6"],
)
@rowed("owning Jupyter server ends or is killed, policy cancel")
def test_nothing_of_an_attached_run_outlives_the_server(
    server: Lab, kernel_name: str, tmp_path: Path, state_folder: Path, *, number: signal.Signals, saw: Saw
) -> None:
    with kernel_of(server, kernel_name) as client:
        client.execute("%load_ext cc_executor")
        client.execute(shell_cell(SCATTERED, f"--cwd {tmp_path}"))
        saw(f"{number.name}: {measured(tmp_path, state_folder, lambda: server.process.send_signal(number)):.1f} s")


@pytest.mark.parametrize("kernel_name", ["ipykernel7"])
@rowed("owning Jupyter server is killed, policy continue", "the run ends by itself; another kernel shows all of it, without gap or repeat")
def test_a_background_run_outlives_the_server(server: Lab, kernel_name: str, tmp_path: Path, state_folder: Path) -> None:
    gate = make_gate(tmp_path)
    with kernel_of(server, kernel_name) as client:
        client.execute("%load_ext cc_executor")
        client.execute(shell_cell(LINES, f"--bg --cwd {tmp_path}"))
        pid = wait_for_pid(tmp_path)
        server.process.kill()
        server.process.wait()
    with running_kernel(kernel_name) as another:
        os.kill(pid, 0)
        whole(another, state_folder, gate)


# --- nobody looks -----------------------------------------------------------------------------------------------------


@rowed("supervisor killed, nobody looks, real kernel", "settled when an extension is loaded in any kernel, within 5 s")
def test_loading_the_extension_settles_what_was_lost(own_kernel: Kernel, tmp_path: Path, state_folder: Path, saw: Saw) -> None:
    own_kernel.run(shell_cell(SCATTERED, "--bg"))
    tree_of(tmp_path, state_folder)
    shim = shim_of(state_folder)
    own_kernel.manager.shutdown_kernel(now=True)
    os.kill(shim, signal.SIGKILL)
    with running_kernel(own_kernel.manager.kernel_name) as another:
        assert len(living(state_folder)) >= TREE - 2
        begun = time.monotonic()
        assert another.run("%load_ext cc_executor").status == "ok"
        (folder,) = run_folders(state_folder)
        eventually((folder / records.RECEIPT).exists, within=PROMISE, what="the receipt is sealed")
        saw(f"{time.monotonic() - begun:.1f} s")
        assert living(state_folder) == []
        assert json.loads((folder / records.RECEIPT).read_text())["outcome"]["kind"] == "lost"
        assert (
            another.value("[f.__name__ for f in get_ipython().events.callbacks['post_run_cell'] if 'cc_executor' in f.__module__]") == "[]"
        )
