"""A full disk costs output, which is counted; never the agent, and never the last words."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import cc_executor.shim.records as fmt
from support.shims import BOUND, SHIM, Run, until

Start = Callable[..., Run]

SIZE = 2 * 2**20


@dataclass(frozen=True)
class Disk:
    """A tmpfs of 2 MiB: its folder as we see it, the same as the shim sees it, and what brings the shim there."""

    folder: Path
    inside: Path
    prefix: tuple[str, ...] = ()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "none", str(folder))
    if os.geteuid() == 0:
        subprocess.run(mount, check=True, timeout=BOUND)
        yield Disk(folder, folder)
        subprocess.run(("umount", "--lazy", str(folder)), check=True, timeout=BOUND)
        return
    # Without root: in a user and mount namespace of its own, held open by a process and looked into through /proc.
    with subprocess.Popen(
        ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", f"{' '.join(mount)} && echo mounted && exec cat"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mounted\n"
        enter = ("nsenter", f"--target={holder.pid}", "--user", "--mount", "--preserve-credentials")
        yield Disk(Path(f"/proc/{holder.pid}/root{folder}"), folder, enter)
        holder.kill()


def fill(disk: Disk) -> None:
    """Write until it is full."""
    subprocess.run(("dd", "if=/dev/zero", f"of={disk.folder / 'filler'}", "bs=4096"), capture_output=True, timeout=BOUND, check=False)


def launch(start: Start, disk: Disk, agent: str | tuple[str, ...], **fields: object) -> Run:
    run_dir = disk.folder / "run"
    run_dir.mkdir(mode=0o700, exist_ok=True)
    return start(agent, folder=run_dir, run_dir=str(disk.inside / "run"), prefix=disk.prefix, **fields)


@pytest.mark.row(
    "faults", "disk full during a run", "the run goes on, what could not be kept is counted, the last line is kept when there is room again"
)
def test_a_full_disk_costs_output_and_nothing_else(start: Start, disk: Disk, tmp_path: Path) -> None:
    code = """
import os, time
folder = os.environ["FOLDER"]
for _ in range(100): os.write(1, b"x" * 65536)
os.write(2, b"e" * 100)
open(folder + "/full", "w").close()
while not os.path.exists(folder + "/freed"): time.sleep(0.01)
os.write(1, b"the last line\\n")
"""
    filler = disk.folder / "filler"
    filler.write_bytes(bytes(SIZE // 4))
    run = launch(start, disk, code)
    until((tmp_path / "full").exists)
    assert run.ask(op="status")["state"] == "running"
    until(lambda: [record for record in run.records() if record["kind"] == "degraded"])
    filler.unlink()
    (tmp_path / "freed").touch()
    facts = run.wait()
    assert facts["code"] == 0
    assert facts["dropped"]["stdout"] > 4 * 2**20
    assert facts["written"]["stdout"] + facts["dropped"]["stdout"] == 100 * 65536 + len("the last line\n")
    assert run.read().endswith(b"the last line\n")
    assert len(run.read()) == facts["written"]["stdout"]
    degraded = [record for record in run.records() if record["kind"] == "degraded"]
    assert [record["error"] for record in degraded] == ["No space left on device"] * len(degraded)
    assert len(degraded) == len({record["stream"] for record in degraded})


@pytest.mark.row("faults", "disk full to the end", "exit facts and every record are written")
def test_the_last_words_fit_a_disk_that_stays_full(start: Start, disk: Disk) -> None:
    code = """
