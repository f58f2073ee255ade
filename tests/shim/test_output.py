"""The journal holds what the agent wrote, byte for byte."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

import cc_executor.shim.records as fmt
from support.shims import SHIM, Run, memory, until, watch

Start = Callable[..., Run]

BOTH = r"""
import os
os.write(1, b"one\0two\xff\xfe\r\nlast line without end")
os.write(2, b"\xc3")
"""
FLOOD = r"""
import os, hashlib
block = bytes(range(256)) * 256
left, digest = 50 * 2**20, hashlib.sha256()
while left:
    piece = block[: min(left, 61234)]
    done = os.write(1, piece)
    digest.update(piece[:done])
    left -= done
os.write(2, digest.hexdigest().encode())
"""
SLOWLY = ("/bin/sh", "-c", "while read -r word; do echo $word; echo $word >&2; done")


@pytest.mark.row("faults", "invalid UTF-8, NUL, half a character", "every byte is kept")
def test_bytes_are_kept_as_they_came(start: Start) -> None:
    run = start(BOTH)
    facts = run.wait()
    assert run.read() == b"one\0two\xff\xfe\r\nlast line without end"
    assert run.read(fmt.STDERR) == b"\xc3"
    assert facts["written"] == {"stdout": len(run.read()), "stderr": 1}
    assert facts["dropped"] == {"stdout": 0, "stderr": 0}
    assert (facts["code"], facts["signal"], facts["stop_reason"]) == (0, None, None)
    assert run.read(fmt.LOG) == b""


@pytest.mark.row("faults", "flood of output", "the agent is never blocked for good, every byte is kept, memory is bounded")
def test_a_flood_arrives_whole(start: Start) -> None:
    run = start(FLOOD + "\nimport signal; signal.pause()")
    until(lambda: len(run.read(fmt.STDERR)) == 64)
    assert memory(run.process.pid) < 40
    run.ask(op="cancel", now=True)
    facts = run.wait(60)
    data = run.read()
    assert len(data) == facts["written"]["stdout"] == 50 * 2**20
    assert hashlib.sha256(data).hexdigest().encode() == run.read(fmt.STDERR)


def test_the_index_is_sparse_and_points_to_blocks(start: Start) -> None:
    run = start(FLOOD)
    seconds = run.wait(60)["elapsed"]
    entries = list(fmt.INDEX.iter_unpack(run.read(fmt.INDEX_FILE)))
    assert [entry[2] for entry in entries] == list(range(len(entries)))
    offsets = [offset for offset, _, _, stream in entries if stream == 0]
    assert offsets[0] == 0
    assert offsets == sorted(set(offsets))
    assert len(offsets) <= 50 * 2**20 // fmt.INDEX_EVERY_BYTES + seconds / fmt.INDEX_EVERY_SECONDS + 1
    times = [t for _, t, _, _ in entries]
    assert times == sorted(times)


def test_slow_output_is_indexed_by_time(start: Start) -> None:
    run = start(SLOWLY, stdin="open")
    for number in range(1, 9):
        run.ask(op="stdin", data="word\n")
        until(lambda number=number: len(run.read()) == len(run.read(fmt.STDERR)) == number * len("word\n"))
        watch(2 * fmt.INDEX_EVERY_SECONDS)
    run.ask(op="stdin", data="", close=True)
    run.wait()
    entries = list(fmt.INDEX.iter_unpack(run.read(fmt.INDEX_FILE)))
    assert sorted((entry[3], entry[0]) for entry in entries) == [(stream, 5 * number) for stream in (0, 1) for number in range(8)]
    assert entries[-1][1] - entries[0][1] > 7 * 2 * fmt.INDEX_EVERY_SECONDS


def test_what_is_written_becomes_durable(start: Start) -> None:
    run = start("import os, time; os.write(1, b'x' * 100000); time.sleep(60)")
    until(lambda: run.ask(op="status")["durable"] == {fmt.STDOUT: 100000, fmt.STDERR: 0, fmt.CONTROL: len(run.read(fmt.CONTROL))})
    run.ask(op="cancel", now=True)
    run.wait()


# A shim in which nothing becomes durable by itself, for no sync is due before the end; what is synced then is noted.
NEVER_DUE = f"""
import os, sys
sys.path.append({str(SHIM.parents[2])!r})
from cc_executor.shim import start, sync
def note(fd, flush=sync._flush):
    flush(fd)
    with open("synced", "a") as file: print(os.path.basename(os.readlink(f"/proc/self/fd/{{fd}}")), os.fstat(fd).st_size, file=file)
