"""The kernel tests over every ipykernel and Python that is promised, and over the oldest packages; `make matrix` runs this and gets one table.

Each environment is made by `.ci/venv` below `.venvs/matrix-…` and kept. What pytest wrote stands beside it, in `.venvs/matrix-….log`.
Knows how to make environments and to count; the tests themselves find their kernels by `CC_EXECUTOR_TEST_KERNELS`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.environments import CHECKOUT, claude_cli

VENVS: Final = CHECKOUT / ".venvs"
LOCK: Final = CHECKOUT / "requirements.lock"
LOOSE_LOCK: Final = VENVS / "matrix.lock"  # without the pin of ipykernel

KERNEL_TESTS: Final = ("test_cells.py", "test_magic_corners.py", "test_headless.py", "test_company.py")
PURE_TESTS: Final = ("model", "agents", "policy", "store", "cli/test_cli.py", "cli/test_streams.py")
FIGURES: Final = "figures.py"  # needs matplotlib, which is 40 MB with what it needs: where messages are handled in another way
FOR_PURE_TESTS: Final = (
    "pytest>=8.4", "pytest-timeout>=2.3", "hypothesis>=6.100", "psutil>=6", "nbformat>=5.10", "jsonschema>=4.20", "redis>=5.0.8", "cryptography>=42",
)  # fmt: skip
BUDGET: Final = 1500.0  # seconds for one environment's tests; 150 on an idle machine


@dataclass(frozen=True, slots=True)
class Environment:
    """A Python and an ipykernel."""

    python: str
    ipykernel: str = ""  # the newest that the lock allows, if not given
    figures: bool = False  # the tests with matplotlib too
    pure: bool = False  # the tests without kernels too
    oldest: bool = False  # with the oldest of each package that pyproject.toml allows

    @property
    def name(self) -> str:
        """A word for kernelspec, folder and table."""
        return f"py{self.python}-ipykernel{self.ipykernel or '-newest'}{'-oldest' if self.oldest else ''}"

    @property
    def folder(self) -> Path:
        """The virtual environment."""
        return VENVS / f"matrix-{self.name}"

    @property
    def executable(self) -> Path:
        """Its Python."""
        return self.folder / "bin" / "python"


ENVIRONMENTS: Final = (
    *(
        Environment("3.11", version, figures=version in {"6.31", "7.3", "7.4"})
        for version in ("6.29", "6.31", "7.0", "7.1", "7.2", "7.3", "7.4")
    ),
    Environment("3.11", "6.29.5", pure=True, oldest=True),
    Environment("3.12", pure=True),
    Environment("3.13", pure=True),
    Environment("3.14", pure=True),
    Environment("3.15", pure=True),
)


class Unmade(Exception):
    """An environment could not be made here. The message says why."""


@dataclass(frozen=True, slots=True)
class Count:
    """What became of some tests."""

    passed: int
    failed: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        return f"**{len(self.failed)} FAILED**, {self.passed} passed" if self.failed else f"{self.passed} passed"


def find_python(version: str) -> Path:
    """A Python of this version: on PATH, else one of pyenv's."""
    named = shutil.which(f"python{version}")
    kept = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"), key=_numbers, reverse=True)
    for candidate in (*([named] if named else []), *kept):
        found = subprocess.run([candidate, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True, check=False)
        if found.returncode == 0:  # pyenv's stand-in is on PATH for versions that are not switched on
            return Path(found.stdout.strip())
    raise Unmade(f"there is no python{version} here")


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.parts[-3])]


