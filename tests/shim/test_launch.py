"""Starting: the answer, what the agent finds, and what is left when it cannot start."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import cc_executor.shim.records as fmt
from support.shims import BOUND, SHIM, Run, until

Start = Callable[..., Run]

LOOK = r"""
import json, os, resource, signal
status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
print(json.dumps({
    "pid": os.getpid(), "sid": os.getsid(0), "pgid": os.getpgid(0), "cwd": os.getcwd(), "env": dict(os.environ),
    "fds": sorted(os.listdir("/proc/self/fd"), key=int), "ignored": int(status["SigIgn"], 16), "blocked": int(status["SigBlk"], 16),
    "core": resource.getrlimit(resource.RLIMIT_CORE), "oom": int(open("/proc/self/oom_score_adj").read()), "umask": int(status["Umask"], 8),
}))
"""


def test_the_agent_finds_a_clean_world(start: Start, tmp_path: Path) -> None:
    inherited = int(Path("/proc/self/oom_score_adj").read_text())
    mask = os.umask(0)
    os.umask(mask)
    run = start(LOOK, env={"PATH": "/bin", "ODD": "\udcff=1\n"}, cwd=str(tmp_path))
    run.wait()
    seen = json.loads(run.read())
    assert seen["pid"] == seen["sid"] == seen["pgid"] == run.agent
    assert seen["cwd"] == str(tmp_path)
    environment = {name: value for name, value in seen["env"].items() if name != "LC_CTYPE"}  # CPython sets that one itself (PEP 538)
    assert environment == {"PATH": "/bin", "ODD": "\udcff=1\n", fmt.RUN_MARK: run.run_id}
    assert seen["fds"] == ["0", "1", "2", "3"]  # 3 is the listing itself
    # SIGPIPE and SIGXFSZ are ignored by that Python itself. 32 and 33 are glibc's own, which nobody can set: `make` passes them on as ignored.
    assert seen["ignored"] & ~(1 << 12 | 1 << 24 | 1 << 31 | 1 << 32) == 0
    assert seen["blocked"] == 0
    assert seen["core"] == [0, 0]
    assert seen["oom"] == min(1000, inherited + 500)
    assert seen["umask"] == mask


def test_a_signal_that_the_launcher_ignores_is_not_ignored_by_the_agent(start: Start) -> None:
    run = start(("/bin/sh", "-c", "kill -PIPE $$; exit 5"))
    facts = run.wait()
    assert (facts["code"], facts["signal"]) == (None, "SIGPIPE")


BLOCKING = "import os, signal, sys\nsignal.pthread_sigmask(signal.SIG_BLOCK, [2, 15])\nos.execv(sys.argv[1], sys.argv[1:])"


def test_a_signal_that_the_launcher_blocks_is_not_blocked_in_the_agent(start: Start) -> None:
    run = start(LOOK, prefix=(sys.executable, "-c", BLOCKING))
    run.wait()
    assert json.loads(run.read())["blocked"] == 0


# A shim that meets somebody who looks whether anybody holds the lock, and who lets go of it while the shim waits.
MET = f"""
import fcntl, os, sys
sys.path.append({str(SHIM.parents[2])!r})
from cc_executor.shim import start
other = []
def locked(lock, locked=start._locked):
    other.append(os.open(start.LOCK, os.O_RDONLY))
    fcntl.flock(other[0], fcntl.LOCK_SH)
    return locked(lock)
