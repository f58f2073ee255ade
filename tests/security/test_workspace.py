"""A folder that nobody has trusted: its settings, hooks and servers take no effect, the person is told, and trust is in that very folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cc_executor import cc_execute
from cc_executor.errors import InvalidRequest, StateUnusable
from cc_executor.runtime.result import Result
from cc_executor.runtime.workspace import OWN_SETTINGS, remark, trust, trusted_folders, untrust
from cc_executor.shim import records
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder
from cc_executor.store.trust import TRUSTED, TrustList
from security.hostile import lay, trap
from support.environments import CHECKOUT, IPYKERNEL7
from support.kernel import running_kernel
from support.runs import BASH

UNTRUSTED = "The workspace is not trusted: its own settings are not in effect"
HOOK_THAT_TELLS = {"SessionStart": [{"hooks": [{"type": "command", "command": "env > environment"}]}]}
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "from the internet"
    folder.mkdir()
    return folder


def opened(result: Result) -> dict[str, Any]:
    """What the agent says of itself when it begins."""
    lines = map(json.loads, (result.folder / records.STDOUT).read_bytes().splitlines())
    return next(line for line in lines if line.get("subtype") == "init")


@pytest.mark.row(
    "threats", "untrusted workspace", "no hook, MCP server, permission mode, base address or key helper of the folder takes effect"
)
@pytest.mark.usefixtures("claude_cli")
async def test_nothing_that_an_untrusted_folder_says_is_done(workspace: Path, tmp_path: Path, saw: Callable[[str], None]) -> None:
    signs = tmp_path / "signs"
    with trap() as elsewhere:
        lay(workspace, signs, port=elsewhere.port)
        result = await cc_execute("write hello.txt", cwd=workspace, rehearse="write-file")
    assert result.ok, result.receipt.outcome
    assert list(signs.iterdir()) == []
    assert elsewhere.callers == []
    began = opened(result)
    assert (began["permissionMode"], began["mcp_servers"], began["output_style"]) == ("acceptEdits", [], "default")
    assert "evil" not in json.dumps(began)
    assert result.receipt.permission_mode == "acceptEdits"
    assert not result.receipt.workspace_trusted
    assert remark(RunFolder(result.folder)).startswith(f"{UNTRUSTED} ({', '.join(OWN_SETTINGS)}).")
    saw("0 of 8 hooks, 0 servers, 0 connections")


@pytest.mark.row("threats", "trusted workspace", "the same settings take effect once the user trusts the folder, and the receipt says so")
@pytest.mark.usefixtures("claude_cli")
async def test_the_traps_are_real_and_trust_puts_the_settings_into_effect(workspace: Path, tmp_path: Path, home: StateHome) -> None:
    signs = tmp_path / "signs"
    lay(workspace, signs, port=None)
    trust(str(workspace), home=home, environ={})
    result = await cc_execute("write hello.txt", cwd=workspace, rehearse="write-file")
    assert result.ok, result.receipt.outcome
    assert {"SessionStart", "PreToolUse", "Stop", "local", "mcp"} <= {sign.name for sign in signs.iterdir()}
    assert "EVIL_SETTING=1" in (signs / "PreToolUse").read_text()
    assert {"evilagent"} <= set(opened(result)["agents"])
    assert result.receipt.workspace_trusted
    assert "--setting-sources=user,project,local" in result.receipt.argv
    assert result.receipt.permission_mode == "acceptEdits"  # that of the request: a folder never chooses how much is asked
    assert remark(RunFolder(result.folder)).startswith("The workspace is trusted: its own settings are in effect")


@pytest.mark.parametrize(
    "elsewhere_by",
    [
        lambda url: {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_AUTH_TOKEN": "sk-theirs"},
        lambda url: {"ANTHROPIC_API_KEY": "sk-theirs", "HTTP_PROXY": url, "HTTPS_PROXY": url, "ALL_PROXY": url},
        lambda url: {"CLAUDE_CODE_USE_BEDROCK": "1", "ANTHROPIC_BEDROCK_BASE_URL": url, "CLAUDE_CODE_SKIP_BEDROCK_AUTH": "1"},
        lambda url: {"CLAUDE_CODE_USE_VERTEX": "1", "ANTHROPIC_VERTEX_BASE_URL": url, "CLAUDE_CODE_SKIP_VERTEX_AUTH": "1"},
        lambda url: {"CLAUDE_CODE_USE_FOUNDRY": "1", "ANTHROPIC_FOUNDRY_BASE_URL": url, "ANTHROPIC_FOUNDRY_API_KEY": "sk-theirs"},
    ],
    ids=["gateway", "proxy", "bedrock", "vertex", "foundry"],
)
@pytest.mark.usefixtures("claude_cli")
async def test_a_rehearsal_asks_nobody_else_whatever_a_trusted_folder_names(
    elsewhere_by: Callable[[str], dict[str, str]], workspace: Path, home: StateHome
) -> None:
    """Companies name their gateway in a project's settings. A rehearsal that went there would cost money, and its receipt would say that it cost none."""
    trust(str(workspace), home=home, environ={})
    (workspace / ".claude").mkdir()
    with trap() as elsewhere:
        told = elsewhere_by(f"http://127.0.0.1:{elsewhere.port}") | {"OF_THE_FOLDER": "1"}
        (workspace / ".claude" / "settings.json").write_text(json.dumps({"env": told, "hooks": HOOK_THAT_TELLS}))
        result = await cc_execute("write hello.txt", cwd=workspace, rehearse="write-file", timeout=30)
    assert elsewhere.callers == []
    assert result.ok, result.receipt.outcome
    assert "OF_THE_FOLDER=1" in (workspace / "environment").read_text()  # all else that the settings say is in effect


