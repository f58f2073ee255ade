"""Starting: what is refused before anything runs, what an agent gets, what becomes of it when whoever started it goes away."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from cc_executor import cc_execute, cc_execute_list
from cc_executor.api import make_request
from cc_executor.errors import InvalidRequest, LaunchFailed, StateUnusable
from cc_executor.model.request import OnKernelExit
from cc_executor.runtime import supervisor
from cc_executor.runtime.errand import Errand
from cc_executor.runtime.run import Run
from cc_executor.shim import records
from cc_executor.store.home import StateHome, state_path
from cc_executor.store.journal import RunStanding
from support.disks import on_small_disk
from support.environments import CHECKOUT
from support.leaks import await_none
from support.runs import BASH, BOUND, eventually, run_folders, shell, started, to_end, until
from support.shims import alive

NOBODY: Final = 65534
IS_ROOT: Final = os.geteuid() == 0


async def echo(state: Path, tmp_path: Path, **options: Any) -> str:
    """One run in this state folder: its outcome's name."""
    return (await cc_execute("echo hello", **BASH, cwd=tmp_path, state=state, **options)).status


# --- the state folder ---------------------------------------------------------------------------------------------


@pytest.mark.row("threats", "state folder that is not safe", "not a link, somebody else's, or open to others; folders 0700, files 0600")
async def test_a_state_folder_that_is_missing_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    state = tmp_path / "not" / "there" / "yet"
    assert await echo(state, tmp_path) == "ok"
    (folder,) = run_folders(state)
    for path in (state, state / "runs", folder):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    for path in folder.rglob("*"):
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600, path


def a_link(state: Path) -> None:
    (state.parent / "real").mkdir(mode=0o700)
    state.symlink_to(state.parent / "real")


def a_dangling_link(state: Path) -> None:
    state.symlink_to(state.parent / "nowhere")


def a_file(state: Path) -> None:
    state.write_text("mine")


def below_a_file(state: Path) -> None:
    state.parent.rmdir()
    state.parent.write_text("mine")


def open_to_others(state: Path) -> None:
    state.mkdir()
    state.chmod(0o755)


def runs_open_to_others(state: Path) -> None:
    state.mkdir(mode=0o700)
    (state / "runs").mkdir()
    (state / "runs").chmod(0o755)


def runs_a_link(state: Path) -> None:
    state.mkdir(mode=0o700)
    (state.parent / "real").mkdir(mode=0o700)
    (state / "runs").symlink_to(state.parent / "real")


