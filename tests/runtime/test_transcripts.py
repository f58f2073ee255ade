"""Recorded streams of the real CLI against transcripts made of the same messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cc_executor.policy.redact import MASK
from cc_executor.runtime.transcripts import Comparison, compare, find_transcripts
from cc_executor.store.journal import RunFolder
from support.environments import CHECKOUT

RECORDINGS = CHECKOUT / "tests" / "recordings"
Json = dict[str, Any]


class Told:
    """A run's folder with a recorded stream, and the configuration folder of the CLI that wrote it."""

    def __init__(self, folder: Path, recording: str) -> None:
        raw = (RECORDINGS / f"{recording}.jsonl").read_bytes()
        self.lines: list[Json] = [json.loads(line) for line in raw.split(b"\n") if line]
        self.messages = [line for line in self.lines if line["type"] in {"assistant", "user"}]
        self.session_id: str = next(line["session_id"] for line in self.lines if "session_id" in line)
        self.folder = RunFolder(folder / "run")
        self.folder.path.mkdir()
        (self.folder.path / "stdout").write_bytes(raw)
        self.root = folder / "config"
        self.transcript = self.root / "projects" / "-home-user-project" / f"{self.session_id}.jsonl"
        self.transcript.parent.mkdir(parents=True)

    def write(self, messages: list[Json], path: Path | None = None) -> None:
        """Write these messages as the CLI writes them."""
        told = [{"type": "mode"}, *({**line, "requestId": line.get("request_id"), "sessionId": self.session_id} for line in messages)]
        path = path or self.transcript
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in told), "utf-8")

    def compared(self, *, ended_by_force: bool = False) -> Comparison:
        return compare(self.folder, session_id=self.session_id, roots=[self.root], ended_by_force=ended_by_force, mask=MASK)


@pytest.mark.parametrize(
    "recording", ["01-success-text", "02d-acceptEdits", "13g-bash-background-session-state", "15a-turn1", "13b-v329-json-schema-ok"]
)
def test_what_both_tell_alike_is_counted(tmp_path: Path, recording: str) -> None:
    told = Told(tmp_path, recording)
    told.write(told.messages)
    found = told.compared()
    assert not found.missing
    assert found.against == []
    assert found.agreeing == len([line for line in told.messages if not line.get("isSynthetic")]) > 0


def test_a_subagent_s_messages_are_found_in_its_own_transcript_or_not_missed(tmp_path: Path) -> None:
    told = Told(tmp_path, "14a-subagent")
    inner = [line for line in told.messages if line["parent_tool_use_id"]]
    assert inner
    told.write([line for line in told.messages if not line["parent_tool_use_id"]])
    without = told.compared()
    assert without.against == []
    assert any("subagents" in note for note in without.notes)
    told.write(inner, told.transcript.parent / told.session_id / "subagents" / "agent-1.jsonl")
    whole = told.compared()
    assert whole.against == []
    assert whole.agreeing == without.agreeing + len(inner)


def test_a_lost_last_message_is_explained_by_a_stop_and_by_nothing_else(tmp_path: Path) -> None:
    told = Told(tmp_path, "05d-sigint-in-bash")
    told.write(told.messages[:-1])
    assert told.compared(ended_by_force=True).against == []
    [reason] = told.compared().against
    assert "lacks 1 message" in reason


def test_every_kind_of_difference_is_named(tmp_path: Path) -> None:
    told = Told(tmp_path, "01-success-text")
    [message] = told.messages
    for change, word in (({"request_id": "req_x"}, "request id"), ({"message": {**message["message"], "id": "msg_x"}}, "message id")):
        told.write([message | change])
        [reason] = told.compared().against
        assert f"({word})" in reason


def test_a_torn_last_line_and_foreign_lines_are_passed_over(tmp_path: Path) -> None:
    told = Told(tmp_path, "01-success-text")
    told.write(told.messages)
    with told.transcript.open("ab") as file:
        file.write(b'[]\n"assistant"\n\xff\xfe\n{"type":"assistant","uuid":"')
    assert told.compared().against == []


@pytest.mark.parametrize("session_id", ["", "*", "../../x", "a/b/c/d/e/f", "?" * 36])
def test_a_session_id_is_no_pattern(tmp_path: Path, session_id: str) -> None:
    folder = tmp_path / "projects" / "p"
    folder.mkdir(parents=True)
    (folder / "0123456789abcdef.jsonl").write_text("{}", "utf-8")
    assert find_transcripts(session_id, [tmp_path]) == []
    assert find_transcripts("0123456789abcdef", [tmp_path]) == [folder / "0123456789abcdef.jsonl"]


def test_an_agent_that_said_nothing_has_no_transcript_to_miss(tmp_path: Path) -> None:
    told = Told(tmp_path, "01-success-text")
    (told.folder.path / "stdout").write_bytes(b"")
    found = told.compared()
    assert not found.missing
    assert found.notes == ["The agent ended before its first whole message, so there is no transcript of its own to compare."]