# --- whom trust is in ---------------------------------------------------------------------------------------------

VOID = pytest.mark.row(
    "threats", "trusted workspace replaced", "trust is void when the folder is another one: removed and made anew, moved, another owner's"
)


def removed_and_made_anew(folder: Path) -> Path:
    folder.rmdir()
    folder.mkdir()  # most file systems give it the same inode
    return folder


def moved(folder: Path) -> Path:
    return folder.rename(folder.with_name("moved"))


def another_in_its_place(folder: Path) -> Path:
    folder.rename(folder.with_name("moved"))
    folder.mkdir()
    return folder


def a_link_in_its_place(folder: Path) -> Path:
    other = folder.with_name("other")
    other.mkdir()
    folder.rmdir()
    folder.symlink_to(other)
    return folder


def somebody_else_s(folder: Path) -> Path:
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
        return folder
    return Path("/usr")


def its_child(folder: Path) -> Path:
    (folder / "child").mkdir()
    return folder / "child"


def its_parent(folder: Path) -> Path:
    return folder.parent


@VOID
@pytest.mark.parametrize(
    "change", [removed_and_made_anew, moved, another_in_its_place, a_link_in_its_place, somebody_else_s, its_child, its_parent]
)
def test_trust_is_in_that_very_folder(change: Callable[[Path], Path], workspace: Path, home: StateHome) -> None:
    trusted = TrustList(home)
    trusted.add(str(workspace))
    assert trusted.holds(str(workspace))
    assert trusted.holds(f"{workspace}/../{workspace.name}/.")
    assert not trusted.holds(str(change(workspace)))


def test_a_trusted_folder_may_be_named_by_a_link(workspace: Path, tmp_path: Path, home: StateHome) -> None:
    (tmp_path / "link").symlink_to(workspace)
    trusted = TrustList(home)
    assert trusted.add(str(tmp_path / "link")).path == str(workspace)
    assert trusted.holds(str(workspace))
    assert trusted.holds(str(tmp_path / "link"))


def test_trust_is_taken_back_also_of_a_folder_that_is_gone(workspace: Path, home: StateHome) -> None:
    trust(str(workspace), home=home, environ={})
    assert trusted_folders(home) == [(str(workspace), True)]
    workspace.rmdir()
    assert trusted_folders(home) == [(str(workspace), False)]
    assert untrust(str(workspace), home=home) == f"Not trusted any more: {workspace}."
    assert trusted_folders(home) == []
    assert untrust(str(workspace), home=home) == f"{workspace} was not trusted; nothing was changed."


@pytest.mark.parametrize("name", ["/no/such/folder", "/etc/passwd", "with\0nul", "x" * 5000, ""])
def test_what_is_no_folder_cannot_be_trusted(name: str, home: StateHome) -> None:
    with pytest.raises(InvalidRequest):
        trust(name, home=home, environ={})
    assert not TrustList(home).holds(name)


