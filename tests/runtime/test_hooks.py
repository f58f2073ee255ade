"""Hooks with real runs and lists: who is called with what, what a failing or hanging one does, and that nothing is called twice, whoever dies."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cc_executor import cc_execute, cc_execute_list, hook, unhook
from cc_executor.errors import AgentNotFound, ControlFailed, HookRefused, InvalidRequest
from cc_executor.model import hook as hook_of_model
from cc_executor.model.event import Event, Finished, HookRan, Noise, TextWritten
from cc_executor.model.hook import DETAIL_CHARS, Hook, HookReport, HookStatus, Moment
from cc_executor.model.item import Level
from cc_executor.model.listrecord import ListStatus, RetryAsked
from cc_executor.model.notice import notice
from cc_executor.policy.redact import MASK, Redactor
from cc_executor.runtime import hookevents
from cc_executor.runtime.hookevents import BATCH, QUEUE, TEXT_CHARS, EventPump, plain
from cc_executor.runtime.hooks import ENTRY_POINTS, PROMPT_CHARS, gathered, hooks_given
from cc_executor.runtime.listhooks import keep_hooks, kept_hooks
from cc_executor.runtime.result import Result
from cc_executor.runtime.run import Run
from cc_executor.store.home import StateHome
from cc_executor.store.hooklog import HOOKS, HookLog
from cc_executor.store.journal import RunFolder
from cc_executor.store.tasklists import ListHome
from cc_executor.taskplan import plan
from support.leaks import await_none
from support.runs import BASH, BOUND, eventually, run_folders, shell, wait_for

SECRET = "sk-ant-api03-abcdefghijklmnop"  # a key's shape, and nobody's


async def ran(command: str = "true", **more: Any) -> Result:
    return await cc_execute(command, **BASH, **more)


def reports(result: Result) -> dict[str, str]:
    return {f"{each.moment.value} {each.hook}": each.status.value for each in result.receipt.hooks}


@pytest.fixture(autouse=True)
def hooks_have_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that says nothing of its time has as much as a busy machine takes; those that hang say theirs."""
    monkeypatch.setattr(hook_of_model, "TIMEOUT", BOUND)


@pytest.fixture
def called() -> Iterator[list[dict[str, Any]]]:
    """What functions were given that are registered by `note`, and not registered any more afterwards."""
    seen: list[dict[str, Any]] = []
    yield seen
    for each in list(gathered((), environ={})):
        if each.call is not None:
            unhook(each.call)


