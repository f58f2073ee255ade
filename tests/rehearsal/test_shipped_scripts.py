"""Every shipped script, played to the real CLI through the wrapper: what the CLI makes of it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from cc_executor.rehearsal import scripts
from cc_executor.rehearsal.__main__ import NO_FOLDER_SETTINGS
from support.cli import STREAM, Ended, assert_interrupted, rehearsed, text_of
from support.runs import wait_for

SCHEMA: Final = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"type": "string"}, "size": {"$ref": "#/$defs/Size"}},
        "required": ["name", "size"],
        "$defs": {"Size": {"type": "integer", "minimum": 3}},
    }
)
ONE_RETRY: Final = {"CLAUDE_CODE_MAX_RETRIES": "1"}


@dataclass(frozen=True)
class Played:
    """A script and what is to be seen of it."""

    script: str
    code: int
    requests: int
    result: dict[str, Any]
    arguments: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict[str, str])
    retries: tuple[int | None, ...] = ()  # status of each retry
    pace: float = 0
    files: dict[str, str] = field(default_factory=dict[str, str])

    also: Callable[[Ended], None] | None = None

    def __str__(self) -> str:
        return self.script


OK: Final = {"subtype": "success", "is_error": False, "terminal_reason": "completed", "api_error_status": None}
HAIKU: Final = "The cell waits, awake.\nA process writes, line by line;\nthe receipt stays here.\n"


def failed(status: int | None) -> dict[str, Any]:
    return {"subtype": "success", "is_error": True, "api_error_status": status}


def thinks_before_it_writes(ended: Ended) -> None:
    blocks = [block for line in ended.lines if line["type"] == "assistant" for block in line["message"]["content"]]
    assert [block.get("name", block["type"]) for block in blocks] == ["thinking", "text", "Write", "text", "Bash", "text"]
    printed = [line["tool_use_result"]["stdout"] for line in ended.lines if line["type"] == "user" and "stdout" in line["tool_use_result"]]
    assert printed == [HAIKU.rstrip("\n")]


def was_not_allowed(ended: Ended) -> None:
    assert [denial["tool_name"] for denial in ended.result["permission_denials"]] == ["Bash"]


def asked_for_leave_in_vain(ended: Ended) -> None:
    assert [denial["tool_name"] for denial in ended.result["permission_denials"]] == ["Write", "Bash", "Bash"]


def has_no_structured_output(ended: Ended) -> None:
    assert ended.result.get("structured_output") is None


def is_five_megabytes_and_misses_no_line(ended: Ended) -> None:
    text = ended.result["result"]
    assert [int(line.rpartition(" ")[2]) for line in text.splitlines()] == list(range(1, 80_001))
    assert len(text) > 5_000_000
    assert "".join(map(text_of, ended.lines)) == text


PLAYED: Final = (
    Played("hello", 0, 1, OK),
    Played("tour", 0, 3, OK | {"num_turns": 3}, files={"haiku.md": HAIKU}, also=thinks_before_it_writes),
    Played("write-file", 0, 2, OK, files={"hello.txt": "Hello from a rehearsal.\n"}),
    Played("denied", 0, 2, OK | {"result": "Done: I have run the command and denied.txt is written."}, also=was_not_allowed),
    Played("approval", 0, 4, OK | {"result": "That is all that I was allowed to do."}, also=asked_for_leave_in_vain),
    Played("question", 0, 2, OK | {"result": "Thank you: I know what to do now."}),
    Played("bad-key", 1, 2, failed(401), arguments=(NO_FOLDER_SETTINGS,), env=ONE_RETRY, retries=(401,)),
    Played("forbidden", 1, 1, failed(403)),
    Played("no-credit", 1, 1, failed(400) | {"result": "Credit balance is too low"}),
    Played("unknown-model", 1, 2, failed(404)),
    Played("throttled", 0, 2, OK | {"result": "The second try went through."}, retries=(429,)),
    Played("throttled-forever", 1, 2, failed(429), env=ONE_RETRY, retries=(429,)),
    Played("throttled-for-an-hour", 1, 1, failed(429)),
    Played("overloaded", 1, 2, failed(529), env=ONE_RETRY, retries=(529,)),
    Played("server-error-once", 0, 2, OK | {"result": "The second try went through."}, retries=(500,)),
    Played(
        "reset-midway",
        0,
        2,
        OK | {"result": "This sentence is cut in its middle the first time, and whole the second time."},
        retries=(None,),
    ),
    Played("cut-after-block", 0, 2, OK | {"result": "and the second half is told anew."}, pace=1),
    Played("schema", 0, 1, OK | {"structured_output": {"name": "name", "size": 3}}, arguments=("--json-schema", SCHEMA)),
    Played(
        "schema-unmet",
        0,
        2,
        OK | {"result": "I would rather say it in prose."},
        arguments=("--json-schema", SCHEMA),
        also=has_no_structured_output,
    ),
    Played(
        "max-turns", 1, 3, {"subtype": "error_max_turns", "is_error": True, "terminal_reason": "max_turns"}, arguments=("--max-turns", "3")
    ),
    Played("max-tokens", 1, 4, failed(None)),
    Played("refusal", 1, 2, failed(None) | {"stop_reason": "refusal"}),
    Played("flood", 0, 1, OK, also=is_five_megabytes_and_misses_no_line),
    Played("markdown-attack", 0, 1, OK),
    Played("slow-text", 0, 1, OK | {"result": "".join(f"line {n}\n" for n in range(1, 41))}),
)
# They do not come to an end by themselves in the time of a test; each has a test of its own below.
ENDLESS: Final = {"ticker", "background", "stall-midway", "stall-headers"}


def test_each_shipped_script_is_played_here() -> None:
    assert {played.script for played in PLAYED} | ENDLESS == set(scripts.names())


@pytest.mark.parametrize("played", PLAYED, ids=str)
def test_the_cli_ends_a_script_as_it_is_meant_to(played: Played, tmp_path: Path) -> None:
    allow = scripts.load(played.script).allow
    arguments = (*STREAM, *played.arguments)
    with rehearsed(
        played.script, folder=tmp_path, arguments=arguments, allow=allow, options=("--pace", str(played.pace)), env=played.env
    ) as run:
        ended = run.end()

    assert (ended.code, ended.stderr) == (played.code, "")
    assert {key: ended.result.get(key) for key in played.result} == played.result
    assert len(ended.main_requests) == len(ended.requests) == played.requests
    assert [retry["error_status"] for retry in ended.retries] == list(played.retries)
    project = tmp_path / "project"
    assert {path.name: path.read_text("utf-8") for path in project.iterdir()} == played.files
    if played.also is not None:
        played.also(ended)


def test_the_denied_script_runs_its_command_where_it_is_allowed(tmp_path: Path) -> None:
    with rehearsed("denied", folder=tmp_path, allow=("Bash",)) as run:
        ended = run.end()
    assert ended.result["permission_denials"] == []
    assert (tmp_path / "project" / "denied.txt").read_text("utf-8") == "it ran"


def test_slow_text_comes_a_line_at_a_time_and_stops_when_it_is_stopped(tmp_path: Path) -> None:
    with rehearsed("slow-text", folder=tmp_path) as run:
        run.wait_for(lambda line: text_of(line) == "line 3\n")
        run.process.send_signal(signal.SIGTERM)
        ended = run.end()
    assert ended.code == 128 + signal.SIGTERM
    assert 3 <= sum(bool(text_of(line)) for line in ended.lines) < 40


def test_the_ticker_writes_lines_until_it_is_interrupted(tmp_path: Path) -> None:
    ticks = tmp_path / "project" / "ticks.txt"
    with rehearsed("ticker", folder=tmp_path, allow=("Bash",)) as run:
        wait_for(lambda: ticks.exists() and ticks.read_text("utf-8").count("\n") >= 3)
        run.process.send_signal(signal.SIGINT)  # to the wrapper alone: it is the CLI's to react, and nothing has reached it
        (cli,) = [process for process in run.descendants() if process.ppid() == run.process.pid]
        cli.send_signal(signal.SIGINT)
        ended = run.end()
    assert_interrupted(ended, "aborted_tools")
    lines = ticks.read_text("utf-8").splitlines()
    assert lines == [f"tick {number}" for number in range(1, len(lines) + 1)]
    assert len(lines) < 300


def test_a_background_command_outlives_the_result_and_holds_the_cli(tmp_path: Path) -> None:
    with rehearsed("background", folder=tmp_path, allow=("Bash",)) as run:
        result = run.wait_for(lambda line: line["type"] == "result")
        assert result["is_error"] is False
        assert run.process.poll() is None
        ticks = tmp_path / "project" / "background.txt"
        wait_for(lambda: ticks.exists() and ticks.read_text("utf-8").startswith("tick 1\n"))
        run.process.send_signal(signal.SIGTERM)
        ended = run.end()
    assert ended.code == 128 + signal.SIGTERM


def test_a_stall_before_the_headers_keeps_the_cli_waiting(tmp_path: Path) -> None:
    with rehearsed("stall-headers", folder=tmp_path, env={"API_TIMEOUT_MS": "1000", "CLAUDE_CODE_MAX_RETRIES": "1"}) as run:
        ended = run.end()
    assert ended.code == 1
    assert ended.result["is_error"] is True
    assert {request["answer"] for request in ended.requests} == {"stall"}


def test_a_stall_midway_shows_some_text_and_then_nothing(tmp_path: Path) -> None:
    whole = scripts.load("stall-midway").turns[0].blocks[0].text or ""
    shown = ""
    with rehearsed("stall-midway", folder=tmp_path) as run:
        while len(shown) < 4 * 24:
            shown += text_of(run.wait_for(text_of))
        run.process.send_signal(signal.SIGTERM)
        ended = run.end()
    assert shown == "".join(map(text_of, ended.lines)) == whole[: 4 * 24]
    assert len(whole) > len(shown)
    assert [request["answer"] for request in ended.requests] == ["200 stall"]
    assert ended.code == 128 + signal.SIGTERM
    assert ended.results == []
