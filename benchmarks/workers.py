"""Contestants that have a process of their own: ``python -m benchmarks.workers NAME ARGUMENT…`` prints what was found as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks.place import HERE, PRODUCER, report
from support.shims import alive, marked, state

Found = dict[str, Any]


def _cpu(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def _own_and_children() -> float:
    return _cpu(resource.RUSAGE_SELF) + _cpu(resource.RUSAGE_CHILDREN)


# --- draining: BYTES REPORT -----------------------------------------------------------------------------------------------


def _drained(cpu: float, path: str) -> Found:
    told = report(Path(path))
    return {"rate": told["bytes"] / told["seconds"] / 1e6, "cpu": (cpu - told["cpu"]) / told["bytes"] * 1e9}


def drain_cat(size: str, path: str) -> Found:
    """`cat` to nowhere."""
    before = _own_and_children()
    first = subprocess.Popen([*PRODUCER, size, path], stdout=subprocess.PIPE)
    subprocess.run(["cat"], stdin=first.stdout, stdout=subprocess.DEVNULL, check=True)
    first.wait()
    return _drained(_own_and_children() - before, path)


def drain_file(size: str, path: str) -> Found:
    """`cat` into a file of the disk on which runs are kept, without a sync."""
    before = _own_and_children()
    first = subprocess.Popen([*PRODUCER, size, path], stdout=subprocess.PIPE)
    with open(path + ".copy", "wb") as copy:
        subprocess.run(["cat"], stdin=first.stdout, stdout=copy, check=True)
    first.wait()
    found = _drained(_own_and_children() - before, path)
    Path(path + ".copy").unlink()
    return found


async def drain_asyncio(size: str, path: str) -> Found:
    """`StreamReader.read`."""
    before = _own_and_children()
    process = await asyncio.create_subprocess_exec(*PRODUCER, size, path, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    while await process.stdout.read(65536):
        pass
    await process.wait()
    return _drained(_own_and_children() - before, path)


async def drain_anyio(size: str, path: str) -> Found:
    """`anyio.open_process`."""
    import anyio

    before = _own_and_children()
    async with await anyio.open_process([*PRODUCER, size, path], stderr=None) as process:
        assert process.stdout is not None
        async for _ in process.stdout:
            pass
    return _drained(_own_and_children() - before, path)


async def drain_shim(size: str, path: str) -> Found:
    """A run: the shim and its journal; then the reading of the journal to the end, and the receipt."""
    from cc_executor.api import make_request
    from cc_executor.runtime.run import Run
    from cc_executor.store.home import StateHome, state_path

    home = StateHome(state_path(os.environ))
    request = make_request(subprocess.list2cmdline([*PRODUCER, size, path]), agent="shell")
    mine = _cpu(resource.RUSAGE_SELF)
    before = _own_and_children()
    began = time.monotonic()
    run = await Run.start(request, home=home, environ=os.environ)
    async for _ in run.follow():
        pass
    followed = time.monotonic() - began
    receipt = await run.finish()
    assert receipt.outcome.ok
    reading = _cpu(resource.RUSAGE_SELF) - mine
    found = _drained(_own_and_children() - before - reading, path)
    return {**found, "followed": int(size) / followed / 1e6, "reading": reading / int(size) * 1e9}


# --- decoding: FILE ROUNDS ------------------------------------------------------------------------------------------------


def decode_ours(path: str) -> Found:
    """Bytes of a recorded stream as typed events."""
    from cc_executor.agents.claude.decode import ClaudeDecoder
    from cc_executor.model.joined import pieces_of

    data = Path(path).read_bytes()
    pieces = [data[at : at + 65536] for at in range(0, len(data), 65536)]
    decoder = ClaudeDecoder()
    began, events = time.process_time(), 0
    for piece in pieces:
        events += sum(pieces_of(event) for event in decoder.feed(piece))
    cpu = time.process_time() - began
    return {"lines": data.count(b"\n"), "events": events, "cpu": cpu}


def decode_sdk(path: str) -> Found:
    """The same lines as messages of claude-agent-sdk."""
    from claude_agent_sdk._errors import MessageParseError
    from claude_agent_sdk._internal.message_parser import parse_message

    lines = Path(path).read_bytes().splitlines()
    began, events = time.process_time(), 0
    for line in lines:
        with contextlib.suppress(MessageParseError):
            events += parse_message(json.loads(line)) is not None
    return {"lines": len(lines), "events": events, "cpu": time.process_time() - began}


# --- the whole way over a stand-in of the CLI: FILE REPORT ----------------------------------------------------------------


def _stand_in(path: str, told: str) -> str:
    os.environ |= {"CLAUDE_FAKE_STREAM": path, "CLAUDE_FAKE_REPORT": told, "CLAUDE_AGENT_SDK_SKIP_VERSION_CHECK": "1"}
    program = Path(told).with_suffix(".claude")
    program.write_text(f"#!{sys.executable} -IS\n{(HERE / 'fake_cli.py').read_text(encoding='utf-8')}", encoding="utf-8")
    program.chmod(0o700)
    return str(program)


def _lines(path: str) -> int:
    return Path(path).read_bytes().count(b"\n")


def _way(lines: int, wall: float, cpu: float, told: str) -> Found:
    return {"rate": lines / wall, "cpu": (cpu - report(Path(told))["cpu"]) / lines * 1e6}


async def way_ours(path: str, told: str) -> Found:
    """A run as a cell follows it: journal included, every event typed and folded; `sealed`: with its receipt, whose digests read the journal again."""
    from cc_executor.api import make_request
    from cc_executor.model.joined import pieces_of
    from cc_executor.runtime.run import Run
    from cc_executor.store.home import StateHome, state_path

    lines = _lines(path)
    request = make_request("go", cli=_stand_in(path, told))
    home = StateHome(state_path(os.environ))
    await (await Run.start(request, home=home, environ=os.environ)).finish()  # what every later run finds there: the version, modules
    before, began, events = _own_and_children(), time.monotonic(), 0
    run = await Run.start(request, home=home, environ=os.environ)
    async for batch in run.follow():
        events += sum(pieces_of(event) for event in batch.events)
    followed, mine = time.monotonic() - began, _cpu(resource.RUSAGE_SELF)
    await run.finish()
    sealed, sealing = time.monotonic() - began, _cpu(resource.RUSAGE_SELF) - mine
    assert events >= lines, events
    cpu = _own_and_children() - before  # the supervisor's, too, which has been waited for by now
    whole = _way(lines, sealed, cpu, told)
    return _way(lines, followed, cpu - sealing, told) | {f"{name} sealed": value for name, value in whole.items()}


async def way_sdk(path: str, told: str) -> Found:
    """`claude_agent_sdk.query`."""
    from claude_agent_sdk import ClaudeAgentOptions, query

    lines = _lines(path)
    options = ClaudeAgentOptions(cli_path=_stand_in(path, told), include_partial_messages=True, max_buffer_size=64 * 2**20)
    before, began, events = _own_and_children(), time.monotonic(), 0
    async for _ in query(prompt="go", options=options):
        events += 1
    assert events > lines * 0.9, events
    return _way(lines, time.monotonic() - began, _own_and_children() - before, told)


# --- the real CLI against a rehearsal: ROUNDS (ANTHROPIC_BASE_URL names the server) ---------------------------------------

FLAGS = ("-p", "--output-format", "stream-json", "--verbose", "--include-partial-messages", "--setting-sources", "user")


async def _bare() -> str:
    process = await asyncio.create_subprocess_exec("claude", *FLAGS, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    out, _ = await process.communicate(b"Say hello.")
    assert process.returncode == 0
    return out.decode()


async def _sdk() -> None:
    from claude_agent_sdk import ClaudeAgentOptions, query

    options = ClaudeAgentOptions(cli_path=os.environ["BENCH_CLI"], include_partial_messages=True, setting_sources=["user"])
    async for _ in query(prompt="Say hello.", options=options):
        pass


async def _ours() -> None:
    from cc_executor.api import cc_execute

    result = await cc_execute("Say hello.")
    assert result.status == "ok", result


async def _shim() -> None:
    from cc_executor.api import cc_execute

    assert (await cc_execute("true", agent="shell")).status == "ok"


ASKED: dict[str, Callable[[], Awaitable[object]]] = {"bare": _bare, "sdk": _sdk, "ours": _ours, "shim": _shim}


async def overhead(rounds: str) -> Found:
    """Seconds from the call to the result, in a process where everything was used once before."""
    found: dict[str, list[float]] = {name: [] for name in ASKED}
    for turn in range(int(rounds) + 1):
        for name, ask in ASKED.items():
            began = time.monotonic()
            await ask()
            if turn:
                found[name].append(time.monotonic() - began)
    return found


async def fresh(name: str) -> Found:
    """One question in a new process: what this process itself costs is the caller's to measure."""
    await ASKED[name]()
    return {"cpu": _cpu(resource.RUSAGE_SELF)}


