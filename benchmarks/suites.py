"""What is measured outside of a browser, suite by suite. Each gives rows; goals are ratios within one run, or counts, so that they hold on any machine."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.lag import AGENT_RATE
from benchmarks.place import ROOT, kernel, producer, remove_runs, report, run, worker
from benchmarks.table import Bench, Row, interleaved, ratios, spread

median = statistics.median


def _column(found: dict[str, list[dict[str, Any]]], key: str) -> dict[str, list[float]]:
    return {name: [float(each[key]) for each in rounds] for name, rounds in found.items() if key in rounds[0]}


# --- the real CLI ---------------------------------------------------------------------------------------------------------


def overhead(bench: Bench) -> list[Row]:
    """What is added to the bare CLI, by us and by the SDK."""
    from cc_executor.rehearsal.loopback import API_KEY
    from cc_executor.rehearsal.server import serving

    rows: list[Row] = []
    with serving("hello", pace=0.0) as served:
        env = {"ANTHROPIC_BASE_URL": served.url, "ANTHROPIC_API_KEY": API_KEY, "BENCH_CLI": str(bench.folder / "bin" / "claude")}
        found = {name: list(map(float, values)) for name, values in worker("overhead", str(bench.scale.rounds + 1), env=env).items()}
        bare, shim = found["bare"], median(found["shim"])
        ours, sdk = ([b - a for a, b in zip(bare, found[name], strict=True)] for name in ("ours", "sdk"))
        rows.append(
            Row(
                "`cc_execute` beyond the bare CLI, warm process (seconds)",
                f"{spread(ours)}; the CLI alone {median(bare):.2f}; a run of `true`, which is shim, journal and receipt: {shim:.3f}",
                "≤ 0.05 + the shim's start",
                median(ours) <= 0.05 + shim,
                found,
            )
        )
        rows.append(Row("`claude_agent_sdk.query` beyond the bare CLI (seconds)", spread(sdk), samples={"beyond": sdk}))

        def fresh(name: str) -> float:
            began = time.monotonic()
            worker("fresh", name, env=env)
            return time.monotonic() - began

        firsts = interleaved({name: partial(fresh, name) for name in ("bare", "ours", "sdk")}, bench.scale.rounds)
        ratio = ratios(firsts["ours"], firsts["sdk"])
        words = f"{spread(firsts['ours'])} against {spread(firsts['sdk'])} of the SDK and {spread(firsts['bare'])} of the bare CLI"
        rows.append(Row("fresh Python to the first answer (seconds)", f"{words}: {spread(ratio)} × the SDK", samples=firsts))
    remove_runs(bench.folder)
    return rows


# --- bytes ----------------------------------------------------------------------------------------------------------------


def drain(bench: Bench) -> list[Row]:
    """How fast a child is relieved of its output."""
    size, path = str(bench.scale.drained), str(bench.folder / "report")

    def one(name: str) -> dict[str, Any]:
        found = worker(f"drain_{name}", size, path)
        remove_runs(bench.folder)
        return found

    found = interleaved({name: partial(one, name) for name in ("cat", "file", "asyncio", "anyio", "shim")}, bench.scale.rounds)
    rate, cpu = _column(found, "rate"), _column(found, "cpu")
    with kernel(bench.folder) as shell:
        # `%%bash` makes a message of every line: of megabytes the front end loses some, and waits for the end of the cell for ever.
        few = 2**19

        def cell(magic: str) -> float:
            answer = shell.run(f"{magic}\n{subprocess.list2cmdline(producer(few, Path(path)))}", within=300)
            assert answer.status == "ok", answer.ename
            told = report(Path(path))
            return told["bytes"] / told["seconds"] / 1e6

        cells = interleaved(
            {
                "%%bash": partial(cell, "%%bash"),
                "%%cc_execute": partial(cell, "%%cc_execute --agent shell --shell bash"),
            },
            bench.scale.rounds,
        )
    remove_runs(bench.folder)
    against = {name: ratios(rate["shim"], rate[name]) for name in ("cat", "file", "asyncio", "anyio")}
    by_bash = ratios(cells["%%cc_execute"], cells["%%bash"])
    mb = bench.scale.drained / 1e6
    return [
        Row(
            f"drain {mb:,.0f} MB with the journal on, `cat` > /dev/null = 1",
            f"{spread(against['cat'])}: {spread(rate['shim'], '.0f')} MB/s",
            "≥ 0.2",
            median(against["cat"]) >= 0.2,
            rate,
            limit="the limit is the page cache: `cat` into a file is the row below; more would take splice(2), which cannot mask secrets",
        ),
        Row(
            "the same, `cat` into a file of that disk = 1 (the price of the journal)",
            f"{spread(against['file'])}; CPU {spread(cpu['shim'])} s/GB against {spread(cpu['file'])}",
            samples=cpu,
        ),
        Row("the same, asyncio's `StreamReader` without a journal = 1", spread(against["asyncio"])),
        Row("the same, anyio without a journal = 1", spread(against["anyio"])),
        Row(
            "a cell relieves its child, `%%bash` = 1",
            f"{spread(by_bash, '.0f')}: {spread(cells['%%cc_execute'], '.0f')} MB/s against {spread(cells['%%bash'], '.1f')}",
            "≥ 10",
            median(by_bash) >= 10,
            cells,
        ),
        Row(
            "reading the journal to the end, folding, receipt (MB/s)",
            f"{spread(_column(found, 'followed')['shim'], '.0f')}; CPU of the kernel {spread(_column(found, 'reading')['shim'])} s/GB",
        ),
    ]


# --- events ---------------------------------------------------------------------------------------------------------------


STREAMS = {"a talkative run": "15a-turn1.jsonl", "short runs with tools": "0[12]*.jsonl"}


DECODING_LIMIT = (
    "two fifths are decoding (a half of that msgspec, which is the floor for reading whole lines), a fifth the supervisor, the pipe and the page cache, a "
    "seventh the fold, the rest start, end and the loop; with the receipt its SHA-256, too; it would take decoding and fold in C"
)


def recorded_stream(path: Path, pattern: str, lines: int) -> None:
    """Recorded runs of the real CLI that ended well, again and again until there are so many lines."""
    runs: list[bytes] = []
    for recording in sorted((ROOT / "tests" / "recordings").glob(pattern)):
        data = recording.read_bytes()
        if len(data) < 10**6 and b'"type":"result"' in data and not recording.name.endswith(".exchange.jsonl"):
            runs.append(data)
    with path.open("wb") as file:
        count = 0
        while count < lines:
            for data in runs:
                file.write(data)
                count += data.count(b"\n")


def decoding(bench: Bench) -> list[Row]:
    """Recorded lines as typed events."""
    rows: list[Row] = []
    for words, pattern in list(STREAMS.items())[: 1 if bench.scale.name == "quick" else None]:
        path, told = bench.folder / "stream.jsonl", bench.folder / "told"
        recorded_stream(path, pattern, bench.scale.events)
        rows += _decoded(bench, words, path, told)
    return rows


def _decoded(bench: Bench, words: str, path: Path, told: Path) -> list[Row]:
    parsed = interleaved({name: partial(worker, f"decode_{name}", str(path)) for name in ("ours", "sdk")}, bench.scale.rounds)
    for rounds in parsed.values():
        for found in rounds:
            found["each"] = found["cpu"] / found["lines"] * 1e6
    each = _column(parsed, "each")

    def way(name: str) -> dict[str, Any]:
        found = worker(f"way_{name}", str(path), str(told))
        remove_runs(bench.folder)
        return found

    ways = interleaved({name: partial(way, name) for name in ("ours", "sdk")}, bench.scale.rounds)
    rate, cpu = _column(ways, "rate"), _column(ways, "cpu")
    faster, cheaper = ratios(rate["ours"], rate["sdk"]), ratios(cpu["ours"], cpu["sdk"])
    sealed = {name: [found[f"{name} sealed"] for found in ways["ours"]] for name in ("rate", "cpu")}
    return [
        Row(
            f"{words}: typed events a second, journal on, `claude_agent_sdk.query` = 1",
            f"{spread(faster, '.1f')}: {median(rate['ours']):,.0f} lines/s against {median(rate['sdk']):,.0f}; "
            f"with the receipt {spread(ratios(sealed['rate'], rate['sdk']), '.1f')}",
            "≥ 8",
            median(faster) >= 8,
            rate,
            limit=DECODING_LIMIT,
        ),
        Row(
            f"{words}: CPU for it, all processes, the SDK = 1",
            f"{spread(cheaper, '.3f')}: {spread(cpu['ours'])} µs a line against {spread(cpu['sdk'])}; "
            f"with the receipt {spread(ratios(sealed['cpu'], cpu['sdk']), '.3f')}",
            "≤ 0.125",
            median(cheaper) <= 0.125,
            cpu,
            limit=DECODING_LIMIT,
        ),
        Row(
            f"{words}: speed of decoding alone, `json.loads` and `parse_message` of the SDK = 1",
            f"{spread(ratios(each['sdk'], each['ours']), '.1f')}: {spread(each['ours'])} µs a line against {spread(each['sdk'])}",
            samples=each,
        ),
    ]


# --- memory ---------------------------------------------------------------------------------------------------------------


def memory(bench: Bench) -> list[Row]:
    """What a flood leaves in the kernel and in the shim."""
    from floods.memory import begin, peak
    from support.lab import eventually

    size, told, gate = bench.scale.memory, bench.folder / "told", bench.folder / "gate"
    runs = bench.folder / "state" / "runs"
    with kernel(bench.folder) as shell:
        run(shell, "%%cc_execute --agent shell --shell bash\nyes | head -c 30000000")  # what only the first run brings
        known = set(runs.iterdir())
        os.mkfifo(gate)
        before = begin(shell.pid)
        words = subprocess.list2cmdline(producer(size, told))
        cell = shell.send(f"%%cc_execute --agent shell --shell bash\n{words}\nread x < {gate}\ntrue")

        def shim() -> int:
            for path in set(runs.iterdir()) - known:
                for line in (path / "control.jsonl").read_text("utf-8").splitlines() if (path / "control.jsonl").exists() else ():
                    return int(json.loads(line).get("shim_pid", 0))
            return 0

        supervisor = eventually(shim, within=60, what="the run begins")
        shim_before = begin(supervisor)
        eventually(told.exists, within=1800, what="everything is written")
        shim_mb = (peak(supervisor) - shim_before) / 2**20
        with gate.open("w"):
            pass
        answer = shell.wait(cell, within=1800)
        assert answer.status == "ok", answer.ename
        kernel_mb = (peak(shell.pid) - before) / 2**20
        (folder,) = set(runs.iterdir()) - known
        kept = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    remove_runs(bench.folder)
    return [
        Row(
            f"memory for {size / 1e9:g} GB of output, at most (MiB more than before)",
            f"kernel {kernel_mb:.1f}, shim {shim_mb:.1f}",
            "≤ 32",
            max(kernel_mb, shim_mb) <= 32,
            {"kernel": [kernel_mb], "shim": [shim_mb]},
            f"the journal holds all of it: {kept:,.0f} MB on disk",
        )
    ]


# --- control --------------------------------------------------------------------------------------------------------------


def control(bench: Bench) -> list[Row]:
    """Pause, resume, cancel."""
    rows: list[Row] = []
    for count in (1, 10, 100):
        found = interleaved({"run": partial(worker, "control", str(count))}, bench.scale.rounds)["run"]
        columns = {name: [each[name] for each in found] for name in ("pause", "resume", "cancel")}
        words = ", ".join(f"{name} {spread(values, '.0f')}" for name, values in columns.items())
        words += "; after pause each stands (state T), after cancel none lives"  # else the worker fails
        rows.append(Row(f"a tree of {count} process{'es' if count > 1 else ''}, each in its own session (ms)", words, samples=columns))
    remove_runs(bench.folder)
    return rows


def talk(bench: Bench) -> list[Row]:
    """What a run costs beside its agent, while that talks."""
    rows: list[Row] = []
    for count in bench.scale.runs[:2]:
        arguments = (str(count), str(AGENT_RATE), str(bench.folder / "told"))
        found = interleaved({"run": partial(worker, "talk", *arguments)}, bench.scale.rounds)["run"]
        columns = {name: [each[name] for each in found] for name in ("supervisor", "follower")}
        words = "; ".join(f"{name} {spread(values, '.1f')}" for name, values in columns.items())
        rows.append(
            Row(
                f"{count} run{'s' if count > 1 else ''} of {AGENT_RATE // 1000} kB/s in pieces of {AGENT_RATE // 50} bytes: CPU for each (ms a second)",
                words,
                samples=columns,
            )
        )
    remove_runs(bench.folder)
    return rows


# --- loading --------------------------------------------------------------------------------------------------------------

FIRST_LIMIT = (
    "what it loads: of 100 parts pydantic with our models takes 41, our other modules 23, ipywidgets with anywidget 22, anyio 9; it would take doors without "
    "pydantic and a view without ipywidgets"
)
LOADING = """
import time
ip = get_ipython()
ip.run_line_magic('pwd', '')
ip.run_line_magic('load_ext', 'storemagic')
begun = time.process_time()
ip.run_line_magic('load_ext', 'cc_executor')
loaded = (time.process_time() - begun) * 1e3

