from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_executor.agents import AGENTS, agent_named
from cc_executor.agents.base import ARGUMENT_LIMIT
from cc_executor.agents.claude.command import ANEW, DONE, PERMISSION_MODES, ClaudeAgent
from cc_executor.agents.claude.decode import ClaudeDecoder
from cc_executor.errors import InvalidRequest
from cc_executor.model.request import Limits, RunRequest
from support.recordings import CLAUDE, Recording

CLI = "/opt/bin/claude"
SESSION = "3f0c1a52-6c1f-4c77-8a35-0a4be1d7a001"
ALWAYS = (CLI, "-p", "--output-format=stream-json", "--verbose", "--include-partial-messages")
UNTRUSTED = ("--setting-sources=user", "--strict-mcp-config")


def request(prompt: str = "do it", **fields: Any) -> RunRequest:
    return RunRequest(prompt=prompt, cwd="/tmp", **fields)


def argv(**fields: Any) -> tuple[str, ...]:
    return ClaudeAgent().command(request(**fields), executable=CLI, session_id=SESSION).argv


@pytest.mark.parametrize("recording", CLAUDE, ids=str)
def test_the_marks_of_a_last_word_are_the_beginnings_of_result_lines_and_of_no_other(recording: Recording) -> None:
    for line in recording.stdout.split(b"\n"):
        if not line.startswith(b"{"):
            continue
        told: dict[str, Any] = json.loads(line)
        assert line.startswith(tuple(mark.encode() for mark in DONE)) is (told["type"] == "result"), line[:100]
        is_init = (told["type"], told.get("subtype")) == ("system", "init")
        assert line.startswith(tuple(mark.encode() for mark in ANEW)) is is_init, line[:100]


def test_the_plain_command_line() -> None:
    assert argv() == (*ALWAYS, *UNTRUSTED, "--permission-mode=acceptEdits", f"--session-id={SESSION}")


@pytest.mark.parametrize(
    ("version", "knows"),
    [
        ("2.1.197 (Claude Code)", True),
        ("2.1.197", True),
        ("2.2.0", True),
        ("3.0", True),
        ("2.1.196", False),
        ("1.9.999", False),
        ("", False),
        ("dev", False),
    ],
)
def test_an_option_is_given_to_a_version_that_is_known_to_take_it(version: str, knows: bool) -> None:
    command = ClaudeAgent().command(request(), executable=CLI, session_id=SESSION, version=version)
    assert ("--include-hook-events" in command.argv) is knows


def test_only_a_trusted_folder_has_its_own_settings() -> None:
    assert argv(trust_workspace=True) == (
        *ALWAYS,
        "--setting-sources=user,project,local",
        "--permission-mode=acceptEdits",
        f"--session-id={SESSION}",
    )


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"model": "sonnet"}, ["--model=sonnet"]),
        ({"fallback_model": "haiku"}, ["--fallback-model=haiku"]),
        ({"limits": Limits(turns=3)}, ["--max-turns=3"]),
        ({"limits": Limits(cost=1.5)}, ["--max-budget-usd=1.5"]),
        ({"limits": Limits(cost=2)}, ["--max-budget-usd=2"]),
        ({"limits": Limits(cost=1e-9)}, ["--max-budget-usd=0.000001"]),
        ({"limits": Limits(cost=0.00005)}, ["--max-budget-usd=0.00005"]),
        ({"output_schema": {"type": "object", "title": "é"}}, ['--json-schema={"type":"object","title":"é"}']),
        (
            {
                "output_schema": {
                    "properties": {"x-a": {"x-note": 1, "const": {"x-b": 1}}},
                    "oneOf": [{"discriminator": {}}],
                    "$defs": {"discriminator": {}},
                }
            },
            ['--json-schema={"properties":{"x-a":{"const":{"x-b":1}}},"oneOf":[{}],"$defs":{"discriminator":{}}}'],
        ),
        ({"append_system_prompt": "--dangerously-skip-permissions"}, ["--append-system-prompt=--dangerously-skip-permissions"]),
        ({"add_dirs": ("/a", "--bare")}, ["--add-dir=/a", "--add-dir=--bare"]),
        ({"tools": ("Bash(git *)", "Write", "-p")}, ["--allowedTools=Bash(git *)", "--allowedTools=Write", "--allowedTools=-p"]),
        ({"model": "--dangerously-skip-permissions"}, ["--model=--dangerously-skip-permissions"]),
        ({"model": "a b\nc"}, ["--model=a b\nc"]),
        ({"model": "\ud800x"}, ["--model=\ufffdx"]),
    ],
)
def test_an_option_is_one_argument_with_its_value(fields: dict[str, Any], options: list[str]) -> None:
    assert list(argv(**fields)[len(argv()) :]) == options


def test_a_resumed_session_gets_no_new_id() -> None:
    options = argv(resume="--continue")
    assert "--resume=--continue" in options
    assert not any(option.startswith("--session-id") for option in options)


@pytest.mark.parametrize("mode", PERMISSION_MODES)
def test_every_permission_mode_can_be_asked_for(mode: str) -> None:
    passed = "default" if mode == "manual" else mode
    assert f"--permission-mode={passed}" in argv(permission_mode=mode)