import os, time
for _ in range(100): os.write(1, b"x" * 65536)
for _ in range(3000): os.write(1, b"y")
os.write(2, b"full")
time.sleep(60)
"""
    run = launch(start, disk, code)
    until(lambda: "degraded" in run.kinds())
    until(lambda: run.ask(op="status")["written"]["stdout"] > 2**20)
    for _ in range(10):
        assert run.ask(op="pause", by="x" * 100)["ok"]
        assert run.ask(op="resume", by="x" * 100)["ok"]
    run.ask(op="cancel", now=True)
    facts = run.wait()
    assert os.statvfs(disk.folder).f_bavail * os.statvfs(disk.folder).f_frsize < 384 * 1024
    assert facts["stop_reason"] == "cancel"
    assert facts["records"] == len(run.records())
    assert run.kinds()[-1] == "exited"
    assert run.kinds().count("paused") == 10


@pytest.mark.row("faults", "disk full to the end", "the agent's closing statement is kept, as its last lines are")
@pytest.mark.parametrize("secret", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("early", [False, True], ids=["together", "stderr ends before"])
def test_the_closing_statement_fits_a_disk_that_stays_full(start: Start, disk: Disk, secret: bool, early: bool) -> None:
    code = (
        f"EARLY = {early}"
        """
import os
def flood(numbers):
    for number in numbers: os.write(1, b"%06d %s\\n" % (number, b"x" * 100))
flood(range(30_000))
os.write(2, b"e" * 100_000 + b"\\nfarewell\\n")
if EARLY: os.close(2)
flood(range(30_000, 40_000))
os.write(1, b'{"result": "%s"}\\n' % (b"r" * 30_000))
"""
    )
    more = {"secrets": ["a-secret-that-nobody-says"]} if secret else {}
    run = launch(start, disk, code, **more)
    facts = run.wait()
    room = os.statvfs(disk.folder)
    assert room.f_bavail * room.f_frsize < 384 * 1024
    for stream, size in (("stdout", 40_000 * 108 + 30_000 + len('{"result": ""}\n')), ("stderr", 100_010)):
        assert facts["written"][stream] + facts["dropped"][stream] == size
        assert len(run.read(stream)) == facts["written"][stream]
    *lines, result = run.read().decode().splitlines()
    assert result == '{"result": "%s"}' % ("r" * 30_000)
    assert lines[-1].startswith("039999 ")
    numbers = [int(line[:6]) for line in lines if len(line) == 107]
    assert len(lines) - len(numbers) <= 1 + early, "a line is cut where the disk was full, and where the room for the end of stderr was"
    assert numbers == sorted(set(numbers))
    assert run.read("stderr").endswith(b"\nfarewell\n")
    assert run.kinds()[-1] == "exited"


def test_a_disk_that_is_full_for_a_moment_costs_nothing_and_nothing_is_said(start: Start, disk: Disk, tmp_path: Path) -> None:
    # The agent waits for files of the test's, which have no event.
    code = """
