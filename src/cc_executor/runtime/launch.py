"""From a request to a running shim. The only place that starts one. Everything that can be refused is refused before anything is spent."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from cc_executor.errors import InvalidRequest, LaunchFailed, NestedTooDeep, StateUnusable, UnsupportedPlatform
from cc_executor.model.request import RunId, RunRequest
from cc_executor.policy.environment import DEEPEST, DEPTH, depth_of
from cc_executor.runtime import supervisor
from cc_executor.runtime.errand import Errand
from cc_executor.runtime.executable import VERSION_BUDGET, Executable, find_executable
from cc_executor.runtime.forecast import load_now, predict
from cc_executor.runtime.leftovers import end_marked
from cc_executor.runtime.plan import PLAN, Plan, digest_of_file, resolved
from cc_executor.runtime.process import AgentProcess, process_of, spec_of
from cc_executor.runtime.reconcile import reconcile
from cc_executor.runtime.snapshot import beginning, take_before
from cc_executor.runtime.supervisor import START_BUDGET
from cc_executor.runtime.workspace import is_trusted, own_settings
from cc_executor.shim import records
from cc_executor.store.home import STATE_VARIABLE, StateHome, new_run_id
from cc_executor.store.journal import RunFolder, request_json
from cc_executor.store.keys import private_values

if TYPE_CHECKING:
    from cc_executor.runtime.spare import Spare

# A cancelled launch waits for its thread: asking for the version, and the shim's answer. It is told, and both are quick, or end at their own budgets.
ABANDON_BUDGET: Final = VERSION_BUDGET + START_BUDGET + 2.0
END_BUDGET: Final = 10.0  # seconds for the end of a run that nobody wants any more, which may tidy up for the 2 s that every run has
_NO_REASON: Final = "its supervisor gave no reason; it may have been killed for want of memory: make some free, and try again"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


async def launch(
    request: RunRequest,
    *,
    home: StateHome,
    environ: Mapping[str, str],
    pid: int,
    unwanted: Callable[[RunFolder], Awaitable[object]],
    keep: Callable[[RunFolder], object] = lambda folder: None,
    run_id: RunId | None = None,
    spared: bool = False,
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
    spared : bool
        Whether an agent that this process keeps waiting may take the run; see `cc_executor.runtime.spare`.

    Raises
    ------
    InvalidRequest, AgentNotFound, AgentUnsupported, StateUnusable, LaunchFailed, UnsupportedPlatform
        Nothing is left running and nothing was spent.
    """
    if os.name != "posix":
        raise UnsupportedPlatform("cc_executor stops and pauses process trees by POSIX signals, which Windows lacks. Use WSL.")
    chosen = dict(environ)
    errand = Errand(
        lambda stop: _launch(request, home, chosen, pid, stop, keep=keep, run_id=run_id, spared=spared), patience=ABANDON_BUDGET
    )
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
    process_of(request, executable=executable, environ=environ, session_id=str(uuid.uuid4()), mark="")


def _launch(
    request: RunRequest,
    home: StateHome,
    environ: dict[str, str],
    pid: int,
    stop: threading.Event,
    *,
    keep: Callable[[RunFolder], object],
    run_id: RunId | None,
    spared: bool,
) -> RunFolder:
    supervisor.reap()
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
    run_id = run_id or new_run_id(time.time())

    def begun(spare: Spare | None) -> RunFolder:
        folder = home.create(run_id)
        try:
            prepared = partial(_prepare, request, folder, executable, environ, pid, before=before, trusted=is_trusted(request, home))
            plan, spec, process = prepared(spare=spare)
            if spare is not None and not spare.fits(spec, environ):
                spare.end()
                spare = None
                plan, spec, process = prepared()
            if process.command.stdin is not None:
                folder.write_new(records.PROMPT, process.command.stdin)
            folder.write_new(records.REQUEST, request_json(request))
            folder.write_new(PLAN, plan.to_json())
            take_before(request, folder, home=home, environ=environ)
            keep(folder)
            if stop.is_set():
                raise LaunchFailed("The launch was cancelled.")
            _start_shim(spec, folder, spare)
        except BaseException:
            if spare is not None:
                spare.end()
            home.discard(folder.run_id)  # nothing runs, so nothing is to be kept
            raise
        return folder

    with beginning(request, home=home, is_over=stop.is_set):
        try:
            folder = begun(_spare_for(request) if spared else None)
        except _SpareGone:
            folder = begun(None)
    reconcile(home, environ=environ)
    return folder