def make(environment: Environment) -> None:
    """Make the environment, or leave one that is newer than all that says what is in it."""
    ready = environment.folder / ".ready"
    if ready.exists() and ready.stat().st_mtime > max(path.stat().st_mtime for path in (LOCK, CHECKOUT / "pyproject.toml", Path(__file__))):
        return
    python = find_python(environment.python)
    VENVS.mkdir(exist_ok=True)
    LOOSE_LOCK.write_text("".join(line for line in LOCK.read_text().splitlines(keepends=True) if not line.startswith("ipykernel==")))
    # An option of uv, which pip lacks: without uv there is no such environment.
    oldest = ["--resolution", "lowest-direct"] if environment.oldest else []
    what = [*oldest, "-e", ".", f"ipykernel=={environment.ipykernel}.*" if environment.ipykernel else "ipykernel"]
    made = subprocess.run(
        [
            ".ci/venv",
            str(environment.folder),
            *what,
            *(FOR_PURE_TESTS if environment.pure else ()),
            *(["matplotlib"] if environment.figures else []),
        ],
        cwd=CHECKOUT,
        env=os.environ
        | {"PYTHON": str(python), "CONSTRAINTS": "" if environment.oldest else str(LOOSE_LOCK if environment.ipykernel else LOCK)},
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise Unmade(f"it could not be made: {made.stderr.strip().splitlines()[-1]}")
    ready.touch()


def versions(environment: Environment) -> str:
    """What is really in it."""
    code = "import platform, ipykernel, IPython; print(f'Python {platform.python_version()}, ipykernel {ipykernel.__version__}, IPython {IPython.__version__}')"
    told = subprocess.run([environment.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    return f"{told}, the oldest packages" if environment.oldest else told


def count(python: Path, tests: list[str], *, name: str, extra: dict[str, str]) -> Count:
    """Run some tests with this Python and count."""
    report, log = VENVS / f"matrix-{name}.xml", VENVS / f"matrix-{name}.log"
    report.unlink(missing_ok=True)
    begun = time.monotonic()
    with log.open("wb") as output:
        try:
            subprocess.run(
                [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *tests],
                cwd=CHECKOUT,
                env=os.environ | extra,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=BUDGET,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Count(0, (f"not done within {BUDGET:.0f} s",), BUDGET)
    seconds = time.monotonic() - begun
    if not report.exists():
        return Count(0, (f"pytest could not run: see {log.relative_to(CHECKOUT)}",), seconds)
    cases = list(ET.parse(report).getroot().iter("testcase"))  # noqa: S314 - written by our own pytest a moment ago
    # A test that was skipped has shown nothing.
    failed = {case.get("name", ""): None for case in cases if any(case.find(kind) is not None for kind in ("failure", "error", "skipped"))}
    return Count(len({(case.get("classname"), case.get("name")) for case in cases}) - len(failed), tuple(failed), seconds)


def folder_with_claude() -> Path:
    """A folder for PATH with the CLI that this Python's tests use: a bundled one is in none of these environments."""
    folder = VENVS / "matrix-bin"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "claude"
    link.unlink(missing_ok=True)
    link.symlink_to(claude_cli())
    return folder


def rows(environment: Environment) -> Iterator[tuple[str, Count]]:
    """What was run, and what became of it."""
    kernel_tests = [f"tests/kernel/{name}" for name in (*KERNEL_TESTS, *([FIGURES] if environment.figures else []))]
    kernel = {"CC_EXECUTOR_TEST_KERNELS": f"{environment.name}={environment.executable}"}
    yield (
        "kernel, with matplotlib" if environment.figures else "kernel",
        count(Path(sys.executable), kernel_tests, name=environment.name, extra=kernel),
    )
    if environment.pure:
        path = {"PATH": os.pathsep.join([str(folder_with_claude()), os.environ.get("PATH", os.defpath)])}
        pure_tests = [f"tests/{name}" for name in PURE_TESTS]
        yield "without kernel", count(environment.executable, pure_tests, name=f"{environment.name}-pure", extra=path)


def say(line: str) -> None:
    """A line for the person who waits."""
    print(line, flush=True)  # noqa: T201 - this is a command


def main(wanted: list[str]) -> int:
    """Run all, or those whose name holds one of the words; 0 if nothing failed and something ran."""
    table, failed = ["| environment | tests | result | seconds |", "|---|---|---|---|"], []
    chosen = [environment for environment in ENVIRONMENTS if not wanted or any(word in environment.name for word in wanted)]
    for environment in chosen:
        try:
            make(environment)
        except Unmade as error:
            table.append(f"| {environment.name} | | **not run**: {error} | |")
            say(table[-1])
            continue
        for what, result in rows(environment):
            table.append(f"| {versions(environment)} | {what} | {result} | {result.seconds:.0f} |")
            say(table[-1])
            failed += [f"{environment.name}: {name}" for name in result.failed]
    say("\n".join(["", *table, *(["", "Failed:"] if failed else []), *failed]))
    return 0 if not failed and any("passed" in line for line in table) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