async def test_functions_sync_and_async_are_called_around_a_run(called: list[dict[str, Any]], tmp_path: Path) -> None:
    threads: list[threading.Thread] = []

    @hook("before_run")
    def before(given: dict[str, Any]) -> None:
        threads.append(threading.current_thread())
        called.append(given)

    @hook("after_run", name="after")
    async def later(given: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        called.append(given)

    result = await ran("echo made > made.txt", cwd=tmp_path, label="mine", expect="made.txt")
    first, second = called
    assert (first["schema"], first["moment"], first["hook"]) == (1, "before_run", "before")
    assert first["run"]["prompt"] == "echo made > made.txt"
    assert (first["run"]["id"], second["run"]["id"]) == (result.receipt.run_id,) * 2
    assert (second["run"]["outcome"], second["run"]["ok"], second["run"]["label"]) == ("ok", True, "mine")
    assert second["run"]["files"] == [str(tmp_path / "made.txt")]
    assert "prompt" not in second["run"]
    assert reports(result) == {"before_run before": "ok", "after_run after": "ok"}
    assert result.receipt.is_intact
    assert threads[0] is not threading.main_thread()


async def test_a_function_that_is_defined_anew_takes_the_place_of_the_one_before(called: list[dict[str, Any]]) -> None:
    for _ in range(3):

        @hook("before_run")
        def before(given: dict[str, Any]) -> None:
            called.append(given)

    await ran()
    assert len(called) == 1
    unhook(before)
    await ran()
    assert len(called) == 1


async def test_two_functions_of_one_name_are_both_called_and_told_of() -> None:
    seen: list[str] = []
    hooks = {
        "before_run": [lambda _: seen.append("before"), lambda _: seen.append("and again")],
        "after_run": [lambda _: seen.append("after"), lambda _: seen.append("and again")],
    }
    result = await ran(hooks=hooks)
    assert seen == ["before", "and again", "after", "and again"]
    assert reports(result) == dict.fromkeys(
        ("before_run <lambda>", "before_run <lambda> 2", "after_run <lambda>", "after_run <lambda> 2"), "ok"
    )


async def test_a_command_gets_json_its_names_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    monkeypatch.setenv("MY_WEBHOOK", "https://example.invalid/x")
    given = {"run": "cat > given.json; env > env.txt; pwd > cwd.txt", "env": ["MY_WEBHOOK"]}
    result = await ran(f"echo {SECRET}", cwd=tmp_path, hooks={"before_run": given})
    assert reports(result) == {"before_run cat": "ok"}
    payload = json.loads((tmp_path / "given.json").read_text())
    assert payload["run"]["prompt"] == f"echo {MASK}"
    environment = dict(line.split("=", 1) for line in (tmp_path / "env.txt").read_text().splitlines() if "=" in line)
    assert environment["CC_RUN_ID"] == result.receipt.run_id
    assert environment["CC_HOOK_MOMENT"] == "before_run"
    assert environment["MY_WEBHOOK"] == "https://example.invalid/x"
    assert environment["HOME"] == os.environ["HOME"]
    assert "ANTHROPIC_API_KEY" not in environment
    assert SECRET not in (tmp_path / "env.txt").read_text()
    assert (tmp_path / "cwd.txt").read_text().strip() == str(tmp_path)


@pytest.mark.parametrize("refuses", [{"run": 'echo \'{"refuse": "not on Fridays"}\''}, {"call": lambda _: {"refuse": "not on Fridays"}}])
async def test_a_hook_may_refuse_and_nothing_is_started(refuses: dict[str, Any], tmp_path: Path, state_folder: Path) -> None:
    with pytest.raises(HookRefused, match=r"\(before_run\) refused: not on Fridays\. Nothing was started\.") as raised:
        await ran("touch made", cwd=tmp_path, hooks={"before_run": {"name": "calendar", **refuses}})
    assert "'calendar'" in str(raised.value)
    assert not (tmp_path / "made").exists()
    assert run_folders(state_folder) == []


@pytest.mark.parametrize(("policy", "status"), [("tell", "ok"), ("stop", "failed")])
async def test_a_failure_after_the_run_is_told_or_makes_it_fail(policy: str, status: str) -> None:
    result = await ran(hooks={"after_run": {"run": "echo 3 tests fail >&2; exit 4", "name": "gate", "on_failure": policy}})
    assert result.status == status
    [report] = result.receipt.hooks
    assert (report.status, report.detail) == (HookStatus.FAILED, "exit code 4: 3 tests fail")
    if policy == "stop":
        assert "'gate' (after_run) failed: exit code 4: 3 tests fail" in result.receipt.outcome.summary
        assert "before the hook: ok" in result.receipt.outcome.evidence


async def test_a_failing_function_is_told_and_with_stop_nothing_starts(tmp_path: Path) -> None:
    def broken(_: dict[str, Any]) -> None:
        raise ZeroDivisionError("by nothing")

    result = await ran(hooks={"before_run": broken})
    assert result.ok
    assert result.receipt.hooks[0].sentence() == "The hook 'broken' (before_run) failed: ZeroDivisionError: by nothing"
    with pytest.raises(HookRefused, match="has to end well"):
        await ran("touch made", cwd=tmp_path, hooks={"before_run": {"call": broken, "on_failure": "stop"}})
    assert not (tmp_path / "made").exists()


@pytest.mark.row("faults", "a hook hangs", "it is ended at its time limit, told, and the run goes on")
async def test_a_hanging_command_is_killed_whole_and_told(tmp_path: Path, saw: Any) -> None:
    began = time.monotonic()
    # A child in a session of its own, which a signal to the group does not reach.
    given = {"run": f"cd {tmp_path}; setsid sleep 300 & echo half; sleep 300", "timeout": 0.4, "name": "slow"}
    result = await ran(cwd=tmp_path, hooks={"before_run": given})
    saw(f"{time.monotonic() - began:.1f} s")
    assert result.ok
    assert time.monotonic() - began < 60
    assert result.receipt.hooks[0].sentence() == "The hook 'slow' (before_run) did not end in time: it went on after 0.4 s, and was killed"
    assert not await_none([tmp_path])


@pytest.mark.row("faults", "a hook hangs", "it is ended at its time limit, told, and the run goes on")
async def test_a_hanging_function_is_left_alone_and_the_loop_goes_on() -> None:
    is_called, has_beaten, let_go = threading.Event(), threading.Event(), threading.Event()

    def listen(_: dict[str, Any]) -> None:
        is_called.set()
        assert has_beaten.wait(BOUND), "the loop stood still as long as the function was waited for"

    def stick(_: dict[str, Any]) -> None:
        let_go.wait(BOUND)

    async def beat() -> None:
        beats = 0
        while beats < 3:
            await asyncio.sleep(0.01)
            beats += is_called.is_set()
        has_beaten.set()

    heart = asyncio.create_task(beat())  # noqa: TID251 - a task beside the run is what is tested
    hooks = [{"call": listen, "timeout": 2 * BOUND}, {"call": stick, "timeout": 0.2, "name": "stuck"}]
    try:
        result = await ran(hooks={"before_run": hooks})
    finally:
        let_go.set()
        heart.cancel()
    assert result.ok
    assert reports(result) == {"before_run listen": "ok", "before_run stuck": "hung"}
    assert "left alone in its thread" in result.receipt.hooks[1].detail


async def test_a_run_that_fails_or_cannot_start_is_told_to_on_error(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    await ran("exit 3", hooks={"on_error": seen.append, "after_run": {"call": seen.append, "min_seconds": 60}})
    assert [(given["error"]["of"], given["error"]["outcome"]) for given in seen] == [("run", "failed")]
    await ran("true", hooks={"on_error": seen.append})
    assert len(seen) == 1
    script = tmp_path / "not-executable"
    script.write_text("")
    with pytest.raises(AgentNotFound):
        await cc_execute(str(script), agent="shell", hooks={"on_error": seen.append})
    assert seen[-1]["error"]["outcome"] == "not_started"
    assert {tuple(given["error"]) for given in seen} == {("of", "outcome", "summary", "cure")}


# --- events -----------------------------------------------------------------------------------------------------------


async def test_events_come_whole_in_order_and_once_however_many_follow() -> None:
    seen: list[dict[str, Any]] = []
    request_hooks = [
        Hook(moment=Moment.ON_EVENT, call=lambda given: seen.extend(given["events"]), name="events", events=("text_written", "exited"))
    ]
    from cc_executor.api import make_request

    request = make_request("for n in 1 2 3; do echo line $n; sleep 0.05; done", **BASH)
    run = await Run.start(request, home=StateHome(Path(os.environ["CC_EXECUTOR_STATE"])), environ=os.environ, hooks=request_hooks)

    async def follow() -> None:
        async for _ in run.follow():
            pass

    async with asyncio.TaskGroup() as followers:
        for _ in range(3):
            followers.create_task(follow())
    receipt = await run.finish()
    assert "".join(event["text"] for event in seen if event["kind"] == "text_written") == "line 1\nline 2\nline 3\n"
    assert seen[-1]["kind"] == "exited"
    assert receipt.hooks[0].status is HookStatus.OK


def report_of(each: Hook, status: HookStatus) -> HookReport:
    return HookReport(hook=each.name, moment=each.moment, status=status)


@pytest.mark.row(
    "floods", "a hook that wants every event and is slow", "the run is not held up; what has no room is dropped, counted and told"
)
def test_a_slow_hook_never_holds_up_the_events_and_what_is_dropped_is_told(saw: Any) -> None:
    go = threading.Event()
    given: list[int] = []

    def deliver(each: Hook, part: Any) -> HookReport:
        given.append(len(part["events"]))
        assert go.wait(BOUND)
        return report_of(each, HookStatus.OK)

    pump = EventPump(Hook(moment=Moment.ON_EVENT, command="x", name="slow", timeout=20), deliver, lambda _: None)
    flood = [TextWritten(block="m:0", text=f"{n}", whole=True) for n in range(1000)]
    pump.feed(flood[:300])
    wait_for(lambda: given)
    began = time.perf_counter()
    for _ in range(100):
        pump.feed(flood)
    took = time.perf_counter() - began
    saw(f"100,000 events taken in {took * 1000:.0f} ms")
    assert took < 10
    go.set()
    report = pump.close()
    assert report is not None
    assert report.status is HookStatus.FAILED
    delivered = sum(given)
    assert delivered <= QUEUE + 300
    assert f"{100_300 - delivered:,} events were dropped" in report.detail


def test_events_whose_call_goes_on_when_the_time_is_over_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hookevents, "COMMAND_PACE", 0.02)
    goes_on = [threading.Event(), threading.Event()]
    called: list[int] = []

    def deliver(each: Hook, part: Any) -> HookReport:
        called.append(len(part["events"]))
        assert goes_on[len(called) - 1].wait(BOUND)
        return report_of(each, HookStatus.OK)

    pump = EventPump(Hook(moment=Moment.ON_EVENT, command="x", name="slow", timeout=0.3), deliver, lambda _: None)
    try:
        for count in (5, 7):
            pump.feed([TextWritten(block="m:0", text=f"{n}", whole=True) for n in range(count)])
            wait_for(lambda: called == [5])
        goes_on[0].set()
        wait_for(lambda: len(called) == 2)
        report = pump.close()
    finally:
        goes_on[1].set()
    assert report is not None
    assert (report.status, report.detail) == (HookStatus.FAILED, "5 events in 1 call; 7 events were still being handed over")


def left_waiting() -> tuple[Hook, threading.Event, threading.Event]:
    """A function for events that does not come to an end, with what says that it was called, and what lets it go."""
    called, goes_on = threading.Event(), threading.Event()

    def stuck(_: object) -> None:
        called.set()
        goes_on.wait(4 * BOUND)

    return Hook(moment=Moment.ON_EVENT, call=stuck, name="stuck", timeout=4 * BOUND), called, goes_on


async def test_whoever_leaves_waits_for_no_hook_of_events_and_the_run_is_sealed(state_folder: Path) -> None:
    each, called, goes_on = left_waiting()
    try:
        async with asyncio.TaskGroup() as group:
            run = group.create_task(ran("echo said; sleep 300", hooks=[each]))
            await eventually(called.is_set)
            run.cancel()
    finally:
        goes_on.set()
    [folder] = run_folders(state_folder)
    receipt = RunFolder(folder).receipt()
    assert receipt is not None
    [report] = receipt.hooks
    assert (report.status, "still being handed over" in report.detail) == (HookStatus.FAILED, True)


async def test_a_cancel_ends_the_wait_for_a_hook_of_events() -> None:
    each, called, goes_on = left_waiting()
    home = StateHome(Path(os.environ["CC_EXECUTOR_STATE"]))
    run = await Run.start(shell("echo said"), home=home, environ=os.environ, hooks=[each])
    try:
        async with asyncio.timeout(BOUND), asyncio.TaskGroup() as group:
            ending = group.create_task(run.finish())
            await eventually(lambda: called.is_set() and run.folder.exit_facts() is not None)
            while not ending.done():  # it may not have come to the hooks yet
                with suppress(ControlFailed):
                    await run.cancel()
                await asyncio.sleep(0.02)
    finally:
        goes_on.set()
    assert [report.status for report in ending.result().hooks] == [HookStatus.FAILED]


def test_pieces_and_noise_are_left_out_unless_they_are_named() -> None:
    events = [TextWritten(block="m:0", text="a"), TextWritten(block="m:0", text="ab", whole=True), Noise(what="ping")]

    def given_to(each: Hook) -> list[str]:
        seen: list[str] = []

        def deliver(each: Hook, part: Any) -> HookReport:
            seen.extend(str(event.get("whole", "")) or event["kind"] for event in part["events"])
            return report_of(each, HookStatus.OK)

        pump = EventPump(each, deliver, lambda _: None)
        pump.feed(events)
        pump.close()
        return seen

    assert given_to(Hook(moment=Moment.ON_EVENT, name="n")) == ["True"]
    assert len(given_to(Hook(moment=Moment.ON_EVENT, name="n", events=("text_written", "noise")))) == 3


@pytest.mark.parametrize("structured", [b"9" * 5000, b"1e999"])
def test_a_number_that_python_takes_for_none_keeps_no_event_from_a_hook(structured: bytes) -> None:
    seen: list[dict[str, Any]] = []

    def deliver(each: Hook, part: Any) -> HookReport:
        seen.extend(part["events"])
        return report_of(each, HookStatus.OK)

    pump = EventPump(Hook(moment=Moment.ON_EVENT, name="n", timeout=BOUND), deliver, lambda _: None)
    pump.feed([Finished(subtype="success", is_error=False, text="done", structured=msgspec.Raw(b'{"n": ' + structured + b"}"))])
    report = pump.close()
    assert report is not None
    assert report.status is HookStatus.OK
    assert [event["structured"][:10] for event in seen] == [f'{{"n": {structured.decode()}}}'[:10]]


def test_a_hook_that_fails_again_and_again_is_called_no_more() -> None:
    told: list[str] = []
    calls: list[int] = []

    def deliver(each: Hook, part: Any) -> HookReport:
        calls.append(len(part["events"]))
        return report_of(each, HookStatus.FAILED)

    pump = EventPump(Hook(moment=Moment.ON_EVENT, name="bad"), deliver, lambda report: told.append(report.sentence()))
    for _ in range(6):
        before = len(calls)
        pump.feed([TextWritten(block="m:0", text="x", whole=True)])
        if before < 3:
            wait_for(lambda before=before: len(calls) > before)
    report = pump.close()
    assert len(calls) == 3
    assert "not called any more" in told[-1]
    assert report is not None
    assert report.detail == "3 events in 3 calls; 3 failed; 3 events were dropped"


def one(text: str = "x") -> list[Event]:
    return [TextWritten(block="m:0", text=text, whole=True)]


def pumped(statuses: list[HookStatus], monkeypatch: pytest.MonkeyPatch) -> tuple[EventPump, list[Mapping[str, Any]], list[str]]:
    """A pump whose calls end so, then well; what they are given, and what is told."""
    monkeypatch.setattr(hookevents, "PACE", 0.0)
    parts: list[Mapping[str, Any]] = []
    told: list[str] = []

    def deliver(each: Hook, part: Mapping[str, Any]) -> HookReport:
        parts.append(part)
        status = statuses[len(parts) - 1] if len(parts) <= len(statuses) else HookStatus.OK
        return HookReport(hook=each.name, moment=each.moment, status=status, detail="" if status is HookStatus.OK else "why")

    return EventPump(Hook(moment=Moment.ON_EVENT, name="it"), deliver, lambda report: told.append(report.detail)), parts, told


def test_failures_with_a_success_between_them_are_not_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = HookStatus.FAILED, HookStatus.OK
    pump, parts, told = pumped([bad, bad, good, bad, bad, good], monkeypatch)
    for count in range(1, 8):
        pump.feed(one())
        wait_for(lambda count=count: len(parts) == count)
    report = pump.close()
    assert told == ["why"], "that it fails is said once"
    assert report is not None
    assert (report.status, report.detail) == (HookStatus.FAILED, "7 events in 7 calls; 4 failed (why)")


def test_a_hook_that_hangs_is_called_once_and_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    pump, parts, told = pumped([HookStatus.HUNG], monkeypatch)
    pump.feed(one() * (BATCH + 1))
    wait_for(lambda: len(told) == 2)
    pump.feed([*one(), *one()])
    report = pump.close()
    assert told == ["why", "it hangs, and is not called any more in this run"]
    assert len(parts) == 1
    assert report is not None
    assert (report.status, report.detail) == (HookStatus.HUNG, f"{BATCH} events in 1 call; 1 failed (why); 3 events were dropped")


def test_events_come_in_batches_with_how_many_were_dropped_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hookevents, "QUEUE", 450)
    is_closing, parts = threading.Event(), list[Mapping[str, Any]]()

    def deliver(each: Hook, part: Mapping[str, Any]) -> HookReport:
        parts.append(part)
        assert is_closing.wait(BOUND)
        return report_of(each, HookStatus.OK)

    pump = EventPump(Hook(moment=Moment.ON_EVENT, name="it"), deliver, lambda _: None)
    pump.feed(one() * 451)
    pump.dismiss()
    is_closing.set()
    assert pump.close() is not None
    assert [(len(part["events"]), part["dropped"]) for part in parts] == [(BATCH, 1), (BATCH, 1), (50, 1)]