class _SpareGone(Exception):
    """The agent that was to take the run has ended before it could begin it."""


def _spare_for(request: RunRequest) -> Spare | None:
    if request.rehearse is not None or request.resume is not None:
        return None
    from cc_executor.runtime import spare  # here: few ask for one

    return spare.take()


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
    spare: Spare | None = None,
) -> tuple[Plan, dict[str, Any], AgentProcess]:
    is_claude = request.agent == "claude"
    config_dir = environ.get("CLAUDE_CONFIG_DIR") if is_claude else None
    if request.rehearse is not None:
        config_dir = str(folder.path / "agent")
    session_id = spare.session_id if spare is not None else str(uuid.uuid4())
    process = process_of(
        request.model_copy(update={"trust_workspace": trusted}),
        executable=executable,
        environ=environ,
        session_id=session_id,
        mark=spare.mark if spare is not None else folder.run_id,
        config_dir=config_dir,
        waits=spare is not None,
    )
    plan = Plan(
        argv=process.argv,
        agent_path=executable.path,
        agent_version=executable.version,
        session_id=request.resume or session_id,
        env_names=tuple(sorted(process.env)),
        before=before,
        rehearsed=request.rehearse,
        config_dir=config_dir,
        own_settings=own_settings(request.cwd) if is_claude else (),
        workspace_trusted=trusted,
        notebook=_notebook(environ),
        load=(load := load_now()),
        prediction=predict(folder.path.parent.parent, request, load=load),
        mark=spare.mark if spare is not None else "",
        waited=round(time.monotonic() - spare.since, 3) if spare is not None else None,
    )
    spec = spec_of(
        request,
        process,
        run_dir=str(folder.path),
        run_id=folder.run_id,
        pid=pid,
        secrets=private_values(folder.path.parent.parent),
    )
    return plan, spec, process


def _notebook(environ: Mapping[str, str]) -> str:
    """The notebook of this kernel, as jupyter_server 2 names it in the kernel's environment; another session's name is no path."""
    name = environ.get("JPY_SESSION_NAME", "")
    return name if name.endswith(".ipynb") else ""


def _start_shim(spec: dict[str, Any], folder: RunFolder, spare: Spare | None = None) -> None:
    shim = spare.shim if spare is not None else supervisor.started()
    answer = supervisor.answer_to(spec, shim)
    supervisor.close(shim)
    if answer is not None and answer.get("ok"):
        supervisor.keep(folder.run_id, shim)
        return
    if answer is None:
        shim.kill()
    with suppress(subprocess.TimeoutExpired):  # stuck in the kernel: it is reaped when it is an orphan
        shim.wait(START_BUDGET)
    if not answer:  # it may have started the agent, which has ended with it, but for what works in sessions of its own
        end_marked(spec["env"][records.RUN_MARK])
    if spare is not None and _is_unbegun(answer, folder):
        raise _SpareGone
    if answer is None:
        raise LaunchFailed(
            f"The run's supervisor did not answer in {START_BUDGET:.0f} s and was ended. Try again when the machine has less to do."
        )
    raise _refusal(answer, folder)


def _is_unbegun(answer: dict[str, Any] | None, folder: RunFolder) -> bool:
    """Whether a run that a supervisor was given has certainly not begun: it says so, or has not even taken the folder."""
    return answer["errno"] == errno.ESRCH if answer else not os.path.lexists(folder.path / records.CONTROL)


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