@pytest.mark.row("threats", "option injection", "prompts, models, tools, folders and session ids that begin with a dash stay values")
def test_permissions_are_bypassed_only_when_exactly_that_was_asked_for() -> None:
    for fields in ({}, {"permission_mode": "acceptEdits"}, {"trust_workspace": True}, {"prompt": "--dangerously-skip-permissions"}):
        assert not any("bypass" in option or "dangerous" in option for option in argv(**fields))
    for mode in ("bypass", "BypassPermissions", "bypasspermissions ", "acceptEdits --dangerously-skip-permissions"):
        with pytest.raises(InvalidRequest, match="bypassPermissions"):
            argv(permission_mode=mode)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": " "}, "--model is empty"),
        ({"resume": ""}, "--resume is empty"),
        ({"tools": ("",)}, "--allowedTools is empty"),
        ({"tools": ("a\0b",)}, "NUL"),
        ({"add_dirs": ("a\0b",)}, "NUL"),
        ({"append_system_prompt": "x" * 200_000}, "limit is 131,071"),
        ({"output_schema": {"description": "é" * 70_000}}, "limit is 131,071"),
        ({"output_schema": {"x": float("nan")}}, "cannot be written as JSON"),
        ({"output_schema": {"x": {1, 2}}}, "cannot be written as JSON"),
        ({"shell": "bash"}, "add --agent shell to run it as a command"),
    ],
)
def test_a_value_that_cannot_be_given_is_refused_with_the_cure(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        argv(**fields)


def test_a_session_id_is_a_uuid() -> None:
    with pytest.raises(InvalidRequest, match="UUID"):
        ClaudeAgent().command(request(), executable=CLI, session_id="--resume")
    made = ClaudeAgent().command(request(), executable=CLI, session_id=uuid.UUID(SESSION).hex).argv
    assert f"--session-id={SESSION}" in made


@pytest.mark.row("threats", "option injection", "prompts, models, tools, folders and session ids that begin with a dash stay values")
@pytest.mark.parametrize(
    ("prompt", "sent"),
    [
        ("say hello", b"say hello"),
        ("--dangerously-skip-permissions", b"--dangerously-skip-permissions"),
        ("-p", b"-p"),
        ("/foo bar", b"\n/foo bar"),
        ("/cost", b"\n/cost"),
        ("/etc/hosts explain this", b"\n/etc/hosts explain this"),
        (" /cost", b" /cost"),
        ("\n/cost", b"\n/cost"),
        ("@notes.md summarise", b"@notes.md summarise"),
        ("é \U0001f600\r\n\ttabs", "é \U0001f600\r\n\ttabs".encode()),
        ("a\ud800b\udcffc", "a\ufffdb\ufffdc".encode()),
        ("x" * 1_000_000, b"x" * 1_000_000),
        ("é" * 4_000_000, "é".encode() * 4_000_000),
    ],
)
def test_the_prompt_goes_to_stdin_and_never_into_the_command_line(prompt: str, sent: bytes) -> None:
    command = ClaudeAgent().command(request(prompt), executable=CLI, session_id=SESSION)
    assert command.stdin == sent
    assert command.argv == argv()


@pytest.mark.row("threats", "option injection", "prompts, models, tools, folders and session ids that begin with a dash stay values")
@given(
    st.text(min_size=1).filter(lambda text: text.strip() and "\0" not in text),
    st.lists(st.text(min_size=1).filter(lambda text: text.strip() and "\0" not in text), max_size=3),
)
def test_no_value_can_become_an_option(value: str, values: list[str]) -> None:
    made = argv(prompt=value, model=value, resume=value, append_system_prompt=value, tools=tuple(values), add_dirs=tuple(values))
    known = {
        "-p", "--output-format", "--verbose", "--include-partial-messages", "--setting-sources", "--strict-mcp-config", "--permission-mode", "--resume",
        "--model", "--append-system-prompt", "--add-dir", "--allowedTools",
    }  # fmt: skip
    assert {argument.partition("=")[0] for argument in made[1:]} <= known
    assert all(len(argument.encode()) <= ARGUMENT_LIMIT for argument in made)


def test_retries_are_the_agents_own_and_the_rest_of_its_environment_is_said() -> None:
    command = ClaudeAgent().command(request(), executable=CLI, session_id=SESSION)
    assert dict(command.env) == {
        "CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS": "1",
        "DISABLE_AUTOUPDATER": "1",
        "MCP_CONNECTION_NONBLOCKING": "0",
    }


def test_equal_requests_give_equal_commands() -> None:
    make = ClaudeAgent().command
    assert make(request(), executable=CLI, session_id=SESSION) == make(request(), executable=CLI, session_id=SESSION)


def test_agents_are_found_by_name() -> None:
    assert list(AGENTS) == ["claude", "shell"]
    assert isinstance(agent_named("claude").decoder(), ClaudeDecoder)
    with pytest.raises(InvalidRequest, match=r"no agent 'codex'.*claude, shell"):
        agent_named("codex")