@pytest.mark.row("threats", "state folder that is not safe", "not a link, somebody else's, or open to others; folders 0700, files 0600")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (a_link, "a symbolic link stands there"),
        (a_dangling_link, "a symbolic link stands there"),
        (a_file, "a file stands there"),
        (below_a_file, "Not a directory"),
        (open_to_others, "is open to others (mode 755). `chmod 700"),
        (runs_open_to_others, "is open to others (mode 755). `chmod 700"),
        (runs_a_link, "a symbolic link stands there"),
    ],
)
async def test_a_state_folder_that_is_not_safe_is_refused_in_one_sentence(make: Callable[[Path], None], words: str, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    state = tmp_path / "x" / "state"
    make(state)
    before = everything_in(tmp_path)
    with pytest.raises(StateUnusable) as caught:
        await echo(state, tmp_path)
    assert words in str(caught.value)
    assert str(state) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert everything_in(tmp_path) in (before, sorted([*before, state / "runs"]))


async def test_the_command_that_closes_an_open_state_folder_does_so_whatever_its_name(tmp_path: Path) -> None:
    state = tmp_path / "it's mine"
    open_to_others(state)
    with pytest.raises(StateUnusable) as caught:
        await echo(state, tmp_path)
    _, command, *_ = str(caught.value).split("`")
    await anyio.run_process(["bash", "-c", command])
    assert await echo(state, tmp_path) == "ok"


def everything_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.row("threats", "state folder of somebody else", "neither written nor read: refused in one sentence")
async def test_a_state_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    state = Path("/usr")  # root's, for everybody else
    if IS_ROOT:
        state = tmp_path / "state"
        state.mkdir(mode=0o700)
        os.chown(state, NOBODY, NOBODY)
    with pytest.raises(StateUnusable, match="belongs to another user"):
        await echo(state, tmp_path)


@pytest.fixture
def closed() -> Iterator[Path]:
    """A folder that its owner cannot enter; root, who enters everything, has to be somebody else to see that."""
    parent = Path(tempfile.mkdtemp(prefix="cc-closed-"))
    parent.chmod(0o711)
    folder = parent / "state"
    folder.mkdir(mode=0o700)
    folder.chmod(0)
    if IS_ROOT:
        os.chown(folder, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(parent)


def test_a_state_folder_that_cannot_be_entered_is_refused(closed: Path) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            if IS_ROOT:
                os.setgroups(())
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
            StateHome(closed).prepare()
            os.write(writing, b"accepted")
        except BaseException as error:  # noqa: BLE001 - told to the parent
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    assert said.startswith(f"StateUnusable: The state folder {closed}"), said
    assert said.rstrip(".").endswith("folder of your own")


@pytest.mark.parametrize("depth", [1, 12])
async def test_a_path_longer_than_a_socket_s_name_works(depth: int, tmp_path: Path) -> None:
    state = tmp_path.joinpath(*["a folder with a rather long name, ü 漢字"] * depth)
    home = StateHome(state)
    run = await started("echo ready; read x < gate", home=home, cwd=tmp_path) if make_gate(tmp_path) else None
    assert run is not None
    assert depth == 1 or len(os.fsencode(run.folder.path)) > 500
    await until(run, lambda state: "ready" in state.text)
    assert (await run.pause(by="test"))["state"] == "paused"
    assert (await run.resume(by="test"))["state"] == "running"
    (tmp_path / "gate").write_text("go\n")
    await to_end(run)
    assert (await run.finish()).outcome.ok


def make_gate(folder: Path) -> bool:
    """A pipe on which a command can wait without spending anything."""
    os.mkfifo(folder / "gate")
    return True


async def test_a_relative_state_folder_is_taken_from_a_program_and_refused_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = await cc_execute("pwd", **BASH, cwd="/", state="kept here")
    assert result.folder.parent == tmp_path / "kept here" / "runs", "seen from the current folder"
    assert result.text == "/\n"
    monkeypatch.setenv("CC_EXECUTOR_STATE", "kept")
    with pytest.raises(StateUnusable, match=r"CC_EXECUTOR_STATE is relative .kept.*absolute path, or to one that begins with ~/"):
        await cc_execute("pwd", **BASH, cwd="/")
    assert not (tmp_path / "kept").exists()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CC_EXECUTOR_STATE", "~/kept")
    assert (await cc_execute("pwd", **BASH, cwd="/")).folder.parent == tmp_path / "kept" / "runs"


async def test_a_relative_state_folder_in_a_folder_that_is_gone_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(StateUnusable, match="absolute path"):
        await cc_execute("pwd", **BASH, cwd="/", state="kept")


def test_without_a_home_folder_nothing_is_kept_where_one_works(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_STATE_HOME", "CC_EXECUTOR_STATE")}
    nobody = ("unshare", "--user", "--map-user=54321")  # as in a container whose user is in no list
    argv = [*nobody, sys.executable, "-m", "cc_executor.cli", "run", "--agent", "shell", "true"]
    done = subprocess.run(argv, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "home folder is not known. Set CC_EXECUTOR_STATE to an absolute path." in done.stderr
    assert not any(tmp_path.iterdir())


def test_files_that_may_not_grow_are_told_with_the_limit_that_forbids_it(tmp_path: Path) -> None:
    script = f"ulimit -f 1; {sys.executable} -m cc_executor.cli run --agent shell true"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "`ulimit -f`" in done.stderr


@pytest.mark.parametrize("name", ["XDG_STATE_HOME", "HOME"])
def test_a_home_that_is_no_absolute_path_is_passed_over(name: str) -> None:
    assert state_path({"HOME": "/home/me", name: "here"}).is_absolute()
    assert state_path({"HOME": "/home/me", name: ""}).is_absolute()


def test_a_list_of_users_that_has_no_home_for_this_one_names_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: pwd.struct_passwd(("user", "x", uid, uid, "", "", "")))
    assert str(state_path({})) == "~/.local/state/cc-executor"


FULL_DISK: Final = """
import asyncio, os, sys
from pathlib import Path
from cc_executor import cc_execute
from cc_executor.errors import StateUnusable
disk, cwd = Path(sys.argv[1]), sys.argv[2]
filler = disk / "filler"

async def attempt():
    try:
        result = await cc_execute("echo hello", agent="shell", shell="bash", cwd=cwd, state=disk / "state")
        return result.status, result.text or f"dropped {result.receipt.journal['stdout'].dropped}: {result.receipt.outcome.summary}"
    except StateUnusable as error:
        return "refused", str(error)

async def main():
    print("roomy", (await attempt())[0], flush=True)
    for free in [*range(0, 16, 4), *range(16, 240, 8), 500]:
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        os.truncate(filler, filler.stat().st_size - 1024 * free)
        before = set((disk / "state/runs").iterdir())
        status, text = await attempt()
        new = set((disk / "state/runs").iterdir()) - before
        print(free, status, len(new), text.strip().replace(chr(10), "|"), sep="\\t", flush=True)
        for folder in new:
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
        filler.unlink()

asyncio.run(main())
"""


@pytest.mark.row("faults", "disk full before the start", "refused, nothing is started")
@pytest.mark.row("outcomes", "disk full, a command's output dropped", "ok with a warning and the count, or refused before it is begun")
def test_however_little_room_there_is_a_run_gives_its_receipt_or_was_never_begun(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = tmp_path / "attempts.py"
    script.write_text(FULL_DISK)
    done = subprocess.run(
        [*on_small_disk(disk, "2m"), sys.executable, str(script), str(disk), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / "src")},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, *attempts = done.stdout.splitlines()
    assert first == "roomy ok"
    seen: set[str] = set()
    for line in attempts:
        free, status, kept, text = line.split("\t")
        seen.add(status)
        if status == "ok":
            # What could not be kept is counted, and said; a command's outcome is its exit code, which needs none of it.
            assert text in {"hello", "dropped 6: The run ended well; not all of its output could be kept."}, line
            assert kept == "1", line
        else:
            assert status == "refused", line
            assert kept == "0", f"with {free} KiB something is left: {line}"
            assert "No space left on device" in text, line
            assert "room" in text, line
            assert text.endswith("."), line
            assert "Errno" not in text, line
    assert seen == {"ok", "refused"}


UNKEPT = """
import asyncio, os, resource, sys
from pathlib import Path
from cc_executor.model.request import RunRequest
from cc_executor.runtime.run import Run
from cc_executor.store.home import StateHome

async def main():
    request = RunRequest(prompt="echo hello", agent="shell", cwd=sys.argv[2], permission_mode="bypassPermissions")
    run = await Run.start(request, home=StateHome(Path(sys.argv[1])), environ=os.environ)
    async for _ in run.follow():
        pass
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))  # from now on no file takes more
    receipt = await run.finish()
    print(run.run_id, receipt.outcome.kind.value, receipt.text, receipt.is_intact)

asyncio.run(main())
"""


async def test_a_receipt_that_cannot_be_kept_is_given_all_the_same(tmp_path: Path, home: StateHome) -> None:
    environ = {**os.environ, "PYTHONPATH": str(CHECKOUT / "src")}
    with anyio.fail_after(BOUND):
        done = await anyio.run_process([sys.executable, "-c", UNKEPT, str(home.root), str(tmp_path)], env=environ, check=False)
    run_id, *said = done.stdout.decode().split()
    assert said == ["ok", "hello", "True"], done.stderr.decode()
    assert home.find(run_id).receipt() is None
    later = await Run.attach(home, run_id, environ=os.environ)
    assert (await later.finish()).text == "hello\n"
    assert home.find(run_id).receipt() is not None


# --- the folder in which the agent works --------------------------------------------------------------------------


@pytest.mark.row("threats", "option injection", "prompts, models, tools, folders and session ids that begin with a dash stay values")
@pytest.mark.parametrize("name", ["with space", "'quoted\" $HOME `x`", "-leading dash", "ünïcödé 漢字 🙂", "new\nline", "back\\slash"])
async def test_any_folder_s_name_works(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    result = await cc_execute("pwd; echo here > proof", **BASH, cwd=folder, expect="proof", verify="test -f proof")
    assert result.text == f"{folder}\n"
    assert result.receipt.cwd == str(folder)
    assert result.receipt.standing.value == "verified"


def made(name: str) -> Path:
    path = Path(name)
    path.mkdir()
    return path


async def test_a_folder_whose_name_is_no_utf_8_works(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    made(os.fsdecode(folder))
    for given in (folder, os.fsdecode(folder), Path(os.fsdecode(folder))):
        result = await cc_execute("echo > proof; ls", **BASH, cwd=given, expect=os.fsdecode(b"proof"))
        assert (result.status, result.text) == ("ok", "proof\n")
        assert result.receipt.cwd == f"{tmp_path}/caf\ufffd"
        assert result.receipt.is_intact
        assert result.receipt.model_validate_json(result.receipt.model_dump_json()) == result.receipt
        os.remove(folder + b"/proof")  # noqa: PTH107 - bytes


@pytest.mark.parametrize(
    ("cwd", "words"),
    [
        ("/no/such/folder", "does not exist"),
        ("/etc/passwd", "is not a folder"),
        ("/" + "x" * 300, "does not exist"),
        ("/" + "x/" * 3000, "does not exist"),
        ("with\0nul", "NUL"),
        ("", "is empty, mostly of a variable that was not set"),  # it would be the current folder
    ],
)
async def test_a_folder_that_cannot_be_entered_is_one_sentence(cwd: str, words: str, state_folder: Path) -> None:
    with pytest.raises(InvalidRequest, match=words):
        await cc_execute("true", **BASH, cwd=cwd)
    with pytest.raises(InvalidRequest, match=words):
        await cc_execute("true", **BASH, cwd="/", add_dirs=cwd)
    assert run_folders(state_folder) == []


async def test_a_relative_folder_is_seen_from_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path)
    assert (await cc_execute("pwd", **BASH, cwd="below")).text == f"{tmp_path}/below\n"
    assert (await cc_execute("pwd", **BASH)).text == f"{tmp_path}\n"


async def test_without_a_current_folder_one_must_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    without: list[dict[str, Any]] = [{}, {"cwd": "below"}, {"cwd": "/", "add_dirs": ["below"]}]
    for options in without:
        with pytest.raises(InvalidRequest, match="does not exist any more"):
            await cc_execute("true", **BASH, **options)
    with pytest.raises(InvalidRequest, match="does not exist any more"):
        await cc_execute_list([{"run": "true"}])
    assert (await cc_execute_list([{"run": "pwd"}], cwd=tmp_path))["1"] == f"{tmp_path}\n"
    assert (await cc_execute("pwd", **BASH, cwd=tmp_path)).text == f"{tmp_path}\n"


# --- what the agent gets ------------------------------------------------------------------------------------------


@pytest.mark.row(
    "threats", "environment of the agent", "an allow-list: no token of the hub or the server, no cloud key, nothing that was not named"
)
async def test_a_run_s_environment_is_an_allow_list_and_what_was_named(tmp_path: Path) -> None:
    environ = {**os.environ, "MY_SETTING": "one", "UNNAMED": "two", "JPY_API_TOKEN": "canary-jpy-token", "LANG": "C.UTF-8"}
    result = await cc_execute("env -0", **BASH, cwd=tmp_path, environ=environ, env_names="MY_SETTING")
    seen = dict(item.split("=", 1) for item in result.text.split("\0") if item)
    assert seen["MY_SETTING"] == "one"
    assert seen["LANG"] == "C.UTF-8"
    assert seen[records.RUN_MARK] == result.receipt.run_id
    assert not {"UNNAMED", "JPY_API_TOKEN", "PYTHONSTARTUP"} & seen.keys()
    assert "MY_SETTING" in result.receipt.env_names
    assert "one" not in (result.folder / "request.json").read_text()


@pytest.mark.row("threats", "agents that start agents", "five deep, and no further: the sixth is refused in a sentence, and costs nothing")
async def test_runs_that_start_runs_come_to_an_end(tmp_path: Path) -> None:
    again = f'echo $CC_EXECUTOR_DEPTH >> depths; "{sys.executable}" -m cc_executor.cli run --agent shell --shell sh "sh again.sh" 2>> said'
    (tmp_path / "again.sh").write_text(again)
    result = await cc_execute("sh again.sh", **BASH, cwd=tmp_path)
    assert result.status == "failed"
    assert (tmp_path / "depths").read_text().split() == ["1", "2", "3", "4", "5"]
    assert "one within 5 others" in (tmp_path / "said").read_text()
    environ = {**os.environ, "CC_EXECUTOR_DEPTH": "3"}
    assert (
        await cc_execute("true", **BASH, cwd=tmp_path, environ=environ, verify="test $CC_EXECUTOR_DEPTH = 4")
    ).receipt.standing == "verified"


async def test_values_and_names_that_are_no_utf_8_do_no_harm(tmp_path: Path) -> None:
    raw = os.fsdecode(b"caf\xe9 \xff\xfe")
    environ = {**os.environ, "MY_SETTING": raw, os.fsdecode(b"GIT_\xe9"): "odd", "MY_API_KEY": os.fsdecode(b"canary-\xff-0123456789")}
    result = await cc_execute("printf %s \"$MY_SETTING\" | od -An -tx1; echo key $MY_API_KEY", **BASH, cwd=tmp_path, environ=environ,
                              env_names=["MY_SETTING", "MY_API_KEY"])  # fmt: skip
    assert result.ok, result.receipt.outcome
    assert "63 61 66 e9 20 ff fe" in result.text
    assert "key [masked]" in result.text
    assert result.receipt.is_intact


async def test_an_environment_larger_than_any_pipe_goes_through(tmp_path: Path) -> None:
    environ = {**os.environ, **{f"GIT_{number}": "x" * 1000 for number in range(1500)}}
    result = await cc_execute("env | grep -c '^GIT_[0-9]'", **BASH, cwd=tmp_path, environ=environ)
    assert result.text == "1500\n"


@pytest.mark.usefixtures("claude_cli")
async def test_a_prompt_of_nearly_ten_megabytes_is_sent_and_a_longer_one_refused(tmp_path: Path, state_folder: Path) -> None:
    prompt = ("word" + " " * 95) * 99_900 + "漢字🙂"  # bytes enough, and not surely more tokens than any context holds
    result = await cc_execute(prompt, cwd=tmp_path, rehearse="hello")
    # More than a model's context holds, and that is for the agent to say.
    assert "prompt" in result.receipt.outcome.cure, result.receipt.outcome
    assert (result.folder / records.PROMPT).read_text("utf-8") == prompt
    assert len(json.dumps(result.receipt.model_dump(mode="json"))) < 10_000
    with pytest.raises(InvalidRequest, match="the limit is 10,000,000"):
        await cc_execute("x" * 10_000_001, cwd=tmp_path, rehearse="hello")
    assert len(run_folders(state_folder)) == 1


@pytest.mark.usefixtures("claude_cli")
async def test_half_a_pair_of_surrogates_in_a_prompt_is_replaced_for_the_agent_and_kept_in_the_request(
    tmp_path: Path, home: StateHome
) -> None:
    prompt = "half \ud83d and byte \udcff"
    result = await cc_execute(prompt, cwd=tmp_path, rehearse="hello")
    assert result.ok, result.receipt.outcome
    assert (result.folder / records.PROMPT).read_text("utf-8") == "half \ufffd and byte \ufffd"
    assert (await Run.attach(home, result.receipt.run_id, environ=os.environ)).request.prompt == prompt


async def test_a_command_that_no_system_call_takes_is_refused_and_leaves_nothing(tmp_path: Path, state_folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="half a character"):
        await cc_execute("echo \ud83d", **BASH, cwd=tmp_path)
    byte = await cc_execute("printf %s \udce9 | od -An -tx1", **BASH, cwd=tmp_path)  # a byte as Python carries it
    assert byte.text.strip() == "e9"
    assert [folder.name for folder in run_folders(state_folder)] == [byte.receipt.run_id]


@pytest.mark.parametrize("prompt", ["", " ", "\n\t \u2003\n"])
async def test_a_prompt_of_nothing_is_refused(prompt: str, state_folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="prompt is empty"):
        await cc_execute(prompt)
    assert run_folders(state_folder) == []


# --- secrets ------------------------------------------------------------------------------------------------------


async def test_no_secret_of_the_environment_reaches_any_file(tmp_path: Path) -> None:
    canaries = {
        "ANTHROPIC_API_KEY": "sk-ant-canary-A0123456789",
        "MY_TOKEN": 'canary-B"quoted"\\0123456789',
        "WITHHELD_PASSWORD": "canary-C-ünï-0123456789",
        "DATABASE": "postgres://user:canary-D-0123456789@localhost/db",
        "PIECES_SECRET": "canary-E-first-half-second-half",
    }
    # What was withheld from it, an agent of the same user may find elsewhere: here it is put together from pieces.
    script = (
        'echo "$ANTHROPIC_API_KEY"; echo "$MY_TOKEN" >&2; echo "canary"-C-ünï-0123456789; echo "canary"-D-0123456789; '
        "printf canary-E-first; sleep 0.3; echo -half-second-half; env; exit 3"
    )
    result = await cc_execute(
        script,
        **BASH,
        cwd=tmp_path,
        environ={**os.environ, **canaries},
        env_names=["MY_TOKEN"],
        verify='printf "%s " "$MY_TOKEN" "$ANTHROPIC_API_KEY" "$WITHHELD_PASSWORD" "$DATABASE" "$PIECES_SECRET"; exit 1',
    )
    everything = {path.name: path.read_bytes() for path in result.folder.rglob("*") if path.is_file()}
    everything |= {
        "repr": repr(result).encode(),
        "receipt": repr(result.receipt).encode(),
        "json": result.receipt.model_dump_json().encode(),
        "evidence": str(result.receipt.outcome).encode(),
    }
    assert {"stdout", "stderr", "request.json", "plan.json", "receipt.json"} <= everything.keys()
    for name, data in everything.items():
        text = data.decode(errors="replace")
        for canary in canaries.values():
            secret = canary.removeprefix("postgres://user:").removesuffix("@localhost/db")
            for form in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], secret[:-1], secret[1:]):
                assert form not in text, f"{form} in {name}"
    assert result.text.count("[masked]") >= 5
    assert "[masked]" in result.receipt.checks[0].detail


@pytest.mark.parametrize("word", ["verified", "contradicted", "control.jsonl", "survivors", "schema_version"])
async def test_a_secret_that_is_a_word_of_the_record_breaks_nothing(word: str, tmp_path: Path) -> None:
    result = await cc_execute("echo $WORD; exit 3", **BASH, cwd=tmp_path, environ={**os.environ, "MY_PASSWORD": word, "WORD": word},
                              env_names="WORD", verify="true")  # fmt: skip
    assert result.status == "failed"
    assert result.text == "[masked]\n"
    assert result.receipt.is_intact
    assert "control.jsonl" in result.receipt.journal


async def test_a_secret_that_a_long_check_s_output_is_cut_in_is_not_half_shown(tmp_path: Path) -> None:
    secret = "canary-" + "0123456789abcdef" * 20
    result = await cc_execute("true", **BASH, cwd=tmp_path, environ={**os.environ, "MY_TOKEN": secret},
                              verify='echo "$MY_TOKEN"; head -c 1850 /dev/zero | tr "\\0" x')  # fmt: skip
    assert "0123" not in result.receipt.checks[0].detail


# --- the supervisor cannot be had ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("interpreter", "words"), [("/bin/false", "gave no reason"), ("/no/such/python", "could not be started")])
async def test_a_supervisor_that_dies_at_once_is_one_sentence_and_leaves_nothing(
    interpreter: str, words: str, tmp_path: Path, state_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", interpreter)
    with pytest.raises(LaunchFailed, match=words):
        await echo(state_folder, tmp_path)
    assert run_folders(state_folder) == []


@pytest.mark.row("faults", "supervisor does not answer", "ended, nothing is kept")
async def test_a_supervisor_that_never_answers_is_ended(tmp_path: Path, state_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = tmp_path / "python"
    deaf.write_text("#!/bin/sh\nexec sleep 1000\n")
    deaf.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(deaf))
    monkeypatch.setattr(supervisor, "START_BUDGET", 0.5)
    start, shims = supervisor.started, list[subprocess.Popen[bytes]]()

    def started() -> subprocess.Popen[bytes]:
        shims.append(start())
        return shims[-1]

    monkeypatch.setattr(supervisor, "started", started)  # to know it; in its time it may not come so far as to say its number
    environ = {**os.environ, **{f"GIT_{number}": "x" * 1000 for number in range(300)}}  # more than the pipe holds: it is not read either
    with pytest.raises(LaunchFailed, match="did not answer"):
        await echo(state_folder, tmp_path, environ=environ)
    assert [shim.wait(BOUND) for shim in shims] == [-signal.SIGKILL]
    assert run_folders(state_folder) == []


async def test_an_agent_that_cannot_be_executed_leaves_nothing(tmp_path: Path, state_folder: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)
    with pytest.raises(LaunchFailed, match="interpreter"):
        await cc_execute(str(broken), agent="shell", cwd=tmp_path)
    assert run_folders(state_folder) == []


# --- cancelled in the middle --------------------------------------------------------------------------------------


async def test_an_errand_is_told_and_waited_for() -> None:
    begun, log = threading.Event(), list[str]()

    def work(stop: threading.Event) -> str:
        begun.set()
        log.append("told" if stop.wait(BOUND) else "never told")
        return "home"

    errand = Errand(work, patience=BOUND)
    task = asyncio.get_running_loop().create_task(errand.run())
    await eventually(begun.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (log, errand.result) == (["told"], "home")


async def test_an_errand_that_never_began_is_not_waited_for() -> None:
    errand = Errand(lambda _: "never", patience=1000)
    task = asyncio.get_running_loop().create_task(errand.run())
    task.cancel()
    with pytest.raises(asyncio.CancelledError), anyio.fail_after(BOUND):
        await task
    assert errand.result is None


async def test_an_errand_that_does_not_listen_is_left_after_its_patience() -> None:
    release = threading.Event()
    errand = Errand(lambda _: release.wait(BOUND), patience=0.1)
    task = asyncio.get_running_loop().create_task(errand.run())
    await anyio.sleep(0.05)  # not to be met before it has begun; either way the test holds
    task.cancel()
    with pytest.raises(asyncio.CancelledError), anyio.fail_after(BOUND / 2):
        await task
    release.set()


@pytest.mark.row("faults", "launch cancelled at any moment", "nothing is left running, what is kept is sealed")
async def test_a_launch_that_is_cancelled_anywhere_leaves_nothing_running_and_every_kept_run_sealed(
    tmp_path: Path, home: StateHome
) -> None:
    loop = asyncio.get_running_loop()
    for step in range(16):
        task = loop.create_task(Run.start(shell("sleep 1000", cwd=tmp_path), home=home, environ=os.environ))
        loop.call_later(step * 0.006, task.cancel)
        try:
            run = await task
        except asyncio.CancelledError:
            continue
        await run.end(reason="interrupt", by="test", now=True)
    assert not await_none([tmp_path])
    for folder in home.runs():
        receipt = folder.receipt()
        assert receipt is not None
        assert receipt.outcome.kind.value == "cancelled"
        assert folder.standing(0) is RunStanding.ENDED


# --- whoever started it is killed ---------------------------------------------------------------------------------

OWNER: Final = """
import sys
from cc_executor import cc_execute_sync
cc_execute_sync("echo $$ > pid; setsid bash -c 'echo $$ > tool; read x < gate'; echo through", agent="shell", shell="bash",
                cwd=sys.argv[1], on_kernel_exit=sys.argv[2])
"""


def owning(folder: Path, what: OnKernelExit) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", OWNER, str(folder), what.value], env={**os.environ, "PYTHONPATH": str(CHECKOUT / "src")})


@pytest.mark.row("faults", "owning process killed", "the run ends or goes on as was said")
@pytest.mark.parametrize("what", list(OnKernelExit))
async def test_when_its_owner_is_killed_a_run_ends_or_goes_on_as_was_said(what: OnKernelExit, tmp_path: Path, home: StateHome) -> None:
    make_gate(tmp_path)
    owner = owning(tmp_path, what)
    try:
        pids = [tmp_path / "pid", tmp_path / "tool"]
        await eventually(lambda: all(path.exists() and path.read_text().strip() for path in pids))
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    (folder,) = list(home.runs())
    run = await Run.attach(home, folder.run_id, environ=os.environ)
    if what is OnKernelExit.CONTINUE:
        assert all(alive(int(path.read_text())) for path in pids)
        (tmp_path / "gate").write_text("go\n")
    await to_end(run)
    receipt = await run.finish()
    if what is OnKernelExit.CONTINUE:
        assert (receipt.outcome.kind.value, receipt.text) == ("ok", "through\n")
    else:
        assert (receipt.outcome.kind.value, receipt.exit.stopped_for) == ("cancelled", "kernel_exit")
        assert "--bg" in receipt.outcome.cure
    assert not any(alive(int(path.read_text())) for path in pids)


def test_a_request_says_what_becomes_of_it_or_is_refused() -> None:
    assert make_request("x", on_kernel_exit="continue").on_kernel_exit is OnKernelExit.CONTINUE
    with pytest.raises(InvalidRequest, match="'cancel' or 'continue'"):
        make_request("x", on_kernel_exit="linger")
