"""From a request to a running shim. The only place that starts one. Everything that can be refused is refused before anything is spent."""

from __future__ import annotations

import errno
import json
import os
import select
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

import anyio

from cc_executor.agents import agent_named
from cc_executor.errors import InvalidRequest, LaunchFailed, NestedTooDeep, StateUnusable, UnsupportedPlatform
from cc_executor.model.request import RunId, RunRequest
from cc_executor.policy.environment import DEEPEST, DEPTH, child_environment, depth_of
from cc_executor.runtime.errand import Errand
from cc_executor.runtime.executable import VERSION_BUDGET, Executable, find_executable
from cc_executor.runtime.forecast import load_now, predict
from cc_executor.runtime.leftovers import end_marked
from cc_executor.runtime.plan import PLAN, Plan, digest_of_file, resolved
from cc_executor.runtime.reconcile import reconcile
from cc_executor.runtime.snapshot import beginning, take_before
from cc_executor.runtime.workspace import is_trusted, own_settings
from cc_executor.shim import records
from cc_executor.store.home import STATE_VARIABLE, StateHome, new_run_id
from cc_executor.store.journal import RunFolder, request_json
from cc_executor.store.keys import private_values

START_BUDGET: Final = 20.0  # seconds for the shim's answer: 25-60 ms in the measurements, more on a machine that swaps
# A cancelled launch waits for its thread: asking for the version, and the shim's answer. It is told, and both are quick, or end at their own budgets.
ABANDON_BUDGET: Final = VERSION_BUDGET + START_BUDGET + 2.0
END_BUDGET: Final = 10.0  # seconds for the end of a run that nobody wants any more, which may tidy up for the 2 s that every run has
REAP_BUDGET: Final = 0.5  # seconds; a shim ends some milliseconds after its last record, or when a slow disk has it all
# What a supervisor gets of our own environment, whose secrets it must not show in /proc to every process of this user: what finds the libraries of a Python
# that was built or loaded as a module, and the mark of the run within which this one is started. The agent's environment comes with the spec.
SHIM_NEEDS: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", records.RUN_MARK)
_SHIM: Final = Path(__file__).resolve().parents[1] / "shim" / "__main__.py"
_NO_REASON: Final = "its supervisor gave no reason; it may have been killed for want of memory: make some free, and try again"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})

# Shims started by this process, kept until they are reaped: an unreaped child is a zombie for as long as the kernel lives.
_shims: Final[dict[str, subprocess.Popen[bytes]]] = {}


