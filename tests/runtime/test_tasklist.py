"""Task lists with real runs: in order, each task once, whoever dies on the way."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from cc_executor.errors import InvalidRequest, InvalidTaskList, RunNotFound, StateUnusable, TaskListFailed
from cc_executor.listpage import ListPage
from cc_executor.model import event
from cc_executor.model.listrecord import (
    Begun,
    Edited,
    ListState,
    ListStatus,
    Paused,
    Record,
    Resumed,
    RetryAsked,
    SkipAsked,
    Stopped,
    TaskStatus,
    advance,
)
from cc_executor.model.reference import Made
from cc_executor.model.state import RunState
from cc_executor.policy.environment import DEEPEST, DEPTH
from cc_executor.policy.schedule import bounded
from cc_executor.runtime import attempt, control
from cc_executor.store.home import StateHome
from cc_executor.store.journal import RunFolder
from cc_executor.store.tasklists import JOURNAL, ListFolder, ListHome
from cc_executor.taskplan import plan, request_of
from cc_executor.tasks import ListResult, cc_execute_list, cc_execute_task_list, open_list
from support.leaks import await_none
from support.runs import BOUND, eventually


def step(task_id: str, command: str = "true", *needs: str, **more: object) -> dict[str, object]:
    """A command that says when it began and when it ended."""
    return {
        "id": task_id,
        "run": f"echo begin {task_id} >> log; {command}; code=$?; echo end {task_id} >> log; exit $code",
        "needs": needs,
        **more,
    }


def log(folder: Path) -> list[str]:
    file = folder / "log"
    return file.read_text().splitlines() if file.exists() else []


async def execute(folder: Path, *tasks: object, **more: Any) -> ListResult:
    return await cc_execute_list(tasks, cwd=folder, **more)


def statuses(result: ListResult) -> dict[str, str]:
    return {name: task.status.value for name, task in result.tasks.items()}


async def test_fifty_tasks_run_in_order(tmp_path: Path) -> None:
    result = await execute(tmp_path, *(step(f"t{n}") for n in range(50)))
    assert result.ok, result
    assert log(tmp_path) == [f"{word} t{n}" for n in range(50) for word in ("begin", "end")]
    assert len({task.run_id for task in result.tasks.values()}) == 50


@pytest.fixture
def odd_folder(tmp_path: Path) -> Path:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    return folder


async def test_a_list_runs_in_a_folder_whose_name_is_no_utf_8(odd_folder: Path) -> None:
    assert (await execute(odd_folder, step("a"), step("b", "true", "a"))).ok
    assert log(odd_folder) == ["begin a", "end a", "begin b", "end b"]
    assert statuses(await execute(odd_folder, step("a"), step("b", "true", "a"))) == {"a": "ok", "b": "ok"}
    assert len(log(odd_folder)) == 4, "it is known as the same list"


def test_a_shell_that_the_defaults_name_is_for_commands_alone(tmp_path: Path) -> None:
    given = {"defaults": {"shell": "sh"}, "tasks": [step("a"), {"id": "b", "prompt": "Greet the reader."}]}
    tasks = plan(given, cwd=tmp_path).tasks
    made = [request_of(tasks, task, task.text, None, "") for task in tasks.tasks]
    assert [(request.agent, request.shell) for request in made] == [("shell", "sh"), ("claude", None)]


@pytest.mark.parametrize("name", ["list\0.yaml", "list\ud800.yaml"])
def test_a_name_that_no_file_can_have_is_said_to_be_none(name: str) -> None:
    for source in (name, Path(name)):
        with pytest.raises(InvalidTaskList, match=r"cannot be read: .*(null byte|surrogates)"):
            plan(source)


async def test_paths_of_a_list_are_seen_from_its_folder_wherever_it_is_run(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('[[turn]]\n[[turn.block]]\ntext = "as written here"\n')
    task = {
        "id": "a",
        "prompt": "x",
        "cwd": "work",
        "rehearse": "own.toml",
        "add_dirs": ["data", "/srv"],
        "validate": {"prompt": "y", "rehearse": "./no.toml"},
    }
    with pytest.raises(InvalidTaskList, match=f"{tmp_path}/no.toml cannot be read"):
        plan([task], cwd=tmp_path)
    with pytest.raises(InvalidTaskList, match="cannot be read"):
        plan([{"call": print, "validate": task["validate"]}], cwd=tmp_path)
    del task["validate"]
    for given in (b"data", {"data"}, Path("data")):
        assert plan([task | {"add_dirs": given}], cwd=tmp_path).tasks.tasks[0].options["add_dirs"] in (
            f"{tmp_path}/data",
            [f"{tmp_path}/data"],
        )
    for name in ("work", "data"):
        (tmp_path / name).mkdir()
    result = await execute(tmp_path, task)
    assert (result.status, result["a"]) == ("ok", "as written here")
    assert RunFolder(result.result("a").folder).request().add_dirs == (f"{tmp_path}/data", "/srv")


async def test_results_reach_later_tasks_of_every_kind(tmp_path: Path) -> None:
    seen: list[Made] = []

    def count(needs: dict[str, Made]) -> dict[str, int]:
        seen.append(needs["list"])
        return {"lines": len(needs["list"].text.splitlines())}

    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    result = await execute(
        tmp_path,
        {"id": "list", "run": "printf 'a\\nb\\n'"},
        {"id": "count", "call": count, "needs": ["list"]},
        {"id": "answer", "call": answer},
        {"id": "agent", "prompt": "lines: {{ needs.count.result.lines }}, answer: {{ needs.answer }}, $HOME {{ x }}", "rehearse": "hello"},
        {"id": "read", "run": "cat $CC_NEEDS/count.json $CC_NEEDS/list.txt; ls $CC_NEEDS | wc -l", "needs": ["count", "list", "agent"]},
    )
    assert result.ok, result
    assert result["count"] == {"lines": 2}
    assert result["answer"] == 42
    assert (result.result("agent").folder / "prompt").read_text() == "lines: 2, answer: 42, $HOME {{ x }}"
    assert result["read"] == '{\n "lines": 2\n}a\nb\n4\n'
    assert [made.text for made in seen] == ["a\nb\n"]


async def test_a_long_text_reaches_later_tasks_whole(tmp_path: Path) -> None:
    script = tmp_path / "long.toml"
    script.write_text('[[turn]]\n[[turn.block]]\ntext = "0123456789"\nrepeat = 5000\npiece = 5000\n')
    whole = "".join(f"{n}\n" for n in range(1, 30_001))
    (tmp_path / "whole").write_text(whole)
    result = await execute(
        tmp_path,
        {"id": "numbers", "run": "seq 1 30000"},
        {"id": "essay", "prompt": "Write.", "rehearse": str(script)},
        {"id": "counted", "run": "cmp whole $CC_NEEDS/numbers.txt && wc -c < $CC_NEEDS/essay.txt", "needs": ["numbers", "essay"]},
        {
            "id": "called",
            "call": lambda needs: needs["numbers"].text == whole and len(needs["essay"].text) == 50_000,
            "needs": ["numbers", "essay"],
        },
        {"id": "asked", "prompt": "{{ needs.essay.text }}", "rehearse": "hello"},
    )
    assert result.ok, result
    assert result["counted"].strip() == "50000"
    assert result["called"] is True
    assert (result.result("asked").folder / "prompt").read_text().count("0123456789") == 5000
    # A receipt keeps both ends, and counts what is between them.
    kept = result.result("numbers").text
    assert kept.startswith("1\n2\n")
    assert kept.endswith("\n30000\n")
    assert f"[… {len(whole) - 32_000:,} characters left out" in kept
    assert result["numbers"] == kept


async def test_what_a_task_takes_in_of_all_that_it_needs_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "TAKEN_IN", 250_000)
    texts = [{"id": f"t{n}", "run": "head -c 100000 /dev/zero | tr '\\0' x", "group": "all"} for n in range(3)]
    two = {"id": "two", "run": "cat $CC_NEEDS/*.txt | wc -c", "needs": ["t0", "t1"]}
    three = {"id": "three", "run": "touch begun", "needs": ["t0", "t1", "t2"]}
    prompt = {"id": "prompt", "prompt": "Sum up " + " ".join(f"{{{{ needs.t{n} }}}}" for n in range(3)), "rehearse": "hello"}
    result = await execute(tmp_path, *texts, two, three, prompt, on_failure="continue")
    assert result["two"] == "200000\n"
    for name in ("three", "prompt"):
        assert result.tasks[name].status is TaskStatus.FAILED
        assert "have written 300,000 characters, and a task takes in 250,000 of all that it needs" in result.tasks[name].summary
        assert "write files" in result.tasks[name].summary
    assert not (tmp_path / "begun").exists()


async def test_a_prompt_that_is_too_long_by_what_it_takes_in_says_so(tmp_path: Path) -> None:
    texts = [{"id": f"t{n}", "run": "head -c 1000000 /dev/zero | tr '\\0' x", "group": "all"} for n in range(11)]
    prompt = {"id": "last", "prompt": "Sum up " + " ".join(f"{{{{ needs.t{n} }}}}" for n in range(11)), "rehearse": "hello"}
    result = await execute(tmp_path, *texts, prompt)
    assert result.tasks["last"].summary.startswith("With 10,999,")
    assert " characters from the tasks that it needs: The prompt " in result.tasks["last"].summary
    assert "put the material in" in result.tasks["last"].summary


async def test_whether_a_text_is_whole_does_not_depend_on_what_was_masked_in_it(tmp_path: Path, home: StateHome) -> None:
    key = f"(umask 77; echo canary | sha256sum | cut -c 1-64 > {home.root}/signing-key); cat {home.root}/signing-key"
    result = await execute(
        tmp_path,
        {"id": "barely", "run": "seq -f %09g 3201"},  # the receipt, with the line that counts the rest, is longer
        {"id": "token", "run": "printf 'Bearer %0300d\\n' 1; seq 30000"},  # the receipt is shorter than what it keeps at most
        {"id": "key", "run": f"seq 30000; {key}"},  # which its supervisor, older than the key, does not know
        {
            "id": "read",
            "run": "cd $CC_NEEDS; wc -l < barely.txt; for name in token key; do grep '[^0-9]' $name.txt; wc -l < $name.txt; done",
            "needs": ["barely", "token", "key"],
        },
    )
    assert result.ok, result
    assert result["read"].split() == ["3201", "[masked]", "30001", "[masked]", "30001"]


async def test_three_side_by_side_then_one_that_reads_all(tmp_path: Path) -> None:
    meet = "echo {0} > here-{0}; until [ -e here-g1 ] && [ -e here-g2 ] && [ -e here-g3 ]; do sleep 0.02; done; echo {0}"
    result = await execute(
        tmp_path,
        *(step(name, meet.format(name), group="g", timeout=90) for name in ("g1", "g2", "g3")),
        {"id": "all", "run": "cat $CC_NEEDS/*.txt", "needs": ["g1", "g2", "g3"]},
    )
    assert result.ok, result
    assert result["all"] == "g1\ng2\ng3\n"
    frame = result.to_frame()
    assert list(frame.index) == ["g1", "g2", "g3", "all"]
    assert (list(frame["status"]), list(frame["attempts"])) == (["ok"] * 4, [1] * 4)


async def test_a_failed_task_skips_its_dependants_alone(tmp_path: Path) -> None:
    tasks = [step("a"), step("b", "exit 3", "a"), step("c", "true", "b"), step("d", "true", "c"), step("e", "true", "a")]
    result = await execute(tmp_path, *tasks, on_failure="skip")
    assert statuses(result) == {"a": "ok", "b": "failed", "c": "skipped", "d": "skipped", "e": "ok"}
    assert result.status == "failed"
    with pytest.raises(TaskListFailed, match="2 of 5 tasks ended well"):
        result.raise_for_status()


async def test_a_check_outside_the_agent_decides(tmp_path: Path) -> None:
    result = await execute(tmp_path, {"id": "a", "prompt": "Make it.", "rehearse": "hello", "expect": "made.txt"}, step("b"))
    assert statuses(result) == {"a": "failed", "b": "waiting"}
    assert [check.passed for check in result.result("a").receipt.checks] == [False]


async def test_a_callable_that_raises_is_a_failed_task(tmp_path: Path) -> None:
    def broken() -> None:
        raise ZeroDivisionError("no")

    result = await execute(tmp_path, {"id": "a", "call": broken}, step("b"))
    assert statuses(result) == {"a": "failed", "b": "waiting"}
    assert result.tasks["a"].summary == "ZeroDivisionError: no"


async def test_what_is_tried_again_is_a_run_of_its_own(tmp_path: Path) -> None:
    result = await execute(tmp_path, step("a", "[ $(grep -c begin log) -ge 3 ]", retry=5))
    assert result.ok
    assert result.tasks["a"].begun == 3


async def test_a_run_that_lies_too_deep_is_not_tried_again(tmp_path: Path) -> None:
    environ = {**os.environ, DEPTH: str(DEEPEST)}
    result = await execute(
        tmp_path, step("a", retry=2), {"id": "b", "prompt": "x", "rehearse": "hello", "retry": 2}, environ=environ, on_failure="continue"
    )
    assert [(task.begun, task.outcome) for task in result.tasks.values()] == [(1, "denied"), (1, "denied")]
    assert "one within 5 others" in result.tasks["b"].summary
    assert result.cost == 0


async def test_a_finished_list_is_not_done_again_unless_it_is_to_be_fresh(tmp_path: Path) -> None:
    first = await execute(tmp_path, step("a"), step("b"))
    again = await execute(tmp_path, step("a"), step("b"))
    assert (again.list_id, again.tasks) == (first.list_id, first.tasks)
    assert len(log(tmp_path)) == 4
    fresh = await execute(tmp_path, step("a"), step("b"), fresh=True)
    assert fresh.list_id != first.list_id
    assert len(log(tmp_path)) == 8


async def test_a_function_with_other_values_is_other_work(tmp_path: Path) -> None:
    def greet(name: str, *, shout: bool = False) -> str:
        return name.upper() if shout else name

    def calls(name: str, seen: list[str]) -> list[Callable[[], str]]:
        def inner() -> str:
            seen.append(name)
            return name

        return [inner, lambda said=name: said]

    for name in ("Ada", "Grace"):
        result = await execute(tmp_path, partial(greet, name), partial(greet, "x", shout=name == "Ada"), *calls(name, []))
        assert [task.text for task in result.tasks.values()] == [name, "X" if name == "Ada" else "x", name, name]
    # What a function fills is no other work the next time.
    again = await execute(tmp_path, partial(greet, "Grace"), partial(greet, "x", shout=False), *calls("Grace", ["filled"]))
    assert again.list_id == result.list_id


async def test_a_failed_list_goes_on_where_it_failed(tmp_path: Path) -> None:
    tasks = (step("a"), step("b", "[ -e mended ]"), step("c", "true", "b"))
    assert not (await execute(tmp_path, *tasks)).ok
    (tmp_path / "mended").touch()
    result = await execute(tmp_path, *tasks)
    assert result.ok
    assert [line for line in log(tmp_path) if line.startswith("begin")] == ["begin a", "begin b", "begin b", "begin c"]


def test_the_blocking_way_is_the_same(tmp_path: Path) -> None:
    assert cc_execute_task_list([step("a")], cwd=tmp_path).ok


# --- what people do meanwhile -----------------------------------------------------------------------------------------


async def played(
    folder: Path, home: StateHome, tasks: list[object], act: Callable[[ListFolder, ListState], bool], **more: Any
) -> ListResult:
    """Run a list; `act` is called with every state until it says that it has done its part."""
    planned = plan(tasks, cwd=folder, **more)
    done = False

    def look(state: ListState) -> None:
        nonlocal done
        if not done:
            done = True  # what it appends comes back here
            done = act(ListHome(home).open(planned.tasks), state)

    return await cc_execute_list(planned, on_state=look)


def running(state: ListState, name: str) -> bool:
    return state.task(name).status is TaskStatus.RUNNING


async def test_stop_ends_what_runs_and_starts_nothing(tmp_path: Path, home: StateHome) -> None:
    def stop(folder: ListFolder, state: ListState) -> bool:
        if running(state, "a"):
            folder.append(Stopped(at=0.0))
        return running(state, "a")

    result = await played(tmp_path, home, [step("a", "sleep 60"), step("b")], stop)
    assert statuses(result) == {"a": "stopped", "b": "waiting"}
    assert result.status == "stopped"
    assert not await_none([tmp_path])


async def test_a_task_is_left_out_another_edited(tmp_path: Path, home: StateHome) -> None:
    def act(folder: ListFolder, state: ListState) -> bool:
        if running(state, "a"):
            folder.append(SkipAsked(at=0.0, task="b"))
            folder.append(Edited(at=0.0, task="c", text="echo edited"))
        return running(state, "a")

    result = await played(tmp_path, home, [step("a"), step("b"), step("c")], act)
    assert statuses(result) == {"a": "ok", "b": "skipped", "c": "ok"}
    assert result["c"] == "edited\n"
    assert result.ok


async def test_pause_holds_what_runs_and_what_comes(tmp_path: Path, home: StateHome) -> None:
    planned = plan([step("a", "while [ ! -e go ]; do echo x >> ticks; sleep 0.02; done"), step("b")], cwd=tmp_path)
    folder = ListHome(home).open(planned.tasks)

    def ticks() -> int:
        return len((tmp_path / "ticks").read_text().splitlines()) if (tmp_path / "ticks").exists() else 0

    async def hold() -> None:
        await eventually(lambda: ticks() > 3)
        folder.append(Paused(at=0.0))
        (run,) = home.runs()
        await eventually(lambda: any(isinstance(record, event.Paused) for record in run.control_records()[0]))
        before = ticks()
        (tmp_path / "go").touch()
        await anyio.sleep(0.5)  # nothing can be waited for: that nothing happens is what is to be seen
        assert ticks() == before
        assert "begin b" not in log(tmp_path)
        folder.append(Resumed(at=0.0))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold)
        result = await cc_execute_list(planned)
    assert result.ok


@pytest.mark.row("faults", "a task of a list ends while another one's supervisor stands still", "the list goes on")
async def test_a_task_may_end_while_another_is_being_held(tmp_path: Path, home: StateHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ANSWER_BUDGET", BOUND)
    waits = "while [ ! -e go-{0} ]; do sleep 0.02; done"
    planned = plan([step(name, waits.format(name), group="g") for name in "ab"], cwd=tmp_path)
    folder = ListHome(home).open(planned.tasks)

    def look(state: ListState) -> None:
        if state.is_paused:  # the first one is told now
            (tmp_path / "go-b").touch()

    async def hold() -> None:
        await eventually(lambda: {"begin a", "begin b"} <= set(log(tmp_path)))
        run = home.folder(folder.state().task("a").run_id)
        await eventually(lambda: run.control_records()[0])  # an agent may be faster than what is written of its start
        (started,) = run.control_records()[0]
        assert isinstance(started, event.Started)
        os.kill(started.shim_pid, signal.SIGSTOP)
        folder.append(Paused(at=0.0))
        await eventually(lambda: folder.state().task("b").status is TaskStatus.OK)
        os.kill(started.shim_pid, signal.SIGCONT)
        folder.append(Resumed(at=0.0))
        (tmp_path / "go-a").touch()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold)
        result = await cc_execute_list(planned, on_state=look)
    assert result.ok


async def test_a_task_is_done_again_by_wish(tmp_path: Path, home: StateHome) -> None:
    planned = plan([step("a"), step("b", "true", "a")], cwd=tmp_path)
    assert (await cc_execute_list(planned)).ok
    ListHome(home).open(planned.tasks).append(RetryAsked(at=0.0, tasks=("b",)))
    assert (await cc_execute_list(planned)).ok
    assert [line for line in log(tmp_path) if line.startswith("begin")] == ["begin a", "begin b", "begin b"]


async def test_who_is_cancelled_stops_the_list(tmp_path: Path, home: StateHome) -> None:
    planned = plan([step("a", "sleep 60"), step("b")], cwd=tmp_path)
    with anyio.move_on_after(60) as scope:
        await cc_execute_list(planned, on_state=lambda state: scope.cancel() if running(state, "a") else None)
    assert scope.cancelled_caught
    state = ListHome(home).open(planned.tasks).state()
    assert state.status is ListStatus.STOPPED
    assert not await_none([tmp_path])


async def test_a_task_that_the_cap_could_never_let_start_is_told_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(InvalidTaskList, match=r"'b': may cost \$2\.00, and the whole list \$1\.00: it could never start"):
        await execute(tmp_path, step("a"), {"id": "b", "prompt": "x", "max_cost": 2, "rehearse": "hello"}, max_cost=1)
    assert not (tmp_path / "log").exists()


# --- who dies on the way ----------------------------------------------------------------------------------------------

RUNNER = "import json, sys; from cc_executor.tasks import cc_execute_task_list as run; print(run(json.loads(sys.argv[1]), cwd=sys.argv[2]).status)"


def runner(folder: Path, tasks: list[dict[str, object]]) -> subprocess.Popen[bytes]:
    """Another process that runs the list."""
    return subprocess.Popen([sys.executable, "-c", RUNNER, json.dumps(tasks), str(folder)], stdout=subprocess.PIPE, start_new_session=True)


def begins(folder: Path) -> list[str]:
    return [line.removeprefix("begin ") for line in log(folder) if line.startswith("begin ")]


async def test_two_who_start_the_same_list_do_each_task_once(tmp_path: Path) -> None:
    tasks = [step(f"t{n}") for n in range(8)]
    both = [runner(tmp_path, tasks) for _ in range(2)]
    for process in both:
        out, _ = process.communicate(timeout=100)
        assert out.decode().strip() == "ok"
    assert begins(tmp_path) == [f"t{n}" for n in range(8)]


async def test_who_joins_a_list_that_somebody_runs_changes_the_bounds_that_he_names_alone(tmp_path: Path, home: StateHome) -> None:
    tasks = [step("a", "until [ -e go ]; do sleep 0.02; done")]

    def holds(folder: ListFolder) -> tuple[float | None, float | None, str]:
        held = bounded(folder.tasks(), folder.state())
        return held.max_cost, held.max_cost_per_day, held.on_limit.value

    async with anyio.create_task_group() as group:
        group.start_soon(lambda: execute(tmp_path, *tasks, max_cost=5, on_limit="wait"))
        await eventually(lambda: begins(tmp_path) == ["a"])
        folder = next(ListHome(home).folders())
        joined, joined_later = asyncio.Event(), asyncio.Event()
        group.start_soon(lambda: execute(tmp_path, *tasks, on_state=lambda _: joined.set()))
        await joined.wait()
        assert holds(folder) == (5, None, "wait")
        group.start_soon(lambda: execute(tmp_path, *tasks, max_cost=3, max_cost_per_day=20))
        await eventually(lambda: holds(folder) == (3, 20, "wait"))
        # A bound of his environment is for what he starts himself.
        environ = {**os.environ, "CC_EXECUTOR_MAX_COST_PER_DAY": "100"}
        group.start_soon(lambda: execute(tmp_path, *tasks, environ=environ, on_state=lambda _: joined_later.set()))
        await joined_later.wait()
        assert holds(folder) == (3, 20, "wait")
        # What is the usual can be named, too.
        group.start_soon(lambda: execute(tmp_path, *tasks, on_limit="stop"))
        await eventually(lambda: holds(folder) == (3, 20, "stop"))
        (tmp_path / "go").touch()
    assert begins(tmp_path) == ["a"]


async def test_a_killed_runner_s_task_goes_on_and_the_next_adopts_it(tmp_path: Path) -> None:
    tasks = [step("t1"), step("t2"), step("t3", "until [ -e go ]; do sleep 0.02; done"), step("t4"), step("t5")]
    process = runner(tmp_path, tasks)
    await eventually(lambda: begins(tmp_path) == ["t1", "t2", "t3"])
    process.kill()
    process.wait()
    (tmp_path / "go").touch()
    result = await execute(tmp_path, *tasks)
    assert result.ok
    assert begins(tmp_path) == ["t1", "t2", "t3", "t4", "t5"]
    assert result.tasks["t3"].begun == 1


async def test_a_task_that_died_with_its_runner_is_done_again(tmp_path: Path, home: StateHome) -> None:
    tasks = [step("t1"), step("t2", "[ $(grep -c 'begin t2' log) -ge 2 ] || sleep 60"), step("t3")]
    process = runner(tmp_path, tasks)
    await eventually(lambda: begins(tmp_path) == ["t1", "t2"])
    process.kill()
    process.wait()
    newest = next(iter(home.runs()))
    await eventually(lambda: newest.control_records()[0])  # an agent may be faster than what is written of its start
    shim = next(record.shim_pid for record in newest.control_records()[0] if isinstance(record, event.Started))
    os.kill(shim, signal.SIGKILL)
    result = await execute(tmp_path, *tasks)
    assert result.ok, result
    assert begins(tmp_path) == ["t1", "t2", "t2", "t3"]
    assert result.tasks["t2"].begun == 2


@pytest.mark.parametrize("record", [Paused(at=0.0), Stopped(at=0.0)], ids=["held", "stopped"])
async def test_a_list_that_was_left_held_or_half_stopped_goes_on(tmp_path: Path, home: StateHome, record: Record) -> None:
    tasks = [step("a"), step("b")]
    ListHome(home).open(plan(tasks, cwd=tmp_path).tasks).append(record)
    result = await execute(tmp_path, *tasks)
    assert result.ok, result
    assert begins(tmp_path) == ["a", "b"]


async def test_a_torn_record_is_passed_over(tmp_path: Path, home: StateHome) -> None:
    planned = plan([step("a")], cwd=tmp_path)
    folder = ListHome(home).open(planned.tasks)
    (folder.path / JOURNAL).write_bytes(b'{"kind":"begun","at":1.0,"ta')
    assert (await cc_execute_list(planned)).ok
    assert folder.state().status is ListStatus.OK


async def test_a_task_that_was_never_launched_says_why_and_names_no_run(tmp_path: Path, home: StateHome) -> None:
    listed = await execute(tmp_path, {"id": "words", "run": "echo hello"}, {"id": "use", "prompt": "{{ needs.words.data.title }}"})
    assert statuses(listed) == {"words": "ok", "use": "failed"}
    assert listed.result("words").text.strip() == "hello"
    with pytest.raises(RunNotFound, match=r"^Task 'use' has no run that has ended: .*cannot be filled in"):
        listed.result("use")
    for look in (listed.result, listed.__getitem__):
        with pytest.raises(KeyError, match=r"has no task .word.\. It has words, use"):
            look("word")
    assert listed.tasks["use"].run_id == ""  # there is none to show
    numbered = await execute(tmp_path, {"run": "echo hello"})
    assert (numbered[1], numbered["1"], numbered.result(1).status) == ("hello\n", "hello\n", "ok")
    assert ListHome(home).find(listed.list_id).state().task("use").run_id == ""


async def test_what_cannot_be_asked_for_is_not_tried_again(tmp_path: Path, home: StateHome) -> None:
    """A reference that nothing can fill in, and a prompt that became too long."""
    listed = await execute(
        tmp_path,
        {"id": "words", "run": "seq 2000000", "timeout": 60},
        {"id": "part", "prompt": "{{ needs.words.data.title }}", "retry": 2},
        {"id": "long", "prompt": "{{ needs.words.text }}" * 12, "retry": 2},
        on_failure="continue",
    )
    assert statuses(listed) == {"words": "ok", "part": "failed", "long": "failed"}
    assert [listed.tasks[name].begun for name in ("part", "long")] == [1, 1]
    assert "tasks edit" in listed.tasks["part"].summary
    again = ListHome(home).find(listed.list_id)
    assert [again.state().task(name).hit for name in ("part", "long")] == ["invalid", "invalid"]


async def test_bad_input_is_said_whole_and_nothing_is_started(tmp_path: Path, home: StateHome) -> None:
    with pytest.raises(InvalidTaskList) as caught:
        await execute(tmp_path, {"id": "a", "prompt": "x", "timeout": -1}, {"id": "b", "run": "y", "colour": "red", "needs": ["c"]})
    assert len(caught.value.problems) == 3
    assert "tasks[0] 'a': timeout must be a number greater than 0" in str(caught.value)
    assert "tasks[1] 'b': There is no option 'colour'." in str(caught.value)
    with pytest.raises(InvalidTaskList, match=r"tasks\[0\] 'a': title must have at most 200 characters \(given: 't{79}…\)\.$"):
        await execute(tmp_path, {"id": "a", "run": "y", "title": "t" * 1000})
    for wrong in (5, None, b"Task 1: x"):
        with pytest.raises(InvalidTaskList, match="tasks: must be prompts, callables and mappings, or a file's path, or a text, not "):
            await cc_execute_list(cast("Any", wrong))
    with pytest.raises(InvalidRequest, match="needs `when`"):
        await execute(tmp_path, step("a"), hooks={"soon": "true"})
    assert not home.root.exists()


def test_what_the_caller_says_of_the_whole_list_holds_in_whatever_form_the_list_is(tmp_path: Path) -> None:
    text = "defaults: {model: file, timeout: 9}\ntasks:\n- prompt: x\n"
    (tmp_path / "plan.md").write_text("Task 1: x\n")
    said: dict[str, Any] = {"cwd": tmp_path, "max_cost": 2.0, "defaults": {"timeout": 5}}
    made = [plan(given, **said).tasks for given in (["x"], text, tmp_path / "plan.md", {"tasks": ["x"], "defaults": {"timeout": 9}})]
    assert [(tasks.max_cost, tasks.tasks[0].options["timeout"]) for tasks in made] == [(2.0, 5)] * 4
    assert made[1].tasks[0].options["model"] == "file"
    for given in (["x"], text, made[0]):
        with pytest.raises(InvalidTaskList, match="paralel: is nothing that a list has; it has name"):
            plan(given, paralel=3)
    checked = plan(made[0], max_cost=0.5, cwd=tmp_path / "other")
    assert (checked.tasks.max_cost, checked.tasks.cwd) == (0.5, str(tmp_path / "other"))
    with pytest.raises(InvalidRequest, match="planned already: say max_cost"):
        cc_execute_task_list(checked, max_cost=1.0)


async def test_a_file_that_is_not_there_and_a_state_folder_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidTaskList, match=r"no-such\.yaml"):
        plan("no-such.yaml", cwd=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(StateUnusable):
        await execute(tmp_path, step("a"), state=tmp_path / "file")


def test_a_list_from_a_file_beside_the_others(tmp_path: Path) -> None:
    (tmp_path / "night.yaml").write_text("tasks:\n- run: echo hi\n")
    (tmp_path / "plan.md").write_text("Task 1: x\n")
    assert plan("night.yaml", cwd=tmp_path).tasks.name == "night"
    assert plan(tmp_path / "plan.md", cwd=tmp_path).tasks.tasks[0].text == "x"
    began = time.monotonic()
    plan([{"id": f"t{n}", "prompt": "x", "needs": [f"t{n - 1}"] if n else []} for n in range(1000)], cwd=tmp_path)
    assert time.monotonic() - began < 60  # a quadratic check would take minutes


async def test_who_is_cancelled_while_the_list_is_held_ends_what_stands_still(tmp_path: Path, home: StateHome) -> None:
    planned = plan([step("a", "sleep 60")], cwd=tmp_path)
    folder = ListHome(home).open(planned.tasks)

    def hold(state: ListState) -> None:
        if running(state, "a") and not state.is_paused:
            folder.append(Paused(at=0.0))
        elif state.is_paused:
            scope.cancel()

    with anyio.move_on_after(60) as scope:
        await cc_execute_list(planned, on_state=hold)
    assert folder.state().task("a").status is TaskStatus.STOPPED
    assert not await_none([tmp_path])


async def test_what_stays_of_a_list_names_the_runs_that_have_looked_at_its_work(tmp_path: Path, home: StateHome) -> None:
    task = {
        "id": "a",
        "prompt": "x",
        "rehearse": "hello",
        "validate": {"prompt": "is it so?", "rehearse": "hello"},
        "on_unchecked": "accept",
    }
    planned = plan([task], cwd=tmp_path)
    result = await cc_execute_list(planned)
    folder = ListHome(home).find(result.list_id)
    ended = ListPage(folder, planned.tasks, home).ended(folder.state())
    assert {each["run_id"] for each in ended.receipts} == {run.run_id for run in home.runs()}
    assert len(ended.receipts) == 2


def test_a_row_names_a_file_from_the_folder_of_its_own_task(tmp_path: Path, home: StateHome) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "own").symlink_to("real")
    tasks = plan([{"id": "a", "prompt": "x"}, {"id": "b", "prompt": "x", "cwd": "own"}], cwd=tmp_path)
    page = ListPage(open_list(tasks, home), tasks.tasks, home)
    state = ListState()
    for task in ("a", "b"):
        state = advance(state, Begun(at=0.0, task=task, attempt=1, run_id=f"{task}-1"))
        page.board.show(state)
        read = event.ToolCalled(tool_id="t", name="Read", input=json.dumps({"file_path": f"{tmp_path}/real/f.py"}))
        page.board.apply(task, [read], RunState(), 0.0)
    assert [page.board.row(task).line for task in ("a", "b")] == ["Read(real/f.py)", "Read(f.py)"]
