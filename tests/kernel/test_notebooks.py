"""The notebooks of the project from top to bottom, with what they are there to show."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from kernel.test_headless import KERNELS, cc_executor, execute
from support.environments import CHECKOUT

pytestmark = pytest.mark.usefixtures("claude_cli", "kernelspecs")


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a notebook; gives the values of its cells and everything that they printed, and verifies what it leaves."""
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))  # for `!cc-executor`

    def run(name: str, state: Path) -> tuple[list[str], str]:
        notebook = nbformat.read(CHECKOUT / "notebooks" / f"{name}.ipynb", as_version=4)
        assert [cell.outputs for cell in notebook.cells if cell.cell_type == "code" and cell.outputs] == []
        notebook.metadata.kernelspec.name = KERNELS[0]
        execute(notebook, tmp_path)
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        path = tmp_path / f"{name}.ipynb"
        nbformat.write(notebook, path)
        assert cc_executor("lift", path, state=state).returncode == 0
        verified = cc_executor("verify", path, state=state)
        assert verified.returncode == 0, verified.stdout
        values = [output.data["text/plain"] for output in outputs if output.output_type == "execute_result"]
        return values, "".join(output.text for output in outputs if output.output_type == "stream")

    return run


def test_mixed_steps(ran: Any, state_folder: Path) -> None:
    values, printed = ran("mixed-steps", state_folder)
    assert "7 of 7 tasks ended well" in printed
    text, kinds, is_parallel, failed = map(ast.literal_eval, values)
    assert text == "92 sold, most on wed; the agent wrote 5 lines"
    assert [name for name, (outcome, has_run) in kinds.items() if outcome == "ok" and not has_run] == ["make", "best", "sum"]
    assert len(kinds) == 7
    assert is_parallel
    assert {name: status for name, (status, _) in failed.items()} == {"forecast": "failed", "compare": "skipped", "count": "ok"}
    assert failed["forecast"][1] == "FileNotFoundError"


def test_structured_results(ran: Any, state_folder: Path) -> None:
    values, printed = ran("structured-results", state_folder)
    assert values[0] == "(['inhabitants', 'name', 'rivers'], True, 'ok')"
    assert values[1] == "'Review'"
    assert printed.splitlines() == ["merge 1 False", "True file hello.txt", "True grep -q Hello hello.txt"]
    assert values[2:4] == ["'verified'", "('merge', True)"]
    assert values[-1] == "(False, None)"


def test_validation(ran: Any, state_folder: Path) -> None:
    values, printed = ran("validation", state_folder)
    assert "asks-back" in printed
    assert "slash-command: The prompt begins like a command of Claude Code itself (/hello.txt)" not in printed
    assert values == [
        "('dialogue',)",
        "('claimed', 'verified')",
        "('contradicted', [('file report.md', False)])",
        "{'write': 'failed', 'publish': 'skipped', 'greet': 'ok'}",
        "True",
    ]
    assert printed.count("✓ verified") == 1
    assert printed.count("✗ contradicted") == 1
