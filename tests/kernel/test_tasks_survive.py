"""Lists of real agents in notebooks whose kernels and servers die, and in two notebooks at once. The model counts what it is asked."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import urllib.request
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Final

import psutil
import pytest
from jupyter_client.manager import KernelManager

from cc_executor.model import event
from cc_executor.rehearsal.loopback import API_KEY
from cc_executor.rehearsal.scripts import Block, Script, Turn
from cc_executor.rehearsal.server import ServedRehearsal, serving
from cc_executor.store.home import StateHome
from kernel.cells import make_gate
from support.environments import KERNELS
from support.kernel import START_BUDGET, Kernel, running_kernel
from support.lab import Lab, running_lab
from support.looks import eventually

pytestmark = [pytest.mark.usefixtures("kernelspecs", "claude_cli"), pytest.mark.timeout(300)]

LOAD: Final = "%load_ext cc_executor\nimport os; os.chdir({folder!r})"
LONG: Final = os.environ.get("CC_EXECUTOR_TEST_LONG") == "1"
CHAIN: Final = 50 if LONG else 8  # tasks, each with an agent of its own
# The third agent of a folder waits at the gate in the midst of its work.
WORKS: Final = Script(
    turns=(
        Turn(
            blocks=(
                Block(tool="Bash", input={"command": "echo x >> begun; test $(wc -l < begun) -ne 3 || cat gate", "description": "Work"}),
            )
        ),
        Turn(blocks=(Block(text="This is {session}."),)),
    )
)
SAYS_ITS_SESSION: Final = Script(turns=WORKS.turns[1:])
KERNEL: Final = KERNELS[0].name


def chain(count: int, options: str = "-o done") -> str:
    """A cell with a list in which each task needs the one before."""
    rows = [f"%%cc_tasks {options}", "defaults: {tools: Bash, timeout: 100}", "tasks:", "  - {id: t1, prompt: Begin.}"]
    rows += [f"  - {{id: t{n}, prompt: 'Go on after {{{{ needs.t{n - 1}.text }}}}'}}" for n in range(2, count + 1)]
    return "\n".join(rows)


@contextlib.contextmanager
def asked(script: Script, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[ServedRehearsal]:
    """A model that every kernel talks to which is started within."""
    with serving(script, cwd=str(folder), pace=0) as served:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", served.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", API_KEY)
        yield served


def sessions(model: ServedRehearsal) -> list[str]:
    """Who has asked the model, in order."""
    return [request.session for request in model.requests if request.kind == "main"]


def facts(kernel: Kernel, expression: str) -> list[str]:
    """What an expression gives for every task of the list, as text."""
    return kernel.value(f"' '.join(str({expression}) for name, task in done.tasks.items())").strip("'").split()


# --- two notebooks ----------------------------------------------------------------------------------------------------


@pytest.mark.row("faults", "two notebooks start the same list", "each task runs once; the list again asks the model nothing")
def test_two_notebooks_with_one_list_do_it_once_in_order_and_never_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saw: Callable[[str], None]
) -> None:
    cell = chain(CHAIN)
    with asked(SAYS_ITS_SESSION, tmp_path, monkeypatch) as model, contextlib.ExitStack() as stack:
        kernels = [stack.enter_context(running_kernel(environment.name)) for environment in KERNELS]
        for kernel in kernels:
            assert kernel.run(LOAD.format(folder=str(tmp_path))).status == "ok"
        sent = [kernel.send(cell) for kernel in kernels]
        answers = [kernel.wait(message, within=200) for kernel, message in zip(kernels, sent, strict=True)]
        assert [answer.status for answer in answers] == ["ok"] * len(kernels), [answer.traceback for answer in answers]
        mine, *others = [facts(kernel, "done.result(name).receipt.session_id") for kernel in kernels]
        assert all(other == mine for other in others)
        assert sessions(model) == mine, "one request for each task, in order"
        prompts = kernels[0].value("'|'.join(done.result(name).folder.joinpath('prompt').read_text() for name in done.tasks)").strip("'")
        assert prompts.split("|") == ["Begin.", *(f"Go on after This is {session}." for session in mine[:-1])]
        for kernel in kernels:
            again = kernel.run(cell, within=60)
            assert "nothing was run and nothing was spent" in again.displays[0]["text/plain"]
        assert len(sessions(model)) == CHAIN
    saw(f"{CHAIN} tasks, {CHAIN} requests, 0 for the list again")


# --- who dies in task 3 of 5 ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def served_kernel(folder: Path) -> Iterator[tuple[Lab, Kernel]]:
    """A kernel of a Jupyter server, with a client of our own."""
    folder.mkdir()
    with running_lab(folder, app="jupyter_server") as lab:
        request = urllib.request.Request(
            f"{lab.url}/api/kernels",
            json.dumps({"name": KERNEL}).encode(),
            {"Authorization": f"token {lab.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=START_BUDGET) as answer:
            file = folder / "runtime" / f"kernel-{json.load(answer)['id']}.json"
        manager = KernelManager(kernel_name=KERNEL)
        manager.load_connection_file(str(file))
        client = manager.blocking_client()
        client.start_channels()

        def is_ready() -> bool:
            with contextlib.suppress(RuntimeError):  # it is not this manager's kernel: one that is slow counts as dead
                client.wait_for_ready(timeout=5)
                return True
            return False

        try:
            eventually(is_ready, within=START_BUDGET, what="the kernel is ready")
            yield lab, Kernel(manager, client)
        finally:
            client.stop_channels()
            for entry in lab_kernels(lab):
                lab.api(f"kernels/{entry}", "DELETE")


def lab_kernels(lab: Lab) -> list[str]:
    """The kernels of a server; none when it is gone."""
    with contextlib.suppress(OSError):
        return [str(entry["id"]) for entry in lab.api("kernels")]
    return []


class Fall:
    """A list of five whose third agent is at work, and what falls then."""

    def __init__(self, folder: Path, model: ServedRehearsal, state: Path) -> None:
        self.folder = folder
        self.model = model
        self.home = StateHome(state)
        self.cell = chain(5)

    def begin(self, kernel: Kernel) -> int:
        """Run the cell until its third agent stands at the gate; the kernel's process."""
        assert kernel.run(LOAD.format(folder=str(self.folder))).status == "ok"
        pid = int(kernel.value("os.getpid()"))
        kernel.send(self.cell)
        begun = self.folder / "begun"
        eventually(lambda: begun.exists() and len(begun.read_text().split()) == 3, within=100, what="the third agent is at work")
        return pid

    def end_run(self) -> None:
        """The machine's end, as a run sees it."""
        shim = next(record.shim_pid for record in next(self.home.runs()).control_records()[0] if isinstance(record, event.Started))
        os.kill(shim, signal.SIGKILL)
        wait_gone(shim)

    def go_on(self, kernel: Kernel) -> list[str]:
        """Run the cell again, to its end; the sessions of its tasks."""
        assert kernel.run(LOAD.format(folder=str(self.folder))).status == "ok"
        sent = kernel.send(self.cell)
        (self.folder / "gate").unlink()
        answer = kernel.wait(sent, within=100)
        assert answer.status == "ok", answer.traceback
        return facts(kernel, "done.result(name).receipt.session_id")


