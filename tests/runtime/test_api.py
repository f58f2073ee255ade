"""`await cc_execute(...)` and `cc_execute_sync(...)` as somebody's program calls them."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import anyio
import pydantic
import pytest

import cc_executor
from cc_executor import CCExecutionError, CCExecutorError, Limits, OutcomeKind, cc_execute, cc_execute_sync, cc_execute_task_list, history
from cc_executor.api import make_request
from cc_executor.errors import AgentNotFound, InvalidRequest
from cc_executor.model.event import ApiRetried, Event, Exited, Started, TextWritten
from cc_executor.model.request import STALL
from cc_executor.runtime.blocking import run_blocking, run_in_thread
from cc_executor.store.home import StateHome
from support.environments import CHECKOUT
from support.leaks import await_none
from support.runs import BASH, BOUND, eventually, run_folders
from support.shims import alive

Json = dict[str, Any]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- what is asked for --------------------------------------------------------------------------------------------


class Answer(pydantic.BaseModel):
    number: int


class Unwritable(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    what: threading.Thread


def test_options_become_a_request(tmp_path: Path) -> None:
    request = make_request(
        "Go.", timeout=5, stall_timeout=1.5, max_cost=0.25, max_turns=3, tools="Bash(git log, git diff),Write", add_dirs="below",
        expect=Path("a.txt"), schema=Answer, env_names="HOME", label="first", cwd="~/..",
    )  # fmt: skip
    assert request.limits == Limits(wall=5, stall=1.5, cost=0.25, turns=3)
    assert request.tools == ("Bash(git log, git diff)", "Write")
    assert request.add_dirs == (str(tmp_path / "below"),)
    assert request.expect == ("a.txt",)
    assert request.env_names == ("HOME",)
    assert request.output_schema is not None
    assert request.output_schema["properties"]["number"]["type"] == "integer"
    assert request.cwd == str(Path(os.environ["HOME"]).parent)
    assert make_request("Go.", limits=Limits(wall=1, turns=2), timeout=3).limits == Limits(wall=3, turns=2)
    assert make_request("Go.", tools=["Bash", "Write"]).tools == ("Bash", "Write")
    assert make_request("Go.").cwd == str(tmp_path)


def test_an_agent_that_hangs_is_ended_unless_somebody_wants_otherwise() -> None:
    assert make_request("Go.").limits.stall == STALL
    assert make_request("Go.", timeout=5, stall_timeout=0).limits == Limits(wall=5)
    assert make_request("Go.", limits=Limits(stall=7), stall_timeout=0).limits.stall is None
    assert make_request("Go.", limits=Limits(wall=5)).limits.stall is None
    assert make_request("true", agent="shell").limits.stall is None


def test_equal_requests_have_equal_digests() -> None:
    assert make_request("Go.", label="a").digest() == make_request("Go.", label="b").digest()
    assert make_request("Go.").digest() != make_request("Go!").digest()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timeout": 0}, ["timeout", "greater than 0", "given: 0"]),
        ({"timeout": float("nan")}, ["timeout"]),
        ({"timeout": "soon"}, ["timeout", "must be a valid number", "'soon'"]),
        ({"stall_timeout": -1}, ["stall_timeout"]),
        ({"max_cost": float("inf")}, ["max_cost"]),
        ({"max_turns": 0}, ["max_turns", "1 or more"]),
        ({"agent": "nobody"}, ["nobody", "claude", "shell"]),
        ({"rehearse": "nobody"}, ["nobody", "hello"]),
        ({"rehearse": "./no-such.toml"}, ["no-such.toml", "cannot be read"]),
        ({"rehearse": 5}, ["rehearse", "path", "int"]),
        ({"nonsense": 1}, ["nonsense"]),
        ({"on_kernel_exit": "explode"}, ["on_kernel_exit", "cancel", "continue"]),
        ({"schema": 5}, ["schema", "int"]),
        ({"schema": "x"}, ["schema"]),
        ({"schema": {"a": {1, 2}}}, ["schema", "JSON"]),
        ({"schema": {"a": float("nan")}}, ["schema", "JSON"]),
        ({"schema": Unwritable}, ["schema", "JSON"]),
        ({"cwd": 5}, ["cwd", "path", "int"]),
        ({"expect": [None]}, ["expect", "path"]),
        ({"expect": "nul\0"}, ["expect", "NUL"]),
        ({"cwd": "/half\ud800"}, ["cwd", "no file's name"]),
        ({"add_dirs": "half\ud800"}, ["add_dirs", "no file's name"]),
        ({"rehearse": "./half\ud800"}, ["rehearse", "no file's name"]),
        ({"verify": "nul\0"}, ["verify", "NUL"]),
        ({"verify": ""}, ["verify", "empty", "leave it out"]),  # a shell says that an empty command has succeeded
        ({"verify": " \n"}, ["verify", "empty", "leave it out"]),
        ({"expect": ["made.txt", ""]}, ["expect", "empty", "leave it out"]),
        ({"label": "x" * 201}, [f"label must have at most 200 characters (given: '{'x' * 79}…)."]),
        ({"env_names": [5]}, ["env_names"]),
        ({"limits": {"wall": 5}}, ["limits", "Limits", "dict"]),
        ({"output_schema": {}}, ["schema"]),
    ],
)
async def test_what_cannot_be_asked_for_is_one_sentence_and_starts_nothing(options: Json, words: list[str], state_folder: Path) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await cc_execute("Go.", **options)
    said = str(caught.value)
    for word in words:
        assert word in said
    assert "https:" not in said
    assert "\n" not in said
    assert run_folders(state_folder) == []


async def test_a_rehearsal_s_file_is_seen_from_here_and_not_from_where_the_agent_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.toml").write_text('[[turn]]\n[[turn.block]]\ntext = "as written here"\n')
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path)
    result = await cc_execute("Go.", cwd="work", rehearse="own.toml")
    assert (result.status, result.text) == ("ok", "as written here")
    assert result.receipt.rehearsed == str(tmp_path / "own.toml")


@pytest.mark.parametrize("prompt", [None, 5, ["list"]])
async def test_a_prompt_that_is_no_text_is_refused(prompt: Any) -> None:
    with pytest.raises(InvalidRequest, match="The prompt must be a valid string"):
        await cc_execute(prompt)


# --- what comes back ----------------------------------------------------------------------------------------------


async def test_a_result_says_what_was_asked_for_most(tmp_path: Path) -> None:
    result = await cc_execute("echo hello > new; echo hello", **BASH, expect="new", label="first")
    assert (result.ok, result.status, result.text, result.data, result.cost) == (True, "ok", "hello\n", None, None)
    assert [file.path for file in result.files] == [str(tmp_path / "new")]
    assert repr(result).startswith("<Result ok, ")
    assert result.receipt.run_id in repr(result)
    assert (result.folder / "stdout").read_text() == "hello\n"
    result.raise_for_outcome()


async def test_a_failed_run_is_a_result_and_is_raised_on_request() -> None:
    result = await cc_execute("echo partly; exit 3", **BASH)
    assert (result.ok, result.status, result.text) == (False, "failed", "partly\n")
    with pytest.raises(CCExecutionError, match="failed: ") as caught:
        await cc_execute("echo partly; exit 3", **BASH, raise_error=True)
    assert caught.value.receipt.outcome.kind is OutcomeKind.FAILED
    assert caught.value.receipt.text == "partly\n"
    (line, *_) = caught.value._render_traceback_()  # IPython's own hook
    assert line.startswith("CCExecutionError: failed")


# --- events -------------------------------------------------------------------------------------------------------


async def test_events_come_in_order_to_plain_and_to_async_callbacks() -> None:
    plain: list[Event] = []
    slow: list[Event] = []

    async def on_event(event: Event) -> None:
        await anyio.lowlevel.checkpoint()
        slow.append(event)

    await cc_execute("echo hello", **BASH, on_event=plain.append)
    await cc_execute("echo hello", **BASH, on_event=on_event)
    for seen in (plain, slow):
        assert isinstance(seen[0], Started)
        assert isinstance(seen[-1], Exited)
        assert "".join(event.text for event in seen if isinstance(event, TextWritten)) == "hello\n"


async def test_what_a_callback_raises_is_logged_and_breaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def plain(_: Event) -> None:
        raise RuntimeError("mine")

    async def later(_: Event) -> None:
        await anyio.lowlevel.checkpoint()
        raise RuntimeError("mine too")

    for callback in (plain, later):
        with caplog.at_level(logging.ERROR, logger="cc_executor"):
            assert (await cc_execute("echo hello", **BASH, on_event=callback)).ok
    assert {str(record.exc_info[1]) for record in caplog.records if record.exc_info} == {"mine", "mine too"}


async def test_a_callback_may_cancel_the_run_by_cancelling_its_task(tmp_path: Path) -> None:
    def on_event(event: Event) -> None:
        if isinstance(event, TextWritten):
            task.cancel()

    task = asyncio.get_running_loop().create_task(cc_execute("echo $$ > pid; echo go; sleep 1000", **BASH, on_event=on_event))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(int((tmp_path / "pid").read_text()))


async def test_a_callback_that_interrupts_ends_the_run(tmp_path: Path, home: StateHome) -> None:
    def on_event(event: Event) -> None:
        if isinstance(event, TextWritten):
            raise SystemExit(3)

    def program() -> None:
        asyncio.run(cc_execute("echo go; sleep 1000", **BASH, cwd=tmp_path, on_event=on_event))

    with pytest.raises(SystemExit):
        await anyio.to_thread.run_sync(program)
    (folder,) = home.runs()
    receipt = folder.receipt()
    assert receipt is not None
    assert receipt.outcome.kind is OutcomeKind.CANCELLED


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    age: Annotated[int, pydantic.Field(json_schema_extra={"x-unit": "years"})]


class Pet(pydantic.BaseModel):
    which: Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]


@pytest.mark.usefixtures("claude_cli")
async def test_what_pydantic_remarks_in_a_schema_does_not_keep_the_agent_from_starting() -> None:
    result = await cc_execute("Describe the pet.", schema=Pet, rehearse="schema")
    assert result.ok, result.receipt.outcome
    assert Pet.model_validate(result.data).which.kind in {"cat", "dog"}


@pytest.mark.usefixtures("claude_cli")
@pytest.mark.parametrize(
    "block",
    [
        r"""text = "```json\n{\"number\": 1}\n```" """,
        """text = 'Here it is: {"number": 1}. That is all.'""",
        """text = '{"number": 1}'""",
        """text = '{"number": '""",
        """tool = "StructuredOutput"\ninput = { number = "one" }""",
        """tool = "StructuredOutput"\ninput = { other = 1 }""",
    ],
    ids=["fenced", "within prose", "as text", "cut", "of another type", "incomplete"],
)
async def test_what_is_no_structured_result_is_never_taken_for_one(tmp_path: Path, block: str) -> None:
    script = tmp_path / "odd.toml"
    script.write_text(f'description = "odd"\nrepeat = 20\n[[turn]]\n[[turn.block]]\n{block}\n')
    result = await cc_execute("Count.", schema=Answer, rehearse=script)
    assert (result.status, result.data) == ("schema", None)


@pytest.mark.usefixtures("claude_cli")
async def test_retries_are_told_while_they_happen() -> None:
    async with asyncio.timeout(90):
        seen: list[Event] = []
        with pytest.raises(asyncio.CancelledError):
            await asyncio.get_running_loop().create_task(_until_retried(seen))
    assert any(isinstance(event, ApiRetried) for event in seen)


async def _until_retried(seen: list[Event]) -> None:
    me = asyncio.current_task()
    assert me is not None

    def on_event(event: Event) -> None:
        seen.append(event)
        if isinstance(event, ApiRetried):
            me.cancel()

    await cc_execute("Go.", rehearse="throttled-forever", on_event=on_event)


# --- cancelled ----------------------------------------------------------------------------------------------------

# It says that it has started before there is a pid.
TREE: Final = "echo started; setsid bash -c 'trap \"\" TERM; echo $$ > pid; while :; do read -t 1 < /dev/zero; done' & wait"


async def test_cancelling_ends_the_whole_tree_and_seals(tmp_path: Path, home: StateHome) -> None:
    seen: list[Event] = []
    task = asyncio.get_running_loop().create_task(cc_execute(TREE, **BASH, on_event=seen.append))
    pid = tmp_path / "pid"
    await eventually(lambda: pid.exists() and pid.read_text().strip())
    await eventually(lambda: seen)  # the agent may be faster than the launch, which names no run when it is cancelled
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await task
    assert time.monotonic() - began < 10
    assert not alive(int(pid.read_text()))
    (folder,) = home.runs()
    receipt = folder.receipt()
    assert receipt is not None
    assert (receipt.outcome.kind, receipt.text) == (OutcomeKind.CANCELLED, "started\n")
    assert f"`cc-executor show {folder.run_id}`" in cancelled.value.__notes__[0]
    assert "by python" in receipt.outcome.evidence


async def test_a_timeout_around_it_ends_it_too(tmp_path: Path) -> None:
    """Its time is over when the run is there, however long that took."""
    script = "echo $$ > pid; echo there; sleep 1000"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(BOUND) as limit:
            await cc_execute(script, **BASH, on_event=lambda event: limit.reschedule(0.0) if isinstance(event, TextWritten) else None)
    assert not alive(int((tmp_path / "pid").read_text()))
    (tmp_path / "pid").unlink()

    def over(event: Event) -> None:
        if isinstance(event, TextWritten):
            scope.deadline = 0.0

    with anyio.move_on_after(BOUND) as scope:
        await cc_execute(script, **BASH, on_event=over)
    assert scope.cancelled_caught
    assert not alive(int((tmp_path / "pid").read_text()))


async def test_cancelled_again_and_again_it_still_ends(tmp_path: Path, home: StateHome) -> None:
    task = asyncio.get_running_loop().create_task(cc_execute(TREE, **BASH))
    pid = tmp_path / "pid"
    await eventually(lambda: pid.exists() and pid.read_text().strip())
    while not task.done():
        task.cancel()
        await anyio.sleep(0.05)
    await eventually(lambda: not alive(int(pid.read_text())))
    await eventually(lambda: not await_none([tmp_path], budget=0))
    (folder,) = home.runs()
    await eventually(lambda: folder.exit_facts() is not None)  # the supervisor's last words come after the last process


# --- where nothing can be awaited ---------------------------------------------------------------------------------


def test_without_a_loop_it_just_runs() -> None:
    assert cc_execute_sync("echo hello", **BASH).text == "hello\n"
    with pytest.raises(InvalidRequest):
        cc_execute_sync(" ")


# In a process of its own, because nest-asyncio changes asyncio for good.
NESTED: Final = """
import asyncio, os, signal, sys, threading, time, warnings
from pathlib import Path
from cc_executor import cc_execute, cc_execute_sync
from cc_executor.runtime.blocking import run_blocking, run_in_thread

