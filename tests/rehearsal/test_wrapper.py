"""``python -m cc_executor.rehearsal``: exit codes, signals, the environment that it gives on, and that nothing of it is left."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from cc_executor.agents.claude.command import UNTRUSTED
from cc_executor.rehearsal import scripts
from cc_executor.rehearsal.__main__ import NO_FOLDER_SETTINGS, environment
from cc_executor.rehearsal.loopback import API_KEY
from security.hostile import trap
from support.cli import STREAM, Watched, assert_interrupted, bare_environment, find_cli, rehearsed, text_of
from support.disks import with_mount
from support.runs import wait_for

CANARY = "canary-5f2c"
PERSONAL = (
    *("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "ANTHROPIC_CUSTOM_HEADERS", "ANTHROPIC_MODEL"),
    *("CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR", "CLAUDE_CONFIG_DIR", "CLAUDECODE"),
    *("HTTPS_PROXY", "http_proxy", "ALL_PROXY"),
)


def wrapper(*arguments: str | Path, folder: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The wrapper around any command, with the input "from stdin"."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "cc_executor.rehearsal", *arguments],
        cwd=folder,
        env=bare_environment(folder, TMPDIR=str(folder), **(env or {})),
        input="from stdin",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def shell(command: str, *, folder: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return wrapper("--script", "hello", "--", "/bin/sh", "-c", command, folder=folder, env=env)


def listening(pid: int) -> list[str]:
    """The addresses on which a process listens."""
    return [f"{c.laddr.ip}:{c.laddr.port}" for c in psutil.Process(pid).net_connections("inet") if c.status == psutil.CONN_LISTEN]


def wait_until_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def cli_of(run: Watched) -> psutil.Process:
    (cli,) = [process for process in run.descendants() if process.ppid() == run.process.pid]
    return cli


# --- without the CLI: any command will do ----------------------------------------------------------------------------


def test_streams_and_exit_code_are_those_of_the_command(tmp_path: Path) -> None:
    ended = shell("cat; echo err >&2; exit 7", folder=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, "from stdin", "err\n")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_signal_that_ended_the_command_is_told_as_a_shell_tells_it(number: int, tmp_path: Path) -> None:
    assert shell(f"ulimit -c 0; kill -{int(number)} $$", folder=tmp_path).returncode == 128 + number


def test_a_command_that_cannot_be_started_says_so(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("no program")
    for command, code, said in (("/no/such/claude", 127, "No such file"), (str(tmp_path / "plain"), 126, "Permission denied")):
        ended = wrapper("--script", "hello", "--", command, folder=tmp_path)
        assert (ended.returncode, ended.stdout) == (code, "")
        assert said in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["plain"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--script", "no-such", "--", "true"), "There is no rehearsal 'no-such'. Choose one of: approval, background"),
        (("--script", "hello"), "--script and, after --, the CLI's own command line are needed"),
        (("--", "true"), "--script and, after --"),
        (("--script", "hello", "--pace", "fast", "--", "true"), "fast is not a number from 0 to 100"),
        (("--script", "hello", "--pace", "nan", "--", "true"), "nan is not a number"),
        (("--scr", "hello", "--", "true"), "unrecognized arguments"),
        (("--script", "hello", "--request-log", "/dev/null/log", "--", "true"), "/dev/null/log: Not a directory"),
        (("--script", "hello", "--config-dir", "/dev/null/folder", "--", "true"), "/dev/null/folder: Not a directory"),
    ],
)
def test_a_wrong_call_starts_nothing_and_exits_with_2(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    ended = wrapper(*arguments, folder=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_list_names_every_script_with_its_description(tmp_path: Path) -> None:
    lines = wrapper("--list", folder=tmp_path).stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(scripts.names())
    assert lines[1].endswith("leaves a command running in the background for five minutes")


def test_logins_endpoints_and_proxies_do_not_reach_the_command_and_its_tuning_does(tmp_path: Path) -> None:
    personal = dict.fromkeys(PERSONAL, CANARY)
    given = {"CLAUDE_CODE_MAX_RETRIES": "1", "API_TIMEOUT_MS": "9", "MY_DATA": "kept"}
    ended = shell("env", folder=tmp_path, env=personal | given)
    assert CANARY not in ended.stdout
    inside = dict(line.split("=", 1) for line in ended.stdout.splitlines())
    assert {name: inside[name] for name in given} == given
    assert inside["ANTHROPIC_API_KEY"] == API_KEY
    assert inside["ANTHROPIC_BASE_URL"].startswith("http://127.0.0.1:")
    assert Path(inside["CLAUDE_CONFIG_DIR"]).parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_named_configuration_folder_is_made_private_used_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    ended = wrapper("--script", "hello", "--config-dir", "a/b", "--", "/bin/sh", "-c", "echo $CLAUDE_CONFIG_DIR", folder=tmp_path)
    assert ended.stdout == f"{folder}\n"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_modules_that_lie_in_the_workspace_are_not_loaded(tmp_path: Path) -> None:
    for name in ("anyio", "h11", "msgspec", "cc_executor"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(99)\n")
    assert shell("cat", folder=tmp_path).returncode == 0


def test_the_environment_is_a_function_of_the_one_outside() -> None:
    outside = {"PATH": "/bin", "CLAUDE_CODE_MAX_RETRIES": "0", "Anthropic_Api_Key": CANARY}
    inside = environment(outside, url="http://127.0.0.1:1", key="k", config_dir="/c")
    assert (inside["PATH"], inside["CLAUDE_CODE_MAX_RETRIES"], inside["ANTHROPIC_API_KEY"]) == ("/bin", "0", "k")
    assert CANARY not in inside.values()


# --- with the CLI ----------------------------------------------------------------------------------------------------


def test_nobody_s_home_is_read_or_written(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".claude").mkdir(parents=True)
    login = {"accessToken": CANARY, "refreshToken": CANARY, "expiresAt": 9999999999999, "scopes": ["user:inference"]}
    (home / ".claude" / ".credentials.json").write_text(json.dumps({"claudeAiOauth": login}))
    (home / ".claude.json").write_text(json.dumps({"primaryApiKey": CANARY, "customApiKeyResponses": {"approved": [CANARY]}}))
    settings = {"apiKeyHelper": f"echo {CANARY}", "env": {"ANTHROPIC_AUTH_TOKEN": CANARY}}
    (home / ".claude" / "settings.json").write_text(json.dumps(settings))
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}

    with rehearsed(
        "hello", folder=tmp_path, options=("--pace", "0"), env={"CLAUDE_CODE_OAUTH_TOKEN": CANARY, "ANTHROPIC_AUTH_TOKEN": CANARY}
    ) as run:
        ended = run.end()

    assert ended.code == 0
    assert {request["key"] for request in ended.requests} == {"rehearsal"}
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before
    assert CANARY not in (tmp_path / "requests.jsonl").read_text("utf-8")
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("sources", [(), (NO_FOLDER_SETTINGS,)])
def test_a_gateway_in_the_machine_s_own_settings_is_not_asked(sources: tuple[str, ...], tmp_path: Path) -> None:
    upper, settings = tmp_path / "upper", tmp_path / "managed-settings.json"
    upper.mkdir()
    covering = (  # on a disk of its own: what is an overlay itself, as in a container, can be under one and not above
        f"mount -t tmpfs none {upper} && mkdir -p {upper}/etc/claude-code {upper}/work && cp {settings} {upper}/etc/claude-code/"
        f" && mount -t overlay none -o lowerdir=/etc,upperdir={upper}/etc,workdir={upper}/work /etc"
    )
    with trap() as gateway:
        told = {"env": {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{gateway.port}", "ANTHROPIC_AUTH_TOKEN": CANARY}}
        settings.write_text(json.dumps(told))
        with rehearsed(
            "hello", folder=tmp_path, before=with_mount(covering), arguments=(*STREAM, *sources), env={"CLAUDE_CODE_MAX_RETRIES": "0"}
        ) as run:
            ended = run.end()
        assert gateway.callers == []
    assert (ended.code, len(ended.main_requests)) == (0, 1)
    assert CANARY not in (tmp_path / "requests.jsonl").read_text("utf-8")


def test_the_option_without_which_a_folder_s_settings_are_read_is_that_of_a_run() -> None:
    assert NO_FOLDER_SETTINGS in UNTRUSTED


def test_the_port_is_on_loopback_alone_and_gone_after_a_termination(tmp_path: Path) -> None:
    with rehearsed("slow-text", folder=tmp_path) as run:
        run.wait_for(text_of)
        cli = cli_of(run)
        (address,) = listening(run.process.pid)
        assert cli.environ()["ANTHROPIC_BASE_URL"] == f"http://{address}"
        host, _, port = address.partition(":")
        assert host == "127.0.0.1"
        run.process.send_signal(signal.SIGTERM)
        ended = run.end()
        assert not cli.is_running()
    assert (ended.code, ended.results) == (128 + signal.SIGTERM, [])
    assert list((tmp_path / "tmp").iterdir()) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=5)


def test_a_hangup_reaches_the_cli(tmp_path: Path) -> None:
    with rehearsed("slow-text", folder=tmp_path) as run:
        run.wait_for(text_of)
        run.process.send_signal(signal.SIGHUP)
        assert run.end().code == 128 + signal.SIGHUP


def test_ctrl_c_is_the_cli_s_and_its_last_words_still_come_through(tmp_path: Path) -> None:
    with rehearsed("slow-text", folder=tmp_path) as run:
        run.wait_for(text_of)
        os.killpg(run.process.pid, signal.SIGINT)
        ended = run.end()
    assert ended.code == 0
    assert_interrupted(ended, "aborted_streaming")


def test_an_interrupt_of_the_wrapper_alone_changes_nothing(tmp_path: Path) -> None:
    with rehearsed("slow-text", folder=tmp_path, options=("--pace", "0.1")) as run:
        run.wait_for(text_of)
        run.process.send_signal(signal.SIGINT)
        ended = run.end()
    assert (ended.code, ended.result["is_error"]) == (0, False)
    assert ended.result["result"].endswith("line 40\n")


def test_a_termination_of_the_whole_group_ends_tools_too(tmp_path: Path) -> None:
    with rehearsed("ticker", folder=tmp_path, allow=("Bash",)) as run:
        wait_for((tmp_path / "project" / "ticks.txt").exists)
        tree = run.descendants()
        assert len(tree) >= 2  # the CLI and its tool
        os.killpg(run.process.pid, signal.SIGTERM)
        ended = run.end()
        wait_until_gone(tree)
    assert ended.code == 128 + signal.SIGTERM


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_a_killed_wrapper_takes_the_cli_and_its_tools_along(tmp_path: Path) -> None:
    with rehearsed("ticker", folder=tmp_path, allow=("Bash",)) as run:
        wait_for((tmp_path / "project" / "ticks.txt").exists)
        tree = run.descendants()
        run.process.kill()
        wait_until_gone(tree)


def test_a_killed_cli_ends_the_wrapper_and_its_port(tmp_path: Path) -> None:
    with rehearsed("slow-text", folder=tmp_path) as run:
        run.wait_for(text_of)
        (address,) = listening(run.process.pid)
        cli_of(run).kill()
        ended = run.end()
    assert ended.code == 128 + signal.SIGKILL
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.split(":")[0], int(address.split(":")[1])), timeout=5)


def test_a_pause_of_the_whole_tree_pauses_the_model_too(tmp_path: Path) -> None:
    with rehearsed("slow-text", folder=tmp_path, options=("--pace", "0.1")) as run:
        run.wait_for(text_of)
        tree = [psutil.Process(run.process.pid), *run.descendants()]
        for process in tree:
            process.suspend()
        wait_for(lambda: {process.status() for process in tree} == {psutil.STATUS_STOPPED})
        for process in reversed(tree):
            process.resume()
        ended = run.end()
    assert (ended.code, ended.result["is_error"]) == (0, False)
    assert ended.result["result"].endswith("line 40\n")


def test_a_session_is_resumed_where_the_configuration_folder_is_kept(tmp_path: Path) -> None:
    session = "6f4bd8ee-6f8b-4b52-8f0b-6d4f8e9d1b11"
    options = ("--pace", "0", "--config-dir", str(tmp_path / "config"))
    with rehearsed("hello", folder=tmp_path, options=options, arguments=(*STREAM, "--session-id", session)) as run:
        first = run.end()
    with rehearsed("write-file", folder=tmp_path, options=options, arguments=(*STREAM, "--resume", session), allow=("Write",)) as run:
        second = run.end()
    assert (first.code, second.code) == (0, 0)
    assert second.result["session_id"] == session
    assert [(request["turn"], request["answers"]) for request in second.main_requests[-2:]] == [(0, 1), (1, 2)]
    assert (tmp_path / "project" / "hello.txt").exists()


def test_the_cli_for_tests_is_executable_and_real() -> None:
    said = subprocess.run([find_cli(), "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert said.endswith("(Claude Code)\n")


def test_a_cli_without_its_execute_bit_is_copied_and_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tmp_path / "claude"
    plain.write_text("#!/bin/sh\necho here\n")
    plain.chmod(0o644)
    monkeypatch.setenv("CC_EXECUTOR_TEST_CLI", str(plain))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = find_cli()
    assert found == find_cli() != plain
    assert subprocess.run([found], capture_output=True, text=True, timeout=60, check=True).stdout == "here\n"
    assert plain.stat().st_mode & 0o777 == 0o644