import os, time
folder = os.environ["FOLDER"]
while not os.path.exists(folder + "/full"): time.sleep(0.01)
for number in range(100): os.write(1, b"%03d %s\\n" % (number, b"x" * 100))
open(folder + "/written", "w").close()
while not os.path.exists(folder + "/freed"): time.sleep(0.01)
os.write(1, b"the last line\\n")
"""
    run = launch(start, disk, code)
    until(lambda: "started" in run.kinds())
    fill(disk)
    (tmp_path / "full").touch()
    until((tmp_path / "written").exists)
    assert run.ask(op="status")["written"]["stdout"] == 0, "before it answers the supervisor takes what there is"
    (disk.folder / "filler").unlink()
    (tmp_path / "freed").touch()
    facts = run.wait()
    assert (facts["written"]["stdout"], facts["dropped"]["stdout"]) == (100 * 105 + 14, 0)
    assert "degraded" not in run.kinds()


def test_a_disk_that_fills_up_late_has_room_for_the_last_words_too(start: Start, disk: Disk) -> None:
    run = launch(start, disk, ("/bin/sleep", "60"))
    while len(run.read(fmt.CONTROL)) < 100 * 1024:  # more than was set aside at the start
        assert run.ask(op="pause", by="x" * 200)["ok"]
        assert run.ask(op="resume", by="x" * 200)["ok"]
    fill(disk)
    before = run.kinds().count("resumed")
    for _ in range(20):
        assert run.ask(op="pause", by="x" * 200)["ok"]
        assert run.ask(op="resume", by="x" * 200)["ok"]
    assert run.kinds().count("resumed") == before + 20
    run.ask(op="cancel", now=True)
    assert run.wait()["records"] == len(run.records())


@pytest.mark.row("faults", "disk full before the start", "refused, nothing is started")
def test_no_agent_is_started_on_a_disk_that_is_full_already(start: Start, disk: Disk) -> None:
    (disk.folder / "run").mkdir(mode=0o700)
    fill(disk)
    run = launch(start, disk, "print('never')")
    assert run.answer["ok"] is False
    assert run.answer["errno"] == 28
    assert run.marked() == []


def test_a_stream_that_cannot_be_written_at_all_is_counted(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "full"
    folder.mkdir(mode=0o700)
    (folder / fmt.STDOUT).symlink_to("/dev/full")
    run = start("import os\nfor _ in range(50): os.write(1, b'x' * 1000)\nos.write(2, b'kept')", folder=folder)
    facts = run.wait()
    assert facts["code"] == 0
    assert facts["dropped"] == {"stdout": 50_000, "stderr": 0}
    assert facts["written"] == {"stdout": 0, "stderr": 4}
    assert run.record("degraded")["stream"] == "stdout"
    assert run.kinds() == ["started", "degraded", "exited"]


# A shim whose disk takes what is written and fails when that is to last.
FAILING = f"""
import errno, os, sys
sys.path.append({str(SHIM.parents[2])!r})
from cc_executor.shim import start, sync
def fail(fd):
    raise OSError(errno.EIO, os.strerror(errno.EIO))
sync._flush = fail
start.main()
"""


def test_a_disk_that_loses_what_it_took_is_told_of_once(start: Start) -> None:
    # Apart from each other, so that each is synced by itself: by time, for nothing tells of a sync that fails again, which is what this is about.
    run = start(
        "import os, signal, time\nfor _ in range(5):\n    os.write(1, b'x')\n    time.sleep(0.3)\nsignal.pause()", program=("-c", FAILING)
    )
    until(lambda: "degraded" in run.kinds())
    until(lambda: len(run.read()) == 5)
    assert run.ask(op="status")["durable"] == {fmt.STDOUT: 0, fmt.STDERR: 0, fmt.CONTROL: 0}
    run.ask(op="cancel", now=True)
    run.wait()
    degraded = [(record["stream"], record["error"]) for record in run.records() if record["kind"] == "degraded"]
    assert degraded == [("stdout", "Input/output error")]


def test_a_record_that_waited_for_room_is_written_as_soon_as_there_is_some(start: Start, disk: Disk) -> None:
    filler = disk.folder / "filler"
    filler.write_bytes(bytes(SIZE // 4))
    run = launch(start, disk, "import os, signal\nfor _ in range(100): os.write(1, b'x' * 65536)\nsignal.pause()")
    until(lambda: "degraded" in run.kinds())
    while (size := len(run.read(fmt.CONTROL))) and run.ask(op="pause", by="x" * 200)["ok"] and run.ask(op="resume", by="x" * 200)["ok"]:
        if len(run.read(fmt.CONTROL)) == size:  # the room that was set aside is used up
            break
    told = run.ask(op="status")["written"][fmt.CONTROL]
    filler.unlink()
    until(lambda: len(run.read(fmt.CONTROL)) > told)
    run.ask(op="cancel", now=True)
    run.wait()
    assert [record["seq"] for record in run.records()] == list(range(len(run.records())))


def test_room_that_was_set_aside_and_not_used_is_given_back(start: Start) -> None:
    run = start(("/bin/true",))
    run.wait()
    assert (run.folder / fmt.CONTROL).stat().st_blocks * 512 <= 8192
    assert (run.folder / fmt.EXIT).stat().st_blocks * 512 <= 8192
