"""Commands about the machine: settings, servers, stress, completion, and files that are looked at before anything is spent."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pexpect
import pytest

from cc_executor import __version__
from support.commands import command
from support.environments import CHECKOUT
from support.served import TOKEN, Server, serving

BASH: Final[dict[str, Any]] = {"agent": "shell", "shell": "bash"}

# --- the state folder -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["list", "doctor", "config", "run --agent shell true", "tasks list", "history"])
def test_a_relative_state_folder_is_refused_with_the_cure(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CC_EXECUTOR_STATE", "kept")
    done = command(*words.split())
    assert (done.code, done.out) == (2, "")
    assert "CC_EXECUTOR_STATE is relative (kept)" in done.err
    assert "Set it to an absolute path, or to one that begins with ~/." in done.err
    assert list(tmp_path.iterdir()) == []


# --- config -----------------------------------------------------------------------------------------------------------


def settings(*, code: int = 0) -> dict[str, dict[str, Any]]:
    done = command("config", "--json")
    assert done.code == code, done.err
    return {row["name"]: row for row in json.loads(done.out)}


def test_a_setting_says_who_has_set_it_and_a_file_wins_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ipython, jupyter = tmp_path / "ipython", tmp_path / "jupyter"
    (ipython / "profile_default").mkdir(parents=True)
    jupyter.mkdir()
    (ipython / "profile_default" / "ipython_config.py").write_text("c.CCExecutor.model = 'filed'\nc.CCExecutor.tools.append('Bash')\n")
    (jupyter / "jupyter_server_config.json").write_text('{"CCExecutorServer": {"max_running": 3}}')
    (jupyter / "jupyter_config.py").write_text("1 / 0\n")
    for name, value in {
        "IPYTHONDIR": str(ipython), "JUPYTER_CONFIG_DIR": str(jupyter), "CC_EXECUTOR_MODEL": "named", "CC_EXECUTOR_MAX_COST": "2.5",
        "CC_EXECUTOR_REDIS": "redis://:canary@nowhere/0",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    done = command("config", "--json")
    rows = {row["name"]: row for row in json.loads(done.out)}
    told = {name: (row["value"], row["source"], Path(row["where"]).name) for name, row in rows.items()}
    assert told["CCExecutor.model"] == ("filed", "file", "ipython_config.py")
    assert told["CCExecutor.tools"] == (["Bash"], "file", "ipython_config.py")
    assert told["CCExecutor.max_cost"] == (2.5, "environment", "CC_EXECUTOR_MAX_COST")
    assert told["CCExecutor.linger"] == (60.0, "default", "")
    assert told["CCExecutorServer.heartbeat"] == (30.0, "default", "")
    assert told["CCExecutorServer.max_running"] == (3, "file", "jupyter_server_config.json")
    assert "jupyter_config.py" in done.err
    assert "ZeroDivisionError" in done.err
    text = command("config").out
    assert "canary" not in done.out + text
    assert f"filed  (file: {ipython}" in text


def test_a_server_s_settings_are_shown_without_the_server_s_packages() -> None:
    """jupyter_server takes more than a second to import."""
    ask = "import json, sys; from cc_executor.cli.settings import settings; names = [each.name for each in settings()]"
    shown, is_loaded = json.loads(
        subprocess.run(
            [sys.executable, "-c", f"{ask}; print(json.dumps([names, 'jupyter_server' in sys.modules]))"],
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
    )
    from cc_executor.server.app import CCExecutorServer

    own = {
        name for name, trait in CCExecutorServer.class_traits(config=True).items() if trait.this_class.__module__.startswith("cc_executor.")
    }
    assert {name.removeprefix("CCExecutorServer.") for name in shown if name.startswith("CCExecutorServer.")} == own
    assert not is_loaded


def test_a_variable_that_does_not_fit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC_EXECUTOR_MAX_COST", "much")
    done = command("config")
    assert done.code == 2
    assert "CC_EXECUTOR_MAX_COST" in done.err


# --- server status ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    folder = tmp_path_factory.mktemp("served")
    with serving(folder) as running:
        yield running, folder / "runtime"


def test_running_servers_are_found_and_asked_and_the_token_is_not_shown(
    server: tuple[Server, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    running, runtime = server
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(runtime))
    monkeypatch.setattr("cc_executor.cli.server.PATIENCE", 60.0)  # of five seconds; a busy machine may take longer
    os.mkfifo(tmp_path / "gate")
    started = running.client.post("/cc-executor/api/v1/execute", json={"prompt": "cat gate", **BASH, "cwd": str(tmp_path)})
    assert started.status_code == 202, started.text
    try:
        done = command("server", "status", "--json")
        [row] = json.loads(done.out)
        assert (done.code, row["answers"], row["version"], row["runs"], row["why"]) == (0, True, __version__, 1, "")
        assert row["pid"] == running.process.pid
        text = command("server", "status").out
        assert f"cc_executor {__version__}, 1 at work" in text
        assert TOKEN not in done.out + done.err + text
    finally:
        (tmp_path / "gate").write_text("")


class _Elsewhere(http.server.BaseHTTPRequestHandler):
    """A server without us at `/none/`, one that wants a login at `/login/`, one that says something else at `/odd/`."""

    seen: Final[list[str]] = []

    def do_GET(self) -> None:
        self.seen.append(self.path)
        where = self.path.split("/")[1]
        self.send_response({"none": 404, "login": 302}.get(where, 200))
        if where == "login":
            self.send_header("Location", "/stolen")
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Say nothing."""