def test_who_is_handed_nothing_has_no_thread_and_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    pump, parts, _ = pumped([], monkeypatch)
    pump.feed([])
    pump.feed([Noise(what="ping")])
    assert pump.close() is None
    assert parts == []
    other, given, _ = pumped([], monkeypatch)
    other.feed(one())
    other.dismiss()
    wait_for(lambda: not any(thread.name == "cc_executor events it" for thread in threading.enumerate()))
    assert len(given) == 1, "what waits is handed over first"


def test_a_text_is_masked_before_it_is_cut_and_says_how_long_it_was() -> None:
    def shown(text: str) -> str:
        return plain(one(text)[0], Redactor((SECRET,)).text)["text"]

    assert shown(f"a {SECRET} b") == f"a {MASK} b"
    assert shown("x" * TEXT_CHARS) == "x" * TEXT_CHARS
    assert shown("x" * (TEXT_CHARS + 1)) == "x" * TEXT_CHARS + f"… ({TEXT_CHARS + 1:,} characters)"
    cut = shown("x" * (TEXT_CHARS - 5) + SECRET + "y" * 100)
    assert SECRET[:5] not in cut
    assert shown(f"{SECRET} " * 160) == f"{MASK} " * 160
    assert shown(SECRET * 20_000).endswith(f"… ({len(SECRET) * 20_000:,} characters)"), "also where masks make it short"
    assert "pieces" not in plain(TextWritten(block="m:0", text="xx", pieces=2), str)
    assert plain(Noise(what="ping"), str) == {"kind": "noise", "what": "ping"}


