"""The command line as a process of its own, as a user or a script has it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import nbformat
import pytest

from cc_executor.cli.codes import OUTCOME_CODES
from cc_executor.model.outcome import OutcomeKind
from cc_executor.shim.records import RUN_MARK
from cc_executor.store.home import StateHome
from support import receipts
from support.commands import command, hangups
from support.disks import on_small_disk
from support.environments import CHECKOUT
from support.leaks import marked_processes
from support.looks import eventually
from support.receiver import receiving

Json = dict[str, Any]
BUDGET: Final = 60.0
CLI: Final = (sys.executable, "-m", "cc_executor.cli")
SHELL: Final = ("--agent", "shell", "--shell", "bash")


def environ(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(CHECKOUT / "src"), "COLUMNS": "120"} | more


def cli(
    *arguments: str | bytes | Path, stdin: bytes | None = None, cwd: Path | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run to the end. `more`: for the environment."""
    argv = [*CLI, *map(os.fsdecode, arguments)]
    given: Any = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    done = subprocess.run(argv, env=environ(**more), cwd=cwd, capture_output=True, timeout=BUDGET, check=False, **given)
    result = subprocess.CompletedProcess(argv, done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in result.stderr, result.stderr
    return result


@contextlib.contextmanager
def beginning(*arguments: str, output: Any = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on; ended with the block if it still does."""
    process = subprocess.Popen(
        [*CLI, *arguments], env=environ(), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=BUDGET)


def read_until(process: subprocess.Popen[str], wanted: str) -> str:
    """Lines of standard output up to the one that holds `wanted`; the test's own time limit bounds it."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if wanted in line:
            return seen
    raise AssertionError(
        f"{wanted!r} never came; standard output: {seen!r}, standard error: {process.stderr.read() if process.stderr else ''!r}"
    )


def rows() -> list[Json]:
    return json.loads(cli("list", "--json").stdout)


def await_status(run_id: str, status: str) -> Json:
    """Wait until the list says so, at most `BUDGET` seconds."""
    end = time.monotonic() + BUDGET
    while time.monotonic() < end:
        for row in rows():  # each look is a process of its own, which is wait enough
            if row["id"] == run_id and row["status"] == status:
                return row
    raise AssertionError(f"run {run_id} did not become {status}: {rows()}")


def alive(run_id: str) -> list[str]:
    return [item.command for item in marked_processes([Path("/")]) if item.run_id == run_id]


def await_nothing_alive(run_id: str) -> None:
    end = time.monotonic() + 10
    while (left := alive(run_id)) and time.monotonic() < end:
        pass
    assert left == []


# --- run ----------------------------------------------------------------------------------------------------------


def test_output_goes_to_standard_output_and_everything_else_to_standard_error(tmp_path: Path) -> None:
    done = cli("run", *SHELL, "echo hello; echo oops >&2", "--cwd", tmp_path)
    assert (done.returncode, done.stdout) == (0, "hello\n")
    assert "oops" in done.stderr
    assert "ok · " in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (("exit 0",), 0, "ok"),
        (("exit 7",), 1, "failed"),
        (("sleep 600", "--timeout", "0.5"), 124, "timeout"),
        (("sleep 600", "--stall-timeout", "0.5"), 125, "stalled"),
        (("kill -9 $$",), 17, "crashed"),
        (("true", "--verify", "false"), 1, "failed"),
    ],
)
def test_the_exit_code_tells_the_outcome(arguments: tuple[str, ...], code: int, kind: str) -> None:
    done = cli("run", *SHELL, *arguments, "--json")
    told = json.loads(done.stdout)
    assert (told["outcome"]["kind"], done.returncode) == (kind, code), told["outcome"]
    assert told["digest"]


def test_every_outcome_has_an_exit_code_of_its_own() -> None:
    assert set(OUTCOME_CODES) == set(OutcomeKind)
    assert len(set(OUTCOME_CODES.values())) == len(OUTCOME_CODES)
    assert 2 not in OUTCOME_CODES.values()
    assert f"{OUTCOME_CODES[OutcomeKind.TIMEOUT]} timeout" in " ".join(command("run", "--help").out.split())


