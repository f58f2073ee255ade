"""Finding the agent's executable and its version. Looks at files and asks `--version` once for each file; starts no agent."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, cast

import msgspec

from cc_executor.agents.shell import words_of
from cc_executor.errors import AgentNotFound, AgentUnsupported, StateUnusable
from cc_executor.model.request import RunRequest
from cc_executor.runtime.question import NoAnswer, ask
from cc_executor.store.home import StateHome
from cc_executor.store.plain import read_plain, write_whole

# Older ones lack flags that are always passed (`--setting-sources` came with 2.0); read and recorded with 2.1.197 and 2.1.329.
CLAUDE_MINIMUM: Final = (2, 0, 0)
VERSION_BUDGET: Final = 20.0  # seconds; 0.1-0.5 s on an idle machine, a cold 377 MB file from a slow disk takes longer
_VERSION_CACHE: Final = "agents.json"
_CACHE_LIMIT: Final = 1024 * 1024  # bytes; an entry has some 100, with the longest path 4,200
VERSIONS: Final = 100  # of the newest files that were asked; an update is another file, and few change between more than two
_VERSION: Final = re.compile(r"\d{1,9}\.\d{1,9}\.\d{1,9}", re.ASCII)
_INSTALL: Final = (
    "Install it with `pip install 'cc-executor[claude]'` or `npm install -g @anthropic-ai/claude-code`, or name it with --cli PATH."
)


class Executable(msgspec.Struct, frozen=True):
    """An agent's program: absolute path, and its version if it has one."""

    path: str
    version: str = ""


def find_executable(request: RunRequest, *, environ: Mapping[str, str], home: StateHome) -> Executable:
    """The program that `request` needs.

    Raises
    ------
    AgentNotFound, AgentUnsupported, InvalidRequest
        With the cure in the sentence. Nothing was started.
    """
    if request.agent == "claude":
        return _with_version(find_claude(request.cli, environ=environ), environ=environ, home=home)
    if request.shell:
        cure = "Install it, or name another with --shell, sh for instance, or the path of one."
        return Executable(_on_path(request.shell, environ=environ, cwd=request.cwd, what="shell", cure=cure))
    cure = "Check its spelling and PATH; for shell syntax name a shell with --shell bash."
    return Executable(_on_path(words_of(request.prompt)[0], environ=environ, cwd=request.cwd, what="command", cure=cure))


def find_claude(chosen: str | None, *, environ: Mapping[str, str]) -> str:
    """Absolute path of Claude Code's CLI: the one chosen, else on PATH, else bundled in `claude-agent-sdk`.

    Raises
    ------
    AgentNotFound
        There is none, or the chosen one is not an executable file.
    """
    if chosen:
        path = shutil.which(os.path.expanduser(chosen), path=environ.get("PATH"))
        if path is None:
            raise AgentNotFound(f"{chosen!r} is not an executable file. Name another with --cli PATH, or leave the option out.")
        return os.path.abspath(path)
    found = shutil.which("claude", path=environ.get("PATH"))
    if found:
        return os.path.abspath(found)
    bundled = _bundled_claude()
    if bundled:
        return bundled
    raise AgentNotFound(f"Claude Code's CLI was not found on PATH, nor in the package claude-agent-sdk. {_INSTALL}")


def _bundled_claude() -> str | None:
    # find_spec reads no code of the package: importing claude_agent_sdk costs 1.4 s of CPU in a Jupyter environment.
    try:
        spec = importlib.util.find_spec("claude_agent_sdk")
    except ValueError:  # a module of this name that was put together by hand
        return None
    if spec is None or not spec.origin:
        return None
    path = Path(spec.origin).parent / "_bundled" / "claude"
    return str(path) if os.access(path, os.X_OK) else None


def _on_path(name: str, *, environ: Mapping[str, str], cwd: str, what: str, cure: str) -> str:
    candidate = os.path.join(cwd, os.path.expanduser(name)) if os.sep in name else name
    path = shutil.which(candidate, path=environ.get("PATH"))
    if path is None:
        raise AgentNotFound(f"The {what} {name!r} was not found. {cure}")
    return os.path.abspath(path)


def _with_version(path: str, *, environ: Mapping[str, str], home: StateHome) -> Executable:
    version = _cached_version(path, environ=environ, home=home)
    if _numbers(version) < CLAUDE_MINIMUM:
        wanted = ".".join(map(str, CLAUDE_MINIMUM))
        raise AgentUnsupported(
            f"{path} is Claude Code {version}; {wanted} or later is needed. Update it with `claude update`, or name another with --cli PATH."
        )
    return Executable(path, version)


def _cached_version(path: str, *, environ: Mapping[str, str], home: StateHome) -> str:
    """`--version` costs 0.1-0.5 s, so its answer is kept for as long as the file is the same."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise AgentNotFound(f"{path} cannot be read: {error.strerror}. {_INSTALL}") from error
    key = f"{os.path.realpath(path)}:{status.st_size}:{status.st_mtime_ns}"
    cache_file = home.root / _VERSION_CACHE
    known = _known_versions(cache_file)
    if version := known.get(key):
        return version
    version = _ask_version(path, environ=environ)
    newest = dict([*known.items(), (key, version)][-VERSIONS:])
    with suppress(OSError, StateUnusable):  # a full disk costs the cache, not the run; and what is wrong with the folder, a launch says
        home.prepare()
        write_whole(cache_file, json.dumps(newest).encode(), sync=False)
    return version


def _known_versions(cache_file: Path) -> dict[str, str]:
    """What is kept of earlier answers, oldest first; what is none of ours is left out."""
    try:
        found: object = json.loads(read_plain(cache_file, _CACHE_LIMIT))
    except (OSError, ValueError, RecursionError):
        return {}
    kept = cast("dict[str, object]", found) if isinstance(found, dict) else {}
    return {key: version for key, version in kept.items() if isinstance(version, str) and _VERSION.fullmatch(version)}


def _ask_version(path: str, *, environ: Mapping[str, str]) -> str:
    env = {"PATH": environ.get("PATH", os.defpath), "HOME": environ.get("HOME", "/"), "DISABLE_AUTOUPDATER": "1"}
    try:
        code, answer = ask((path, "--version"), env=env, budget=VERSION_BUDGET)
    except NoAnswer as error:
        raise AgentUnsupported(f"{path} --version did not answer in {VERSION_BUDGET:g} s. Name another with --cli PATH.") from error
    except OSError as error:
        raise AgentNotFound(f"{path} cannot be run: {error.strerror}. {_INSTALL}") from error
    match = re.search(rb"\d{1,9}\.\d{1,9}\.\d{1,9}", answer)
    if code != 0 or match is None:
        raise AgentUnsupported(f"{path} --version did not answer like Claude Code (exit code {code}). Name another with --cli PATH.")
    return match.group().decode()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