sync._flush, sync.Syncer.step = note, lambda self, now: float("inf")
start.main()
"""


def test_at_the_end_everything_is_made_durable(start: Start) -> None:
    run = start("import os; os.write(1, b'x' * 1000); os.write(2, b'y' * 10)", program=("-c", NEVER_DUE))
    run.wait()
    names = (fmt.STDOUT, fmt.STDERR, fmt.CONTROL)
    assert run.read("synced").decode().splitlines() == [f"{name} {len(run.read(name))}" for name in names]


def test_the_prompt_file_is_standard_input(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "prompted"
    folder.mkdir(mode=0o700)
    prompt = bytes(range(256)) * 4000
    (folder / fmt.PROMPT).write_bytes(prompt)
    run = start(("/bin/cat",), folder=folder, stdin="prompt")
    run.wait()
    assert run.read() == prompt


def test_an_open_standard_input_is_fed_by_commands(start: Start) -> None:
    run = start(("/bin/cat",), stdin="open")
    assert run.ask(op="stdin", data="first ä\n")["ok"]
    until(lambda: run.read() == "first ä\n".encode())
    big = "x" * 500_000 + "\n"
    assert run.ask(op="stdin", data=big)["ok"]
    assert run.ask(op="stdin", data="last", close=True)["ok"]
    facts = run.wait()
    assert facts["code"] == 0
    assert run.read().decode() == "first ä\n" + big + "last"


def test_of_what_the_agent_does_not_read_only_so_much_is_held(start: Start) -> None:
    run = start(("/bin/sleep", "60"), stdin="open")
    replies = [run.ask(op="stdin", data="x" * 1_000_000) for _ in range(10)]
    assert [reply["ok"] for reply in replies] == [True] * 8 + [False] * 2
    assert "does not read" in replies[-1]["error"]
    assert run.ask(op="stdin", close=True)["ok"]
    assert "not open" in run.ask(op="stdin", data="after the end")["error"]
    run.ask(op="cancel", now=True)
    run.wait()


def test_the_agent_s_output_may_wait_a_while(start: Start) -> None:
    run = start("import fcntl, os; os.write(1, b'%d' % fcntl.fcntl(1, fcntl.F_GETPIPE_SZ))")
    run.wait()
    assert int(run.read()) == 256 * 1024


def test_standard_input_that_is_not_open_is_refused(start: Start) -> None:
    run = start(("/bin/sleep", "60"))
    reply = run.ask(op="stdin", data="x")
    assert not reply["ok"]
    run.ask(op="cancel", now=True)
    run.wait()


@pytest.mark.row("faults", "stdout closed, agent alive", "still running; its end is seen")
def test_an_agent_that_closes_its_output_is_still_running(start: Start) -> None:
    run = start("import os, time; os.close(1); os.close(2); input(); os._exit(7)", stdin="open")

    def pipes() -> int:
        """Of which the supervisor has one end, and not both, as of its own."""
        try:
            held = [str(each.readlink()) for each in Path(f"/proc/{run.process.pid}/fd").iterdir()]
        except FileNotFoundError:  # one of them is closed while they are looked at
            return -1
        return sum(name.startswith("pipe:") and held.count(name) == 1 for name in held)

    until(lambda: pipes() == 1)  # to the agent's standard input
    assert run.ask(op="status")["state"] == "running"
    run.ask(op="stdin", data="\n")
    assert run.wait()["code"] == 7