async def launch(
    request: RunRequest,
    *,
    home: StateHome,
    environ: Mapping[str, str],
    pid: int,
    unwanted: Callable[[RunFolder], Awaitable[object]],
    keep: Callable[[RunFolder], object] = lambda folder: None,
    run_id: RunId | None = None,
) -> RunFolder:
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
    unwanted : callable
        Awaited with the run that could not be kept from starting when this was cancelled; it has to end it.
    keep : callable
        Writes down what else belongs to the run, before its process is there: this one may be killed a moment after.
    run_id : RunId, optional
        The run's id, where somebody has written it down before; each starts at most one run.

    Raises
    ------
    InvalidRequest, AgentNotFound, AgentUnsupported, StateUnusable, LaunchFailed, UnsupportedPlatform
        Nothing is left running and nothing was spent.
    """
    if os.name != "posix":
        raise UnsupportedPlatform("cc_executor stops and pauses process trees by POSIX signals, which Windows lacks. Use WSL.")
    chosen = dict(environ)
    errand = Errand(lambda stop: _launch(request, home, chosen, pid, stop, keep=keep, run_id=run_id), patience=ABANDON_BUDGET)
    try:
        return await errand.run()
    except BaseException:
        if errand.result is not None:
            with anyio.CancelScope(shield=True), anyio.move_on_after(END_BUDGET):
                await unwanted(errand.result)
        raise


def check(request: RunRequest, *, home: StateHome, environ: Mapping[str, str]) -> None:
    """Find what a launch would find wrong with a request, which is to be launched later. Blocking, as long as an unknown agent takes to say its version.

    Raises
    ------
    InvalidRequest, AgentNotFound, AgentUnsupported
    """
    _check_folders(request)
    executable = find_executable(request, environ=environ, home=home)
    command = agent_named(request.agent).command(
        request, executable=executable.path, session_id=str(uuid.uuid4()), version=executable.version
    )
    child_environment(environ, extra_names=request.env_names, additions=command.env, agent=request.agent)


def _launch(
    request: RunRequest,
    home: StateHome,
    environ: dict[str, str],
    pid: int,
    stop: threading.Event,
    *,
    keep: Callable[[RunFolder], object],
    run_id: RunId | None,
) -> RunFolder:
    reap()
    if depth_of(environ) >= DEEPEST:
        raise NestedTooDeep(
            f"This run would be one within {DEEPEST} others: agents, checks or hooks start one another. "
            f"Start it outside of them; if it is outside, unset {DEPTH}."
        )
    _check_folders(request)
    home.prepare()
    executable = find_executable(request, environ=environ, home=home)
    # Before there is a folder: gigabytes may be read here, and a run that is not started for so long is taken for a lost one.
    before = {name: digest_of_file(resolved(name, cwd=request.cwd)) for name in request.expect}
    with beginning(request, home=home, is_over=stop.is_set):
        folder = home.create(run_id or new_run_id(time.time()))
        try:
            plan, spec = _prepare(request, folder, executable, environ, pid, before=before, trusted=is_trusted(request, home))
            folder.write_new(records.REQUEST, request_json(request))
            folder.write_new(PLAN, plan.to_json())
            take_before(request, folder, home=home, environ=environ)
            keep(folder)
            if stop.is_set():
                raise LaunchFailed("The launch was cancelled.")
            _start_shim(spec, folder)
        except BaseException:
            home.discard(folder.run_id)  # nothing runs, so nothing is to be kept
            raise
    reconcile(home, environ=environ)
    return folder


def _check_folders(request: RunRequest) -> None:
    for what, name in (("cwd", request.cwd), *(("added folder", name) for name in request.add_dirs)):
        path = Path(name)
        if not path.is_absolute():
            raise InvalidRequest(f"The {what} {name!r} is not an absolute path: begin it with a slash.")
        if not _is_folder(path):
            raise InvalidRequest(f"The {what} {name} does not exist or is not a folder. Make it, or name another.")
        if not os.access(path, os.R_OK | os.X_OK):
            raise InvalidRequest(f"The {what} {name} cannot be entered. Change its mode, or name another.")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long, or a parent that is closed to us
        return False


def _prepare(
    request: RunRequest,
    folder: RunFolder,
    executable: Executable,
    environ: dict[str, str],
    pid: int,
    *,
    before: dict[str, str | None],
    trusted: bool,
) -> tuple[Plan, dict[str, Any]]:
    agent = agent_named(request.agent)
    session_id = str(uuid.uuid4())
    asked = request.model_copy(update={"trust_workspace": trusted})
    command = agent.command(asked, executable=executable.path, session_id=session_id, version=executable.version)
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
        before=before,
        rehearsed=request.rehearse,
        config_dir=config_dir,
        own_settings=own_settings(request.cwd) if agent.name == "claude" else (),
        workspace_trusted=trusted,
        notebook=_notebook(environ),
        load=(load := load_now()),
        prediction=predict(folder.path.parent.parent, request, load=load),
    )
    spec = {
        "version": records.FORMAT_VERSION,
        "run_dir": str(folder.path),
        "run_id": folder.run_id,
        "argv": list(argv),
        "env": env,
        "cwd": request.cwd,
        "stdin": "none" if command.stdin is None else "prompt" if command.talk is None else "talk",
        "wall": request.limits.wall,
        "stall": request.limits.stall,
        "lease_pid": pid,
        "on_lease_end": request.on_kernel_exit.value,
        "secrets": [*secrets, *private_values(folder.path.parent.parent)],
        "keep_background": request.keep_background,
        records.SPEC_JOURNAL_LIMIT: request.limits.journal,
        records.SPEC_LINGER: {"done": command.done, "anew": command.anew, "seconds": request.limits.linger} if command.done else None,
        records.SPEC_TALK: {"asked": command.talk.asked, "withdrawn": command.talk.withdrawn} if command.talk is not None else None,
    }
    return plan, spec


def _notebook(environ: Mapping[str, str]) -> str:
    """The notebook of this kernel, as jupyter_server 2 names it in the kernel's environment; another session's name is no path."""
    name = environ.get("JPY_SESSION_NAME", "")
    return name if name.endswith(".ipynb") else ""


def _start_shim(spec: dict[str, Any], folder: RunFolder) -> None:
    # -I: no user site, no PYTHON* variables; -S: no site packages, whose .pth files may run anything. The spec carries secrets, so it goes by pipe.
    argv = [sys.executable, "-I", "-S", str(_SHIM)]
    try:
        # start_new_session keeps vfork (0.1 ms); preexec_fn would fork a 2 GB kernel and block it for 60 ms. Out of the kernel's group, no signal
        # that Jupyter sends there reaches the shim.
        shim = subprocess.Popen(
            argv,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env={name: os.environ[name] for name in SHIM_NEEDS if name in os.environ},
        )
    except OSError as error:
        raise LaunchFailed(
            f"The run's supervisor could not be started ({error.strerror}). If the machine is out of processes or memory, end some, and try again."
        ) from error
    raw = _answer_to(json.dumps(spec).encode() + b"\n", shim)
    answer: Any = None
    with suppress(ValueError):  # no answer: the supervisor died, and its log says why
        answer = json.loads(raw or b"")
    if isinstance(answer, dict) and answer.get("ok"):  # pyright: ignore[reportUnknownMemberType] - JSON of our own shim
        _shims[folder.run_id] = shim
        return
    if raw is None:
        shim.kill()
    with suppress(subprocess.TimeoutExpired):  # stuck in the kernel: it is reaped when it is an orphan
        shim.wait(START_BUDGET)
    if answer is None:  # it may have started the agent, which has ended with it, but for what works in sessions of its own
        end_marked(folder.run_id)
    if raw is None:
        raise LaunchFailed(
            f"The run's supervisor did not answer in {START_BUDGET:.0f} s and was ended. Try again when the machine has less to do."
        )
    raise _refusal(cast("dict[str, Any]", answer) if isinstance(answer, dict) else {}, folder)


def _refusal(answer: dict[str, Any], folder: RunFolder) -> LaunchFailed | StateUnusable:
    """Why the shim did not start the agent."""
    number = answer.get("errno")
    if number in _FULL:
        return StateUnusable(
            f"There is no room for a run in {folder.path.parent} ({os.strerror(number)}). Make room, or set {STATE_VARIABLE} to another folder."
        )
    if number == errno.EFBIG:
        return LaunchFailed(
            "A run's files may not have the size that they need (`ulimit -f`). Raise that limit where Jupyter or the terminal is started."
        )
    log = folder.read(records.LOG, 0, 2000).decode(errors="replace").strip()
    reason = str(answer.get("error") or (log.splitlines() or [""])[-1] or _NO_REASON).rstrip(".")
    return LaunchFailed(f"The agent could not be started: {reason}.")


def _answer_to(spec: bytes, shim: subprocess.Popen[bytes]) -> bytes | None:
    """The shim's one line; None if it does not come in time. Not `communicate`, which waits for the end of the process."""
    assert shim.stdin is not None  # both were asked for
    assert shim.stdout is not None
    deadline = time.monotonic() + START_BUDGET
    answer = bytearray()
    rest = memoryview(spec)
    poll = select.poll()  # select() cannot watch descriptors over 1023, which a long-lived kernel may have
    with shim.stdin, shim.stdout:
        os.set_blocking(shim.stdin.fileno(), False)  # a large environment is more than a pipe holds
        poll.register(shim.stdin, select.POLLOUT)
        poll.register(shim.stdout, select.POLLIN)
        while not answer.endswith(b"\n"):
            ready = dict(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
            if not ready:
                return None
            if not shim.stdin.closed and shim.stdin.fileno() in ready:
                rest = _written(rest, shim.stdin.fileno())
                if not rest:
                    poll.unregister(shim.stdin)
                    shim.stdin.close()
            elif shim.stdout.fileno() in ready:
                chunk = os.read(shim.stdout.fileno(), 65536)
                if not chunk:
                    break
                answer += chunk
    return bytes(answer)


def _written(rest: memoryview, pipe: int) -> memoryview:
    """What is still to be written; nothing, if nobody reads any more: its silence tells."""
    try:
        return rest[os.write(pipe, rest) :]
    except BlockingIOError:
        return rest
    except BrokenPipeError:
        return rest[:0]


def reap() -> None:
    """Collect the exit status of shims that have ended."""
    for run_id, shim in list(_shims.items()):
        if shim.poll() is not None:
            _shims.pop(run_id, None)


def terminate(run_id: str) -> bool:
    """Tell the shim of a run to end it, where its socket is gone with its folder. False when it was not started here, or has ended."""
    shim = _shims.get(run_id)
    if shim is None or shim.poll() is not None:
        return False
    shim.terminate()
    return True


async def reaped(run_id: str) -> None:
    """Wait, a moment at most, until the shim of a run that has ended is gone and reaped, if it was started here."""
    with anyio.move_on_after(REAP_BUDGET):
        while (shim := _shims.get(run_id)) is not None and shim.poll() is None:  # noqa: ASYNC110 - a process, which has no event
            await anyio.sleep(REAP_BUDGET / 100)
    reap()