SHELL = {"agent": "shell", "shell": "bash"}
TREE = "setsid bash -c 'echo $$ > pid; exec sleep 1000' & wait"

async def ticks_meanwhile():
    ticks = 0
    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)
            if ticks == 5:
                Path("go").touch()
    ticker = asyncio.get_running_loop().create_task(tick())
    result = cc_execute_sync("until [ -e go ]; do sleep 0.02; done; echo hello", timeout=60, **SHELL)
    ticker.cancel()
    assert result.text == "hello\\n", (result, ticks)

async def errors():
    async def fail(error):
        await asyncio.sleep(0)
        raise error
    for error in (ValueError("mine"), asyncio.CancelledError("mine")):
        try:
            run_blocking(fail(error))
        except type(error) as caught:
            assert caught.args == ("mine",)
        else:
            raise AssertionError(error)

def interrupt_when_it_runs():
    def wait():
        end = time.monotonic() + 40
        while not (os.path.exists("pid") and Path("pid").read_text().strip()) and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=wait).start()

async def interrupted():
    interrupt_when_it_runs()
    try:
        cc_execute_sync(TREE, **SHELL)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        try:
            os.kill(int(Path("pid").read_text()), 0)
        except ProcessLookupError:
            os.unlink("pid")
            return
    raise AssertionError("not ended")

