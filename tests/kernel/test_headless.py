"""Notebooks that nobody looks at: nbclient and papermill run them, `cc-executor` lifts and verifies what they leave."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from cc_executor.model.receipt import RECEIPT_MIME, Receipt
from kernel.cells import WIDGET_MIME, shell_cell
from support import environments
from support.lab import notebook_of

pytestmark = pytest.mark.usefixtures("claude_cli", "kernelspecs")

KERNELS: Final = [environment.name for environment in environments.KERNELS]
BUDGET: Final = 90.0
NEWEST_LINE: Final = pytest.mark.parametrize("done", KERNELS[:1], indirect=True)  # these read files, which ipykernel has no part in

RUN_ALL: Final = (
    "%load_ext cc_executor",
    "%%cc_execute -o hello --rehearse hello\nSay hello.",
    "%%cc_execute -o tour --rehearse tour --tools Bash --expect haiku.md\nWrite a haiku.",
    shell_cell("cat gate", "--bg -o background"),
    shell_cell("seq 3; echo through > gate", "-o words"),
    "(await background).text",
    "[result.status for result in (hello, tour, words, background.result)]",
)
RUNS: Final = (1, 2, 3, 4)


@dataclass(frozen=True)
class Done:
    """A notebook that was run, and the state folder with its runs."""

    notebook: nbformat.NotebookNode
    state: Path

    def write(self, folder: Path) -> Path:
        path = folder / "done.ipynb"
        nbformat.write(self.notebook, path)
        return path


@pytest.fixture(scope="module", params=KERNELS)
def done(request: pytest.FixtureRequest, kernelspecs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    folder, state = tmp_path_factory.mktemp("run-all"), tmp_path_factory.mktemp("state") / "s"
    os.mkfifo(folder / "gate")
    patch = pytest.MonkeyPatch()
    patch.setenv("CC_EXECUTOR_STATE", str(state))
    notebook = notebook_of(*RUN_ALL, kernel=request.param)
    execute(notebook, folder)
    yield Done(notebook, state)
    patch.undo()


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    NotebookClient(notebook, timeout=int(BUDGET), resources={"metadata": {"path": str(folder)}}).execute()


def cc_executor(*words: str | Path, state: Path) -> subprocess.CompletedProcess[str]:
    return run_program("cc_executor.cli", *words, environ={"CC_EXECUTOR_STATE": str(state)})


def run_program(
    module: str, *words: str | Path, cwd: Path | None = None, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", module, *map(str, words)]
    return subprocess.run(
        argv,
        cwd=cwd,
        env=os.environ | (environ or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BUDGET,
        check=False,
    )


def receipts(notebook: nbformat.NotebookNode) -> list[dict[str, Any]]:
    return [notebook.cells[cell].outputs[0].data[RECEIPT_MIME] for cell in RUNS]


def test_an_unchanged_cell_that_is_run_again_changes_one_line_of_the_notebook_at_most(tmp_path: Path) -> None:
    cell = shell_cell("echo one; echo two; echo three", "--once")
    notebook = notebook_of("%load_ext cc_executor", cell, cell, cell, kernel=KERNELS[0])
    execute(notebook, tmp_path)
    lines: list[list[str]] = []
    for ran in notebook.cells[1:]:
        alike = nbformat.v4.new_notebook(cells=[nbformat.from_dict({**ran, "id": "a", "execution_count": 1, "metadata": {}})])
        lines.append(nbformat.writes(alike).splitlines())
    first, again, third = lines
    assert len(first) == len(again)
    assert sum(old != new for old, new in zip(first, again, strict=True)) == 1
    assert again == third
    assert "nothing was spent" in "".join(again)


@pytest.mark.row("kernels", "nbclient, Run All", "cells run in order, one static output each")
def test_run_all_goes_in_order(done: Done) -> None:
    code = done.notebook.cells
    assert [cell.execution_count for cell in code] == list(range(1, len(RUN_ALL) + 1))
    assert code[5].outputs[0].data["text/plain"] == "'through\\n'"
    assert code[6].outputs[0].data["text/plain"] == "['ok', 'ok', 'ok', 'ok']"
    hello, tour, background, words = (Receipt.model_validate(receipt).times for receipt in receipts(done.notebook))
    assert hello.ended <= tour.started
    assert tour.ended <= background.started <= words.started
    assert words.started <= background.ended


def test_every_run_leaves_one_static_output_with_its_receipt(done: Done) -> None:
    for cell in RUNS:
        (output,) = done.notebook.cells[cell].outputs
        assert output.output_type == "display_data"
        assert sorted(output.data) == [RECEIPT_MIME, "text/html", "text/plain"]
        receipt = Receipt.model_validate(output.data[RECEIPT_MIME])
        assert receipt.is_intact
        assert output.metadata["cc_executor"] == {"run_id": receipt.run_id, "digest": receipt.digest, "status": "ok"}
    assert WIDGET_MIME not in json.dumps([cell.outputs for cell in done.notebook.cells])


@NEWEST_LINE
def test_lift_and_verify_pass(done: Done, tmp_path: Path) -> None:
    path = done.write(tmp_path)
    lifted = cc_executor("lift", path, state=done.state)
    assert (lifted.returncode, lifted.stderr) == (0, "")
    metadata = nbformat.read(path, as_version=4).metadata
    assert [record["digest"] for record in metadata["cc_executor"]["receipts"].values()] == [
        receipt["digest"] for receipt in receipts(done.notebook)
    ]
    verified = cc_executor("verify", path, "--json", state=done.state)
    assert (verified.returncode, verified.stderr) == (0, ""), verified.stdout
    assert {found["verdict"] for found in json.loads(verified.stdout)} == {"verified"}


@NEWEST_LINE
@pytest.mark.parametrize("cell", [1, 4])
def test_one_changed_byte_of_a_receipt_in_the_notebook_is_found(done: Done, tmp_path: Path, cell: int) -> None:
    changed = Done(copy.deepcopy(done.notebook), done.state)
    receipt = changed.notebook.cells[cell].outputs[0].data[RECEIPT_MIME]
    receipt["text"] = "?" + receipt["text"][1:]
    verified = cc_executor("verify", changed.write(tmp_path), "--json", state=done.state)
    assert verified.returncode == 1, verified.stdout
    assert [found["run_id"] for found in json.loads(verified.stdout) if found["verdict"] == "contradicted"] == [receipt["run_id"]]


@NEWEST_LINE
@pytest.mark.parametrize("cell", [1, 4])
def test_one_changed_byte_of_the_journal_is_found(done: Done, tmp_path: Path, cell: int) -> None:
    state = shutil.copytree(done.state, tmp_path / "s")
    run_id = done.notebook.cells[cell].outputs[0].metadata["cc_executor"]["run_id"]
    stdout = state / "runs" / run_id / "stdout"
    data = bytearray(stdout.read_bytes())
    data[len(data) // 2] ^= 1
    stdout.write_bytes(data)
    verified = cc_executor("verify", done.write(tmp_path), "--json", state=state)
    assert verified.returncode == 1, verified.stdout
    assert [found["run_id"] for found in json.loads(verified.stdout) if found["verdict"] == "contradicted"] == [run_id]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_run_that_is_not_ok_stops_the_notebook_unless_it_was_told_not_to(kernel: str, tmp_path: Path) -> None:
    cells = ("%load_ext cc_executor", shell_cell("exit 3", "--no-raise-error -o r"), "r.status", shell_cell("exit 4"), "print('never')")
    notebook = notebook_of(*cells, kernel=kernel)
    with pytest.raises(CellExecutionError) as raised:
        execute(notebook, tmp_path)
    assert raised.value.ename == "CCExecutionError"
    assert raised.value.evalue.startswith("failed: The command ended with exit code 4.")
    assert notebook.cells[2].outputs[0].data["text/plain"] == "'failed'"
    static, error = notebook.cells[3].outputs
    assert static.data[RECEIPT_MIME]["outcome"]["kind"] == "failed"
    assert error.traceback[0] == "CCExecutionError: failed: The command ended with exit code 4."
    assert notebook.cells[4].execution_count is None


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_state_of_widgets_that_nobody_looked_at_is_small(kernel: str, tmp_path: Path) -> None:
    notebook = notebook_of("%load_ext cc_executor", *(shell_cell(f"seq {number}00") for number in range(1, 11)), kernel=kernel)
    execute(notebook, tmp_path)
    states = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    assert len(states) >= 10
    assert max(len(json.dumps(state)) for state in states.values()) < 4_000
    assert len(nbformat.writes(notebook)) < 200_000


# What the programs themselves say: ipykernel about TCP, tqdm about how far it is.
ORDINARY: Final = re.compile(r"|\[IPKernelApp\] WARNING \| Kernel is running over TCP .*|(In|Out)put Notebook:.*|Executing.*")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.row("kernels", "papermill", "nothing on its standard error but its own words")
def test_papermill_says_nothing_but_its_own_words(kernel: str, tmp_path: Path) -> None:
    cells = ("%load_ext cc_executor", "%%cc_execute --rehearse hello -o r\nSay hello.", shell_cell("echo two"), "r.status")
    nbformat.write(notebook_of(*cells, kernel=kernel), tmp_path / "in.ipynb")
    ended = run_program("papermill", "in.ipynb", "out.ipynb", cwd=tmp_path, environ={"PYTHONWARNINGS": "default"})
    assert ended.returncode == 0, ended.stderr
    said = [line for line in re.split("[\r\n]", ended.stdout + ended.stderr) if not ORDINARY.fullmatch(line.strip())]
    assert [line for line in said if "cc_executor" in line or "anywidget" in line] == []
    assert "ImportWarning" not in ended.stderr
    made = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert made.cells[-1].outputs[0].data["text/plain"] == "'ok'"
    assert [sorted(made.cells[cell].outputs[0].data) for cell in (1, 2)] == [[RECEIPT_MIME, "text/html", "text/plain"]] * 2


def test_papermill_ends_with_the_outcome(tmp_path: Path) -> None:
    cells = ("%load_ext cc_executor", shell_cell("exit 5"), "print('never')")
    nbformat.write(notebook_of(*cells, kernel=KERNELS[0]), tmp_path / "in.ipynb")
    ended = run_program("papermill", "in.ipynb", "out.ipynb", cwd=tmp_path)
    assert ended.returncode == 1
    assert "CCExecutionError: failed: The command ended with exit code 5." in ended.stderr
