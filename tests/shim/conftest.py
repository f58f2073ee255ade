from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import cc_executor.shim.records as fmt
from support.shims import PYTHON, SHIM, Run

NUMBERS: Final = itertools.count()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Launch a shim: `start(argv, **spec_fields)`, or `start("python code")`. `prefix` is put before the shim's command, `program` replaces its script."""
    runs: list[Run] = []

    def launch(
        agent: str | tuple[str, ...],
        *,
        folder: Path | None = None,
        prefix: tuple[str, ...] = (),
        program: tuple[str, ...] = (str(SHIM),),
        **fields: object,
    ) -> Run:
        number = next(NUMBERS)
        run_dir = folder if folder is not None else tmp_path / f"run{number}"
        run_dir.mkdir(mode=0o700, exist_ok=True)
        spec: dict[str, Any] = {
            "version": fmt.FORMAT_VERSION,
            "run_dir": str(run_dir),
            "run_id": f"run-{os.getpid()}-{number}",
            "argv": [*PYTHON, agent] if isinstance(agent, str) else list(agent),
            "env": {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "FOLDER": str(tmp_path)},
            "cwd": str(tmp_path),
            "stdin": "none",
            "wall": None,
            "stall": None,
            "lease_pid": os.getpid(),
            "on_lease_end": "cancel",
            "secrets": [],
            "keep_background": False,
        } | fields
        run = Run(run_dir, spec, prefix, program)
        runs.append(run)
        return run

    yield launch
    for run in runs:
        run.clean()
