"""What the server extension costs beside plain tornado handlers in the same server, and what a crowd that watches one run does to it.

python -m benchmarks.server            some two minutes
python -m benchmarks.server --quick    under a minute
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import machine
from benchmarks.place import ROOT, scratch, shell_words
from benchmarks.stamper import LINE
from benchmarks.table import QUICK, USUAL, Bench, Row, interleaved, markdown, percentile, ratios, spread

API = "/cc-executor/api/v1"
HERE = Path(__file__).parent
SPREAD_OVER = 64 * 2**20  # bytes that all clients of one measurement are sent together (`--quick`: a quarter)
LEAST = 2**20  # bytes for one client: with less, all fit into the buffers of the sockets
CROWDS = (1, 10, 100)
WATCHING, SILENT = 100, 10
PACE = 10**6  # bytes a second: forty times what a talkative agent writes
MEMORY_GOAL = 32.0  # MiB
LAG_GOAL = 100.0  # milliseconds


class Served:
    """A `jupyter server` with the extension and the plain handlers."""

    def __init__(self, folder: Path) -> None:
        from support.served import TOKEN, serving

        folder.mkdir()
        shutil.copy(HERE / "plain.py", folder)
        extensions = (f"--ServerApp.jpserver_extensions={name}=True" for name in ("plain", "cc_executor"))
        self._open = serving(folder, *extensions)
        self._token = TOKEN

    def __enter__(self) -> Served:
        self.server = self._open.__enter__()
        self.host, self.port = str(self.server.client.base_url.host), int(self.server.client.base_url.port or 0)
        return self

    def __exit__(self, *what: object) -> None:
        self._open.__exit__(None, None, None)

    def connection(self) -> http.client.HTTPConnection:
        """A connection that is kept."""
        return http.client.HTTPConnection(self.host, self.port, timeout=60)

    def ask(self, connection: http.client.HTTPConnection, path: str, body: object = None) -> bytes:
        """One request; what is answered."""
        headers = {"Authorization": f"token {self._token}"}
        connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        data = answer.read()
        if answer.status not in {200, 202}:
            raise SystemExit(f"{path}: {answer.status} {data[:300]!r}")
        return data

    def start(self, script: str) -> str:
        """A run of a shell script; its id."""
        body = {"prompt": script, "agent": "shell", "shell": "bash"}
        return json.loads(self.ask(self.connection(), f"{API}/execute", body))["id"]

    def ended(self, run: str, within: float = 120) -> None:
        """Wait for its receipt."""
        end, connection = time.monotonic() + within, self.connection()
        while not json.loads(self.ask(connection, f"{API}/executions/{run}/results"))["done"]:
            if time.monotonic() > end:
                raise SystemExit(f"the run {run} did not end in {within} s")
            time.sleep(0.05)  # the receipt is asked for over HTTP, which tells of no end

    def journal(self, run: str) -> Path:
        """What it has written."""
        return self.server.home.runs_path / run / "stdout"

    @contextlib.contextmanager
    def watched(
        self, run: str, *, sockets: int = 0, streams: int = 0, silent: int = 0, plain: str = ""
    ) -> Iterator[Callable[[], dict[str, Any]]]:
        """Clients of a run, all connected; what is given tells what they have found when they are done. The silent ones stay until the end of the block."""
        asked = {
            "host": self.host, "port": self.port, "token": self._token, "run": run,
            "sockets": sockets, "streams": streams, "silent": silent, "plain": plain,
        }  # fmt: skip
        argv = [sys.executable, "-m", "benchmarks.watchers", json.dumps(asked)]
        with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            lines = process.stdout
            if lines.readline() != "ready\n":
                raise SystemExit("the watchers could not connect")
            yield lambda: json.loads(lines.readline())
            process.stdin.close()


def answers(bench: Bench) -> list[Row]:
    """How long a request takes, beside a constant from the same server."""
    count = 200 if bench.scale.name == "quick" else 500
    with Served(bench.folder / "answers") as served:
        for _ in range(20):
            run = served.start("echo hello")
            served.ended(run)
        paths = {
            "a plain tornado handler": "/plain",
            "`GET /health`": f"{API}/health",
            "`GET /executions`, 20 runs": f"{API}/executions",
            "`GET status`": f"{API}/executions/{run}/status",
        }
        connection = served.connection()

        def timed(path: str) -> list[float]:
            found: list[float] = []
            for _ in range(count):
                began = time.perf_counter()
                served.ask(connection, path)
                found.append((time.perf_counter() - began) * 1e3)
            return found

        for path in paths.values():
            served.ask(connection, path)
        found = interleaved({name: lambda path=path: timed(path) for name, path in paths.items()}, bench.scale.rounds)
    middle = {name: [statistics.median(each) for each in rounds] for name, rounds in found.items()}
    late = {name: [percentile(each, 0.99) for each in rounds] for name, rounds in found.items()}
    first = next(iter(paths))
    return [
        Row(
            f"{name} (ms): p50, p99",
            f"{spread(middle[name])}, {spread(late[name])}"
            + ("" if name == first else f"; p50 {spread(ratios(middle[name], middle[first]), '.1f')} × the plain one"),
            samples={"p50": middle[name], "p99": late[name]},
        )
        for name in paths
    ]


def fan_out(bench: Bench) -> list[Row]:
    """One run's output to many clients, beside the same bytes from a plain handler that has them in its memory."""
    total = SPREAD_OVER // (4 if bench.scale.name == "quick" else 1)
    rows: list[Row] = []
    with Served(bench.folder / "fan-out") as served:
        for crowd in CROWDS:
            size = max(total // crowd, LEAST)
            run = served.start(shell_words([sys.executable, "-I", "-S", str(HERE / "stamper.py"), str(size), "0"]))
            served.ended(run)
            path = str(served.journal(run))
            written = Path(path).stat().st_size

            def rate(kind: str, plain: str, run: str = run, crowd: int = crowd, written: int = written) -> float:
                with served.watched(run, **{kind: crowd}, plain=plain) as told:
                    found = told()
                assert found["ended"] == crowd, found
                assert found["least"] >= written, found
                return crowd * written / found["seconds"] / 1e6

            for kind, words in (("sockets", "WebSocket"), ("streams", "server-sent events")):
                found = interleaved(
                    {"ours": lambda kind=kind: rate(kind, ""), "plain": lambda kind=kind, path=path: rate(kind, path)}, bench.scale.rounds
                )
                ratio = ratios(found["ours"], found["plain"])
                rows.append(
                    Row(
                        f"fan-out of one run to {crowd} {words} client{'s' if crowd > 1 else ''} (MB/s in all), a plain handler = 1",
                        f"{spread(ratio)}: {spread(found['ours'], '.0f')} against {spread(found['plain'], '.0f')}",
                        samples=found,
                    )
                )
    return rows


def beginning(bench: Bench) -> list[Row]:
    """From `POST /execute` to the answer and to the first byte of output."""
    count = 10 if bench.scale.name == "quick" else 40
    accepted: list[float] = []
    first: list[float] = []
    with Served(bench.folder / "beginning") as served:
        connection, other = served.connection(), served.connection()
        for turn in range(count + 1):
            began = time.perf_counter()
            body = {"prompt": "echo hello", "agent": "shell"}
            run = json.loads(served.ask(connection, f"{API}/execute", body))["id"]
            answered = time.perf_counter()
            headers = {"Authorization": f"token {served.server.client.headers['Authorization'].split()[1]}", "Accept": "text/event-stream"}
            other.request("GET", f"{API}/executions/{run}/events", headers=headers)
            stream = other.getresponse()
            while not stream.readline().startswith(b"data: "):
                pass
            seen = time.perf_counter()
            stream.read()
            served.ended(run)
            if turn:  # the first one imports what all later ones use
                accepted.append((answered - began) * 1e3)
                first.append((seen - began) * 1e3)
    return [
        Row(
            f"`POST /execute` of `{'echo hello'}` to {what} (ms): p50, p99",
            f"{statistics.median(found):.0f}, {percentile(found, 0.99):.0f}",
            samples={"ms": found},
        )
        for what, found in (("202", accepted), ("the first event", first))
    ]


def crowd(bench: Bench) -> list[Row]:
    """A hundred watchers, ten of whom never read, of a run that floods: at a pace, and as fast as it can."""
    seconds = 5 if bench.scale.name == "quick" else 20
    rows: list[Row] = []
    with Served(bench.folder / "crowd") as served:
        served.ended(served.start("echo warm"))
        for pace, size in ((PACE, PACE * seconds), (0, PACE * seconds)):
            found: dict[str, list[float]] = {name: [] for name in ("grown", "p50", "p99", "longest", "cpu")}
            for _ in range(bench.scale.rounds):
                one = _crowd(served, pace, size)
                for name, value in one.items():
                    found[name].append(value)
            how = f"{pace / 1e6:.0f} MB/s for {seconds} s" if pace else f"{size / 1e6:.0f} MB as fast as it can"
            who = f"{WATCHING} watchers, {SILENT} of whom never read, of a run that writes {how}"
            rows.append(
                Row(
                    f"{who}: growth of the server (MiB)",
                    f"{spread(found['grown'], '.1f')}; its CPU {spread(found['cpu'], '.1f')} s",
                    f"≤ {MEMORY_GOAL:.0f}",
                    max(found["grown"]) <= MEMORY_GOAL,
                    found,
                )
            )
            late = f"p50 {spread(found['p50'], '.0f')}, p99 {spread(found['p99'], '.0f')}, longest {max(found['longest']):.0f}"
            rows.append(
                Row(
                    "the same: from a line's writing to a fast client having it (ms)",
                    late,
                    f"p99 ≤ {LAG_GOAL:.0f}" if pace else "",
                    statistics.median(found["p99"]) <= LAG_GOAL if pace else None,
                )
            )
    return rows


def _crowd(served: Served, pace: int, size: int) -> dict[str, float]:
    import psutil

    from floods.memory import begin, peak

    gate = served.server.root / "gate"
    command = [sys.executable, "-I", "-S", str(HERE / "stamper.py"), str(size), str(pace)]
    run = served.start(f"until [ -e {gate} ]; do sleep 0.02; done; {shell_words(command)}")
    process = psutil.Process(served.server.process.pid)
    least, before = begin(process.pid), process.cpu_times()
    with served.watched(run, sockets=WATCHING // 2, streams=WATCHING // 2, silent=SILENT // 2) as told:
        gate.touch()
        found = told()
        grown, after = (peak(process.pid) - least) / 2**20, process.cpu_times()
    gate.unlink()
    served.ended(run)
    written = served.journal(run).stat().st_size
    assert written >= size - LINE, written
    assert found["ended"] == WATCHING - SILENT, found
    assert found["least"] >= written, found
    lags = {name: value * 1e3 for name, value in found["lags"].items()}
    cpu = after.user + after.system - before.user - before.system
    return {"grown": grown, "p50": lags["0.5"], "p99": lags["0.99"], "longest": lags["1.0"], "cpu": cpu}


def main() -> None:
    """Measure and print the table."""
    suites = {"answers": answers, "fan-out": fan_out, "beginning": beginning, "crowd": crowd}
    parser = argparse.ArgumentParser(description="Measure the server extension.")
    parser.add_argument("--quick", dest="scale", action="store_const", const=QUICK, default=USUAL, help="under a minute")
    parser.add_argument("--only", action="append", choices=list(suites))
    chosen = parser.parse_args()
    about, rows = machine(), list[Row]()
    for name in chosen.only or suites:
        with scratch() as folder:
            rows += suites[name](Bench(chosen.scale, folder))
    print(markdown(about, chosen.scale, rows))


if __name__ == "__main__":
    main()