@pytest.mark.parametrize("dash", [("-",), ()])
def test_the_prompt_comes_from_standard_input_byte_for_byte(dash: tuple[str, ...]) -> None:
    done = cli("run", *SHELL, *dash, stdin="printf '%s' 'ü $HOME {x}'".encode())
    assert (done.returncode, done.stdout) == (0, "ü $HOME {x}\n")


def test_a_rehearsed_agent_writes_its_whole_answer_to_a_pipe(claude_cli: Path, tmp_path: Path) -> None:
    done = cli("run", "Say hello.", "--rehearse", "hello", "--cwd", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    told = json.loads(cli("show", "--json").stdout)
    assert told["text"].strip() == done.stdout.strip()
    assert told["rehearsed"] == "hello"


def test_a_schema_file_is_met(claude_cli: Path, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}), "utf-8")
    done = cli("run", "Count.", "--rehearse", "schema", "--schema", schema, "--cwd", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout)["data"]["n"], int)


# --- stopping -----------------------------------------------------------------------------------------------------


def test_ctrl_c_ends_the_whole_tree_and_says_so() -> None:
    with beginning("run", *SHELL, "echo ready; setsid sleep 600 & sleep 600") as process:
        read_until(process, "ready")
        [run_id] = [row["id"] for row in rows()]
        assert alive(run_id)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=BUDGET)
    assert process.returncode == 130
    assert "Ending the run" in err
    assert "cancelled · " in err
    assert "Traceback" not in err
    await_nothing_alive(run_id)


def test_ctrl_c_while_the_command_is_loaded_is_quiet() -> None:
    argv = [CLI[0], "-X", "importtime", *CLI[1:], "list"]  # says what is loaded, on standard error
    # In a pipe that is too small for all of it: the command waits there for its reader, and cannot be through before the signal.
    with subprocess.Popen(argv, env=environ(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, pipesize=4096, text=True) as process:
        assert process.stderr is not None
        assert any("| cc_executor.errors" in line.replace("  ", "") for line in process.stderr)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=BUDGET)
    assert process.returncode == 130
    assert "KeyboardInterrupt" not in err


@pytest.mark.parametrize("words", ["--help", "--version", "tasks --help", "run --help"])
def test_ctrl_c_while_a_command_prints_is_quiet(words: str) -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, b"x" * fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096))  # nobody reads it: whoever prints waits
        argv = [*CLI, *words.split()]
        with subprocess.Popen(argv, env=environ(), stdin=subprocess.DEVNULL, stdout=writing, stderr=subprocess.PIPE, text=True) as process:
            eventually(lambda: "pipe_write" in Path(f"/proc/{process.pid}/wchan").read_text(), within=BUDGET, what="it prints")
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=BUDGET)
    finally:
        os.close(reading)
        os.close(writing)
    assert (process.returncode, err.strip()) == (130, "")


