"""The command line where its standard streams are not what it expects: a full disk, a closed stream, an encoding that lacks the characters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.environments import CHECKOUT

BUDGET = 60.0
CLI = (sys.executable, "-m", "cc_executor.cli")
SHELL = ("run", "--agent", "shell", "--shell", "bash")
FULL = Path("/dev/full")


def environ(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(CHECKOUT / "src")} | more


def cli(*arguments: str, **streams: Any) -> subprocess.CompletedProcess[str]:
    given: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.run([*CLI, *arguments], env=environ(), text=True, timeout=BUDGET, check=False, **given)


def outcome() -> str:
    return json.loads(cli("list", "--limit", "1", "--json").stdout)[0]["status"]


def test_a_run_goes_on_where_its_output_cannot_be_written() -> None:
    with FULL.open("w") as full:
        done = cli(*SHELL, "seq 50000; sleep 0.1; echo more", stdout=full)
    assert done.returncode == 74
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert outcome() == "ok"
    with FULL.open("w") as full:
        failed = cli(*SHELL, "echo oops; exit 7", stdout=full)
    assert failed.returncode == 1, "an outcome other than ok comes first"


@pytest.mark.parametrize("arguments", [SHELL, (*SHELL, "--json")], ids=["as text", "as JSON"])
def test_a_run_goes_on_where_what_is_said_about_it_cannot_be_written(arguments: tuple[str, ...]) -> None:
    """On standard error, as in `2> log` on a full disk: what the agent writes is on the other stream, and is not lost with it."""
    with FULL.open("w") as full:
        done = cli(*arguments, "echo hello; echo word >&2; sleep 0.1; echo more", stderr=full)
        assert (done.returncode, outcome()) == (74, "ok")
        assert (json.loads(done.stdout)["text"] if "--json" in arguments else done.stdout) == "hello\nmore\n"
        assert cli(*SHELL, "exit 7", stderr=full).returncode == 1, "an outcome other than ok comes first"
        for watching in (("attach",), ("tail", "--follow")):
            assert cli(*watching, stderr=full).returncode == 1


def test_a_list_is_done_where_its_lines_cannot_be_written(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(f"tasks:\n- {{id: a, run: 'true'}}\n- {{id: b, run: touch {tmp_path}/done}}\n")
    with FULL.open("w") as full:
        done = cli("tasks", "run", str(plan), stdout=full)
    assert (done.returncode, done.stderr) == (
        74,
        "The output cannot be written: No space left on device. Make room, or send it elsewhere.\n",
    )
    assert (tmp_path / "done").exists()
    plan.write_text("tasks:\n- {id: a, run: 'false'}\n")
    with FULL.open("w") as full:
        assert cli("tasks", "run", str(plan), stdout=full).returncode == 1, "a status other than ok comes first"


@pytest.mark.parametrize("arguments", [("list",), ("config", "--json"), ("tasks", "schema")])
def test_what_cannot_be_written_is_told_and_is_no_success(arguments: tuple[str, ...]) -> None:
    cli(*SHELL, "echo there is a run")
    with FULL.open("w") as full:
        done = cli(*arguments, stdout=full)
    assert done.returncode == 74
    assert done.stderr.startswith("The output cannot be written")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("closed", "code"), [("<&-", 2), (">&-", 0), ("2>&-", 0), (">&- 2>&-", 0)], ids=["stdin", "stdout", "stderr", "stdout and stderr"]
)
def test_a_closed_stream_is_no_reason_to_fail(closed: str, code: int) -> None:
    prompt = [] if closed == "<&-" else ["echo hello"]
    words = " ".join(f"'{word}'" for word in (*CLI, *SHELL, *prompt))
    done = subprocess.run(
        ["/bin/sh", "-c", f"{words} {closed}"],
        env=environ(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BUDGET,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if closed == "<&-":
        assert "The prompt is empty" in done.stderr
    else:
        assert outcome() == "ok"


def test_what_an_encoding_lacks_is_written_as_an_escape() -> None:
    argv = [*CLI, *SHELL, "echo 'über 🖊'"]
    done = subprocess.run(
        argv,
        env=environ(PYTHONIOENCODING="ascii", PYTHONUTF8="0"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=BUDGET,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"\\xfcber \\U0001f58a\n")
    for name, key in (("list", "prompt"), ("history", "prompt_line")):
        listed = subprocess.run(
            [*CLI, name, "--json"],
            env=environ(PYTHONIOENCODING="latin-1"),
            capture_output=True,
            timeout=BUDGET,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        assert json.loads(listed.stdout)[0][key] == "echo 'über 🖊'"


def test_the_locale_c_without_utf_8_is_no_reason_to_fail() -> None:
    done = subprocess.run(
        [*CLI, *SHELL, r"printf '\303\274ber \342\234\223\n'"],
        env=environ(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=BUDGET,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"\\xfcber \\u2713\n"), done.stderr
    assert outcome() == "ok"