def launched():
    import glob, os
    # The request is written down a moment before the supervisor is started.
    return max(map(os.path.getmtime, glob.glob(os.environ['CC_EXECUTOR_STATE'] + '/runs/*/request.json')))
"""


# What row C9 of the ledger names, as notebooks with widgets and models have it already.
PACKAGES = """
import anyio.to_thread, anyio._backends._asyncio, anywidget, ipywidgets
import cc_executor.model.receipt, cc_executor.runtime.plan, cc_executor.store.hooklog  # the models that pydantic makes for a run
"""


def loading(bench: Bench) -> list[Row]:
    """What a kernel pays before anything is shown."""
    from support.environments import IPYKERNEL7
    from support.kernel import running_kernel

    def fresh(before: str = "") -> dict[str, float]:
        with running_kernel(IPYKERNEL7.name) as shell:
            run(shell, before + LOADING)
            spent: list[float] = []
            waited: list[float] = []
            for _ in range(4):
                run(shell, "began, begun = time.time(), time.process_time()")
                run(shell, "%%cc_execute --agent shell\ntrue")
                spent.append(float(shell.value("(time.process_time() - begun) * 1e3")))
                waited.append(float(shell.value("(launched() - began) * 1e3")))
            return {
                "load": float(shell.value("loaded")),
                "first": spent[0] - min(spent[1:]),
                "wait": waited[0] - min(waited[1:]),
                "run": min(spent[1:]),
            }

    kernels = interleaved({"kernel": fresh, "with packages": partial(fresh, PACKAGES)}, bench.scale.rounds)
    found, own = kernels["kernel"], [each["first"] for each in kernels["with packages"]]
    columns = {name: [each[name] for each in found] for name in found[0]}
    code = "import time; t=time.process_time(); import {0}; print(time.process_time()-t)"

    def imported(name: str) -> float:
        return float(subprocess.run([sys.executable, "-c", code.format(name)], capture_output=True, text=True, check=True).stdout) * 1e3

    imports = interleaved(
        {name: partial(imported, name) for name in ("cc_executor", "cc_executor.api", "claude_agent_sdk")}, bench.scale.rounds
    )
    remove_runs(bench.folder)
    return [
        Row("`%load_ext cc_executor` (ms of CPU)", spread(columns["load"], ".1f"), "≤ 10", median(columns["load"]) <= 10, columns),
        Row(
            "the first run beyond a later one (ms of CPU in the kernel)",
            spread(columns["first"], ".0f"),
            "≤ 60",
            median(columns["first"]) <= 60,
            limit=FIRST_LIMIT,
        ),
        Row(
            "the same, where pydantic with our models, ipywidgets, anywidget and anyio are loaded already",
            spread(own, ".0f"),
            samples={"own": own},
        ),
        Row("from Shift+Enter to the launch, the first run beyond a later one (ms)", spread(columns["wait"], ".0f")),
        Row("a run of `true`, whole (ms of CPU in the kernel)", spread(columns["run"], ".0f")),
        Row(
            "importing (ms of CPU)",
            ", ".join(f"`{name}` {spread(values, '.0f')}" for name, values in imports.items()),
            samples=imports,
        ),
    ]


# --- never blocked --------------------------------------------------------------------------------------------------------

BUSY = {
    "idle": "await asyncio.sleep(seconds)",
    "`time.sleep`": "time.sleep(seconds)",
    "pure Python": "end = time.monotonic() + seconds\nwhile time.monotonic() < end: sum(range(1000))",
    "C that keeps the GIL": "end = time.monotonic() + seconds\nbig = list(range(10_000_000))\nwhile time.monotonic() < end: sum(big)",
}


def held_up(bench: Bench) -> list[Row]:
    """A child that writes 1 MB/s while the kernel does something else."""
    seconds = 2 if bench.scale.name == "quick" else 5
    longest: dict[str, list[float]] = {name: [] for name in BUSY}
    told = bench.folder / "told"
    with kernel(bench.folder, f"import asyncio, time\nseconds = {seconds}") as shell:
        for _ in range(bench.scale.rounds):
            for name, code in BUSY.items():
                told.unlink(missing_ok=True)
                words = subprocess.list2cmdline(producer(seconds * 10**6, told, 1e6))
                run(shell, f"%%cc_execute --agent shell --bg -o h\n{words}")
                run(shell, code)
                run(shell, "await h")
                longest[name].append(report(told)["longest"] * 1e3)
    remove_runs(bench.folder)
    return [
        Row(
            "longest `write` of a child at 1 MB/s, while a cell is busy (ms)",
            ", ".join(f"{name} {spread(values, '.1f')}" for name, values in longest.items()),
            "≤ 100",
            max(max(values) for values in longest.values()) <= 100,
            longest,
        )
    ]


# --- first text -----------------------------------------------------------------------------------------------------------


def first_text(bench: Bench) -> list[Row]:
    """From Shift+Enter to the first text in a message to the page, and how long the CLI alone takes to write it."""
    from cc_executor.rehearsal.loopback import API_KEY
    from cc_executor.rehearsal.server import serving

    with serving("hello") as served:
        os.environ |= {"ANTHROPIC_BASE_URL": served.url, "ANTHROPIC_API_KEY": API_KEY}
        try:
            with kernel(bench.folder) as shell:
                run(shell, "%%cc_execute\nSay hello.")

                def cell() -> float:
                    began = time.monotonic()
                    message = shell.send("%%cc_execute\nSay hello.")
                    answer = shell.wait(message, until=lambda answer: _has_text(answer.messages[-1]))
                    seconds = time.monotonic() - began
                    shell.wait(message, answer=answer)
                    return seconds

                def bare() -> float:
                    began = time.monotonic()
                    flags = ["-p", "--output-format", "stream-json", "--verbose", "--include-partial-messages"]
                    with subprocess.Popen(["claude", *flags, "Say hello."], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
                        assert process.stdout is not None
                        seconds = next(time.monotonic() - began for line in process.stdout if b'"text_delta"' in line)
                        process.stdout.read()
                    return seconds

                found = interleaved({"cell": cell, "bare": bare}, bench.scale.rounds + 1)
            started = interleaved(
                {"cold": partial(_first_event, bench), "spare": partial(_first_event, bench, spared=True)}, bench.scale.rounds + 1
            )
        finally:
            del os.environ["ANTHROPIC_BASE_URL"], os.environ["ANTHROPIC_API_KEY"]
    remove_runs(bench.folder)
    more = [a - b for a, b in zip(found["cell"], found["bare"], strict=True)]
    return [
        Row(
            "Shift+Enter to the first text in a message to the page (seconds)",
            f"{spread(found['cell'])}; the CLI writes it after {spread(found['bare'])}: {spread(more)} more",
            samples=found,
        ),
        Row(
            "the prompt to the agent's first event, with an agent that waits (`CCExecutor.spare`; seconds)",
            f"{spread(started['spare'])}; started cold {spread(started['cold'])}",
            "≤ 0.25",
            median(started["spare"]) <= 0.25,
            samples=started,
        ),
    ]


def _first_event(bench: Bench, *, spared: bool = False) -> float:
    from cc_executor.api import make_request
    from cc_executor.runtime import spare
    from cc_executor.runtime.run import Run
    from cc_executor.store.home import StateHome

    request, home = make_request("Say hello.", cwd=bench.folder, timeout=60), StateHome(bench.folder / "state")

    async def measured() -> float:
        began = time.monotonic()
        run = await Run.start(request, home=home, environ=os.environ, spared=spared)
        first = 0.0
        async for batch in run.follow():
            first = first or (time.monotonic() - began if batch.state.session_id else 0.0)
        await run.finish()
        return first

    if spared:
        spare.prepare(request, home=home, environ=os.environ, pid=os.getpid())
        time.sleep(3)  # until it has read all that it reads at its start, of which it says nothing; outside of what is measured
    return asyncio.run(measured())


def _has_text(message: dict[str, Any]) -> bool:
    return message["msg_type"] == "comm_msg" and any(
        b"rehearsal" in bytes(buffer) or b"Hello" in bytes(buffer) for buffer in message["buffers"]
    )


FLOOD_PATIENCE: Final = 60.0  # seconds for a cell whose output takes five


def flood_in_cell(bench: Bench) -> list[Row]:
    """What 5 MB of output in a cell cost: messages, and bytes in the saved notebook."""
    size, told = (500_000 if bench.scale.name == "quick" else 5 * 10**6), bench.folder / "told"
    words = subprocess.list2cmdline(producer(size, told))
    found: dict[str, list[tuple[float, int, int]]] = {"%%cc_execute --agent shell": [], "%%bash": []}
    lost = dict.fromkeys(found, 0)
    with kernel(bench.folder) as shell:
        for _ in range(bench.scale.rounds):
            for name, rounds in found.items():
                began = time.monotonic()
                sent = shell.send(f"{name}\n{words}")
                try:
                    answer = shell.wait(sent, within=FLOOD_PATIENCE)
                except AssertionError:  # ZeroMQ drops what its queue cannot hold, and that was the end of the cell
                    lost[name] += 1
                    continue
                assert answer.status == "ok", answer.ename
                rounds.append((time.monotonic() - began, len(answer.messages), len(answer.stream) + len(json.dumps(answer.displays))))
    remove_runs(bench.folder)
    return [_flooded(f"{size / 1e6:g} MB of output: a cell of `{name}`", rounds, lost[name]) for name, rounds in found.items()]


def _flooded(what: str, rounds: list[tuple[float, int, int]], lost: int) -> Row:
    dropped = f"its end was never told in {lost} of {lost + len(rounds)} rounds" if lost else ""
    if not rounds:
        return Row(what, dropped)
    seconds, messages, kept = ([float(each[number]) for each in rounds] for number in range(3))
    words = f"{spread(seconds)} s, {median(messages):,.0f} messages, {median(kept):,.0f} bytes in the notebook"
    return Row(what, f"{words}; {dropped}" if dropped else words, samples={"seconds": seconds})