# --- who dies, and who goes on ----------------------------------------------------------------------------------------


def driven(script: str, folder: Path) -> subprocess.Popen[str]:
    """A process of its own, to be killed."""
    return subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True)


DRIVER = """
import asyncio, os, sys
from pathlib import Path
from cc_executor.api import make_request
from cc_executor.model.hook import DETAIL_CHARS, Hook, Moment
from cc_executor.runtime.run import Run
from cc_executor.store.home import StateHome
folder = Path(sys.argv[1])
def mine(given): (folder / "function").write_text("called")
async def main():
    request = make_request(f"touch {folder}/begun; until [ -e {folder}/go ]; do sleep 0.02; done", agent="shell", shell="bash", on_kernel_exit="continue")
    hooks = [Hook(moment=Moment.AFTER_RUN, command=f"echo $CC_RUN_ID >> {folder}/after", name="after"),
             Hook(moment=Moment.AFTER_RUN, call=mine, name="mine"),
             Hook(moment=Moment.BEFORE_RUN, command=f"echo before >> {folder}/before", name="before")]
    run = await Run.start(request, home=StateHome(Path(os.environ["CC_EXECUTOR_STATE"])), environ=os.environ, hooks=hooks)
    print(run.run_id, flush=True)
    async for _ in run.follow(): pass
    await run.finish()
asyncio.run(main())
"""


