"""What the real CLI does with answers that no shipped script gives, and how it is kept from taking turns out of order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cc_executor.rehearsal.scripts import Block, Fault, Script, Turn
from cc_executor.rehearsal.server import LoggedRequest, serving
from support.cli import STREAM, Ended, Watched, bare_environment, find_cli

SAID = Block(text="All is well.")


def play(
    folder: Path, *turns: Turn, repeat: int = 1, arguments: Sequence[str] = (), env: Mapping[str, str] | None = None, prompt: str = "do it"
) -> tuple[Ended, tuple[LoggedRequest, ...]]:
    """One run of the CLI against a server in this process."""
    with serving(Script(turns=turns, repeat=repeat), cwd=str(folder)) as served:
        fixed = {"ANTHROPIC_BASE_URL": served.url, "ANTHROPIC_API_KEY": "sk-ant-dummy", "CLAUDE_CONFIG_DIR": str(folder / ".config")}
        fixed["CLAUDE_CODE_TMPDIR"] = str(folder / ".config")
        command = [find_cli(), *STREAM, *arguments]
        with Watched(command, cwd=folder, env=bare_environment(folder, **fixed, **(env or {})), prompt=prompt) as run:
            return run.end(), served.requests


def refused(status: int, message: str = "no", **more: Any) -> Turn:
    return Turn(fault=Fault(kind="status", status=status, error="invalid_request_error", message=message, **more))


def kinds(requests: Sequence[LoggedRequest]) -> list[tuple[str, int | None]]:
    return [(request.kind, request.turn) for request in requests]


@pytest.mark.parametrize(
    ("turn", "status", "reason"),
    [
        (refused(400, "prompt is too long: 250000 tokens > 200000 maximum"), 400, "prompt_too_long"),
        (refused(413, "Request exceeds the maximum size"), 413, "image_error"),
        (refused(429, "limit", retry_after=3600), 429, "api_error"),
    ],
    ids=["prompt too long", "413", "429 retry-after 3600"],
)
def test_an_error_that_no_retry_mends_ends_the_run_at_once(turn: Turn, status: int, reason: str, tmp_path: Path) -> None:
    ended, _ = play(tmp_path, turn)
    assert (ended.code, ended.result["is_error"], ended.result["api_error_status"]) == (1, True, status)
    assert ended.result["terminal_reason"] == reason
    assert ended.retries == []


@pytest.mark.parametrize("kind", ["eof", "error_event"])
def test_a_stream_cut_midway_is_asked_for_again(kind: Any, tmp_path: Path) -> None:
    turn = Turn(
        blocks=(Block(text="first half, second half", piece=4),), fault=Fault(kind=kind, after=2, times=1, error="overloaded_error")
    )
    ended, requests = play(tmp_path, turn)
    assert (ended.code, ended.result["result"]) == (0, "first half, second half")
    assert [(request.turn, request.attempt) for request in requests] == [(0, 1), (0, 2)]


def test_the_context_window_and_a_paused_turn_are_stop_reasons(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    full, _ = play(tmp_path / "a", Turn(blocks=(SAID,), stop_reason="model_context_window_exceeded"), repeat=10)
    assert (full.code, full.result["is_error"]) == (1, True)
    (tmp_path / "b").mkdir()
    paused, _ = play(tmp_path / "b", Turn(blocks=(SAID,), stop_reason="pause_turn"), repeat=10)
    assert (paused.code, paused.result["is_error"]) == (0, False)


def test_tools_edit_and_read_and_write_much_for_real(tmp_path: Path) -> None:
    path = "{cwd}/notes.txt"
    turns = (
        Turn(
            blocks=(Block(tool="Write", input={"file_path": path, "content": "line {n}\n"}, repeat_input={"content": 20_000}, piece=8192),)
        ),
        Turn(blocks=(Block(tool="Edit", input={"file_path": path, "old_string": "line 7\n", "new_string": "line seven\n"}),)),
        Turn(
            blocks=(Block(tool="Read", input={"file_path": path, "limit": 8}), Block(tool="Bash", input={"command": "wc -l < notes.txt"}))
        ),
        Turn(blocks=(SAID,)),
    )
    ended, requests = play(tmp_path, *turns, arguments=("--allowedTools", "Write", "Edit", "Read", "Bash"))
    assert (ended.code, ended.result["permission_denials"]) == (0, [])
    assert len(requests) == 4
    assert (tmp_path / "notes.txt").read_text("utf-8") == "".join(f"line {'seven' if n == 7 else n}\n" for n in range(1, 20_001))
    returned = json.dumps([line["message"]["content"] for line in ended.lines if line["type"] == "user"])
    assert "line seven" in returned
    assert "20000" in returned


def test_without_any_tool_the_conversation_is_still_the_main_one(tmp_path: Path) -> None:
    ended, requests = play(tmp_path, Turn(blocks=(SAID,)), arguments=("--tools", "", "--system-prompt", "short", "--model", "haiku"))
    assert ended.result["result"] == "All is well."
    assert kinds(requests) == [("main", 0)]


def test_a_web_search_consumes_no_turn(tmp_path: Path) -> None:
    turns = (Turn(blocks=(Block(tool="WebSearch", input={"query": "weather"}),)), Turn(blocks=(SAID,)))
    ended, requests = play(tmp_path, *turns, arguments=("--allowedTools", "WebSearch"))
    assert ended.result["result"] == "All is well."
    assert kinds(requests) == [("main", 0), ("auxiliary", None), ("main", 1)]


def test_hooks_that_ask_a_model_are_content_and_consume_no_turn(tmp_path: Path) -> None:
    asks = {"type": "prompt", "prompt": "is it fine? $ARGUMENTS"}
    verifies = {"type": "agent", "prompt": "verify it"}
    hooks = {"PreToolUse": [{"matcher": "Bash", "hooks": [asks]}], "Stop": [{"hooks": [verifies]}]}
    turns = (Turn(blocks=(Block(tool="Bash", input={"command": "echo fine"}),)), Turn(blocks=(SAID,)))
    ended, requests = play(tmp_path, *turns, arguments=("--settings", json.dumps({"hooks": hooks})))
    assert ended.result["result"] == "All is well."
    assert [kind for kind in kinds(requests) if kind[0] == "main"] == [("main", 0), ("main", 1)]
    assert {kind for kind, _ in kinds(requests)} == {"main", "auxiliary"}


def test_a_subagent_consumes_no_turn(tmp_path: Path) -> None:
    call = Block(tool="Agent", input={"description": "look", "prompt": "look around", "subagent_type": "general-purpose"})
    ended, requests = play(tmp_path, Turn(blocks=(call,)), Turn(blocks=(SAID,)), Turn(blocks=(Block(text="It came back."),)))
    assert ended.result["result"] == "It came back."
    assert ("subagent", None) in kinds(requests)
    assert [turn for kind, turn in kinds(requests) if kind == "main"] == [0, 1, 2]


def test_a_compaction_gets_a_summary(tmp_path: Path) -> None:
    session = "1b1d9e8f-4d6f-4b0f-8b52-6f8b6f4bd8ee"
    play(tmp_path, Turn(blocks=(SAID,)), arguments=("--session-id", session))
    ended, requests = play(tmp_path, Turn(blocks=(SAID,)), arguments=("--resume", session), prompt="/compact")
    assert [line["compact_metadata"]["trigger"] for line in ended.lines if line.get("subtype") == "compact_boundary"] == ["manual"]
    assert kinds(requests) == [("compaction", None)]
    again, _ = play(tmp_path, Turn(blocks=(Block(text="Third."),)), arguments=("--resume", session))
    assert again.result["result"] == "Third."


def test_a_key_that_is_not_the_rehearsal_s_is_told_apart(tmp_path: Path) -> None:
    _, requests = play(tmp_path, Turn(blocks=(SAID,)))
    assert [request.key for request in requests] == ["other"]