def test_a_second_ctrl_c_kills_what_does_not_want_to_end() -> None:
    with beginning("run", *SHELL, "trap '' INT TERM HUP; echo ready; while :; do sleep 600; done") as process:
        read_until(process, "ready")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        for line in process.stderr:
            if "Ending the run" in line:
                break
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=BUDGET)
    assert process.returncode == 130
    assert "Killing the run" in err
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("is_ignored", [False, True], ids=["plain", "nohup"])
def test_a_hangup_ends_the_run_unless_it_was_started_to_outlive_one(tmp_path: Path, is_ignored: bool) -> None:
    done = tmp_path / "done"
    with hangups(signal.SIG_IGN if is_ignored else signal.SIG_DFL):
        process = subprocess.Popen(
            [*CLI, "run", *SHELL, f"echo ready; until test -e {done}; do sleep 0.05; done; echo through"],
            env=environ(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    with process:
        read_until(process, "ready")
        process.send_signal(signal.SIGHUP)
        if is_ignored:
            done.touch()
        out, err = process.communicate(timeout=BUDGET)
    assert process.returncode == (0 if is_ignored else 130), err
    assert ("through" in out) is is_ignored


def test_a_terminal_that_is_closed_ends_the_run_in_order() -> None:
    terminal, inside = os.openpty()
    argv = [*CLI, "run", *SHELL, "echo ready; sleep 600"]
    with hangups():
        process = subprocess.Popen(argv, env=environ(), stdin=inside, stdout=inside, stderr=inside)
    with process:
        os.close(inside)
        seen = b""
        while b"ready" not in seen:
            seen += os.read(terminal, 4096)
        os.close(terminal)  # what is written from now on fails
        process.send_signal(signal.SIGHUP)
        assert process.wait(BUDGET) == 130
    (row,) = rows()
    assert row["status"] == "cancelled"  # not just ended: its receipt is there


def test_a_killed_command_takes_its_run_with_it() -> None:
    with beginning("run", *SHELL, "echo ready; sleep 600") as process:
        read_until(process, "ready")
        [run_id] = [row["id"] for row in rows()]
        process.kill()
        process.wait(BUDGET)
    assert await_status(run_id, "ended")["id"] == run_id
    await_nothing_alive(run_id)
    shown = cli("show", run_id, "--json")  # nobody was there to seal it; this does
    assert json.loads(shown.stdout)["outcome"]["kind"] == "cancelled"


def test_a_reader_that_goes_away_ends_the_run_quietly() -> None:
    reading, writing = os.pipe()
    with beginning("run", *SHELL, "while :; do echo line; sleep 0.01; done", output=writing) as process:
        os.close(writing)
        assert os.read(reading, 4)
        os.close(reading)
        _, err = process.communicate(timeout=BUDGET)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "BrokenPipe" not in err


# --- detached runs ------------------------------------------------------------------------------------------------


def test_a_detached_run_is_listed_paused_resumed_attached_and_cancelled() -> None:
    started = cli("run", *SHELL, "--detach", "echo one; sleep 600", "--label", "a name")
    assert started.returncode == 0
    run_id = started.stdout.strip()
    assert [(row["id"], row["status"], row["agent"], row["label"]) for row in rows()] == [(run_id, "running", "shell", "a name")]
    assert isinstance(rows()[0]["started"], float)

    assert json.loads(cli("pause", run_id[-6:], "--json").stdout)["state"] == "paused"
    assert rows()[0]["status"] == "paused"
    assert "goes on" in cli("resume").stdout
    assert rows()[0]["status"] == "running"

    with beginning("attach", run_id) as watching:
        read_until(watching, "one")
        watching.send_signal(signal.SIGINT)
        _, err = watching.communicate(timeout=BUDGET)
    assert watching.returncode == 130
    assert "goes on" in err
    assert alive(run_id)
    assert json.loads(cli("show", "--json").stdout)["status"] == "running"

    assert cli("cancel", run_id).returncode == 0
    finished = cli("attach", run_id)
    assert (finished.returncode, finished.stdout) == (130, "one\n")
    await_nothing_alive(run_id)
    late = cli("pause", run_id)
    assert late.returncode == 2
    assert "has ended" in late.stderr


def test_a_detached_run_tells_when_somebody_looks_and_says_so(tmp_path: Path) -> None:
    words = ("--notify", f"command:tee {tmp_path}/told.json", "--notify-after", "0")
    started = cli("run", *SHELL, "--detach", *words, "true")
    run_id = started.stdout.strip()
    assert f"nobody is told before somebody looks: `cc-executor attach {run_id}`" in started.stderr
    assert cli("attach", run_id).returncode == 0
    assert json.loads((tmp_path / "told.json").read_text())["data"]["run_id"] == run_id
    assert "nobody is told" not in cli("run", *SHELL, "--detach", "true").stderr


@pytest.mark.parametrize(
    ("words", "is_refused"),
    [
        (("--on-limit", "wait"), True),
        (("--on-output-limit", "concise"), True),
        (("--on-limit", "stop", "--limit-wait-max", "60", "--on-output-limit", "stop"), False),
    ],
)
def test_a_detached_run_is_refused_where_somebody_would_have_to_try_again(words: tuple[str, ...], is_refused: bool) -> None:
    done = command("run", *SHELL, "--detach", *words, "true")
    assert done.code == (2 if is_refused else 0)
    assert ("Nobody is there to make further attempts" in done.err) == is_refused


def test_a_detached_run_says_json_too() -> None:
    told = json.loads(cli("run", *SHELL, "--detach", "--json", "true").stdout)
    assert told["agent"] == "shell"
    assert cli("attach", told["id"]).returncode == 0


# --- looking ------------------------------------------------------------------------------------------------------


def test_an_empty_list_is_an_empty_array() -> None:
    assert rows() == []
    done = cli("list")
    assert (done.returncode, done.stdout) == (0, "")


def test_show_prints_text_and_receipt() -> None:
    cli("run", *SHELL, "echo the answer")
    done = cli("show")
    assert done.returncode == 0
    assert done.stdout.startswith("the answer\n")
    receipt = json.loads(cli("show", "--json").stdout)
    assert receipt["digest"] in done.stdout


@pytest.mark.usefixtures("claude_cli")
def test_doctor_says_what_is_there_and_what_is_missing(state_folder: Path) -> None:
    findings = {finding["what"]: finding for finding in json.loads(cli("doctor", "--json").stdout)}
    assert findings["python"]["ok"]
    assert findings["state folder"]["detail"] == str(state_folder)
    state_folder.chmod(0o755)
    done = cli("doctor")
    assert done.returncode == 1
    assert "✗ state folder" in done.stdout
    assert "✓ Claude Code" in done.stdout
    assert done.stdout.count("chmod 700") == 1, "what is wrong is said once"


@pytest.mark.usefixtures("claude_cli")
def test_doctor_says_when_there_is_little_room_for_runs(tmp_path: Path) -> None:
    def room(state: Path, *where: str) -> str:
        done = subprocess.run(
            [*where, sys.executable, "-m", "cc_executor.cli", "doctor"],
            env=os.environ | {"CC_EXECUTOR_STATE": str(state)}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (line,) = [line for line in done.stdout.splitlines() if "room in it" in line]
        return line

    disk = tmp_path / "disk"
    disk.mkdir()
    assert room(tmp_path / "state").startswith("✓ room in it: ")
    full = room(disk, *on_small_disk(disk, "2m"))
    assert re.fullmatch(r"– room in it: [\d.]+ MB: what runs write may not be kept — Make room .*CC_EXECUTOR_STATE.*", full)


# --- receipts -----------------------------------------------------------------------------------------------------


def test_verify_tells_verified_contradicted_and_unverifiable_apart(state_folder: Path, tmp_path: Path) -> None:
    receipt = json.loads(cli("run", *SHELL, "echo hello", "--json").stdout)
    path = tmp_path / "receipt.json"
    path.write_text(json.dumps(receipt), "utf-8")
    assert cli("verify", receipt["run_id"]).returncode == 0
    done = cli("verify", path, "--json")
    assert done.returncode == 0
    assert [item["verdict"] for item in json.loads(done.stdout)] == ["verified"]

    stdout = state_folder / "runs" / receipt["run_id"] / "stdout"
    stdout.write_bytes(b"hellp\n")
    done = cli("verify", path)
    assert done.returncode == 1
    assert "✗ contradicted" in done.stdout

    StateHome(state_folder).find(receipt["run_id"]).path.rename(tmp_path / "elsewhere")
    done = cli("verify", path)
    assert done.returncode == 3
    assert "? unverifiable" in done.stdout


def test_verify_looks_at_the_others_where_one_cannot_be_looked_at(state_folder: Path) -> None:
    run_id = json.loads(cli("run", *SHELL, "echo hello", "--json").stdout)["run_id"]
    done = command("verify", "missing.ipynb", run_id, "no-such-run")
    assert (done.code, done.out.split("  ")[0]) == (2, "✓ verified")
    assert "missing.ipynb" in done.err
    assert "no-such-run" in done.err

    (state_folder / "runs" / run_id / "stdout").write_bytes(b"hellp\n")
    done = command("verify", "missing.ipynb", run_id)
    assert (done.code, done.out.split("  ")[0]) == (1, "✗ contradicted"), "the graver of the two"
    assert "missing.ipynb" in done.err


def test_lift_does_for_a_file_what_a_save_does(tmp_path: Path) -> None:
    path = tmp_path / "work.ipynb"
    sealed = receipts.receipt(1)
    nbformat.write(nbformat.from_dict(receipts.notebook(receipts.code_cell("a", receipts.final_output(sealed)))), path)
    assert "lifted" in cli("lift", path).stdout
    assert json.loads(path.read_bytes())["metadata"]["cc_executor"]["receipts"][sealed.run_id]["digest"] == sealed.digest
    assert json.loads(cli("lift", path, "--json").stdout) == [{"file": str(path), "changed": False}]


def test_a_file_that_cannot_be_lifted_hides_no_other(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("first.ipynb", "missing.ipynb", "last.ipynb")]
    for path in (paths[0], paths[2]):
        nbformat.write(nbformat.from_dict(receipts.notebook(receipts.code_cell("a", receipts.final_output(receipts.receipt(1))))), path)
    done = command("lift", *map(str, paths), "--json")
    assert (done.code, json.loads(done.out)) == (2, [{"file": str(path), "changed": True} for path in (paths[0], paths[2])])
    assert "missing.ipynb cannot be read" in done.err


# --- what cannot be done ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("run", ""), "empty"),
        (("run", "   "), "empty"),
        (("run", "x", "--agent", "nobody"), "nobody"),
        (("run", "x", "--cwd", "/no/such/folder"), "/no/such/folder"),
        (("run", "x", "--cwd", ""), "cwd is empty"),
        (("trust", ""), "is empty"),
        (("run", "x", "--timeout", "-1"), "timeout"),
        (("run", "x", "--timeout", "nan"), "timeout"),
        (("run", "x", "--timeout", "soon"), "--timeout"),
        (("run", "x", "--max-turns", "0"), "max_turns"),
        (("run", "x", "--schema", "/no/such/file"), "/no/such/file"),
        (("run", "x", "--schema", "/etc/hostname"), "JSON"),
        (("run", "x", "--rehearse", "no-such-script"), "no-such-script"),
        (("run", "x", "--cli", "/no/such/cli"), "/no/such/cli"),
        (("run", *SHELL[:2], "no-such-command-anywhere"), "no-such-command-anywhere"),
        (("run", *SHELL[:2], "echo 'open"), "quote"),
        (("show",), "Nothing was run"),
        (("attach", "ffff"), "ffff"),
        (("cancel", "../../etc"), "../../etc"),
        (("pause", "x"), "x"),
        (("cancel", ""), "it is empty: perhaps a variable that is not set"),
        (("undo", "ffff", ""), "it is empty"),
        (("tasks", "stop", ""), "it is empty"),
        (("tasks", "undo", ""), "it is empty"),
        (("report", ""), "it is empty"),
        (("verify", "/no/such/file.ipynb"), "/no/such/file.ipynb"),
        (("verify", "/etc/hostname"), "/etc/hostname"),
        (("verify", "abcdef"), "abcdef"),
        (("history", "--json", "--csv"), "give one of them"),
        (("trust", "/", "--list"), "trusts none"),
        (("run", *SHELL, "true", "--notify", "none", "--notify", "command:true"), "leave one of them out"),
        (("lift", "/etc/hostname"), "/etc/hostname"),
        (("lift", "/"), "/"),
        (("list", "--limit", "0"), "--limit"),
        (("no-such-command",), "no-such-command"),
        (("lint", "Fix the bug."), "Name a file, or send the text to standard input"),
        (("stress", "--rehearse", "no-such-script"), "no-such-script"),
        (("tasks", "run", "no-such-list.yaml"), "no-such-list.yaml: cannot be read: No such file or directory."),
        (("run", "--no-such-option"), "no-such-option"),
    ],
)
def test_bad_input_is_a_sentence_on_standard_error_and_exit_code_2(arguments: tuple[str, ...], sentence: str, state_folder: Path) -> None:
    done = command(*arguments)
    assert (done.code, done.out) == (2, ""), done
    assert sentence in done.err
    assert "Traceback" not in done.err
    assert list(StateHome(state_folder).runs()) == []


def test_a_prompt_that_is_not_text_is_refused() -> None:
    done = cli("run", "-", stdin=b"caf\xe9")
    assert (done.returncode, done.stdout) == (2, "")
    assert "UTF-8" in done.stderr


def test_an_argument_that_is_not_text_is_refused_before_anything_is_spent(state_folder: Path, tmp_path: Path) -> None:
    for verb in ("run", "estimate"):
        done = cli(verb, "--rehearse", "hello", b"caf\xe9")
        assert (done.returncode, done.stdout) == (2, "")
        assert "The prompt is not UTF-8 text (byte 3)" in done.stderr, verb
    assert list(StateHome(state_folder).runs()) == []
    named = cli("run", *SHELL, b"touch caf\xe9", cwd=tmp_path)
    assert named.returncode == 0, named.stderr


def test_a_prompt_is_read_as_utf_8_whatever_the_locale(state_folder: Path, tmp_path: Path) -> None:
    done = cli("run", *SHELL, "printf 'Gr\u00fc\u00dfe' > said", cwd=tmp_path, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 0, done.stderr
    (folder,) = StateHome(state_folder).runs()
    assert folder.request().prompt == "printf 'Gr\u00fc\u00dfe' > said"


def test_an_unsafe_state_folder_is_refused_with_its_cure(state_folder: Path) -> None:
    state_folder.mkdir(mode=0o755)
    done = cli("run", *SHELL, "true")
    assert done.returncode == 2
    assert "chmod 700" in done.stderr
    for words in (["list"], ["tasks", "list"], ["tasks", "show"]):  # what somebody else may have put there is not shown either
        looked = cli(*words)
        assert (looked.returncode, looked.stdout) == (2, ""), words
        assert "chmod 700" in looked.stderr


def test_a_notebook_without_receipts_has_nothing_to_verify(tmp_path: Path) -> None:
    path = tmp_path / "plain.ipynb"
    path.write_text(json.dumps(receipts.notebook()), "utf-8")
    done = cli("verify", path)
    assert done.returncode == 2
    assert "no receipt" in done.stderr


def test_help_and_version_are_plain_text() -> None:
    assert "cc-executor" in cli("--help").stdout
    assert cli("--version").stdout.strip()
    assert command("run", "--help").code == 0


def test_the_run_carries_the_mark_that_leak_checks_look_for() -> None:
    done = cli("run", *SHELL, f"echo mark=${RUN_MARK}")
    run_id = rows()[0]["id"]
    assert done.stdout == f"mark={run_id}\n"


def test_a_run_and_a_list_tell_whom_their_options_name_and_config_hides_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list.yaml").write_text("tasks:\n- {id: a, run: 'true'}\n")
    with receiving() as receiver:
        told = ("--notify", receiver.url("/c4n4ry"), "--notify-after", "0")
        assert cli("run", "--agent", "shell", "true", *told).returncode == 0
        assert cli("tasks", "run", tmp_path / "list.yaml", *told, "--notify-on", "failed").returncode == 0
        (tmp_path / "list.yaml").write_text("tasks:\n- {id: a, run: exit 1}\n")
        listed = cli("tasks", "run", tmp_path / "list.yaml", *told, "--detach").stdout.strip()
        receiver.wait(2)
        assert receiver.events == ["run.done", "list.failed"]
        assert receiver.received[1].data["list_id"] == listed
        monkeypatch.setenv("CC_EXECUTOR_NOTIFY", receiver.url("/c4n4ry"))
        monkeypatch.setenv("CC_EXECUTOR_NOTIFY_SECRET", "whsec_c4n4ry")
        shown = cli("config").stdout
    assert f"http://127.0.0.1:{receiver.port}" in shown
    assert "c4n4ry" not in shown
    refused = cli("run", "--agent", "shell", "true", "--notify", "http://example.org/c4n4ry")
    assert (refused.returncode, "Use https" in refused.stderr, "c4n4ry" in refused.stderr) == (2, True, False)
