"""Real shims with real agents: starting them, asking them, and waiting for what they do, always with a bound. Linux only: reads /proc."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import cc_executor.shim.records as fmt
from support.looks import pause_since

SHIM: Final = Path(fmt.__file__).with_name("__main__.py")
PYTHON: Final = (sys.executable, "-I", "-S", "-c")
BOUND: Final = 40.0  # seconds; generous, because the machine may be busy
T = TypeVar("T")


def changed(*lines: str) -> tuple[str, str]:
    """The `program` of a shim in which these lines were run first; they may import what they change from `cc_executor.shim`."""
    return "-c", "\n".join(
        ("import sys", f"sys.path.append({str(SHIM.parents[2])!r})", *lines, "from cc_executor.shim.start import main", "main()")
    )


# Whoever is told to end, and what an agent leaves, has so long that no busy machine takes longer: for tests of something else than how long that is.
LONG_GRACES: Final = (
    "from cc_executor.shim import ladder",
    "for rung in (*ladder.STOP[1:], *ladder.SWEEP): rung.grace = 60.0",
)
UNHURRIED: Final = changed(*LONG_GRACES)


def until(what: Callable[[], T], seconds: float = BOUND) -> T:
    """The first true value of `what`; fails after `seconds`."""
    begun = time.monotonic()
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < begun + seconds, f"still {value!r} after {seconds} s"
        time.sleep(pause_since(begun, 0.005))


def watch(seconds: float) -> None:
    """Let `seconds` pass, as the length of a measurement (never to wait for something)."""
    time.sleep(seconds)


def cpu(pid: int) -> float:
    """The seconds of processor time that a process and its threads have used."""
    return sum(map(int, Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float:
    """The most MB that a process has had in memory."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return int(status["VmHWM"].split()[0]) / 1024


class Client:
    """One connection to a shim."""

    def __init__(self, folder: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        fd = os.open(folder, os.O_RDONLY)
        try:
            self.sock.connect(f"/proc/self/fd/{fd}/{fmt.SOCKET}")
        finally:
            os.close(fd)
        self.sock.settimeout(BOUND)  # only now: a socket with a time limit does not wait for room in the backlog
        self._lines = self.sock.makefile("rb")

    def send(self, **request: object) -> None:
        self.sock.sendall(json.dumps(request).encode() + b"\n")

    def receive(self) -> dict[str, Any] | None:
        """The next answer; None at the end."""
        try:
            line = self._lines.readline()
        except ConnectionResetError:
            return None
        return json.loads(line) if line else None

    def ask(self, **request: object) -> dict[str, Any]:
        self.send(**request)
        reply = self.receive()
        assert reply is not None
        return reply

    def close(self) -> None:
        self._lines.close()
        self.sock.close()


class Run:
    """One launched shim."""

    def __init__(self, folder: Path, spec: dict[str, Any], prefix: tuple[str, ...] = (), program: tuple[str, ...] = (str(SHIM),)) -> None:
        self.folder = folder
        self.run_id: str = spec["run_id"]
        self.process = subprocess.Popen(
            (*prefix, sys.executable, "-I", "-S", *program), stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        # The pipe stays open until there is an answer, as it does when another process of the launcher holds it, too.
        with self.process.stdin as stdin, self.process.stdout as stdout:
            stdin.write(json.dumps(spec).encode() + b"\n")
            stdin.flush()
            self.answer: dict[str, Any] = json.loads(stdout.readline())
        self.agent: int = self.answer.get("agent_pid", 0)

    def ask(self, **request: object) -> dict[str, Any]:
        client = Client(self.folder)
        try:
            return client.ask(**request)
        finally:
            client.close()

    def try_ask(self, **request: object) -> dict[str, Any] | None:
        """The answer, or None when nobody answers any more."""
        try:
            client = Client(self.folder)
        except OSError:
            return None
        try:
            client.send(**request)
            return client.receive()
        except OSError:
            return None
        finally:
            client.close()

    def read(self, name: str = fmt.STDOUT) -> bytes:
        return (self.folder / name).read_bytes()

    def records(self) -> list[dict[str, Any]]:
        data = self.read(fmt.CONTROL)
        return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]

    def kinds(self) -> list[str]:
        """What was recorded, in its order, but that the shim stood still, as it does with the whole of a busy machine at any time."""
        return [kind for record in self.records() if (kind := record["kind"]) != "frozen"]

    def record(self, kind: str) -> dict[str, Any]:
        return next(record for record in self.records() if record["kind"] == kind)

    def wait(self, seconds: float = BOUND) -> dict[str, Any]:
        """Wait for the shim to end; returns exit.json."""
        self.process.wait(seconds)
        return json.loads(self.read(fmt.EXIT))

    def marked(self) -> list[int]:
        """Living processes that carry the run's mark."""
        return marked(self.run_id)

    def clean(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        for pid in self.marked():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def environment(pid: int) -> bytes:
    """The environment of a process, as it was executed. One in the midst of its execve(2) shows none for a moment: it is waited for."""
    folder, begun = Path(f"/proc/{pid}"), time.monotonic()
    while not (found := (folder / "environ").read_bytes()):
        if (folder / "cmdline").read_bytes():  # it was executed without one; or has got there between the two looks
            return (folder / "environ").read_bytes()
        if (folder / "statm").read_bytes().startswith(b"0 "):  # a zombie or a thread of the kernel, which have no memory
            break
        assert time.monotonic() < begun + BOUND, f"{pid} does not come out of its execve"
        time.sleep(pause_since(begun, 0.001))
    return found


def marked(run_id: str) -> list[int]:
    needle = f"{fmt.RUN_MARK}={run_id}".encode()
    found: list[int] = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if needle in environment(int(name)).split(b"\0") and alive(int(name)):
                    found.append(int(name))
    return found


def state(pid: int) -> str:
    """The state letter of a process; empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0].decode()
    except OSError:
        return ""


def alive(pid: int) -> bool:
    return state(pid) not in {"", "Z", "X"}


def ended(pid: int) -> bool:
    """Whether a process can do nothing more. Without memory (statm) it is a zombie, or will be one at once: on a busy machine that takes some ms."""
    try:
        return not alive(pid) or Path(f"/proc/{pid}/statm").read_bytes().startswith(b"0 ")
    except OSError:
        return True