# --- pause and cancel: PROCESSES ------------------------------------------------------------------------------------------

TREE = """
import os, sys, time
for _ in range({count}):
    if os.fork() == 0:
        os.setsid()
        while True:
            time.sleep(1)  # a tool that lives until it is ended
print("up", flush=True)
while True:
    time.sleep(1)  # and so does the agent
"""


async def control(count: str) -> Found:
    """Milliseconds until a tree of so many processes stands, goes on, and is gone."""
    from cc_executor.api import make_request
    from cc_executor.runtime.run import Run
    from cc_executor.store.home import StateHome, state_path

    home = StateHome(state_path(os.environ))
    program = Path(os.environ["HOME"]) / f"tree{count}.py"
    program.write_text(TREE.format(count=int(count) - 1), encoding="utf-8")
    run = await Run.start(make_request(f"{sys.executable} -I -S {program}", agent="shell"), home=home, environ=os.environ)
    async for batch in run.follow():
        if "up" in batch.state.text:
            break
    members = marked(run.run_id)
    assert len(members) == int(count), f"{len(members)} processes of {count} are there"
    found: Found = {}
    for name, act in (("pause", run.pause), ("resume", run.resume)):
        began = time.perf_counter()
        status = await act(by="benchmark")
        found[name] = (time.perf_counter() - began) * 1e3
        states = [state(pid) for pid in members]
        assert (set(states) == {"T"}) == (name == "pause"), f"after {name}: {states}"  # proc(5): stopped
        assert status["processes"] == int(count), f"after {name}: {status}"
    began = time.perf_counter()
    await run.cancel(now=True)
    async for _ in run.follow():
        pass
    found["cancel"] = (time.perf_counter() - began) * 1e3
    assert not (left := [pid for pid in members if alive(pid)]), f"after cancel {left} live on"
    receipt = await run.finish()
    assert receipt.exit is not None
    return found