asyncio.run(ticks_meanwhile())
asyncio.run(errors())
asyncio.run(interrupted())

# Without a running loop, but with asyncio as nest-asyncio has left it.
for blocking in (run_blocking, run_in_thread):
    assert blocking(cc_execute("echo hello", **SHELL)).text == "hello\\n"
    interrupt_when_it_runs()
    try:
        blocking(cc_execute(TREE, **SHELL))
    except KeyboardInterrupt:
        os.unlink("pid")
    else:
        raise AssertionError("not interrupted")
assert asyncio.run(cc_execute("echo hello", **SHELL)).text == "hello\\n"
print("all is well")  # and the process ends: no thread waits for the end of a task that nest-asyncio never tells of
"""


def test_inside_a_running_loop_the_loop_s_other_tasks_go_on_and_interrupts_end_the_run(tmp_path: Path, home: StateHome) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", NESTED],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / "src")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout == "interrupted\nall is well\n", done.stderr
    receipts = [folder.receipt() for folder in home.runs()]
    assert [receipt and receipt.outcome.kind.value for receipt in reversed(receipts)] == [*["ok", "cancelled"] * 3, "ok"]
    assert done.stderr.count("ResourceWarning: unclosed") <= 2, done.stderr  # nest-asyncio's own `asyncio.run` leaves its loops open


class ForeignLoop(asyncio.AbstractEventLoop):
    """A loop that is none of asyncio's own, as uvloop's: it cannot be nested."""


@pytest.fixture
def on_a_foreign_loop() -> Iterator[None]:
    asyncio._set_running_loop(ForeignLoop())
    yield
    asyncio._set_running_loop(None)


@pytest.mark.usefixtures("on_a_foreign_loop")
def test_inside_a_loop_that_cannot_be_nested_a_thread_does_it() -> None:
    names: list[str] = []
    result = cc_execute_sync("echo hello", **BASH, on_event=lambda _: names.append(threading.current_thread().name))
    assert result.text == "hello\n"
    assert set(names) == {"cc_executor"}
    with pytest.raises(AgentNotFound):
        cc_execute_sync("no-such-command", agent="shell")


async def give(value: Any) -> Any:
    await asyncio.sleep(0)
    if isinstance(value, BaseException):
        raise value
    return value


WAYS: Final = [run_blocking, run_in_thread]


@pytest.mark.parametrize("blocking", WAYS)
def test_values_and_errors_come_through(blocking: Callable[[Any], Any]) -> None:
    assert blocking(give(5)) == 5
    assert blocking(give(None)) is None
    for error in (ValueError("mine"), CCExecutorError("mine"), asyncio.CancelledError("mine"), SystemExit(3)):
        with pytest.raises(type(error)) as caught:
            blocking(give(error))
        assert caught.value.args == error.args


def test_a_thread_has_the_caller_s_context() -> None:
    variable = contextvars.ContextVar[str]("variable")
    variable.set("mine")

    async def read() -> str:
        return variable.get()

    assert run_in_thread(read()) == "mine"


def interrupt_when(condition: Callable[[], object]) -> threading.Thread:
    """Ctrl-C, as soon as it is so."""

    def wait() -> None:
        end = time.monotonic() + BOUND
        while not condition() and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize("blocking", WAYS)
def test_an_interrupt_ends_the_run_and_is_raised(blocking: Callable[[Any], Any], tmp_path: Path, home: StateHome) -> None:
    pid = tmp_path / "pid"
    handler = signal.getsignal(signal.SIGINT)
    interrupter = interrupt_when(lambda: pid.exists() and pid.read_text().strip())
    with pytest.raises(KeyboardInterrupt):
        blocking(cc_execute(TREE, **BASH))
    interrupter.join()
    assert signal.getsignal(signal.SIGINT) is handler
    assert not alive(int(pid.read_text()))
    (folder,) = home.runs()
    receipt = folder.receipt()
    assert receipt is not None
    assert receipt.outcome.kind is OutcomeKind.CANCELLED


@pytest.mark.parametrize("blocking", WAYS)
def test_an_interrupt_at_the_very_beginning_is_not_lost(blocking: Callable[[Any], Any]) -> None:
    began = threading.Event()

    async def work() -> None:
        began.set()
        await asyncio.sleep(100)

    interrupter = interrupt_when(began.is_set)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        blocking(work())
    interrupter.join()
    assert time.monotonic() - start < 50


# --- the face -----------------------------------------------------------------------------------------------------


def test_importing_costs_nothing_and_every_name_is_there() -> None:
    for name in cc_executor.__all__:
        assert getattr(cc_executor, name) is not None
    assert set(cc_executor.__all__) <= set(dir(cc_executor))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = cc_executor.nonsense
    code = "import sys, cc_executor; print([m for m in ('asyncio', 'anyio', 'pydantic', 'msgspec', 'IPython') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(CHECKOUT / 'src')!r}); {code}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "[]"


async def test_nothing_is_kept_of_what_was_refused(state_folder: Path) -> None:
    with pytest.raises(AgentNotFound):
        await cc_execute("no-such-command-anywhere", agent="shell")
    assert run_folders(state_folder) == []


def test_a_state_folder_that_nobody_has_named_is_not_made_of_the_current_one(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)  # as a state folder is
    calls: list[Callable[[Any], object]] = [
        lambda state: cc_execute_sync("true", agent="shell", state=state),
        lambda state: cc_execute_task_list([{"run": "true"}], state=state),
        lambda state: history(state=state),
    ]
    for call in calls:
        with pytest.raises(InvalidRequest, match="state is empty, mostly of a variable that was not set"):
            call("")
        with pytest.raises(InvalidRequest, match="state must be a path, not int"):
            call(5)
    assert list(tmp_path.iterdir()) == []
