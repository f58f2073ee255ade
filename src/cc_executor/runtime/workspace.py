"""The folder in which an agent works: whether it has settings of its own, whether they take effect, and what is said about it. Looks at names; reads none.

In `-p` mode the CLI asks nobody whether a folder is to be trusted: a repository from the Internet has run its hook, started its MCP server and received the
API key (docs/measured.md). So a folder's own settings take effect only where the user has said so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cc_executor.errors import InvalidRequest, StateUnusable
from cc_executor.model.paths import EMPTY
from cc_executor.model.request import RunRequest
from cc_executor.runtime import snapshot
from cc_executor.runtime.plan import Plan
from cc_executor.shim import records
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder
from cc_executor.store.trust import Trusted, TrustList
from cc_executor.store.unshared import Unshared

_SERVERS: Final = ".mcp.json"
# What Claude Code reads in a project with `--setting-sources=user,project,local` (2.1.197 and 2.1.329). CLAUDE.md is text and is read in any case.
OWN_SETTINGS: Final = (
    ".claude/settings.json",
    ".claude/settings.local.json",
    ".claude/agents",
    ".claude/commands",
    ".claude/skills",
    _SERVERS,
)


def own_settings(folder: str) -> tuple[str, ...]:
    """Which of `OWN_SETTINGS` are in a folder, and which folders above it name MCP servers, which the CLI takes along (2.1.329)."""
    above = (str(parent / _SERVERS) for parent in Path(os.path.realpath(folder)).parents)
    return (*(name for name in OWN_SETTINGS if os.path.lexists(os.path.join(folder, name))), *filter(os.path.lexists, above))


def is_trusted(request: RunRequest, home: StateHome) -> bool:
    """Whether the settings of the request's folder may take effect: for this run, or for the folder."""
    return request.agent == "claude" and (request.trust_workspace or TrustList(home).holds(request.cwd))


def remark(folder: RunFolder) -> str:
    """What is to be said at the beginning of a run about its folder; mostly nothing."""
    return " ".join(filter(None, (_said_of_settings(folder), snapshot.remark(folder), Unshared(folder.path.parent.parent).told())))


def _said_of_settings(folder: RunFolder) -> str:
    try:
        plan = Plan.of(folder)
    except StateUnusable:
        return ""
    if not plan.own_settings:
        return ""
    names = ", ".join(plan.own_settings)
    if plan.workspace_trusted:
        return f"The workspace is trusted: its own settings are in effect ({names})."
    return f"The workspace is not trusted: its own settings are not in effect ({names}). If you trust whoever wrote them: `%cc trust` or `cc-executor trust`."


def trust(folder: str, *, home: StateHome, environ: Mapping[str, str]) -> str:
    """Trust a folder from now on; a sentence that says what that means.

    Raises
    ------
    InvalidRequest
        It is empty, there is no such folder, or an agent asks.
    StateUnusable
        It cannot be kept.
    """
    _refuse_agents(environ)
    _refuse_nothing(folder)
    entry = TrustList(home).add(folder)
    found = own_settings(entry.path)
    what = f"Its own settings take effect in every run there: {', '.join(found)}." if found else "It has no settings of its own yet."
    return f"Trusted: {entry.path}. {what}"


def untrust(folder: str, *, home: StateHome) -> str:
    """Take trust back; a sentence.

    Raises
    ------
    InvalidRequest
        It is empty.
    StateUnusable
        It cannot be kept.
    """
    _refuse_nothing(folder)
    path = TrustList(home).remove(folder)
    return f"{os.path.realpath(folder)} was not trusted; nothing was changed." if path is None else f"Not trusted any more: {path}."


def trusted_folders(home: StateHome) -> list[tuple[str, bool]]:
    """Every trusted folder, and whether it is still the one that was trusted.

    Raises
    ------
    StateUnusable
    """
    return [(entry.path, _is_same(entry)) for entry in TrustList(home).folders()]


def _is_same(entry: Trusted) -> bool:
    try:
        return Trusted.of(entry.path) == entry
    except InvalidRequest:
        return False


def _refuse_nothing(folder: str) -> None:
    if not folder:
        raise InvalidRequest(f"The folder {EMPTY}")


def _refuse_agents(environ: Mapping[str, str]) -> None:
    # No wall: an agent that may run commands can write the list itself. It keeps an agent that means well from answering for its user.
    if records.RUN_MARK in environ:
        raise InvalidRequest("An agent cannot trust a folder for its user: do it in a notebook or a terminal of your own.")
