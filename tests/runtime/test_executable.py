"""Which `claude` a run gets, and the sentence when there is none that will do."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from cc_executor import cc_execute
from cc_executor.errors import AgentNotFound, AgentUnsupported, InvalidRequest
from cc_executor.model.request import RunRequest
from cc_executor.runtime import executable, login, question
from cc_executor.runtime.executable import CLAUDE_MINIMUM, VERSIONS, find_claude, find_executable
from cc_executor.runtime.login import Login, login_of
from cc_executor.runtime.question import ANSWER_LIMIT, NoAnswer, ask
from cc_executor.store.home import StateHome
from support.clocks import ClockSinceBegun
from support.runs import BOUND
from support.shims import alive


@pytest.fixture
def no_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an environment without claude-agent-sdk."""
    monkeypatch.setitem(sys.modules, "claude_agent_sdk", None)


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def claude(folder: Path, version: str = "2.1.300 (Claude Code)") -> Path:
    """A `claude` that only knows its version, and counts how often it was asked."""
    folder.mkdir(exist_ok=True)
    return program(folder / "claude", f'echo "$@" >> {folder}/asked\necho "{version}"')


def request(tmp_path: Path, **fields: object) -> RunRequest:
    return RunRequest.model_validate({"prompt": "hello", "cwd": str(tmp_path), **fields})


# --- where it is looked for ---------------------------------------------------------------------------------------


def test_the_chosen_one_comes_first_then_path_then_the_bundle(tmp_path: Path, claude_cli: Path) -> None:
    chosen, on_path = claude(tmp_path / "chosen"), claude(tmp_path / "path")
    environ = {"PATH": str(on_path.parent)}
    assert find_claude(str(chosen), environ=environ) == str(chosen)
    assert find_claude(None, environ=environ) == str(on_path)
    bundled = find_claude(None, environ={"PATH": str(tmp_path)})
    assert os.path.realpath(bundled) == os.path.realpath(claude_cli)


@pytest.mark.row("outcomes", "no CLI", "AgentNotFound before anything is started; cure: how to install it, and --cli")
@pytest.mark.usefixtures("no_bundle")
async def test_without_any_cli_the_sentence_names_the_cure(tmp_path: Path, state_folder: Path) -> None:
    with pytest.raises(AgentNotFound) as caught:
        await cc_execute("Hello", cwd=tmp_path, environ={**os.environ, "PATH": str(tmp_path)})
    assert "pip install 'cc-executor[claude]'" in str(caught.value)
    assert "--cli PATH" in str(caught.value)
    assert list((state_folder / "runs").iterdir()) == [], "nothing was started, so nothing is kept"


@pytest.mark.parametrize("chosen", ["/no/such/claude", "no-such-claude", "~/no-such-claude", "/", "/etc/passwd"])
async def test_a_chosen_cli_that_is_no_executable_is_named(chosen: str, tmp_path: Path) -> None:
    with pytest.raises(AgentNotFound, match="is not an executable file") as caught:
        await cc_execute("Hello", cwd=tmp_path, cli=chosen)
    assert chosen in str(caught.value)


def test_an_executable_that_the_system_cannot_run_is_not_found(tmp_path: Path, home: StateHome) -> None:
    broken = program(tmp_path / "claude", "")
    broken.write_text("#!/no/such/interpreter\n")
    with pytest.raises(AgentNotFound, match="cannot be run"):
        find_executable(request(tmp_path, cli=str(broken)), environ=os.environ, home=home)


# --- whether it will do -------------------------------------------------------------------------------------------


@pytest.mark.row(
    "outcomes",
    "CLI too old",
    "AgentUnsupported before anything is started; cure: both versions and `claude update` (a program that says its version)",
)
async def test_a_cli_that_is_too_old_is_refused_with_both_versions(tmp_path: Path) -> None:
    old = claude(tmp_path / "old", "1.0.128 (Claude Code)")
    with pytest.raises(AgentUnsupported) as caught:
        await cc_execute("Hello", cwd=tmp_path, cli=str(old))
    wanted = ".".join(map(str, CLAUDE_MINIMUM))
    for word in (str(old), "1.0.128", wanted, "claude update"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "script",
    ["exit 3", "echo hello", "echo 2.1.300; exit 1", ":", "head -c 3000000 /dev/zero", "kill -9 $$"],
)
def test_something_else_that_is_called_claude_is_refused(script: str, tmp_path: Path, home: StateHome) -> None:
    other = program(tmp_path / "claude", script)
    with pytest.raises(AgentUnsupported, match="did not answer like Claude Code"):
        find_executable(request(tmp_path, cli=str(other)), environ=os.environ, home=home)


@pytest.mark.parametrize("script", ["sleep 1000", "sleep 1000 & wait", "while :; do :; done", "exec >&-; sleep 1000"])
def test_a_cli_that_does_not_answer_is_ended_with_its_children(
    script: str, tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executable, "VERSION_BUDGET", 0.5)
    monkeypatch.setattr(question, "time", ClockSinceBegun(tmp_path / "pid"))
    hanging = program(tmp_path / "claude", f"echo $$ > {tmp_path}/pid\n{script}")
    began = time.monotonic()
    with pytest.raises(AgentUnsupported, match=r"did not answer in 0.5 s"):
        find_executable(request(tmp_path, cli=str(hanging)), environ=os.environ, home=home)
    assert time.monotonic() - began < 20
    assert not alive(int((tmp_path / "pid").read_text()))


