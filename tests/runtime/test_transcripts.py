"""Recorded streams of the real CLI against transcripts made of the same messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cc_executor.policy.redact import MASK
from cc_executor.runtime import transcripts
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
    stopped = told.compared(ended_by_force=True)
    assert stopped.against == []
    assert "1 message(s) are not in the agent's transcript" in stopped.notes[0]
    [reason] = told.compared().against
    assert "lacks 1 message" in reason
    told.write(told.messages)
    assert [note for note in told.compared(ended_by_force=True).notes if "are not in" in note] == []


def test_of_many_that_are_missing_the_first_are_named(tmp_path: Path) -> None:
    told = Told(tmp_path, "02d-acceptEdits")
    for left in range(len(told.messages)):
        told.write(told.messages[:left])
        missing = len(told.messages) - left
        [reason] = told.compared().against
        names = [message["uuid"] for message in told.messages[left:]]
        assert not any("subagents" in note for note in told.compared().notes)
        assert reason.endswith(f": {', '.join(names[:3])}{f' and {missing - 3} more' if missing > 3 else ''}.")


def test_where_there_is_no_transcript_that_is_said(tmp_path: Path) -> None:
    told = Told(tmp_path, "01-success-text")
    nowhere = compare(told.folder, session_id=told.session_id, roots=[], ended_by_force=False, mask=MASK)
    assert (told.compared().missing, told.compared().against, nowhere.against) == (True, [], [])
    assert str(told.root / "projects") in told.compared().notes[0]
    assert "nowhere to look" in nowhere.notes[0]


def test_a_message_that_stands_in_two_transcripts_is_counted_once(tmp_path: Path) -> None:
    told = Told(tmp_path, "02d-acceptEdits")
    told.write(told.messages)
    once = told.compared().agreeing
    told.write(told.messages, told.root / "projects" / "-another" / f"{told.session_id}.jsonl")
    assert told.compared().agreeing == once


def test_a_line_that_is_too_long_is_passed_over_and_those_after_it_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(tmp_path, "02d-acceptEdits")
    told.write(told.messages)
    whole, stdout = told.compared(), told.folder.path / "stdout"
    longest = max(map(len, [*stdout.read_bytes().splitlines(), *told.transcript.read_bytes().splitlines()]))
    monkeypatch.setattr(transcripts, "LINE_LIMIT", longest + 1)  # with its end of line
    message = {**told.messages[0], "uuid": "00000000-0000-4000-8000-000000000000", "more": "x" * 3 * longest}
    for path in (stdout, told.transcript):
        path.write_bytes(json.dumps(message).encode() + b"\n" + path.read_bytes())
    found = told.compared()
    assert (found.agreeing, found.against) == (whole.agreeing, [])


def test_every_kind_of_difference_is_named(tmp_path: Path) -> None:
    told = Told(tmp_path, "01-success-text")
    [message] = told.messages
    for change, word in (({"request_id": "req_x"}, "request id"), ({"message": {**message["message"], "id": "msg_x"}}, "message id")):
        told.write([message | change])
        [reason] = told.compared().against
        assert f"assistant {message['uuid']} ({word})" in reason


def test_what_the_session_told_in_another_run_is_no_matter_of_this_one(tmp_path: Path) -> None:
    told = Told(tmp_path, "01-success-text")
    [message] = told.messages
    told.write([{**message, "uuid": "00000000-0000-4000-8000-000000000000"}, message])
    assert (told.compared().agreeing, told.compared().against) == (1, [])


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
