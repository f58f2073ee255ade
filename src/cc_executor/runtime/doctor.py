"""What this machine has and lacks for running agents. Looks and asks; changes nothing."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cc_executor.errors import CCExecutorError
from cc_executor.model.request import RunRequest
from cc_executor.model.size import size_words
from cc_executor.runtime.executable import find_executable
from cc_executor.runtime.login import LOGIN_CURE, login_of
from cc_executor.store.home import StateHome
from cc_executor.store.keys import PRIVATE, is_available, signing_key

ROOM: Final = 100 * 10**6  # bytes; an hour of a talkative agent, which writes 26 kB a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the examination. `required`: without it no run is possible."""

    what: str
    ok: bool
    detail: str
    cure: str = ""
    required: bool = True

    def __str__(self) -> str:
        mark = "✓" if self.ok else "✗" if self.required else "–"
        return f"{mark} {self.what}: {self.detail}{f' — {self.cure}' if self.cure else ''}"


def examine(*, home: StateHome, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Every finding, cheapest first."""
    yield Finding(
        what="system",
        ok=os.name == "posix",
        detail=f"{platform.system()} {platform.release()}",
        cure="" if os.name == "posix" else "Run Jupyter inside WSL.",
    )
    yield Finding(what="python", ok=sys.version_info >= (3, 11), detail=platform.python_version())
    yield from _state(home)
    yield from _claude(home, environ)
    for package, required in (
        ("ipython", True),
        ("anywidget", True),
        ("ipykernel", False),
        ("jupyterlab", False),
        ("notebook", False),
        ("jupyter-server", False),
    ):
        yield _package(package, required=required)
    yield from _kernel()
    yield _server_extension()
    yield _signing(home)


def _state(home: StateHome) -> Iterator[Finding]:
    try:
        home.prepare()
    except CCExecutorError as error:
        yield Finding(what="state folder", ok=False, detail=str(error))
        return
    yield Finding(what="state folder", ok=True, detail=str(home.root))
    disk = os.statvfs(home.root)
    free = disk.f_bavail * disk.f_frsize
    has_room = free >= ROOM
    yield Finding(
        what="room in it",
        ok=has_room,
        detail=f"{size_words(free)}{'' if has_room else ': what runs write may not be kept'}",
        cure=""
        if has_room
        else "Make room (`cc-executor history prune` shows what old runs hold), or set CC_EXECUTOR_STATE to another folder.",
        required=False,
    )


def _signing(home: StateHome) -> Finding:
    """The key that signs receipts."""
    if is_available() and not os.path.lexists(home.root / PRIVATE):
        return Finding(what="signing", ok=True, detail="a key is made with the first receipt", required=False)
    try:
        return Finding(what="signing", ok=True, detail=f"key {signing_key(home).fingerprint}", required=False)
    except CCExecutorError as error:
        return Finding(what="signing", ok=False, detail=str(error), required=False)


def _claude(home: StateHome, environ: Mapping[str, str]) -> Iterator[Finding]:
    try:
        found = find_executable(RunRequest(prompt="-", cwd="/"), environ=environ, home=home)
    except CCExecutorError as error:
        yield Finding(what="Claude Code", ok=False, detail=str(error))
        return
    yield Finding(what="Claude Code", ok=True, detail=f"{found.version} at {found.path}")
    login = login_of(found.path, environ=environ)
    detail = login.method if login.logged_in else "nobody is logged in" if login.known else "`claude auth status` gave no answer"
    yield Finding(what="login", ok=login.logged_in, detail=detail, cure="" if login.logged_in else LOGIN_CURE, required=False)


def _package(name: str, *, required: bool) -> Finding:
    try:
        return Finding(what=name, ok=True, detail=importlib.metadata.version(name), required=required)
    except importlib.metadata.PackageNotFoundError:
        return Finding(
            what=name, ok=False, detail="not in this environment", cure=f"pip install {name}" if required else "", required=required
        )


def _kernel() -> Iterator[Finding]:
    """A fault of ipykernel that people meet as a cell that never begins."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        version = importlib.metadata.version("ipykernel")
        if version.startswith(("7.0.", "7.1.", "7.2.", "7.3.")):
            yield Finding(
                what="kernels",
                ok=False,
                detail=f"with ipykernel {version}, a cell may never begin and its kernel hang; where cc_executor is loaded, it begins a little late",
                cure="pip install --upgrade ipykernel",
                required=False,
            )


def _server_extension() -> Finding:
    """Whether there is a Jupyter server in this environment, and the file that enables the server extension lies where it looks."""
    is_installed = importlib.util.find_spec("jupyter_server") is not None
    there = is_installed and Path(sys.prefix, "etc", "jupyter", "jupyter_server_config.d", "cc_executor.json").is_file()
    return Finding(
        what="server extension",
        ok=there,
        detail="enabled" if there else "not enabled in this environment" if is_installed else "no jupyter_server in this environment",
        cure=""
        if there
        else "Install cc-executor where the Jupyter server runs, so that saving lifts receipts; `cc-executor lift NOTEBOOK` does the same.",
        required=False,
    )