@pytest.mark.row("faults", "the kernel dies while a run with hooks goes on", "whoever seals the run calls the commands that are owed, once")
async def test_whoever_seals_a_run_after_its_kernel_died_calls_what_is_owed_once(tmp_path: Path, state_folder: Path) -> None:
    with driven(DRIVER, tmp_path) as driver:
        assert driver.stdout is not None
        run_id = driver.stdout.readline().strip()
        await eventually((tmp_path / "begun").exists)
        driver.send_signal(signal.SIGKILL)
    (tmp_path / "go").touch()
    home = StateHome(state_folder)
    runs = [await Run.attach(home, run_id, environ=os.environ) for _ in range(3)]
    async with asyncio.TaskGroup() as finishing:
        found = [finishing.create_task(run.finish()) for run in runs]
    receipts = [task.result() for task in found]
    assert (tmp_path / "before").read_text() == "before\n"
    assert (tmp_path / "after").read_text() == f"{run_id}\n"
    assert not (tmp_path / "function").exists()
    assert len({receipt.digest for receipt in receipts}) == 1
    assert {each.hook: each.status.value for each in receipts[0].hooks} == {"before": "ok", "after": "ok", "mine": "not_run"}
    assert "a process that is gone" in next(each.detail for each in receipts[0].hooks if each.hook == "mine")


async def test_a_hook_that_was_begun_is_not_called_again(tmp_path: Path, state_folder: Path) -> None:
    given = Hook(moment=Moment.AFTER_RUN, command=f"echo after >> {tmp_path}/after", name="after")
    from cc_executor.api import make_request

    home = StateHome(state_folder)
    run = await Run.start(make_request("true", **BASH), home=home, environ=os.environ, hooks=[given])
    HookLog(run.folder.path).begin(given.key)  # as somebody does who is killed in the next moment
    receipt = await (await Run.attach(home, run.run_id, environ=os.environ)).finish()
    assert not (tmp_path / "after").exists()
    assert [each.status.value for each in receipt.hooks] == ["not_run"]
    assert "not called twice" in receipt.hooks[0].detail


async def test_a_log_that_was_torn_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    log = HookLog(tmp_path)
    log.plan(())
    log.begin("one")
    with (tmp_path / HOOKS).open("ab") as file:
        file.write(b'begun "tw\xff\n ended garb')
    log.begin("three")
    assert log.read().begun == {"one", "three"}
    assert log.read().is_open


# --- lists ------------------------------------------------------------------------------------------------------------