DAMAGES: list[Callable[[Path, Path], object]] = [
    lambda file, _: file.write_bytes(b""),
    lambda file, _: file.write_bytes(b"[" * 100_000),
    lambda file, _: file.write_text('{"folders": 3}'),
    lambda file, folder: file.write_text(json.dumps({"folders": [{"path": str(folder)}]})),
    lambda file, folder: file.write_text(json.dumps({"folders": [{"path": str(folder), "inode": True, "owner": None, "born": "0"}]})),
    lambda file, _: (file.rename(file.with_name("real")), file.symlink_to(file.with_name("real"))),
    lambda file, _: (file.unlink(), os.mkfifo(file)),
    lambda file, _: (file.unlink(), file.mkdir()),
    lambda file, _: os.truncate(file, 2**30),
    lambda file, _: file.parent.chmod(0o755),
]


@pytest.mark.row("threats", "damaged list of trusted folders", "nothing is trusted, and the person is told in one sentence")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_list_that_is_not_as_we_wrote_it_trusts_nobody(damage: Callable[[Path, Path], object], workspace: Path, home: StateHome) -> None:
    trust(str(workspace), home=home, environ={})
    damage(home.root / TRUSTED, workspace)
    assert not TrustList(home).holds(str(workspace))
    with pytest.raises(StateUnusable) as caught:
        trust(str(workspace), home=home, environ={})
    assert "\n" not in str(caught.value)


def test_servers_of_the_folders_above_are_named_before_they_are_trusted_along(workspace: Path, home: StateHome) -> None:
    (workspace / ".mcp.json").write_text("{}")
    (workspace / "child").mkdir()
    assert trust(f"{workspace}/child", home=home, environ={}).endswith(f"in every run there: {workspace}/.mcp.json.")


async def test_an_agent_cannot_answer_for_its_user(workspace: Path, home: StateHome) -> None:
    result = await cc_execute(f"'{sys.executable}' -m cc_executor.cli trust .; echo $?", **BASH, cwd=workspace)
    assert result.text == "2\n"
    assert "do it in a notebook or a terminal of your own" in (result.folder / records.STDERR).read_text()
    assert trusted_folders(home) == []


# --- what the person sees -----------------------------------------------------------------------------------------


@pytest.mark.row(
    "threats",
    "untrusted workspace is said",
    "the cell and the command line say that the folder's settings are not in effect, and how to trust it",
)
@pytest.mark.usefixtures("kernelspecs", "claude_cli")
def test_the_cell_says_it_and_trusts_on_demand(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay(workspace, tmp_path / "signs", port=None)
    monkeypatch.chdir(workspace)
    with running_kernel(IPYKERNEL7.name) as kernel:
        assert kernel.run("%load_ext cc_executor").status == "ok"
        cell = "%%cc_execute --rehearse hello -o result\nSay hello."
        shown = kernel.run(cell)
        assert shown.status == "ok", shown.traceback
        assert UNTRUSTED in shown.displays[-1]["text/html"]
        assert "%cc trust" in shown.displays[-1]["text/html"]
        assert (
            f"Trusted: {workspace}. Its own settings take effect in every run there: .claude/settings.json,"
            in kernel.run("%cc trust").stream
        )
        again = kernel.run(cell)
        assert "The workspace is trusted" in again.displays[-1]["text/html"]
        assert "the workspace was trusted" in again.displays[-1]["text/html"]
        assert kernel.value("result.receipt.workspace_trusted") == "True"
        assert kernel.run(f"%cc untrust {workspace}").stream == f"Not trusted any more: {workspace}.\n"
        shutil.rmtree(workspace / ".claude")
        (workspace / ".mcp.json").unlink()
        assert "workspace" not in kernel.run(cell).displays[-1]["text/html"]


@pytest.mark.row(
    "threats",
    "untrusted workspace is said",
    "the cell and the command line say that the folder's settings are not in effect, and how to trust it",
)
@pytest.mark.usefixtures("claude_cli")
def test_the_command_line_says_it_and_trusts_on_demand(workspace: Path) -> None:
    (workspace / ".mcp.json").write_text('{"mcpServers": {}}')

    def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "PYTHONPATH": str(CHECKOUT / "src")}
        argv = [sys.executable, "-m", "cc_executor.cli", *arguments]
        return subprocess.run(
            argv, cwd=workspace, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True
        )

    assert f"{UNTRUSTED} (.mcp.json). If you trust whoever wrote them:" in cli("run", "--rehearse", "hello", "hello").stderr
    assert cli("trust").stdout == f"Trusted: {workspace}. Its own settings take effect in every run there: .mcp.json.\n"
    assert json.loads(cli("trust", "--list", "--json").stdout) == [{"folder": str(workspace), "is_same": True}]
    assert cli("untrust").stdout == f"Not trusted any more: {workspace}.\n"
    assert cli("trust", "--list").stdout == ""
