"""What waits at a terminal for the end of a usage limit says how long still: in one line that is written over, and where there is no cursor once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import pytest

from cc_executor.rehearsal.server import serving
from kernel.test_limits import CELL, LIST, limited
from support.terminals import written_by

IPYTHON: Final = ("-m", "IPython", "--no-banner", "--colors=NoColor", "--HistoryManager.enabled=False", "-c")
LOAD: Final = "%load_ext cc_executor"
COMMANDS: Final = ("-m", "cc_executor.cli")
AS_FILE: Final = "on_limit: wait\ntasks:\n  - {id: a, prompt: Work.}\n"


@pytest.mark.usefixtures("claude_cli")
@pytest.mark.parametrize("kind", ["xterm", "dumb"])
@pytest.mark.parametrize(
    "order",
    [
        (*IPYTHON, f"get_ipython().run_cell({LOAD!r}); get_ipython().run_cell({CELL!r})"),
        (*IPYTHON, f"get_ipython().run_cell({LOAD!r}); get_ipython().run_cell({LIST!r})"),
        (*COMMANDS, "run", "--on-limit", "wait", "Work."),
        (*COMMANDS, "tasks", "run", "list.yaml"),
    ],
    ids=["cell", "list in a cell", "run", "tasks run"],
)
def test_a_wait_is_counted_down_where_a_line_can_be_written_over(tmp_path: Path, order: tuple[str, ...], kind: str) -> None:
    (tmp_path / "list.yaml").write_text(AS_FILE)
    with serving(limited(time.time() + 4), cwd=str(tmp_path)) as served:
        login = {"ANTHROPIC_BASE_URL": served.url, "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-nobody", "CLAUDE_CODE_MAX_RETRIES": "0"}
        said = written_by(order, cwd=tmp_path, TERM=kind, **login)
    assert "usage limit" in said
    assert ("\x1b[K" in said) is (kind == "xterm"), said
