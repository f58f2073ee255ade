"""From a request to a running shim. The only place that starts one. Everything that can be refused is refused before anything is spent."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import anyio.to_thread

from cc_executor.agents import agent_named
from cc_executor.errors import InvalidRequest, LaunchFailed, UnsupportedPlatform
from cc_executor.model.request import RunRequest
from cc_executor.policy.environment import child_environment
from cc_executor.runtime.executable import Executable, find_executable
from cc_executor.runtime.plan import PLAN, Plan, digest_of_file, resolved
from cc_executor.shim import records
from cc_executor.store.home import StateHome, new_run_id
from cc_executor.store.journal import RunFolder

START_BUDGET: Final = 20.0  # seconds for the shim's answer: 25-60 ms in the measurements, more on a machine that swaps
_SHIM: Final = Path(__file__).resolve().parents[1] / "shim" / "__main__.py"

# Shims started by this process, kept until they are reaped: an unreaped child is a zombie for as long as the kernel lives.
_shims: list[subprocess.Popen[bytes]] = []


async def launch(request: RunRequest, *, home: StateHome, environ: Mapping[str, str], pid: int) -> RunFolder:
    """Start a run and return when the agent's process is there.

    Parameters
    ----------
    request : RunRequest
    home : StateHome
        Where the run is kept.
    environ : Mapping
        The environment that the agent's is chosen from.
    pid : int
        The process that wants the run; when it ends, `request.on_kernel_exit` applies.

    Raises
    ------
    InvalidRequest, AgentNotFound, AgentUnsupported, StateUnusable, LaunchFailed, UnsupportedPlatform
        Nothing is left running and nothing was spent.
    """
    if os.name != "posix":
        raise UnsupportedPlatform("cc_executor stops and pauses process trees by POSIX signals, which Windows lacks. Use WSL.")
    return await anyio.to_thread.run_sync(_launch, request, home, dict(environ), pid)


def _launch(request: RunRequest, home: StateHome, environ: dict[str, str], pid: int) -> RunFolder:
    reap()
    _check_folders(request)
    home.prepare()
    executable = find_executable(request, environ=environ, home=home)
    folder = home.create(new_run_id(time.time()))
    try:
        plan, spec = _prepare(request, folder, executable, environ, pid)
        folder.write_new(records.REQUEST, request.model_dump_json().encode("utf-8", "surrogatepass"))
        folder.write_new(PLAN, plan.model_dump_json().encode("utf-8", "surrogatepass"))
        _start_shim(spec, folder)
    except BaseException:
        # Nothing runs, so nothing is to be kept: a folder without a run would be listed as lost.
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    return folder


def _check_folders(request: RunRequest) -> None:
    for what, name in (("cwd", request.cwd), *(("added folder", name) for name in request.add_dirs)):
        path = Path(name)
        if not path.is_absolute():
            raise InvalidRequest(f"The {what} {name!r} is not an absolute path.")
        if not path.is_dir():
            raise InvalidRequest(f"The {what} {name} does not exist or is not a folder. Make it, or name another.")
        if not os.access(path, os.R_OK | os.X_OK):
            raise InvalidRequest(f"The {what} {name} cannot be entered. Change its mode, or name another.")


def _prepare(request: RunRequest, folder: RunFolder, executable: Executable, environ: dict[str, str], pid: int) -> tuple[Plan, dict[str, Any]]:
    agent = agent_named(request.agent)
    session_id = str(uuid.uuid4())
    command = agent.command(request, executable=executable.path, session_id=session_id)
    argv, config_dir = command.argv, environ.get("CLAUDE_CONFIG_DIR") if agent.name == "claude" else None
    if request.rehearse is not None:
        config_dir = str(folder.path / "agent")
        # -I: nothing in the workspace or in PYTHON* variables may stand in for a module of ours.
        argv = (sys.executable, "-I", "-m", "cc_executor.rehearsal", "--script", request.rehearse, "--config-dir", config_dir, "--", *argv)
    env, secrets = child_environment(environ, extra_names=request.env_names, additions=command.env, agent=agent.name)
    env[records.RUN_MARK] = folder.run_id
    if command.stdin is not None:
        folder.write_new(records.PROMPT, command.stdin)
    plan = Plan(
        argv=argv,
        agent_path=executable.path,
        agent_version=executable.version,
        session_id=request.resume or session_id,
        env_names=tuple(sorted(env)),
        before={name: digest_of_file(resolved(name, cwd=request.cwd)) for name in request.expect},
        rehearsed=request.rehearse,
        config_dir=config_dir,
    )
    spec = {
        "version": records.FORMAT_VERSION,
        "run_dir": str(folder.path),
        "run_id": folder.run_id,
        "argv": list(argv),
        "env": env,
        "cwd": request.cwd,
        "stdin": "none" if command.stdin is None else "prompt",
        "wall": request.limits.wall,
        "stall": request.limits.stall,
        "lease_pid": pid,
        "on_lease_end": request.on_kernel_exit.value,
        "secrets": list(secrets),
        "keep_background": request.keep_background,
    }
    return plan, spec


def _start_shim(spec: dict[str, Any], folder: RunFolder) -> None:
    # -I: no user site, no PYTHON* variables; -S: no site packages, whose .pth files may run anything. The spec carries secrets, so it goes by pipe.
    argv = [sys.executable, "-I", "-S", str(_SHIM)]
    try:
        # start_new_session keeps vfork (0.1 ms); preexec_fn would fork a 2 GB kernel and block it for 60 ms. Out of the kernel's group, no signal
        # that Jupyter sends there reaches the shim.
        shim = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, cwd="/")
    except OSError as error:
        raise LaunchFailed(f"The run's supervisor could not be started ({error.strerror}): is the machine out of processes or memory?") from error
    raw = _answer_to(json.dumps(spec).encode(), shim)
    if raw is None:
        shim.kill()
        shim.wait()
        raise LaunchFailed(f"The run's supervisor did not answer in {START_BUDGET:.0f} s and was ended. Is the machine overloaded?")
    answer: Any = None
    with suppress(ValueError):  # no answer: the supervisor died, and its log says why
        answer = json.loads(raw)
    if not isinstance(answer, dict) or not answer.get("ok"):  # pyright: ignore[reportUnknownMemberType] - JSON of our own shim
        shim.wait(START_BUDGET)
        reason: object = answer.get("error") if isinstance(answer, dict) else folder.read(records.LOG, 0, 2000).decode(errors="replace").strip()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - as above
        raise LaunchFailed(f"The agent could not be started: {reason or 'its supervisor gave no reason'}.")
    _shims.append(shim)


def _answer_to(spec: bytes, shim: subprocess.Popen[bytes]) -> bytes | None:
    """The shim's one line; None if it does not come in time. Not `communicate`, which waits for the end of the process."""
    assert shim.stdin is not None  # both were asked for
    assert shim.stdout is not None
    with shim.stdin, suppress(BrokenPipeError):  # it died early; its silence tells
        shim.stdin.write(spec)
    deadline = time.monotonic() + START_BUDGET
    answer = bytearray()
    poll = select.poll()  # select() cannot watch descriptors over 1023, which a long-lived kernel may have
    with shim.stdout:
        poll.register(shim.stdout, select.POLLIN)
        while not answer.endswith(b"\n"):
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return None
            chunk = os.read(shim.stdout.fileno(), 65536)
            if not chunk:
                break
            answer += chunk
    return bytes(answer)


def reap() -> None:
    """Collect the exit status of shims that have ended."""
    _shims[:] = [shim for shim in _shims if shim.poll() is None]


