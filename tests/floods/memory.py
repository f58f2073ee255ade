"""The memory that a process has had at most. Linux: reads /proc."""

from __future__ import annotations

import re
from pathlib import Path


def begin(pid: int) -> int:
    """Forget how much it ever was; bytes now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")  # proc(5): resets VmHWM
    return peak(pid)


def peak(pid: int) -> int:
    """The most bytes since `begin`, or since its start."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) * 1024