start._locked, start.time.sleep = locked, lambda seconds: os.close(other.pop())
start.main()
"""


def test_who_looks_at_the_lock_at_that_moment_keeps_no_run_from_starting(start: Start) -> None:
    run = start(("/bin/true",), program=("-c", MET))
    assert run.answer["ok"]
    assert run.wait()["code"] == 0


def test_files_are_private(start: Start) -> None:
    run = start(("/bin/sleep", "60"))
    for path in run.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    run.ask(op="cancel", now=True)
    run.wait()
    assert not (run.folder / fmt.SOCKET).exists()


def test_the_shim_needs_no_open_stdio_and_says_nothing(start: Start) -> None:
    run = start(("/bin/sleep", "60"))
    shim = run.answer["shim_pid"]
    assert shim == run.process.pid
    descriptors = Path(f"/proc/{shim}/fd")
    until(lambda: (descriptors / "1").readlink() == Path(os.devnull))
    assert (descriptors / "0").readlink() == Path(os.devnull)
    assert (descriptors / "2").readlink() == run.folder / fmt.LOG
    run.ask(op="cancel", now=True)
    run.wait()


def test_a_missing_executable_is_a_sentence(start: Start) -> None:
    run = start(("/nowhere/agent",))
    assert run.answer["ok"] is False
    assert run.answer["errno"] == 2
    assert "/nowhere/agent cannot be started" in run.answer["error"]
    assert run.process.wait(BOUND) == 1
    assert run.marked() == []
    assert {path.name for path in run.folder.iterdir()} <= {fmt.LOCK, fmt.LOG}


def test_a_missing_interpreter_is_named_as_such(start: Start, tmp_path: Path) -> None:
    script = tmp_path / "agent"
    script.write_text("#!/nowhere/python\n")
    script.chmod(0o755)
    assert "interpreter" in start((str(script),)).answer["error"]
    script.chmod(0o644)
    assert "not executable" in start((str(script),)).answer["error"]


def test_a_missing_working_folder_is_a_sentence(start: Start) -> None:
    run = start(("/bin/true",), cwd="/nowhere/at all")
    assert run.answer == {
        "ok": False,
        "error": "the working folder /nowhere/at all cannot be entered: No such file or directory",
        "errno": 2,
    }


def test_a_missing_prompt_is_refused_before_anything_runs(start: Start) -> None:
    run = start(("/bin/true",), stdin="prompt")
    assert run.answer["ok"] is False
    assert run.answer["errno"] == 2


def test_after_a_failed_start_the_folder_can_be_used_again(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    assert not start(("/nowhere",), folder=folder).answer["ok"]
    run = start(("/bin/echo", "now"), folder=folder)
    assert run.answer["ok"]
    run.wait()
    assert run.read() == b"now\n"


def test_who_only_looks_whether_a_run_goes_on_does_not_keep_it_from_being_started(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "looked-at"
    folder.mkdir()
    with (folder / fmt.LOCK).open("wb") as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        letting_go = threading.Timer(0.3, fcntl.flock, (looked_at, fcntl.LOCK_UN))  # he has waited for a core so long
        letting_go.start()
        run = start(("/bin/echo", "now"), folder=folder)
        letting_go.join()
    assert run.answer["ok"], run.answer
    run.wait()
    assert run.read() == b"now\n"


@pytest.mark.row("faults", "the same run started twice", "started once")
def test_a_second_start_is_refused_while_the_first_runs_and_afterwards(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    first = start(("/bin/sh", "-c", "echo first; sleep 60"), folder=folder)
    until(lambda: first.read() == b"first\n")
    second = start(("/bin/sh", "-c", "echo second"), folder=folder)
    assert second.answer["ok"] is False
    assert "another shim owns this run" in second.answer["error"]
    assert first.ask(op="status")["state"] == "running"
    first.ask(op="cancel", now=True)
    first.wait()
    third = start(("/bin/sh", "-c", "echo third"), folder=folder)
    assert third.answer["ok"] is False
    assert "started before" in third.answer["error"]
    assert first.read() == b"first\n"
    assert first.kinds()[-1] == "exited"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 99), ("run_dir", "relative"), ("argv", []), ("argv", ["sh"]), ("argv", "text"), ("argv", ["/bin/sh", "\0"]),
        ("env", {"A=B": "x"}), ("env", {"A": 1}), ("cwd", 3), ("stdin", "tty"), ("wall", 0), ("wall", True), ("stall", "1"),
        ("lease_pid", 0), ("on_lease_end", "wait"), ("secrets", [1]), ("keep_background", 1), ("linger", 60),
        ("linger", {"done": [], "seconds": 1}), ("linger", {"done": ["a"], "anew": [], "seconds": 0}),
        ("linger", {"done": ["a\nb"], "anew": [], "seconds": 1}), ("run_id", None), ("quiet", ""), ("quiet", [""]), ("quiet", ["a\nb"]),
    ],
)  # fmt: skip
def test_a_spec_that_is_wrong_is_refused_by_name(start: Start, field: str, value: object) -> None:
    if field == "run_dir":
        spec: dict[str, object] = dict.fromkeys(fmt.SPEC_FIELDS) | {"version": 1, "run_dir": value}
        reply = answer_to(json.dumps(spec).encode())
    else:
        reply = start(("/bin/true",), **{field: value}).answer
    assert reply["ok"] is False
    assert field in str(reply["error"])


@pytest.mark.parametrize("data", [b"", b"nonsense", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_spec_is_answered(data: bytes) -> None:
    assert answer_to(data)["ok"] is False


def answer_to(data: bytes) -> dict[str, object]:
    done = subprocess.run((sys.executable, "-I", "-S", str(SHIM)), input=data, capture_output=True, timeout=BOUND, check=False)
    assert done.returncode == 1
    assert done.stderr == b""
    return json.loads(done.stdout)


def test_a_long_state_path_is_no_obstacle(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 40) / ("deeper" * 30)
    folder.parent.mkdir()
    run = start(("/bin/sleep", "60"), folder=folder)
    assert run.ask(op="status")["state"] == "running"
    run.ask(op="cancel", now=True)
    run.wait()


def test_the_shim_holds_nothing_that_its_launcher_held() -> None:
    theirs, ours = socket.socketpair()
    with theirs, ours:
        theirs.set_inheritable(True)
        child = subprocess.Popen(
            (sys.executable, "-I", "-S", str(SHIM)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False, start_new_session=True
        )
        theirs.close()
        ours.settimeout(BOUND)
        assert ours.recv(1) == b""  # end of file while the shim still waits for its spec
        child.communicate(b"", timeout=BOUND)


def test_the_shim_holds_nothing_above_the_limit_of_today_either() -> None:
    """The limit says which numbers are given out from now on; who has lowered it keeps what he holds."""
    theirs, ours = socket.socketpair()
    with theirs, ours:
        high = fcntl.fcntl(theirs, fcntl.F_DUPFD, 200)
        child = subprocess.Popen(
            ("/bin/sh", "-c", f"ulimit -S -n {high - 100}; exec {shlex.join((sys.executable, '-I', '-S', str(SHIM)))}"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            close_fds=False,
            start_new_session=True,
        )
        os.close(high)
        theirs.close()
        ours.settimeout(BOUND)
        assert ours.recv(1) == b""  # end of file while the shim still waits for its spec
        child.communicate(b"", timeout=BOUND)


def test_the_shim_imports_no_more_than_it_must(start: Start) -> None:
    """Its start is paid by every run; each of these would cost milliseconds."""
    run = start(("/bin/true",))
    run.wait()
    source = str(SHIM.parents[2])
    code = f"import sys; sys.path.append({source!r}); import cc_executor.shim.start; print(*sys.modules)"
    done = subprocess.run((sys.executable, "-I", "-S", "-c", code), capture_output=True, text=True, timeout=BOUND, check=True)
    heavy = {"asyncio", "socket", "subprocess", "typing", "pathlib", "logging", "inspect", "dataclasses", "contextlib", "tempfile"}
    if sys.version_info < (3, 14):  # whose ctypes loads it, by way of sysconfig
        heavy |= {"threading"}
    assert heavy.isdisjoint(done.stdout.split())