def wait_gone(pid: int) -> None:
    def is_gone() -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        return True

    eventually(is_gone, within=60, what=f"process {pid} is gone")


@pytest.fixture
def fall(tmp_path: Path, state_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fall]:
    project = tmp_path / "project"
    project.mkdir()
    make_gate(project)
    with asked(WORKS, project, monkeypatch) as model:
        yield Fall(project, model, state_folder)


def open_gate(folder: Path) -> None:
    (folder / "gate").write_text("open")


@pytest.mark.row(
    "faults", "kernel killed in task 3 of 5", "1 and 2 are not run again, 3 goes on or its session does, 4 and 5 run, a receipt for each"
)
@pytest.mark.parametrize("what", ["kernel", "kernel and run"])
def test_a_kernel_that_is_killed(fall: Fall, what: str, saw: Callable[[str], None]) -> None:
    with running_kernel(KERNEL) as kernel:
        begun = fall.begin(kernel)
        os.kill(begun, signal.SIGKILL)
        before = sessions(fall.model)
        assert len(before) == 5
        if what == "kernel and run":
            fall.end_run()
        else:
            open_gate(fall.folder)
    with running_kernel(KERNEL) as kernel:
        made = fall.go_on(kernel)
        attempts = facts(kernel, "task.begun")
    check(fall, before, made, attempts, is_resumed=what == "kernel and run", saw=saw)


@pytest.mark.row("faults", "Jupyter server killed in task 3 of 5", "as when the kernel is killed")
@pytest.mark.parametrize("what", ["server", "server and kernel"])
def test_a_server_that_is_killed(fall: Fall, what: str, tmp_path: Path, saw: Callable[[str], None]) -> None:
    with served_kernel(tmp_path / "first") as (lab, kernel):
        begun = fall.begin(kernel)
        lab.process.kill()
        if what == "server and kernel":
            os.kill(begun, signal.SIGKILL)
        wait_gone(begun)  # a kernel ends by itself when its server is gone
        before = sessions(fall.model)
        assert len(before) == 5
        open_gate(fall.folder)
    with served_kernel(tmp_path / "second") as (_, kernel):
        made = fall.go_on(kernel)
        attempts = facts(kernel, "task.begun")
    check(fall, before, made, attempts, is_resumed=False, saw=saw)


def check(fall: Fall, before: list[str], made: list[str], attempts: list[str], *, is_resumed: bool, saw: Callable[[str], None]) -> None:
    one, two, three, four, five = made
    assert before == [one, one, two, two, three]
    assert sessions(fall.model)[5:] == [three, four, four, five, five], "1 and 2 are not asked for again, 3 from where it was"
    assert attempts == ["1", "1", "2" if is_resumed else "1", "1", "1"]
    receipts = [folder.receipt() for folder in fall.home.runs()]
    assert all(receipt is not None and receipt.is_intact for receipt in receipts)
    kinds = [receipt.outcome.kind.value for receipt in reversed(receipts) if receipt is not None]
    assert kinds == ["ok", "ok", *(["lost"] if is_resumed else []), "ok", "ok", "ok"]
    (conversation, went_on) = [request.messages for request in fall.model.requests if request.session == three and request.kind == "main"]
    assert went_on > conversation, "the agent remembers what it had done"
    third = list(fall.home.runs())[2].path
    assert (third / "prompt").read_text().startswith("Your work on this task was interrupted." if is_resumed else "Go on after This is")
    saw(f"runs: {' '.join(kinds)}")