def step(task_id: str, command: str = "true", **more: object) -> dict[str, object]:
    return {"id": task_id, "run": command, **more}


async def test_a_list_calls_around_itself_its_tasks_and_their_runs(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    moments = [moment.value for moment in Moment if moment is not Moment.ON_EVENT]
    result = await cc_execute_list(
        [step("a"), step("b", "exit 3", retry=1), {"id": "c", "call": lambda: 1 / 0}],
        cwd=tmp_path,
        name="mine",
        on_failure="continue",
        hooks=dict.fromkeys(moments, seen.append),
    )
    assert result.status == "failed"
    told = [(given["moment"], given.get("task", {}).get("id", ""), given.get("task", {}).get("attempt")) for given in seen]
    run, again = (
        [("before_task", "b", 1), ("before_run", "b", None), ("after_run", "b", None), ("on_error", "b", None), ("after_task", "b", 1)],
        2,
    )
    assert told[0] == ("before_list", "", None)
    assert told[1:5] == [("before_task", "a", 1), ("before_run", "a", None), ("after_run", "a", None), ("after_task", "a", 1)]
    assert [item for item in told if item[1] == "b"] == [*run, *((moment, name, again if n else None) for moment, name, n in run)]
    assert [item for item in told if item[1] == "c"] == [("before_task", "c", 1), ("after_task", "c", 1), ("on_error", "c", 1)]
    assert told[-1] == ("after_list", "", None)
    assert seen[-1]["list"] | {"cwd": "", "id": ""} == {
        "id": "", "name": "mine", "cwd": "", "tasks": 3, "status": "failed", "summary": "1 of 3 tasks ended well", "cost": 0.0,
        "states": {"a": "ok", "b": "failed", "c": "failed"},
    }  # fmt: skip
    assert {given["list"]["id"] for given in seen} == {result.list_id}
    assert {tuple(given["error"]) for given in seen if "error" in given} == {("of", "outcome", "summary", "cure")}


async def test_a_list_that_has_ended_calls_nobody_again(tmp_path: Path) -> None:
    seen: list[str] = []
    hooks = {moment: (lambda given: seen.append(given["moment"])) for moment in ("before_list", "before_task", "after_list")}
    for _ in range(2):
        assert (await cc_execute_list([step("a")], cwd=tmp_path, hooks=hooks)).ok
    assert seen == ["before_list", "before_task", "after_list"]


async def test_a_refused_list_a_refused_task_and_a_gate_after_a_task(tmp_path: Path) -> None:
    async def of(hooks: dict[str, Any]) -> tuple[str, str, dict[str, str]]:
        result = await cc_execute_list(
            [step("a", "touch a"), step("b", "touch b", needs="a")], cwd=tmp_path, fresh=True, on_failure="skip", hooks=hooks
        )
        return result.status, result.summary, {name: f"{task.status.value} {task.summary}" for name, task in result.tasks.items()}

    no = {"run": 'echo \'{"refuse": "no"}\'', "name": "no"}
    status, summary, tasks = await of({"before_list": no})
    assert (status, summary) == ("stopped", "The hook 'no' (before_list) refused: no.")
    assert tasks == {"a": "waiting ", "b": "waiting "}
    _, _, tasks = await of({"before_task": no})
    assert tasks["a"] == "failed The hook 'no' (before_task) refused: no. The task was not started."
    assert not (tmp_path / "a").exists()
    _, _, tasks = await of({"after_task": {"run": "exit 5", "name": "gate", "on_failure": "stop"}})
    assert tasks["a"] == "failed The hook 'gate' (after_task) failed: exit code 5, and it has to end well (on_failure: stop)."
    assert tasks["b"].startswith("skipped")
    status, summary, tasks = await of({"after_list": {"run": "exit 6", "name": "gate", "on_failure": "stop"}})
    assert status == "failed"
    assert "'gate' (after_list) failed: exit code 6" in summary
    assert {said.split()[0] for said in tasks.values()} == {"ok"}


async def test_what_fails_stands_in_the_lists_journal(tmp_path: Path, state_folder: Path) -> None:
    text = "hooks:\n  after_task: exit 7\ntasks:\n- {id: a, run: 'true'}\n"
    result = await cc_execute_list(text, cwd=tmp_path, hooks={"before_run": ["true", print]})
    assert result.ok
    folder = ListHome(StateHome(state_folder)).find(result.list_id)
    assert folder.state().notes == ("a: The hook 'exit' (after_task) failed: exit code 7",)
    assert [each.command for each in kept_hooks(folder)] == ["exit 7", "true"], "for whoever goes on with the list"


async def test_the_end_of_one_task_s_hook_does_not_end_that_of_another(tmp_path: Path, state_folder: Path) -> None:
    wait = "until test -e {}; do sleep 0.02; done"
    hook = f"case $CC_TASK_ID in a) {wait.format('b.asks')};; b) touch b.asks; {wait.format('a.ran')};; esac"
    both: list[object] = [{"id": "a", "run": "touch a.ran", "group": "both"}, {"id": "b", "run": "true", "group": "both"}]
    result = await cc_execute_list(both, cwd=tmp_path, parallel=2, hooks={"before_task": {"run": hook, "on_failure": "stop"}})
    assert ListHome(StateHome(state_folder)).find(result.list_id).state().notes == ()
    assert result.ok


def test_who_joins_a_list_without_hooks_takes_none_away(tmp_path: Path, state_folder: Path) -> None:
    folder = ListHome(StateHome(state_folder)).open(plan([step("a", "true")], cwd=tmp_path).tasks)
    keep_hooks(folder, hooks_given({"after_task": "exit 7"}))
    with folder.claimed():
        keep_hooks(folder, ())
        assert [each.command for each in kept_hooks(folder)] == ["exit 7"]
    keep_hooks(folder, ())
    assert kept_hooks(folder) == ()


async def test_the_hooks_of_a_run_are_written_down_before_its_process_is_there(tmp_path: Path, state_folder: Path) -> None:
    # Else whoever goes on for a kernel that was killed in that moment would not know of them.
    looked = await cc_execute(f"cat {state_folder}/runs/*/hooks*", cwd=tmp_path, hooks={"after_run": "true"}, **BASH)
    assert looked.text.startswith("plan ")


LIST_DRIVER = """
import sys
import tempfile
from cc_executor import cc_execute_task_list
folder = sys.argv[1]
cc_execute_task_list(
    [{"id": "a", "run": "true"}, {"id": "b", "run": f"touch {folder}/begun; until [ -e {folder}/go ]; do sleep 0.02; done"}], cwd=folder,
    hooks={moment: {"run": f"echo {moment} $CC_TASK_ID >> {folder}/called", "name": moment}
           for moment in ("before_list", "after_list", "before_task", "after_task", "after_run")})
"""


@pytest.mark.row(
    "faults", "the kernel dies while a list with hooks goes on", "whoever runs the list next calls what is owed, and nothing twice"
)
async def test_whoever_goes_on_with_a_list_calls_what_is_owed_once(tmp_path: Path) -> None:
    with driven(LIST_DRIVER, tmp_path) as driver:
        await eventually((tmp_path / "begun").exists)
        driver.send_signal(signal.SIGKILL)
    (tmp_path / "go").touch()
    again = [{"id": "a", "run": "true"}, {"id": "b", "run": f"touch {tmp_path}/begun; until [ -e {tmp_path}/go ]; do sleep 0.02; done"}]
    result = await cc_execute_list(again, cwd=tmp_path)
    assert result.ok
    expected = ["before_list", "before_task a", "after_run a", "after_task a", "before_task b", "after_run b", "after_task b", "after_list"]
    assert [line.strip() for line in (tmp_path / "called").read_text().splitlines()] == expected


LAST_HOOK_DRIVER = """
import sys
import tempfile
from cc_executor import cc_execute_task_list
folder = sys.argv[1]
last = f"test ! -e {folder}/called || exit 0; touch {folder}/called; read -r code < {folder}/gate; exit $code"
cc_execute_task_list([{"id": "a", "run": f"echo a >> {folder}/runs"}], cwd=folder,
                     hooks={"after_list": {"run": last, "name": "gate", "on_failure": "stop", "timeout": 60}})
"""


async def test_who_watches_a_list_waits_for_its_last_hook_and_hears_what_that_makes_of_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    with driven(LAST_HOOK_DRIVER, tmp_path) as driver:
        await eventually((tmp_path / "called").exists)
        seen: list[ListStatus] = []
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(
                cc_execute_list(
                    [{"id": "a", "run": f"echo a >> {tmp_path}/runs"}], cwd=tmp_path, on_state=lambda state: seen.append(state.status)
                )
            )
            await eventually(lambda: ListStatus.OK in seen)
            (tmp_path / "gate").write_text("6\n")
        assert driver.wait(BOUND) == 0
    assert watching.result().status == "failed"
    assert "'gate' (after_list) failed: exit code 6" in watching.result().summary
    assert (tmp_path / "runs").read_text() == "a\n"


async def test_what_is_wanted_again_while_the_last_hook_is_called_is_done_again(tmp_path: Path, state_folder: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    with driven(LAST_HOOK_DRIVER, tmp_path) as driver:
        await eventually((tmp_path / "called").exists)
        (folder,) = ListHome(StateHome(state_folder)).folders()
        assert folder.is_run()
        folder.append(RetryAsked(at=time.time(), tasks=("a",)))
        (tmp_path / "gate").write_text("0\n")
        assert driver.wait(BOUND) == 0
    assert folder.state().status is ListStatus.OK
    assert (tmp_path / "runs").read_text() == "a\na\n"


# --- whose hooks ------------------------------------------------------------------------------------------------------


async def test_the_environment_may_name_commands_and_what_is_wrong_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC_EXECUTOR_HOOKS", json.dumps([{"when": "after_run", "run": f"touch {tmp_path}/told"}]))
    assert reports(await ran()) == {"after_run touch": "ok"}
    assert (tmp_path / "told").exists()
    monkeypatch.setenv("CC_EXECUTOR_HOOKS", "after_run: touch")
    with pytest.raises(InvalidRequest, match="CC_EXECUTOR_HOOKS is not JSON"):
        await ran()


async def test_nothing_in_a_folder_is_a_hook(tmp_path: Path) -> None:
    """Names that this or other tools might read."""
    for name in (".claude-hooks.json", ".cc_executor/hooks.yaml", "hooks.yaml", ".claude/hooks.json", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"hooks: {{before_run: touch {tmp_path}/pwned}}")
    result = await ran(cwd=tmp_path)
    assert result.receipt.hooks == ()
    assert not (tmp_path / "pwned").exists()
    assert not (result.folder / HOOKS).exists()


async def test_what_a_hook_starts_has_no_hooks() -> None:
    inner: list[Result] = []

    async def again(_: dict[str, Any]) -> None:
        inner.append(await ran("true", hooks={"after_run": again}))

    result = await ran(hooks={"after_run": again})
    assert reports(result) == {"after_run again": "ok"}
    assert [each.receipt.hooks for each in inner] == [()]


PACKAGE = """
from cc_executor import cc_execute_sync
result = cc_execute_sync("true", agent="shell", shell="bash")
print([(each.hook, each.status.value, each.detail) for each in result.receipt.hooks])
"""


def test_an_installed_package_may_bring_hooks_and_a_broken_one_is_told(tmp_path: Path) -> None:
    info = tmp_path / "audit-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: audit\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{ENTRY_POINTS}]\nbefore_run.audit = audit:check\nafter_run.gone = nowhere:check\n"
        "on_error.gone = nowhere:check\nbefore_runs.audit = audit:check\n"
    )
    (tmp_path / "audit.py").write_text("def check(given): assert given['run']['prompt'] == 'true'\n")
    done = subprocess.run(
        [sys.executable, "-c", PACKAGE],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    told = {name: (status, why) for name, status, why in ast.literal_eval(done.stdout.splitlines()[-1])}
    gone = ("failed", "InvalidRequest: it cannot be loaded: No module named 'nowhere'")
    assert told.keys() == {"audit", "after_run.gone", "on_error.gone", "before_runs.audit"}
    assert (told["audit"], told["after_run.gone"], told["on_error.gone"]) == (("ok", ""), gone, gone)
    assert "needs `when`, one of before_run" in told["before_runs.audit"][1]


def test_a_redactor_masks_what_a_hook_says() -> None:
    from cc_executor.runtime.hookwork import Surroundings, perform

    each = Hook(moment=Moment.AFTER_RUN, command=f"echo {SECRET} >&2; exit 1", name="leaky")
    where = Surroundings(environ={"PATH": os.environ["PATH"]}, cwd="/", names={}, mark="none-hook")
    report = perform(each, {}, where=where, redactor=Redactor(), unwanted=threading.Event())
    assert report.detail == f"exit code 1: {MASK}"


async def test_a_secret_that_ends_beyond_where_a_text_is_cut_is_masked_all_the_same(called: list[dict[str, Any]], tmp_path: Path) -> None:
    def note(given: dict[str, Any]) -> None:
        called.append(given)

    def deliver(each: Hook, part: Mapping[str, Any]) -> HookReport:
        called.append(dict(part))
        return report_of(each, HookStatus.OK)

    await ran("#" * (PROMPT_CHARS - 16) + SECRET, cwd=tmp_path, hooks=[{"when": "before_run", "call": note}])
    pump = EventPump(Hook(moment=Moment.ON_EVENT, call=note, name="n"), deliver, lambda _: None, mask=Redactor().text)
    pump.feed([TextWritten(block="m:0", text="-" * (TEXT_CHARS - 16) + SECRET, whole=True)])
    pump.close()
    assert len(called) == 2
    assert SECRET[:12] not in json.dumps(called)


# --- the agent's own --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("claude_cli")
async def test_the_agents_own_hooks_are_events_and_a_failing_one_is_seen(tmp_path: Path) -> None:
    settings = {"PreToolUse": [{"hooks": [{"type": "command", "command": "echo broken hook >&2; exit 1"}]}]}
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude" / "settings.json").write_text(json.dumps({"hooks": settings}))
    events: list[Event] = []
    result = await cc_execute("go", rehearse="tour", cwd=tmp_path, trust_workspace=True, tools="Bash", on_event=events.append)
    assert result.ok, result
    ran_hooks = [event for event in events if isinstance(event, HookRan) and event.status != "started"]
    assert {event.name for event in ran_hooks} == {"PreToolUse:Write", "PreToolUse:Bash"}
    said = [notice(event) for event in ran_hooks]
    assert all(each is not None and each.level is Level.WARN and "broken hook" in each.text for each in said), said
    assert result.receipt.hooks == ()


async def test_where_there_is_no_room_for_what_a_hook_is_given_the_run_is_sealed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    result = await cc_execute("true", **BASH, cwd=tmp_path, hooks=[{"when": "after_run", "run": "true"}])
    assert result.receipt.outcome.ok
    (report,) = result.receipt.hooks
    assert (report.status, "could not be started" in report.detail) == (HookStatus.FAILED, True)


def test_the_log_of_a_long_list_whose_hooks_all_fail_is_read_whole(tmp_path: Path) -> None:
    """What cannot be read of it would be called a second time."""
    log = HookLog(tmp_path)
    log.begin("0")
    log.end("0", HookReport(hook="h" * 80, moment=Moment.AFTER_TASK, status=HookStatus.FAILED, detail="é" * DETAIL_CHARS, seconds=0.1))
    lines = (tmp_path / HOOKS).read_bytes()
    with open(tmp_path / HOOKS, "ab") as file:
        file.writelines(lines.replace(b'"0"', f'"{number}"'.encode()) for number in range(1, 20_000))
    story = log.read()
    assert (len(story.begun), len(story.reports)) == (20_000, 20_000)
