"""A program at a terminal of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pexpect

from support.environments import CHECKOUT


def written_by(arguments: Sequence[str], *, cwd: Path, **environment: str) -> str:
    """What Python with these arguments writes to a terminal until it has ended, and ended well."""
    terminal = pexpect.spawn(
        sys.executable, list(arguments), cwd=str(cwd), env=os.environ | {"PYTHONPATH": str(CHECKOUT / "src")} | environment,
        timeout=100, encoding="utf-8", dimensions=(50, 200),
    )  # fmt: skip
    try:
        terminal.expect(pexpect.EOF)
        said = terminal.before or ""
    finally:
        terminal.close()
    assert terminal.exitstatus == 0, said
    return said
