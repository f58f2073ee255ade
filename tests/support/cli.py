"""The real Claude Code CLI for tests: which one, and a rehearsed run of it that can be watched, signalled and is always ended."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil

from cc_executor.shim.records import RUN_MARK
from support import environments

SOURCE: Final = environments.CHECKOUT / "src"
STREAM: Final = ("-p", "--output-format", "stream-json", "--verbose", "--include-partial-messages")
QUIET: Final = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1", "DISABLE_TELEMETRY": "1"}
START_BUDGET: Final = 40.0  # seconds to the first line of a CLI on a busy machine; 0.5 on an idle one


def find_cli() -> Path:
    """The CLI to test with: `CC_EXECUTOR_TEST_CLI`, else the one on PATH, else the one that claude-agent-sdk bundles.

    A file without the execute bit (some installers drop it, and the SDK runs the file as it is) is copied, never changed where it lies.
    """
    named = os.environ.get("CC_EXECUTOR_TEST_CLI")
    path = Path(named) if named else environments.claude_cli()
    if not path.is_file():
        raise environments.Missing(f"{path} is not there: set CC_EXECUTOR_TEST_CLI to a claude executable, or unset it.")
    return path if os.access(path, os.X_OK) else _executable_copy(path)


def _executable_copy(path: Path) -> Path:
    status = path.stat()
    folder = Path(tempfile.gettempdir()) / f"cc-executor-test-cli-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise environments.Missing(f"{folder} belongs to somebody else: remove it.")
    copy = folder / f"claude-{status.st_size}-{status.st_mtime_ns}"
    if not copy.exists():
        unfinished = copy.with_name(f"{copy.name}.{os.getpid()}")
        shutil.copyfile(path, unfinished)
        unfinished.chmod(0o700)
        unfinished.replace(copy)
    return copy


def bare_environment(home: Path, **more: str) -> dict[str, str]:
    """What a run needs, and nothing of the person at the machine."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "PYTHONPATH": str(SOURCE), **QUIET, **more}


@dataclass(slots=True)
class Ended:
    """A run that is over."""

    code: int
    lines: list[dict[str, Any]]
    stderr: str
    requests: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    @property
    def results(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["type"] == "result"]

    @property
    def result(self) -> dict[str, Any]:
        assert self.results, f"no result line; exit code {self.code}, stderr: {self.stderr}"
        return self.results[-1]

    @property
    def retries(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("subtype") == "api_retry"]

    @property
    def main_requests(self) -> list[dict[str, Any]]:
        return [request for request in self.requests if request["kind"] == "main"]


def assert_interrupted(ended: Ended, reason: str) -> None:
    """The run says that it was interrupted: `reason` is the `terminal_reason` of its result."""
    said = [
        block["text"] for line in ended.lines if line["type"] == "user" for block in line["message"]["content"] if block["type"] == "text"
    ]
    assert said[-1].startswith("[Request interrupted by user")
    # About three of a hundred interrupted runs of 2.1.329 end without their result line when the machine is busy.
    assert [(result["subtype"], result["terminal_reason"]) for result in ended.results] in ([], [("error_during_execution", reason)])


def text_of(line: Mapping[str, Any]) -> str:
    """The text that a line of the stream adds, if it adds one."""
    text = line.get("event", {}).get("delta", {}).get("text", "")
    return text if isinstance(text, str) else ""


class Watched:
    """A process whose standard output is JSON lines, in a session and under a mark of its own; nothing of it is left after the ``with``."""

    def __init__(
        self, argv: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str], prompt: str = "do it", request_log: Path | None = None
    ) -> None:
        self.lines: list[dict[str, Any]] = []
        self._request_log = request_log
        self._incoming: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._stderr: list[bytes] = []
        self.process = subprocess.Popen(
            [str(part) for part in argv],
            cwd=cwd,
            env={**env, RUN_MARK: f"test {cwd}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._readers = [threading.Thread(target=self._read_lines, daemon=True), threading.Thread(target=self._read_stderr, daemon=True)]
        for reader in self._readers:
            reader.start()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already; its exit code says why
            self.process.stdin.write(prompt.encode())
            self.process.stdin.close()

    def _read_lines(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._incoming.put(json.loads(line))
        self._incoming.put(None)

    def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        self._stderr.append(self.process.stderr.read())

    def wait_for(self, wanted: Callable[[dict[str, Any]], object], *, within: float = START_BUDGET) -> dict[str, Any]:
        """The next line for which `wanted` is true."""
        end = time.monotonic() + within
        while True:
            try:
                line = self._incoming.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(f"not within {within} s; the last line was {self.lines[-1:]}") from None
            assert line is not None, f"the output ended before; stderr: {b''.join(self._stderr).decode(errors='replace')}"
            self.lines.append(line)
            if wanted(line):
                return line

    def descendants(self) -> list[psutil.Process]:
        """Every living process below this one."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def end(self, *, within: float = 60.0) -> Ended:
        """Wait for the process to end by itself."""
        code = self.process.wait(within)
        for reader in self._readers:
            reader.join(10)
        while (line := self._incoming.get(timeout=10)) is not None:
            self.lines.append(line)
        requests: list[dict[str, Any]] = []
        if self._request_log is not None and self._request_log.exists():
            requests = [json.loads(line) for line in self._request_log.read_text("utf-8").splitlines()]
        return Ended(code, self.lines, b"".join(self._stderr).decode(errors="replace"), requests)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        below = self.descendants()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for reader in self._readers:
            reader.join(10)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


def rehearsed(
    script: str | Path,
    *,
    folder: Path,
    cli: str | Path | None = None,
    arguments: Sequence[str] = STREAM,
    allow: Sequence[str] = (),
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    prompt: str = "do it",
    before: Sequence[str] = (),
) -> Watched:
    """The wrapper around the real CLI, as a run would start it, in ``folder/project`` with the home ``folder/home``."""
    project, home = folder / "project", folder / "home"
    project.mkdir(exist_ok=True)
    home.mkdir(exist_ok=True)
    scratch = folder / "tmp"
    scratch.mkdir(exist_ok=True)
    log = folder / "requests.jsonl"
    wrapper = [sys.executable, "-P", "-m", "cc_executor.rehearsal", "--script", script, "--request-log", log, *options, "--"]
    allowed = ["--allowedTools", *allow] if allow else []
    return Watched(
        [*before, *wrapper, find_cli() if cli is None else cli, *arguments, *allowed],
        cwd=project,
        env=bare_environment(home, TMPDIR=str(scratch), **(env or {})),
        prompt=prompt,
        request_log=log,
    )
