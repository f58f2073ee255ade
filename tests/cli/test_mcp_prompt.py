"""`cc-executor prompt`: what an agent without tools is told to type does what it is told."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from support.environments import CHECKOUT

COMMAND: Final = f"{sys.executable} -m cc_executor.cli"


@pytest.fixture(scope="module")
def page() -> str:
    done = subprocess.run(
        [*COMMAND.split(), "prompt"], env=os.environ | {"PYTHONPATH": str(CHECKOUT / "src")}, capture_output=True, text=True, check=True
    )
    assert done.stdout == (CHECKOUT / "src" / "cc_executor" / "cc_execute.md").read_text("utf-8")
    return done.stdout


def blocks(page: str, language: str) -> list[str]:
    return [re.sub(r"(?m)^   ", "", each) for each in re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)]


@pytest.mark.timeout(330)
def test_every_command_of_the_page_works(page: str, tmp_path: Path) -> None:
    """With a scripted model in the place of a real one, and a check that passes."""
    (tmp_path / "prompt.md").write_text("Say hello, and change nothing.", "utf-8")
    (tmp_path / "tasks.yaml").write_text(blocks(page, "yaml")[0], "utf-8")
    script = "\n".join(blocks(page, "bash"))
    for written, meant in (
        ("cc-executor run", "cc-executor run --rehearse hello"),
        ('"pytest -q tests/test_parser.py"', "true"),
        ('cc-executor show --json "$run"', 'cc-executor attach "$run" > attached.txt; cc-executor show --json "$run"'),
        ("cc-executor tasks run --json tasks.yaml", ""),  # agents that write tests are no matter of a test; `check` has read it
        ("cc-executor", COMMAND),
    ):
        assert written in script, f"the page does not say {written} any more"
        script = script.replace(written, meant)
    environ = os.environ | {"PYTHONPATH": str(CHECKOUT / "src"), "CC_EXECUTOR_STATE": str(tmp_path / "state"), "HOME": str(tmp_path)}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    values = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    receipts = [value for value in values if "outcome" in value]
    assert [(each["outcome"]["kind"], each["standing"]) for each in receipts] == [("ok", "verified"), ("ok", "claimed")], done.stdout
    assert any("findings" in value for value in values)


def test_every_command_and_option_that_it_names_is_there(page: str) -> None:
    reference = (CHECKOUT / "docs" / "reference.md").read_text("utf-8")
    for command in re.findall(r"`?cc-executor ([a-z]+(?: check| run)?)", page):
        assert f"cc-executor {command}" in reference, command
    for option in re.findall(r"--[a-z][a-z-]+", page):
        assert option in reference, option