# --- what a run costs while its agent talks: RUNS BYTES_PER_SECOND REPORT ---------------------------------------------------

WATCHED = 4.0  # seconds


async def talk(count: str, rate: str, path: str) -> Found:
    """Milliseconds of CPU that one supervisor, and this process for each run, use in a second."""
    from cc_executor.api import make_request
    from cc_executor.runtime.run import Run
    from cc_executor.store.home import StateHome, state_path

    home = StateHome(state_path(os.environ))
    words = subprocess.list2cmdline([*PRODUCER, str(60 * int(rate)), path, rate])
    runs = [await Run.start(make_request(words, agent="shell"), home=home, environ=os.environ) for _ in range(int(count))]

    async def follow(run: Run) -> None:
        async for _ in run.follow():
            pass

    async with asyncio.TaskGroup() as tasks:
        for run in runs:
            tasks.create_task(follow(run))
        supervisors = [json.loads((run.folder.path / "control.jsonl").read_text("utf-8").splitlines()[0])["shim_pid"] for run in runs]
        await asyncio.sleep(2)  # they all write by then
        before, mine, began = _scheduled(supervisors), _cpu(resource.RUSAGE_SELF), time.monotonic()
        await asyncio.sleep(WATCHED)
        seconds = (time.monotonic() - began) * int(count)
        found = {"supervisor": _scheduled(supervisors) - before, "follower": _cpu(resource.RUSAGE_SELF) - mine}
        for run in runs:
            await run.cancel(now=True)
    return {name: value * 1e3 / seconds for name, value in found.items()}


def _scheduled(pids: list[int]) -> float:
    """Seconds of CPU that all threads of these processes have used (proc(5): schedstat)."""
    threads = (thread for pid in pids for thread in Path(f"/proc/{pid}/task").iterdir())
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def main() -> None:
    name, *arguments = sys.argv[1:]
    found = globals()[name](*arguments)
    print(json.dumps(asyncio.run(found) if asyncio.iscoroutine(found) else found))


if __name__ == "__main__":
    main()
