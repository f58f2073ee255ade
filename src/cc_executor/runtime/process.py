"""The agent's process for a request, and what its supervisor is told of it. Decides nothing and starts nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from cc_executor.agents import agent_named
from cc_executor.agents.base import Command
from cc_executor.model.request import RunRequest
from cc_executor.policy.environment import child_environment
from cc_executor.runtime.executable import Executable
from cc_executor.shim import records


class AgentProcess(msgspec.Struct, frozen=True):
    """A process as it is to be started.

    Attributes
    ----------
    command : Command
        As the agent's adapter makes it.
    argv : tuple of str
        That command, or the rehearsal of it.
    env : dict
        The whole environment.
    secrets : tuple of str
        Values in it that nobody is to read.
    """

    command: Command
    argv: tuple[str, ...]
    env: dict[str, str]
    secrets: tuple[str, ...]


def process_of(
    request: RunRequest,
    *,
    executable: Executable,
    environ: Mapping[str, str],
    session_id: str,
    mark: str,
    config_dir: str | None = None,
    waits: bool = False,
) -> AgentProcess:
    """The process for a request.

    Parameters
    ----------
    request : RunRequest
        Its `trust_workspace` says whether the folder is trusted, by whatever way.
    executable : Executable
    environ : mapping of str to str
        The environment that the agent's is chosen from.
    session_id : str
        A UUID for the agent's session.
    mark : str
        By which every process of it can be told from others.
    config_dir : str, optional
        Where a rehearsed agent keeps its files.
    waits : bool
        Whether it is to be started before its prompt is known.

    Raises
    ------
    InvalidRequest
        An option cannot be given to the agent.
    """
    command = agent_named(request.agent).command(
        request, executable=executable.path, session_id=session_id, version=executable.version, waits=waits
    )
    argv = command.argv
    if request.rehearse is not None:
        # -I: nothing in the workspace or in PYTHON* variables may stand in for a module of ours.
        argv = (
            sys.executable,
            "-I",
            "-m",
            "cc_executor.rehearsal",
            "--script",
            request.rehearse,
            "--config-dir",
            str(config_dir),
            "--",
            *argv,
        )
    env, secrets = child_environment(environ, extra_names=request.env_names, additions=command.env, agent=request.agent)
    return AgentProcess(command, argv, {**env, records.RUN_MARK: mark}, secrets)


def spec_of(request: RunRequest, process: AgentProcess, *, run_dir: str, run_id: str, pid: int, secrets: tuple[str, ...]) -> dict[str, Any]:
    """What a supervisor has to know, as in `cc_executor.shim.records.SPEC_FIELDS`. `secrets`: what is masked besides those of the process."""
    command = process.command
    return {
        "version": records.FORMAT_VERSION,
        "run_dir": run_dir,
        "run_id": run_id,
        "argv": list(process.argv),
        "env": process.env,
        "cwd": request.cwd,
        "stdin": "none" if command.stdin is None else "prompt" if command.talk is None else "talk",
        "wall": request.limits.wall,
        "stall": request.limits.stall,
        "lease_pid": pid,
        "on_lease_end": request.on_kernel_exit.value,
        "secrets": [*process.secrets, *secrets],
        "keep_background": request.keep_background,
        records.SPEC_JOURNAL_LIMIT: request.limits.journal,
        records.SPEC_LINGER: {"done": command.done, "anew": command.anew, "seconds": request.limits.linger} if command.done else None,
        records.SPEC_QUIET: list(command.quiet),
        records.SPEC_TALK: {"asked": command.talk.asked, "withdrawn": command.talk.withdrawn} if command.talk is not None else None,
    }
