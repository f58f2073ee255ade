from __future__ import annotations

import subprocess
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_executor.agents.base import ARGUMENT_LIMIT
from cc_executor.agents.shell import ShellAgent, ShellDecoder
from cc_executor.errors import InvalidRequest
from cc_executor.model.event import TextWritten
from cc_executor.model.fold import advance_all
from cc_executor.model.request import RunRequest
from cc_executor.model.state import RunState


def argv(prompt: str, *, executable: str = "/bin/sh", **fields: Any) -> tuple[str, ...]:
    command = ShellAgent().command(RunRequest(prompt=prompt, agent="shell", cwd="/tmp", **fields), executable=executable, session_id="")
    assert command.stdin is None
    assert not command.env
    return command.argv


@pytest.mark.parametrize("shell", ["bash", "zsh", "sh", "/usr/bin/fish", "./my-shell"])
def test_a_shell_gets_the_cell_as_its_script(shell: str) -> None:
    script = "for i in 1 2; do\n  echo $i | cat\ndone"
    assert argv(script, executable="/x", shell=shell) == ("/x", "-c", script)


@pytest.mark.row("threats", "shell injection", "without a named shell nothing is expanded, joined or substituted")
def test_without_a_shell_the_cell_is_words_and_nothing_is_expanded() -> None:
    assert argv("pytest -q 'a b' $HOME *.py \"x;y\" && rm", executable="/x/pytest") == (
        "/x/pytest", "-q", "a b", "$HOME", "*.py", "x;y", "&&", "rm",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("prompt", "fields", "message"),
    [
        ("echo 'open", {}, "close the quote"),
        ("echo hi", {"shell": "powershell"}, "no known shell"),
        ("echo hi", {"shell": "-x"}, "no known shell"),
        ("echo " + "x" * (ARGUMENT_LIMIT + 1), {}, "limit is 131,071"),
        ("# " + "x" * ARGUMENT_LIMIT, {"shell": "bash"}, "put the script in a file"),
        ("echo hi", {"output_schema": {"type": "object"}}, "no structured result .* --verify"),
        ("echo hi \ud800", {}, "half a character at position 0 of '.ud800', .*remove it"),
        ("echo hi \ud800", {"shell": "bash"}, "half a character at position 8"),
        ("echo hi", {"output_schema": {}}, "no structured result"),
        ("echo hi", {"resume": "3f1c"}, "leave --resume out"),
        ("echo hi", {"append_system_prompt": "Be brief."}, "reads no system prompt"),
        ("echo hi", {"rehearse": "hello"}, "would really do what it says: leave --rehearse out"),
    ],
)
def test_what_cannot_be_started_is_refused_with_the_cure(prompt: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        argv(prompt, **fields)


@pytest.mark.row("threats", "option injection", "prompts, models, tools, folders and session ids that begin with a dash stay values")
@pytest.mark.parametrize("shell", ["bash", "sh"])
@pytest.mark.parametrize("script", ["-x 2>/dev/null; echo said", "+e 2>/dev/null; echo said", "--help 2>/dev/null; echo said", "echo said"])
def test_a_script_that_begins_with_a_sign_is_a_script(shell: str, script: str) -> None:
    made = argv(script, executable=f"/bin/{shell}", shell=shell)
    assert subprocess.run(made, capture_output=True, check=True, timeout=30).stdout == b"said\n"


@given(st.binary(max_size=80), st.lists(st.integers(0, 80)))
def test_output_is_text_however_it_is_cut(data: bytes, places: list[int]) -> None:
    decoder = ShellDecoder()
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    events = [event for a, b in pairwise(edges) for event in decoder.feed(data[a:b])] + decoder.close()
    assert all(isinstance(event, TextWritten) and event.block == "stdout" and event.text for event in events)
    assert advance_all(RunState(), events).text == data.decode("utf-8", "replace")


def test_a_copy_goes_its_own_way() -> None:
    decoder = ShellDecoder()
    assert decoder.feed("é".encode()[:1]) == []
    twin = decoder.copy()
    assert decoder.feed("é".encode()[1:]) == [TextWritten(block="stdout", text="é")]
    assert twin.close() == [TextWritten(block="stdout", text="\ufffd")]