def test_servers_that_do_not_answer_for_runs_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    nobody = command("server", "status")
    assert (nobody.code, nobody.out) == (1, "")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere) as other:
        thread = threading.Thread(target=other.serve_forever, args=(0.01,))
        thread.start()
        try:
            base = f"http://127.0.0.1:{other.server_address[1]}"
            for name, url in {
                "a": f"{base}/none/",
                "b": f"{base}/login/",
                "c": f"{base}/odd/",
                "d": "http://127.0.0.1:9/",
                "e": "http+unix://x/",
            }.items():
                (tmp_path / f"jpserver-{name}.json").write_text(json.dumps({"url": url, "pid": os.getpid(), "token": "t", "root_dir": "/"}))
            done = command("server", "status", "--json")
        finally:
            other.shutdown()
            thread.join(10)
    why = {row["url"].removeprefix(base): row["why"] for row in json.loads(done.out)}
    assert done.code == 1
    assert "not enabled" in why["/none/"]
    assert "login" in why["/login/"]
    assert "not understood" in why["/odd/"]
    assert "refused" in why["http://127.0.0.1:9/"]
    assert "socket" in why["http+unix://x/"]
    assert "/stolen" not in _Elsewhere.seen, "the token follows no redirect"


# --- validate ---------------------------------------------------------------------------------------------------------


def test_everything_that_is_wrong_is_said_with_its_place(tmp_path: Path) -> None:
    good, bad, prompt, empty = (tmp_path / name for name in ("good.yaml", "bad.yaml", "prompt.txt", "empty.txt"))
    good.write_text("tasks:\n  - {id: a, run: 'true'}\n")
    bad.write_text("tasks:\n  - {id: a, prompt: ''}\n  - {id: b, run: 'true', needs: [zz]}\n")
    prompt.write_text("fix it")
    empty.write_text(" \n")
    done = command("validate", good)
    assert (done.code, done.out) == (0, "")
    done = command("validate", good, bad)
    assert done.code == 1
    assert f"{bad}: error: tasks[0] 'a' (line 2)" in done.out
    assert f"{bad}: error: tasks[1] 'b' (line 3): needs 'zz'" in done.out
    done = command("validate", prompt, "--json")
    assert done.code == 0
    [found] = json.loads(done.out)["problems"]
    assert (found["severity"], found["problem"][:4]) == ("warning", "1:1:")
    assert command("validate", empty).code == 1
    assert command("validate", bad, "--prompt").code == 0
    for content, problem in (
        (b"do\0it now", "NUL character at position 2"),
        (b"word " * 2_100_000, "put the material in"),
        (b"", "is empty"),
    ):
        prompt.write_bytes(content)
        done = command("validate", prompt)
        assert (done.code, problem in done.out) == (1, True), "what `run` refuses"
    good.write_bytes(b"tasks:\n  - {id: a, run: 'caf\xe9'}\n")
    done = command("validate", good)
    assert (done.code, f"{good}: is not UTF-8 text (byte 28): save it as UTF-8." in done.out) == (1, True)
    assert command("validate", tmp_path / "none.yaml").code == 1
    none = tmp_path / "none.txt"
    assert command("validate", none).code == 2
    for names in ((none, bad), (bad, none)):
        done = command("validate", *names)
        assert (done.code, f"{bad}: error: tasks[1]" in done.out, f"no prompt to read in {none}" in done.err) == (1, True, True), (
            "all are looked at"
        )
    prompt.write_bytes(b"fix it")
    done = command("validate", none, prompt, "--json")
    assert (done.code, json.loads(done.out)["ok"], len(json.loads(done.out)["problems"])) == (2, False, 1)
    assert f"no prompt to read in {none}" in done.err


# --- stress -----------------------------------------------------------------------------------------------------------


def test_stress_says_how_runs_ended_and_leaves_nothing(state_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    done = command("stress", "--shell", "-n", "6", "--at-once", "3", "--json")
    said = json.loads(done.out)
    assert (done.code, said["outcomes"], said["leftovers"]) == (0, {"ok": 6}, 0)
    assert 0 < said["p50"] <= said["p99"] < said["seconds"]
    assert list(tmp_path.iterdir()) == []
    assert not state_folder.exists(), "history and estimates do not see them"


def test_stress_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = command("stress", "--shell", "-n", "2")
    assert done.code == 1
    assert "not started" in done.out
    assert "2 × " in done.err


# --- completion -------------------------------------------------------------------------------------------------------


def test_a_real_bash_completes_commands_and_options(tmp_path: Path) -> None:
    (tmp_path / "cc-executor").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cc_executor.cli "$@"\n')
    (tmp_path / "cc-executor").chmod(0o755)
    environ = os.environ | {
        "PYTHONPATH": str(CHECKOUT / "src"), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PS1": "ready> ", "TERM": "dumb", "INPUTRC": "/dev/null",
    }  # fmt: skip
    bash = pexpect.spawn("bash", ["--norc", "--noprofile", "-i"], env=environ, timeout=60, encoding="utf-8", dimensions=(40, 200))
    try:
        bash.expect_exact("ready> ")
        bash.sendline('eval "$(cc-executor completion bash)"; echo loa""ded')
        bash.expect_exact("loaded\r\n")
        bash.send("cc-executor histo\t")
        bash.expect_exact("history")
        bash.send("\x15cc-executor run --max-tu\t")
        bash.expect_exact("--max-turns")
        bash.sendline("\x15exit")
        bash.expect(pexpect.EOF)
    finally:
        bash.close()


@pytest.mark.parametrize(("shell", "word"), [("zsh", "compdef"), ("fish", "complete --command cc-executor")])
def test_there_are_scripts_for_other_shells(shell: str, word: str) -> None:
    done = command("completion", shell)
    assert done.code == 0
    assert word in done.out
    assert command("completion", "tcsh").code == 2
