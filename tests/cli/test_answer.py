"""`cc-executor run --ask` at a terminal and in a pipe, and `cc-executor answer` from another one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

import pexpect
import pytest

from cc_executor.cli.codes import OUTCOME_CODES
from cc_executor.model.outcome import OutcomeKind
from cli.test_cli import BUDGET, CLI, beginning, cli, environ, rows
from support.looks import eventually

pytestmark = pytest.mark.usefixtures("claude_cli")

ASK: Final = ("run", "--ask", "--permission-mode", "default", "--rehearse")


def test_in_a_pipe_everything_is_refused_and_the_cure_is_named(tmp_path: Path) -> None:
    done = cli(*ASK, "approval", "Go.", cwd=tmp_path)
    assert done.returncode == OUTCOME_CODES[OutcomeKind.DENIED], done.stderr
    assert "the command runs without a terminal" in done.stderr
    assert 'Run it in a terminal, or allow it beforehand with --tools "Write,Bash".' in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_at_a_terminal_somebody_is_asked(tmp_path: Path) -> None:
    child = pexpect.spawn(
        sys.executable,
        [*CLI[1:], *ASK, "approval", "Go."],
        cwd=str(tmp_path),
        env=environ(),
        encoding="utf-8",
        timeout=BUDGET,
        dimensions=(50, 140),
    )
    for words, line in (
        ("tells the agent why", "what?"),
        ("Type a, r or d", "a"),
        ("Make approved.txt.*tells the agent why", "d only after lunch"),
        ("Once more.*tells the agent why", "r"),
    ):
        child.expect(words)
        child.sendline(line)
    child.expect(pexpect.EOF)
    written = child.before or ""
    child.close()
    assert child.exitstatus == 0, written
    assert {file.name for file in tmp_path.iterdir()} == {"plan.md", "approved.txt"}
    receipt = json.loads(cli("show", "--json").stdout)
    assert [(one["decision"], one["by"], one["note"]) for one in receipt["asked"]] == [
        ("allow", "terminal", ""), ("deny", "terminal", "only after lunch"), ("allow_run", "terminal", ""),
    ]  # fmt: skip


def test_another_terminal_answers_and_the_first_one_goes_on(tmp_path: Path) -> None:
    child = pexpect.spawn(
        sys.executable,
        [*CLI[1:], *ASK, "question", "Go."],
        cwd=str(tmp_path),
        env=environ(),
        encoding="utf-8",
        timeout=BUDGET,
        dimensions=(50, 140),
    )
    child.expect("Which data should the report use.*words of your own")
    (ask,) = json.loads(cli("answer", "--json").stdout)
    assert ask["kind"] == "question"
    assert "asks 2: give one answer for each" in cli("answer", "--text", "All years").stderr
    assert "one of --allow" in cli("answer", "--allow", "--deny").stderr
    said = cli("answer", "--text", "All years", "--text", "Tables and text")
    assert said.stdout == "Answered: Which data should the report use?; Which parts do you want?\n"
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    receipt = json.loads(cli("show", "--json").stdout)
    assert [(one["decision"], one["by"], one["note"]) for one in receipt["asked"]] == [("answer", "cli", "All years · Tables and text")]
    assert "has ended" in cli("answer", "--allow").stderr


TWO: Final = """
description = "asks for two things at once"

[[turn]]
[[turn.block]]
tool = "Read"
input = { file_path = "/etc/hostname" }
[[turn.block]]
tool = "Read"
input = { file_path = "/etc/passwd\\u001b[8m" }

[[turn]]
[[turn.block]]
text = "Done."
"""


def test_of_several_questions_the_one_that_is_named_is_answered(tmp_path: Path) -> None:
    script = tmp_path / "two.toml"
    script.write_text(TWO)
    run_id = cli(*ASK, script, "--detach", "--timeout", "600", "Go.", cwd=tmp_path).stdout.strip()
    asks = eventually(
        lambda: len(found := json.loads(cli("answer", run_id, "--json").stdout)) == 2 and found, within=BUDGET, what="the agent asks"
    )
    ids = [ask["id"] for ask in asks]
    refused = cli("answer", run_id, "--allow")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[1:] == [f"  {ids[0]}  Read: /etc/hostname", f"  {ids[1]}  Read: /etc/passwd\\u001b[8m"]
    assert cli("answer", run_id, "--deny", "--ask", ids[1][:8]).stdout == "Denied: Read: /etc/passwd\\u001b[8m\n"
    assert cli("answer", run_id, "--allow").stdout == "Allowed once: Read: /etc/hostname\n"  # there is no other any more
    with beginning("attach", run_id, "--json") as process:
        receipt = json.loads(process.communicate(timeout=BUDGET)[0])
    assert {(one["what"], one["decision"]) for one in receipt["asked"]} == {
        ("Read: /etc/hostname", "allow"),
        ("Read: /etc/passwd\x1b[8m", "deny"),
    }


def test_at_a_terminal_one_question_is_asked_at_a_time_and_one_that_is_answered_elsewhere_makes_room(tmp_path: Path) -> None:
    script = tmp_path / "two.toml"
    script.write_text(TWO)
    child = pexpect.spawn(
        sys.executable, [*CLI[1:], *ASK, str(script), "Go."], cwd=str(tmp_path), env=environ(), encoding="utf-8", timeout=BUDGET, dimensions=(50, 140)
    )  # fmt: skip
    child.expect(r"leave to use Read — /etc/hostname.*tells the agent why")
    asks = eventually(
        lambda: len(found := json.loads(cli("answer", "--json").stdout)) == 2 and found, within=BUDGET, what="the agent asks for both"
    )
    assert cli("answer", "--deny", "--ask", asks[0]["id"]).stdout == "Denied: Read: /etc/hostname\n"
    child.expect(r"leave to use Read — /etc/passwd.*tells the agent why")
    child.sendline("a")
    child.expect(pexpect.EOF)
    child.close()
    receipt = json.loads(cli("show", "--json").stdout)
    assert [(one["decision"], one["by"]) for one in receipt["asked"]] == [("deny", "cli"), ("allow", "terminal")]


def test_a_run_without_anybody_waits_only_for_so_long_and_can_be_answered(tmp_path: Path) -> None:
    assert "give --timeout, too" in cli(*ASK, "approval", "--detach", "Go.", cwd=tmp_path).stderr
    assert rows() == []
    run_id = cli(*ASK, "approval", "--detach", "--timeout", "600", "--tools", "Write", "Go.", cwd=tmp_path).stdout.strip()
    shown = eventually(
        lambda: (said := cli("answer", run_id)).stdout.count("touch approved.txt") and said, within=BUDGET, what="the agent asks"
    )
    assert "allow for this run: Bash(touch approved.txt), Bash(rm -f draft.txt)" in shown.stdout
    with beginning("attach", run_id) as watching:  # in a pipe, where nobody can answer; but it is not this one's run to refuse for
        assert watching.stderr is not None
        assert any("Waits for leave" in line for line in watching.stderr)
        assert cli("answer", run_id, "--allow-run").stdout == "Allowed for this run: Bash: touch approved.txt; rm -f draft.txt\n"
        watching.communicate(timeout=BUDGET)
    receipt = json.loads(cli("attach", run_id, "--json").stdout)
    assert (receipt["outcome"]["kind"], [one["by"] for one in receipt["asked"]]) == ("ok", ["cli"])
    assert (tmp_path / "approved.txt").exists()
