"""One kernel for all floods of a module, and the floods themselves."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from support.environments import KERNELS
from support.kernel import Kernel, running_kernel

# Writes lines of 100 bytes, at a pace if one is given, and says how long the longest `write` took.
WRITER: Final = r"""
import json, os, sys, time
size, pace, report, line = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], bytes.fromhex(sys.argv[4])
block = line * max(1, (int(pace / 50) if pace else 65536) // len(line))
written, longest, began = 0, 0.0, time.monotonic()
while written < size:
    before = time.monotonic()
    written += os.write(1, block[: size - written])
    longest = max(longest, time.monotonic() - before)
    if pace:
        time.sleep(max(0.0, began + written / pace - time.monotonic()))
with open(report, "w") as file:
    json.dump({"seconds": time.monotonic() - began, "longest": longest}, file)
"""
PLAIN: Final = b"the quick brown fox jumps over the lazy dog and then it sleeps until the next morning, and so on...\n"


class Writer:
    """A program that floods its standard output."""

    def __init__(self, folder: Path) -> None:
        self.report = folder / "report.json"
        self._program = folder / "writer.py"
        self._program.write_text(WRITER, encoding="utf-8")

    def command(self, size: int, *, pace: float = 0.0, line: bytes = PLAIN) -> str:
        """For a shell: write `size` bytes of `line`, as fast as possible or at `pace` bytes a second."""
        return f"{sys.executable} -I -S {self._program} {size} {pace} {self.report} {line.hex()}"

    @property
    def told(self) -> dict[str, Any]:
        """What it said at its end: `seconds` of all, and of the `longest` write."""
        return json.loads(self.report.read_text(encoding="utf-8"))


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    """Its folder is the test's."""
    return Writer(tmp_path)


@pytest.fixture(scope="module")
def shared_kernel(kernelspecs: Path) -> Iterator[Kernel]:
    """A kernel of the newest line, in which a run was made before: what is loaded for the first one is not what is looked at."""
    with running_kernel(KERNELS[0].name) as kernel:
        ready = kernel.run("%load_ext cc_executor\nimport asyncio, os, pathlib, time")
        assert ready.status == "ok", ready.traceback
        warm = kernel.run("%%cc_execute --agent shell --shell bash\nyes | head -c 20000000")
        assert warm.status == "ok", warm.traceback
        yield kernel


@pytest.fixture
def kernel(shared_kernel: Kernel, tmp_path: Path, state_folder: Path) -> Kernel:
    """That kernel, in the test's own folder and with its state folder."""
    moved = shared_kernel.run(f"os.chdir({str(tmp_path)!r})\nos.environ['CC_EXECUTOR_STATE'] = {str(state_folder)!r}")
    assert moved.status == "ok", moved.traceback
    return shared_kernel
