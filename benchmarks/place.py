"""The scratch world of a benchmark: folders, kernels, worker processes, the rehearsal server. Nothing of the person at the machine gets in."""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(path) for path in (ROOT, ROOT / "tests") if str(path) not in sys.path]

from support import environments  # noqa: E402 - found by the line above
from support.cli import QUIET, find_cli  # noqa: E402 - as above
from support.kernel import Kernel, running_kernel  # noqa: E402 - as above

HERE = Path(__file__).parent
PRODUCER = [sys.executable, "-I", "-S", str(HERE / "producer.py")]
PERSONAL = ("ANTHROPIC_", "CLAUDE", "CC_EXECUTOR_", "JUPYTER", "JPY_", "IPYTHON", "XDG_")


@contextlib.contextmanager
def scratch() -> Generator[Path]:
    """A folder with a home, a Jupyter and a state in it, named by the environment until the end."""
    folder = Path(tempfile.mkdtemp(prefix="cc-bench-"))
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(PERSONAL) and not name.startswith("CC_EXECUTOR_TEST_")]:
        del os.environ[name]
    # As it is installed. Where images keep Python from writing bytecode, each process would compile all of it anew: 150 ms of the first run in a kernel.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    compileall.compile_dir(ROOT / "src", quiet=1)
    for name in ("home", "jupyter", "bin", "work"):
        (folder / name).mkdir()
    with contextlib.suppress(environments.Missing):
        (folder / "bin" / "claude").symlink_to(find_cli())
    os.environ |= QUIET | {
        "HOME": str(folder / "home"),
        "JUPYTER_PATH": str(folder / "jupyter"),
        "CC_EXECUTOR_STATE": str(folder / "state"),
        "PATH": os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), before.get("PATH", os.defpath)]),
        "NO_PROXY": "127.0.0.1,localhost",
    }
    environments.IPYKERNEL7.register(folder / "jupyter")
    try:
        yield folder
    finally:
        os.environ.clear()
        os.environ |= before
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def kernel(folder: Path, first: str = "") -> Iterator[Kernel]:
    """A fresh kernel in `folder` with the extension loaded, in which `first` was run."""
    with contextlib.chdir(folder), running_kernel(environments.IPYKERNEL7.name) as started:
        run(started, f"%load_ext cc_executor\n{first}")
        yield started


def run(kernel: Kernel, code: str, *, within: float = 600) -> None:
    """Run a cell that has to succeed."""
    answer = kernel.run(code, within=within)
    if answer.status != "ok":
        raise SystemExit(f"a cell failed: {answer.ename}: {answer.evalue[:500]}")


def worker(name: str, *arguments: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """What a contestant of `benchmarks.workers` finds in a process of its own, in an empty folder: where there are files, each run looks at all of them."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.workers", name, *arguments],
        cwd=Path(os.environ["HOME"]).parent / "work",
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=1800,
    )
    if done.returncode:
        raise SystemExit(f"the worker {name} failed")
    return json.loads(done.stdout.splitlines()[-1])


def producer(size: int, report: Path, pace: float = 0.0, *, gate: Path | None = None) -> list[str]:
    """The command that writes `size` bytes; `gate`: as soon as somebody opens that fifo for writing."""
    return [*PRODUCER, str(size), str(report), str(pace), *([str(gate)] if gate else [])]


def shell_words(argv: list[str]) -> str:
    """For a script."""
    return subprocess.list2cmdline(argv)


def report(path: Path) -> dict[str, float]:
    """What a producer said."""
    return json.loads(path.read_text(encoding="utf-8"))


def remove_runs(folder: Path) -> None:
    """Give the disk back what the runs so far hold."""
    shutil.rmtree(folder / "state" / "runs", ignore_errors=True)
