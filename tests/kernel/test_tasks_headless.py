"""Task lists in notebooks that nobody looks at: nbclient runs them, `cc-executor` lifts and verifies every receipt that they leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import nbformat
import pytest

from kernel.cells import WIDGET_MIME
from kernel.test_headless import cc_executor, execute
from support import environments
from support.lab import notebook_of

pytestmark = pytest.mark.usefixtures("claude_cli", "kernelspecs")

KERNELS: Final = [environment.name for environment in environments.KERNELS]
LIST: Final = """%%cc_tasks --on-failure continue --no-raise-error
tasks:
  - {id: greet, prompt: Greet the reader., rehearse: hello}
  - {id: fail, run: exit 3, retry: 1}
  - {id: count, run: wc -l < $CC_NEEDS/greet.txt, needs: greet}
"""


def test_the_receipts_of_a_list_are_lifted_and_verified_each(tmp_path: Path, state_folder: Path) -> None:
    notebook = notebook_of("%load_ext cc_executor", LIST, kernel=KERNELS[0])
    execute(notebook, tmp_path)
    (output,) = [output for output in notebook.cells[1].outputs if output.output_type == "display_data"]
    assert sorted(output.data) == ["text/html", "text/plain"]
    named = output.metadata["cc_executor"]["receipts"]
    assert [receipt["status"] for receipt in named] == ["ok", "failed", "failed", "ok"]
    assert WIDGET_MIME not in json.dumps(notebook.cells)
    path = tmp_path / "done.ipynb"
    nbformat.write(notebook, path)
    lifted = cc_executor("lift", path, state=state_folder)
    assert (lifted.returncode, lifted.stderr) == (0, "")
    kept = nbformat.read(path, as_version=4).metadata["cc_executor"]["receipts"]
    assert [record["digest"] for record in kept.values()] == [receipt["digest"] for receipt in named]
    verified = cc_executor("verify", path, "--json", state=state_folder)
    found = json.loads(verified.stdout)
    assert verified.returncode == 0, verified.stdout
    assert [(each["run_id"], each["verdict"], each["where"]) for each in found] == [
        (receipt["run_id"], "verified", "cell 2") for receipt in named
    ]
    stdout = state_folder / "runs" / named[3]["run_id"] / "stdout"
    stdout.write_bytes(b"9" + stdout.read_bytes()[1:])
    again = cc_executor("verify", path, "--json", state=state_folder)
    assert again.returncode == 1
    assert [each["verdict"] for each in json.loads(again.stdout)] == ["verified"] * 3 + ["contradicted"]


def test_the_notebook_of_the_task_list_runs_from_top_to_bottom(tmp_path: Path, state_folder: Path) -> None:
    source = Path(__file__).resolve().parents[2] / "notebooks" / "task-list.ipynb"
    notebook = nbformat.read(source, as_version=4)
    assert [cell.outputs for cell in notebook.cells if cell.cell_type == "code" and cell.outputs] == []
    notebook.metadata.kernelspec.name = KERNELS[0]
    execute(notebook, tmp_path)
    values = [
        output.data["text/plain"] for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "execute_result"
    ]
    assert values == ["'verified'", "True", "{'fetch': ('ok', 2), 'count': ('ok', 1), 'greet': ('ok', 1)}", "'remembers'"]
    path = tmp_path / "task-list.ipynb"
    nbformat.write(notebook, path)
    assert cc_executor("lift", path, state=state_folder).returncode == 0
    assert cc_executor("verify", path, state=state_folder).returncode == 0