def test_a_child_that_keeps_the_pipe_does_not_hold_the_answer(tmp_path: Path) -> None:
    detaching = program(
        tmp_path / "claude",
        f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 1000' & until [ -s {tmp_path}/pid ]; do :; done; echo 2.1.300",
    )
    began = time.monotonic()
    assert ask((str(detaching),), env=os.environ, budget=60) == (0, b"2.1.300\n")
    assert time.monotonic() - began < 30
    os.kill(int((tmp_path / "pid").read_text()), 9)  # it left the session; this is the test's own


def test_a_long_answer_is_cut_and_the_program_not_held_up(tmp_path: Path) -> None:
    long = program(tmp_path / "claude", "head -c 3000000 /dev/zero; echo done >&2")
    code, answer = ask((str(long),), env=os.environ, budget=60)
    assert (code, len(answer)) == (0, ANSWER_LIMIT)
    with pytest.raises(NoAnswer):
        ask(("/bin/sh", "-c", "while :; do echo more; done"), env=os.environ, budget=0.3)


def test_a_version_is_asked_for_once_for_each_file(tmp_path: Path, home: StateHome) -> None:
    cli = claude(tmp_path / "bin")
    asked = cli.parent / "asked"
    for _ in range(3):
        assert find_executable(request(tmp_path, cli=str(cli)), environ=os.environ, home=home).version == "2.1.300"
    assert asked.read_text() == "--version\n"
    before = cli.stat().st_mtime_ns
    claude(tmp_path / "bin", "2.1.301 (Claude Code)")
    os.utime(
        cli, ns=(before + 10**9, before + 10**9)
    )  # the clock of a file system may have ticks of 10 ms, and this is as long as the other
    assert find_executable(request(tmp_path, cli=str(cli)), environ=os.environ, home=home).version == "2.1.301"


def test_whoever_changes_between_two_asks_each_of_them_once(tmp_path: Path, home: StateHome) -> None:
    both = [claude(tmp_path / "one"), claude(tmp_path / "other", "2.1.301 (Claude Code)")]
    for _ in range(3):
        for cli, version in zip(both, ("2.1.300", "2.1.301"), strict=True):
            assert find_executable(request(tmp_path, cli=str(cli)), environ=os.environ, home=home).version == version
    assert [(cli.parent / "asked").read_text() for cli in both] == ["--version\n"] * 2
    (home.root / "agents.json").write_text(json.dumps({f"/gone/{number}:1:1": "2.1.0" for number in range(500)}))
    find_executable(request(tmp_path, cli=str(both[0])), environ=os.environ, home=home)
    assert len(json.loads((home.root / "agents.json").read_bytes())) == VERSIONS


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"x": 1}', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_memory_of_versions_is_written_anew(damage: bytes, tmp_path: Path, home: StateHome) -> None:
    cli = claude(tmp_path / "bin")
    home.prepare()
    memory = home.root / "agents.json"
    memory.write_bytes(damage)
    assert find_executable(request(tmp_path, cli=str(cli)), environ=os.environ, home=home).version == "2.1.300"
    key, version = next(iter(json.loads(memory.read_bytes()).items()))
    assert version == "2.1.300"
    memory.write_text(json.dumps({key: "nonsense"}))
    assert find_executable(request(tmp_path, cli=str(cli)), environ=os.environ, home=home).version == "2.1.300"


# --- commands ----------------------------------------------------------------------------------------------------


def test_a_command_is_found_on_path_or_seen_from_the_run_s_folder(tmp_path: Path, home: StateHome) -> None:
    tool = program(tmp_path / "tool", ":")
    environ = {"PATH": str(tmp_path)}

    def path(prompt: str) -> str:
        return find_executable(request(tmp_path, agent="shell", prompt=prompt), environ=environ, home=home).path

    assert path("tool --with words") == str(tool)
    assert path("./tool") == str(tool)
    assert path(f"'{tool}' x") == str(tool)
    with pytest.raises(AgentNotFound, match="'nonsense' was not found"):
        path("nonsense | cat")
    with pytest.raises(InvalidRequest, match="close the quote"):
        path("tool 'unclosed")
    asked = request(tmp_path, agent="shell", prompt="x").model_copy(update={"shell": "zsh"})
    with pytest.raises(AgentNotFound, match=r"The shell 'zsh' was not found\. Install it, or name another"):
        find_executable(asked, environ=environ, home=home)


# --- login --------------------------------------------------------------------------------------------------------


def test_a_login_is_what_the_agent_says_of_it(claude_cli: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "LOGIN_BUDGET", BOUND)
    environ = {**os.environ, "HOME": str(tmp_path)}
    assert login_of(str(claude_cli), environ=environ) == Login(logged_in=False, method="none")
    with_key = login_of(str(claude_cli), environ={**environ, "ANTHROPIC_API_KEY": "sk-ant-nobody-s"})
    assert (with_key.logged_in, with_key.known) == (True, True)


@pytest.mark.parametrize("script", ["exit 1", "echo '[]'", "echo '{}'", "echo nonsense", "sleep 1000"])
def test_no_answer_is_no_login(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "LOGIN_BUDGET", 0.5)
    monkeypatch.setattr(question, "time", ClockSinceBegun(tmp_path / "pid"))
    asked = login_of(str(program(tmp_path / "claude", f"echo $$ > {tmp_path}/pid\n{script}")), environ=os.environ)
    assert (asked.logged_in, asked.known) == (False, False)
    assert not alive(int((tmp_path / "pid").read_text()))
