from __future__ import annotations

import io

from cc_executor.cli.writer import TerminalWriter, closing_lines
from cc_executor.model.event import ApiRetried, Event, Exited, MessageStarted, StderrWritten, TextWritten, ToolCalled, ToolReturned
from cc_executor.model.outcome import Outcome, OutcomeKind
from cc_executor.model.receipt import Check
from support.receipts import receipt


def written(*events: Event, pieces: bool) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    writer = TerminalWriter(out, err, pieces=pieces)
    for event in events:
        writer.feed([event])
    writer.close()
    return out.getvalue(), err.getvalue()


PIECES = (
    MessageStarted(message_id="m"),
    TextWritten(block="m:0", text="Hel"),
    TextWritten(block="m:0", text="lo"),
    TextWritten(block="m:0", text="Hello.", whole=True),
)


def test_a_text_that_grew_is_written_once() -> None:
    assert written(*PIECES, pieces=True) == ("Hello.\n", "")
    assert written(*PIECES, pieces=False) == ("Hello.\n", "")


def test_a_pipe_gets_no_text_that_became_void() -> None:
    events = (TextWritten(block="m:0", text="lost"), MessageStarted(message_id="n"), TextWritten(block="n:0", text="kept", whole=True))
    assert written(*events, pieces=False) == ("kept\n", "")
    out, err = written(*events, pieces=True)
    assert out == "lost\nkept\n"
    assert "begins anew" in err


def test_a_whole_text_that_differs_from_its_pieces_is_written_anew() -> None:
    events = (TextWritten(block="m:0", text="Helo"), TextWritten(block="m:0", text="Hello.", whole=True))
    assert written(*events, pieces=True)[0] == "Helo\nHello.\n"


def test_a_command_s_output_comes_as_it_is_also_in_a_pipe() -> None:
    events = (TextWritten(block="stdout", text="a\nb"), TextWritten(block="stdout", text="c"))
    assert written(*events, pieces=False) == ("a\nbc\n", "")


def test_terminal_control_is_taken_out() -> None:
    attack = "\x1b]0;title\x07\x1b[2Jred\x1b[31m \x9b5n!"
    out, err = written(
        TextWritten(block="m:0", text=attack, whole=True),
        TextWritten(block="stdout", text="\x1b["),  # split in the middle of a sequence
        TextWritten(block="stdout", text="31mx"),
        ToolCalled(tool_id="t", name="Ba\x1b[1msh", input='{"command": "\\u001b[2Jls"}'),
        ToolReturned(tool_id="t", text="\x1b[5mno", is_error=True),
        StderrWritten(text="\x1b[31mbad"),
        pieces=True,
    )
    assert "\x1b" not in out + err
    assert "\x9b" not in out + err
    assert "red !" in out


def test_tools_failures_and_notices_go_to_standard_error() -> None:
    out, err = written(
        ToolCalled(tool_id="t", name="Bash", input='{"command": "ls -l"}'),
        ToolCalled(tool_id="s", name="Read", input='{"file_path": "a.py"}', parent="t"),
        ToolReturned(tool_id="t", text="no such file", is_error=True),
        ApiRetried(attempt=1, max_attempts=10, delay=2.0, status=529),
        Exited(code=1),
        pieces=True,
    )
    assert out == ""
    assert "→ Bash: ls -l" in err
    assert "    → Read: a.py" in err
    assert "✗ no such file" in err
    assert "529" in err


def test_a_subagent_s_text_is_not_taken_for_the_answer() -> None:
    assert written(TextWritten(block="m:0", text="inner", whole=True, parent="t"), pieces=False) == ("", "")


def test_the_end_of_a_success_tells_what_stands_beside_it() -> None:
    beside = "The run ended well; not all of its output could be kept."
    for summary, said in (("The run ended well.", []), (beside, [f"  {beside}"])):
        sealed = receipt(1, outcome=Outcome(kind=OutcomeKind.OK, summary=summary, evidence=("exit code = 0",)))
        assert closing_lines(sealed)[1:] == said


def test_the_end_tells_outcome_evidence_checks_and_cure() -> None:
    sealed = receipt(
        1,
        outcome=Outcome(kind=OutcomeKind.AUTH, summary="The key was refused.", evidence=("result.api_error_status = 401",), cure="Log in."),
        checks=(Check(what="make test", passed=False, detail="exit code 2"), Check(what="file a", passed=None)),
    )
    lines = closing_lines(sealed)
    assert lines[0].startswith("auth · 2.0 s · $0.0123")
    assert lines[1:] == [
        "  The key was refused.",
        "  evidence: result.api_error_status = 401",
        "  ✗ make test: exit code 2",
        "  ? file a: ",
        "  Log in.",
    ]
