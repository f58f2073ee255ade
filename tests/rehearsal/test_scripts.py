"""The format of scripts: names, validation, and errors that name the place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cc_executor.errors import InvalidRequest
from cc_executor.rehearsal import scripts

VOCABULARY = {
    "approval", "background", "bad-key", "cut-after-block", "denied", "flood", "forbidden", "hello", "markdown-attack", "max-tokens", "max-turns", "no-credit",
    "overloaded", "question", "refusal", "reset-midway", "schema", "schema-unmet", "server-error-once", "slow-text", "stall-headers", "stall-midway", "throttled",
    "throttled-for-an-hour", "throttled-forever", "ticker", "tour", "unknown-model", "write-file",
}  # fmt: skip


def test_the_vocabulary_is_pinned_and_sorted() -> None:
    assert set(scripts.names()) == VOCABULARY
    assert list(scripts.names()) == sorted(scripts.names())


@pytest.mark.parametrize("name", sorted(VOCABULARY))
def test_a_shipped_script_has_a_name_and_a_description_of_one_line(name: str) -> None:
    script = scripts.load(name)
    assert script.name == name
    assert script.description != "a script"
    assert "\n" not in script.description


@pytest.mark.parametrize("name", ["no-such", "", "Hello", "..", "hello.json", "scripts"])
def test_an_unknown_name_lists_the_names(name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"background.*write-file"):
        scripts.load(name)


def test_a_file_is_loaded_by_its_path_and_named_by_it(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('[[turn]]\n[[turn.block]]\ntext = "Grüße"\n', "utf-8")
    script = scripts.load(path)
    assert script.name == str(path)
    assert script.turns[0].blocks[0].text == "Grüße"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        (b"[[turn]", "not valid TOML"),
        (b"\xff\xfe", "not UTF-8"),
        (b"#" * (scripts.FILE_LIMIT + 1), "larger than"),
    ],
)
def test_an_unreadable_file_says_why(content: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=said):
        scripts.load(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "at the top: Object missing required field `turn`"),
        ("turn = []", "at turn: "),
        ('[[turn]]\n[[turn.block]]\ntext = "a"\ndelay = "b"', r"at turn\[0\]\.block\[0\]\.delay: Expected `float"),
        ('[[turn]]\n[[turn.block]]\ntext = "a"\ndelay = -1', r"at turn\[0\]\.block\[0\]\.delay: "),
        ('[[turn]]\n[[turn.block]]\ntext = "a"\ndelay = nan', r"at turn\[0\]\.block\[0\]\.delay: must be a finite number"),
        ('[[turn]]\n[[turn.block]]\ntext = "a"\ndelay = 99999', r"at turn\[0\]\.block\[0\]\.delay: "),
        ('[[turn]]\n[[turn.block]]\ntext = "a"\n[[turn]]\n[[turn.block]]\nsay = "b"', r"at turn\[1\]\.block\[0\]: .*unknown field `say`"),
        (
            '[[turn]]\n[[turn.block]]\ntext = "a"\nthinking = "b"',
            r"at turn\[0\]\.block\[0\]: needs exactly one of text, thinking and tool, and has text, thinking",
        ),
        ("[[turn]]\n[[turn.block]]\npiece = 3", r"at turn\[0\]\.block\[0\]: .*has none"),
        ('[[turn]]\n[[turn.block]]\ntext = "a"\ninput = { b = 1 }', r"at turn\[0\]\.block\[0\]: input, .* belong to a tool"),
        ('[[turn]]\n[[turn.block]]\ntool = "Bash"\nrepeat_input = { command = 3 }', r"repeat_input\.command needs a string input\.command"),
        ('[[turn]]\n[[turn.block]]\ntool = "Bash"\ninput = { x = inf }', r"at turn\[0\]\.block\[0\]\.input\.x: must be a finite number"),
        ('[[turn]]\n[[turn.block]]\ntext = "0123456789"\nrepeat = 999999999', r"at turn\[0\]\.block\[0\]\.repeat: "),
        (
            f'[[turn]]\n[[turn.block]]\ntext = "{"x" * 100}"\nrepeat = 1000000',
            r"at turn\[0\]\.block\[0\]: would write 100,000,000 characters",
        ),
        ("[[turn]]", r"at turn\[0\]: needs at least one block"),
        ('[[turn]]\nfault = { kind = "status", status = 500, times = 1 }', r"at turn\[0\]: needs at least one block"),
        ('[[turn]]\nfault = { kind = "status" }', r"at turn\[0\]\.fault: status and kind"),
        ('[[turn]]\nfault = { kind = "status", status = 200 }', r"at turn\[0\]\.fault\.status: "),
        ('[[turn]]\nfault = { kind = "explode" }', r"at turn\[0\]\.fault\.kind: Invalid enum value 'explode'"),
        ('[[turn]]\nfault = { kind = "error_event", at = "headers" }', r"at turn\[0\]\.fault: an error_event is inside"),
        ('[[turn]]\nstop_reason = "tired"\n[[turn.block]]\ntext = "a"', r"at turn\[0\]\.stop_reason: "),
        ('[[turn]]\nheaders = { "content-length" = "3" }\n[[turn.block]]\ntext = "a"', r"at turn\[0\]: headers.content-length"),
        ('[[turn]]\nheaders = { "a" = "b\\r\\nc: d" }\n[[turn.block]]\ntext = "a"', r"at turn\[0\]: headers.a must be printable"),
        ('name = "me"\n[[turn]]\n[[turn.block]]\ntext = "a"', "at name: a script is named by its file"),
    ],
)
def test_an_invalid_script_names_the_place(text: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        scripts.parse(text, name="own.toml")
    assert str(caught.value).startswith("rehearsal script own.toml: ")


def test_the_last_turn_is_played_as_often_as_the_script_says_and_then_no_more() -> None:
    script = scripts.parse('repeat = 2\n[[turn]]\n[[turn.block]]\ntext = "a"\n[[turn]]\n[[turn.block]]\ntext = "b"', name="x")
    played = [script.turn(index) for index in range(5)]
    assert [turn and turn.blocks[0].text for turn in played] == ["a", "b", "b", None, None]


def test_a_pipe_is_no_script_and_nobody_waits_for_its_writer(tmp_path: Path) -> None:
    """A server reads a script for whoever sends a request: who waits there answers nobody else."""
    os.mkfifo(tmp_path / "script.toml")
    with pytest.raises(InvalidRequest, match=r"script\.toml is no plain file"):
        scripts.load(tmp_path / "script.toml")
