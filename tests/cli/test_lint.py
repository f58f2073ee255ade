"""`cc-executor lint`, and what the other commands say of prompts and needs, as processes of their own."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from cc_executor.model.receipt import Receipt
from cli.test_cli import cli

LIST = """
lint_off: [few-words]
tasks:
- {id: left, run: echo left}
- {id: right, run: echo right}
- {id: both, prompt: Fix it, needs: [left, right], lint_off: too-short}
- {id: quiet, prompt: Fix it, lint: off}
- {id: last, prompt: "Compare {{ needs.both.text }} with left.txt.", needs: left}
"""


def test_findings_are_said_with_their_place_and_the_count(tmp_path: Path) -> None:
    (tmp_path / "prompt.md").write_text("Rename the package to shop.\nAsk me before you delete a file.\n")
    said = cli("lint", "prompt.md", cwd=tmp_path)
    assert said.returncode == 1, "there is a warning"
    assert said.stdout.startswith("Lint: 1 finding; about ")
    assert "2:1    warning  asks-back" in said.stdout
    found = json.loads(cli("lint", "-", "--json", stdin=b"/review src/app.py").stdout)
    assert found["tokens"]["least"] <= found["tokens"]["likely"] <= found["tokens"]["most"]
    assert [(each["rule"], each["line"], each["column"]) for each in found["findings"]] == [("slash-command", 1, 1)]
    quiet = cli("lint", "prompt.md", "--lint-off", "asks-back,vague", cwd=tmp_path)
    assert (quiet.returncode, quiet.stdout.splitlines()[0].split(";")[0]) == (0, "Lint: nothing found")
    wrong = cli("lint", "prompt.md", "--lint-off", "asks_back", cwd=tmp_path)
    assert (wrong.returncode, "no lint rule 'asks_back'" in wrong.stderr) == (2, True)


def test_a_suggestion_is_written_out_and_the_difference_beside_it() -> None:
    done = cli("lint", "-", "--lint-apply", "slash-command", stdin=b"/review src/app.py\nshortly\n")
    assert (done.returncode, done.stdout) == (0, "`/review` src/app.py\nshortly\n")
    assert done.stderr == "-/review src/app.py\n+`/review` src/app.py\n shortly\n"


@pytest.mark.usefixtures("claude_cli")
def test_the_receipt_is_that_of_the_prompt_that_was_sent_and_names_the_rules() -> None:
    done = cli("run", "--rehearse", "hello", "--lint", "--lint-apply", "dialogue", "--json", "Help me write a greeting for README.md.")
    assert done.returncode == 0, done.stderr
    assert "-Help me write a greeting for README.md.\n+Write a greeting for README.md." in done.stderr
    assert "hint     unchecked-file" in done.stderr, "what was found is said, of the prompt that is sent"
    receipt = Receipt.model_validate_json(done.stdout)
    assert receipt.amended == ("dialogue",)
    assert receipt.prompt_sha256 == hashlib.sha256(b"Write a greeting for README.md.").hexdigest()
    assert receipt.is_intact
    plain = cli("run", "--rehearse", "hello", "--json", "Write a greeting for README.md.")
    before = json.loads(plain.stdout)
    assert before["request_digest"] == receipt.request_digest
    del before["amended"]  # as receipts were before there was a lint
    assert Receipt.model_validate(before).is_intact


@pytest.mark.parametrize("wish", ["--lint", "--lint-apply=vague", "--lint-off=nonsense"])
def test_lint_of_a_command_is_refused(wish: str) -> None:
    done = cli("run", "--agent", "shell", wish, "true")
    assert (done.returncode, "for prompts" in done.stderr) == (2, True)


def test_a_check_of_a_list_says_hints_beside_and_its_needs_are_drawn(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text(LIST)
    checked = cli("tasks", "check", "list.yaml", cwd=tmp_path)
    assert checked.returncode == 0
    assert checked.stderr.startswith("tasks[2] 'both' (line 6): warning vague: ")
    assert len(checked.stderr.splitlines()) == 1
    hints = json.loads(cli("tasks", "check", "list.yaml", "--json", cwd=tmp_path).stdout)["hints"]
    assert [(hint["task"], hint["rule"]) for hint in hints] == [("both", "vague")]
    assert cli("tasks", "graph", "list.yaml", cwd=tmp_path).stdout == "left\nright\n  both ← left, right\nquiet\n    last ← both\n"
    drawn = cli("tasks", "graph", "list.yaml", "--mermaid", cwd=tmp_path).stdout
    assert [line.strip() for line in drawn.splitlines() if "-->" in line] == ["t0 --> t2", "t1 --> t2", "t2 --> t4"]
    (tmp_path / "list.yaml").write_text(LIST.replace("lint: off", "lint: maybe").replace("few-words", "fewwords"))
    wrong = cli("tasks", "check", "list.yaml", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "lint must be on or off (given: 'maybe')" in wrong.stderr
    assert "no lint rule 'fewwords'" in wrong.stderr


def test_the_schema_is_printed() -> None:
    schema = json.loads(cli("tasks", "schema").stdout)
    assert {"id", "prompt", "run", "needs", "timeout", "lint_off"} <= schema["$defs"]["task"]["properties"].keys()
